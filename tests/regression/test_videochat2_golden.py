"""The parts of VideoChat2 against values of the published implementation (tests/golden/models)."""

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from tests.regression.videochat2_packs import BACKBONE, SMALL_VISION, Pack, build, case_of, enlarged, gradient_of
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration
from tpo_core.models.videochat2.published import POSITION_IDS, position_ids, published_name, to_ours, to_published
from tpo_core.models.videochat2.vision import position_table

VISION = Pack("vision_encoder")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def vision_model(request: pytest.FixtureRequest) -> VideoChat2ForConditionalGeneration:
    return build(VISION.weights, vision=VISION.config, attention=request.param)


def sampled(tokens_BLD: Tensor, stride: int) -> Tensor:
    return tokens_BLD[:, ::stride]


@pytest.mark.parametrize("name", VISION.json["cases"])
@torch.no_grad()
def test_vision_tokens_are_those_of_the_published_encoder(vision_model, name):
    case = VISION.json["cases"][name]
    pixels = enlarged(VISION.cases[f"{name}.in.pixels_u8"], VISION.config["image_size"]).transpose(1, 2)
    tokens = vision_model.model.vision_tower(pixels).last_hidden_state
    normed = vision_model.model.vision_layernorm(tokens)
    by_frame = tokens.unflatten(1, (case["frames"], -1)).mean(2)
    VISION.close(sampled(tokens, case["tokens_stride"]), VISION.cases[f"{name}.out.tokens"], "tokens_")
    VISION.close(by_frame, VISION.cases[f"{name}.out.frame_mean"], "tokens_")
    VISION.close(
        sampled(normed, case["tokens_layernorm_stride"]), VISION.cases[f"{name}.out.tokens_layernorm"], "tokens_"
    )


@torch.no_grad()
def test_vision_norms_have_their_own_eps(vision_model):
    x, model = VISION.cases["norm_probe.in.x"], vision_model.model
    first = model.vision_tower.encoder.layer[0].layernorm_before
    VISION.close(first(x), VISION.cases["norm_probe.out.block0_norm1"], "tokens_")
    VISION.close(model.vision_layernorm(x), VISION.cases["norm_probe.out.vision_layernorm"], "tokens_")


@pytest.mark.parametrize("name", VISION.json["position_tables"])
def test_position_tables_are_interpolated_from_four_frames(name):
    want, tolerance = VISION.json["position_tables"][name], VISION.json["tolerance"]
    rows, width = want["shape"]
    n_patches = (VISION.config["image_size"] // VISION.config["patch_size"]) ** 2
    table = position_table(rows // n_patches, 4, n_patches, width)
    assert list(table.shape) == want["shape"]
    got = table[want["row_index"]]
    torch.testing.assert_close(got, VISION.cases[f"position.{name}.rows"], atol=tolerance["position_rows_atol"], rtol=0)
    exact = table.double()
    sums = {"sum": exact.sum(), "abs_sum": exact.abs().sum(), "square_sum": exact.square().sum()}
    for key, value in sums.items():
        near = pytest.approx(want[key], rel=tolerance["position_sums_rtol"], abs=tolerance["position_sum_atol"])
        assert value.item() == near


QFORMER = Pack("qformer")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def qformer_model(request: pytest.FixtureRequest) -> VideoChat2ForConditionalGeneration:
    vision = SMALL_VISION | {"embed_dim": QFORMER.config["encoder_width"]}
    return build(QFORMER.weights, vision=vision, qformer=QFORMER.config, attention=request.param)


@pytest.mark.parametrize("name", QFORMER.json["cases"])
@torch.no_grad()
def test_queries_are_those_of_the_published_qformer(qformer_model, name):
    case, model = case_of(QFORMER, name), qformer_model.model
    states = case["in.encoder_states"]
    queries = torch.cat([model.query_tokens, model.extra_query_tokens], 1).expand(len(states), -1, -1)
    mask = None
    if "in.text_mask" in case:
        mask = torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), case["in.text_mask"].long()], 1)
    found = model.qformer(
        input_ids=case.get("in.text_ids"),
        attention_mask=mask,
        query_embeds=queries,
        encoder_hidden_states=states,
        encoder_attention_mask=case["in.encoder_mask"].bool() if "in.encoder_mask" in case else None,
    )
    QFORMER.close(found.last_hidden_state[:, : queries.shape[1]], case["out.queries"])


