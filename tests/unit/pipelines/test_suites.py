"""pipelines/evaluate.py --suite: what it would ask, what it refuses before anything is spent, and what it leaves."""

import errno
import json
import re
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from pipelines import evaluate, suites
from pipelines.suites import Asked, check_data, data_of, entry_lines, find_model, results_table, run_suite, step_of
from tests.unit.evaluation.benches import Scripted, entry_of, read, text, write_bench
from tests.unit.evaluation.test_bench import mvbench_layout
from tpo_core.config.base import identity
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError
from tpo_core.evaluation.bench import NO_CONTROL
from tpo_core.evaluation.suite import Suite
from tpo_core.evaluation.work import in_process
from tpo_core.storage.commit import is_committed
from tpo_core.storage.local import disk_full_told
from tpo_core.tracking.server import connect, default_uri, experiment_id


@pytest.fixture
def asked(tmp_path):
    mvbench_layout(tmp_path / "data/mvbench", {"action_antonym": 3, "moving_count": 4})
    published = {"source": "table 2", "videochat2": {"Avg": 60.4}, "videochat_tpo": {"Avg": 66.8}}
    entry = entry_of("mvbench", "choice", "mvbench", prompt="best_option", truth="json", published=published)
    suite = Suite(name="mine", entries=[entry])
    recipe = load_recipe("quickstart", ["data.root=null", f"work_uri={tmp_path}/work"])
    return Asked(recipe, suite, "model", str(tmp_path / "data"), str(tmp_path / "out"), None, None)


@pytest.fixture
def ask(asked, monkeypatch):
    """Runs the suite on shards that were made without a decoder, with a model that answers as it is told."""

    def shards(entry, asked, step, echo):
        root = asked.root(entry)
        folder = Path(asked.output) / entry.name / "shards"
        return str(write_bench(folder, read(entry, root)[::step]))

    def run(model, control=None, tracked=False, **changes):
        monkeypatch.setattr(suites, "shards_of", shards)
        monkeypatch.setattr(suites, "ModelSpec", lambda recipe, uri: model)
        monkeypatch.setattr(suites, "Sam2Spec", lambda source: control)
        if not tracked:
            monkeypatch.setattr(suites, "track", lambda *_: "not tracked")
        lines = []
        return run_suite(replace(asked, **changes), lines.append, in_process), lines

    return run


def test_a_suite_leaves_results_and_a_report(ask, asked, tmp_path):
    ran, lines = ask(Scripted(text("B) y")))
    ran.check()
    result = ran.results["mvbench"]
    assert result["metrics"]["Avg"] == 100.0
    assert lines[0] == "mvbench  1 of 1: mvbench"
    assert "mvbench  Avg 100  scored 7/7" in lines
    assert (tmp_path / "out/report.html").is_file()
    assert json.loads((tmp_path / "out/mvbench/result.json").read_text()) == result
    row = [str(cell) for column in results_table(asked.suite, ran.results).columns for cell in column.cells]
    assert row == ["mvbench", "Avg", "100", "60.4", "66.8", "-", "7/7"]


def broken(asked, name):
    """An entry that is asked in vain: its metric cannot read its truth."""
    entry = asked.suite.entries[0].model_copy(update={"name": name, "truth": "broken.json"})
    Path(asked.root(entry), "broken.json").write_text("{")
    return entry


def test_an_entry_that_fails_leaves_the_others_their_numbers(ask, asked, tmp_path):
    (entry,) = asked.suite.entries
    lost = broken(asked, "lost")
    entries = [entry, lost, entry.model_copy(update={"name": "later", "title": "Later"})]
    suite = Suite(name="mine", entries=entries)
    ran, lines = ask(Scripted(text("B) y")), suite=suite)
    with pytest.raises(TpoError, match=r"^1 of 3 entries failed: lost: \S*broken\.json: not JSON"):
        ran.check()
    assert list(results_table(suite, ran.results).columns[0].cells) == ["mvbench", "Later"]
    assert [line for line in lines if line.startswith("lost  failed: ")]
    assert "later  Avg 100  scored 7/7" in lines
    reported = (tmp_path / "out/report.md").read_text()
    assert "Later" in reported
    assert "lost" not in reported


