import pytest
import torch
from pydantic import ValidationError

from tpo_core.config.base import identity
from tpo_core.config.model import CgDetrConfig
from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import HeadContext, TemporalTargets
from tpo_core.heads.cgdetr import spans
from tpo_core.heads.cgdetr.features import at_least_one, normalized, with_places
from tpo_core.heads.cgdetr.head import CgDetrHead
from tpo_core.heads.registry import build_head
from tpo_core.heads.temporal import TemporalHead

HIDDEN, VISION, CLIP, TEXT = 24, 16, 12, 20
SMALL = {"width": 16, "heads": 4, "sentence_heads": 4, "ffn_width": 24, "queries": 5, "dummies": 3, "prompts": 4}
STORED = {"clip_width": CLIP, "text_width": TEXT}
STILL = {"dropout": 0.0, "input_dropout": 0.0, "drop_path": 0.0}


def head(**changes) -> CgDetrHead:
    torch.manual_seed(0)
    return CgDetrHead(CgDetrConfig(**(SMALL | changes)), HIDDEN, VISION)


def with_features(context: HeadContext, clips: list[int], words: list[int], clip_len_s: float = 1.0) -> HeadContext:
    """The context with stored features of so many clips and words a row."""
    B, L, Q = len(clips), max(clips), max(words)
    context.clip_features_BLD, context.text_features_BQD = torch.randn(B, L, CLIP), torch.randn(B, Q, TEXT)
    context.clip_mask_BL = torch.arange(L) < torch.tensor(clips)[:, None]
    context.text_mask_BQ = torch.arange(Q) < torch.tensor(words)[:, None]
    context.clip_len_s_B = torch.full((B,), clip_len_s)
    return context


MOMENTS = TemporalTargets([torch.tensor([[0.1, 0.5]]), torch.tensor([[0.3, 0.6], [0.7, 0.9]])])


def test_the_recipe_chooses_the_decoder():
    recipe = {"base": "base", "temporal": {"cg_detr": SMALL}}
    frames = build_head("temporal", ModelConfig(**recipe), HIDDEN, VISION)
    recipe["temporal"]["decoder"] = "cg_detr"
    published = build_head("temporal", ModelConfig(**recipe), HIDDEN, VISION)
    assert isinstance(frames, TemporalHead)
    assert isinstance(published, CgDetrHead)
    assert (published.name, published.begin, published.slot) == (frames.name, frames.begin, frames.slot)


@pytest.mark.parametrize("heads", ["heads", "sentence_heads"])
def test_a_width_that_heads_do_not_divide_is_refused(heads):
    with pytest.raises(ValidationError, match=r"width 16 is no multiple of 3 heads"):
        CgDetrConfig(**(SMALL | {heads: 3}))


def test_the_prompt_is_projected_only_to_another_width():
    assert isinstance(head(text_width=HIDDEN).prompt, torch.nn.Identity)
    assert isinstance(head().prompt, torch.nn.Identity)
    assert head(text_width=TEXT).prompt.weight.shape == (TEXT, HIDDEN)


def test_features_have_length_one_and_padding_is_zero():
    features, mask = torch.tensor([[[3.0, 4.0], [5.0, 5.0]]]), torch.tensor([[True, False]])
    assert normalized(features, mask).tolist() == [[pytest.approx([0.6, 0.8], abs=1e-5), [0, 0]]]
    assert normalized(torch.zeros(1, 2, 2), mask).tolist() == [[[0, 0], [0, 0]]]


def test_places_are_fractions_of_the_valid_clips():
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    placed = with_places(torch.zeros(2, 4, 1), mask)
    assert placed[0, :, 1:].tolist() == [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1]]
    assert placed[1, :, 1:].tolist() == [[0, 0.5], [0.5, 1], [0, 0], [0, 0]]


def test_a_row_without_clips_is_given_its_first():
    mask = torch.tensor([[False, False], [False, True], [True, False]])
    assert at_least_one(mask).tolist() == [[True, False], [False, True], [True, False]]


