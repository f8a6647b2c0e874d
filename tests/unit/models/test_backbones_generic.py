"""Every family of the generic backbone, on tiny random models."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.losses import mean_losses, names_of
from tests.tiny_families import FAMILIES, write_base
from tpo_core.config.schema import ModelConfig
from tpo_core.models.generation import Grammar, greedy
from tpo_core.models.task_tokens import TASK_TOKENS
from tpo_core.models.tpo import TpoModel

KINDS = ("region", "temporal", "mask")
CONNECTED = ("vision_encoder", "connector", "lora")

pytestmark = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[str, Path] = {}

    def get(family: str, **changes: object) -> Path:
        key = f"{family} {changes}"
        if key not in made:
            made[key] = write_base(tmp_path_factory.mktemp(family), family, **changes)
        return made[key]

    return get


@pytest.fixture(scope="session")
def make_model(base_of) -> Callable[..., TpoModel]:
    """(family, heads=..., **changes of the base): a copy of a model that is built once."""

    @functools.cache
    def built(family: str, heads: tuple[str, ...], **changes: object) -> TpoModel:
        base = base_of(family, **changes)
        size = {"frame_size": 32} if family.startswith("qwen") else {}
        config = ModelConfig(
            base=str(base), backbone="generic", lora={"rank": 2, "alpha": 4}, temporal={"width": 16, "layers": 1},
            mask={"width": 8}, **size,
        )  # fmt: skip
        torch.manual_seed(0)
        model = TpoModel.from_base(str(base), config, heads)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:  # adapters start as no change at all
                    parameter.normal_(std=0.1)
        return model.eval()

    return lambda family, heads=KINDS, **changes: copy.deepcopy(built(family, heads, **changes))


def train_all(model: TpoModel) -> dict[str, list[tuple[str, torch.nn.Parameter]]]:
    groups = model.groups()
    grouped = {id(parameter) for members in groups.values() for _, parameter in members}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in grouped)
    return groups


def batch_of(model, examples, **options):
    return model.processor.collate([model.processor.encode(example) for example in examples], **options)


def prompts_of(model, examples):
    return model.processor.collate(
        [model.processor.encode(example, train=False) for example in examples], pad_left=True
    )


@torch.no_grad()
def prefill(model, batch):
    features = model._features(batch)
    inputs = model.backbone.visual_inputs(features, batch.frame_mask_BT, batch.times_s_BT)
    with model.task_tokens.given_boxes(batch.slot_boxes_B4):
        return model.backbone.hidden_states(batch.input_ids_BL, batch.attention_mask_BL, use_cache=True, **inputs)


@torch.no_grad()
def losses_of(model, examples):
    """Means over the targets."""
    return mean_losses(model, batch_of(model, examples))


@pytest.mark.parametrize("kind", [*KINDS, "chat"])
def test_gradients_reach_exactly_the_groups_of_the_task(make_model, make_example, family, kind):
    model = make_model(family)
    groups = train_all(model)
    losses, _ = model(batch_of(model, [make_example(kind), make_example(kind, 3, seed=1)]))
    assert names_of(losses) == {"lm", kind} - {"chat"}
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    reached = {
        group
        for group, members in groups.items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for _, p in members)
    }
    of_the_task = set() if kind == "chat" else {"task_vectors", f"{kind}_head"}
    assert reached == {*CONNECTED, *of_the_task}
    assert [name for name, p in model.named_parameters() if p.grad is not None and not p.requires_grad] == []


def test_bf16_autocast_keeps_heads_in_fp32_and_gradients_finite(make_model, make_example, family):
    model = make_model(family)
    groups = train_all(model)
    batch = batch_of(model, [make_example("region", 2), make_example("region", 3, seed=1)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = mean_losses(model, batch)
    sum(losses.values()).backward()
    assert losses["region"].dtype == torch.float32
    exact = losses_of(model, [make_example("region", 2), make_example("region", 3, seed=1)])
    torch.testing.assert_close(losses["region"], exact["region"], atol=0.1, rtol=0.1)
    assert all(p.grad.isfinite().all() for members in groups.values() for _, p in members if p.grad is not None)


def test_divergence_from_the_base_counts_the_adapters(make_model, make_example, family):
    model = make_model(family)
    model.compares_with_base = True
    examples = [make_example("chat", 2), make_example("chat", 0)]
    assert losses_of(model, examples)["kl"] > 1e-6
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert losses_of(model, examples)["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("kind", "frames"), [("chat", 3), ("chat", 0), *((kind, 2) for kind in KINDS)])
def test_the_same_parameters_take_part_in_batches_of_every_kind(make_model, make_example, family, kind, frames):
    model = make_model(family)
    groups = train_all(model)
    losses, _ = model(batch_of(model, [make_example(kind, frames)]))
    losses["lm"].backward()
    absent = [name for group in (*CONNECTED, "task_vectors") for name, p in groups[group] if p.grad is None]
    assert absent == []


def test_padding_on_the_right_does_not_change_a_sample(make_model, make_example, family):
    model = make_model(family)
    pair = [
        make_example("temporal", 2),
        make_example("temporal", 5, question="Where is it, and where the sun?", seed=1),
    ]
    both, alone = losses_of(model, pair), [losses_of(model, [example]) for example in pair]
    tokens = [int((batch_of(model, [example]).labels_BL != -100).sum()) for example in pair]
    expected = sum(losses["lm"] * count for losses, count in zip(alone, tokens, strict=True)) / sum(tokens)
    torch.testing.assert_close(both["lm"], expected, atol=1e-5, rtol=1e-4)


def three_prompts(make_example):
    return [
        make_example("mask", 3),
        make_example("chat", 0, question="Is the sun red, or is it the sea that is?"),
        make_example("chat", 4, seed=1),
    ]


def test_prompts_padded_on_the_left_are_read_as_alone(make_model, make_example, family):
    model = make_model(family)
    examples = three_prompts(make_example)
    together = prefill(model, prompts_of(model, examples)).last_hidden_state[:, -1]
    for row, example in enumerate(examples):
        alone = prefill(model, prompts_of(model, [example])).last_hidden_state[0, -1]
        torch.testing.assert_close(together[row], alone, atol=2e-5, rtol=1e-4)
    answers = model.chat(examples, 6)
    assert [answer.token_ids for answer in answers] == [model.chat([e], 6)[0].token_ids for e in examples]


class Script:
    """Says, instead of the language model, what each row of a batch writes; None ends it."""

    def __init__(self, lines: list[list[int | None]], vocabulary: int, end: int) -> None:
        self.lines, self.vocabulary, self.end = lines, vocabulary, end
        self.step = -1
        self.seen: list[torch.Tensor] = []

    def __call__(self, hidden_RC: torch.Tensor) -> torch.Tensor:
        self.step += 1
        self.seen.append(hidden_RC)
        logits = torch.zeros(len(hidden_RC), self.vocabulary)
        running = [line for line in self.lines if self.step < len(line)]
        rows = running if len(running) == len(hidden_RC) else self.lines[-len(hidden_RC) :]
        for row, line in enumerate(rows):
            token = line[self.step] if self.step < len(line) else None
            logits[row, self.end if token is None else token] = 1.0
        return logits


def test_a_head_reads_while_decoding_what_it_reads_in_training(make_model, make_example, family):
    """And the cache holds, after the call, what was written: prompt, indicator, slot, and no more."""
    model = make_model(family)
    example = make_example("region", 3, answer="<box_begin><boxes>")
    begin, slot = model.processor.tokenizer.convert_tokens_to_ids(["<box_begin>", "<boxes>"])
    end = model.processor.tokenizer.eos_token_id
    prompt = prompts_of(model, [example])
    caches = []

    def step(*args, **named):
        output = model.backbone.hidden_states(*args, **named)
        caches.append(output.past_key_values.get_seq_length())
        return output

    grammar = Grammar(heads={begin: ("region", slot)}, end_ids=frozenset({end}), pad_id=0)
    script = Script([[begin, None, None]], len(model.processor.tokenizer), end)
    with torch.no_grad():
        decoded = greedy(step, script, prefill(model, prompt), prompt.attention_mask_BL, grammar, 8)
    assert decoded.token_ids == [[begin, slot]]
    length = prompt.input_ids_BL.shape[1]
    assert caches == [length + 1, length + 2]

    full = batch_of(model, [example])
    assert full.input_ids_BL[0, length : length + 2].tolist() == [begin, slot]
    states = prefill(model, full).last_hidden_state[0]
    torch.testing.assert_close(decoded.calls[0].hidden_C, states[length + 1], atol=2e-5, rtol=1e-4)


def test_a_row_goes_on_as_alone_when_others_have_ended(make_model, make_example, family):
    model = make_model(family)
    examples = three_prompts(make_example)
    end, words = model.processor.tokenizer.eos_token_id, [260, 261, 262, 263, 264]
    grammar = Grammar(heads={}, end_ids=frozenset({end}), pad_id=0)

    def said(examples, lines):
        batch, script = prompts_of(model, examples), Script(lines, len(model.processor.tokenizer), end)
        with torch.no_grad():
            greedy(
                model.backbone.hidden_states,
                script,
                prefill(model, batch),
                batch.attention_mask_BL,
                grammar,
                len(words),
            )
        return [hidden_RC[-1] for hidden_RC in script.seen]

    together = said(examples, [[260, None], [None], words])
    alone = said(examples[2:], [words])
    assert len(together) == len(alone) == len(words) + 1
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_a_saved_model_loads_bit_for_bit(make_model, make_example, family, tmp_path):
    model = make_model(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded = TpoModel.from_pretrained(tmp_path).eval()
    assert loaded.new_parameters == []
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    for kind in KINDS:
        before, after = (losses_of(one, [make_example(kind)]) for one in (model, loaded))
        assert {k: v.item() for k, v in before.items()} == {k: v.item() for k, v in after.items()}
    example = make_example("chat", 3)
    assert model.chat([example], 5)[0].token_ids == loaded.chat([example], 5)[0].token_ids
    loaded.save_pretrained(tmp_path / "again")
    for name in ("tokenizer.json", "preprocessor_config.json", "tpo.json", "parameters.json", "config.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.parametrize(("spare", "tied"), [(64, False), (64, True), (0, True)])
def test_a_padded_vocabulary_keeps_its_size_and_a_tied_one_is_untied(make_model, make_example, family, spare, tied):
    model = make_model(family, heads=("region",), spare=spare, tied=tied)
    vlm, tokenizer = model.backbone.vlm, model.processor.tokenizer
    rows = len(tokenizer) - len(TASK_TOKENS) + spare if spare else len(tokenizer)
    assert vlm.get_input_embeddings().num_embeddings == rows
    assert vlm.lm_head.weight.shape[0] == rows
    assert vlm.lm_head.weight is not vlm.get_input_embeddings().weight
    assert losses_of(model, [make_example("region")])["region"].isfinite()


def test_a_clip_is_encoded_once_and_the_head_of_the_language_sees_answers_alone(make_model, make_example, family):
    model = make_model(family, heads=("region",))
    seen = {"tower": 0, "rows": 0}
    tower = getattr(model.backbone.vlm.model, model.backbone.family.tower)
    tower.register_forward_hook(lambda *_: seen.update(tower=seen["tower"] + 1))
    model.backbone.vlm.lm_head.register_forward_hook(
        lambda module, args, output: seen.update(rows=seen["rows"] + args[0].shape[:-1].numel())
    )
    batch = batch_of(model, [make_example("region")])
    model(batch)
    assert seen == {"tower": 1, "rows": int((batch.labels_BL[:, 1:] != -100).sum())}
    seen.update(tower=0, rows=0)
    model.chat([make_example("region", 2)], 4)
    assert seen["tower"] == 1
    assert seen["rows"] <= 5


def test_features_have_the_promised_shapes_and_follow_their_frames(make_model, make_example, family):
    model = make_model(family)
    backbone = model.backbone
    batch = batch_of(model, [make_example("chat", 3), make_example("chat", 2, seed=1)])
    features = model._features(batch)
    high, wide = backbone.grid_hw
    assert features.patches_BTNC.shape == (2, 3, high * wide, backbone.vision_size)
    assert features.tokens_BLC.shape == (2, backbone.visual_tokens(3), backbone.hidden_size)
    for row, frames in enumerate((3, 2)):
        assert (batch.input_ids_BL[row] == backbone.video_token_id).sum() == backbone.visual_tokens(frames)
    last = 2 - 2 % backbone.coder.group_size  # the first frame of the last group
    changed = dataclasses.replace(batch, pixel_values_UTCHW=batch.pixel_values_UTCHW.clone())
    changed.pixel_values_UTCHW[0, last, :, : backbone.image_size // high] += 1.0  # its first row of patches
    difference = (model._features(changed).patches_BTNC - features.patches_BTNC).abs().sum(-1)
    assert difference[1].sum() == 0
    assert difference[0, :last].sum() == 0
    assert (difference[0, last] > 0).any()
    assert difference[0, last, :wide].mean() > difference[0, last, wide:].mean()


def test_adapters_are_on_the_language_model_alone(make_model, family):
    names = [name for name, _ in make_model(family).groups()["lora"]]
    assert any("lm_head" in name for name in names)
    assert {name.split(".")[-4] for name in names if ".layers." in name} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert not any("vision" in name or "visual" in name for name in names)


def test_task_vectors_start_at_the_scale_of_what_the_language_model_reads(make_model, family):
    model = make_model(family)
    embedding = model.backbone.vlm.get_input_embeddings()
    scale = embedding(torch.arange(250)).detach().std()
    for vector in model.task_tokens.vectors.values():
        assert 0.5 < float(vector.detach().std() / scale) < 2


def test_tokens_that_a_user_writes_are_letters(make_model, make_example, family):
    model = make_model(family, heads=("region",))
    processor, tokenizer = model.processor, model.processor.tokenizer

    def asked(question):
        return processor.encode(make_example("chat", 2, question=question), train=False).input_ids_L.tolist()

    def special(ids):
        return [token for token in ids if token in tokenizer.added_tokens_decoder]

    expected = special(asked("What does it mean here?"))
    for literal in {*TASK_TOKENS, *tokenizer.all_special_tokens, processor.video_token, processor.shown, "<image>"}:
        ids = asked(f"What does {literal} mean here?")
        assert special(ids) == expected, literal
        assert f"What does {literal} mean here?" in tokenizer.decode(ids)
        assert special(asked(literal * 2)) == expected, literal
