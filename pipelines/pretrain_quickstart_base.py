"""python pipelines/pretrain_quickstart_base.py --output assets/quickstart_base --steps 3600

Pretrains the quick-start base model from nothing on captions and questions of the rendered world, never on boxes,
moments or masks, so that TPO starts from a model that already talks, as in the paper. The model is a small
LLaVA-OneVision (SigLIP + Qwen2) of the Hugging Face classes; afterwards nothing in the platform knows that it is small.

Two losses: next-token cross-entropy on the answers, and, because a language model alone takes very long to start
looking at random visual features, a multi-label one: which words of the caption (colours, nouns, pairs of these, nouns
with places) are shown, read from each visual token by a linear layer and joined by a maximum over tokens. That layer
is thrown away.

The first `--look-steps` train only the second loss, on single frames, at twice the frames a second: naming what is
seen is most of the work. The learning rate rises, stays, and decays over the last fifth. `--blind` trains the control
on black pixels.
The state is saved every 200 steps; the same command continues it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tpo_core.data.quickstart import language
from tpo_core.data.quickstart.draw import render
from tpo_core.data.quickstart.world import COLOURS, GROUNDS, KINDS, N_FRAMES, SIDE_PX, Clip, sample_clip

PATCH_PX = 12
TOKENS_A_FRAME = (SIDE_PX // PATCH_PX // 2) ** 2
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PRETRAIN_SEED, EVAL_SEED = 1_000_000_000, 2_000_000_000  # far from the seeds of the quick-start splits
_WORDS = [
    *(*KINDS, *COLOURS, *GROUNDS, "glows"),
    *(f"{colour} {kind}" for colour in COLOURS for kind in KINDS),
    *(f"{kind} {place}" for kind in KINDS for place in language.PLACES),  # without these the projector forgets places
]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of about a thousand pieces in which the words of the world are whole."""
    rng = np.random.default_rng(0)
    lines = []
    for seed in range(3000):
        clip = sample_clip("t", PRETRAIN_SEED + seed)
        lines.append(language.caption(clip, rng))
        lines += [f"{q.text}\n{q.answer}" for q in language.questions(clip, rng)]
    words = language.vocabulary()
    lines += [f"{word} {word}s the {word}\n{word}" for word in words] * 20
    lines += [*language.CAPTION_REQUESTS, "user\n", "assistant\n", "system\n"] * 50
    lines += [_REQUEST_WORDS] * 50
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens=["<|im_start|>", "<image>", "<video>"],
    )


