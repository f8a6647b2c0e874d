"""The criterion of the published temporal head where the published one fails: nothing to compare, or saturation."""

import math

import pytest
import torch

from tpo_core.config.model import CgDetrConfig
from tpo_core.heads.cgdetr import spans
from tpo_core.heads.cgdetr.criterion import (
    Criterion,
    alignment_loss,
    criterion,
    distillation_loss,
    likeness,
    span_losses,
    weight_of,
)
from tpo_core.heads.cgdetr.matcher import match, matching_cost
from tpo_core.heads.cgdetr.network import CgDetr, CgDetrInputs, MomentBranch
from tpo_core.heads.cgdetr.saliency import margin_loss, rank_loss, saliency_loss, same_video_rank, surprise
from tpo_core.heads.cgdetr.targets import CgDetrTargets

QUERIES, LAYERS = 5, 3


def network() -> CgDetr:
    torch.manual_seed(0)
    config = CgDetrConfig(
        width=16, heads=4, sentence_heads=2, ffn_width=24, queries=QUERIES, decoder_layers=LAYERS, dummies=3, prompts=4
    )
    return CgDetr(config, video_width=8, text_width=6)


def inputs(clips: list[int], words: int = 3) -> CgDetrInputs:
    V, B = max(clips), len(clips)
    return CgDetrInputs(
        video_BVC=torch.randn(B, V, 8),
        video_mask_BV=torch.arange(V) < torch.tensor(clips)[:, None],
        text_BWC=torch.randn(B, words, 6),
        text_mask_BW=torch.ones(B, words, dtype=torch.bool),
        prompt_BC=torch.randn(B, 6),
    )


def targets(moments: list[list[list[float]]], relevant: list[list[float]]) -> CgDetrTargets:
    """Spans (centre, width) and clips inside of each sample; the first clip is the positive one, the last the other."""
    relevant_BV = torch.tensor(relevant)
    B, V = relevant_BV.shape
    return CgDetrTargets(
        spans=[torch.tensor(of_sample).reshape(-1, 2) for of_sample in moments],
        positive_BP=torch.zeros(B, 2, dtype=torch.long),
        negative_BP=torch.full((B, 2), V - 1),
        saliency_BV=relevant_BV,
        relevant_BV=relevant_BV,
    )


def train(model: CgDetr, given: CgDetrInputs, truth: CgDetrTargets, videos: list[int]) -> Criterion:
    """One backward pass in training mode."""
    found = criterion(model(given, truth.relevant_BV, torch.tensor(videos)), truth)
    sum(found.weighted().values()).backward()
    return found


def assert_finite(model: CgDetr, found: Criterion, largest_gradient: float = 1e4) -> None:
    assert all(value.isfinite() for value in found.terms.values()), found.terms
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() < largest_gradient, name


