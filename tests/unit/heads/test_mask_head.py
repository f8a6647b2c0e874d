import pytest
import torch

from tpo_core.heads.base import MaskTargets
from tpo_core.heads.mask import MaskHead, decode, dense_terms, draw_frames, projection_terms, side


def head() -> MaskHead:
    torch.manual_seed(0)
    return MaskHead(hidden_size=24, vision_size=16, width=16)


def targets(masks: torch.Tensor, *, boxes: torch.Tensor | None = None) -> MaskTargets:
    count, frames = masks.shape[:2]
    box_only = torch.full((count,), boxes is not None)
    boxes = torch.full((count, frames, 4), torch.nan) if boxes is None else boxes
    return MaskTargets(masks, torch.ones(count, frames, dtype=torch.bool), box_only, boxes)


def rectangles(count: int, frames: int, size: int = 16) -> torch.Tensor:
    masks = torch.zeros(count, frames, size, size, dtype=torch.uint8)
    for row in range(count):
        x, y = (int(v) for v in torch.randint(0, size // 2, (2,)))
        for frame in range(frames):
            masks[row, frame, y : y + 6, x + frame : x + frame + 6] = 1
    return masks


def test_an_absent_object_contributes_cross_entropy_only():
    terms = dense_terms(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    assert terms["dice"].item() == 0
    assert terms["bce"].item() == pytest.approx(0.6931, abs=1e-4)


def test_object_and_background_weigh_the_same():
    truth = torch.zeros(1, 10, 10)
    truth[0, 0, 0] = 1
    all_background = torch.full((1, 10, 10), -4.0)
    assert dense_terms(all_background, truth)["bce"].item() == pytest.approx(0.5 * (4.018 + 0.018), abs=1e-3)


def test_frames_without_annotation_carry_no_loss(random_context):
    model, context = head(), random_context(2, 3)
    truth = targets(rectangles(2, 3))
    truth.valid_NT[:, 1:] = False
    hidden = torch.randn(2, 24)
    before = model(hidden, context, truth).total.item()
    truth.masks_NTHW[:, 1:] = 1
    assert model(hidden, context, truth).total.item() == before


def test_drawn_frames_are_in_order_and_annotated_ones_come_first():
    valid = torch.tensor([[True, False, True, False, True, False], [True] * 6])
    drawn = set()
    for seed in range(20):
        index = draw_frames(valid, 3, [torch.Generator().manual_seed(seed) for _ in valid])
        assert index[0].tolist() == [0, 2, 4]
        assert (index[1].diff() > 0).all()
        drawn.add(tuple(index[1].tolist()))
    assert len(drawn) > 5


def test_what_is_drawn_for_a_row_does_not_depend_on_the_rows_beside_it(random_context):
    few, context, hidden = MaskHead(24, 16, 16, train_frames=2), random_context(2, 5), torch.randn(2, 24)
    truth = targets(rectangles(2, 5))
    context.draws = [7, 8]

    def sums(row):
        of_row = {name: value[row] for name, value in vars(truth).items()}
        return few(hidden[row], context.rows(torch.arange(2)[row]), MaskTargets(**of_row)).sums

    first, second, both = (sums(row) for row in (slice(0, 1), slice(1, 2), slice(0, 2)))
    for name, value in both.items():
        assert (first[name] + second[name]).item() == pytest.approx(value.item(), rel=1e-5)


def test_a_drawn_frame_brings_its_own_mask_pixels_and_place(random_context):
    torch.manual_seed(0)
    few, every = MaskHead(24, 16, 16, train_frames=2), head()
    few.load_state_dict(every.state_dict())
    context, truth, hidden = random_context(2, 5), targets(rectangles(2, 5)), torch.randn(2, 24)
    truth.valid_NT[:] = False
    truth.valid_NT[:, [1, 4]] = True
    assert few(hidden, context, truth).total.item() == pytest.approx(every(hidden, context, truth).total.item())


def test_a_batch_without_any_annotated_frame_is_zero_and_reaches_all_parameters(random_context):
    model = head()
    truth = targets(rectangles(2, 3))
    truth.valid_NT[:] = False
    total = model(torch.randn(2, 24), random_context(2, 3), truth).total
    total.backward()
    assert total.item() == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_box_sides_cover_the_cells_that_the_box_touches():
    cells = side(torch.tensor([0.30, 0.5, 0.0]), torch.tensor([0.55, 0.5, 1.0]), 10)
    assert cells[0].nonzero().squeeze(1).tolist() == [3, 4, 5]
    assert cells[1].sum() >= 1
    assert cells[2].sum() == 10


def test_projection_loss_pulls_the_mask_into_its_box_and_is_finite_for_degenerate_boxes():
    logits = torch.zeros(3, 8, 8, requires_grad=True)
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.5, 0.5, 0.5, 0.5], [torch.nan] * 4])
    optimizer = torch.optim.Adam([logits], 0.5)
    for _ in range(60):
        optimizer.zero_grad()
        torch.stack([term.sum() for term in projection_terms(logits, boxes).values()]).sum().backward()
        assert logits.grad.isfinite().all()
        optimizer.step()
    found = decode(logits.detach())
    assert found.boxes_T4[0].tolist() == [2, 2, 6, 6]
    assert not found.masks_THW[2].any()


def test_box_only_samples_learn_from_boxes_and_never_from_their_empty_masks(random_context):
    model, context = head(), random_context(2, 2)
    boxes = torch.tensor([0.2, 0.2, 0.6, 0.7]).expand(2, 2, 4)
    output = model(torch.randn(2, 24), context, targets(torch.zeros(2, 2, 16, 16, dtype=torch.uint8), boxes=boxes))
    assert output.losses["projection"].item() > 0
    assert output.losses["bce"].item() == 0
    output.total.backward()
    assert any(p.grad.abs().sum() > 0 for p in model.parameters())


def test_prediction_has_the_original_size_and_one_mask_a_stored_frame(random_context):
    context = random_context(2, 3)
    context.frame_mask_BT[1, 1:] = False
    first, second = head().predict(torch.randn(2, 24), context)
    assert first.masks_THW.shape == (3, 48, 64)
    assert second.masks_THW.shape == (1, 48, 64)


def test_tight_boxes_are_half_open_and_nan_where_empty():
    logits = torch.full((2, 6, 8), -1.0)
    logits[0, 1:3, 2:5] = 1.0
    found = decode(logits)
    assert found.boxes_T4[0].tolist() == [2, 1, 5, 3]
    assert found.boxes_T4[1].isnan().all()
    assert found.scores_T[0].item() == pytest.approx(0.7311, abs=1e-3)


def test_overfits_eight_samples(random_context):
    torch.manual_seed(0)
    model, hidden, context = head(), torch.randn(8, 24), random_context(8, 2)
    truth = targets(rectangles(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = model(hidden, context, truth).total.item()
    for _ in range(150):
        optimizer.zero_grad()
        model(hidden, context, truth).total.backward()
        optimizer.step()
    output = model(hidden, context, truth)
    assert output.total.item() < 0.2 * first
    assert output.report["iou"] > 0.7
