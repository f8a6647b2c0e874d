"""From examples to batches: frames to pixels, conversations to token ids and labels, samples to targets.

A conversation is rendered once by the chat template of the base model and cut at the answers, so that the prompt of
generation is, token by token, the prompt of training.
"""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from tpo_core.data.example import Example
from tpo_core.data.instructions import conversation
from tpo_core.data.record import Box, Turn
from tpo_core.data.sample import kind_of, prompt_boxes
from tpo_core.errors import TpoError
from tpo_core.heads.registry import HEADS
from tpo_core.models.asked import prompt_frame, query_of
from tpo_core.models.batch import IGNORED, Batch, Encoded, collate
from tpo_core.models.literals import Literals
from tpo_core.models.preprocessor import (
    PREPROCESSOR,
    normalisation,
    read_preprocessor,
    read_template,
    require_placeholder,
    require_size,
    resample_setting,
)
from tpo_core.models.targets import BUILDERS, fractions
from tpo_core.models.task_tokens import TASK_TOKENS, TRACK_BOX
from tpo_core.models.wording import worded

ANSWER_MARK = "\x00answer-{}\x00"
# How data in the layout of LLaVA shows where its media stand in a text (https://github.com/haotian-liu/LLaVA).
MEDIA_MARK = re.compile("<(?:image|video)>")