def test_a_suite_without_any_number_has_no_report(ask, asked, tmp_path):
    entries = [broken(asked, name) for name in ("a", "b")]
    ran, _ = ask(Scripted(text("B) y")), suite=Suite(name="mine", entries=entries))
    with pytest.raises(TpoError, match=r"^2 of 2 entries failed: a: .*; b: ") as caught:
        ran.check()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/report.html").exists()


def test_an_error_of_the_code_keeps_its_traceback_and_the_other_results(ask, asked, monkeypatch):
    (entry,) = asked.suite.entries
    run_entry = suites.run_entry

    def run(entry, *rest):
        return run_entry(entry, *rest) if entry.name == "mvbench" else {}["a bug"]

    monkeypatch.setattr(suites, "run_entry", run)
    entries = [entry.model_copy(update={"name": "bad"}), entry]
    ran, lines = ask(Scripted(text("B) y")), suite=Suite(name="mine", entries=entries))
    assert "bad  failed: KeyError: 'a bug'" in lines
    assert list(ran.results) == ["mvbench"]
    with pytest.raises(KeyError, match="a bug") as caught:
        ran.check()
    assert caught.value.__notes__ == ["while bad was evaluated; the other entries have their results"]


@dataclass
class Unloadable(Scripted):
    """A model that is there and cannot be loaded."""

    def open(self):
        self.opened += 1
        raise ValueError("header too large")


def two_of(asked, *also):
    (entry,) = asked.suite.entries
    later = entry.model_copy(update={"name": "later", "title": "Later"})
    return Suite(name="mine", entries=[*also, entry, later])


def test_a_model_that_cannot_be_loaded_is_tried_once(ask, asked, tmp_path):
    model = Unloadable(text("B"))
    ran, lines = ask(model, suite=two_of(asked))
    assert (model.opened, ran.unasked, ran.results) == (1, ["later"], {})
    assert not [line for line in lines if line.startswith("later")]
    told = r"^1 of 2 entries failed: mvbench: scripted cannot be loaded: ValueError: h.*; not asked after that: later$"
    with pytest.raises(TpoError, match=told):
        ran.check()


def test_a_full_disk_ends_a_suite_and_what_was_measured_is_reported(ask, asked, monkeypatch, tmp_path):
    run_entry = suites.run_entry

    def run(entry, *rest):
        if entry.name == "mvbench":
            return run_entry(entry, *rest)
        with disk_full_told(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(suites, "run_entry", run)
    entry = asked.suite.entries[0]
    entries = [entry, *(entry.model_copy(update={"name": name}) for name in ("full", "later"))]
    ran, _ = ask(Scripted(text("B) y")), suite=Suite(name="mine", entries=entries))
    assert (list(ran.results), list(ran.failed), ran.unasked) == (["mvbench"], ["full"], ["later"])
    assert (tmp_path / "out/report.md").is_file()


def controlled(asked):
    """The suite with a control, which questions do not have by themselves."""
    return asked.suite.model_copy(update={"entries": [asked.suite.entries[0].model_copy(update={"control": True})]})


def test_a_control_that_fails_costs_no_number(ask, asked, monkeypatch):
    def fails(*_):
        raise TpoError("no box")

    monkeypatch.setattr(suites, "with_control", fails)
    ran, _ = ask(Scripted(text("B) y")), control=Scripted(text("")), sam2="sam", suite=controlled(asked))
    assert ran.results["mvbench"]["metrics"]["Avg"] == 100.0
    with pytest.raises(TpoError, match=r"^1 of 1 entries failed: mvbench: no box$"):
        ran.check()


def test_a_control_that_nobody_named_is_told(ask, asked, tmp_path):
    ran, lines = ask(Scripted(text("B) y")), suite=controlled(asked))
    assert f"mvbench  {NO_CONTROL}" in lines
    assert ran.results["mvbench"]["notes"] == [NO_CONTROL]
    for page in ("report.md", "report.html"):
        assert "Plain SAM2, the control, has no numbers here" in (tmp_path / "out" / page).read_text()


def test_a_report_that_fails_comes_after_the_table(asked, ask, monkeypatch, tmp_path, capsys):
    def fails(*_, **__):
        raise TpoError("the report cannot be written")

    monkeypatch.setattr(suites, "write_report", fails)
    monkeypatch.setattr(evaluate, "connect", lambda recipe: nullcontext())
    monkeypatch.setattr(evaluate, "run_suite", lambda asked, echo: ask(Scripted(text("B) y")))[0])
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"entries": [json.loads(asked.suite.entries[0].model_dump_json())]}))
    words = ["--model", "m", "--suite", str(path), "--data-root", asked.data_root, "--output", asked.output]
    with pytest.raises(TpoError, match=r"^the report cannot be written$"):
        command(*words)
    assert re.search(r"mvbench .* 66\.8 ", capsys.readouterr().out)


