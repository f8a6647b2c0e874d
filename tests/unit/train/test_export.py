import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.unit.models.conftest import base, config  # noqa: F401 (fixtures)
from tests.unit.train.checkpoints.made import checkpointer
from tpo_core.config.load import load_recipe
from tpo_core.train.build import build_model
from tpo_core.train.export import main
from tpo_core.train.job import PhaseJob
from tpo_core.train.loop import Progress, seed_step
from tpo_core.train.optim import build_optimizer
from tpo_core.train.stages import select_trainable
from tpo_core.train.strategies.replicated import Replicated

STAGE = "vision_task"


@pytest.fixture
def recipe(config, tmp_path):  # noqa: F811
    """A recipe file with one stage of one phase."""
    phase = {"name": "p", "mixture": {"region": 1, "chat": 1}, "steps": 6, "batch_size": 4, "micro_batch_size": 2}
    path = tmp_path / "tiny.yaml"
    source = {"name": "s", "reader": "r", "root": "/nowhere", "split": "train", "part": "train"}
    path.write_text(
        yaml.safe_dump(
            {
                "data": {"sources": [source]},
                "model": config.model_dump(mode="json"),
                "stages": {STAGE: {"heads": ["region"], "phases": [phase], "precision": "fp32"}},
            }
        )
    )
    return path


@pytest.fixture
def trained(recipe, base, tmp_path):  # noqa: F811
    """What a phase would have saved after 2 and 4 steps, and the model it would have written at the end."""
    loaded = load_recipe(str(recipe))
    stage = loaded.stages[STAGE]
    seed_step(loaded.seed, step=0, rank=0)
    model = build_model(loaded, stage, str(base))
    select_trainable(model, model.groups(), stage.lr)
    strategy = Replicated()
    strategy.prepare(model, lambda: build_optimizer(model.groups(), stage))
    job = PhaseJob(
        recipe=loaded, stage_name=STAGE, phase=stage.phases[0], shards_uri="none", init_uri=str(base), output=tmp_path
    )
    saver = checkpointer(tmp_path / "checkpoints", strategy, run=job.identity)
    for step in (2, 4):
        with torch.no_grad():
            for param in model.parameters():
                if param.requires_grad:
                    param.normal_()
        saver.save(Progress(step=step))
        saver.wait()
    model.save_pretrained(tmp_path / "expected")
    return tmp_path


def arguments(folder, base, file, **changes):  # noqa: F811
    given = {
        "checkpoint": folder / "checkpoints" / "step-00000004", "init": base, "recipe": file, "stage": STAGE,
        "output": folder / "out", **changes,
    }  # fmt: skip
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("named", ["step-00000004", ""])
def test_the_model_of_a_checkpoint_is_written_as_the_phase_would(trained, base, recipe, named, capsys):  # noqa: F811
    assert main(arguments(trained, base, recipe, checkpoint=trained / "checkpoints" / named)) == 0
    assert capsys.readouterr().out == f"written {trained}/out: the model after 4 steps\n"
    ours, expected = weights(trained / "out"), weights(trained / "expected")
    assert ours.keys() == expected.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in expected.items())
    assert {path.name for path in (trained / "out").iterdir()} == {p.name for p in (trained / "expected").iterdir()}
    manifests = [json.loads((trained / name / "parameters.json").read_text()) for name in ("out", "expected")]
    assert manifests[0] == manifests[1]


def test_an_older_one_is_taken_where_the_newest_is_damaged(trained, base, recipe, capsys):  # noqa: F811
    (trained / "checkpoints" / "step-00000004" / "checkpoint.json").write_text("{")
    assert main(arguments(trained, base, recipe, checkpoint=trained / "checkpoints")) == 0
    told = capsys.readouterr()
    assert "the model after 2 steps" in told.out
    assert told.err.startswith("note: ")
    assert "is damaged" in told.err


def damage(folder):
    next((folder / "checkpoints" / "step-00000004").glob("*.safetensors")).unlink()


def damage_all(folder):
    for path in (folder / "checkpoints").glob("*/checkpoint.json"):
        path.write_text("{")


def occupy(folder):
    (folder / "out").mkdir()


@pytest.mark.parametrize(
    ("before", "changes", "extra", "said"),
    [
        (None, {"checkpoint": "/nowhere/step-00000004"}, [], "is no checkpoint (no checkpoint.json)"),
        (None, {"stage": "multitask"}, [], "the recipe has no stage 'multitask'"),
        (None, {"recipe": "/nowhere.yaml"}, [], "no recipe '/nowhere.yaml'"),
        (None, {}, ["model.lora.rank=3"], "is of another model (model.lora.rank 2 -> 3)"),
        (None, {}, ["model.lora.alpha=64"], "is of another model (model.lora.alpha 4.0 -> 64.0)"),
        (None, {}, ["seed=5"], "is of another model (seed 0 -> 5)"),
        (None, {}, ["stages.vision_task.heads=[]", "stages.vision_task.phases.p.mixture.region=null"], "another model"),
        (damage, {}, [], "is missing): use an older checkpoint"),
        (damage_all, {"checkpoint": None}, [], "is whole: look for another place that has one"),
        (occupy, {}, [], "is there already: give another --output"),
    ],
)
def test_a_mistake_is_told_in_one_line(trained, base, recipe, before, changes, extra, said, capsys):  # noqa: F811
    if before is not None:
        before(trained)
    if changes.get("checkpoint", "") is None:
        changes = {"checkpoint": trained / "checkpoints"}
    assert main([*arguments(trained, base, recipe, **changes), *extra]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert said in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (trained / "out" / "model.safetensors").exists()
