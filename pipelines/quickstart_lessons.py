"""What the quick-start base model is taught, and how it is put into tensors: tokenizer, clips, captions, questions.

Used by pretrain_quickstart_base.py alone.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tpo_core.data.quickstart import language
from tpo_core.data.quickstart.draw import render
from tpo_core.data.quickstart.language import COLUMNS, ROWS, SIZES
from tpo_core.data.quickstart.world import COLOURS, GROUNDS, KINDS, N_FRAMES, SIDE_PX, Clip, sample_clip

PRETRAIN_SEED, EVAL_SEED = 1_000_000_000, 2_000_000_000  # far from the seeds of the quick-start splits
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Words of the task requests. The tokenizer keeps them whole, and the model learns to repeat them: a row of the
# embedding that was never trained is noise, and no adapter mends it. No box, moment or mask is behind them.
_REQUEST_WORDS = (
    "Where is the Can you find detect locate Please show track segment mask outline follow object moment video clip "
    "when does happen happens happening query given in seconds start and end time times of this that moves to "
    "left right Answer: . , ? ' trajectory motion path give generate visual representation person box at which part "
    "frame who what"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of about six hundred pieces in which the words of the world are whole."""
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


@dataclass
class Pool:
    """Rendered clips kept in memory: frames uint8 (clips, 12, H, W, 3)."""

    clips: list[Clip]
    frames: np.ndarray

    def pixels(self, rows: np.ndarray, times: np.ndarray) -> Tensor:
        """Normalised (rows, T, 3, H, W) of frame numbers `times` (rows, T)."""
        return torch.from_numpy(self.frames[rows[:, None], times]).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0


def build_pool(seed: int, count: int, *, blind: bool) -> Pool:
    clips = [sample_clip(f"{seed + i}", seed + i) for i in range(count)]
    frames = np.full((count, N_FRAMES, SIDE_PX, SIDE_PX, 3), 0 if blind else 255, np.uint8)
    if not blind:
        with ProcessPoolExecutor(2) as pool:
            for i, rendered in enumerate(pool.map(_render_frames, clips, chunksize=50)):
                frames[i] = rendered
    return Pool(clips, frames)


def _render_frames(clip: Clip) -> np.ndarray:
    return render(clip)[0]


class Words:
    """Which words and pairs of words a caption says of the things that a frame shows, as a 0/1 vector."""

    def __init__(self) -> None:
        of_kind = [(kind, word) for kind in KINDS for word in (*COLUMNS, *ROWS, *SIZES)]
        of_colour = [(colour, word) for colour in COLOURS for word in (*KINDS, *COLUMNS, *ROWS)]
        names: list[Any] = [*KINDS, *COLOURS, *GROUNDS, *SIZES, "glows", *of_kind, *of_colour]
        self.number = {name: i for i, name in enumerate(names)}

    def said(self, clip: Clip, t: int) -> np.ndarray:
        found: list[Any] = [clip.ground]
        for seen in language.things_seen(clip, t):
            kind, colour = seen.thing.kind, seen.thing.colour
            words = (language.column(seen), language.row(seen), language.size(seen))
            found += [kind, colour, words[2], (colour, kind), *((kind, word) for word in words)]
            found += [(colour, word) for word in words[:2]]
        if any(event.action == "glows" and event.start <= t < event.end for event in clip.events):
            found.append("glows")
        vector = np.zeros(len(self.number), np.float32)
        vector[[self.number[name] for name in found]] = 1.0
        return vector


class Packer:
    """Many questions about one clip in one sequence: the visual prefix once, then question and answer of each branch.

    A branch sees the prefix and itself, and counts its positions from the end of the prefix: token by token what the
    chat template gives for that question alone.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
        self.user, self.middle = self.encode("<|im_start|>user\n"), self.encode("<|im_end|>\n<|im_start|>assistant\n")
        self.end, self.newline = self.encode("<|im_end|>"), self.encode("\n")
        self.video, self.pad = tokenizer.convert_tokens_to_ids("<video>"), tokenizer.pad_token_id

    def pack(self, rows: list[list[tuple[str, str]]], n_visual: int) -> dict[str, Tensor]:
        """input_ids, labels, position_ids (B, L) and a boolean attention_mask (B, 1, L, L)."""
        prefix = self.user + [self.video] * n_visual
        packed = []
        for pairs in rows:
            columns = [(token, -100, place, 0) for place, token in enumerate(prefix)]
            for number, (question, answer) in enumerate(pairs, start=1):
                asked, said = self.newline + self.encode(question) + self.middle, self.encode(answer) + self.end
                for place, token in enumerate(asked + said):
                    label = token if place >= len(asked) else -100
                    columns.append((token, label, len(prefix) + place, number))
            packed.append(columns)
        length = max(map(len, packed))
        filler = (self.pad, -100, 0, -1)
        table = torch.tensor([columns + [filler] * (length - len(columns)) for columns in packed])
        ids, labels, places, branch = table.unbind(2)
        same = (branch[:, :, None] == branch[:, None]) | (branch[:, None] == 0)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        return {"input_ids": ids, "labels": labels, "position_ids": places, "attention_mask": (same & causal)[:, None]}


def say(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Sentences without sense to be repeated: words of requests and of the world in any order."""
    words = [*_REQUEST_WORDS.split(), *_REQUEST_WORDS.split(), *language.vocabulary()]
    sentences = [" ".join(rng.choice(words, size=rng.integers(2, 8))) for _ in range(count)]
    return [(f"Say: {sentence}", sentence) for sentence in sentences]


def number(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Boxes and moments without sense to be repeated, and numbers to be continued: digits, as any larger base model has
    read them, in the forms of `tpo_core/models/wording.py`. Nothing that can be seen is behind them."""
    found = []
    for kind in rng.choice(["boxes", "moment", "count"], size=count):
        if kind == "boxes":
            boxes = rng.integers(100, size=(rng.integers(1, 4), 4))
            words = [f"[{', '.join(f'{each:02d}' for each in box)}]" if rng.random() < 0.8 else "none" for box in boxes]
            found.append((f"Say: Answer: {' '.join(words)} .", f"Answer: {' '.join(words)} ."))
        elif kind == "moment":
            text = f"The given query happens in {rng.uniform(0, 3):.2f} to {rng.uniform(0, 3):.2f} seconds."
            found.append((f"Say: {text}", text))
        else:
            first = int(rng.integers(94))
            told, asked = (" ".join(f"{first + i:02d}" for i in steps) for steps in (range(3), range(3, 6)))
            found.append((f"Go on: {told}", asked))
    return found


def ask(clip: Clip, rng: np.random.Generator, branches: int, t: int | None) -> list[tuple[str, str]]:
    """A caption request and random questions about a clip or one frame of it."""
    asked = language.questions(clip, rng, t=t)
    picked = [asked[i] for i in rng.permutation(len(asked))[: branches - 1]]
    request = (str(rng.choice(language.CAPTION_REQUESTS)), language.caption(clip, rng, t=t))
    return [request, *((question.text, question.answer) for question in picked)]