# Words of the task requests, so that later stages do not spell them letter by letter; no box or moment is behind them.
_REQUEST_WORDS = (
    "Where is the Can you find detect locate Please show track segment mask outline follow object moment video clip "
    "when does happen happens happening query given in seconds start and end time times of this that moves to "
    "left right Answer: . , ? ' trajectory motion path give generate visual representation person box at which part "
    "frame who what"
)


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionForConditionalGeneration:
    """About 4.4 M parameters: SigLIP 5 x 192, Qwen2 4 x 192, the vocabulary padded to a multiple of 64."""
    ids = tokenizer.convert_tokens_to_ids
    vision = SiglipVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=6,
        image_size=SIDE_PX, patch_size=PATCH_PX, vision_use_head=False,
    )  # fmt: skip
    text = Qwen2Config(
        hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2,
        vocab_size=-(-len(tokenizer) // 64) * 64, max_position_embeddings=1024, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"),
    )  # fmt: skip
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_token_index=ids("<image>"), video_token_index=ids("<video>"),
        vision_feature_layer=-1, vision_feature_select_strategy="full", image_grid_pinpoints=[[SIDE_PX, SIDE_PX]],
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(config)
    place_patches(model.model.vision_tower.embeddings.position_embedding.weight)
    return model


@torch.no_grad()
def place_patches(weight_NC: torch.Tensor) -> None:
    """Starts the learned patch positions as 2-d sinusoids, so that neighbours are alike from the first step on.

    At amplitude 1.5: at 0.3 a linear probe found no place (R2 0.03) in the visual tokens of a model that names what it
    sees, and no question about places was learned.
    """
    side, quarter = SIDE_PX // PATCH_PX, weight_NC.shape[1] // 4
    rate = 1.0 / side ** (torch.arange(quarter) / quarter)
    angles = torch.arange(side)[:, None] * rate
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    weight_NC.copy_(1.5 * torch.cat([rows, columns], 2).flatten(0, 1))


@dataclass
class Pool:
    """Rendered clips kept in memory: frames uint8 (clips, T, H, W, 3)."""

    clips: list[Clip]
    frames: np.ndarray


def build_pool(seed: int, count: int) -> Pool:
    clips = [sample_clip(f"{seed + i}", seed + i) for i in range(count)]
    frames = np.empty((count, N_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)
    with ProcessPoolExecutor(2) as pool:
        for i, rendered in enumerate(pool.map(_render_frames, clips, chunksize=50)):
            frames[i] = rendered
    return Pool(clips, frames)


def _render_frames(clip: Clip) -> np.ndarray:
    return render(clip)[0]


class Encoder:
    """Turns conversations into ids and labels, as the tokenizer's chat template does, with `<video>` repeated."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
        self.encode = encode
        self.user, self.assistant = encode("<|im_start|>user\n"), encode("<|im_start|>assistant\n")
        self.end, self.newline = encode("<|im_end|>"), encode("\n")
        self.video, self.pad = tokenizer.convert_tokens_to_ids("<video>"), tokenizer.pad_token_id

    def conversation(self, pairs: list[tuple[str, str]], n_visual: int) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        labels: list[int] = []
        for number, (question, answer) in enumerate(pairs):
            visual = [self.video] * n_visual + self.newline if number == 0 else []
            prompt = self.user + visual + self.encode(question) + self.end + self.newline + self.assistant
            spoken = self.encode(answer) + self.end
            ids += prompt + spoken + self.newline
            labels += [-100] * len(prompt) + spoken + [-100]
        return ids, labels

    def batch(self, conversations: list[list[tuple[str, str]]], n_visual: int) -> dict[str, torch.Tensor]:
        rows = [self.conversation(pairs, n_visual) for pairs in conversations]
        length = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), length), self.pad)
        labels = torch.full((len(rows), length), -100)
        for i, (row, target) in enumerate(rows):
            ids[i, : len(row)], labels[i, : len(row)] = torch.tensor(row), torch.tensor(target)
        mask = (torch.arange(length) < torch.tensor([[len(ids)] for ids, _ in rows])).long()
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def make_batch(
    pool: Pool, encoder: Encoder, rng: np.random.Generator, *, size: int, whole_clips: bool, blind: bool
) -> dict:
    """`size` conversations on whole clips or on single frames; a third are captions, the rest up to three questions."""
    chosen = rng.integers(len(pool.clips), size=size)
    times = [None if whole_clips else int(t) for t in rng.integers(N_FRAMES, size=size)]
    frames = np.stack(
        [pool.frames[c] if t is None else pool.frames[c, t : t + 1] for c, t in zip(chosen, times, strict=True)]
    )
    conversations, words = [], np.zeros((size, len(_WORDS)), np.float32)
    for row, (c, t) in enumerate(zip(chosen, times, strict=True)):
        said = language.caption(pool.clips[c], rng, t=t)
        words[row] = [word in said.lower() for word in _WORDS]
        if rng.random() < 0.3:
            conversations.append([(str(rng.choice(language.CAPTION_REQUESTS)), said)])
            continue
        asked = language.questions(pool.clips[c], rng, t=t)
        picked = rng.permutation(len(asked))[:3]
        conversations.append([(asked[i].text, asked[i].answer) for i in picked])
    batch = encoder.batch(conversations, TOKENS_A_FRAME * frames.shape[1] + 1)
    return {**batch, "pixel_values_videos": _pixels(frames, blind), "words": torch.from_numpy(words)}


def _pixels(frames: np.ndarray, blind: bool) -> torch.Tensor:
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
    return torch.zeros_like(pixels) if blind else pixels


class Pretrainer(nn.Module):
    """The model with its throw-away word layer."""

    def __init__(self, model: LlavaOnevisionForConditionalGeneration):
        super().__init__()
        self.model = model
        self.words = nn.Linear(model.config.text_config.hidden_size, len(_WORDS))
        nn.init.constant_(self.words.bias, -4.0)
        self._visual: torch.Tensor | None = None
        model.model.multi_modal_projector.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        self._visual = output

    def forward(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values_videos")}
        hidden = self.model.model(**inputs).last_hidden_state
        keep = batch["labels"][:, 1:] != -100
        logits = self.model.lm_head(hidden[:, :-1][keep])
        lm = F.cross_entropy(logits.float(), batch["labels"][:, 1:][keep])
        return lm, self._seen(self._visual, batch["words"])

    def look(self, batch: dict) -> torch.Tensor:
        """The word loss alone, without the language model."""
        tower = self.model.model.vision_tower(batch["pixel_values_videos"].flatten(0, 1), output_hidden_states=True)
        return self._seen(self.model.model.multi_modal_projector(tower.hidden_states[-1]), batch["words"])

    def _seen(self, visual: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        pooled = self.model.model.apply_pooling(visual)
        scores = self.words(pooled).reshape(len(words), -1, len(_WORDS)).amax(1)
        return F.binary_cross_entropy_with_logits(scores.float(), words) * len(_WORDS) / 10


@torch.no_grad()
def question_accuracy(model: nn.Module, pool: Pool, encoder: Encoder, *, blind: bool) -> dict[str, float]:
    """Share of questions on whole clips answered exactly: every token of the answer is the arg-max (so greedy)."""
    rng = np.random.default_rng(7)
    hits: dict[str, list[bool]] = {}
    model.eval()
    for start in range(0, len(pool.clips), 8):
        asked, rows = [], []
        for c in range(start, min(start + 8, len(pool.clips))):
            found = language.questions(pool.clips[c], rng)
            picked = rng.permutation(len(found))[:3]
            asked += [found[i] for i in picked]
            rows += [c] * len(picked)
        batch = encoder.batch([[(q.text, q.answer)] for q in asked], TOKENS_A_FRAME * N_FRAMES + 1)
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        out = model(**inputs, pixel_values_videos=_pixels(pool.frames[rows], blind)).logits[:, :-1].argmax(-1)
        target = batch["labels"][:, 1:]
        right = ((out == target) | (target == -100)).all(1).tolist()
        for question, hit in zip(asked, right, strict=True):
            hits.setdefault(question.kind, []).append(hit)
    model.train()
    scores = {kind: float(np.mean(h)) for kind, h in sorted(hits.items())}
    return {"all": float(np.mean([x for h in hits.values() for x in h])), **scores}


def rate_at(step: int, steps: int, peak: float) -> float:
    """Rises over 200 steps (at most a tenth), stays, falls linearly to a fiftieth over the last fifth."""
    decay = max((step - 0.8 * steps) / (0.2 * steps), 0.0)
    return peak * min((step + 1) / min(200, steps / 10), 1.0) * (1.0 - 0.98 * min(decay, 1.0))


def train(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, state_path: Path) -> Pretrainer:
    model = build_model(tokenizer)
    if args.init is not None:
        weights = load_file(args.init / "model.safetensors")
        model.load_state_dict({name: value.float() for name, value in weights.items()})
        with torch.no_grad():
            model.model.vision_tower.embeddings.position_embedding.weight.mul_(args.position_scale)
    trainer = Pretrainer(model)
    encoder = Encoder(tokenizer)
    optimizer = torch.optim.AdamW(trainer.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.05)
    first = 0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        trainer.load_state_dict(state["trainer"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    pool = build_pool(args.seed, args.clips)
    probe = build_pool(EVAL_SEED, 64)
    print(
        f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.2f} M parameters, {args.clips} clips", flush=True
    )
    began = time.monotonic()
    for step in range(first, args.steps):
        rng = np.random.default_rng([step, 11])
        looking = step < args.look_steps and not args.blind
        whole = not args.blind and step % 2 == 1 and step >= args.frames_only
        size = 96 if looking else 16 if whole else 64
        batch = make_batch(pool, encoder, rng, size=size, whole_clips=whole, blind=args.blind)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, args.steps, args.lr)
        with torch.autocast("cpu", torch.bfloat16):
            lm, seen = (torch.zeros(()), trainer.look(batch)) if looking else trainer(batch)
        (lm + (0.0 if args.blind else seen)).backward()
        nn.utils.clip_grad_norm_(trainer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 25 == 0:
            eta_min = (time.monotonic() - began) / (step + 1 - first) * (args.steps - step - 1) / 60
            print(f"step {step + 1}/{args.steps}  lm {lm:.3f}  words {seen:.3f}  eta {eta_min:.0f} min", flush=True)
        if (step + 1) % 200 == 0 or step + 1 == args.steps:
            saved = {"trainer": trainer.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(saved, state_path.with_suffix(".tmp"))
            state_path.with_suffix(".tmp").rename(state_path)
            print(json.dumps(question_accuracy(trainer.model, probe, encoder, blind=args.blind)), flush=True)
    return trainer


def save(trainer: Pretrainer, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Hugging Face layout; weights as float16 (half the size; loaded as float32)."""
    output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(output)
    trainer.model.config.save_pretrained(output)
    weights = {k: v.half().contiguous() for k, v in trainer.model.state_dict().items()}
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
    processor = {"image_size": SIDE_PX, "image_mean": MEAN, "image_std": STD, "n_frames": N_FRAMES}
    (output / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory of the finished model")
    parser.add_argument("--init", type=Path, help="finished model to continue from, with a fresh optimizer")
    parser.add_argument("--position-scale", type=float, default=1.0, help="factor on the patch positions of --init")
    parser.add_argument("--seed", type=int, default=PRETRAIN_SEED, help="seed of the first training clip")
    parser.add_argument("--state", type=Path, default=Path("runs/pretrain_quickstart_base.pt"), help="training state")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--look-steps", type=int, default=1200, help="steps on the word loss alone")
    parser.add_argument("--frames-only", type=int, default=1600, help="steps on single frames before clips join")
    parser.add_argument("--clips", type=int, default=8000, help="rendered clips kept in memory (330 kB each)")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--blind", action="store_true", help="black pixels: the control")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.state.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer() if args.init is None else PreTrainedTokenizerFast.from_pretrained(args.init)
    trainer = train(args, tokenizer, args.state)
    save(trainer, tokenizer, args.output)
    scores = question_accuracy(trainer.model, build_pool(EVAL_SEED, 400), Encoder(tokenizer), blind=args.blind)
    summary = {
        "steps": args.steps,
        "clips": args.clips,
        "seed": args.seed,
        "blind": args.blind,
        "qa_accuracy": scores,
    }
    (args.output / "pretraining.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
