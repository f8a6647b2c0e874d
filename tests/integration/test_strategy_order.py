"""All ranks run the same modules in the same order, whatever their samples lack, so that gathers and reductions meet.

Under `ddp`, which gathers nothing in a forward: there a module too many is a difference, under the others a wait
without an end. Our own heads leave out nothing either. The published ones may leave out parts of themselves, as they
are whole on every rank (`TpoModel.whole_units`); so of those counts that they run, and not what runs inside.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.integration.strategy_run import CYCLE, Setting, StrategyRun, join
from tests.integration.test_strategies import lacking
from tests.integration.test_strategies_published import CG_DETR
from tests.tiny_sam2 import tiny_sam2
from tests.unit.models.conftest import base, make_example  # noqa: F401 (fixtures)
from tpo_core.models.task_tokens import TRACK_BOX

pytestmark = pytest.mark.slow

STEPS = len(CYCLE)  # two micro-batches each: every kind twice, first and second
DECODERS = ("own", "published")
SAMPLES = ("whole", "lacking")  # of the second rank
INSIDE_A_HEAD = re.compile(r"heads\.\w+\.")


def without_a_given_box(example):
    """The example with a question that gives no box."""
    asks, answers = example.sample.turns
    asks = replace(asks, text=asks.text.replace(TRACK_BOX, "the left"), target_refs=())
    return replace(example, sample=replace(example.sample, turns=(asks, answers)))


def record(folder: Path, decoder: str, samples: str) -> list[tuple[str, str]]:
    """(what, name) of one rank in order of time: "batch" and its kind, "run" of a module, "gradient" of a parameter."""
    given = torch.load(folder / f"{samples}.pt", weights_only=False)
    run = StrategyRun("ddp", folder / decoder, Setting(steps=STEPS), given)
    seen: list[tuple[str, str]] = []
    run.model.register_forward_pre_hook(lambda module, args: seen.append(("batch", args[0].kind)))
    for name, module in run.model.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.append(("run", name)))
    for name, parameter in run.model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: seen.append(("gradient", name)))
    run.train(STEPS)
    return seen


def work(rank: int, folder: Path) -> None:
    join(rank, 2, folder / "meet")
    found = {(decoder, samples): record(folder, decoder, samples) for decoder in DECODERS for samples in SAMPLES}
    torch.save(found, folder / f"seen-{rank}.pt")


@pytest.fixture(scope="module")
def seen(base, tmp_path_factory):  # noqa: F811
    """By decoders and samples, what the first rank recorded and what the second did."""
    folder = tmp_path_factory.mktemp("order")
    tiny_sam2().save_pretrained(folder / "sam2")
    config = {"base": str(base), "lora": {"rank": 2, "alpha": 4}}
    decoders = {
        "own": {"temporal": {"width": 16, "layers": 1}, "mask": {"width": 8, "train_frames": 2}},
        "published": {
            "temporal": {"decoder": "cg_detr", "cg_detr": CG_DETR},
            "mask": {"decoder": "sam2", "sam2": {"source": str(folder / "sam2"), "pixel_weight": 0.5}},
        },
    }
    for name, heads in decoders.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({**config, **heads}))
    make = make_example._get_wrapped_function()()

    def less(kind, n):
        if n % 2 == 0:  # of the first rank
            return make(kind, seed=n)
        return without_a_given_box(lacking(make(kind, 0 if kind == "chat" else 4, seed=n)))

    for samples, example in (("whole", lambda kind, n: make(kind, seed=n)), ("lacking", less)):
        torch.save({kind: [example(kind, n) for n in range(6)] for kind in CYCLE}, folder / f"{samples}.pt")
    mp.spawn(work, args=(folder,), nprocs=2)
    ranks = [torch.load(folder / f"seen-{rank}.pt", weights_only=False) for rank in range(2)]
    return {key: [rank[key] for rank in ranks] for key in ranks[0]}


def order(decoder: str, what: str, rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What ran, or got a gradient, with the batches in between; of a published head no part."""
    rows = [row for row in rows if row[0] in ("batch", what)]
    return [row for row in rows if decoder == "own" or not INSIDE_A_HEAD.match(row[1])]


@pytest.mark.parametrize("what", ["run", "gradient"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_both_ranks_keep_one_order_whatever_the_samples_of_the_second_lack(seen, decoder, what):
    expected, *others = (order(decoder, what, rows) for samples in SAMPLES for rows in seen[decoder, samples])
    for found in others:
        assert found == expected


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_was_compared_is_the_whole_model_on_all_kinds(seen, decoder):
    rows = seen[decoder, "lacking"][1]
    assert sorted(name for what, name in rows if what == "batch") == sorted(CYCLE * 2)
    ran = {name for what, name in order(decoder, "run", rows)}
    assert ran >= {"task_tokens.loc_encoder", *(f"heads.{kind}" for kind in CYCLE[:3])}
    reached = {name for what, name in order(decoder, "gradient", rows)}
    for part in ("vision_tower", "language_model"):
        assert any(part in name for name in ran)
        assert any(part in name for name in reached)
    assert reached >= {f"task_tokens.vectors.{kind}" for kind in CYCLE[:3]}
