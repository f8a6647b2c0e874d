"""The canonical record: one frozen `Sample` per supervised example, one Arrow schema for every dataset.

Units and conventions, everywhere below:
- times are seconds (float64) on the timeline of the sample: 0 is the start of the media, or of `Media.clip_s` when set;
- frames are 0-based indices of the decoded media;
- boxes are (x1, y1, x2, y2) in pixels of the original media, 0-based, half-open (x2 = x1 + width), never clipped;
- masks are COCO run lengths (column-major) with compressed `counts` bytes, see `tpo_core.data.rle`;
- absence is explicit (`TrackEntry.visible`), never encoded in a box;
- what a reader changed is named in `Provenance.flags`, and the native values are kept in `Provenance.raw` (JSON).

Task markers: an answer of a region, temporal or mask sample holds `ANSWER_MARKER[kind]`, a track question `TRACK_BOX`;
the turn that holds a marker refers to its targets by `Turn.target_refs`.

Dictionary-encoded columns: Arrow IPC files hold one dictionary per column, so write one table per file, or call
`table.unify_dictionaries()` after `pa.concat_tables`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from tpo_core.data import rle
from tpo_core.data.record import (
    SCHEMA,
    SCHEMA_VERSION,
    Box,
    Clip,
    Media,
    Provenance,
    Rle,
    Saliency,
    Sample,
    Span,
    Target,
    TrackEntry,
    Turn,
)

__all__ = [
    "ANSWER_MARKER",
    "KIND_OF_TASK",
    "SCHEMA",
    "SCHEMA_VERSION",
    "TRACK_BOX",
    "UNLABELLED",
    "Box",
    "Clip",
    "Media",
    "Provenance",
    "Rle",
    "Saliency",
    "Sample",
    "Span",
    "Target",
    "TrackEntry",
    "Turn",
    "answer_targets",
    "flagged",
    "from_row",
    "kind_of",
    "prompt_boxes",
    "settle",
    "span_reasons",
    "to_row",
    "to_table",
    "validate",
]

TRACK_BOX = "<track_box>"
ANSWER_MARKER = {"region": "<box_begin><boxes>", "temporal": "<time_begin><temp>", "mask": "<track_begin><tracking>"}
KIND_OF_TASK = {
    "box": "region",
    "phrase_box": "region",
    "span": "temporal",
    "highlight": "temporal",
    "mask": "mask",
    "track": "mask",
    "chat": "chat",
    "mcq": "chat",
    "caption": "chat",
    "dense_caption": "chat",
    "grounded_mcq": "chat",
}
TARGET_KINDS = {"region": ("box",), "temporal": ("span",), "mask": ("mask", "track"), "chat": ()}
MEDIA_KINDS = ("image", "video", "frames")
ROLES = ("system", "user", "assistant")
ALL_TARGETS = ("span", "point", "saliency", "box", "mask", "track")
SET_RULES = ("single", "any_of", "union", "all_of")
UNLABELLED = "unlabelled"  # flag of a row whose labels are withheld (official test splits): readable, not trainable

_ONE = {"clip_s": Clip, "saliency": Saliency, "rle": Rle, "provenance": Provenance}
_MANY = {"media": Media, "turns": Turn, "targets": Target, "track": TrackEntry}
_FIELDS = {
    cls: tuple(field.name for field in dataclasses.fields(cls))
    for cls in (Sample, Media, Clip, Turn, Target, Saliency, TrackEntry, Rle, Provenance)
}
_NEVER_NULL = {
    cls: {field.name for field in dataclasses.fields(cls) if "None" not in str(field.type)} for cls in _FIELDS
}
MOST_VOTES = 127  # of one annotator for one clip: what the column holds


def _plain(value: Any) -> Any:
    fields = _FIELDS.get(type(value))
    if fields is not None:
        return {name: _plain(getattr(value, name)) for name in fields}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def to_row(sample: Sample) -> dict[str, Any]:
    """The sample as a plain dict that `pa.Table.from_pylist(rows, schema=SCHEMA)` takes. Inverse of `from_row`."""
    return _plain(sample)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def _build(cls: Any, row: dict[str, Any]) -> Any:
    unknown = sorted(set(row) - set(_FIELDS[cls]))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}")
    values = {}
    for name, value in row.items():
        if value is None and name in _NEVER_NULL[cls]:
            raise ValueError(f"{cls.__name__}.{name} is null")
        if name in _ONE and value is not None:
            values[name] = _build(_ONE[name], value)
        elif name in _MANY and value is not None:
            values[name] = tuple(_build(_MANY[name], item) for item in value)
        else:
            values[name] = _frozen(value)
    return cls(**values)


def from_row(row: dict[str, Any]) -> Sample:
    """The `Sample` of a row of `Table.to_pylist()`; fields with a default may be absent.

    Raises:
        ValueError: a field that the record does not have. TypeError: a required field is absent.
    """
    return _build(Sample, row)


def to_table(samples: Iterable[Sample]) -> pa.Table:
    """An Arrow table with `SCHEMA`, one row a sample."""
    return pa.Table.from_pylist([to_row(sample) for sample in samples], schema=SCHEMA)


def kind_of(sample: Sample) -> str:
    """Which head the sample trains: "region", "temporal", "mask", or "chat" (none). Raises KeyError on a bad task."""
    return KIND_OF_TASK[sample.task]


def answer_targets(sample: Sample) -> tuple[Target, ...]:
    """The targets that the assistant's turns refer to: what the head must produce."""
    refs = [ref for turn in sample.turns if turn.role == "assistant" for ref in turn.target_refs]
    return tuple(sample.targets[ref] for ref in refs)


