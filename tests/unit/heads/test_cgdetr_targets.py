import pytest
import torch

from tpo_core.heads.cgdetr.postprocess import round_to_clips, windows
from tpo_core.heads.cgdetr.targets import MAX_WINDOWS, build_targets, clips_inside


def build(windows_s, clip_s, count, seed=0):
    truth = torch.tensor(windows_s, dtype=torch.float32).reshape(-1, 2)
    mask = torch.ones(1, count, dtype=torch.bool)
    return build_targets([truth], [clip_s], mask, [torch.Generator().manual_seed(seed)])


@pytest.mark.parametrize(
    ("window", "clip_s", "inside"),
    [
        ([2.0, 5.0], 1.0, [2, 3, 4]),
        ([2.4, 5.9], 1.0, [2, 3, 4]),
        ([2.4, 2.6], 1.0, [2]),
        ([4.0, 4.0], 2.0, [2]),
        ([0.0, 16.0], 2.0, list(range(8))),
        ([15.9, 99.0], 2.0, [7]),
        ([40.0, 99.0], 2.0, [7]),
    ],
)
def test_a_window_marks_clips_from_its_start_to_before_its_end(window, clip_s, inside):
    marked = clips_inside(torch.tensor([window]), clip_s, 8)
    assert marked.nonzero()[:, 0].tolist() == inside


@pytest.mark.parametrize("duration_s", [7.3, 10.0, 31.7, 123.456])
def test_edges_that_were_fractions_in_fp32_stay_at_their_clip(duration_s):
    count = 50
    for clip in range(count - 1):
        edges = torch.tensor([clip / count, (clip + 1) / count]) * duration_s
        assert clips_inside(edges[None], duration_s / count, count).nonzero()[:, 0].tolist() == [clip]


def test_spans_are_centre_and_width_as_fractions_of_the_clips_time():
    found = build([[2.0, 5.0], [8.0, 9.0]], 2.0, 5)
    spans = sorted(found.spans[0].tolist())
    assert spans == [pytest.approx([0.35, 0.3]), pytest.approx([0.85, 0.1])]
    assert found.relevant_BV.tolist() == [[0, 1, 0, 0, 1]]
    assert found.saliency_BV.tolist() == found.relevant_BV.tolist()


def test_positive_clips_lie_inside_and_negative_ones_outside():
    for seed in range(20):
        found = build([[3.0, 6.0], [8.0, 9.0]], 1.0, 12, seed)
        inside = found.relevant_BV[0].bool()
        assert inside[found.positive_BP[0]].all()
        assert not inside[found.negative_BP[0]].any()
        assert found.positive_BP[0].unique().numel() == found.negative_BP[0].unique().numel() == 2


def test_every_clip_of_a_side_can_be_drawn():
    drawn = {clip for seed in range(60) for clip in build([[3.0, 6.0]], 1.0, 8, seed).positive_BP[0].tolist()}
    assert drawn == {3, 4, 5}


def test_the_draw_is_that_of_the_generator():
    rows = [[i, i + 0.5] for i in range(9)]
    one, same, other = build(rows, 1.0, 12, 3), build(rows, 1.0, 12, 3), build(rows, 1.0, 12, 4)
    assert torch.equal(one.spans[0], same.spans[0])
    assert torch.equal(one.positive_BP, same.positive_BP)
    assert not torch.equal(one.spans[0], other.spans[0])


def test_at_most_five_windows_become_spans_but_all_mark_clips():
    found = build([[i, i + 1] for i in range(0, 16, 2)], 1.0, 16)
    assert len(found.spans[0]) == MAX_WINDOWS
    assert len(found.spans[0].unique(dim=0)) == MAX_WINDOWS
    assert found.relevant_BV.sum() == 8


@pytest.mark.parametrize(
    ("window", "positive", "negative"),
    [
        ([[2.0, 3.0]], {2}, {0, 1, 3}),
        ([[0.0, 3.0]], {0, 1, 2}, {3}),
        ([[0.0, 4.0]], {0, 1, 2, 3}, None),
        ([], None, {0, 1, 2, 3}),
    ],
)
def test_a_side_with_one_clip_repeats_it_and_one_without_any_gives_equal_pairs(window, positive, negative):
    found = build(window, 1.0, 4)
    drawn = set(found.positive_BP[0].tolist()), set(found.negative_BP[0].tolist())
    if positive is None or negative is None:
        assert torch.equal(found.positive_BP, found.negative_BP)
        assert drawn[0] <= (positive or negative)
    else:
        assert drawn[0] <= positive
        assert drawn[1] <= negative


def test_a_batch_is_padded_with_irrelevant_clips():
    truth = [torch.tensor([[0.0, 3.0]]), torch.tensor([[2.0, 10.0]])]
    mask = torch.arange(6) < torch.tensor([[3], [5]])
    found = build_targets(truth, [1.0, 2.0], mask, [torch.Generator().manual_seed(0) for _ in truth])
    assert found.relevant_BV.tolist() == [[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0]]
    assert found.positive_BP.shape == found.negative_BP.shape == (2, 2)
    assert found.spans[1].tolist() == [pytest.approx([0.6, 0.8])]


def logits(scores: list[float]) -> torch.Tensor:
    """Logits (Q, 2) whose softmax gives these foreground scores."""
    score = torch.tensor(scores)
    return torch.stack([score.log(), (1 - score).log()], -1)


def test_windows_are_clamped_seconds_best_first_and_none_is_suppressed():
    spans = torch.tensor([[0.5, 0.2], [0.1, 0.4], [0.5, 0.2], [0.9, 0.5]])
    found = windows(logits([0.25, 0.75, 0.25, 0.5]), spans, 12.5)
    assert found == [
        pytest.approx((0.0, 3.75, 0.75), abs=1e-4),
        pytest.approx((8.125, 12.5, 0.5), abs=1e-4),
        pytest.approx((5.0, 7.5, 0.25), abs=1e-4),
        pytest.approx((5.0, 7.5, 0.25), abs=1e-4),
    ]


def test_numbers_have_four_decimals():
    (found,) = windows(logits([1 / 3]), torch.tensor([[1 / 3, 1 / 7]]), 1.0)
    assert [round(number, 4) for number in found] == list(found)
    assert found[2] == 0.3333


def test_ends_fall_on_clips_and_halves_on_the_even_one():
    found = round_to_clips([(1.0, 3.0, 0.9), (4.9, 7.2, 0.5)], 2.0, 100.0)
    assert found == [(0.0, 4.0, 0.9), (4.0, 8.0, 0.5)]
    assert round_to_clips([(0.5, 12.6, 0.9)], 1.0, 12.6) == [(0.0, 13.0, 0.9)]
    assert round_to_clips([(10.0, 170.0, 0.9)], 2.0, 150.0) == [(10.0, 150.0, 0.9)]
