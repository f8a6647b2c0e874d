"""The whole chain as a user runs it: a process that is killed, the same command again, once more, and promotion.

The quick-start recipe in miniature, on a random base of a few thousand parameters: what is asked is that every step
does its work once, not that anything is learnt.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.promote import main as promote
from tests.browser import chromium, require_words, screenshot
from tests.tracking_servers import free_port, mlflow_server
from tests.unit.models.conftest import base  # noqa: F401 (fixture)

ROOT = Path(__file__).resolve().parents[2]
STEPS = [
    "render", "preprocess", "evaluate_base", "task_assignment", "vision_task", "multitask", "evaluate", "register",
]  # fmt: skip
KILLED_IN = "vision_task"
BEFORE_THE_KILL = STEPS[: STEPS.index(KILLED_IN)]

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def overrides(work: Path, base_model: Path) -> list[str]:
    """The quick-start recipe with few clips, two steps a stage (many in the one that is killed) and a tiny base."""
    changed = {
        "work_uri": work,
        "model.base": base_model,
        "model.lora.rank": 2,
        "model.temporal": "{width: 16, layers: 1}",
        "model.mask.width": 8,
        "data.generator": "{train_clips: 24, val_clips: 4, test_clips: 4, unseen_clips: 4}",
        "evaluation.limit_per_task": 4,
        "evaluation.limit_by_task": "{region: null, qa: null, caption: null}",
        "evaluation.max_new_tokens": 4,
        "train.log_every_steps": 1,
        "train.checkpoint_every_steps": 1,
    }
    for stage in ("task_assignment", "vision_task", "multitask"):
        phase = f"stages.{stage}.phases.{stage}"
        changed |= {f"{phase}.steps": 2, f"{phase}.batch_size": 4, f"{phase}.micro_batch_size": 2}
        changed[f"{phase}.micro_batch_sizes"] = "{region: 4, mask: 2}"
    changed[f"stages.{KILLED_IN}.phases.{KILLED_IN}.steps"] = 40
    return [f"{key}={value}" for key, value in changed.items()]


def start(script: str, arguments: list[str]) -> subprocess.Popen[str]:
    """One of the pipelines in a process group of its own, its output a pipe."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, f"pipelines/{script}", *arguments],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def run(script: str, arguments: list[str]) -> tuple[int, str]:
    process = start(script, arguments)
    out, _ = process.communicate()
    return process.returncode, out


def run_until(arguments: list[str], sign: str) -> str:
    """Starts the chain and kills it, with all of its processes, at the first line that begins with `sign`."""
    process, lines = start("full_tpo.py", arguments), []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith(sign):
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    process.wait()
    return "".join(lines)


def told(output: str, *verbs: str) -> list[str]:
    """Steps of which a line with one of the verbs tells, in order."""
    words = [line.split() for line in output.splitlines()]
    return [line[1] for line in words if len(line) > 1 and line[0] in verbs and line[1] in STEPS]


def records(work: Path) -> dict[str, bytes]:
    """`artifact.json` of every committed step, and when it was written."""
    return {path.parts[-3]: path.read_bytes() for path in work.glob("*/*/artifact.json") if "." not in path.parts[-2]}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("chain") / "work"


@pytest.fixture(scope="module")
def arguments(work, base):  # noqa: F811
    """Of every command here. The recipe is a copy, so that nobody edits it between two runs that must agree."""
    recipe = shutil.copy(ROOT / "pipelines" / "recipes" / "quickstart.yaml", work.parent)
    return ["--recipe", str(recipe), *overrides(work, base)]


@pytest.fixture(scope="module")
def killed(arguments, work):
    """(output of the run that was killed while it trained, the records it left)."""
    output = run_until(arguments, f"{KILLED_IN}  [..........] 2/40")
    return output, records(work)


@pytest.fixture(scope="module")
def finished(arguments, work, killed):
    """(output of the same command afterwards, the records there are then)."""
    status, output = run("full_tpo.py", arguments)
    assert status == 0, output
    return output, records(work)


def test_a_killed_run_leaves_the_steps_that_it_finished(killed):
    output, left = killed
    assert told(output, "RUN") == [*BEFORE_THE_KILL, KILLED_IN], output
    assert told(output, "DONE") == BEFORE_THE_KILL == sorted(left, key=STEPS.index)


def test_the_same_command_goes_on_where_it_was(killed, finished, work):
    output, now = finished
    assert told(output, "SKIP") == BEFORE_THE_KILL
    assert told(output, "RESUME") == [KILLED_IN]
    assert told(output, "RUN") == ["multitask", "evaluate", "register"]
    assert {step: now[step] for step in killed[1]} == killed[1]
    assert list(work.glob("*/*.partial")) == []
    assert list(work.glob("*/*.lease")) == []
    assert f"{KILLED_IN}  resuming at step" in output
    (history,) = work.glob(f"{KILLED_IN}/*/history.jsonl")
    assert [json.loads(line)["step"] for line in history.read_text().splitlines()] == list(range(1, 41))


