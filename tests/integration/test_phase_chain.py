"""Two phases of the real model on a real shard set in this process: hand-off, freezing, exact resume."""

import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.media_files import write_media
from tests.unit.models.conftest import base, config, make_example  # noqa: F401 (fixtures)
from tpo_core.config.schema import Recipe
from tpo_core.data.record import Media
from tpo_core.data.shards import write_manifest, write_samples
from tpo_core.models.tpo import TpoModel
from tpo_core.train.build import build_phase
from tpo_core.train.job import PhaseJob
from tpo_core.train.phase import run_rank
from tpo_core.train.sinks import NoSink
from tpo_core.train.stages import phases_of

KINDS = ("region", "temporal", "mask", "chat")
PER_KIND = 4

pytestmark = pytest.mark.slow


@pytest.fixture
def shards(tmp_path, make_example):  # noqa: F811
    """Four samples of each kind, each with its own clip."""
    root, samples, media = tmp_path / "shards", [], []
    for kind in KINDS:
        for number in range(PER_KIND):
            example = make_example(kind, seed=number)
            uri = f"{kind}-{number}"
            samples.append(replace(example.sample, media=(Media(uri, "video", duration_s=example.duration_s),)))
            media.append(media_row(uri, example))
    files = write_media(root, media)
    files |= write_samples(root, "train", samples)
    write_manifest(root, {"files": files, "counts": {"train": {kind: {"tiny": PER_KIND} for kind in KINDS}}})
    return root


def media_row(uri, example):
    frames = []
    for frame_HWC in example.frames_THWC:
        buffer = io.BytesIO()
        Image.fromarray(frame_HWC).save(buffer, "PNG")
        frames.append(buffer.getvalue())
    height, width = example.frames_THWC.shape[1:3]
    return {
        "uri": uri, "kind": "video", "width": example.width, "height": example.height, "stored_width": width,
        "stored_height": height, "n_frames": 16, "fps": 2.0, "duration_s": example.duration_s,
        "frame_index": example.frame_index.tolist(), "frame_times_s": example.times_s.tolist(), "frames": frames,
        "decoder": "decord",
    }  # fmt: skip


@pytest.fixture
def recipe(config):  # noqa: F811
    def stage(**fields):
        phase = {
            "name": "p", "mixture": dict.fromkeys(KINDS, 1), "steps": 6, "batch_size": 4, "micro_batch_size": 2,
        }  # fmt: skip
        return {"phases": [phase], "precision": "fp32", **fields}

    source = {"name": "s", "reader": "r", "root": "/nowhere", "split": "train", "part": "train"}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"sources": [source]},
            "model": config.model_dump(),
            "stages": {"task_assignment": stage(lr={"lora": 1e-2}), "vision_task": stage(loss_weights={"kl": 1.0})},
            "train": {"log_every_steps": 2, "checkpoint_every_steps": 2},
        }
    )


def run(job, build=build_phase):
    run_rank(job, build=build, device=torch.device("cpu"), open_sink=NoSink, report=lambda row: None)
    return load_file(job.model / "model.safetensors")


class KilledError(Exception):
    """Stands for a process that dies."""


def build_dying(job, strategy):
    model, batches = build_phase(job, strategy)
    inner = batches.step

    def step(number):
        if number == 3:
            raise KilledError
        return inner(number)

    batches.step = step
    return model, batches


def test_a_phase_starts_from_the_one_before_and_resumes_exactly(base, recipe, shards, tmp_path):  # noqa: F811
    first, second = (
        PhaseJob(
            recipe=recipe, stage_name=ref.stage_name, phase=ref.phase, shards_uri=str(shards),
            init_uri=init, output=tmp_path / ref.stage_name,
        )
        for ref, init in zip(phases_of(recipe), (str(base), str(tmp_path / "task_assignment" / "model")), strict=True)
    )  # fmt: skip
    assigned, start = run(first), TpoModel.from_base(str(base), recipe.model, []).state_dict()
    moved = {n for n, t in assigned.items() if f"backbone.vlm.{n}" in start and "lora_" not in n
             and not torch.equal(t, start[f"backbone.vlm.{n}"])}  # fmt: skip
    assert moved == set()  # the backbone itself is frozen
    assert any("lora_B" in name and tensor.any() for name, tensor in assigned.items())  # adapters start at zero

    trained = run(second)
    names = {entry["name"]: entry for entry in json.loads((second.model / "parameters.json").read_text())}
    assert {e["group"] for e in names.values() if e["trained"]} == set(recipe.stages["vision_task"].lr)
    kept = [name for name in assigned if not names[name]["trained"]]
    assert all(torch.equal(assigned[name], trained[name]) for name in kept)

    again = PhaseJob(**{**vars(second), "output": tmp_path / "again"})
    with pytest.raises(KilledError):
        run(again, build_dying)
    resumed = run(again)
    assert "resuming at step 2" in again.notes.read_text()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in trained.items())
    rows = [json.loads(line) for line in second.history.read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"loss/lm", "loss/kl", "loss/region", "loss/temporal", "loss/mask"} <= set().union(*rows)
    assert not any("loss/kl" in json.loads(line) for line in first.history.read_text().splitlines())