MOMENT, INSIDE = [[0.4, 0.3]], [0.0, 1.0, 1.0, 0.0]
DEGENERATE = {
    "no relevant clip": ([4, 3], [MOMENT, MOMENT], [[0.0] * 4] * 2, [0, 1]),
    "no window in one": ([4, 3], [[], MOMENT], [[0.0] * 4, INSIDE], [0, 1]),
    "no window at all": ([4, 4], [[], []], [[0.0] * 4] * 2, [0, 1]),
    "one valid clip": ([1, 4], [MOMENT, MOMENT], [[1.0, 0, 0, 0], INSIDE], [0, 1]),
    "one clip, one sample": ([1], [[[0.5, 1.0]]], [[1.0]], [0]),
    "all clips inside": ([4, 4], [[[0.5, 1.0]]] * 2, [[1.0] * 4] * 2, [0, 1]),
    "zero-length spans": ([4, 4], [[[0.5, 0.0]], [[0.0, 0.0]]], [INSIDE] * 2, [0, 1]),
    "one sample": ([4], [MOMENT], [INSIDE], [0]),
    "one video throughout": ([4, 4, 4], [MOMENT] * 3, [INSIDE] * 3, [0, 0, 0]),
    "one row shares its video": ([4, 4, 4], [MOMENT] * 3, [INSIDE] * 3, [0, 0, 1]),
    "several rows share theirs": ([4] * 4, [MOMENT] * 4, [INSIDE] * 4, [0, 0, 0, 1]),
    "more windows than queries": ([4], [[[0.1 * i, 0.1] for i in range(1, QUERIES + 3)]], [INSIDE], [0]),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_losses_and_gradients_are_finite(case):
    clips, moments, relevant, videos = DEGENERATE[case]
    model = network().train()
    assert_finite(model, train(model, inputs(clips), targets(moments, relevant), videos))


def test_a_still_video_gives_moderate_gradients():
    """Clips that do not differ from their mean, in a batch of identical rows."""
    model, given = network().train(), inputs([4, 4])
    given.video_BVC[:] = given.video_BVC[0, 0]
    given.text_BWC[:], given.prompt_BC[:] = given.text_BWC[0], given.prompt_BC[0]
    assert_finite(model, train(model, given, targets([MOMENT] * 2, [INSIDE] * 2), [0, 1]))


@pytest.mark.parametrize("factor", [30.0, 1000.0])
def test_saturated_logits_and_scores_stay_finite(factor):
    model = network().train()
    with torch.no_grad():
        for part in (model.class_embed, model.saliency_proj1, model.saliency_proj2, *model.span_embed.layers):
            part.weight *= factor
    found = train(model, inputs([4, 3]), targets([MOMENT] * 2, [INSIDE] * 2), [0, 1])
    assert_finite(model, found, largest_gradient=math.inf)


def test_every_parameter_learns_but_those_that_cannot_matter():
    """The first decoder layer starts from states of zero, so that its self-attention has equal values, whatever the
    weights (without dropout); and a bias of keys adds the same to every score of a row."""
    model = network().eval()
    train(model, inputs([4, 3]), targets([MOMENT] * 2, [INSIDE] * 2), [0, 1])
    silent = {n for n, parameter in model.named_parameters() if parameter.grad.abs().max() < 1e-6}
    layers = [f"transformer.decoder.layers.{i}" for i in range(LAYERS)]
    weighing = ("sa_qcontent", "sa_qpos", "sa_kcontent", "sa_kpos")
    expected = {f"{layers[0]}.{part}_proj.{kind}" for part in weighing for kind in ("weight", "bias")}
    expected |= {f"{layers[0]}.sa_v_proj.weight"}
    keys = ("sa_kcontent", "sa_kpos", "ca_kcontent", "ca_kpos")
    assert silent == expected | {f"{layer}.{part}_proj.bias" for layer in layers for part in keys}


def test_without_a_window_every_query_is_background_and_spans_cost_nothing():
    model = network().eval()
    found = train(model, inputs([4, 4]), targets([[], []], [[0.0] * 4] * 2), [0, 1])
    assert [found.terms[f"{name}{end}"].item() for name in ("span", "giou") for end in ("", "_0", "_1")] == [0] * 6
    assert found.terms["distill"].item() == 0
    assert all(len(predicted) == 0 for layer in found.matches for predicted, _ in layer)
    terms, _ = span_losses(torch.tensor([[[0.0, 50.0]] * 3]), torch.rand(1, 3, 2), [torch.zeros(0, 2)], [empty()])
    assert terms["label"].item() == pytest.approx(0, abs=1e-6)


def empty() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)


def test_the_total_is_ten_one_and_four_of_each_layer_and_four_of_saliency():
    names = ["span", "giou", "label", "span_0", "giou_1", "label_0", "saliency", "ms_align", "distill"]
    assert [weight_of(name) for name in [*names, "orthogonal_dummy"]] == [10, 1, 4, 10, 1, 4, 4, 1, 1, 1]
    terms = {"span": torch.tensor(2.0), "saliency": torch.tensor(0.5)}
    assert {n: v.item() for n, v in Criterion(terms, {}, []).weighted().items()} == {"span": 20, "saliency": 2}


