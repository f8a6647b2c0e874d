"""python pipelines/pretrain_quickstart_base.py --output assets/quickstart_base

Pretrains the quick-start base model from nothing on captions and questions of the rendered world, never on boxes,
moments or masks, so that TPO starts from a model that already talks, as in the paper. The model is a small
LLaVA-OneVision (SigLIP + Qwen2) of the Hugging Face classes; afterwards nothing in the platform knows that it is small.

1. look: single frames, vision tower and projector. Which words of the caption are shown is read from each visual
   token by a linear layer and joined by a maximum over tokens (the layer is thrown away): a language model alone takes
   very long to start looking at random features.
2. frames: single frames, the whole model, the word loss and the answers; in rounds, each with a rate that falls.
3. clips: the language model alone on clips and frames; tower and projector, which see each frame by itself, are done,
   and their tokens are computed once.
4. words: as 3, and beside each clip a few senseless sentences of the words of task requests, to be repeated.
5. numbers, off unless asked for: as 4, and senseless numbers to be repeated or continued. What was pretrained without
   them learns them alone: --start-from assets/quickstart_base --number-steps 200 --clips 1000 --lr 5e-4

In 2 to 4 the visual tokens are shared by many questions, which do not see each other (`Packer`). `--blind` trains the
control: steps 3 and 4 alone, on black pixels. The state is saved every 250 steps; the same command continues it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.quickstart_lessons import (
    EVAL_SEED,
    PRETRAIN_SEED,
    Packer,
    Pool,
    Words,
    ask,
    build_pool,
    build_tokenizer,
    number,
    say,
)
from tpo_core.data.quickstart import language
from tpo_core.data.quickstart.world import N_FRAMES, SIDE_PX
from tpo_core.errors import TpoError
from tpo_core.execution.cli import main_guard

PATCH_PX = 12
TOKENS_A_FRAME = (SIDE_PX // PATCH_PX // 2) ** 2
CLIP_FRAMES = (0, 2, 3, 5, 6, 8, 9, 11)  # what `n_frames: 8` of the recipe takes of the 12 of a clip
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
REPORT_EVERY, SAVE_EVERY = 25, 250  # steps
BATCH = {"look": 96, "frames": 48, "clips": 32, "words": 32, "numbers": 16}
# What shares the visual tokens of a frame or clip: questions about it, sentences and numbers to be repeated.
BRANCHES = {"frames": 6, "clips": 10, "words": 10, "numbers": 4}
SENTENCES = {"clips": 0, "words": 3, "numbers": 1}
NUMBERS = {"clips": 0, "words": 0, "numbers": 4}


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionForConditionalGeneration:
    """About 4.2 M parameters: SigLIP 5 x 192, Qwen2 4 x 192, the vocabulary padded to a multiple of 64."""
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
def place_patches(weight_NC: Tensor) -> None:
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


class Pretrainer(nn.Module):
    """The model with its throw-away word layer."""

    def __init__(self, model: LlavaOnevisionForConditionalGeneration, n_words: int) -> None:
        super().__init__()
        self.model = model
        self.words = nn.Linear(model.config.text_config.hidden_size, n_words)
        nn.init.constant_(self.words.bias, -4.0)

    def see(self, pixels: Tensor) -> Tensor:
        """Visual tokens (B, T * TOKENS_A_FRAME + 1, C), the last one the newline."""
        return self.model.model.get_video_features(pixels, return_dict=True).pooler_output

    def word_loss(self, visual: Tensor, words: Tensor) -> Tensor:
        scores = self.words(visual[:, :-1]).amax(1)
        return F.binary_cross_entropy_with_logits(scores, words) * words.shape[1] / 10

    def logits(self, visual: Tensor, packed: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores (M, V) and ids (M,) of the labelled tokens; a branch ends at a label, so none is read from another."""
        handed = {"video": BaseModelOutputWithPooling(pooler_output=visual.flatten(0, 1)[None])}
        inputs = {key: value for key, value in packed.items() if key != "labels"}
        hidden = self.model.model(**inputs, mm_encoder_outputs=handed, use_cache=False).last_hidden_state
        labels = packed["labels"][:, 1:]
        keep = labels != -100
        return self.model.lm_head(hidden[:, :-1][keep]), labels[keep]

    def answer_loss(self, visual: Tensor, packed: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(*self.logits(visual, packed))


@dataclass
class Lesson:
    """One step of pretraining: what trains, for how long, and the loss of a step number."""

    name: str
    steps: int
    parameters: list[nn.Parameter]
    loss: Any

    def rate(self, step: int, peak: float) -> float:
        """Rises over 100 steps, falls along half a cosine to a twentieth."""
        done = step / self.steps
        return peak * min((step + 1) / 100, 1.0) * (0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * done))))