LANGUAGE = Pack("language_model")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def language_model(request: pytest.FixtureRequest) -> VideoChat2ForConditionalGeneration:
    return build(LANGUAGE.weights, llm=LANGUAGE.config, attention=request.param)


@pytest.mark.parametrize("name", LANGUAGE.json["cases"])
@torch.no_grad()
def test_language_model_gives_the_published_states_and_loss(language_model, name):
    case = case_of(LANGUAGE, name)
    embeds, mask, real = case["in.embeds"], case["in.attention_mask"], case["in.attention_mask"].bool()
    hidden = language_model.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    output = language_model(inputs_embeds=embeds, attention_mask=mask, labels=case["in.labels"])
    LANGUAGE.close(hidden[real], case["out.last_hidden"][real])
    LANGUAGE.close(output.logits[real], case["out.logits"][real])
    want, allowed = LANGUAGE.json["cases"][name]["loss"], LANGUAGE.json["tolerance"]["loss_atol"]
    assert output.loss.item() == pytest.approx(want, abs=allowed)


@pytest.mark.parametrize("name", LANGUAGE.json["cases"])
def test_language_model_gives_the_published_gradients(name):
    """In float64: gradients of small embeddings are large, and eager attention rounds beyond the tolerance."""
    case, model = case_of(LANGUAGE, name), build(LANGUAGE.weights, llm=LANGUAGE.config).double().requires_grad_(True)
    embeds = case["in.embeds"].double().requires_grad_(True)
    model(inputs_embeds=embeds, attention_mask=case["in.attention_mask"], labels=case["in.labels"]).loss.backward()
    real = case["in.attention_mask"].bool()
    LANGUAGE.close(embeds.grad.float()[real], case["grad.embeds"][real], "grad_")
    for published in (key.removeprefix("grad.") for key in case if key.startswith("grad.lm.")):
        LANGUAGE.close(gradient_of(model, published).float(), case[f"grad.{published}"], "grad_")


@torch.no_grad()
def test_greedy_decoding_writes_the_published_tokens(language_model):
    want = LANGUAGE.json["greedy"]["tokens"]
    prompt = LANGUAGE.cases["greedy.in.embeds"]
    mask = torch.ones(prompt.shape[:2], dtype=torch.long)
    settings = GenerationConfig(do_sample=False, max_new_tokens=len(want), eos_token_id=None, pad_token_id=0)
    assert language_model.generate(inputs_embeds=prompt, attention_mask=mask, generation_config=settings).tolist() == [
        want
    ]


@torch.no_grad()
def test_a_slot_call_in_either_order_and_the_cache_after_it(language_model):
    model, case = language_model, LANGUAGE.cases
    token = torch.tensor([[LANGUAGE.json["slot_call"]["next_token_id"]]])
    begin = model.get_input_embeddings()(token)
    slot = case["slot_call.in.slot_embed"].reshape(1, 1, -1)
    prompt = case["slot_call.in.embeds"]
    cache = model.model(inputs_embeds=prompt, use_cache=True).past_key_values
    ahead = model.model(inputs_embeds=slot, past_key_values=cache, use_cache=True).last_hidden_state[0, -1]
    LANGUAGE.close(ahead, case["slot_call.out.hidden_published_inference"].flatten())
    cache.crop(-1)
    after = model(inputs_embeds=begin, past_key_values=cache, use_cache=True).logits[0, -1]
    LANGUAGE.close(after, case["slot_call.out.next_logits_after_call"].flatten())
    trained = model.model(inputs_embeds=slot, past_key_values=cache, use_cache=True).last_hidden_state[0, -1]
    LANGUAGE.close(trained, case["slot_call.out.hidden_training_order"].flatten())


@pytest.mark.parametrize("pack", [VISION, QFORMER, LANGUAGE, Pack("whole_model")], ids=lambda pack: pack.json["pack"])
def test_every_published_tensor_of_the_backbone_comes_back_bit_for_bit(pack):
    ours: dict[str, Tensor] = {}
    names = [name for name in pack.weights if name.startswith(BACKBONE)]
    for name in names:
        ours |= to_ours(name, pack.weights[name])
    for name in names:
        want = pack.weights[name]
        got = position_ids(want.shape[1]) if name == POSITION_IDS else to_published(name, ours.__getitem__)
        assert torch.equal(got, want)
        assert got.dtype == want.dtype
    assert {published_name(name) for name in ours} == set(names) - {POSITION_IDS}
