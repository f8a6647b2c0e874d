"""What differs between families of image-text-to-text models, a row a family.

A clip is written into the prompt as groups of frames: one frame, or as many as the vision tower takes together. Source
of every row: the configuration, processing and modelling files of the family in transformers 5.23.
"""

from dataclasses import dataclass
from typing import Literal

TOKEN = "{token}"


@dataclass(frozen=True)
class Family:
    """frames: how the model takes a clip. images: frame by frame through get_image_features; video: through
    get_video_features, frame by frame; patches: as flat patches of groups of frames.

    part: the kind of typed part that shows a clip to the chat template; its placeholder is the model's image token
    for images, and its video token otherwise. In the following texts "{token}" stands for that placeholder.
    shown: what the chat template writes for such a part. group: what replaces it, for each group of frames, with their
    visual tokens at the placeholder; {number} counts groups from 1, {seconds} is their mean time. join: stands between
    groups. alone: the group of a clip of one frame.

    tower: the part of `.model` that is the vision encoder; connectors: parts of it that are the connector.
    token_types: argument that tells the language model which tokens are visual, for bidirectional attention.
    frame_size: pixels a side for towers that take any size; the model section of a recipe may say another.
    """

    frames: Literal["images", "video", "patches"]
    part: Literal["image", "video"]
    shown: str = TOKEN
    group: str = TOKEN
    join: str = ""
    alone: str | None = None
    tower: str = "vision_tower"
    connectors: tuple[str, ...] = ()
    token_types: str | None = None
    frame_size: int = 448

    @property
    def placeholder(self) -> str:
        """The field of the configuration that holds the id of the placeholder."""
        return "image_token_id" if self.frames == "images" else "video_token_id"

    @property
    def modality(self) -> str:
        """Which of the model's mm_encoder_outputs its features are."""
        return "image" if self.frames == "images" else "video"


TIMED = "<{seconds:.1f} seconds><|vision_start|>" + TOKEN + "<|vision_end|>"
FAMILIES: dict[str, Family] = {
    "gemma3": Family(
        "images",
        "image",
        shown="<start_of_image>",
        group=f"\n\n<start_of_image>{TOKEN}<end_of_image>\n\n",
        token_types="token_type_ids",
    ),
    "internvl": Family(
        "images",
        "video",
        shown="<video>",
        group=f"Frame{{number}}: <img>{TOKEN}</img>",
        join="\n",
        alone=f"<img>{TOKEN}</img>",
    ),
    "llava_next_video": Family("video", "video"),
    "qwen2_vl": Family("patches", "video", tower="visual", connectors=("merger",)),
    "qwen2_5_vl": Family("patches", "video", tower="visual", connectors=("merger",)),
    "qwen3_vl": Family(
        "patches",
        "video",
        shown=f"<|vision_start|>{TOKEN}<|vision_end|>",
        group=TIMED,
        tower="visual",
        connectors=("merger", "deepstack_merger_list"),
    ),
    "qwen3_5": Family(
        "patches",
        "video",
        shown=f"<|vision_start|>{TOKEN}<|vision_end|>",
        group=TIMED,
        tower="visual",
        connectors=("merger",),
    ),
}
# Any other family is tried in the commonest layout, that of LLaVA: a clip is a row of images.
LIKE_LLAVA = Family("images", "image")