def test_span_terms_of_a_known_match():
    """One hit that is off by 0.1 in centre and 0.2 in width, one that is right but taken for background."""
    predicted = torch.tensor([[[0.5, 0.4], [0.2, 0.2], [0.9, 0.1]]])
    true = [torch.tensor([[0.2, 0.2], [0.6, 0.6]])]
    logits = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [0.0, 9.0]]])
    pair = (torch.tensor([0, 1]), torch.tensor([1, 0]))
    terms, class_error = span_losses(logits, predicted, true, [pair])
    assert terms["span"].item() == pytest.approx((0.1 + 0.2) / 4)
    assert terms["giou"].item() == pytest.approx((1 - 0.4 / 0.6) / 2)
    cost = [math.log(1 + math.exp(-3)), math.log(1 + math.exp(1)), 0.1 * math.log(1 + math.exp(-9))]
    assert terms["label"].item() == pytest.approx(sum(cost) / 3, rel=1e-5)
    assert class_error == 50


def test_the_match_is_the_cheapest_of_all_and_stays_within_a_sample():
    logits = torch.zeros(2, 3, 2)
    predicted = torch.tensor([[[0.1, 0.1], [0.5, 0.2], [0.9, 0.1]], [[0.5, 0.2], [0.1, 0.1], [0.3, 0.1]]])
    truth = [torch.tensor([[0.9, 0.1], [0.1, 0.1]]), torch.tensor([[0.5, 0.2]])]
    pairs = [(p.tolist(), t.tolist()) for p, t in match(logits, predicted, truth)]
    assert pairs == [([0, 2], [1, 0]), ([0], [0])]


def test_the_cost_is_not_rounded():
    """In bf16 both predictions would cost the same: 8 bits do not hold a difference of 0.001 at 3."""
    predicted = torch.tensor([[[0.5, 0.2], [0.5001, 0.2]]])
    cost = matching_cost(torch.zeros(1, 2, 2), predicted, torch.tensor([[0.8, 0.2]]))[0, :, 0]
    assert cost.dtype == torch.float32
    assert 1e-4 < cost[0] - cost[1] < 1e-2


def test_a_diverged_prediction_reaches_the_loss():
    predicted = torch.full((1, 2, 2), torch.nan)
    pairs = match(torch.zeros(1, 2, 2), predicted, [torch.tensor([[0.5, 0.2]])])
    terms, _ = span_losses(torch.zeros(1, 2, 2), predicted, [torch.tensor([[0.5, 0.2]])], pairs)
    assert terms["span"].isnan()


def test_overlap_of_spans_without_length_is_finite_and_flat():
    point = torch.tensor([[0.5, 0.5], [0.0, 1.0]], requires_grad=True)
    overlap = spans.generalized_iou(point, torch.tensor([[0.5, 0.5]]))
    overlap.sum().backward()
    assert overlap[:, 0].tolist() == [0, 0]
    assert point.grad.isfinite().all()
    assert point.grad[0].abs().max() == 0


def test_surprise_is_the_log_and_finite_at_its_ends():
    probability = torch.tensor([1.0, 0.5, 1e-20, 0.0], requires_grad=True)
    cost = surprise(probability)
    cost.sum().backward()
    assert cost.tolist() == pytest.approx([0, math.log(2), 20 * math.log(10), 100])
    assert probability.grad.isfinite().all()


def test_the_margin_counts_pairs_that_are_not_apart_enough():
    truth = targets([[]], [[0.0, 0.0, 0.0]])
    truth.negative_BP = torch.tensor([[1, 2]])
    assert margin_loss(torch.tensor([[1.0, 0.9, 0.0]]), truth).item() == pytest.approx(2 * 0.1 / 2)


