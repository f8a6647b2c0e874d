"""The published mask head: what it learns from, what it predicts, and that SAM2 is no part of it."""

import copy

import pytest
import torch
from torch import Tensor

from tests.tiny_sam2 import context_of, random_clip, tiny_sam2
from tpo_core.config.base import identity
from tpo_core.config.model import MaskConfig, ModelConfig, Sam2MaskConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import MaskTargets
from tpo_core.heads.mask import MaskHead
from tpo_core.heads.registry import build_head
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.head import Sam2MaskHead

HIDDEN = 12
CELLS = 32  # of a mask, each way


@pytest.fixture(scope="module")
def sam() -> FrozenSam2:
    return FrozenSam2(tiny_sam2())


def head_of(sam: FrozenSam2, **settings) -> Sam2MaskHead:
    torch.manual_seed(0)
    return Sam2MaskHead(Sam2MaskConfig(**settings), HIDDEN, sam)


def rectangle_targets(boxes_N4: Tensor, frames: int, *, masks: bool = True) -> MaskTargets:
    """The same box on every frame, as masks or as boxes alone."""
    count = len(boxes_N4)
    masks_NTHW = torch.zeros(count, frames, CELLS, CELLS, dtype=torch.uint8)
    for mask_THW, (x0, y0, x1, y1) in zip(masks_NTHW, (boxes_N4 * CELLS).int().tolist(), strict=True):
        mask_THW[:, y0:y1, x0:x1] = int(masks)
    return MaskTargets(
        masks_NTHW=masks_NTHW,
        valid_NT=torch.ones(count, frames, dtype=torch.bool),
        box_only_N=torch.full((count,), not masks),
        boxes_NT4=torch.full((count, frames, 4), torch.nan) if masks else boxes_N4[:, None].repeat(1, frames, 1),
    )


BOXES_N4 = torch.tensor([[0.25, 0.25, 0.75, 0.5], [0.5, 0.125, 1.0, 0.875], [0.0, 0.5, 0.25, 1.0]])


def test_a_recipe_chooses_the_decoder_and_the_light_one_stays_what_it_was(tmp_path):
    tiny_sam2().save_pretrained(tmp_path)
    chosen = ModelConfig(base="b", mask={"decoder": "sam2", "sam2": {"source": str(tmp_path), "pixel_weight": 0.5}})
    head = build_head("mask", chosen, HIDDEN, 7)
    assert isinstance(head, Sam2MaskHead)
    assert head.config.pixel_weight == 0.5
    assert isinstance(build_head("mask", ModelConfig(base="b"), HIDDEN, 7), MaskHead)
    assert identity(MaskConfig()) == {"decoder": "light", "width": 128, "train_frames": None}
    assert identity(chosen)["mask"]["sam2"]["pixel_weight"] == 0.5


def test_a_recipe_with_a_wrong_source_is_told():
    config = ModelConfig(base="b", mask={"decoder": "sam2", "sam2": {"source": "no/such/folder"}})
    with pytest.raises(TpoError, match=r"no SAM2 video model at 'no/such/folder'"):
        build_head("mask", config, HIDDEN, 7)


def test_nothing_of_sam2_is_saved_trained_or_moved_with_the_head(sam):
    head = head_of(sam)
    names = {f"{part}.layers.{layer}.{leaf}" for part in ("track_embed", "track_embed_decode2")
             for layer in (0, 1) for leaf in ("weight", "bias")}  # fmt: skip
    assert set(head.state_dict()) == {name for name, _ in head.named_parameters()} == names
    assert not any(module is sam.model for module in head.modules())
    copy.deepcopy(head).train().to("meta").double()
    head.train().to(torch.float64)
    assert not sam.model.training
    assert {value.dtype for value in sam.model.parameters()} == {torch.float32}


def test_layers_have_the_published_shapes(sam):
    head = head_of(sam)
    assert head.track_embed.layers[0].weight.shape == (HIDDEN, HIDDEN)
    assert head.track_embed.layers[1].weight.shape == (3 * sam.prompt_width, HIDDEN)
    assert head.track_embed_decode2.layers[1].weight.shape == (4, HIDDEN)


@pytest.mark.parametrize("masks", [True, False])
def test_losses_are_distances_to_the_prompt_of_the_box_and_to_the_box(sam, masks):
    head, hidden_NC = head_of(sam), torch.randn(3, HIDDEN)
    losses = head(hidden_NC, None, rectangle_targets(BOXES_N4, 2, masks=masks)).losses
    assert set(losses) == {"embedding", "box"}
    embedding = (head.prompts(hidden_NC) - sam.embed_boxes(BOXES_N4)).abs().mean()
    torch.testing.assert_close(losses["embedding"], embedding)
    torch.testing.assert_close(losses["box"], (head.track_embed_decode2(hidden_NC) - BOXES_N4).abs().mean())


def test_samples_that_never_show_their_object_count_for_nothing(sam):
    head, hidden_NC = head_of(sam), torch.randn(3, HIDDEN)
    targets = rectangle_targets(BOXES_N4, 2)
    targets.masks_NTHW[1] = 0
    mixed, alone = head(hidden_NC, None, targets), head(hidden_NC[[0, 2]], None, rectangle_targets(BOXES_N4[[0, 2]], 2))
    for name, value in mixed.losses.items():
        torch.testing.assert_close(value, alone.losses[name])
    assert mixed.report == pytest.approx(alone.report)