def test_it_ends_with_the_report_and_a_challenger(finished, work):
    output, now = finished
    assert "TPO / base before TPO / best constant answer, in percent" in output
    for label in ("region Acc@0.5", "moment R1@0.5", "mask J&F", "track mean IoU", "QA accuracy", "missed activation"):
        assert label in output
    assert "registered tpo version 1 as challenger" in output
    measured = json.loads(now["evaluate"])["result"]
    assert set(measured["counts"]) == {"test", "unseen"}
    assert {"region", "moment", "mask", "track", "qa", "caption"} == set(measured["counts"]["test"])
    assert max(count for part in measured["counts"].values() for count in part.values()) <= 4
    assert set(measured["baseline"]) <= set(measured["metrics"])
    (folder,) = (path.parent for path in work.glob("evaluate/*/artifact.json"))
    for part in ("test", "unseen"):
        assert (folder / part / "gallery" / "gallery.png").is_file()
        assert len((folder / part / "predictions.jsonl").read_text().splitlines()) == sum(
            measured["counts"][part].values()
        )
    assert list(work.glob("register/*/loss_curves.png"))
    (page,) = (path.read_text() for path in work.glob("register/*/report.html"))
    assert "before TPO" in page
    assert (folder / "report.html").is_file()


def test_the_same_command_once_more_skips_everything(arguments, finished, work):
    status, output = run("full_tpo.py", arguments)
    assert status == 0, output
    assert told(output, "SKIP") == STEPS
    assert told(output, "RUN", "RESUME", "DONE", "FAIL") == []
    assert "registered tpo version 1 as challenger" in output
    assert records(work) == finished[1]


def test_the_page_of_mlflow_tells_the_story(finished, work, tmp_path):
    chromium()
    uri = f"sqlite:///{work}/mlflow/mlflow.db"
    client = MlflowClient(uri)
    home = client.get_experiment_by_name("tpo").experiment_id
    ids = {run.info.run_name: run.info.run_id for run in client.search_runs([home])}
    with mlflow_server(uri, str(work / "mlflow/artifacts"), tmp_path / "server.log", free_port()) as page:
        runs = f"{page}/#/experiments/{home}/runs"
        require_words(runs, "Training runs", "quickstart", "Each run is a pipeline")
        pipeline, phase = f"{runs}/{ids['quickstart']}", f"{runs}/{ids['vision_task']}"
        require_words(pipeline, "Made by the recipe", "task_assignment", "multitask", "evaluation", "Registered models")
        require_words(f"{pipeline}/artifacts", "gallery", "curves")
        require_words(phase, "Phase 2 of 3 of the recipe quickstart , from the model of task_assignment")
        require_words(f"{phase}/model-metrics", "loss (", "kind (", "lr (", "vision_task (loss/lm)")
        picture = screenshot(f"{phase}/model-metrics", tmp_path / "charts.png")
    assert picture.shape == (1300, 1500, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100  # lines and letters, and no empty page


GATE = "test/activation/missed"


def test_a_gate_that_fails_refuses_and_one_that_holds_promotes(arguments, finished, work, capsys):
    def gate(floor):
        return f"promotion.gates=[{{metric: {GATE}, max_drop: 1, min_value: {floor}}}]"

    arguments = [*arguments, "promotion.required_parts=[]"]
    status, output = run("promote.py", [*arguments, gate(1.5)])
    assert status == 3, output
    assert "refused: challenger v1 against the base model of tpo: 1 of 1 gates fail" in output
    assert not (work / "promotions").exists()

    assert promote([*arguments, gate(0)]) == 0
    assert "promoted: challenger v1 against the base model of tpo: all 1 gates hold" in capsys.readouterr().out
    assert promote([*arguments, gate(0)]) == 0
    assert "champion of tpo is v1 already: nothing to do" in capsys.readouterr().out
    assert promote([*arguments, "--rollback"]) == 0
    assert "champion of tpo is the base model again, no longer v1" in capsys.readouterr().out
    entries = [json.loads(path.read_text()) for path in sorted((work / "promotions").glob("*.json"))]
    assert [(entry["action"], entry["from"], entry["to"]) for entry in entries] == [
        ("promote", None, 1),
        ("rollback", 1, None),
    ]
    assert entries[0]["fingerprint"] == json.loads(finished[1]["multitask"])["fingerprint"]


def test_a_missing_path_of_the_user_is_one_line(tmp_path):
    gone = [
        "--recipe",
        "quickstart",
        "data.generator=null",
        f"data.root={tmp_path / 'gone'}",
        f"work_uri={tmp_path / 'work'}",
    ]
    status, output = run("preprocess.py", gone)
    assert status == 2
    (error,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert f"there is no {tmp_path / 'gone' / 'train'}: check data.root" in error
    assert "Traceback" not in output