def test_without_stored_features_clips_are_frames_and_the_prompt_is_the_only_word(random_context):
    context, model = random_context(2, 6), head()
    context.frame_mask_BT[1, 4:] = False
    inputs = model.inputs(torch.randn(2, HIDDEN), context)
    assert inputs.video_BVC.shape == (2, 6, VISION + 2)
    assert torch.equal(inputs.video_mask_BV, context.frame_mask_BT)
    assert inputs.text_BWC.shape == (2, 0, HIDDEN)
    mean = context.patches_BTNC[0, 0].mean(0)
    torch.testing.assert_close(inputs.video_BVC[0, 0, :-2], mean / mean.norm(), rtol=1e-3, atol=1e-4)


def test_stored_features_are_taken_instead_of_frames(random_context):
    context = with_features(random_context(2, 6), clips=[10, 7], words=[3, 5])
    inputs = head(**STORED).inputs(torch.randn(2, HIDDEN), context)
    assert inputs.video_BVC.shape == (2, 10, CLIP + 2)
    assert inputs.video_BVC[1, 7:].abs().max() == 0
    assert inputs.text_BWC.shape == (2, 5, TEXT)
    assert inputs.text_BWC[0, 3:].abs().max() == 0
    assert inputs.prompt_BC.shape == (2, TEXT)


@pytest.mark.parametrize(("name", "field"), [("clip", "clip_features_BLD"), ("text", "text_features_BQD")])
def test_features_that_the_recipe_names_must_be_there_and_of_its_width(random_context, name, field):
    context, model = with_features(random_context(2, 6), [6, 6], [3, 3]), head(**STORED)
    setattr(context, field, torch.randn(2, 6, 5))
    with pytest.raises(TpoError, match=rf"cg_detr\.{name}_width is \d+, but the {name} features have 5 channels"):
        model.predict(torch.randn(2, HIDDEN), context)
    setattr(context, field, None)
    with pytest.raises(TpoError, match=rf"the samples carry no {name} features"):
        model.predict(torch.randn(2, HIDDEN), context)


def test_rows_and_frames_of_a_context_take_the_features_along(random_context):
    context = with_features(random_context(3, 4), [5, 4, 3], [2, 1, 2])
    context.clip_B = torch.tensor([4, 5, 5])
    picked = context.rows(torch.tensor([2, 0]))
    assert torch.equal(picked.clip_features_BLD, context.clip_features_BLD[[2, 0]])
    assert picked.text_mask_BQ.tolist() == context.text_mask_BQ[[2, 0]].tolist()
    assert picked.clip_B.tolist() == [5, 4]
    assert torch.equal(context.frames(torch.tensor([[0, 1]] * 3)).clip_features_BLD, context.clip_features_BLD)
    assert context.to("meta").clip_mask_BL.device.type == "meta"
    plain = random_context(3, 4).rows(torch.tensor([1])).to("cpu")
    assert plain.clip_features_BLD is None
    assert plain.clip_B is None


def test_targets_of_frames_share_the_duration_and_those_of_features_have_their_length(random_context):
    context = with_features(random_context(2, 5), [8, 4], [2, 2])
    hidden, truth = torch.randn(2, HIDDEN), [torch.tensor([[0.2, 0.4]])] * 2  # 2 to 4 of 10 seconds
    frames, stored = head(), head(**STORED)
    by_frames = frames.targets(frames.inputs(hidden, context), context, truth)
    assert by_frames.relevant_BV.tolist() == [[0, 1, 0, 0, 0]] * 2
    assert by_frames.spans[0].tolist() == [pytest.approx([0.3, 0.2])]
    by_features = stored.targets(stored.inputs(hidden, context), context, truth)
    assert by_features.relevant_BV[:, :4].tolist() == [[0, 0, 1, 1]] * 2
    assert [one[0].tolist() for one in by_features.spans] == [
        pytest.approx([3 / 8, 2 / 8]),
        pytest.approx([3 / 4, 2 / 4]),
    ]


