"""Mistakes about training, through the command line: one line that says what to do, before a cluster is touched."""

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from pipelines import full_tpo, train_stage
from pipelines.chain import build_chain
from pipelines.full_tpo import run_chain
from tests.tiny_families import write_base
from tpo_core.config.load import load_recipe
from tpo_core.data.sample import SCHEMA_VERSION
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.execution.cli import main_guard
from tpo_core.execution.runner import run_steps
from tpo_core.tracking.publish import Publisher
from tpo_core.train.stages import find_phase

ROOT = Path(__file__).resolve().parents[3]
VISION = "stages.vision_task"
PHASE = f"{VISION}.phases.vision_task"
OF_RECIPE = "recipe quickstart: "

# The changes of the quick-start recipe, and how the one line begins.
MISTAKES = {
    "a batch of other than whole micro-batches": (
        [f"{PHASE}.batch_size=12"],
        f"{OF_RECIPE}{PHASE}: micro_batch_size 8 must divide batch_size 12",
    ),
    "a micro-batch that workers cannot share": (
        ["train.workers=3"],
        f"{OF_RECIPE}train.workers 3 must divide stages.task_assignment.phases.task_assignment.micro_batch_size",
    ),
    "more elastic workers than samples": (
        ["train.workers=[1, 64]"],
        f"{OF_RECIPE}train.workers [1, 64] must not exceed",
    ),
    "no worker": (["train.workers=0"], f"{OF_RECIPE}train.workers = 0: must be >= 1"),
    "a rate of a group that does not exist": (
        [f"{VISION}.lr.lorra=1e-4"],
        f"{OF_RECIPE}{VISION}: unknown lr group 'lorra'; did you mean 'lora'?",
    ),
    "a rate of a head that the stage lacks": (
        ["stages.task_assignment.lr.region_head=1e-4"],
        f"{OF_RECIPE}stages.task_assignment: lr.region_head is set but heads does not hold 'region'",
    ),
    "a rate of nothing": ([f"{VISION}.lr.lora=0"], f"{OF_RECIPE}{VISION}.lr.lora"),
    "no rate at all": ([f"{VISION}.lr={{}}"], f"{OF_RECIPE}{VISION}.lr"),
    "adapters on layers that the model lacks": (
        ["model.lora.targets=[query]"],
        "the language model has no linear layer query: set model.lora.targets to some of ",
    ),
    "a mixture of a kind that does not exist": (
        [f"{PHASE}.mixture.boxes=1"],
        f"{OF_RECIPE}{PHASE}.mixture: unknown kind 'boxes'",
    ),
    "a mixture of a kind without its head": (
        [f"{VISION}.heads=[region]", f"{VISION}.lr.temporal_head=null", f"{VISION}.lr.mask_head=null"],
        f"{OF_RECIPE}{VISION}: phases.vision_task.mixture holds 'temporal' but heads does not: add or drop it",
    ),
    "a mixture of nothing": ([f"{PHASE}.mixture={{}}"], f"{OF_RECIPE}{PHASE}.mixture"),
    "a data set that no source gives": (
        [f"{PHASE}.datasets=[refcocog]"],
        "phase vision_task: datasets holds 'refcocog', which no source of part train gives; did you mean 'refcoco'?",
    ),
    "a data set under the name of its source": (
        [f"{PHASE}.datasets=[refcoco-train]"],
        "phase vision_task: datasets holds 'refcoco-train', which no source of part train gives; did you mean",
    ),
    "no steps": ([f"{PHASE}.steps=0"], f"{OF_RECIPE}{PHASE}.steps"),
    "no epochs": ([f"{PHASE}.steps=null", f"{PHASE}.epochs=0"], f"{OF_RECIPE}{PHASE}.epochs"),
    "neither steps nor epochs": ([f"{PHASE}.steps=null"], f"{OF_RECIPE}{PHASE}: set exactly one of steps and epochs"),
    "steps and epochs": ([f"{PHASE}.epochs=1"], f"{OF_RECIPE}{PHASE}: set exactly one of steps and epochs"),
    "a warm-up longer than the phase": ([f"{VISION}.warmup_fraction=1.5"], f"{OF_RECIPE}{VISION}.warmup_fraction"),
    "a floor above the peak": ([f"{VISION}.min_lr_fraction=2"], f"{OF_RECIPE}{VISION}.min_lr_fraction"),
    "no clipping": ([f"{VISION}.grad_clip_norm=0"], f"{OF_RECIPE}{VISION}.grad_clip_norm"),
    "rows at no step": (["train.log_every_steps=0"], f"{OF_RECIPE}train.log_every_steps"),
    "checkpoints at no step": (["train.checkpoint_every_steps=0"], f"{OF_RECIPE}train.checkpoint_every_steps"),
    "the best by a loss that is not logged": (
        ["train.best_metric=loss/regions"],
        f"{OF_RECIPE}unknown train.best_metric 'loss/regions'; did you mean 'loss/region'?",
    ),
    "a strategy that does not exist": (["train.strategy=zero4"], f"{OF_RECIPE}train.strategy"),
    "workers that share a GPU": (
        ["train.gpus_per_worker=0.5"],
        f"{OF_RECIPE}train: gpus_per_worker 0.5 would let workers share a GPU, which NCCL refuses: set 1, or workers 1",
    ),
    "GPUs that a worker leaves idle": (
        ["train.gpus_per_worker=2"],
        f"{OF_RECIPE}train: gpus_per_worker 2 leaves GPUs idle: a worker uses one, so set 1 and more workers",
    ),
    "a trace that ends before it begins": (
        ["train.profile_steps=[9, 3]"],
        f"{OF_RECIPE}train.profile_steps: must be [first, last] with first <= last",
    ),
    "a trace of steps that no phase has": (
        ["train.profile_steps=[700, 702]"],
        f"{OF_RECIPE}train.profile_steps begins at 700 but the longest phase has 660 steps",
    ),
    "a peak of nothing": (["train.peak_tflops=0"], f"{OF_RECIPE}train.peak_tflops"),
}


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """Runs the chain's command line on the quick-start recipe with changes; gives the one line that it ends with."""
    monkeypatch.setattr("pipelines.full_tpo.connect", lambda recipe: pytest.fail("Ray was started"))
    monkeypatch.setattr("pipelines.train_stage.connect", lambda recipe: pytest.fail("Ray was started"))
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def one(*arguments, main=lambda argv: run_chain(argv, doc=full_tpo.__doc__)):
        with pytest.raises(SystemExit) as ended:
            main_guard(lambda: main(["--recipe", "quickstart", f"work_uri={tmp_path / 'work'}", *arguments]))
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert err.count("\n") == 1
        assert err.startswith("error: ")
        return err.removeprefix("error: ").rstrip("\n")

    return one


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("how", [["--dry-run"], []], ids=["dry", "run"])
def test_a_mistake_about_training_is_one_line_before_ray_is_started(mistake, how, refused, tmp_path):
    changes, message = MISTAKES[mistake]
    assert refused(*changes, *how).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("joined", [False, True])
