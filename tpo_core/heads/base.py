"""The contract between the model and its task heads.

A head reads one hidden vector of the language model (the state at its slot token), looks at the visual context, and
answers in the units of the media. Module, loss and decoding of ONE task live in one file of this package.

Shape letters: N samples that carry a slot (one slot a sample), B batch (N == B here), T stored frames, C a width,
H/W pixels. In patches_BTNC alone, N counts the patches of a frame.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from tpo_core.config.schema import ModelConfig


def move(value: Any, device: torch.device | str) -> Any:
    """`value` on `device`: a tensor, a (list of) tensor(s), or a `Movable`; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [move(item, device) for item in value]
    return value.to(device) if isinstance(value, Movable) else value


class Movable:
    """Mixin for dataclasses of tensors: `.to(device)` gives a copy with every tensor moved."""

    def to(self, device: torch.device | str) -> Self:
        moved = {f.name: move(getattr(self, f.name), device) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(**moved)


def take_frames(value_BT: Tensor, index_BK: Tensor) -> Tensor:
    """Frames index_BK[b] of row b, of a tensor (B, T, ...)."""
    return value_BT[torch.arange(len(index_BK), device=value_BT.device)[:, None], index_BK]


def take_rows(value: Any, index: Tensor) -> Any:
    """Rows of a tensor, or of a list of one value a row; None of None."""
    if isinstance(value, list):
        return [value[row] for row in index.tolist()]
    return None if value is None else value[index]


@dataclass
class HeadContext(Movable):
    """What a head may look at besides its hidden vector. Rows are aligned with the rows of hidden_NC.

    patches_BTNC: N patches (row-major) of C channels, the layer of the vision tower that feeds the connector.
    grid_hw: patches per column and per row, N == grid_hw[0] * grid_hw[1].
    pixels_BTCHW: normalised pixels as the vision tower saw them.
    frame_mask_BT: bool, False on padding frames. times_s_BT: time of each frame, seconds on the media's timeline.
    duration_s_B: seconds. size_wh_B2: width and height of the original media, pixels.
    clip_B: equal numbers for rows that show the same frames.

    Precomputed features, where the samples carry them (None otherwise): clip_features_BLD of L clips of clip_len_s_B
    seconds each, text_features_BQD of the Q words of the question; their masks are bool, padded on the right.

    For heads that look at frames themselves (None where no head does): stored_frames, uint8 RGB (T, 3, h, w) one tensor
    a row, as stored and without padding. given_boxes_B4: the box of the question as xyxy fractions, nan where there is
    none. prompt_frame_B: the place, among the stored frames, of the frame that the question is about; None: the first.

    draws: a seed for each row; None: 0 for all.
    """

    patches_BTNC: Tensor
    grid_hw: tuple[int, int]
    pixels_BTCHW: Tensor
    frame_mask_BT: Tensor
    times_s_BT: Tensor
    duration_s_B: Tensor
    size_wh_B2: Tensor
    clip_B: Tensor | None = None
    clip_features_BLD: Tensor | None = None
    clip_mask_BL: Tensor | None = None
    clip_len_s_B: Tensor | None = None
    text_features_BQD: Tensor | None = None
    text_mask_BQ: Tensor | None = None
    stored_frames: list[Tensor] | None = None
    given_boxes_B4: Tensor | None = None
    prompt_frame_B: Tensor | None = None
    draws: list[int] | None = None

    def generators(self) -> list[torch.Generator]:
        """What each row is to draw its random numbers from, on the CPU: then they are the row's own, whichever rank has
        it and whatever rows are beside it."""
        seeds = [0] * len(self.frame_mask_BT) if self.draws is None else self.draws
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def rows(self, index: Tensor) -> "HeadContext":
        """The context of some rows only."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "grid_hw"}
        picked: dict[str, Any] = {name: take_rows(value, index) for name, value in values.items()}
        return HeadContext(grid_hw=self.grid_hw, **picked)

    def frames(self, index_BK: Tensor) -> "HeadContext":
        """The context of K frames of each row only, in order of time; `duration_s_B` stays that of the whole clip.

        Where the prompt frame is not among them, the first one takes its place.
        """
        stored, prompt_B = self.stored_frames, self.prompt_frame_B
        return replace(
            self,
            patches_BTNC=take_frames(self.patches_BTNC, index_BK),
            pixels_BTCHW=take_frames(self.pixels_BTCHW, index_BK),
            frame_mask_BT=take_frames(self.frame_mask_BT, index_BK),
            times_s_BT=take_frames(self.times_s_BT, index_BK),
            stored_frames=stored and [clip[k[k < len(clip)]] for clip, k in zip(stored, index_BK, strict=True)],
            prompt_frame_B=None if prompt_B is None else (index_BK == prompt_B[:, None]).int().argmax(1),
        )


@dataclass
class RegionTargets(Movable):
    """boxes_N4: xyxy as fractions of the original width and height."""

    boxes_N4: Tensor


@dataclass
class TemporalTargets(Movable):
    """spans: per sample a (k, 2) tensor of start and end as fractions of the duration, k >= 0."""

    spans: list[Tensor]


@dataclass
class MaskTargets(Movable):
    """Masks, or for box-only tracks boxes, on the stored frames.

    masks_NTHW: uint8 0/1 at the mask resolution (H, W free); all zero where the object is absent.
    valid_NT: bool, the frame is stored AND annotated; only such frames carry a loss.
    box_only_N: bool, the sample has boxes and no masks.
    boxes_NT4: xyxy fractions; nan where the object is absent, and where the mask alone tells of it.
    """

    masks_NTHW: Tensor
    valid_NT: Tensor
    box_only_N: Tensor
    boxes_NT4: Tensor

    def frames(self, index_NK: Tensor) -> "MaskTargets":
        """The targets on K frames of each sample only."""
        names = ("masks_NTHW", "valid_NT", "boxes_NT4")
        return replace(self, **{name: take_frames(getattr(self, name), index_NK) for name in names})


Targets = RegionTargets | TemporalTargets | MaskTargets


@dataclass
class BoxPrediction:
    """box_xyxy: (4,) pixels of the original media, clamped to it, x0 <= x1 and y0 <= y1."""

    box_xyxy: Tensor


@dataclass
class SpanPrediction:
    """spans_s: (k, 2) start and end in seconds, best first; scores: (k,) in [0, 1].

    clips_V3: of a head that tells which clips are highlights, start and end of each in seconds, in order and without
    gaps, and its saliency, any real number; None of a head that does not."""

    spans_s: Tensor
    scores: Tensor
    clips_V3: Tensor | None = None


@dataclass
class MaskPrediction:
    """masks_THW: bool at the original size, stored frames only; boxes_T4: tight xyxy pixels, nan where empty.

    scores_T: (T,) in [0, 1], mean foreground probability over the mask, 0 where it is empty.
    """

    masks_THW: Tensor
    boxes_T4: Tensor
    scores_T: Tensor


Prediction = BoxPrediction | SpanPrediction | MaskPrediction


class Timeline(Protocol):
    """What of a batch tells how many targets there are, besides the targets; see HeadContext."""

    frame_mask_BT: Tensor
    times_s_BT: Tensor
    duration_s_B: Tensor


@dataclass
class HeadOutput:
    """sums: terms already weighted by the head's published term weights, each summed over its targets; counts: how many
    there are, as `TaskHead.counts` says. The training loop divides by the count of a whole step.

    report: plain numbers for the log (unweighted terms, batch accuracy), never used for the gradient.
    """

    sums: dict[str, Tensor]
    counts: Mapping[str, int]
    report: dict[str, float] = field(default_factory=dict)

    @property
    def losses(self) -> dict[str, Tensor]:
        """Each term as the mean over its targets here, 0 of none."""
        return {name: value / max(1, self.counts[name]) for name, value in self.sums.items()}

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.losses.values())).sum()


class TaskHead(nn.Module, ABC):
    """One dense vision task behind one task token.

    name: "region" | "temporal" | "mask". begin: the indicator token that the language model writes.
    slot: the token whose input embedding is the task vector and whose last hidden state the head reads.
    Heads compute in fp32 whatever the autocast state: a bf16 coordinate near 1 is off by 1-4 px (paper notes 1.1).
    """

    name: ClassVar[str]
    begin: ClassVar[str]
    slot: ClassVar[str]

    @classmethod
    @abstractmethod
    def from_config(cls, config: ModelConfig, hidden_size: int, vision_size: int) -> Self:
        """The head of a recipe; hidden_size: width of the language model, vision_size: width of the patch features."""

    def looks_at_frames(self, *, training: bool) -> bool:
        """Whether the context must hold the stored frames."""
        return False

    @abstractmethod
    def counts(self, timeline: Timeline, targets: Any) -> dict[str, int]:
        """How many targets each term of the loss sums over; known before a forward, and the same terms for all
        batches of the task."""

    @abstractmethod
    def forward(self, hidden_NC: Tensor, context: HeadContext, targets: Any) -> HeadOutput:
        """Losses of the N samples. hidden_NC is fp32; `targets` is the dataclass of the task."""

    @abstractmethod
    def predict(self, hidden_NC: Tensor, context: HeadContext) -> list[Any]:
        """One prediction per row of hidden_NC, in media units, on the CPU."""