def test_terms_are_a_twentieth_of_the_weighted_criterion(random_context):
    model = head(**STORED, **STILL).train()
    context = with_features(random_context(2, 6), [10, 7], [3, 5])
    torch.manual_seed(3)
    output = model(torch.randn(2, HIDDEN), context, MOMENTS)
    layers = [f"{name}{end}" for name in ("span", "giou", "label") for end in ("", "_0", "_1")]
    assert set(output.losses) == {*layers, "saliency", "ms_align", "distill", "orthogonal_dummy"}
    assert 0.5 < output.total.item() < 10
    assert 0 < output.losses["label"].item() < 0.05 * 4 * 3
    assert 0 <= output.report["class_error"] <= 100


def test_gradient_reaches_the_hidden_vector_and_every_parameter(random_context):
    model, hidden = head(**STORED).train(), torch.randn(2, HIDDEN, requires_grad=True)
    model(hidden, with_features(random_context(2, 6), [10, 7], [3, 5]), MOMENTS).total.backward()
    assert hidden.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_rows_of_one_video_are_told_by_their_clip(random_context):
    """With the same clip there is no negative pair, and so no surprise at the words of another video."""
    model, context = head(**STILL).train(), random_context(2, 6)
    hidden, losses = torch.randn(2, HIDDEN), {}
    for name, clip_B in {"absent": None, "different": torch.tensor([0, 1]), "same": torch.tensor([0, 0])}.items():
        context.clip_B = clip_B
        torch.manual_seed(0)
        losses[name] = model(hidden, context, MOMENTS).losses["saliency"].item()
    assert losses["absent"] == losses["different"]
    assert losses["same"] < losses["different"]


def test_a_batch_without_moments_and_a_row_without_media_are_finite(random_context):
    model, context = head().train(), random_context(2, 4)
    context.frame_mask_BT[1] = False
    context.duration_s_B[1] = 0
    total = model(torch.randn(2, HIDDEN), context, TemporalTargets([torch.zeros(0, 2)] * 2)).total
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    predictions = model.eval().predict(torch.randn(2, HIDDEN), context)
    assert predictions[1].spans_s.abs().max() == 0


def test_predictions_are_seconds_of_the_media_best_first(random_context):
    for prediction in head().eval().predict(torch.randn(6, HIDDEN), random_context(6, 12)):
        assert prediction.spans_s.shape == (SMALL["queries"], 2)
        assert prediction.spans_s.min() >= 0
        assert prediction.spans_s.max() <= 10
        assert (prediction.spans_s[:, 1] >= prediction.spans_s[:, 0]).all()
        assert (prediction.scores.diff() <= 0).all()
        assert prediction.scores.max() <= 1


def test_predictions_on_features_fall_on_clips(random_context):
    model = head(**STORED).eval()
    context = with_features(random_context(2, 6), [5, 3], [3, 5], clip_len_s=2.0)
    hidden = torch.randn(2, HIDDEN)
    rounded = model.predict(hidden, context)
    context.clip_len_s_B = None
    plain = model.predict(hidden, context)
    for ours, exact in zip(rounded, plain, strict=True):
        assert (ours.spans_s % 2).abs().max() == 0
        assert (ours.spans_s - exact.spans_s).abs().max() <= 1
        assert (exact.spans_s % 2).abs().max() > 0


def test_every_clip_has_its_seconds_and_its_saliency(random_context):
    context, hidden = with_features(random_context(2, 6), [5, 3], [3, 5], clip_len_s=2.0), torch.randn(2, HIDDEN)
    context.frame_mask_BT[1, 4:] = False
    stored, frames = head(**STORED).eval(), head().eval()
    long, short = (one.clips_V3 for one in stored.predict(hidden, context))
    assert long[:, :2].tolist() == [[0, 2], [2, 4], [4, 6], [6, 8], [8, 10]]
    assert short[:, :2].tolist() == [[0, 2], [2, 4], [4, 6]]
    scores = stored.network(stored.inputs(hidden, context)).saliency_BV
    assert torch.equal(short[:, 2], scores[1, :3])
    (_, fewer) = (one.clips_V3 for one in frames.predict(hidden, context))
    assert fewer[:, :2].tolist() == [[0, 2.5], [2.5, 5], [5, 7.5], [7.5, 10]]