def test_more_workers_than_there_can_be_are_refused_before_any_step(joined, monkeypatch, tmp_path):
    """A cluster that was joined may bring nodes when its workers are needed."""
    begun = []
    monkeypatch.setattr(full_tpo, "connect", lambda recipe: nullcontext())
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setenv("RAY_ADDRESS", "head:6379" if joined else "")
    run = full_tpo.run_steps

    def noted(steps, *place, dry_run=False, **how):
        begun.extend([] if dry_run else steps)
        return run(steps, *place, dry_run=True, **how)

    monkeypatch.setattr(full_tpo, "run_steps", noted)
    words = ["--recipe", "quickstart", f"work_uri={tmp_path}", "train.cpus_per_worker=3"]
    with nullcontext() if joined else pytest.raises(TpoError, match=r"no room for train\.workers, 2 x \(3 CPU\)"):
        run_chain(words, doc=None)
    assert bool(begun) == joined
    begun.clear()
    run_chain([*words, "--until-step", "evaluate_base"], doc=None)
    assert begun, "nothing is trained"


def test_a_rate_of_a_group_that_the_chosen_model_lacks(refused, monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.checks.base_groups", lambda path, config: {"lora", "vision_encoder"})
    assert refused("--dry-run") == (
        "stages.multitask.lr.connector is set but assets/quickstart_base has no such parameters"
        " (it has lora, vision_encoder): set it to null"
    )


@pytest.mark.parametrize("name", ["qwen3_vl", "internvl", "llava"])
def test_the_groups_of_a_base_are_told_without_its_weights(name, tmp_path):
    from tpo_core.models.backbones.registry import base_groups

    base = write_base(tmp_path / "base", name)
    for weights in base.glob("*.safetensors"):
        weights.unlink()
    recipe = load_recipe("quickstart", [f"model.base={base}", "model.backbone=generic", "model.lora.targets=[q_proj]"])
    assert base_groups(str(base), recipe.model) == {"lora", "vision_encoder", "connector"}


def test_a_single_stage_is_checked_too(refused):
    options = ["--stage", "vision_task", "--shards", "s", "--init", "i", "--output", "o"]
    assert refused("train.strategy=zero4", *options, main=train_stage.main).startswith(f"{OF_RECIPE}train.strategy")
    line = refused("model.lora.targets=[query]", *options, main=train_stage.main)
    assert line.startswith("the language model has no linear layer query")


def test_places_that_cannot_be_written(refused, monkeypatch, tmp_path):
    blob = tmp_path / "blob"
    blob.write_text("")
    for where, named in ((blob, blob), (blob / "below", blob / "below")):
        wrong = f"cannot go to {named}, because {blob} is no folder: name another place"
        assert refused(f"work_uri={where}") == f"results {wrong}"
        assert refused(f"train.checkpoint_uri={where}") == f"checkpoints (train.checkpoint_uri) {wrong}"
    assert refused("train.checkpoint_uri=gs://b/k").startswith("gs://b/k: unknown storage gs://")
    assert refused("work_uri=gs://b/k", "--dry-run").startswith("gs://b/k: unknown storage gs://")
    options = ["--stage", "vision_task", "--shards", "s", "--init", "i", "--output", str(blob)]
    assert refused(*options, main=train_stage.main).startswith(f"results cannot go to {blob}")
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(tmp_path))
    assert refused() == (
        f"results cannot go to {tmp_path / 'work'}: no permission to write to {tmp_path}; name another place"
    )


