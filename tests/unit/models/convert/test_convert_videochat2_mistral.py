import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from tests.unit.models.convert.published_files import (
    WORDS,
    read_checkpoint,
    sentencepiece_model,
    tiny_sizes,
    write_checkpoint,
)
from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.models.convert.videochat2_mistral import convert_base
from tpo_core.models.tpo import TpoModel
from tpo_core.models.videochat2.config import VideoChat2Config
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration
from tpo_core.models.videochat2.published import POSITION_IDS, published_name, to_published

TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj|lm_head"
LAYER = "mistral_model.base_model.model.model.layers.1.mlp.up_proj"


def base_config():
    config = VideoChat2Config.from_dict(tiny_sizes().backbone.to_dict())
    config.text_config.vocab_size = WORDS
    return config


def under_their_names(model):
    """State of a model of ours as VideoChat2-Mistral calls it."""
    state = model.state_dict()
    found = {}
    for name in {published_name(name) for name in state}:
        theirs = name.replace("project_up.", "mistral_proj.") if name.startswith("project_up.") else name
        theirs = f"mistral_model.{theirs.removeprefix('lm.')}" if theirs.startswith("lm.") else theirs
        found[theirs] = to_published(name, state.__getitem__).clone()
    return found


@pytest.fixture
def adapted():
    """A model with adapters that matter."""
    torch.manual_seed(0)
    model = VideoChat2ForConditionalGeneration(base_config())
    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=32, target_modules=TARGETS), model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def tensors(adapted):
    return {**under_their_names(adapted), POSITION_IDS: torch.arange(8)[None]}


@pytest.fixture
def like(tmp_path):
    base_config().save_pretrained(tmp_path / "like")
    return str(tmp_path / "like")


def converted(tensors, like, tmp_path):
    source = write_checkpoint(tmp_path / "theirs", tensors)
    (source / "tokenizer.model").write_bytes(sentencepiece_model())
    assert convert_base(str(source), str(tmp_path / "base"), like) == []
    return tmp_path / "base"


def logits_of(model):
    ids = torch.tensor([[3, 65536, 65536, 65536, 65536, 65536, 9, 4]])
    pixels = torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_ids=ids, pixel_values_videos=pixels).logits


def test_the_base_answers_as_the_checkpoint_with_its_adapters(adapted, tensors, like, tmp_path):
    folder = converted(tensors, like, tmp_path)
    base, info = VideoChat2ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(logits_of(base.eval()), logits_of(adapted), atol=2e-5, rtol=1e-4)


def test_the_layer_norm_of_the_queries_is_kept(tensors, like, tmp_path):
    state = read_checkpoint(converted(tensors, like, tmp_path))
    for ours, theirs in (("layernorm.weight", "LayerNorm.weight"), ("word_embeddings.weight",) * 2):
        assert torch.equal(state[f"model.qformer.embeddings.{ours}"], tensors[f"qformer.bert.embeddings.{theirs}"])


def test_a_model_of_ours_starts_from_the_base(tensors, like, tmp_path):
    folder = converted(tensors, like, tmp_path)
    settings = ModelConfig(base=str(folder), backbone="videochat2", lora={"rank": 2})
    model = TpoModel.from_base(str(folder), settings, ["region"])
    assert len(model.backbone.embedding_VC) == WORDS + 7
    kept = model.backbone.vlm.lm_head.base_layer.weight[:WORDS]
    up, down = (tensors[f"mistral_model.base_model.model.lm_head.lora_{half}.default.weight"] for half in "BA")
    base = tensors["mistral_model.base_model.model.lm_head.base_layer.weight"]
    torch.testing.assert_close(kept, base + 32 / 3 * up @ down)


def test_adapters_are_merged_in_fp32_and_rounded_once(tensors, like, tmp_path):
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in tensors.items()}
    state = read_checkpoint(converted(half, like, tmp_path))
    merged = state["model.language_model.layers.1.mlp.up_proj.weight"]
    base, down, up = (
        half[f"{LAYER}.{part}.weight"].float() for part in ("base_layer", "lora_A.default", "lora_B.default")
    )
    assert torch.equal(merged, (base + 32 / 3 * (up @ down)).bfloat16())
    assert {value.dtype for value in state.values()} == {torch.bfloat16}