def test_a_sample_is_predicted_alike_alone_and_among_longer_ones(random_context):
    model = head(**STORED).eval()
    context = with_features(random_context(3, 6), [10, 4, 7], [2, 5, 1])
    context.clip_len_s_B = None
    hidden = torch.randn(3, HIDDEN)
    for row, together in enumerate(model.predict(hidden, context)):
        alone = context.rows(torch.tensor([row]))
        clips, words = int(alone.clip_mask_BL.sum()), int(alone.text_mask_BQ.sum())
        alone.clip_features_BLD, alone.clip_mask_BL = alone.clip_features_BLD[:, :clips], alone.clip_mask_BL[:, :clips]
        alone.text_features_BQD, alone.text_mask_BQ = alone.text_features_BQD[:, :words], alone.text_mask_BQ[:, :words]
        (single,) = model.predict(hidden[row : row + 1], alone)
        torch.testing.assert_close(single.spans_s, together.spans_s, rtol=0, atol=2e-4)
        torch.testing.assert_close(single.scores, together.scores, rtol=0, atol=1.1e-4)
        torch.testing.assert_close(single.clips_V3, together.clips_V3, rtol=0, atol=1e-4)


def test_it_computes_in_fp32_under_autocast(random_context):
    model, context, hidden = head().eval(), random_context(2, 6), torch.randn(2, HIDDEN)
    plain = model.predict(hidden, context)
    torch.manual_seed(0)
    loss = model(hidden, context, MOMENTS).total
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.predict(hidden, context)
        torch.manual_seed(0)
        cast_loss = model(hidden, context, MOMENTS).total
    assert torch.equal(plain[0].spans_s, cast[0].spans_s)
    assert torch.equal(loss, cast_loss)


def test_overfits_eight_samples(random_context):
    """Of frames whose patches show whether they lie in the moment."""
    model = head(**STILL, width=32, encoder_layers=1, decoder_layers=2, t2v_layers=1, dummy_layers=1).train()
    hidden, context = torch.randn(8, HIDDEN), random_context(8, 12)
    starts = torch.arange(8) % 4 * 2 + 1
    truth = torch.stack([starts, starts + 3], -1) / 12
    position = (torch.arange(12) + 0.5) / 12
    inside = (position > truth[:, :1]) & (position < truth[:, 1:])
    context.patches_BTNC = context.patches_BTNC + 3 * inside[..., None, None]
    targets = TemporalTargets([row[None] for row in truth])
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model(hidden, context, targets).total.backward()
        optimizer.step()
    best = torch.stack([prediction.spans_s[0] for prediction in model.eval().predict(hidden, context)])
    assert spans.iou(best, 10 * truth).diagonal().mean() > 0.7


def test_results_of_the_default_decoder_keep_their_fingerprints():
    """The choice of a decoder, which came later, enters an identity only where it is made."""
    recipe = {"base": "base"}
    assert {"decoder", "cg_detr"}.isdisjoint(identity(ModelConfig(**recipe))["temporal"])
    recipe["temporal"] = {"decoder": "cg_detr", "cg_detr": {"queries": 5}}
    named = identity(ModelConfig(**recipe))["temporal"]
    assert named["decoder"] == "cg_detr"
    assert named["cg_detr"]["queries"] == 5


def test_a_row_of_a_batch_keeps_the_padding_of_longer_ones(random_context):
    model, hidden = head(**STORED, **STILL).train(), torch.randn(2, HIDDEN)
    context = with_features(random_context(2, 6), [10, 4], [2, 5]).rows(torch.tensor([1]))
    output = model(hidden[1:], context, TemporalTargets(MOMENTS.spans[1:]))
    assert output.total.isfinite()
