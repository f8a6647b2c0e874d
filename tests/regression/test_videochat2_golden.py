"""The VideoChat2 backbone against values of the published implementation; all sizes come from the packs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig

from tpo_core.heads.region import RegionHead, box_loss
from tpo_core.heads.registry import HEADS
from tpo_core.models.task_tokens import TaskTokens
from tpo_core.models.videochat2.config import VideoChat2Config
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration
from tpo_core.models.videochat2.published import POSITION_IDS, position_ids, published_name, to_ours, to_published
from tpo_core.models.videochat2.vision import position_table

PACKS = Path(__file__).resolve().parents[1] / "golden" / "models"
BACKBONE = (
    "lm.",
    "vision_encoder.",
    "vision_layernorm.",
    "qformer.",
    "query_tokens",
    "extra_query_tokens",
    "project_up.",
)
SMALL_VISION = {"embed_dim": 16, "heads": 2, "blocks_run": 1, "image_size": 32, "patch_size": 16}
SMALL_QFORMER = {
    "hidden_size": 12, "heads": 2, "layers": 1, "intermediate_size": 16, "vocab_size": 9, "max_position_embeddings": 4,
    "query_tokens": 2, "extra_query_tokens": 1,
}  # fmt: skip
SMALL_LLM = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 2, "kv_heads": 1}


class Pack:
    """One pack: its json, weights under published names, and cases."""

    def __init__(self, name: str) -> None:
        self.json: dict[str, Any] = json.loads((PACKS / f"{name}.json").read_text())
        self.config: dict[str, Any] = self.json["config"]
        self.weights = load_file(PACKS / f"{name}.weights.safetensors")
        self.cases = load_file(PACKS / f"{name}.cases.safetensors")

    def close(self, got: Tensor, want: Tensor, of: str = "") -> None:
        tolerance = self.json["tolerance"]
        torch.testing.assert_close(got, want, atol=tolerance[f"{of}atol"], rtol=tolerance[f"{of}rtol"])


def case_of(pack: Pack, name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in pack.cases.items() if key.startswith(f"{name}.")}


def vision_config(sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": sizes["embed_dim"], "num_attention_heads": sizes["heads"], "num_frames": 4, "tubelet_size": 1,
        "num_hidden_layers": sizes["blocks_run"], "intermediate_size": 4 * sizes["embed_dim"], "layer_norm_eps": 1e-6,
        "image_size": sizes["image_size"], "patch_size": sizes["patch_size"],
    }  # fmt: skip


def qformer_config(sizes: dict[str, Any], encoder_width: int) -> dict[str, Any]:
    return {
        "hidden_size": sizes["hidden_size"], "num_hidden_layers": sizes["layers"], "vocab_size": sizes["vocab_size"],
        "num_attention_heads": sizes["heads"], "intermediate_size": sizes["intermediate_size"],
        "max_position_embeddings": sizes["max_position_embeddings"], "encoder_hidden_size": encoder_width,
    }  # fmt: skip


def text_config(sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": sizes["vocab_size"], "hidden_size": sizes["hidden_size"], "num_hidden_layers": sizes["layers"],
        "intermediate_size": sizes["intermediate_size"], "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"], "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": None,
    }  # fmt: skip


def build(
    weights: dict[str, Tensor],
    *,
    vision: dict[str, Any] = SMALL_VISION,
    qformer: dict[str, Any] = SMALL_QFORMER,
    llm: dict[str, Any] = SMALL_LLM,
    attention: str = "sdpa",
) -> VideoChat2ForConditionalGeneration:
    """Our model with the sizes of a pack and its weights; adapters where the pack has them. What the pack does not
    cover is small and random; of what it covers, everything is loaded."""
    config = VideoChat2Config(
        vision_config=vision_config(vision),
        qformer_config=qformer_config(qformer, vision["embed_dim"]),
        text_config=text_config(llm),
        num_query_tokens=qformer["query_tokens"],
        num_extra_query_tokens=qformer["extra_query_tokens"],
        attn_implementation=attention,
    )
    model = VideoChat2ForConditionalGeneration(config)
    if "lora" in llm:
        lora = llm["lora"]
        targets = [name for name in lora["targets"] if name != "lm_head"]
        pattern = rf".*language_model.*\.({'|'.join(targets)})|lm_head"
        inject_adapter_in_model(LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=pattern), model)
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith(BACKBONE):
            ours |= to_ours(name, tensor)
    result = model.load_state_dict(ours, strict=False)
    assert result.unexpected_keys == []
    covered = {name.split(".")[1] for name in ours}
    assert [name for name in result.missing_keys if name.split(".")[1] in covered] == []
    return model.eval()


def enlarged(pixels_u8: Tensor, size: int) -> Tensor:
    """The packs' rule: (u8 - 128) / 64, every pixel repeated up to `size`; H and W are the last two dimensions."""
    times = size // pixels_u8.shape[-1]
    return ((pixels_u8.float() - 128) / 64).repeat_interleave(times, -1).repeat_interleave(times, -2)


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
        encoder_attention_mask=case.get("in.encoder_mask"),
    )
    QFORMER.close(found.last_hidden_state[:, : queries.shape[1]], case["out.queries"])


LANGUAGE = Pack("language_model")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def language_model(request: pytest.FixtureRequest) -> VideoChat2ForConditionalGeneration:
    return build(LANGUAGE.weights, llm=LANGUAGE.config, attention=request.param)


