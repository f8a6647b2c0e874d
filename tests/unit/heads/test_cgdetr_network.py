import math

import pytest
import torch

from tpo_core.config.model import CgDetrConfig
from tpo_core.heads.cgdetr.decoder import Decoder
from tpo_core.heads.cgdetr.layers import (
    DropPath,
    EncoderLayer,
    PlainAttention,
    TextToVideoLayer,
    clip_positions,
    direction,
    input_layers,
    inverse_sigmoid,
    sinusoids,
)
from tpo_core.heads.cgdetr.network import CgDetr, CgDetrInputs, with_prompt
from tpo_core.heads.cgdetr.transformer import Clips, moment_prompt

PUBLISHED_PARAMETERS = 13_953_835
NEVER_EXECUTED_PARAMETERS = 100 * 256 + 2 * 256 + 2 * 4096 + 4096 * 256 + 256  # txt_position_embed, txt_proj_linear
PUBLISHED_TENSORS, NEVER_EXECUTED_TENSORS = 285, 7


def small(**changes) -> CgDetrConfig:
    sizes = {"width": 16, "heads": 4, "sentence_heads": 2, "ffn_width": 24, "queries": 5, "dummies": 3, "prompts": 4}
    return CgDetrConfig(**(sizes | changes))


def network(**changes) -> CgDetr:
    torch.manual_seed(0)
    return CgDetr(small(**changes), video_width=8, text_width=6)


def random_inputs(clips: list[int], words: list[int]) -> CgDetrInputs:
    V, W = max(clips), max(words)
    return CgDetrInputs(
        video_BVC=torch.randn(len(clips), V, 8),
        video_mask_BV=torch.arange(V) < torch.tensor(clips)[:, None],
        text_BWC=torch.randn(len(words), W, 6),
        text_mask_BW=torch.arange(W) < torch.tensor(words)[:, None],
        prompt_BC=torch.randn(len(clips), 6),
    )


def test_it_has_the_parameters_of_the_published_checkpoint():
    with torch.device("meta"):
        parameters = dict(CgDetr(CgDetrConfig(), video_width=770, text_width=4096).named_parameters())
    count = sum(parameter.numel() for parameter in parameters.values())
    assert count == PUBLISHED_PARAMETERS - NEVER_EXECUTED_PARAMETERS
    assert len(parameters) == PUBLISHED_TENSORS - NEVER_EXECUTED_TENSORS
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    assert shapes["input_vid_proj.0.LayerNorm.weight"] == (770,)
    assert shapes["transformer.t2v_encoder.layers.1.self_attn.out_proj.weight"] == (256, 256)
    assert shapes["transformer.decoder.ref_anchor_head.layers.1.weight"] == (1, 256)
    assert shapes["transformer.mcls_encoder.layers.0.activation.weight"] == (1,)
    assert {name for name in shapes if "ca_qpos_proj" in name} == {
        f"transformer.decoder.layers.0.ca_qpos_proj.{part}" for part in ("weight", "bias")
    }


def test_it_starts_as_published():
    model = network()
    first, second = model.txtproj_encoder.layers
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one is not other
    assert model.token_type_embeddings.weight.std() < 0.05
    last = model.transformer.decoder.bbox_embed.layers[-1]
    assert last.weight.abs().max() > 0.01
    assert last.weight.abs().max() <= math.sqrt(6 / (16 + 2))
    assert {p.item() for n, p in model.named_parameters() if n.endswith("activation.weight")} == {0.25}


def test_sinusoids_interleave_sines_and_cosines_of_growing_periods():
    values = sinusoids(torch.tensor([0.0, 0.25]), 4)
    slow = 0.25 * 2 * math.pi / 100
    assert values[0].tolist() == [0, 1, 0, 1]
    assert values[1].tolist() == pytest.approx([1, 0, math.sin(slow), math.cos(slow)], abs=1e-6)


def test_the_last_valid_clip_ends_the_cycle_wherever_padding_begins():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    positions = clip_positions(mask, torch.zeros(2, 3, 4))
    torch.testing.assert_close(positions[0, 2], positions[1, 1])
    assert not torch.allclose(positions[0, 1], positions[1, 1])


def test_inverse_sigmoid_undoes_the_sigmoid_and_stays_finite_at_its_ends():
    logits = torch.tensor([-3.0, 0.0, 2.0])
    torch.testing.assert_close(inverse_sigmoid(logits.sigmoid()), logits)
    assert inverse_sigmoid(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([math.log(1e-3), -math.log(1e-3)])


def test_a_direction_has_length_one_and_a_vector_without_one_no_gradient():
    value = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-6, 0.0]], requires_grad=True)
    unit = direction(value)
    unit.sum().backward()
    assert unit.tolist() == [pytest.approx([0.6, 0.8]), [0, 0], [0, 0]]
    assert value.grad[0].abs().min() > 0
    assert value.grad[1:].abs().max() == 0


