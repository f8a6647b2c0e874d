"""The published whole, tiny, through the converter: our model gives the published values, and the way back its bits."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from tests.regression.videochat2_packs import Pack, case_of, enlarged, qformer_config, text_config, vision_config
from tests.tiny_sam2 import tiny_config, tiny_sam2
from tests.unit.models.convert.published_files import same_bits, sentencepiece_model
from tpo_core.heads.region import box_loss
from tpo_core.heads.registry import HEADS
from tpo_core.models.convert.sam2 import to_facebook
from tpo_core.models.convert.videochat_tpo import convert, publish
from tpo_core.models.tpo import TpoModel
from tpo_core.models.videochat2.config import VideoChat2Config

WHOLE = Pack("whole_model")
TOKENS = WHOLE.json["token_ids"]
CGDETR_SIZES = {
    "width": "hidden", "heads": "heads", "ffn_width": "ffn", "input_layers": "n_input_proj",
    "sentence_heads": "txtproj_and_sentence_encoder_heads", "t2v_layers": "t2v_layers", "encoder_layers": "enc_layers",
    "decoder_layers": "dec_layers", "dummy_layers": "dummy_layers", "sentence_layers": "sent_layers",
    "moment_layers": "moment_layers", "queries": "num_queries", "dummies": "num_dummies", "prompts": "total_prompts",
}  # fmt: skip
PLACE_CHANNELS = 2  # of the pack's clip features
SAM2_IMAGE_SIZE = 1024  # of the published model, by which prompts are scaled; no image is looked at here


def sam2_config():
    return tiny_config(prompt_width=WHOLE.config["sam_prompt_dim"], image_size=SAM2_IMAGE_SIZE)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The pack's weights and a random rest of SAM2, as a checkpoint."""
    folder = tmp_path_factory.mktemp("published")
    sam2 = tiny_sam2(sam2_config()).state_dict()
    save_file({**to_facebook(sam2, "sam."), **WHOLE.weights}, folder / "model.safetensors")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(min(TOKENS.values())))
    return folder


@pytest.fixture(scope="module")
def like(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("like"), WHOLE.config
    llm, qformer, cgdetr = config["llm"], config["qformer"], config["cgdetr"]
    assert cgdetr["txt_dim"] == llm["hidden_size"]
    VideoChat2Config(
        vision_config=vision_config(config["vision"]),
        qformer_config=qformer_config(qformer, config["vision"]["embed_dim"]),
        text_config=text_config(llm),
        num_query_tokens=qformer["query_tokens"],
        num_extra_query_tokens=qformer["extra_query_tokens"],
    ).save_pretrained(folder)
    sam2_config().save_pretrained(folder / "sam2")
    sizes = {ours: cgdetr[theirs] for ours, theirs in CGDETR_SIZES.items()}
    model = {
        "base": "pack",
        "backbone": "videochat2",
        "lora": {"rank": llm["lora"]["r"], "alpha": llm["lora"]["alpha"], "targets": llm["lora"]["targets"]},
        "temporal": {
            "decoder": "cg_detr",
            "cg_detr": {**sizes, "clip_width": cgdetr["vid_dim"] - PLACE_CHANNELS},
        },
        "mask": {"decoder": "sam2"},
    }
    (folder / "tpo.json").write_text(json.dumps({"heads": list(HEADS), "model": model}))
    return folder


@pytest.fixture(scope="module")
def ours(published, like, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "model"
    assert convert(str(published), str(folder), str(like)) == []
    return folder


@pytest.fixture(scope="module")
def model(ours):
    return TpoModel.from_pretrained(ours).eval()


def test_task_tokens_have_the_published_ids(model):
    assert {token: model.processor.token_id(token) for token in TOKENS} == TOKENS


@pytest.mark.parametrize("name", WHOLE.json["cases"])
@torch.no_grad()
def test_a_converted_model_gives_the_published_values(model, name):
    case, about = case_of(WHOLE, name), WHOLE.json["cases"][name]
    ids = case["in.input_ids"]
    real = case.get("in.attention_mask", torch.ones_like(ids)).bool()
    given = (ids == TOKENS["<track_box>"]).any(1)
    boxes = case["in.boxes"] if given.any() else torch.full((len(ids), 4), torch.nan)
    with model.task_tokens.given_boxes(boxes):
        hidden = model.backbone.hidden_states(
            ids.masked_fill(case["in.slot_mask"].bool(), model.backbone.video_token_id),
            real.long(),
            pixel_values_videos=enlarged(case["in.pixels_u8"], model.backbone.image_size),
        ).last_hidden_state
    WHOLE.close(hidden[real], case["out.last_hidden"][real])
    logits = model.backbone.lm_head(hidden)
    WHOLE.close(logits[real], case["out.logits"][real])
    language = F.cross_entropy(logits[:, :-1].flatten(0, 1), case["in.labels"][:, 1:].flatten())
    WHOLE.close(language, torch.tensor(about["loss_lm"]), "loss_")
    if name.startswith("region"):
        predicted = model.head("region").loc_decoder(hidden[ids == TOKENS["<boxes>"]])
        loss = sum(box_loss(predicted, case["in.boxes"]).values())
        WHOLE.close(loss, torch.tensor(about["loss_head"]), "loss_")
    if name.startswith("mask"):
        head = model.head("mask")
        slot = hidden[ids == TOKENS["<tracking>"]]
        target = head.sam.embed_boxes(case["in.boxes"])
        loss = (head.prompts(slot) - target).abs().mean() + (
            head.track_embed_decode2(slot) - case["in.boxes"]
        ).abs().mean()
        WHOLE.close(loss, torch.tensor(about["loss_head"]), "loss_")


def test_the_way_back_gives_the_bits_of_the_checkpoint(published, ours, tmp_path):
    publish(str(ours), str(tmp_path / "back"))
    back = {
        name: value for file in (tmp_path / "back").glob("*.safetensors") for name, value in load_file(file).items()
    }
    assert same_bits(back, load_file(published / "model.safetensors"))
