"""From examples to the prompts of VideoChat2.

Pixels are those of the published model: frames stretched to a square by antialiased bicubic interpolation of uint8
values, then ImageNet's mean and deviation. The frames are those of the example, whatever their number; preprocessing
takes them from the middles of equal stretches of time. The published model counts frames instead of seconds, see
`middle_frames`: at a constant frame rate the two are at most one frame apart.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tpo_core.data.example import Example
from tpo_core.data.record import Turn
from tpo_core.data.sample import TRACK_BOX
from tpo_core.errors import TpoError
from tpo_core.models.batch import IGNORED
from tpo_core.models.preprocessor import PREPROCESSOR, Normalisation, normalisation, read_preprocessor, require_size
from tpo_core.models.processing import Processor
from tpo_core.models.videochat2 import prompt
from tpo_core.models.videochat2.config import VideoChat2Config
from tpo_core.models.videochat2.tokenizer import FragmentTokenizer, marked

# ImageNet's, not CLIP's (published VideoChat-TPO).
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def middle_frames(n_frames: int, count: int = 16) -> list[int]:
    """Numbers of the frames that the published model looks at in a video of n_frames: the middles of `count` equal
    stretches; of a shorter video all, the last one repeated. Raises TpoError for a video without frames."""
    if n_frames < 1:
        raise TpoError("the video has no frame: give one of at least one frame")
    edges = np.linspace(0, n_frames, min(n_frames, count) + 1).astype(int)
    chosen = ((edges[:-1] + edges[1:] - 1) // 2).tolist()
    return chosen + chosen[-1:] * (count - len(chosen))


class VideoChat2Processor(Processor):
    """A `Processor` with the published placement of text and visual tokens (`videochat2/prompt.py`).

    A turn of the user is a fragment of its own, ` [INST] question [/INST] `. An answer follows without <s>, but as a
    piece of its own with its dummy blank, and ends with </s>: the published prompt keeps its last blank as a token, and
    a prompt must not change with the answer behind it. What a user wrote is plain letters, but for `<track_box>` where
    the sample gives the box behind it; in answers the task tokens are tokens.
    """

    tokenizer: FragmentTokenizer

    def __init__(self, tokenizer: FragmentTokenizer, *, tokens_per_clip: int, **settings: Any) -> None:
        """tokens_per_clip: visual tokens of a clip; none of them belongs to one frame. settings: as of `Processor`."""
        super().__init__(tokenizer, tokens_per_frame=0, **settings)
        self.tokens_per_clip = tokens_per_clip

    @classmethod
    def from_folder(cls, path: Path, tokenizer: FragmentTokenizer, config: VideoChat2Config) -> "VideoChat2Processor":
        """With image_mean and image_std of the folder's preprocessor_config.json, or the published ones.

        Raises TpoError when that file does not fit the model.
        """
        vision: Any = config.vision_config
        pixels = Normalisation(IMAGE_MEAN, IMAGE_STD)
        if (path / PREPROCESSOR).exists():
            settings = read_preprocessor(path)
            require_size(path, settings, vision.image_size)
            pixels = normalisation(path, settings)
        return cls(
            tokenizer,
            image_size=vision.image_size,
            image_mean=pixels.mean,
            image_std=pixels.std,
            tokens_per_clip=config.tokens_per_clip,
            video_token_id=config.video_token_id,
        )

    def end_token_ids(self) -> set[int]:
        return {self.tokenizer.eos_token_id}

    def encode_text(self, example: Example, *, train: bool) -> tuple[Tensor, Tensor]:
        """ids (L,) with the placeholder of each visual token, labels (L,): answers and the </s> behind each.

        Slots get no loss: the model is handed a slot after each indicator and never has to write one. Raises TpoError
        for a clip without frames.
        """
        if example.sample.media and not len(example.frames_THWC):
            raise TpoError(f"{example.sample.sample_id}: no frame of {example.sample.media[0].uri} is there to look at")
        silent = set(self.slot_ids.values())
        ids: list[int] = []
        labels: list[int] = []
        for part, is_answer in self._parts(example, train=train):
            if isinstance(part, prompt.Visual):
                new = [self.video_token_id] * self.tokens_per_clip
            else:
                new = self.tokenizer.encode(part, bos=False if is_answer else None)
            ids += new
            labels += [token if is_answer and token not in silent else IGNORED for token in new]
        return torch.tensor(ids), torch.tensor(labels)

    def _parts(self, example: Example, *, train: bool) -> Iterator[tuple[prompt.Part, bool]]:
        """The conversation as (part, is an answer); a prompt ends where the last answer begins."""
        system, shown = "", len(example.frames_THWC) == 0
        for turn in self.turns(example, train=train):
            if turn.role == "system":
                system += f"{turn.text.strip()}\n"
            elif turn.role == "assistant":
                yield (*marked(turn.text.strip(), self.tokenizer.added), prompt.END), True
            else:
                for part in self._question(turn, system, None if shown else example):
                    yield part, False
                system, shown = "", True

    def _question(self, turn: Turn, system: str, example: Example | None) -> list[prompt.Part]:
        """A turn of the user, behind the frames of the example if there is one."""
        text = marked(turn.text.strip(), [TRACK_BOX] if turn.target_refs else [])
        if example is None:
            return [(system, *prompt.question(*text))]
        message = prompt.frame_times(example.times_s.tolist()) if prompt.asks_for_times(turn.text) else ""
        is_image = len(example.frames_THWC) == 1
        if example.answer_prefix:  # as in the published `generate_answer`: all behind the frames is one fragment
            rest = (" [INST] ", *text, f" [/INST]{example.answer_prefix}")
            return prompt.media_turn(is_image=is_image, system=system, message=message, rest=rest)
        return prompt.chat(*text, is_image=is_image, system=system, message=message)