class Processor:
    """Turns examples into batches; picklable.

    image_size: pixels, both sides; frames are stretched to it, so that box fractions need no letterbox arithmetic.
    tokens_per_frame: visual tokens of a frame; a clip has one more at its end. video_token_id: their placeholder.
    mask_size: cells per side of mask targets, half of the image size: finer than the decoder's stride of 4, so that
    borders between its cells are seen. resample: how frames are resized, bicubic or bilinear.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        image_size: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        tokens_per_frame: int,
        video_token_id: int,
        resample: str = "bicubic",
    ) -> None:
        self.tokenizer = tokenizer
        self.image_size = image_size
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.resample = resample
        self.tokens_per_frame = tokens_per_frame
        self.video_token_id = video_token_id
        self.mask_size = image_size // 2
        self.slot_ids = {name: self.token_id(head.slot) for name, head in HEADS.items()}
        self.keeps_frames = {True: False, False: False}  # in training, in prompts
        self.writes_coordinates = False  # as numbers in the text, in place of task tokens
        self.pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @classmethod
    def load(cls, path: Path, tokenizer: Any, *, image_size: int, tokens_per_frame: int, video_token_id: int) -> Self:
        """With the preprocessor_config.json of a base model.

        Raises TpoError when it or the chat template is absent, or does not fit the model.
        """
        require_size(path, read_preprocessor(path), image_size)
        return cls.of_base(
            path,
            tokenizer,
            image_size=image_size,
            video_token_id=video_token_id,
            tokens_per_frame=tokens_per_frame,
        )

    @classmethod
    def of_base(cls, path: Path, tokenizer: Any, *, image_size: int, video_token_id: int, **layout: Any) -> Self:
        """As `load`, for an image size that the caller has checked. layout: the other arguments of the class."""
        require_placeholder(tokenizer, video_token_id)
        pixels = normalisation(path, read_preprocessor(path))
        if tokenizer.chat_template is None:
            tokenizer.chat_template = read_template(path)
        return cls(
            tokenizer,
            image_size=image_size,
            image_mean=pixels.mean,
            image_std=pixels.std,
            resample=pixels.resample,
            video_token_id=video_token_id,
            **layout,
        )

    def save(self, path: Path) -> None:
        """Tokenizer with its chat template, and the preprocessor config, as the base model had them."""
        self.tokenizer.save_pretrained(path)
        settings = {"image_size": self.image_size, "image_mean": self.image_mean, "image_std": self.image_std}
        (path / PREPROCESSOR).write_text(json.dumps(settings | resample_setting(self.resample), indent=1))

    def token_id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def end_token_ids(self) -> set[int]:
        """The special token that the chat template writes behind an answer, and the tokenizer's own end."""
        tail = self.render([{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER_MARK}])
        ids = self.tokenize(tail.split(ANSWER_MARK)[1])
        return {self.ended(ids)[0], self.tokenizer.eos_token_id}

    def ended(self, ids: list[int]) -> list[int]:
        """What follows an answer, behind an end of text where the chat template lets no special token end it."""
        closed = bool(ids) and self.literals.steers(ids[0])
        return ids if closed else [self.tokenizer.eos_token_id, *ids]

    def tokenize(self, text: str) -> list[int]:
        """Ids of a piece of a conversation, in which `spoken` has marked what must stay letters."""
        return self.literals.encode(text)

    @cached_property
    def literals(self) -> Literals:
        """What people write, as letters."""
        return Literals(self.tokenizer, {*TASK_TOKENS, self.video_token}, passages=(self.shown,))

    @property
    def video_token(self) -> str:
        return self.tokenizer.convert_ids_to_tokens(self.video_token_id)

    @property
    def shown(self) -> str:
        """What the chat template writes where a clip is shown."""
        return self.video_token

    def clip_text(self, example: Example) -> str:
        """What stands there instead: a placeholder for every `run_length` visual tokens, and the text around them."""
        return self.video_token

    def run_length(self, n_frames: int) -> int:
        """Visual tokens behind one placeholder of a clip of n_frames."""
        return n_frames * self.tokens_per_frame + 1

    def part(self) -> dict[str, str]:
        """What tells a chat template of typed parts that a clip is shown."""
        return {"type": "video"}

    def render(self, messages: list[dict[str, Any]]) -> str:
        """Text of a conversation; both forms of chat templates are served, plain strings and lists of typed parts."""
        if "'type'" in self.tokenizer.chat_template or '"type"' in self.tokenizer.chat_template:
            messages = [{**m, "content": typed_parts(m["content"], self.shown, self.part())} for m in messages]
        return self.tokenizer.apply_chat_template(messages, tokenize=False)

    def spoken(self, turn: Turn) -> str:
        """The text of a turn with everything marked that must stay letters.

        An answer may hold task tokens. A question may hold `<track_box>`, once for each box that it refers to; the
        marks of its media are dropped, as the chat template places these.
        """
        if turn.role == "assistant":
            return self.literals.mark(turn.text.strip(), keep=TASK_TOKENS)
        text = MEDIA_MARK.sub("", turn.text, count=len(turn.media_refs)) if turn.media_refs else turn.text
        return self.literals.mark(text.strip(), keep=(TRACK_BOX,), at_most=len(turn.target_refs))

    def turns(self, example: Example, *, train: bool) -> list[Turn]:
        """The conversation, up to its last answer unless in training."""
        turns = list(conversation(example.sample))
        turns = turns[:-1] if not train and turns[-1].role == "assistant" else turns
        return worded(example, turns) if self.writes_coordinates else turns

    def segments(self, example: Example, *, train: bool) -> list[tuple[str, bool]]:
        """The conversation as (text, is an answer) pieces. A prompt ends where the last answer begins."""
        turns = [(turn.role, self.spoken(turn)) for turn in self.turns(example, train=train)]
        turns += [] if train else [("assistant", "")]
        messages, answers = [], []
        needs_video = len(example.frames_THWC) > 0
        for role, text in turns:
            if role == "assistant":
                answers.append(text)
                text = ANSWER_MARK.format(len(answers) - 1)
            elif role == "user" and needs_video:
                text, needs_video = f"{self.shown}\n{text}", False
            messages.append({"role": role, "content": text})
        rest, pieces = self.render(messages).replace(self.shown, self.clip_text(example)), []
        for number, answer in enumerate(answers):
            before, mark, rest = rest.partition(ANSWER_MARK.format(number))
            if not mark:
                raise TpoError("the chat template writes no answers of the assistant: take that of the base model")
            pieces += [(before, False), (answer, True)]
        return [*pieces, (rest, False)] if train else pieces[:-1]

    def encode_text(self, example: Example, *, train: bool) -> tuple[Tensor, Tensor]:
        """ids (L,) with the visual placeholder repeated, labels (L,): answers and the token that ends each of them.

        Slots get no loss: the model is handed a slot after each indicator and never has to write one. Raises TpoError
        when the chat template shows no clip.
        """
        run = self.run_length(len(example.frames_THWC))
        silent = set(self.slot_ids.values())
        ids: list[int] = []
        labels: list[int] = []
        for text, is_answer in self.segments(example, train=train):
            after_answer = bool(ids) and not is_answer
            new = self.tokenize(text)
            for position, token in enumerate(self.ended(new) if after_answer else new):
                count = run if token == self.video_token_id else 1
                loss = (is_answer and token not in silent) or (after_answer and position == 0)
                ids += [token] * count
                labels += [token if loss else IGNORED] * count
        if not train:
            opening = self.tokenize(example.answer_prefix)
            ids, labels = ids + opening, labels + [IGNORED] * len(opening)
        if len(example.frames_THWC) and self.video_token_id not in ids:
            raise TpoError(f"the chat template writes no {self.shown} where a clip is shown: take the base model's")
        return torch.tensor(ids), torch.tensor(labels)

    def pixels(self, example: Example) -> Tensor:
        """Normalised frames (T, 3, S, S) float32, resized with antialiasing as uint8: Pillow within 1 / 255."""
        frames = torch.from_numpy(example.frames_THWC).permute(0, 3, 1, 2)
        if len(frames) == 0:
            return torch.zeros(0, 3, self.image_size, self.image_size)
        size = (self.image_size, self.image_size)
        if frames.shape[-2:] != size:
            frames = F.interpolate(frames, size, mode=self.resample, antialias=True, align_corners=False)
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.image_mean, self.image_std))
        return (frames.float() / 255 - mean) / std

    def encode(self, example: Example, *, train: bool = True) -> Encoded:
        """`train=False`: the prompt up to the last answer, without targets.

        A box of the question that sticks out of the image is cut at its border. Raises TpoError when nothing of it is
        left, and for media of which no frame is there.
        """
        kind, media = kind_of(example.sample), example.sample.media
        if media and not len(example.frames_THWC):
            raise TpoError(f"{example.sample.sample_id}: no frame of {media[0].uri} is there to look at")
        ids, labels = self.encode_text(example, train=train)
        given = [target.box for target in prompt_boxes(example.sample) if target.box is not None]
        return Encoded(
            kind=kind,
            input_ids_L=ids,
            labels_L=labels,
            pixels_TCHW=self.pixels(example),
            times_s_T=torch.tensor(example.times_s, dtype=torch.float32),
            duration_s=example.duration_s,
            size_wh=(example.width, example.height),
            slot_box_4=inside(given[0], example) if given else torch.full((4,), torch.nan),
            target=BUILDERS[kind].one(example, self.mask_size) if train and kind in BUILDERS else None,
            sample_id=example.sample.sample_id,
            frames_key=(media[0].uri if media else "", example.frame_index.tobytes(), example.change),
            query=query_of(example.sample),
            features_SD=None if example.features_SD is None else torch.from_numpy(example.features_SD),
            frames_TCHW=torch.from_numpy(example.frames_THWC).movedim(3, 1) if self.keeps_frames[train] else None,
            prompt_frame=prompt_frame(example),
            draw=example.draw,
        )

    def collate(self, rows: list[Encoded], *, pad_left: bool = False) -> Batch:
        """One batch; training pads on the right, generation needs all prompts to end together: `pad_left`."""
        return collate(rows, pad_id=self.pad_id, pad_left=pad_left)


def inside(box: Box, example: Example) -> Tensor:
    """The part of a box that lies in the image, as xyxy fractions (4,). Raises TpoError when there is none."""
    cut_4 = fractions(box, example).clamp(0, 1)
    if not (cut_4[2:] > cut_4[:2]).all():
        name, size = example.sample.sample_id, f"{example.width} x {example.height}"
        raise TpoError(f"{name}: the box {tuple(box)} of the question has no area inside the image of {size} pixels")
    return cut_4


def typed_parts(text: str, shown: str, part: dict[str, str]) -> list[dict[str, str]]:
    """A message as the list of parts that multimodal chat templates iterate over; the clip, if any, comes first."""
    if not text.startswith(shown):
        return [{"type": "text", "text": text}]
    return [part, {"type": "text", "text": text.removeprefix(shown).lstrip()}]