def test_dropping_takes_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    dropped = drop(torch.ones(4000, 2, 3))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (dropped.flatten(1).amin(1) == dropped.flatten(1).amax(1)).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(torch.ones(4, 2, 3)), torch.ones(4, 2, 3))


def test_the_last_input_layer_alone_gives_negative_numbers():
    torch.manual_seed(0)
    first, last = input_layers(8, 16, 2, dropout=0.5).eval()
    value = torch.randn(5, 8)
    assert first(value).min() == 0
    assert last(first(value)).min() < 0


def test_padded_keys_get_no_attention():
    attention = PlainAttention(8, 2, 0.0)
    key = attention.split(torch.randn(2, 4, 8))
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    weights = attention.weights(attention.split(torch.randn(2, 3, 8)), key, mask)
    assert weights[0, ..., 2:].abs().max() == 0
    assert weights[1].min() > 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 3))


def test_dummy_words_take_attention_but_give_nothing():
    """What a clip takes in is linear in the real words alone, without scaling their weights up to 1."""
    torch.manual_seed(0)
    layer = TextToVideoLayer(8, 2, 12, 0.0, 0.0).eval()
    value, keys, mask = torch.randn(1, 3, 8), torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    seen = {}
    layer.self_attn.out_proj.register_forward_hook(lambda module, args, output: seen.update(read=args[0]))
    _, weights = layer(value, keys, torch.ones(1, 2, 8), value, mask)
    assert weights.shape == (1, 3, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 3))
    by_head = seen["read"].unflatten(-1, (2, 4))
    torch.testing.assert_close(by_head.amin((-2, -1)), by_head.amin(-1).amin(-1))
    torch.testing.assert_close(by_head.mean((-2, -1)), weights[..., -2:].sum(-1))
    assert (by_head < 1).all()


def test_a_layer_without_words_is_one_that_attends_to_nothing():
    torch.manual_seed(0)
    layer = TextToVideoLayer(8, 2, 12, 0.0, 0.0).eval()
    value, keys = torch.randn(2, 1, 8), torch.randn(2, 4, 8)
    nothing, _ = layer(value, keys, torch.zeros(2, 4, 8), value, torch.ones(2, 4, dtype=torch.bool))
    torch.testing.assert_close(layer.without_words(value), nothing)


def test_an_encoder_layer_sees_positions_in_its_weights_and_not_in_its_values():
    torch.manual_seed(0)
    layer = EncoderLayer(8, 2, 12, 0.0, 0.0).eval()
    mask = torch.ones(1, 1, dtype=torch.bool)
    value = torch.randn(1, 1, 8)
    alone = layer(value, torch.zeros(1, 1, 8), mask)
    torch.testing.assert_close(layer(value, torch.randn(1, 1, 8), mask), alone)
    both = torch.ones(1, 2, dtype=torch.bool)
    pair, moved = torch.randn(1, 2, 8), torch.randn(1, 2, 8)
    assert not torch.allclose(layer(pair, moved, both), layer(pair, torch.zeros(1, 2, 8), both))


def test_the_moment_prompt_is_one_learned_prompt_scaled_plus_the_context():
    """Only the attended clip counts; it differs from its context in the direction of the second prompt."""
    prompts = 3 * torch.eye(4)[:2]
    context = torch.full((1, 4), 5.0)
    video = context[:, None] + torch.tensor([[[0.0, 2.0, 0.0, 0.0], [7.0, 0.0, 0.0, 0.0]]])
    clips = Clips(video, torch.zeros_like(video), torch.ones(1, 2, dtype=torch.bool), context)
    attention = torch.tensor([[[0.2, 0.3], [0.0, 0.0]]])
    share = math.e / (1 + math.e)
    expected = context + share * prompts[1]
    torch.testing.assert_close(moment_prompt(clips, attention, prompts), expected)
    clips.mask_BV[0, 0] = False
    torch.testing.assert_close(moment_prompt(clips, attention, prompts), context + 0 * prompts[0])


