"""The whole of VideoChat-TPO against values of the published implementation: backbone, task vectors, heads."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig
from transformers.models.sam2.configuration_sam2 import Sam2PromptEncoderConfig
from transformers.models.sam2.modeling_sam2 import Sam2PromptEncoder

from tests.regression.videochat2_packs import BACKBONE, Pack, build, case_of, enlarged, gradient_of
from tpo_core.config.model import CgDetrConfig
from tpo_core.heads.cgdetr.criterion import criterion
from tpo_core.heads.cgdetr.network import CgDetr, CgDetrInputs
from tpo_core.heads.cgdetr.targets import CgDetrTargets
from tpo_core.heads.region import RegionHead, box_loss
from tpo_core.heads.registry import HEADS
from tpo_core.heads.sam2.head import Projection
from tpo_core.models.task_tokens import TaskTokens

WHOLE = Pack("whole_model")
TOKENS = WHOLE.json["token_ids"]
VECTORS = {"box_token": "region", "temporal_token": "temporal", "track_token": "mask"}
CGDETR_UNUSED = ("txt_position_embed.", "txt_proj_linear.")
CGDETR_SIZES = {
    "text_width": "txt_dim", "width": "hidden", "heads": "heads", "ffn_width": "ffn", "input_layers": "n_input_proj",
    "sentence_heads": "txtproj_and_sentence_encoder_heads", "t2v_layers": "t2v_layers", "encoder_layers": "enc_layers",
    "decoder_layers": "dec_layers", "dummy_layers": "dummy_layers", "sentence_layers": "sent_layers",
    "moment_layers": "moment_layers", "queries": "num_queries", "dummies": "num_dummies", "prompts": "total_prompts",
}  # fmt: skip


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


@dataclass
class Head:
    """The loss of a head at published weight, and the head's parameters by their published names."""

    loss: Tensor
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)


def weights_of(prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in WHOLE.weights.items() if name.startswith(prefix)}


def region(name: str, case: dict[str, Tensor], hidden_NC: Tensor) -> Head:
    head = RegionHead(hidden_NC.shape[1], "l1_giou")
    head.loc_decoder.load_state_dict(weights_of("loc_decoder."))
    loss = sum(box_loss(head.loc_decoder(hidden_NC), case["in.boxes"]).values())
    return Head(loss, dict(head.named_parameters()))


def prompt_embeddings(boxes_N4: Tensor) -> Tensor:
    """What SAM2's prompt encoder makes of boxes, (N, 3, C)."""
    given = weights_of("sam.sam_prompt_encoder.")
    encoder = Sam2PromptEncoder(Sam2PromptEncoderConfig(hidden_size=WHOLE.config["sam_prompt_dim"]))
    ours = {
        "shared_embedding.positional_embedding": given["pe_layer.positional_encoding_gaussian_matrix"],
        "point_embed.weight": torch.cat([given[f"point_embeddings.{corner}.weight"] for corner in range(4)]),
        "not_a_point_embed.weight": given["not_a_point_embed.weight"],
    }
    assert encoder.load_state_dict(ours, strict=False).unexpected_keys == []
    with torch.no_grad():
        return encoder(None, None, boxes_N4[None] * encoder.input_image_size, None)[0][0]


def mask(name: str, case: dict[str, Tensor], hidden_NC: Tensor) -> Head:
    width = hidden_NC.shape[1]
    parts = nn.ModuleDict(
        {
            "track_embed": Projection(width, 3 * WHOLE.config["sam_prompt_dim"]),
            "track_embed_decode2": Projection(width, 4),
        }
    )
    for part, module in parts.items():
        module.load_state_dict(weights_of(f"{part}."))
    embedded, boxes_N4 = parts["track_embed"](hidden_NC), parts["track_embed_decode2"](hidden_NC)
    target = prompt_embeddings(case["in.boxes"]).flatten(1)
    loss = (embedded - target).abs().mean() + (boxes_N4 - case["in.boxes"]).abs().mean()
    return Head(loss, dict(parts.named_parameters()))