def prompt_boxes(sample: Sample) -> tuple[Target, ...]:
    """The box targets (with `.frame`) that user turns give as input, one per `<track_box>` in the text, in order."""
    refs = [ref for turn in sample.turns if turn.role == "user" for ref in turn.target_refs]
    return tuple(sample.targets[ref] for ref in refs)


def flagged(sample: Sample, flag: str, raw: dict[str, Any] | None = None) -> Sample:
    """The sample with `flag` added to its provenance and `raw` merged into the raw values (first value wins)."""
    old = sample.provenance
    flags = old.flags if flag in old.flags else (*old.flags, flag)
    merged = old.raw if raw is None else json.dumps({**raw, **json.loads(old.raw)}, sort_keys=True)
    return replace(sample, provenance=replace(old, flags=flags, raw=merged))


def _outside(box: Box, width: int, height: int) -> bool:
    return box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height


def settle(sample: Sample) -> Sample:
    """Applies the reading policy that needs the size or the duration of the media; call it once they are known.

    - a moment whose end passes the end of the media is clipped to it (flag "end_clipped", raw spans kept);
    - a track entry whose box lies wholly outside the image becomes invisible (flag "outside_made_absent");
    - an alternative (any_of) that `validate` refuses goes where another of its group stays ("alternative_dropped").
    What cannot be mended (a moment that starts past the end) is left for `validate` to name. Idempotent.
    """
    media = sample.media[0] if sample.media else None
    if media is None:
        return sample
    duration = media.sample_duration_s()
    targets = list(sample.targets)
    raw_spans = [list(t.span_s) for t in targets if t.span_s is not None]
    flags: dict[str, dict[str, Any]] = {}
    for i, target in enumerate(targets):
        start, end = target.span_s or (math.nan, math.nan)
        if duration is not None and start < duration < end < math.inf:
            targets[i] = replace(target, span_s=(start, duration))
            flags["end_clipped"] = {"spans_s": raw_spans}
        if target.track is not None and media.width is not None and media.height is not None:
            gone = [e for e in target.track if e.visible and e.box and _outside(e.box, media.width, media.height)]
            if gone:
                frames = {entry.frame for entry in gone}
                kept = (replace(e, visible=False, box=None) if e.frame in frames else e for e in target.track)
                targets[i] = replace(target, track=tuple(kept))
                boxes = {str(entry.frame): entry.box for entry in gone}
                flags["outside_made_absent"] = {"outside_boxes": boxes}
    if flags:
        sample = replace(sample, targets=tuple(targets))
    for flag, raw in flags.items():
        sample = flagged(sample, flag, raw)
    return _without_bad_alternatives(sample, media)


