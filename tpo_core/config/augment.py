"""The section of a recipe about random changes of training frames."""

from pydantic import Field

from tpo_core.config.base import Config


class AugmentConfig(Config):
    """Random changes of frames in training, alike on all frames of a clip; none unless set."""

    brightness: float = Field(
        default=0.0, ge=0, lt=1, description="brightness is scaled by a factor within 1 - this and 1 + this"
    )
    contrast: float = Field(
        default=0.0, ge=0, lt=1, description="contrast is scaled by a factor within 1 - this and 1 + this"
    )
    flip: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that left and right are exchanged, in samples of moments and of boxes on images whose"
        " text names no side and nothing to read",
    )

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return bool(self.brightness or self.contrast or self.flip)