def gradient_of(model: nn.Module, published: str) -> Tensor:
    """The gradient of a parameter of the backbone, by its published name."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return to_published(published, gradients.__getitem__)


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


WHOLE = Pack("whole_model")
TOKENS = WHOLE.json["token_ids"]
VECTORS = {"box_token": "region", "temporal_token": "temporal", "track_token": "mask"}


class Whole:
    """The whole model of the pack as far as a head does not matter: backbone, task vectors, box encoder."""

    def __init__(self, attention: str = "sdpa") -> None:
        config = WHOLE.config
        self.vlm = build(
            WHOLE.weights, vision=config["vision"], qformer=config["qformer"], llm=config["llm"], attention=attention
        ).requires_grad_(True)
        slots = {head: TOKENS[HEADS[head].slot] for head in VECTORS.values()}
        self.task_tokens = TaskTokens(slots, TOKENS["<track_box>"], config["llm"]["hidden_size"])
        state = {f"vectors.{head}": WHOLE.weights[name].flatten() for name, head in VECTORS.items()}
        state |= {name: value for name, value in WHOLE.weights.items() if name.startswith("loc_encoder.")}
        self.task_tokens.load_state_dict(state)
        self.vlm.get_input_embeddings().register_forward_hook(self.task_tokens.embed)
        self.embeds: list[Tensor] = []
        self.vlm.model.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: self.embeds.append(kwargs["inputs_embeds"]), with_kwargs=True
        )

    def inputs(self, case: dict[str, Tensor]) -> dict[str, Tensor]:
        ids = case["in.input_ids"].masked_fill(case["in.slot_mask"].bool(), self.vlm.config.video_token_id)
        pixels = enlarged(case["in.pixels_u8"], WHOLE.config["vision"]["image_size"])
        mask = case.get("in.attention_mask", torch.ones_like(ids))
        return {"input_ids": ids, "attention_mask": mask, "pixel_values_videos": pixels}

    def boxes(self, case: dict[str, Tensor]) -> Tensor:
        """The boxes behind <track_box>; nan where the prompt has none."""
        given = (case["in.input_ids"] == TOKENS["<track_box>"]).any(1)
        return case["in.boxes"] if given.any() else torch.full((len(given), 4), torch.nan)

    def run(self, case: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Last hidden states, logits and the language loss."""
        with self.task_tokens.given_boxes(self.boxes(case)):
            hidden = self.vlm.model(**self.inputs(case)).last_hidden_state
        logits, labels = self.vlm.lm_head(hidden), case["in.labels"]
        return hidden, logits, F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", WHOLE.json["cases"])
@torch.no_grad()
def test_the_whole_backbone_gives_the_published_values(name, attention):
    case, whole = case_of(WHOLE, name), Whole(attention)
    hidden, logits, loss = whole.run(case)
    real = case["in.attention_mask"].bool()
    WHOLE.close(whole.embeds[0][real], case["out.inputs_embeds"][real])
    WHOLE.close(hidden[real], case["out.last_hidden"][real])
    WHOLE.close(logits[real], case["out.logits"][real])
    WHOLE.close(loss, torch.tensor(WHOLE.json["cases"][name]["loss_lm"]), "loss_")


def head_loss(name: str, case: dict[str, Tensor], hidden: Tensor) -> tuple[Tensor, nn.Module]:
    """The published loss of the head that the case trains, and the head: none for text."""
    if not name.startswith("region"):
        return hidden.new_zeros(()), nn.Module()
    head = RegionHead(WHOLE.config["llm"]["hidden_size"], "l1_giou")
    head.load_state_dict({name: value for name, value in WHOLE.weights.items() if name.startswith("loc_decoder.")})
    slots = case["in.input_ids"] == TOKENS[RegionHead.slot]
    return sum(box_loss(head.loc_decoder(hidden[slots]), case["in.boxes"]).values()), head


@pytest.mark.parametrize("name", [name for name in WHOLE.json["cases"] if name.startswith(("text", "region"))])
def test_the_whole_backbone_gets_the_published_gradients(name):
    case, whole = case_of(WHOLE, name), Whole()
    hidden, _, loss = whole.run(case)
    of_head, head = head_loss(name, case, hidden)
    WHOLE.close(loss + of_head, torch.tensor(WHOLE.json["cases"][name]["loss_total"]), "loss_")
    (loss + of_head).backward()
    assert whole.vlm.get_input_embeddings().weight.grad is None
    others = dict(head.named_parameters()) | dict(whole.task_tokens.named_parameters())
    for key in [key for key in case if key.startswith("grad.")]:
        published = key.removeprefix("grad.")
        if published.startswith(BACKBONE):
            got = gradient_of(whole.vlm, published)
        else:
            ours = f"vectors.{VECTORS[published]}" if published in VECTORS else published
            got = others[ours].grad
        WHOLE.close(got, case[key].view_as(got), "grad_")


@torch.no_grad()
def test_a_caption_is_the_published_one():
    whole, caption = Whole(), WHOLE.json["caption"]
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=caption["max_new_tokens"], eos_token_id=None, pad_token_id=0
    )
    inputs = whole.inputs(case_of(WHOLE, "caption"))
    written = whole.vlm.generate(**inputs, generation_config=settings)[0, inputs["input_ids"].shape[1] :]
    assert written.tolist() == caption["tokens"]


@pytest.mark.parametrize("pack", [VISION, QFORMER, LANGUAGE, WHOLE], ids=lambda pack: pack.json["pack"])
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
