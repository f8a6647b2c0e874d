"""From examples to the prompts of any family of image-text-to-text models."""

from typing import Any

from tpo_core.data.example import Example
from tpo_core.models.families import TOKEN, Family
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