def test_older_names_of_adapted_layers_and_plain_layers_are_read(tensors, like, tmp_path):
    older = {name.replace(".base_layer.", "."): value for name, value in tensors.items()}
    del older[POSITION_IDS]
    want = read_checkpoint(converted(tensors, like, tmp_path))
    got = read_checkpoint(converted(older, like, tmp_path / "older"))
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], value) for name, value in want.items())
    plain = {name: value for name, value in older.items() if ".lora_" not in name}
    state = read_checkpoint(converted(plain, like, tmp_path / "plain"))
    assert torch.equal(state["model.language_model.layers.1.mlp.up_proj.weight"], tensors[f"{LAYER}.base_layer.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("mistral_proj.bias"), r"lacks project_up.bias \(1 tensors differ\)"),
        (lambda t: t.pop("qformer.bert.embeddings.LayerNorm.weight"), r"lacks qformer.bert.embeddings.LayerNorm.w"),
        (lambda t: t.update(other=torch.zeros(1)), r"holds other, which does not belong there"),
        (lambda t: t.update(query_tokens=torch.zeros(1, 3, 12)), r"query_tokens of shape \(1, 3, 12\)"),
        (lambda t: t.update(query_tokens=t["query_tokens"].half()), r"holds query_tokens as F16 where F32 is needed"),
        (lambda t: t.pop(f"{LAYER}.lora_A.default.weight"), rf"holds {LAYER}.lora_B.default.weight but not the other"),
        (lambda t: t.pop(f"{LAYER}.lora_B.default.weight"), rf"holds {LAYER}.lora_A.default.weight but not the other"),
        (lambda t: t.pop(f"{LAYER}.base_layer.weight"), rf"holds {LAYER}.lora_[AB].default.weight but no weight"),
        (
            lambda t: t.update({f"{LAYER}.lora_B.default.weight": torch.zeros(40, 2)}),
            rf"holds {LAYER}.lora_B.default.weight of shape \(40, 2\) where \(40, 3\) is needed",
        ),
        (
            lambda t: t.update({f"{LAYER}.lora_A.default.weight": torch.zeros(3)}),
            rf"holds {LAYER}.lora_A.default.weight of shape \(3\) where \(3, 24\) is needed",
        ),
        (
            lambda t: t.update({f"{LAYER}.weight": t[f"{LAYER}.base_layer.weight"].clone()}),
            rf"holds one tensor twice, as {LAYER}.base_layer.weight and {LAYER}.weight",
        ),
        (lambda t: t.update({"project_up.bias": torch.zeros(24)}), r"holds one tensor twice, as project_up.bias and"),
        (lambda t: t.update({POSITION_IDS: torch.zeros(1, 8)}), r"position_ids as F32 where I64 is needed"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_refused_and_leaves_nothing(tensors, like, tmp_path, change, message):
    change(tensors)
    source = write_checkpoint(tmp_path / "theirs", tensors)
    with pytest.raises(TpoError, match=message) as told:
        convert_base(str(source), str(tmp_path / "base"), like)
    assert "\n" not in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["like", "theirs"]


def test_a_missing_tokenizer_and_other_sizes_are_told(tensors, like, tmp_path):
    source = write_checkpoint(tmp_path / "theirs", tensors)
    assert convert_base(str(source), str(tmp_path / "base"), like) == [
        f"{source} has no tokenizer.model: copy that of the base model into {tmp_path / 'base'}"
    ]
    with pytest.raises(TpoError, match=r"give --like with a base of its sizes"):
        convert_base(str(source), str(tmp_path / "other"))
    with pytest.raises(TpoError, match=r"has no good config.json: give the folder of a videochat2 model"):
        convert_base(str(source), str(tmp_path / "other"), str(source))