def _without_bad_alternatives(sample: Sample, media: Media) -> Sample:
    """One annotator of DiDeMo may name a chunk that a shorter copy of the video does not have; the others count."""
    choices = {i: target for i, target in enumerate(sample.targets) if target.set_rule == "any_of"}
    if not choices:
        return sample
    good = {i for i, target in choices.items() if not any(_target_reasons(target, media))}
    groups = {choices[i].group for i in good}
    dropped = [i for i, target in choices.items() if i not in good and target.group in groups]
    if not dropped:
        return sample
    kept = [i for i in range(len(sample.targets)) if i not in dropped]
    places = {old: new for new, old in enumerate(kept)}
    turns = tuple(
        replace(turn, target_refs=tuple(places.get(ref, ref) for ref in turn.target_refs if ref not in dropped))
        for turn in sample.turns
    )
    raw = {"dropped": [str(sample.targets[i].span_s or sample.targets[i].box) for i in dropped]}
    kept_targets = tuple(sample.targets[i] for i in kept)
    return flagged(replace(sample, targets=kept_targets, turns=turns), "alternative_dropped", raw)


def validate(sample: Sample) -> list[str]:
    """Reason codes that make the sample unusable for training or evaluation; an empty list means usable.

    Codes: bad_task, bad_role, bad_target, bad_option, bad_media_kind, no_media, clip_empty, no_answer, marker_missing,
    prompt_mismatch, bad_reference, no_target, nan, moment_empty, moment_reversed, moment_before_start, moment_past_end,
    bad_saliency (a clip twice, or a score outside 0..127), saliency_past_end, box_empty, box_outside_image,
    mask_unreadable (counts that are no run lengths of its size), mask_size_mismatch (not the size of the media),
    frame_out_of_range, track_never_visible. Checks that need a size, frame count or duration wait until it is known
    (run `settle` first). A box that partly leaves its image is fine, and stays unclipped.
    """
    if sample.task not in KIND_OF_TASK:
        return ["bad_task"]
    reasons = [*_vocabulary_reasons(sample), *_media_reasons(sample), *_turn_reasons(sample)]
    kind = kind_of(sample)
    refs = {ref for turn in sample.turns if turn.role == "assistant" for ref in turn.target_refs}
    answered = {target.kind for i, target in enumerate(sample.targets) if i in refs}
    if kind != "chat" and not answered & set(TARGET_KINDS[kind]):
        reasons.append("no_target")
    for target in sample.targets:
        reasons.extend(_target_reasons(target, sample.media[0] if sample.media else None))
    return list(dict.fromkeys(reasons))


def _vocabulary_reasons(sample: Sample) -> Iterator[str]:
    if any(turn.role not in ROLES for turn in sample.turns):
        yield "bad_role"
    if any(target.kind not in ALL_TARGETS or target.set_rule not in SET_RULES for target in sample.targets):
        yield "bad_target"
    if sample.answer_index is not None and not 0 <= sample.answer_index < len(sample.options or ()):
        yield "bad_option"


def _media_reasons(sample: Sample) -> Iterator[str]:
    if not sample.media and kind_of(sample) != "chat":
        yield "no_media"
    for media in sample.media:
        if media.kind not in MEDIA_KINDS:
            yield "bad_media_kind"
        if not all(math.isfinite(value) for value in (media.duration_s, media.fps) if value is not None):
            yield "nan"
        if media.clip_s is not None and not media.clip_s.end > media.clip_s.start >= 0:
            yield "clip_empty"


