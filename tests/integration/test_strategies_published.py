"""The published heads, CG-DETR and SAM2, under every strategy on two ranks compute what they compute under ddp.

Draws and dropout depend on the rank, so that two ranks are compared with two; half of the samples lack their labels.
"""

import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from tests.integration.strategy_run import CYCLE, Setting, StrategyRun, join, numbers
from tests.integration.test_strategies import lacking, require_equal_numbers, require_equal_tensors
from tests.tiny_sam2 import tiny_sam2
from tests.unit.models.conftest import base, make_example  # noqa: F401 (fixtures)

pytestmark = pytest.mark.slow

ORDER = ("ddp", "zero2", "zero3", "fsdp2")
STEPS = 8
CG_DETR = {"width": 8, "heads": 2, "sentence_heads": 2, "ffn_width": 16, "queries": 4, "dummies": 3, "prompts": 2}


def work(rank: int, folder: Path, name: str) -> None:
    join(rank, 2, folder / f"meet-{name}")
    if name == "zero3":
        from tpo_core.train.strategies import zero

        zero.WHOLE_BELOW = 40  # of this model all parameters are small: cut most of them up
    given = torch.load(folder / "given.pt", weights_only=False)
    run = StrategyRun(name, folder, Setting(steps=STEPS), given).train(STEPS)
    weights = run.strategy.weights()
    if rank == 0:
        run.model.save_pretrained(folder / f"model-{name}", weights)
        torch.save({"rows": numbers(run.rows), "weights": weights}, folder / f"{name}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def runs(base, folder):  # noqa: F811
    tiny_sam2().save_pretrained(folder / "sam2")
    config = {
        "base": str(base),
        "lora": {"rank": 2, "alpha": 4, "dropout": 0.0},
        "temporal": {"decoder": "cg_detr", "cg_detr": CG_DETR},
        "mask": {"decoder": "sam2", "sam2": {"source": str(folder / "sam2"), "pixel_weight": 0.5}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    make = make_example._get_wrapped_function()()
    given = {kind: [(lacking if n % 2 else lambda e: e)(make(kind, seed=n)) for n in range(6)] for kind in CYCLE}
    torch.save(given, folder / "given.pt")
    for name in ORDER:
        mp.spawn(work, args=(folder, name), nprocs=2)
    return {name: torch.load(folder / f"{name}.pt", weights_only=False) for name in ORDER}


@pytest.mark.parametrize("name", ORDER[1:])
def test_the_published_heads_train_alike_under_every_strategy(runs, name):
    require_equal_numbers(runs[name]["rows"], runs["ddp"]["rows"])
    require_equal_tensors(runs[name]["weights"], runs["ddp"]["weights"])


@pytest.mark.parametrize("name", ORDER)
def test_the_model_is_saved_alike(runs, folder, name):
    saved, expected = (load_file(folder / f"model-{each}/model.safetensors") for each in (name, "ddp"))
    require_equal_tensors(saved, expected)


def test_each_published_head_had_a_loss(runs):
    rows = runs["ddp"]["rows"]
    for head in ("temporal", "mask"):
        assert any(row.get(f"loss/{head}", 0) > 0 for row in rows)
