"""The simulation of failures against its formulas, and against itself."""

import math
from pathlib import Path

import numpy as np
import pytest

from tpo_core.errors import TpoError
from tpo_core.plan import scale
from tpo_core.plan.faults import Faults, assume_faults, daly_s, expected_wall_s, young_s
from tpo_core.plan.simulate import Training, preprocessing_s

DOCS = Path(__file__).resolve().parents[3] / "docs" / "scale.md"
HOUR_S = 3600.0


def faults(**changes):
    return Faults(
        **{"write_s": 0.0, "pause_s": 5.0, "restart_s": 60.0, "replace_s": 600.0, "notice_s": 10.0, **changes}
    )


class Once:
    """One failure after so many seconds, then none."""

    def __init__(self, gap_s):
        self.gaps = [gap_s]

    def exponential(self, mean):
        return self.gaps.pop() if self.gaps else math.inf


def trained(chosen, *, nodes=8, interval_s=600.0, work_s=100 * HOUR_S, elastic=False, seed=0):
    return Training(work_s, nodes, chosen, interval_s, elastic, np.random.default_rng(seed)).run()


@pytest.mark.parametrize("mtbf_h", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("interval_s", [120.0, 900.0])
def test_it_agrees_with_the_closed_form(mtbf_h, interval_s):
    chosen = faults(node_mtbf_h=8 * mtbf_h)
    work_s = 5000 * mtbf_h * HOUR_S
    expected = expected_wall_s(work_s, interval_s, chosen.pause_s, chosen.down_s(elastic=False), mtbf_h * HOUR_S)
    assert trained(chosen, interval_s=interval_s, work_s=work_s).time_s == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("pause_s", "mtbf_s"), [(1.0, 44_000.0), (5.0, 3_600.0), (60.0, 7_200.0)])
def test_the_formulas_find_the_least_time(pause_s, mtbf_s):
    tried = np.geomspace(5, 50_000, 4000)
    times = [expected_wall_s(1.0, interval_s, pause_s, 300.0, mtbf_s) for interval_s in tried]
    optimum_s = tried[int(np.argmin(times))]
    assert daly_s(pause_s, mtbf_s) == pytest.approx(optimum_s, rel=0.01)
    assert young_s(pause_s, mtbf_s) == pytest.approx(optimum_s, rel=0.15)
    assert daly_s(10 * mtbf_s, mtbf_s) == mtbf_s


def test_the_best_simulated_interval_is_that_of_the_formula():
    chosen = faults(node_mtbf_h=24.0)
    mtbf_s = chosen.mtbf_s(8)
    tried = [daly_s(chosen.pause_s, mtbf_s) * factor for factor in (0.2, 0.5, 1.0, 2.0, 5.0)]
    times = [trained(chosen, interval_s=each, work_s=4000 * mtbf_s).time_s for each in tried]
    assert min(times) == times[2]


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("nodes", [1, 2, 16])
@pytest.mark.parametrize("write_s", [0.0, 90.0, 2000.0])
def test_all_time_is_accounted_for(elastic, nodes, write_s):
    chosen = faults(node_mtbf_h=nodes * 1.5, write_s=write_s)
    run = trained(chosen, nodes=nodes, elastic=elastic)
    stretched = write_s > 600.0 + chosen.pause_s  # waiting for the write before is in no column
    known = run.work_s + run.pauses_s + run.lost_s + run.slow_s + run.down_s
    assert run.saved_s == pytest.approx(run.work_s)
    assert known <= run.time_s * (1 + 1e-9)
    assert stretched or known == pytest.approx(run.time_s)
    assert run.failures > 20
    assert (run.slow_s > 0) == (elastic and nodes > 1)
    assert 0 < run.alive <= nodes


def test_nothing_fails_and_nothing_is_lost():
    calm = faults(node_mtbf_h=1e12)
    run = trained(calm, work_s=6000.0, interval_s=600.0)
    assert run.time_s == 6000.0 + 9 * 5.0  # none at the end
    assert (run.lost_s, run.down_s, run.failures) == (0, 0, 0)


def test_a_loss_costs_the_work_since_the_last_checkpoint_in_the_bucket():
    chosen = faults(pause_s=0.0)
    run = Training(6000.0, 8, chosen, 600.0, False, Once(1500.0)).run()
    assert run.lost_s == 300.0
    assert run.time_s == 6000.0 + 300.0 + chosen.down_s(elastic=False)
    late = Training(6000.0, 8, faults(pause_s=0.0, write_s=400.0), 600.0, False, Once(1500.0)).run()
    assert late.lost_s == 900.0  # the second one was on its way
    elastic = Training(6000.0, 8, chosen, 600.0, True, Once(1500.0)).run()
    seconds_short = chosen.replace_s - chosen.down_s(elastic=True)  # on seven nodes of eight
    assert elastic.slow_s == pytest.approx(seconds_short / 8)
    assert elastic.down_s == chosen.down_s(elastic=True) + chosen.restart_s


