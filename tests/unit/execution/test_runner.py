"""Run, skip, resume, and the line that says why."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from tpo_core.errors import TpoError
from tpo_core.execution.artifact import Artifact
from tpo_core.execution.runner import run_steps
from tpo_core.execution.steps import Step, fingerprints
from tpo_core.storage import uri as uris


def test_a_chain_runs_once_and_is_skipped_afterwards(chain):
    made = chain.run()
    assert (chain.calls, chain.verbs()) == (["numbers", "total"], ["RUN", "DONE", "RUN", "DONE"])
    assert made["total"].result == {"sum": 3.0, "found": "fresh"}
    again = chain.run()
    assert (chain.calls, chain.verbs()) == ([], ["SKIP", "SKIP"])
    assert again == made


def test_lines_say_name_fingerprint_and_reason(chain):
    made = chain.run()
    short = made["numbers"].fingerprint[:12]
    assert re.fullmatch(rf"RUN     numbers +{short}  no earlier result  \[\.{{10}}\] 1/2  0:00 so far", chain.lines[0])
    assert re.fullmatch(rf"DONE    numbers +{short}  in \d+\.\d s  \[#####\.....\] 1/2  0:00 so far", chain.lines[1])
    chain.run()
    assert re.fullmatch(rf"SKIP    numbers +{short}  finished \d s ago", chain.lines[0])


def test_lines_say_where_the_chain_stands_and_estimate_by_earlier_runs(chain):
    chain.run()
    for record in Path(chain.work).glob("*/*/artifact.json"):
        content = json.loads(record.read_text())
        content["provenance"]["seconds"] = {"numbers": 90, "total": 600}[content["step"]]
        record.write_text(json.dumps(content))
    chain.upto = 4
    chain.run()
    assert chain.lines[0].endswith("[..........] 1/2  0:00 so far, about 11:30 to go")
    assert chain.lines[1].endswith("[#####.....] 1/2  0:00 so far, about 10:00 to go")
    assert chain.lines[2].endswith("[#####.....] 2/2  0:00 so far, about 10:00 to go")
    assert chain.lines[3].endswith("[##########] 2/2  0:00 so far")
    assert chain.stood == ["[#####.....] 2/2  0:00 so far"]  # what is to go after it


def test_what_was_resumed_estimates_nothing(chain):
    chain.breaks = RuntimeError("no luck")
    with pytest.raises(RuntimeError):
        chain.run()
    chain.breaks = None
    chain.run()
    chain.scale = 2.0
    chain.run()
    assert "to go" not in chain.lines[1]


def test_layout_and_record(chain):
    made = chain.run()["total"]
    folder = Path(chain.work, "total", made.fingerprint[:12])
    assert made.path == folder
    assert sorted(os.listdir(folder)) == ["_SUCCESS", "artifact.json", "half.txt"]
    assert os.listdir(folder.parent) == [folder.name]
    record = json.loads((folder / "artifact.json").read_text())
    assert record["fingerprint"] == made.fingerprint == fingerprints(chain.steps())["total"]
    assert record["inputs"] == {"numbers": fingerprints(chain.steps())["numbers"]}
    assert record["identity"] == {"scale": 1.0}
    assert {"commit", "argv", "host", "user", "started_at", "finished_at", "seconds"} <= set(record["provenance"])
    assert (record["provenance"]["files"], record["provenance"]["bytes"]) == (1, 4)
    assert Artifact.load(folder) == made


def test_a_changed_field_is_named_and_runs_what_depends_on_it(chain):
    chain.run()
    chain.upto = 4
    made = chain.run()
    assert "  data.upto 3 -> 4  [" in chain.lines[0]
    assert "  upstream numbers changed  [" in chain.lines[2]
    assert made["total"].result["sum"] == 6.0
    chain.upto = 3
    chain.run()
    assert chain.verbs() == ["SKIP", "SKIP"]


def test_only_the_changed_end_of_a_chain_runs(chain):
    chain.run()
    chain.scale = 2.0
    chain.run()
    assert chain.verbs() == ["SKIP", "RUN", "DONE"]
    assert "  scale 1.0 -> 2.0  [" in chain.lines[1]


def test_a_new_code_version_runs_again(chain):
    chain.run()
    chain.version = 2
    chain.run()
    assert "  code version 1 -> 2  [" in chain.lines[0]


def test_many_changes_are_cut_short(tmp_path):
    lines: list[str] = []
    for value in (1, 2):
        step = Step("wide", lambda _: {}, {name: value for name in "abcde"})
        run_steps([step], str(tmp_path), echo=lines.append)
    assert "  a 1 -> 2, b 1 -> 2, c 1 -> 2, 2 more  [" in lines[2]


def test_added_and_removed_inputs_are_named(tmp_path):
    lines: list[str] = []
    a, b = Step("a", lambda _: {}, {}), Step("b", lambda _: {}, {})
    for inputs in (("a",), ("b",)):
        run_steps([a, b, Step("c", lambda _: {}, {}, inputs)], str(tmp_path), echo=lines.append)
    assert any("  upstream a removed, upstream b added  [" in line for line in lines)


def test_a_failed_step_is_told_once_kept_and_resumed(chain):
    chain.breaks = RuntimeError("no luck")
    with pytest.raises(RuntimeError, match="luck"):
        chain.run()
    assert chain.verbs() == ["RUN", "DONE", "RUN", "FAIL"]
    assert chain.lines[-1].endswith("RuntimeError: no luck")
    assert len(chain.partials()) == 1
    chain.breaks = None
    made = chain.run()
    assert chain.verbs() == ["SKIP", "RESUME", "DONE"]
    assert "left unfinished" in chain.lines[1]
    assert (chain.resumed, made["total"].result["found"]) == ([False, True], "half")
    assert made["total"].provenance["resumed"]
    assert chain.partials() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_step_keeps_its_work_and_gives_back_its_lease(chain, error):
    chain.breaks = error
    with pytest.raises(type(error)):
        chain.run()
    assert chain.verbs()[-1] == "FAIL"
    assert [path.suffix for path in Path(chain.work, "total").iterdir()] == [".partial"]


def test_what_was_not_committed_does_not_count(chain):
    made = chain.run()["total"]
    (made.path / "_SUCCESS").unlink()
    with pytest.raises(TpoError, match="no finished result"):
        Artifact.load(made.uri)
    again = chain.run()
    assert (chain.calls, again["total"].result) == (["total"], made.result)


def test_a_damaged_record_is_one_line(chain):
    made = chain.run()["total"]
    (made.path / "artifact.json").write_text("{")
    with pytest.raises(TpoError, match=r"artifact.json is missing or damaged: delete .* and run its step again"):
        chain.run()


def test_a_full_disk_at_commit_leaves_nothing_committed_and_resumes(chain, monkeypatch):
    chain.run(until_step="numbers")
    real = os.replace

    def full(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.ENOSPC, "no space")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(TpoError, match=r"disk full while writing .*bytes free"):
            chain.run()
    assert chain.verbs() == ["SKIP", "RUN", "FAIL"]
    assert list(Path(chain.work, "total").glob("*/_SUCCESS")) == []
    made = chain.run()
    assert chain.verbs() == ["SKIP", "RESUME", "DONE"]
    assert made["total"].provenance["files"] == 1


def test_a_full_disk_within_a_step_is_one_line(chain):
    chain.breaks = OSError(errno.ENOSPC, "no space")
    with pytest.raises(TpoError, match="disk full"):
        chain.run()


def test_dry_run_tells_and_touches_nothing(chain):
    assert chain.run(dry_run=True) == {}
    assert (chain.verbs(), chain.calls) == (["RUN", "RUN"], [])
    assert not Path(chain.work).exists()
    chain.run(until_step="numbers")
    assert set(chain.run(dry_run=True)) == {"numbers"}
    assert chain.verbs() == ["SKIP", "RUN"]


def test_from_and_until(chain):
    with pytest.raises(TpoError, match="step 'numbers' has no result for this recipe: start at it, not at 'total'"):
        chain.run(from_step="total")
    assert set(chain.run(until_step="numbers")) == {"numbers"}
    assert chain.calls == ["numbers"]
    assert set(chain.run(from_step="total")) == {"numbers", "total"}
    assert chain.calls == ["total"]
    with pytest.raises(TpoError, match="unknown step 'totl'; did you mean 'total'"):
        chain.run(until_step="totl")
    with pytest.raises(TpoError, match="'numbers' comes before 'total'"):
        chain.run(from_step="total", until_step="numbers")


def test_a_step_that_another_process_makes_is_left_alone(chain):
    uri = uris.join(chain.work, "numbers", fingerprints(chain.steps())["numbers"][:12])
    uris.write_json(f"{uri}.lease", {"token": "t", "pid": 1, "host": "elsewhere", "time": 4e9})
    with pytest.raises(TpoError, match="is being made by pid 1 on elsewhere"):
        chain.run()
    assert chain.calls == []
    uris.write_json(f"{uri}.lease", {"token": "t", "pid": 1, "host": "elsewhere", "time": 0})
    chain.run()
    assert chain.verbs()[0] == "LEASE"
    assert chain.calls == ["numbers", "total"]


def test_a_result_finished_by_another_process_meanwhile_is_used(chain):
    step = chain.steps()[0]

    def finished_elsewhere(*_):
        run_steps([step], chain.work, echo=lambda _: None)
        return True

    with pytest.MonkeyPatch.context() as patch:
        real = uris.write_new
        patch.setattr(uris, "write_new", lambda *args: (patch.undo(), finished_elsewhere(), real(*args))[-1])
        run_steps([step], chain.work, echo=chain.lines.append)
    assert chain.verbs() == ["SKIP"]
    assert chain.calls == ["numbers"]


def test_a_result_whose_lease_was_lost_is_not_committed(chain):
    def lose(ctx):
        lease = str(ctx.output).replace(".partial", ".lease")
        uris.write_json(lease, {"token": "t", "pid": 1, "host": "elsewhere", "time": 4e9})
        return {}

    with pytest.raises(TpoError, match="another process took over"):
        run_steps([Step("slow", lose, {})], chain.work, echo=chain.lines.append)
    assert list(Path(chain.work, "slow").glob("*/_SUCCESS")) == []


def test_a_result_that_is_not_json_is_the_step_s_error(chain):
    with pytest.raises(TypeError):
        run_steps([Step("bad", lambda _: {"path": Path()}, {})], chain.work, echo=chain.lines.append)
    assert chain.verbs() == ["RUN", "FAIL"]


def test_moving_the_work_folder_changes_no_fingerprint(chain, tmp_path):
    made = chain.run()
    Path(chain.work).rename(tmp_path / "moved")
    chain.work = str(tmp_path / "moved")
    moved = chain.run()
    assert chain.verbs() == ["SKIP", "SKIP"]
    assert moved["total"].fingerprint == made["total"].fingerprint
    assert moved["total"].path.is_relative_to(tmp_path / "moved")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Step("a", lambda _: {}, {}), Step("a", lambda _: {}, {})], "two steps are called 'a'"),
        ([Step("b", lambda _: {}, {}, ("a",)), Step("a", lambda _: {}, {})], "'a', which is not listed before it"),
        ([Step("a/b", lambda _: {}, {})], "does not make a folder"),
    ],
)
def test_a_wrong_chain_is_a_bug(steps, message):
    with pytest.raises(AssertionError, match=message):
        fingerprints(steps)


def test_results_can_live_on_s3(chain, bucket, monkeypatch, tmp_path):
    local = fingerprints(chain.steps())
    chain.work = f"{bucket}/team"
    chain.breaks = RuntimeError("node lost")
    with pytest.raises(RuntimeError):
        chain.run()
    chain.breaks = None
    made = chain.run()
    assert chain.verbs() == ["SKIP", "RESUME", "DONE"]
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "another machine"))
    again = chain.run()
    assert chain.verbs() == ["SKIP", "SKIP"]
    assert uris.list_names(f"{bucket}/team/total") == [local["total"][:12]]
    assert again["total"].result == made["total"].result
    assert (again["numbers"].path / "numbers.txt").read_text() == "0\n1\n2"
