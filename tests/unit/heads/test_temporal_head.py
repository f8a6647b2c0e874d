import pytest
import torch

from tpo_core.heads.base import TemporalTargets
from tpo_core.heads.temporal import TemporalHead, assign_frames, span_iou, suppress, vote


def head(width: int = 32) -> TemporalHead:
    torch.manual_seed(0)
    return TemporalHead(hidden_size=24, vision_size=16, width=width, layers=2)


def position(frames: int) -> torch.Tensor:
    return ((torch.arange(frames) + 0.5) / frames)[None]


def test_frames_inside_a_moment_are_positive_with_its_span():
    inside, truth = assign_frames([torch.tensor([[0.2, 0.54]])], position(10), torch.ones(1, 10, dtype=torch.bool))
    assert inside[0].nonzero().squeeze(1).tolist() == [2, 3, 4]
    torch.testing.assert_close(truth[0, 3], torch.tensor([0.2, 0.54]))


def test_a_moment_between_two_frames_goes_to_the_nearest_frame():
    inside, truth = assign_frames([torch.tensor([[0.37, 0.42]])], position(4), torch.ones(1, 4, dtype=torch.bool))
    assert inside[0].tolist() == [False, True, False, False]
    torch.testing.assert_close(truth[0, 1], torch.tensor([0.37, 0.42]))


def test_padding_frames_are_never_positive_and_several_moments_keep_their_own_span():
    mask = torch.tensor([[True] * 8 + [False] * 2])
    spans = torch.tensor([[0.0, 0.2], [0.5, 1.0]])
    inside, truth = assign_frames([spans], position(10), mask)
    assert inside[0].nonzero().squeeze(1).tolist() == [0, 1, 5, 6, 7]
    torch.testing.assert_close(truth[0, [0, 6]], spans)


def test_span_iou_values_and_degenerate_spans():
    a, b = torch.tensor([[0.0, 2.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 3.0], [2.0, 3.0], [1.0, 1.0]])
    iou, giou = span_iou(a, b)
    assert iou[:2].tolist() == pytest.approx([1 / 3, 0])
    assert giou[1].item() == pytest.approx(-1 / 3)
    assert giou.isfinite().all()


def test_suppression_keeps_the_best_of_overlapping_spans():
    spans = torch.tensor([[0.0, 4.0], [0.5, 4.0], [6.0, 8.0]])
    assert suppress(spans, torch.tensor([0.5, 0.9, 0.7])).tolist() == [1, 2]


def test_overlapping_spans_vote_by_their_scores():
    spans = torch.tensor([[0.0, 4.0], [1.0, 5.0], [8.0, 9.0], [7.0, 7.0]])
    voted = vote(spans, torch.tensor([0.75, 0.25, 0.5, 0.5]), torch.tensor([0, 2, 3]))
    assert voted.tolist() == [[0.25, 4.25], [8.0, 9.0], [7.0, 7.0]]


def test_a_vote_without_any_score_is_the_mean():
    spans = torch.tensor([[0.0, 4.0], [1.0, 5.0]])
    assert vote(spans, torch.zeros(2), torch.tensor([0])).tolist() == [[0.5, 4.5]]


def test_padding_frames_change_nothing(random_context):
    model, context = head().eval(), random_context(2, 5)
    hidden = torch.randn(2, 24)
    padded = random_context(2, 8)
    for name in ("patches_BTNC", "times_s_BT"):
        getattr(padded, name)[:, :5] = getattr(context, name)
    padded.frame_mask_BT[:, 5:] = False
    for short, long in zip(model.predict(hidden, context), model.predict(hidden, padded), strict=True):
        torch.testing.assert_close(short.spans_s, long.spans_s)
        torch.testing.assert_close(short.scores, long.scores)


def test_predictions_lie_in_the_media_and_are_sorted_by_score(random_context):
    context = random_context(6, 12)
    for prediction in head().predict(torch.randn(6, 24), context):
        assert (prediction.spans_s >= 0).all()
        assert (prediction.spans_s <= 10).all()
        assert (prediction.spans_s[:, 1] >= prediction.spans_s[:, 0]).all()
        assert (prediction.scores.diff() <= 0).all()


def test_first_loss_is_of_order_one_and_a_batch_without_moments_is_finite(random_context):
    model, context = head(), random_context(2, 6)
    spans = [torch.tensor([[0.1, 0.5]]), torch.tensor([[0.3, 0.6]])]
    assert 0.3 < model(torch.randn(2, 24), context, TemporalTargets(spans)).total.item() < 3
    empty = model(torch.randn(2, 24), context, TemporalTargets([torch.zeros(0, 2)] * 2)).total
    empty.backward()
    assert empty.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_overfits_eight_samples(random_context):
    torch.manual_seed(0)
    model, hidden, context = head(), torch.randn(8, 24), random_context(8, 12)
    start = torch.rand(8) * 0.5
    spans = [torch.stack([s, s + 0.1 + 0.3 * torch.rand(())])[None] for s in start]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = model(hidden, context, TemporalTargets(spans)).total.item()
    for _ in range(150):
        optimizer.zero_grad()
        model(hidden, context, TemporalTargets(spans)).total.backward()
        optimizer.step()
    assert model(hidden, context, TemporalTargets(spans)).total.item() < 0.15 * first
    best = torch.stack([p.spans_s[0] for p in model.predict(hidden, context)])
    assert span_iou(best, 10 * torch.cat(spans))[0].min() > 0.6