def test_elastic_pays_where_replacements_are_slow():
    slow = faults(node_mtbf_h=64.0, replace_s=7200.0)
    assert trained(slow, elastic=True, work_s=500 * HOUR_S).time_s < trained(slow, work_s=500 * HOUR_S).time_s
    alone = faults(node_mtbf_h=3.0)
    assert trained(alone, nodes=1, elastic=True).time_s == trained(alone, nodes=1).time_s


def test_a_chain_starts_its_workers_once_a_stage_and_ends_each_stage_for_good(monkeypatch):
    monkeypatch.setattr(scale, "CHAINS", 50)
    calm = Faults(node_mtbf_h=1e12, pause_s=0.0, stage_hours={"a": 1.0, "b": 2.0})
    chain = scale.simulate_chain(64, 600.0, calm, elastic=False)
    assert (chain.hours, chain.lost) == (pytest.approx(3.0 + 2 * calm.restart_s / 3600), 0)
    rough = calm.model_copy(update={"node_mtbf_h": 16.0, "stage_hours": {"a": 40.0}})
    long = scale.simulate(64, 600.0, rough, elastic=False, failures=5000)
    alone = scale.simulate_chain(64, 600.0, rough, elastic=False)
    assert alone.hours == pytest.approx(40.0 / long.goodput, rel=0.05)
    assert alone.lost == pytest.approx(alone.hours / 2.0, rel=0.1)  # 8 nodes: one in two hours
    # without checkpoints in between, a stage that ended is what shorter stages do not lose
    cut = rough.model_copy(update={"stage_hours": {"a": 2.0, "b": 2.0}})
    whole = rough.model_copy(update={"stage_hours": {"a": 4.0}})
    once = [scale.simulate_chain(64, 1e9, each, elastic=False).hours for each in (cut, whole)]
    assert once[0] < once[1]


def test_starting_is_no_work_and_may_fail_too():
    """Each stage begins with a start, which a lost node makes longer."""
    calm = faults(node_mtbf_h=1e12)
    assert trained(calm, work_s=600.0).time_s == 600.0
    started = Training(600.0, 8, calm, 600.0, False, np.random.default_rng(0)).start()
    assert (started.time_s, started.down_s, started.saved_s) == (60.0, 60.0, 0.0)
    assert started.run().time_s == 660.0
    failed = Training(600.0, 8, faults(), 600.0, False, Once(20.0)).start()
    assert failed.failures == 1
    assert failed.time_s == failed.down_s == 20.0 + failed.faults.down_s(elastic=False)


def test_preprocessing_keeps_finished_files():
    calm = faults(cpu_node_mtbf_h=1e12, cpu_node_cores=4, file_s=100.0)
    assert preprocessing_s(40, 2, calm, np.random.default_rng(0)) == 5 * 100.0
    assert preprocessing_s(41, 2, calm, np.random.default_rng(0)) == 6 * 100.0
    rough = faults(cpu_node_mtbf_h=1.0, cpu_node_cores=4, file_s=100.0)
    seconds = np.mean([preprocessing_s(4000, 2, rough, np.random.default_rng(seed)) for seed in range(20)])
    # an hour of work, then half a file and a replacement: goodput (1 h - 50 s) / (1 h + 600 s)
    assert seconds == pytest.approx(500 * 100.0 * (3600 + 600) / (3600 - 50), rel=0.05)


def test_documents_hold_what_the_command_prints(tmp_path):
    printed = []
    assert scale.main(["--plot", str(tmp_path / "scale.png")], printed.append) == 0
    text = DOCS.read_text(encoding="utf-8")
    assert len(printed) == 3
    for part in printed:
        assert part.strip() in text
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--failures", "0"], r"--failures 0: must be >= 1"),
        (["--assume", "node_mtbf=3"], r"unknown key 'node_mtbf'.*node_mtbf_h"),
        (["--assume", "node_mtbf_h=0"], r"node_mtbf_h = 0: must be > 0"),
        (["--assume", "node_mtbf_h"], r"write it as KEY=VALUE"),
    ],
)
def test_mistakes_are_one_line(argv, message):
    with pytest.raises(TpoError, match=message):
        scale.main(argv)


def test_assumptions_are_read():
    assert assume_faults(["node_mtbf_h=10"]).mtbf_s(10) == HOUR_S
