"""Which frame and box a sample teaches to prompt with."""

import pytest
import torch
from torch import Tensor

from tpo_core.heads.base import MaskTargets
from tpo_core.heads.sam2.targets import prompt_boxes, tight_boxes

NO_BOX = [torch.nan] * 4


def masks_of(*rectangles: tuple[int, int, int, int] | None, size: tuple[int, int] = (8, 10)) -> Tensor:
    """(1, T, H, W) uint8: on each frame a half-open xyxy rectangle of cells, or nothing."""
    masks = torch.zeros(1, len(rectangles), *size, dtype=torch.uint8)
    for mask_HW, rectangle in zip(masks[0], rectangles, strict=True):
        if rectangle is not None:
            x0, y0, x1, y1 = rectangle
            mask_HW[y0:y1, x0:x1] = 1
    return masks


def targets_of(masks_1THW: Tensor, valid: list[bool], boxes: list[list[float]] | None = None) -> MaskTargets:
    given = [NO_BOX] * len(valid) if boxes is None else boxes
    return MaskTargets(masks_1THW, torch.tensor([valid]), torch.tensor([False]), torch.tensor([given]))


@pytest.mark.parametrize(
    ("rectangle", "box"),
    [
        ((2, 3, 7, 5), [0.2, 0.375, 0.7, 0.625]),
        ((0, 0, 10, 8), [0, 0, 1, 1]),
        ((9, 7, 10, 8), [0.9, 0.875, 1, 1]),
        ((0, 4, 10, 5), [0, 0.5, 1, 0.625]),
    ],
)
def test_a_box_is_half_open_and_tight(rectangle, box):
    assert tight_boxes(masks_of(rectangle))[0, 0].tolist() == pytest.approx(box)


def test_parts_share_one_box_and_an_empty_mask_has_none():
    masks = masks_of((1, 1, 2, 2), None)
    masks[0, 0, 6, 8] = 1
    boxes = tight_boxes(masks)[0]
    assert boxes[0].tolist() == pytest.approx([0.1, 0.125, 0.9, 0.875])
    assert boxes[1].isnan().all()


def test_the_first_annotated_frame_with_the_object_counts():
    masks = masks_of((0, 0, 1, 1), None, (2, 2, 4, 4), (5, 5, 6, 6))
    found = prompt_boxes(targets_of(masks, [False, True, True, True]))
    assert found.frame_N.tolist() == [2]
    assert found.boxes_N4[0].tolist() == pytest.approx([0.2, 0.25, 0.4, 0.5])
    assert found.present_N.tolist() == [True]


@pytest.mark.parametrize("valid", [[True, True], [True, False], [False, False]])
def test_an_object_that_no_annotated_frame_shows(valid):
    found = prompt_boxes(targets_of(masks_of(None, (1, 1, 2, 2) if not valid[1] else None), valid))
    assert found.present_N.tolist() == [False]
    assert found.boxes_N4.tolist() == [[0, 0, 0, 0]]


def test_boxes_that_a_sample_carries_go_before_those_of_its_masks():
    masks = masks_of((0, 0, 5, 4), (0, 0, 5, 4))
    found = prompt_boxes(targets_of(masks, [True, True], [[0.01, 0.02, 0.51, 0.49], NO_BOX]))
    assert found.boxes_N4[0].tolist() == pytest.approx([0.01, 0.02, 0.51, 0.49])
    second = prompt_boxes(targets_of(masks, [False, True], [[0.01, 0.02, 0.51, 0.49], NO_BOX]))
    assert second.boxes_N4[0].tolist() == pytest.approx([0, 0, 0.5, 0.5])


def test_a_track_of_boxes_needs_no_masks_and_keeps_boxes_as_they_are():
    track = [NO_BOX, [-0.1, 0.5, 1.2, 0.5]]  # beyond the image, without height
    found = prompt_boxes(targets_of(masks_of(None, None), [True, True], track))
    assert found.frame_N.tolist() == [1]
    assert found.boxes_N4[0].tolist() == pytest.approx(track[1])


def test_samples_of_a_batch_do_not_mix():
    masks = torch.cat([masks_of(None, None), masks_of((1, 1, 2, 2), None), masks_of(None, (3, 3, 6, 6))])
    boxes = torch.full((3, 2, 4), torch.nan)
    found = prompt_boxes(
        MaskTargets(masks, torch.ones(3, 2, dtype=torch.bool), torch.zeros(3, dtype=torch.bool), boxes)
    )
    assert found.present_N.tolist() == [False, True, True]
    assert found.frame_N[1:].tolist() == [0, 1]
    assert found.boxes_N4[2].tolist() == pytest.approx([0.3, 0.375, 0.6, 0.75])