def test_numbers_of_a_part_are_marked(ask, asked):
    ran, lines = ask(Scripted(text("B) y")), limit=3)
    assert lines[-3] == "mvbench  Avg 100  scored 3/3 *"
    table = results_table(asked.suite, ran.results)
    assert list(table.columns[-1].cells) == ["3/3 *"]
    assert table.caption.startswith("* of a part of the data set")


def test_a_suite_is_tracked_below_the_work_folder_if_nothing_else_is_named(ask, asked, tmp_path):
    _, lines = ask(Scripted(text("B) y")), tracked=True)
    uri = default_uri(asked.recipe.work_uri)
    assert lines[-1] == f"MLflow  {uri}, run mine: model"
    assert (tmp_path / "work/mlflow/mlflow.db").is_file()


def test_a_suite_that_can_be_tracked_nowhere_says_so(ask, asked):
    recipe = asked.recipe.model_copy(update={"work_uri": "s3://bucket/work"})
    ran, lines = ask(Scripted(text("B) y")), tracked=True, recipe=recipe)
    ran.check()
    assert lines[-1].startswith(
        "MLflow  not logged: tracking.uri is not set and s3://bucket/work cannot hold a database"
    )


def test_a_suite_is_tracked_where_the_recipe_names_a_server(ask, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    recipe = load_recipe("quickstart", ["data.root=null", f"tracking.uri={uri}"])
    for _ in range(2):
        _, lines = ask(Scripted(text("B) y")), tracked=True, recipe=recipe)
        assert lines[-1] == f"MLflow  {uri}, run mine: model"
    client = connect(uri)
    (run,) = client.search_runs([experiment_id(client, "tpo", uri)])
    assert (run.info.run_name, run.data.metrics["mvbench/Avg"]) == ("mine: model", 100.0)


def test_a_limit_reads_no_more_media_than_it_must(ask, asked):
    limited = replace(asked, limit=3)
    entry = asked.suite.entries[0]
    assert (step_of(entry, limited), step_of(entry, asked)) == (2, 1)
    model = Scripted(text("B) y"))
    ran, _ = ask(model, limit=3)
    assert len(model.asked) == 3
    assert ran.results["mvbench"]["asked"] == 3


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_meets_samples_that_are_asked_for_among_others(asked, monkeypatch, limit):
    asked_for = [False, True, False, True, False, True, False]
    told = iter(asked_for)
    monkeypatch.setattr(suites, "wanted", lambda entry, sample: next(told))
    step = step_of(asked.suite.entries[0], replace(asked, limit=limit))
    assert sum(asked_for[::step]) >= limit


def test_frames_are_those_that_the_entry_asks_for(asked):
    mine = asked.suite.entries[0]
    data = data_of(mine, asked.recipe, asked.data_root, 1)
    assert (data.frames.n_frames, data.frames.choice, data.frames.short_side_px) == (16, "midpoints", 96)
    assert [source.split for source in data.sources] == ["test"]
    whole = data_of(mine.model_copy(update={"every_frame": True, "short_side_px": 512}), asked.recipe, "/d", 1)
    assert (whole.frames.choice, whole.frames.short_side_px) == ("all", 512)
    assert identity(data) == identity(data_of(mine, asked.recipe, asked.data_root, 1))


def test_a_dry_run_tells_what_would_be_asked(asked):
    lost = entry_of("mvbench", "choice", "mvbench", prompt="letter").model_copy(update={"name": "lost", "root": "none"})
    suite = asked.suite.model_copy(update={"entries": [*asked.suite.entries, lost]})
    lines = list(entry_lines(replace(asked, suite=suite, limit=2)))
    assert lines[0] == "mvbench  mvbench: mvbench (official), prompt best_option"
    assert lines[1].startswith("  7 requests about 7 samples, of which 2 are asked; rejected: none; ")
    assert lines[3] == f"  not there: {asked.data_root}/none"


def test_data_that_is_not_there_is_named_before_anything_is_spent(asked):
    check_data(asked)
    lost = asked.suite.entries[0].model_copy(update={"name": "mine", "root": "none"})
    with pytest.raises(TpoError, match=r"^no data set for 1 of 1 entries: mine \(.*/none\)"):
        check_data(replace(asked, suite=Suite(name="s", entries=[lost])))


def test_a_registered_model_is_put_where_all_machines_see_it(asked, monkeypatch, tmp_path, bucket):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/config.json").write_text("{}")
    monkeypatch.setattr(suites, "model_folder", lambda uri, tracking: str(tmp_path / "kept"))
    assert find_model("models:/mine@champion", asked.recipe, "/local") == str(tmp_path / "kept")
    shared = find_model("models:/mine@champion", asked.recipe, f"{bucket}/eval")
    assert shared.startswith(f"{bucket}/eval/models/")
    assert is_committed(shared)
    assert find_model("models:/mine@champion", asked.recipe, f"{bucket}/eval") == shared
    assert find_model("hub/name", asked.recipe, "/local") == "hub/name"


def command(*words):
    return evaluate.main(["--recipe", "quickstart", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "m", "--output", "o"], r"^say either --shards URI .* or --suite NAME"),
        (["--model", "m", "--output", "o", "--shards", "s", "--suite", "quickstart"], r"^say either --shards"),
        (["--model", "m", "--output", "o", "--suite", "quickstart"], r"^say with --data-root"),
        (["--model", "m", "--output", "o", "--suite", "quikstart", "--data-root", "d"], r"did you mean 'quickstart'\?"),
        (["--model", "m", "--output", "o", "--shards", "s", "--limit", "3"], r"^--limit is for --suite"),
        (["--model", "m", "--output", "o", "--shards", "s", "--dry-run"], r"^--dry-run is for --suite"),
        (["--model", "m", "--output", "s3://b/o", "--shards", "s"], r"parts are measured into a local folder"),
        (
            ["--model", "m", "--output", "o", "--suite", "quickstart", "--data-root", "d", "--limit", "0"],
            r"from 1, not",
        ),
        (
            ["--model", "m", "--output", "o", "--suite", "quickstart", "--data-root", "d"],
            r"^no data set for 6 of 6 ent",
        ),
        (
            ["--model", "m", "--output", "o", "--suite", "quickstart", "--data-root", "d", "--only", "mevsi", "seed=3"],
            r"^suite quickstart has no entry 'mevsi'; did you mean 'mevis'\?",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(words, message):
    with pytest.raises(TpoError, match=message) as caught:
        command(*words)
    assert "\n" not in str(caught.value)


def test_a_dry_run_of_the_command_loads_nothing(asked, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"entries": [json.loads(asked.suite.entries[0].model_dump_json())]}))
    words = [
        "--model",
        "nowhere",
        "--suite",
        str(path),
        "--data-root",
        asked.data_root,
        "--output",
        str(tmp_path / "o"),
    ]
    assert command(*words, "--dry-run") == 0
    assert re.search(r"7 requests about 7 samples; rejected: none", capsys.readouterr().out)
    assert not (tmp_path / "o").exists()