def test_ranks_are_contrasted_at_every_label_that_is_reached():
    """Labels 2 and 1 of three clips: rank 1 has two positives, rank 2 one, ranks 3 to 11 none; the sum is over 12."""
    scores, labels = torch.tensor([[0.4, 0.2, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    share = (scores / 0.5).log_softmax(-1)[0]
    expected = (-(share[0] + share[1]) / 2 - share[0]) / 12
    loss = rank_loss(scores, labels, torch.ones(1, 3, dtype=torch.bool))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_ranks_see_no_padding():
    scores, labels = torch.tensor([[0.4, 0.2, 9.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    padded = rank_loss(scores, labels, torch.tensor([[True, True, False]]))
    short = rank_loss(scores[:, :2], labels[:, :2], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(padded, short)


@pytest.mark.parametrize(("videos", "shared"), [([0, 0, 1], 1), ([0, 0, 0, 1], 2), ([0, 1], 0), ([0, 0], 2)])
def test_rows_that_share_a_video_are_ranked_alone_only_when_there_are_several(videos, shared):
    """Several beside a negative pair; where no row has one, all are ranked alone anyway."""
    B = len(videos)
    truth = targets([MOMENT] * B, [INSIDE] * B)
    output = network().eval()(inputs([4] * B), truth.relevant_BV, torch.tensor(videos))
    rank = same_video_rank(output, truth)
    if output.negatives is None or shared < 2:
        assert rank.item() == 0
    else:
        alone = rank_loss(output.saliency_BV[:shared], truth.saliency_BV[:shared], output.video_mask_BV[:shared])
        torch.testing.assert_close(rank, alone)
        assert rank.item() > 0


def test_padding_clips_count_in_the_attention_term_and_nowhere_else():
    truth = targets([MOMENT], [INSIDE])
    output = network().eval()(inputs([3]), None)
    output.video_mask_BV = torch.tensor([[True, True, True, False]])
    output.saliency_BV = torch.zeros(1, 4)
    output.word_attention_BV = torch.tensor([[0.2, 0.5, 0.5, 0.0]])
    truth.negative_BP = truth.positive_BP
    without = saliency_loss(output, truth)
    output.word_attention_BV = torch.tensor([[0.2, 0.5, 0.5, 0.75]])
    output.saliency_BV = torch.tensor([[0.0, 0.0, 0.0, 5.0]])
    assert (saliency_loss(output, truth) - without).item() == pytest.approx(math.log(4) / 4, rel=1e-4)


def moment_branch(moment: torch.Tensor, rest: torch.Tensor, sentence: torch.Tensor) -> MomentBranch:
    frames = torch.zeros(len(moment), 2, moment.shape[1])
    return MomentBranch(moment, rest, frames, sentence, sentence.clone(), torch.zeros(len(moment), 2, 3))


def test_aligned_moments_cost_less_than_swapped_ones():
    axes = torch.eye(4)
    output = network().eval()(inputs([2, 2]), None)
    dummy = torch.zeros(2, 4)
    losses = []
    for sentence in (axes[:2], axes[[1, 0]]):
        branch = moment_branch(axes[:2], axes[2:], sentence)
        branch.dummy_sentence_BD = dummy
        losses.append(alignment_loss(output, branch, torch.zeros(2, 2)).item())
    right, wrong = math.log(1 + 3 / math.e), math.log(3 + math.e)
    constant = math.log(4) + math.log(2)  # the dummy contrast of four equal cosines, and undecided clips
    assert losses == pytest.approx([right + constant, wrong + constant])


def test_distillation_is_zero_for_attention_like_the_similarity_and_counts_relevant_clips_alone():
    branch = moment_branch(torch.zeros(1, 4), torch.zeros(1, 4), torch.zeros(1, 4))
    branch.similarity_BVK = torch.tensor([[[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]]])
    attention = branch.similarity_BVK.softmax(-1)
    attention[0, 1] = 1 / 3
    assert distillation_loss(attention, branch, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0, abs=1e-5)
    assert distillation_loss(attention, branch, torch.tensor([[1.0, 1.0]])).item() > 0.01
    assert distillation_loss(attention, branch, torch.zeros(1, 2)).item() == 0


def test_likeness_is_the_mean_cosine_of_different_vectors():
    value = torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, 3.0]])
    assert likeness(value).item() == pytest.approx(4 * math.sqrt(0.5) / 9)
    assert likeness(value[:1]).item() == 0