@pytest.mark.parametrize("pixel_weight", [0.0, 1.0])
def test_a_batch_without_any_object_gives_zero_and_a_gradient_of_zero_everywhere(sam, pixel_weight):
    head, targets = head_of(sam, pixel_weight=pixel_weight), rectangle_targets(BOXES_N4, 2)
    targets.valid_NT[:] = False
    output = head(torch.randn(3, HIDDEN), context_of([random_clip(2)] * 3), targets)
    output.total.backward()
    assert output.total == 0
    assert output.report == {}
    assert all((value.grad == 0).all() for value in head.parameters())


def test_degenerate_boxes_give_finite_losses_and_gradients(sam):
    boxes_N4 = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1], [-2.0, 0.0, 5.0, 1.0]])
    head = head_of(sam)
    output = head(torch.randn(3, HIDDEN), None, rectangle_targets(boxes_N4, 1, masks=False))
    output.total.backward()
    assert output.total.isfinite()
    assert all(value.grad.isfinite().all() for value in head.parameters())


def test_autocast_changes_nothing(sam):
    head, hidden_NC, targets = head_of(sam), torch.randn(3, HIDDEN), rectangle_targets(BOXES_N4, 1)
    plain = head(hidden_NC, None, targets).losses
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = head(hidden_NC, None, targets).losses
        predicted = head.predict(hidden_NC[:1], context_of([random_clip(2)]))
    assert all(torch.equal(value, cast[name]) for name, value in plain.items())
    assert torch.equal(predicted[0].masks_THW, head.predict(hidden_NC[:1], context_of([random_clip(2)]))[0].masks_THW)


def test_it_learns_boxes_by_heart(sam):
    head, hidden_NC, targets = head_of(sam), torch.eye(3, HIDDEN) * 3, rectangle_targets(BOXES_N4, 1)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    first = head(hidden_NC, None, targets)
    for _ in range(150):
        optimizer.zero_grad()
        head(hidden_NC, None, targets).total.backward()
        optimizer.step()
    last = head(hidden_NC, None, targets)
    assert last.losses["embedding"] < 0.2 * first.losses["embedding"]
    assert last.report["box_iou"] > 0.8


def test_pixel_losses_scale_with_their_weight_and_reach_the_prompts_but_not_sam2(sam):
    hidden_NC, targets = torch.randn(3, HIDDEN), rectangle_targets(BOXES_N4, 2)
    context = context_of([random_clip(2, seed=seed) for seed in range(3)])
    single, double = (head_of(sam, pixel_weight=weight) for weight in (1.0, 2.0))
    once, twice = single(hidden_NC, context, targets).losses, double(hidden_NC, context, targets).losses
    assert set(once) == {"embedding", "box", "pixel_bce", "pixel_dice"}
    torch.testing.assert_close(2 * once["pixel_bce"], twice["pixel_bce"])
    torch.testing.assert_close(once["box"], twice["box"])
    (once["pixel_bce"] + once["pixel_dice"]).backward()
    assert single.track_embed.layers[0].weight.grad.abs().sum() > 0
    assert single.track_embed_decode2.layers[0].weight.grad is None
    assert all(value.grad is None for value in sam.model.parameters())


def test_the_pixel_loss_can_be_learned(sam):
    head, hidden_NC, targets = (
        head_of(sam, pixel_weight=1.0),
        torch.eye(1, HIDDEN) * 3,
        rectangle_targets(BOXES_N4[:1], 1),
    )
    context, optimizer = context_of([random_clip(1)]), torch.optim.Adam(head.parameters(), 1e-2)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        losses = head(hidden_NC, context, targets).losses
        values.append((losses["pixel_bce"] + losses["pixel_dice"]).item())
        (losses["pixel_bce"] + losses["pixel_dice"]).backward()
        optimizer.step()
    assert values[-1] < 0.95 * values[0]


def test_the_pixel_loss_looks_at_the_frame_prompted_on_alone(sam):
    head, hidden_NC, targets = (
        head_of(sam, pixel_weight=1.0),
        torch.randn(1, HIDDEN),
        rectangle_targets(BOXES_N4[:1], 3),
    )
    targets.valid_NT[0, 0] = False  # prompted on frame 1
    clip = random_clip(3)
    before = head(hidden_NC, context_of([clip]), targets).losses["pixel_bce"]
    others, that = clip.clone(), clip.clone()
    others[[0, 2]], that[1] = 255 - others[[0, 2]], 255 - that[1]
    assert head(hidden_NC, context_of([others]), targets).losses["pixel_bce"] == before
    assert head(hidden_NC, context_of([that]), targets).losses["pixel_bce"] != before


def test_tracks_of_boxes_take_no_part_in_the_pixel_loss(sam):
    head, hidden_NC = head_of(sam, pixel_weight=1.0), torch.randn(2, HIDDEN)
    context = context_of([random_clip(1, seed=1), random_clip(1, seed=2)])
    boxes = head(hidden_NC, context, rectangle_targets(BOXES_N4[:2], 1, masks=False)).losses
    assert boxes["pixel_bce"] == boxes["pixel_dice"] == 0
    mixed = rectangle_targets(BOXES_N4[:2], 1)
    mixed.box_only_N[1] = True
    mixed.boxes_NT4[1, 0] = BOXES_N4[1]
    alone = head(hidden_NC[:1], context.rows(torch.tensor([0])), rectangle_targets(BOXES_N4[:1], 1)).losses
    torch.testing.assert_close(head(hidden_NC, context, mixed).losses["pixel_bce"], alone["pixel_bce"])
