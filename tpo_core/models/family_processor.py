"""From examples to the prompts of any family of image-text-to-text models."""

from pathlib import Path
from typing import Any, Self

from tpo_core.data.example import Example
from tpo_core.models.families import TOKEN, Family
from tpo_core.models.preprocessor import normalisation, read_preprocessor, read_template, require_placeholder
from tpo_core.models.processing import Processor


class FamilyProcessor(Processor):
    """A `Processor` that writes a clip as a family does.

    group_size: frames of a group, the last one of which is filled up. tokens_per_group: visual tokens of one.
    """

    def __init__(self, tokenizer: Any, *, family: Family, group_size: int, tokens_per_group: int, **settings: Any):
        """settings: as of `Processor`."""
        super().__init__(tokenizer, tokens_per_frame=0, **settings)
        self.family = family
        self.group_size, self.tokens_per_group = group_size, tokens_per_group

    @classmethod
    def of_family(cls, path: Path, tokenizer: Any, *, image_size: int, video_token_id: int, **layout: Any) -> Self:
        """With the preprocessor settings of a base model, whose image size the caller has checked. layout: family,
        group_size, tokens_per_group. Raises TpoError when settings or chat template are absent or do not fit."""
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

    @property
    def shown(self) -> str:
        return self.family.shown.replace(TOKEN, self.video_token)

    def part(self) -> dict[str, str]:
        return {"type": self.family.part}

    def run_length(self, n_frames: int) -> int:
        return self.tokens_per_group

    def clip_text(self, example: Example) -> str:
        """One placeholder for each group of frames. An incomplete group is filled up with the last frame."""
        times = example.times_s.tolist()
        if len(times) == 1 and self.family.alone is not None:
            return self.family.alone.replace(TOKEN, self.video_token)
        size, groups = self.group_size, []
        for start in range(0, len(times), size):
            seconds = (times[start] + times[min(start + size, len(times)) - 1]) / 2
            written = self.family.group.format(token=self.video_token, number=start // size + 1, seconds=seconds)
            groups.append(written)
        return self.family.join.join(groups)
