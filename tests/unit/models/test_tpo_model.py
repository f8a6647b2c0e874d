import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.losses import mean_losses, names_of
from tpo_core.errors import TpoError
from tpo_core.models.tpo import TpoModel

KINDS = ("region", "temporal", "mask")


def batch_of(model, examples):
    return model.processor.collate([model.processor.encode(example) for example in examples])


def losses_of(model, examples):
    """Means over the targets."""
    model.eval()
    with torch.no_grad():
        return mean_losses(model, batch_of(model, examples))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_the_language_loss_and_that_of_its_head(make_model, make_example, kind):
    losses, report = make_model()(batch_of(make_model(), [make_example(kind), make_example(kind, 2, seed=1)]))
    assert names_of(losses) == {"lm", kind}
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    assert all(name.startswith(f"{kind}/") for name in report)


def test_chat_and_a_model_without_heads_give_the_language_loss_alone(make_model, make_example):
    assert set(losses_of(make_model(), [make_example("chat"), make_example("chat", 0)])) == {"lm"}
    assert set(losses_of(make_model(heads=()), [make_example("region")])) == {"lm"}


def changed_adapters(model):
    """Adapters start as no change at all: give them one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


def test_divergence_from_the_base_is_measured_on_plain_conversation_alone(make_model, make_example):
    model = make_model()
    model.compares_with_base = True
    chat = [make_example("chat"), make_example("chat", 0)]
    assert losses_of(model, chat)["kl"] == pytest.approx(0, abs=1e-6)
    assert losses_of(changed_adapters(model), chat)["kl"] > 1e-3
    assert set(losses_of(model, [make_example("region")])) == {"lm", "region"}


def test_divergence_trains_the_adapters_and_leaves_everything_as_it_was(make_model, make_example):
    model = changed_adapters(make_model())
    before = losses_of(model, [make_example("chat")])["lm"]
    model.compares_with_base = True
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_A" in name)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    batch = batch_of(model, [make_example("chat")])
    losses, _ = model(batch)
    losses["kl"].backward()
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.parameters() if parameter.grad is not None)
    assert losses["lm"].item() / model.counts(batch)["lm"] == pytest.approx(before.item())


@pytest.mark.parametrize(
    ("kind", "reached"),
    [
        ("chat", {"lora", "vision_encoder", "connector"}),
        ("region", {"lora", "vision_encoder", "connector", "task_vectors", "region_head"}),
        ("mask", {"lora", "vision_encoder", "connector", "task_vectors", "mask_head"}),
    ],
)
def test_gradients_reach_exactly_the_groups_of_the_task(make_model, make_example, kind, reached):
    model = make_model()
    groups = model.groups()
    for members in groups.values():
        for _, parameter in members:
            parameter.requires_grad_(True)
    losses, _ = model(batch_of(model, [make_example(kind)]))
    sum(losses.values()).backward()
    touched = {
        group
        for group, members in groups.items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for _, p in members)
    }
    assert touched == reached
    grouped = {id(p) for members in groups.values() for _, p in members}
    assert all(p.grad is None for p in model.parameters() if id(p) not in grouped)


def test_every_vision_and_connector_parameter_of_a_group_gets_a_gradient(make_model, make_example):
    model = make_model()
    members = [pair for name in ("vision_encoder", "connector") for pair in model.groups()[name]]
    for _, parameter in members:
        parameter.requires_grad_(True)
    losses, _ = model(batch_of(model, [make_example("chat")]))
    losses["lm"].backward()
    assert [name for name, p in members if p.grad is None] == []


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_autocast_keeps_the_head_in_fp32(make_model, make_example, kind):
    model, example = make_model(), make_example(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = mean_losses(model, batch_of(model, [example]))
    sum(losses.values()).backward()
    assert losses[kind].dtype == torch.float32
    exact = losses_of(model, [example])
    torch.testing.assert_close(losses[kind], exact[kind], atol=0.05, rtol=0.05)
    assert all(p.grad.isfinite().all() for _, p in model.groups()[f"{kind}_head"])


def test_adapters_are_on_the_language_model_only(make_model):
    names = [name for name, _ in make_model().groups()["lora"]]
    assert any("lm_head" in name for name in names)
    assert any("language_model.layers.1.mlp.down_proj" in name for name in names)
    assert not any("vision_tower" in name for name in names)


def test_right_padding_and_padding_frames_do_not_change_a_sample(make_model, make_example):
    model = make_model()
    alone = losses_of(model, [make_example("temporal", 2)])
    pair = [make_example("temporal", 2), make_example("temporal", 5, question="Where is the ball, and where the sun?")]
    other = losses_of(model, pair[1:])
    both = losses_of(model, pair)
    tokens = [int((batch_of(model, [e]).labels_BL != -100).sum()) for e in pair]
    expected = (alone["lm"] * tokens[0] + other["lm"] * tokens[1]) / sum(tokens)
    torch.testing.assert_close(both["lm"], expected, atol=1e-5, rtol=1e-4)


def test_a_saved_model_loads_to_identical_losses_and_answers(make_model, make_example, tmp_path):
    model = make_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded = TpoModel.from_pretrained(tmp_path)
    assert loaded.new_parameters == []
    for kind in KINDS:
        before, after = losses_of(model, [make_example(kind)]), losses_of(loaded, [make_example(kind)])
        assert {k: v.item() for k, v in before.items()} == {k: v.item() for k, v in after.items()}
    examples = [make_example("region")]
    assert model.chat(examples, 5)[0].token_ids == loaded.chat(examples, 5)[0].token_ids


def test_the_manifest_lists_every_tensor_with_group_and_trainability(make_model, tmp_path):
    model = make_model()
    for _, parameter in model.groups()["task_vectors"]:
        parameter.requires_grad_(False)
    model.save_pretrained(tmp_path)
    rows = {row["name"]: row for row in json.loads((tmp_path / "parameters.json").read_text())}
    assert rows.keys() == load_file(tmp_path / "model.safetensors").keys()
    vector = rows["task_tokens.vectors.region"]
    assert (vector["group"], vector["trained"], vector["shape"]) == ("task_vectors", False, [32])
    assert rows["heads.region.loc_decoder.0.weight"]["group"] == "region_head"
    assert rows["model.language_model.embed_tokens.weight"]["group"] is None


def test_new_heads_are_the_only_new_parameters(make_model, tmp_path):
    make_model(heads=()).save_pretrained(tmp_path)
    loaded = TpoModel.from_pretrained(tmp_path, heads=["region"])
    assert {name.rsplit(".", 2)[0] for name in loaded.new_parameters} == {
        "heads.region.loc_decoder",
        "task_tokens",
        "task_tokens.loc_encoder",
    }
    loaded.save_pretrained(tmp_path / "next")
    again = TpoModel.from_pretrained(tmp_path / "next", heads=["region", "mask"])
    assert all(name.startswith(("heads.mask.", "task_tokens.vectors.mask")) for name in again.new_parameters)


def test_new_task_vectors_start_at_the_scale_of_the_trained_embedding(make_model, tmp_path):
    make_model(heads=()).save_pretrained(tmp_path)
    loaded = TpoModel.from_pretrained(tmp_path, heads=["region", "mask"])
    scale = loaded.backbone.vlm.get_input_embeddings().weight.detach().std()
    for vector in loaded.task_tokens.vectors.values():
        assert 0.5 < float(vector.detach().std() / scale) < 2


def test_loading_refuses_missing_unknown_and_lost_parameters(make_model, tmp_path):
    make_model(heads=("region",)).save_pretrained(tmp_path)
    with pytest.raises(TpoError, match="would be lost"):
        TpoModel.from_pretrained(tmp_path, heads=[])
    weights = load_file(tmp_path / "model.safetensors")
    removed = weights.pop("model.language_model.norm.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(TpoError, match=r"lacks model.language_model.norm.weight"):
        TpoModel.from_pretrained(tmp_path)
    save_file(
        weights | {"model.language_model.norm.weight": removed, "stray": removed.clone()},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(TpoError, match="holds stray"):
        TpoModel.from_pretrained(tmp_path)


def test_loading_names_a_tensor_of_another_shape_and_a_file_that_was_cut_off(make_model, tmp_path):
    make_model(heads=("region",)).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"task_tokens.vectors.region": torch.zeros(31)}, file)
    with pytest.raises(TpoError, match=r"holds task_tokens.vectors.region as \(31,\) where the model has \(32,\)"):
        TpoModel.from_pretrained(tmp_path)
    save_file(weights, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(TpoError, match=r"model\.safetensors is damaged or cut off"):
        TpoModel.from_pretrained(tmp_path)


def test_a_folder_that_holds_no_model_is_told_in_one_line(tmp_path, config):
    with pytest.raises(TpoError, match="no saved TPO model"):
        TpoModel.from_pretrained(tmp_path)
    with pytest.raises(TpoError, match="no model at"):
        TpoModel.from_base(str(tmp_path / "nowhere"), config, [])
