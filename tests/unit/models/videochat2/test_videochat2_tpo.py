"""VideoChat2 as a backbone: training batches, answers, files."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.losses import mean_losses, names_of
from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.models.tpo import TpoModel

KINDS = ("region", "temporal", "mask")
MARKERS = {
    "region": ("<box_begin>", "<boxes>"),
    "temporal": ("<time_begin>", "<temp>"),
    "mask": ("<track_begin>", "<tracking>"),
}


@pytest.fixture
def folder(make_vlm, spm, tokenizer, tmp_path):
    """A base model on disk, without added tokens."""
    path = tmp_path / "base"
    text = make_vlm().config.text_config.to_dict() | {"vocab_size": len(tokenizer) - len(tokenizer.added)}
    make_vlm(text_config=text).save_pretrained(path)
    (path / "tokenizer.model").write_bytes(spm)
    return path


@pytest.fixture
def settings(folder):
    return ModelConfig(
        base=str(folder),
        backbone="videochat2",
        lora={"rank": 2, "alpha": 4},
        temporal={"width": 16, "layers": 1},
        mask={"width": 8},
    )


@pytest.fixture
def model(folder, settings):
    torch.manual_seed(0)
    model = TpoModel.from_base(str(folder), settings, KINDS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model.eval()


def batch_of(model, examples):
    return model.processor.collate([model.processor.encode(example) for example in examples])


def losses_of(model, examples):
    """Means over the targets."""
    with torch.no_grad():
        return mean_losses(model, batch_of(model, examples))


def train_all(model):
    for members in model.groups().values():
        for _, parameter in members:
            parameter.requires_grad_(True)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_exactly_the_groups_of_the_task(model, make_example, kind):
    train_all(model)
    losses, _ = model(batch_of(model, [make_example(kind), make_example(kind, 2, seed=1)]))
    assert names_of(losses) == {"lm", kind}
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    groups = model.groups()
    touched = {
        group
        for group, members in groups.items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for _, p in members)
    }
    assert touched == {"lora", "vision_encoder", "connector", "task_vectors", f"{kind}_head"}
    grouped = {id(p) for members in groups.values() for _, p in members}
    assert all(p.grad is None for p in model.parameters() if id(p) not in grouped)
    assert model.task_tokens.vectors[kind].grad.abs().sum() > 0


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_every_part_takes_part_in_every_batch(model, make_example, frames):
    train_all(model)
    losses, _ = model(batch_of(model, [make_example("chat", frames)]))
    losses["lm"].backward()
    trained = [pair for group in ("lora", "vision_encoder", "connector") for pair in model.groups()[group]]
    assert [name for name, p in trained if p.grad is None or not p.grad.isfinite().all()] == []


def test_the_text_side_of_the_qformer_is_in_no_group(model):
    group_of = {name: group for group, members in model.groups().items() for name, _ in members}
    layer = "backbone.vlm.model.qformer.encoder.layer.0"
    assert f"{layer}.intermediate.dense.weight" not in group_of
    assert f"{layer}.output.dense.weight" not in group_of
    assert "backbone.vlm.model.qformer.embeddings.word_embeddings.weight" not in group_of
    assert "backbone.vlm.model.language_model.embed_tokens.weight" not in group_of
    assert group_of[f"{layer}.intermediate_query.dense.weight"] == "connector"
    assert group_of[f"{layer}.attention.output.dense.weight"] == "connector"
    assert group_of["backbone.vlm.model.query_tokens"] == "connector"
    assert group_of["backbone.vlm.model.vision_tower.encoder.layer.1.layernorm_after.bias"] == "vision_encoder"


def test_adapters_are_on_the_language_model_alone(model):
    names = [name for name, _ in model.groups()["lora"]]
    assert any(name.startswith("backbone.vlm.lm_head.lora_A") for name in names)
    assert {name.split(".")[3] for name in names if not name.startswith("backbone.vlm.lm_head")} == {"language_model"}


@pytest.mark.parametrize("kind", ["region", "temporal", "chat"])
def test_a_batch_of_clips_and_images_of_all_lengths_is_each_alone(model, make_example, kind):
    examples = [make_example(kind, 1), make_example(kind, 5, question="Where is the ball, and when?", seed=1)]
    if kind == "chat":
        examples.append(make_example(kind, 0, seed=2))
    together = losses_of(model, examples)
    alone = [losses_of(model, [example]) for example in examples]
    tokens = [int((batch_of(model, [example]).labels_BL != -100).sum()) for example in examples]
    expected = sum(losses["lm"] * count for losses, count in zip(alone, tokens, strict=True)) / sum(tokens)
    torch.testing.assert_close(together["lm"], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_autocast_changes_losses_little_and_keeps_gradients_finite(model, make_example, kind):
    train_all(model)
    examples = [make_example(kind, 2), make_example(kind, 5, seed=1)]
    batch = batch_of(model, examples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = mean_losses(model, batch)
    sum(losses.values()).backward()
    assert losses[kind].dtype == torch.float32
    exact = losses_of(model, examples)["lm"]
    torch.testing.assert_close(losses["lm"].float(), exact, atol=0.1, rtol=0.05)
    trained = [p for members in model.groups().values() for _, p in members if p.grad is not None]
    assert all(p.grad.isfinite().all() for p in trained)


def test_features_of_the_backbone_have_the_promised_shapes(model):
    backbone = model.backbone
    pixels, mask = torch.randn(2, 3, 3, 32, 32), torch.tensor([[True, True, True], [False, False, False]])
    features = backbone.encode(pixels, mask)
    assert features.tokens_BLC.shape == (2, backbone.visual_tokens(3), backbone.hidden_size)
    assert features.patches_BTNC.shape == (2, 3, 4, backbone.vision_size)
    assert backbone.grid_hw == (2, 2)
    assert backbone.visual_tokens(1) == backbone.visual_tokens(16) == 3
    given = backbone.visual_inputs(features, mask, torch.zeros(mask.shape))["mm_encoder_outputs"]["video"].pooler_output
    assert torch.equal(given, features.tokens_BLC[:1])


def make_it_say(model, token):
    wanted, lm_head = model.processor.token_id(token), model.backbone.lm_head

    def biased(hidden):
        logits = lm_head(hidden).clone()
        logits[..., wanted] += 1e4
        return logits

    model.backbone.lm_head = biased


@pytest.mark.parametrize("kind", KINDS)
def test_an_indicator_calls_its_head(model, make_example, kind):
    make_it_say(model, MARKERS[kind][0])
    answer = model.chat([make_example(kind)], 1)[0]
    assert answer.text == "".join(MARKERS[kind])
    assert answer.activated == [kind]
    assert [name for name, _ in answer.found] == [kind]


def test_prompts_are_answered_together_as_alone(model, make_example):
    with torch.no_grad():
        model.backbone.vlm.lm_head.base_layer.weight.mul_(20)
    examples = [
        make_example("region", 1),
        make_example("temporal", 5, question="At which timestamp is the ball?", seed=1),
        make_example("mask", 3, seed=2),
        make_example("chat", 0, seed=3),
    ]
    together = model.chat(examples, 6)
    assert [answer.token_ids for answer in together] == [model.chat([e], 6)[0].token_ids for e in examples]
    assert len({tuple(answer.token_ids) for answer in together}) > 1


def test_a_slot_that_a_user_writes_calls_no_head_and_changes_no_vector(model, make_example):
    train_all(model)
    model(batch_of(model, [make_example("chat", question="What is <boxes>?")]))[0]["lm"].backward()
    assert model.task_tokens.vectors["region"].grad.abs().sum() == 0


def test_a_saved_model_loads_to_the_same_losses_and_answers(model, make_example, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    loaded = TpoModel.from_pretrained(tmp_path / "saved").eval()
    assert loaded.new_parameters == []
    for kind in (*KINDS, "chat"):
        before, after = losses_of(model, [make_example(kind)]), losses_of(loaded, [make_example(kind)])
        assert {k: v.item() for k, v in before.items()} == {k: v.item() for k, v in after.items()}
    examples = [make_example("region"), make_example("chat", 0)]
    answers = [[answer.token_ids for answer in each.chat(examples, 5)] for each in (model, loaded)]
    assert answers[0] == answers[1]
    rows = {row["name"]: row for row in json.loads((tmp_path / "saved" / "parameters.json").read_text())}
    assert rows.keys() == load_file(tmp_path / "saved" / "model.safetensors").keys()
    assert rows["model.query_tokens"]["group"] == "connector"
    assert rows["lm_head.base_layer.weight"]["shape"][0] == len(loaded.processor.tokenizer)


def test_new_tokens_start_as_the_mean_of_the_words(model):
    ids = model.processor.tokenizer.convert_tokens_to_ids(list(model.processor.tokenizer.added))
    for table in (model.backbone.vlm.get_input_embeddings().weight, model.backbone.vlm.lm_head.base_layer.weight):
        torch.testing.assert_close(table[ids], table[: ids[0]].mean(0).expand(len(ids), -1))


def test_a_base_of_another_family_or_without_tokenizer_is_told(folder, settings):
    with pytest.raises(TpoError, match=r"is a videochat2 model: model.backbone llava_onevision needs its own type"):
        TpoModel.from_base(str(folder), settings.model_copy(update={"backbone": "llava_onevision"}), [])
    (folder / "tokenizer.model").unlink()
    with pytest.raises(TpoError, match=r"has no tokenizer.model"):
        TpoModel.from_base(str(folder), settings, [])