def temporal(name: str, case: dict[str, Tensor], hidden_NC: Tensor) -> Head:
    sizes, about = WHOLE.config["cgdetr"], WHOLE.json["cases"][name]
    chosen = {ours: sizes[theirs] for ours, theirs in CGDETR_SIZES.items()}
    network = CgDetr(
        CgDetrConfig(**chosen, dropout=0, input_dropout=0, drop_path=0), sizes["vid_dim"], sizes["txt_dim"]
    )
    own = {name: value for name, value in weights_of("cg_model.").items() if not name.startswith(CGDETR_UNUSED)}
    network.load_state_dict(own)
    given = {key.removeprefix("in.tvg."): value for key, value in case.items() if key.startswith("in.tvg.")}
    inputs = CgDetrInputs(
        given["src_vid"], given["src_vid_mask"].bool(), given["src_txt"], given["src_txt_mask"].bool(), hidden_NC
    )
    targets = CgDetrTargets(
        spans=list(given["spans"].split(about["windows_per_sample"])),
        positive_BP=given["saliency_pos_labels"],
        negative_BP=given["saliency_neg_labels"],
        saliency_BV=given["saliency_all_labels"],
        relevant_BV=given["relevant_clips"],
    )
    videos = about["video_ids"]
    output = network(inputs, targets.relevant_BV, torch.tensor([videos.index(video) for video in videos]))
    WHOLE.close(output.logits_RBQ2[-1].detach(), case["out.pred_logits"])
    WHOLE.close(output.spans_RBQ2[-1].detach(), case["out.pred_spans"])
    seen = inputs.video_mask_BV
    WHOLE.close(output.saliency_BV[seen].detach(), case["out.saliency_scores"][seen])
    loss = 0.05 * sum(criterion(output, targets).weighted().values())
    return Head(loss, {f"cg_model.{name}": value for name, value in network.named_parameters()})


HEAD_OF = {"region": region, "mask": mask, "temporal": temporal}


@pytest.mark.parametrize("name", WHOLE.json["cases"])
def test_the_whole_model_gets_the_published_loss_and_gradients(name):
    case, whole = case_of(WHOLE, name), Whole()
    hidden, _, language = whole.run(case)
    kind = name.split("_")[0]
    head = Head(hidden.new_zeros(()))
    if kind in HEAD_OF:
        slots = case["in.input_ids"] == TOKENS[HEADS[kind].slot]
        head = HEAD_OF[kind](name, case, hidden[slots])
    loss, about = language + head.loss, WHOLE.json["cases"][name]
    WHOLE.close(head.loss.detach(), torch.tensor(about["loss_head"]), "loss_")
    WHOLE.close(loss.detach(), torch.tensor(about["loss_total"]), "loss_")
    loss.backward()
    assert whole.vlm.get_input_embeddings().weight.grad is None
    others = head.parameters | dict(whole.task_tokens.named_parameters())
    wanted = {key.removeprefix("grad."): value for key, value in case.items() if key.startswith("grad.")}
    assert wanted
    for published, value in wanted.items():
        ours = f"vectors.{VECTORS[published]}" if published in VECTORS else published
        got = gradient_of(whole.vlm, published) if published.startswith(BACKBONE) else others[ours].grad
        WHOLE.close(got, value.view_as(got), "grad_")


@torch.no_grad()
def test_a_caption_is_the_published_one():
    whole, caption = Whole(), WHOLE.json["caption"]
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=caption["max_new_tokens"], eos_token_id=None, pad_token_id=0
    )
    inputs = whole.inputs(case_of(WHOLE, "caption"))
    written = whole.vlm.generate(**inputs, generation_config=settings)[0, inputs["input_ids"].shape[1] :]
    assert written.tolist() == caption["tokens"]