def test_the_prompt_stands_behind_the_last_valid_word():
    text = torch.arange(6.0).view(2, 3, 1) + 1
    mask = torch.tensor([[True, False, False], [True, True, True]])
    longer, longer_mask = with_prompt(text, mask, torch.tensor([[-1.0], [-2.0]]))
    assert longer[..., 0].tolist() == [[1, -1, 3, 0], [4, 5, 6, -2]]
    assert longer_mask.tolist() == [[True, True, False, False], [True] * 4]


def test_a_question_of_no_word_is_the_prompt_alone():
    longer, mask = with_prompt(torch.zeros(2, 0, 1), torch.zeros(2, 0, dtype=torch.bool), torch.ones(2, 1))
    assert longer.tolist() == [[[1]], [[1]]]
    assert mask.tolist() == [[True], [True]]


def test_shapes_of_the_outputs():
    model = network(decoder_layers=2).eval()
    output = model(random_inputs([7, 4], [3, 5]), torch.zeros(2, 7), torch.tensor([0, 1]))
    assert output.logits_RBQ2.shape == output.spans_RBQ2.shape == (2, 2, 5, 2)
    assert output.attention_BVK.shape == (2, 7, 3 + 5 + 1)
    assert output.saliency_BV.shape == output.word_attention_BV.shape == (2, 7)
    assert output.moment.similarity_BVK.shape == (2, 7, 9)
    assert output.negatives.saliency_MV.shape == (2, 7)
    assert output.spans_RBQ2.min() > 0
    assert output.spans_RBQ2.max() < 1


def test_training_parts_come_only_with_their_inputs():
    output = network().eval()(random_inputs([4], [2]))
    assert output.moment is None
    assert output.negatives is None


@pytest.mark.parametrize(("videos", "rows"), [([0, 1, 1], [True, False, True]), ([0, 0, 1], [False, True, True])])
def test_a_negative_pair_is_a_video_with_the_words_of_the_next_row(videos, rows):
    model = network().eval().double()
    inputs = random_inputs([5, 5, 5], [3, 4, 2])
    inputs = CgDetrInputs(
        inputs.video_BVC.double(),
        inputs.video_mask_BV,
        inputs.text_BWC.double(),
        inputs.text_mask_BW,
        inputs.prompt_BC.double(),
    )
    negatives = model(inputs, video_ids_B=torch.tensor(videos)).negatives
    assert negatives.rows_B.tolist() == rows
    swapped = CgDetrInputs(
        inputs.video_BVC,
        inputs.video_mask_BV,
        *(value.roll(-1, 0) for value in (inputs.text_BWC, inputs.text_mask_BW, inputs.prompt_BC)),
    )
    plain = model(swapped)
    torch.testing.assert_close(negatives.saliency_MV, plain.saliency_BV[rows])
    torch.testing.assert_close(negatives.word_attention_MV, plain.word_attention_BV[rows])


def test_rows_of_one_video_have_no_negative_pair():
    assert network().eval()(random_inputs([4, 4], [2, 2]), video_ids_B=torch.tensor([3, 3])).negatives is None


def test_moments_are_summarised_without_the_clips_outside():
    model = network().eval()
    inputs, relevant = random_inputs([6], [3]), torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    before = model.moment_branch(model.clips(inputs), model.words(inputs)[0], relevant)
    inputs.video_BVC[0, 4] = torch.randn(8)
    after = model.moment_branch(model.clips(inputs), model.words(inputs)[0], relevant)
    torch.testing.assert_close(before.moment_BD, after.moment_BD)
    torch.testing.assert_close(before.frames_BVD[:, 1:3], after.frames_BVD[:, 1:3])
    assert not torch.allclose(before.rest_BD, after.rest_BD)


def test_each_layer_refines_the_span_of_the_one_before_without_gradient_through_it():
    """So the bias of the refining network moves the last span by the slope of the sigmoid and in no other way."""
    torch.manual_seed(0)
    decoder, first = Decoder(small()).eval(), torch.rand(2, 5, 2)
    states, references = decoder(first, torch.randn(2, 6, 16), torch.randn(2, 6, 16), torch.ones(2, 6).bool())
    assert states.shape == (3, 2, 5, 16)
    assert torch.equal(references[0], first)
    assert not torch.allclose(references[1], references[2])
    references[2].sum().backward()
    slope = (references[2] * (1 - references[2])).detach().sum((0, 1))
    torch.testing.assert_close(decoder.bbox_embed.layers[-1].bias.grad, slope)


def test_a_reference_without_width_gives_finite_states():
    decoder = Decoder(small()).eval()
    states, _ = decoder(torch.zeros(1, 5, 2), torch.randn(1, 4, 16), torch.randn(1, 4, 16), torch.ones(1, 4).bool())
    assert states.isfinite().all()