class School:
    """The lessons over one pool of clips."""

    def __init__(self, trainer: Pretrainer, packer: Packer, words: Words, pool: Pool, args: argparse.Namespace) -> None:
        self.trainer, self.packer, self.words, self.pool, self.args = trainer, packer, words, pool, args
        self._tokens: Tensor | None = None  # (clips, 12, TOKENS_A_FRAME, C) float16

    def lessons(self) -> Iterator[Lesson]:
        args, model = self.args, self.trainer.model.model
        eyes = [*model.vision_tower.parameters(), *model.multi_modal_projector.parameters(), model.image_newline]
        looking = [*eyes, *self.trainer.words.parameters()]
        everything = list(self.trainer.parameters())
        speech = [*model.language_model.parameters(), *self.trainer.model.lm_head.parameters()]
        if not args.blind:
            yield Lesson("look", args.look_steps, looking, self.look)
            for turn in range(args.frame_rounds):
                steps = args.frame_steps
                yield Lesson(f"frames {turn + 1}", steps, everything, partial(self.frames, before=turn * steps))
        yield Lesson("clips", args.clip_steps, speech, partial(self.clips, lesson="clips"))
        yield Lesson("words", args.word_steps, speech, partial(self.clips, lesson="words"))
        yield Lesson("numbers", args.number_steps, speech, partial(self.clips, lesson="numbers"))

    def draw(self, step: int, size: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
        rng = np.random.default_rng([step, 11])
        return rng, rng.integers(len(self.pool.clips), size=size), rng.integers(N_FRAMES, size=size)

    def seen_words(self, rows: np.ndarray, times: np.ndarray) -> Tensor:
        said = [self.words.said(self.pool.clips[c], int(t)) for c, t in zip(rows, times, strict=True)]
        return torch.from_numpy(np.stack(said))

    def look(self, step: int) -> dict[str, Tensor]:
        _, rows, times = self.draw(step, BATCH["look"])
        visual = self.trainer.see(self.pool.pixels(rows, times[:, None]))
        return {"words": self.trainer.word_loss(visual, self.seen_words(rows, times))}

    def frames(self, step: int, before: int) -> dict[str, Tensor]:
        rng, rows, times = self.draw(before + step, BATCH["frames"])
        visual = self.trainer.see(self.pool.pixels(rows, times[:, None]))
        asked = [ask(self.pool.clips[c], rng, BRANCHES["frames"], int(t)) for c, t in zip(rows, times, strict=True)]
        answers = self.trainer.answer_loss(visual, self.packer.pack(asked, visual.shape[1]))
        return {"answers": answers, "words": self.trainer.word_loss(visual, self.seen_words(rows, times))}

    def clips(self, step: int, lesson: str) -> dict[str, Tensor]:
        """Three steps of four on clips, one on frames, so that single frames stay known."""
        if self._tokens is None:
            self._tokens = self.tokens()
        whole = step % 4 != 3
        rng, rows, times = self.draw(step, BATCH[lesson])
        seen = self._tokens[rows][:, CLIP_FRAMES] if whole else self._tokens[rows, times][:, None]
        newline = self.trainer.model.model.image_newline.detach().expand(len(rows), 1, -1)
        visual = torch.cat([seen.flatten(1, 2).float(), newline], 1)
        asked = [
            ask(self.pool.clips[c], rng, BRANCHES[lesson], None if whole else int(t))
            + say(rng, SENTENCES[lesson])
            + number(rng, NUMBERS[lesson])
            for c, t in zip(rows, times, strict=True)
        ]
        return {"answers": self.trainer.answer_loss(visual, self.packer.pack(asked, visual.shape[1]))}

    @torch.no_grad()
    def tokens(self) -> Tensor:
        found = []
        for c in range(len(self.pool.clips)):
            visual = self.trainer.see(self.pool.pixels(np.array([c]), np.arange(N_FRAMES)[None]))
            found.append(visual[0, :-1].unflatten(0, (N_FRAMES, TOKENS_A_FRAME)).half())
        return torch.stack(found)


@torch.no_grad()
def question_accuracy(trainer: Pretrainer, pool: Pool, packer: Packer) -> dict[str, float]:
    """Share of questions on whole clips answered exactly: every token of the answer is the arg-max (so greedy)."""
    rng = np.random.default_rng(7)
    hits: dict[str, list[bool]] = {}
    for c, clip in enumerate(pool.clips):
        visual = trainer.see(pool.pixels(np.array([c]), np.array(CLIP_FRAMES)[None]))
        for question in language.questions(clip, rng):
            packed = packer.pack([[(question.text, question.answer)]], visual.shape[1])
            scores, ids = trainer.logits(visual, packed)
            hits.setdefault(question.kind, []).append(bool((scores.argmax(-1) == ids).all()))
    shares = {kind: float(np.mean(h)) for kind, h in sorted(hits.items())}
    return {"all": float(np.mean([x for h in hits.values() for x in h])), **shares}


def teach(school: School, lesson: Lesson, state: dict[str, Any], state_path: Path, probe: Pool) -> None:
    """Runs what is left of one lesson; `state` is what was left last time, kept up to date here and on disk."""
    if lesson.name in state["done"]:
        return
    optimizer = torch.optim.AdamW(lesson.parameters, lr=school.args.lr, betas=(0.9, 0.98), weight_decay=0.05)
    if lesson.name == state["lesson"]:
        optimizer.load_state_dict(state["optimizer"])
    else:
        state |= {"lesson": lesson.name, "step": 0}
    school.trainer.requires_grad_(False)
    for parameter in lesson.parameters:
        parameter.requires_grad_(True)
    began, first, sums = time.monotonic(), state["step"], dict[str, float]()
    for step in range(first, lesson.steps):
        losses = lesson.loss(step)
        update(optimizer, torch.stack(list(losses.values())).sum(), lesson.rate(step, school.args.lr))
        sums = {name: sums.get(name, 0.0) + float(value.detach()) for name, value in losses.items()}
        done = step + 1
        if done % REPORT_EVERY == 0:
            eta_min = (time.monotonic() - began) / (done - first) * (lesson.steps - done) / 60
            means = "  ".join(f"{name} {total / REPORT_EVERY:.3f}" for name, total in sums.items())
            print(f"{lesson.name} {done}/{lesson.steps}  {means}  eta {eta_min:.0f} min", flush=True)
            sums = {}
        if done % SAVE_EVERY == 0 or done == lesson.steps:
            state |= {"step": done, "optimizer": optimizer.state_dict(), "trainer": school.trainer.state_dict()}
            state["done"] += [lesson.name] if done == lesson.steps else []
            torch.save(state, state_path.with_suffix(".tmp"))
            state_path.with_suffix(".tmp").rename(state_path)
            if lesson.name != "look":
                print(json.dumps(question_accuracy(school.trainer, probe, school.packer)), flush=True)


def update(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step of the optimizer at this rate, gradients clipped at norm 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad()


def save(model: nn.Module, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Hugging Face layout; weights as float16 (half the size; loaded as float32)."""
    output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(output)
    model.config.save_pretrained(output)
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
    processor = {"image_size": SIDE_PX, "image_mean": MEAN, "image_std": STD}
    (output / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n")


def main() -> int:
    """Teaches what is left of the lessons, saves the model, measures its answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory of the finished model")
    parser.add_argument(
        "--state", type=Path, help="training state, continued if it is there (default runs/pretrain_*.pt)"
    )
    parser.add_argument("--look-steps", type=int, default=1500, help="steps of lesson `look` (default %(default)s)")
    parser.add_argument("--frame-steps", type=int, default=2000, help="steps of a round of `frames` (%(default)s)")
    parser.add_argument("--frame-rounds", type=int, default=2, help="rounds of `frames` (%(default)s)")
    parser.add_argument("--clip-steps", type=int, default=2000, help="steps of lesson `clips` (%(default)s)")
    parser.add_argument("--word-steps", type=int, default=250, help="steps of lesson `words` (%(default)s)")
    parser.add_argument("--number-steps", type=int, default=0, help="steps of lesson `numbers` (%(default)s)")
    parser.add_argument("--start-from", type=Path, help="model of which all lessons but `numbers` are done")
    parser.add_argument("--clips", type=int, default=12000, help="rendered clips in memory, 330 kB each (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of each lesson (%(default)s)")
    parser.add_argument("--blind", action="store_true", help="black pixels: the control, with a state of its own")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (%(default)s)")
    args = parser.parse_args()
    args.state = args.state or Path(f"runs/pretrain_quickstart_base{'_blind' if args.blind else ''}.pt")
    torch.set_num_threads(args.threads)
    args.state.parent.mkdir(parents=True, exist_ok=True)
    tokenizer, words = build_tokenizer(), Words()
    trainer, packer = Pretrainer(build_model(tokenizer), len(words.number)), Packer(tokenizer)
    size_m = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    print(f"{size_m:.2f} M parameters, vocabulary {len(tokenizer)}; rendering {args.clips} clips", flush=True)
    school = School(trainer, packer, words, build_pool(PRETRAIN_SEED, args.clips, blind=args.blind), args)
    probe = build_pool(EVAL_SEED, 64, blind=args.blind)
    state: dict[str, Any] = {"done": [], "lesson": None, "step": 0, "blind": args.blind}
    if args.start_from:
        trainer.model.load_state_dict(load_file(args.start_from / "model.safetensors"))
        state["done"] = [lesson.name for lesson in school.lessons()][:-1]
    if args.state.exists():
        state = torch.load(args.state, weights_only=True)
        if state["blind"] != args.blind:
            raise TpoError(f"{args.state} is the state of another model (--blind or not): name another --state")
        trainer.load_state_dict(state["trainer"])
    for lesson in school.lessons():
        teach(school, lesson, state, args.state, probe)
    save(trainer.model, tokenizer, args.output)
    scores = question_accuracy(trainer, build_pool(EVAL_SEED, 400, blind=args.blind), packer)
    summary = {
        **{k: v for k, v in vars(args).items() if k not in ("output", "state", "start_from")},
        "qa_accuracy": scores,
    }
    (args.output / "pretraining.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    return 0


if __name__ == "__main__":
    main_guard(main)
