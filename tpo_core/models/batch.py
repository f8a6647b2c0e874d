"""Encoded examples, and the padded batches that they become."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tpo_core.data.example import Change
from tpo_core.heads.base import Movable, Targets
from tpo_core.models.targets import BUILDERS

IGNORED = -100


@dataclass
class Batch(Movable):
    """Samples of one kind. labels_BL: ids, -100 where no loss is taken; slot_boxes_B4: the box behind `<track_box>` as
    xyxy fractions, nan where the prompt has none; size_wh_B2: pixels of the original; targets: None for chat and for
    prompts. frame_mask_BT is False on padding frames, and everywhere in the row of a sample without media.

    Rows that show the same frames share them: pixel_values_UTCHW holds U <= B different clips, and row b of the batch
    shows clip clip_B[b]. What heads look at besides: queries, what is asked for in words; clip_features, one (S, D)
    tensor a row, see the function of that name; stored_frames, uint8 (T, 3, h, w) one a row, None unless a head
    wants them; prompt_frame_B, the place among a row's frames of the one that its question is about; draws, a seed a
    row, see Example."""

    kind: str
    input_ids_BL: Tensor
    attention_mask_BL: Tensor
    labels_BL: Tensor
    pixel_values_UTCHW: Tensor
    clip_B: Tensor
    frame_mask_BT: Tensor
    times_s_BT: Tensor
    duration_s_B: Tensor
    size_wh_B2: Tensor
    slot_boxes_B4: Tensor
    targets: Targets | None
    sample_ids: list[str]
    queries: list[str]
    clip_features: list[Tensor] | None
    stored_frames: list[Tensor] | None
    prompt_frame_B: Tensor
    draws: list[int]

    @property
    def n_answer_tokens(self) -> int:
        """Tokens that carry a label."""
        return int((self.labels_BL[:, 1:] != IGNORED).sum())

    @property
    def n_tokens(self) -> int:
        """Tokens that the language model reads, padding left out."""
        return int(self.attention_mask_BL.sum())

    @property
    def frames_of_clips(self) -> list[int]:
        """Frames of each different clip, padding left out."""
        frame_mask_UT = self.frame_mask_BT.new_zeros(self.pixel_values_UTCHW.shape[:2])
        frame_mask_UT[self.clip_B] = self.frame_mask_BT
        return frame_mask_UT.sum(1).tolist()


@dataclass
class Encoded:
    """One example before padding; `target` is what `targets.BUILDERS[kind].one` gave."""

    kind: str
    input_ids_L: Tensor
    labels_L: Tensor
    pixels_TCHW: Tensor
    times_s_T: Tensor
    duration_s: float
    size_wh: tuple[int, int]
    slot_box_4: Tensor
    target: Any
    sample_id: str
    frames_key: tuple[str, bytes, Change]
    query: str
    features_SD: Tensor | None
    frames_TCHW: Tensor | None
    prompt_frame: int
    draw: int


def collate(rows: list[Encoded], *, pad_id: int, pad_left: bool) -> Batch:
    """One batch; training pads on the right, generation needs all prompts to end together: `pad_left`."""
    length = max(len(row.input_ids_L) for row in rows)
    frames = max(1, *(len(row.times_s_T) for row in rows))
    frame_counts = torch.tensor([len(row.times_s_T) for row in rows])
    kinds, has_targets = {row.kind for row in rows}, all(row.target is not None for row in rows)
    assert len(kinds) == 1 or not has_targets, f"a training batch holds one kind, not {sorted(kinds)}"

    number_of = {key: number for number, key in enumerate(dict.fromkeys(row.frames_key for row in rows))}
    pixels_of = {row.frames_key: row.pixels_TCHW for row in rows}
    stored = [row.frames_TCHW for row in rows if row.frames_TCHW is not None]

    def pad_text(values: list[Tensor], fill: int) -> Tensor:
        widths = [(length - len(value), 0) if pad_left else (0, length - len(value)) for value in values]
        return torch.stack([F.pad(v, width, value=fill) for v, width in zip(values, widths, strict=True)])

    def pad_frames(value: Tensor) -> Tensor:
        return torch.cat([value, value.new_zeros(frames - len(value), *value.shape[1:])])

    return Batch(
        kind=rows[0].kind,
        input_ids_BL=pad_text([row.input_ids_L for row in rows], pad_id),
        attention_mask_BL=pad_text([torch.ones_like(row.input_ids_L) for row in rows], 0),
        labels_BL=pad_text([row.labels_L for row in rows], IGNORED),
        pixel_values_UTCHW=torch.stack([pad_frames(pixels_of[key]) for key in number_of]),
        clip_B=torch.tensor([number_of[row.frames_key] for row in rows]),
        frame_mask_BT=torch.arange(frames)[None] < frame_counts[:, None],
        times_s_BT=torch.stack([pad_frames(row.times_s_T) for row in rows]),
        duration_s_B=torch.tensor([row.duration_s for row in rows], dtype=torch.float32),
        size_wh_B2=torch.tensor([row.size_wh for row in rows], dtype=torch.float32),
        slot_boxes_B4=torch.stack([row.slot_box_4 for row in rows]),
        targets=BUILDERS[rows[0].kind].stack([row.target for row in rows], frames) if has_targets else None,
        sample_ids=[row.sample_id for row in rows],
        queries=[row.query for row in rows],
        clip_features=clip_features(rows),
        stored_frames=stored if len(stored) == len(rows) else None,
        prompt_frame_B=torch.tensor([row.prompt_frame for row in rows]),
        draws=[row.draw for row in rows],
    )


def clip_features(rows: list[Encoded]) -> list[Tensor] | None:
    """The stored features (S, D) of each row, S = 0 for images and texts, which have no timeline; None unless every
    row that has one brings its own."""
    known = [row.features_SD for row in rows if row.features_SD is not None]
    if not known or any(row.features_SD is None and row.duration_s > 0 for row in rows):
        return None
    return [known[0][:0] if row.features_SD is None else row.features_SD for row in rows]