def _turn_reasons(sample: Sample) -> Iterator[str]:
    answers = [turn for turn in sample.turns if turn.role == "assistant"]
    if not any(turn.text.strip() for turn in answers):
        yield "no_answer"
    marker = ANSWER_MARKER.get(kind_of(sample))
    if marker is not None and not any(marker in turn.text for turn in answers):
        yield "marker_missing"
    if sample.task == "track" and not any(TRACK_BOX in turn.text for turn in sample.turns if turn.role == "user"):
        yield "marker_missing"
    if any(turn.text.count(TRACK_BOX) != len(turn.target_refs) for turn in sample.turns if turn.role == "user"):
        yield "prompt_mismatch"
    for turn in sample.turns:
        bad_target = any(not 0 <= ref < len(sample.targets) for ref in turn.target_refs)
        bad_media = any(not 0 <= ref < len(sample.media) for ref in turn.media_refs)
        if bad_target or bad_media:
            yield "bad_reference"


def _target_reasons(target: Target, media: Media | None) -> Iterator[str]:
    duration = media.sample_duration_s() if media else None
    if target.span_s is not None:
        yield from span_reasons(target.span_s, duration, point=target.kind == "point")
    elif target.kind in ("span", "point"):
        yield "no_target"
    if target.box is not None:
        yield from _box_reasons(target.box, media)
    elif target.kind == "box":
        yield "no_target"
    if target.rle is not None:
        yield from _mask_reasons(target.rle, media)
    if target.saliency is not None:
        yield from _saliency_reasons(target.saliency, duration)
    n_frames = media.n_frames if media else None
    entries = target.track or ()
    if target.kind in ("mask", "track") and not any(entry.visible for entry in entries) and target.rle is None:
        yield "track_never_visible"
    for frame in [entry.frame for entry in entries] + ([] if target.frame is None else [target.frame]):
        if frame < 0 or (n_frames is not None and frame >= n_frames):
            yield "frame_out_of_range"
    for entry in entries:
        if entry.visible and entry.box is not None:
            yield from _box_reasons(entry.box, media)
        if entry.visible and entry.rle is not None:
            yield from _mask_reasons(entry.rle, media)


def span_reasons(span: Span, duration_s: float | None, *, point: bool = False) -> Iterator[str]:
    """What `validate` says of one moment; a point is a moment whose end is its start."""
    start, end = span
    if not (math.isfinite(start) and math.isfinite(end)):
        yield "nan"
    elif end < start:
        yield "moment_reversed"
    elif end == start and not point:
        yield "moment_empty"
    elif start < 0:
        yield "moment_before_start"
    elif duration_s is not None and start >= duration_s:
        yield "moment_past_end"


def _box_reasons(box: Box, media: Media | None) -> Iterator[str]:
    if not all(math.isfinite(value) for value in box):
        yield "nan"
    elif box[2] <= box[0] or box[3] <= box[1]:
        yield "box_empty"
    elif media and media.width is not None and media.height is not None and _outside(box, media.width, media.height):
        yield "box_outside_image"


def _saliency_reasons(saliency: Saliency, duration_s: float | None) -> Iterator[str]:
    """The last clip may begin where a file ends that is a little shorter than the labels say."""
    ids, votes = saliency.clip_ids, [vote for each in saliency.scores for vote in each]
    if len(set(ids)) < len(ids) or min([*ids, *votes], default=0) < 0 or max(votes, default=0) > MOST_VOTES:
        yield "bad_saliency"
    elif ids and duration_s is not None and (max(ids) - 1) * saliency.clip_len_s >= duration_s:
        yield "saliency_past_end"


def _mask_reasons(mask: Rle, media: Media | None) -> Iterator[str]:
    """Reads the run lengths and fills nothing: 37 us a mask at 720p, half of what decoding takes."""
    try:
        rle.runs(mask)
    except ValueError:
        yield "mask_unreadable"
    if (
        media
        and media.width is not None
        and media.height is not None
        and (mask.w, mask.h) != (media.width, media.height)
    ):
        yield "mask_size_mismatch"
