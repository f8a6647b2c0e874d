"""What a plan takes for granted, each with its unit and its source; `--assume KEY=VALUE` replaces any of them."""

from collections.abc import Iterable

import yaml
from pydantic import Field

from tpo_core.config.base import Config
from tpo_core.config.load import validated
from tpo_core.errors import TpoError


class Assumptions(Config):
    """Numbers that neither the recipe nor the architecture tells."""

    mfu: float = Field(default=0.35, gt=0, le=1, description="model FLOPs utilisation while steps run, 0 to 1")
    gpu_hour_usd: float | None = Field(default=None, ge=0, description="USD a GPU hour; null takes that of the GPU")
    cpu_hour_usd: float = Field(default=0.05, ge=0, description="USD an hour of one core")
    s3_gib_month_usd: float = Field(default=0.023, ge=0, description="USD a GiB and month of object storage")
    raw_gib: float | None = Field(
        default=None, ge=0, description="GiB of the media as they are downloaded; null: unknown, few data sets say it"
    )
    task_text_tokens: int = Field(default=96, ge=1, description="tokens of text of a region, temporal or mask sample")
    task_answer_tokens: int = Field(default=16, ge=1, description="of these, tokens of the answer")
    chat_text_tokens: int = Field(default=384, ge=1, description="tokens of text of a chat sample")
    chat_answer_tokens: int = Field(default=192, ge=1, description="of these, tokens of the answers")
    decode_mpx_per_core_s: float = Field(
        default=230.0,
        gt=0,
        description="megapixels of video that a core decodes in a second; measured 208 to 292 for 224 px to 1080p",
    )
    keyframe_gap_frames: float = Field(
        default=60.0, ge=1, description="frames between keyframes; a wanted frame costs half of them"
    )
    jpeg_mpx_per_core_s: float = Field(
        default=117.0,
        gt=0,
        description="megapixels that a core stores as JPEG in a second; measured 582 frames of 448 px",
    )
    jpeg_bytes_per_px: float = Field(
        default=0.474, gt=0, description="bytes of a stored pixel; measured 93 KiB for 448 px at quality 90"
    )
    aspect: float = Field(default=16 / 9, ge=1, description="long side of a frame over its short side")
    memory_reserve_gib: float = Field(
        default=6.0, ge=0, description="GiB of a GPU for the CUDA context, NCCL and pieces too small to be used"
    )


def assume(changes: Iterable[str]) -> Assumptions:
    """The assumptions with `KEY=VALUE` texts applied. TpoError for an unknown key or a bad value."""
    raw = {}
    for text in changes:
        key, sign, value = text.partition("=")
        if not sign:
            raise TpoError(f"--assume {text!r}: write it as KEY=VALUE, for example mfu=0.4")
        raw[key] = yaml.safe_load(value)
    return validated(Assumptions, raw, "--assume", "the assumptions")