def test_the_data_of_a_single_stage_is_looked_at(refused, tmp_path):
    preprocess_to(tmp_path / "work", {"train": {kind: {"refcoco": 9} for kind in ("region", "temporal", "chat")}})
    [shards] = (tmp_path / "work" / "preprocess").iterdir()
    options = ["--stage", "vision_task", "--init", "i", "--output", str(tmp_path / "out"), "--shards"]
    line = refused(*options, str(shards), main=train_stage.main)
    assert line.startswith("phase 'vision_task' draws from 'mask' but the training part holds no such sample")
    assert str(tmp_path / "nowhere") in refused(*options, str(tmp_path / "nowhere"), main=train_stage.main)
    assert not (tmp_path / "out").exists()


def test_a_single_stage_goes_to_a_folder(refused):
    options = ["--stage", "vision_task", "--init", "i", "--shards", "s", "--output", "s3://bucket/out"]
    assert refused(*options, main=train_stage.main).startswith("s3://bucket/out: give a folder on a disk here")


def test_other_data_or_weights_at_the_same_place_are_another_run(tmp_path):
    recipe, init, counts = load_recipe("quickstart"), tmp_path / "init", {"region": {"refcoco": 9}}
    ref = find_phase(recipe, "vision_task", None)

    def asked(weights, name, counts):
        init.mkdir(exist_ok=True)
        (init / "model.safetensors").write_bytes(weights)
        preprocess_to(tmp_path / name, {"train": counts})
        [shards] = (tmp_path / name / "preprocess").iterdir()
        return train_stage.asked_for(recipe, ref, ShardSet.open(shards), str(init))

    first = asked(b"1", "a", counts)
    assert asked(b"1", "b", counts) == first
    assert asked(b"2", "c", counts)["init"] != first["init"]
    assert asked(b"1", "d", {"region": {"refcoco": 8}})["shards"] != first["shards"]


def test_a_single_stage_that_another_process_trains_is_left_alone(refused, tmp_path):
    preprocess_to(
        tmp_path / "work", {"train": {kind: {"refcoco": 9} for kind in ("region", "temporal", "mask", "chat")}}
    )
    [shards] = (tmp_path / "work" / "preprocess").iterdir()
    out = tmp_path / "out"
    base = str(ROOT / "assets/quickstart_base")
    options = ["--stage", "vision_task", "--init", base, "--output", str(out), "--shards", str(shards)]
    holder = {"token": "t", "pid": 1, "host": "another", "time": time.time()}
    (tmp_path / "out.lease").write_text(json.dumps(holder))
    line = refused(*options, main=train_stage.main)
    assert line.startswith(f"{out} is being made by pid 1 on another (alive ")
    assert not out.exists()


def preprocess_to(work, counts):
    """As if data had been preprocessed in the work folder, with these samples: part -> kind -> data set -> number."""
    recipe = load_recipe("quickstart", [f"work_uri={work}"])
    steps = build_chain(recipe, Publisher(recipe, str(work)), print)

    def shards(ctx):
        manifest = {"schema_version": SCHEMA_VERSION, "files": {}, "counts": counts}
        (ctx.output / "manifest.json").write_text(json.dumps(manifest))
        return {}

    fakes = [replace(step, fn=shards) for step in steps[:2]]
    assert [step.name for step in fakes] == ["render", "preprocess"]
    run_steps(fakes, str(work), echo=lambda line: None)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("mask", "phase 'task_assignment' draws from 'mask' but the training part holds no such sample (region 9,"),
        ("chat", "phase 'task_assignment' draws from 'chat' but the training part holds no such sample (region 9,"),
    ],
)
def test_a_kind_that_preprocessing_found_nothing_of_is_told_before_ray_is_started(lost, message, refused, tmp_path):
    held = {kind: {"refcoco": 9} for kind in ("region", "temporal", "mask", "chat") if kind != lost}
    preprocess_to(tmp_path / "work", {"train": held})
    assert refused().startswith(message)
    assert refused("--dry-run").startswith(message)


def test_a_data_set_that_preprocessing_found_nothing_of_is_told_for_the_last_phase_at_once(refused, tmp_path):
    kinds = ("region", "temporal", "mask", "chat")
    preprocess_to(tmp_path / "work", {"train": {kind: {"refcoco": 9} for kind in kinds}})
    line = refused("stages.multitask.phases.multitask.datasets=[mevis]")
    assert "has nothing of data set 'mevis'" in line


@pytest.mark.slow
def test_the_command_itself_ends_with_status_2_and_one_line():
    command = [sys.executable, "pipelines/full_tpo.py", "--recipe", "quickstart", "train.workers=3", "--dry-run"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: recipe quickstart: train.workers 3 must divide")
