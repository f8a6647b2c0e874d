import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig
from transformers.initialization import no_init_weights

from tpo_core.errors import TpoError
from tpo_core.models.videochat2.config import VideoChat2Config
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration

VIDEO = VideoChat2Config.video_token_id
CLIP = [VIDEO] * 3


def ids(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def clips(batch: int, frames: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def greedy_settings(tokens: int) -> GenerationConfig:
    return GenerationConfig(do_sample=False, max_new_tokens=tokens, eos_token_id=None, pad_token_id=0)


@torch.no_grad()
def test_the_published_sizes_are_the_defaults():
    """The published file counts the 512 position ids of the Q-Former as well."""
    with torch.device("meta"):
        model = VideoChat2ForConditionalGeneration(VideoChat2Config())
    parameters = {name: p.shape for name, p in model.named_parameters()}
    assert parameters["model.query_tokens"] == (1, 32, 768)
    assert parameters["model.extra_query_tokens"] == (1, 64, 768)
    assert parameters["model.project_up.weight"] == (4096, 768)
    assert parameters["model.vision_tower.encoder.layer.22.output.dense.weight"] == (1024, 4096)
    assert parameters["model.qformer.encoder.layer.10.crossattention.attention.key.weight"] == (768, 1024)
    assert parameters["model.language_model.layers.31.self_attn.k_proj.weight"] == (1024, 4096)
    assert sum(p.numel() for n, p in model.named_parameters() if n.startswith("model.vision_tower.")) == 290_477_056
    assert sum(p.numel() for n, p in model.named_parameters() if n.startswith("model.qformer.")) == 182_121_728 - 512
    assert model.config.tokens_per_clip == 96


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"video_token_id": 59}, r"video_token_id 59 is a row"),
        ({"vision_config": {"tubelet_size": 2, "hidden_size": 16}}, r"tubelet_size is 2"),
        ({"vision_config": {"tubelet_size": 1, "image_size": 30}}, r"image_size 30 must be"),
        ({"vision_config": {"tubelet_size": 1, "hidden_size": 32}}, r"encoder_hidden_size 16 must equal"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(make_vlm, changes, complaint):
    with pytest.raises(TpoError, match=complaint):
        make_vlm(**changes)


@torch.no_grad()
def test_visual_tokens_take_the_places_of_the_placeholder_in_order(vlm):
    seen = []
    vlm.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    pixels = clips(2)
    vlm(ids([5, *CLIP, 7], [*CLIP, 8, 9]), pixel_values_videos=pixels)
    tokens = vlm.get_video_features(pixels).pooler_output
    table = vlm.get_input_embeddings().weight
    expected = torch.stack(
        [torch.cat([table[[5]], tokens[0], table[[7]]]), torch.cat([tokens[1], table[[8]], table[[9]]])]
    )
    assert torch.equal(seen[0], expected)


@torch.no_grad()
def test_precomputed_features_give_what_pixels_give(vlm):
    prompt, pixels = ids([5, *CLIP, 7]), clips(1)
    features = vlm.get_video_features(pixels)
    assert features.pooler_output.shape == (1, 3, 24)
    assert features.last_hidden_state.shape == (1, 2 * 4, 16)
    again = vlm(prompt, mm_encoder_outputs={"video": features}).logits
    assert torch.equal(again, vlm(prompt, pixel_values_videos=pixels).logits)


@pytest.mark.parametrize(
    ("prompt", "batch"),
    [
        (ids([5, VIDEO, VIDEO, 7]), 1),  # too few
        (ids([5, *CLIP, VIDEO, 7]), 1),  # too many
        (ids([5, *CLIP, 7]), 0),  # no clip
        (ids([5, 6, 7]), 1),  # no place
        (ids([VIDEO, VIDEO, 5, 6], [*CLIP, VIDEO]), 2),  # the right number, in wrong rows
    ],
)
def test_places_and_visual_tokens_must_be_as_many(vlm, prompt, batch):
    with pytest.raises(TpoError, match=r"visual placeholders for \d+ visual tokens: give each clip 3 times id 65536"):
        vlm(prompt, pixel_values_videos=clips(batch) if batch else None)


def test_ambiguous_input_is_refused(vlm):
    embeds, features = torch.zeros(1, 3, 24), {"video": vlm.get_video_features(clips(1))}
    for arguments in (
        {},
        {"input_ids": ids([1]), "inputs_embeds": embeds},
        {"inputs_embeds": embeds, "pixel_values_videos": clips(1)},
        {"input_ids": ids(CLIP), "pixel_values_videos": clips(1), "mm_encoder_outputs": features},
    ):
        with pytest.raises(ValueError, match=r"give|visual input"):
            vlm(**arguments)


def vector_hook(vector: nn.Parameter, token: int):
    """What the task tokens do: a row of the embedding's output becomes a vector."""
    return lambda module, args, output: torch.where((args[0] == token)[..., None], vector, output)


@pytest.mark.parametrize("detach", [True, False])
def test_vectors_of_a_later_hook_keep_their_gradient_when_the_table_has_none(make_vlm, detach):
    vlm = make_vlm(detach_input_embeddings=detach)
    vector = nn.Parameter(torch.randn(24))
    vlm.get_input_embeddings().register_forward_hook(vector_hook(vector, 9))
    vlm(ids([5, *CLIP, 9, 7]), pixel_values_videos=clips(1), labels=ids([5, 6, 6, 6, 7, 8])).loss.backward()
    assert vector.grad.abs().sum() > 0
    assert (vlm.get_input_embeddings().weight.grad is None) == detach
    assert vlm.model.query_tokens.grad.abs().sum() > 0


def test_a_grown_vocabulary_keeps_the_cut_and_the_hooks(vlm):
    vector = nn.Parameter(torch.randn(24))
    vlm.get_input_embeddings().register_forward_hook(vector_hook(vector, 63))
    vlm.resize_token_embeddings(64, mean_resizing=False)
    assert vlm.lm_head.out_features == vlm.config.text_config.vocab_size == 64
    vlm(ids([5, 63, 7]), labels=ids([5, 62, 7])).loss.backward()
    assert vector.grad.abs().sum() > 0
    assert vlm.get_input_embeddings().weight.grad is None


@torch.no_grad()
def test_a_left_padded_batch_of_clips_and_images_equals_each_row_alone(vlm):
    pixels = torch.cat([clips(1, 5, 1), clips(1, 5, 2)])
    frames = torch.tensor([[True] * 5, [True] + [False] * 4])
    prompt = ids([0, 0, *CLIP, 7, 8], [5, 6, *CLIP, 7, 9])
    mask = (prompt != 0).long()
    together = vlm(prompt, attention_mask=mask, pixel_values_videos=pixels, frame_mask=frames).logits
    clip = vlm(prompt[:1, 2:], pixel_values_videos=pixels[:1]).logits
    image = vlm(prompt[1:], pixel_values_videos=pixels[1:, :1]).logits
    torch.testing.assert_close(together[:1, 2:], clip, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[1:], image, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_generation_with_a_cache_equals_whole_forwards(vlm):
    prompt, mask, pixels = ids([0, 5, *CLIP, 7], [4, *CLIP, 8, 9]), None, clips(2)
    mask = (prompt != 0).long()
    written = vlm.generate(
        prompt, attention_mask=mask, pixel_values_videos=pixels, generation_config=greedy_settings(6)
    )
    for _ in range(6):
        choice = vlm(prompt, attention_mask=mask, pixel_values_videos=pixels).logits[:, -1].argmax(-1, keepdim=True)
        prompt, mask = torch.cat([prompt, choice], 1), torch.cat([mask, torch.ones_like(choice)], 1)
    assert torch.equal(written, prompt)
    assert len({tuple(row) for row in written[:, -6:].tolist()}) == 2


@torch.no_grad()
def test_generation_takes_features_and_several_beams(vlm):
    prompt, pixels = ids([5, *CLIP, 7]), clips(1)
    features = {"video": vlm.get_video_features(pixels)}
    settings = greedy_settings(4)
    by_pixels = vlm.generate(prompt, pixel_values_videos=pixels, generation_config=settings)
    assert torch.equal(vlm.generate(prompt, mm_encoder_outputs=features, generation_config=settings), by_pixels)
    settings.num_beams = 3
    assert vlm.generate(prompt, pixel_values_videos=pixels, generation_config=settings).shape == (1, 9)


@torch.no_grad()
def test_only_the_asked_logits_are_made(vlm):
    prompt, pixels = ids([5, *CLIP, 7, 8]), clips(1)
    whole = vlm(prompt, pixel_values_videos=pixels).logits
    last = vlm(prompt, pixel_values_videos=pixels, logits_to_keep=2).logits
    torch.testing.assert_close(last, whole[:, -2:])
    some = vlm(prompt, pixel_values_videos=pixels, logits_to_keep=torch.tensor([0, 4])).logits
    torch.testing.assert_close(some, whole[:, [0, 4]])


@torch.no_grad()
def test_a_saved_model_loads_to_the_same_bits_by_the_auto_classes(vlm, tmp_path):
    vlm.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (type(config), config.video_token_id) == (VideoChat2Config, VIDEO)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    with no_init_weights():
        bare = VideoChat2ForConditionalGeneration(config).eval()
    bare.load_state_dict(loaded.state_dict())
    prompt, pixels = ids([5, *CLIP, 7]), clips(1, 3)
    for other in (loaded, bare):
        assert all(torch.equal(p, q) for p, q in zip(vlm.parameters(), other.parameters(), strict=True))
        assert torch.equal(vlm(prompt, pixel_values_videos=pixels).logits, other(prompt, pixel_values_videos=pixels)[0])


def test_bf16_and_activation_checkpointing_leave_the_loss_and_gradients_in_place(vlm):
    prompt, labels, pixels = ids([5, *CLIP, 7, 8]), ids([-100] * 4 + [7, 8]), clips(1, 3)
    plain = vlm(prompt, pixel_values_videos=pixels, labels=labels).loss
    (gradient,) = torch.autograd.grad(plain, [vlm.model.query_tokens])
    vlm.train()
    for module in vlm.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    vlm.model.qformer.config.attention_probs_dropout_prob = 0.0
    for layer in vlm.model.qformer.encoder.layer:
        for attention in (layer.attention, layer.crossattention) if layer.has_cross_attention else (layer.attention,):
            attention.attention.attention_dropout = 0.0
    vlm.gradient_checkpointing_enable({"use_reentrant": False})
    recomputed = vlm(prompt, pixel_values_videos=pixels, labels=labels).loss
    recomputed.backward()
    torch.testing.assert_close(recomputed, plain)
    torch.testing.assert_close(vlm.model.query_tokens.grad, gradient)
    half = vlm.eval().to(torch.bfloat16)(prompt, pixel_values_videos=pixels.bfloat16(), labels=labels).loss
    torch.testing.assert_close(half.float(), plain, atol=0.1, rtol=0.05)


@torch.no_grad()
def test_the_chosen_attention_reaches_every_part_and_changes_nothing(vlm, tmp_path):
    vlm.save_pretrained(tmp_path)
    prompt, pixels, frames = ids([5, *CLIP, 7]), clips(1, 4), torch.tensor([[True, True, True, False]])
    outputs = []
    for choice in ("sdpa", "eager"):
        model = VideoChat2ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation=choice)
        parts = (model.model.vision_tower, model.model.qformer, model.model.language_model)
        assert {part.config._attn_implementation for part in parts} == {choice}
        outputs.append(model(prompt, pixel_values_videos=pixels, frame_mask=frames).logits)
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-4)
