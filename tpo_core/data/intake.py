"""Preprocessing before and after decoding: what the sources hold, which frames are wanted, and what is left out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tpo_core.config.schema import DataConfig, FramesConfig, SourceConfig
from tpo_core.data.frames import DecodeRequest, FeatureRequest, ranges
from tpo_core.data.readers import reader_of
from tpo_core.data.readers.base import Reject
from tpo_core.data.sample import UNLABELLED, Clip, Media, Sample, settle, validate
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris

FPS_TOLERANCE = 0.01  # times of a label file that were made of frame numbers are off by as much


class RejectLog:
    """What was left out and why, against the number of samples that were read; becomes `rejected.jsonl`."""

    def __init__(self, path: Path, budget: float) -> None:
        self.path, self.budget = path, budget
        self.read = 0
        self.rows: list[dict[str, str | None]] = []

    def add(self, uri: str, dataset: str, sample_id: str | None, reason: str, detail: str) -> None:
        self.rows.append(
            {
                "uri": uri,
                "dataset": dataset,
                "sample_id": sample_id,
                "reason": reason,
                "detail": " ".join(detail.split()),
            }
        )

    def add_sample(self, sample: Sample, reason: str, detail: str) -> None:
        self.add(sample.media[0].uri if sample.media else "", sample.dataset, sample.sample_id, reason, detail)

    def reasons(self) -> dict[str, int]:
        """Rejected samples by reason, most frequent first."""
        return dict(Counter(str(row["reason"]) for row in self.rows).most_common())

    def settle(self) -> None:
        """Writes the file. Raises TpoError when more than the budget was rejected."""
        content = "".join(json.dumps(row, sort_keys=True) + "\n" for row in self.rows)
        uris.write_bytes(self.path, content.encode())
        if len(self.rows) > self.budget * self.read:
            told = ", ".join(f"{reason} {count}" for reason, count in self.reasons().items())
            raise TpoError(
                f"{len(self.rows)} of {self.read} samples are rejected, more than data.reject_budget"
                f" {self.budget:g} allows ({told}): see {self.path}, then mend the data or raise the budget"
            )


@dataclass
class Wish:
    """One media to decode, with what the samples that name it need of it."""

    media: Media
    prefer: tuple[range, ...] = ()
    also: frozenset[int] = frozenset()

    def request(self, key: str, root: str | None, frames: FramesConfig) -> DecodeRequest:
        """The decoding request; `root` is the data root that relative keys are below."""
        clip = self.media.clip_s
        stills = self.media.kind == "frames"
        return DecodeRequest(
            uri=uris.join(root if root is not None else "", key.removesuffix(_fragment(self.media))),
            kind=self.media.kind,
            short_side_px=frames.short_side_px,
            n_frames=frames.n_frames,
            prefer_frames=self.prefer,
            also_frames=tuple(sorted(self.also)),
            clip_s=None if clip is None else (clip.start, clip.end),
            frame_names=self.media.frame_names,
            fps=self.media.fps if stills else None,
            frame_stride=self.media.frame_stride if stills else None,
            jpeg_quality=frames.jpeg_quality,
            sample_fps=frames.fps,
            features=feature_request(frames) if self.media.kind == "video" else None,
            choice=frames.choice,
        )


def feature_request(frames: FramesConfig) -> FeatureRequest | None:
    """What the recipe asks of the clip encoder, if it does."""
    wanted = frames.features
    if wanted is None:
        return None
    options = tuple(sorted(wanted.options.items()))
    return FeatureRequest(wanted.encoder, options, wanted.clip_len_s, wanted.frames_per_clip)


def media_key(source_root: str, media: Media) -> str:
    """Name of a media in a shard set: below the data root, or absolute where its source is.

    Told apart are the clips of a file ("#t=<start>,<end>") and what two data sets read of one folder of frames
    ("#frames=<hash>" of the names, their rate and their stride).
    """
    return uris.resolve(source_root, media.uri) + _fragment(media)


def _fragment(media: Media) -> str:
    """What tells this reading of a file or a folder from others of it."""
    fragment, reading = "", [media.frame_names, media.fps, media.frame_stride]
    if media.kind == "frames" and reading != [None, None, None]:
        fragment = f"#frames={hashlib.blake2b(json.dumps(reading).encode(), digest_size=8).hexdigest()}"
    return fragment if media.clip_s is None else f"{fragment}#t={media.clip_s.start!r},{media.clip_s.end!r}"


def read_sources(
    data: DataConfig,
    root: str | None,
    log: RejectLog,
    keep: Callable[[str, Iterator[Sample]], None],
    echo: Callable[[str], None],
) -> dict[str, Wish]:
    """Reads every source, hands the valid samples of each part to `keep` and collects what must be decoded for them.

    Raises:
        TpoError: a source has no (valid) samples, or no such reader exists.
    """
    wishes: dict[str, Wish] = {}
    seen: dict[int, str] = {}
    for part in sorted({source.part for source in data.sources}):
        sources = [source for source in data.sources if source.part == part]
        keep(part, (s for source in sources for s in _read_source(source, root, log, wishes, seen, echo)))
    return wishes


def _read_source(
    source: SourceConfig,
    root: str | None,
    log: RejectLog,
    wishes: dict[str, Wish],
    seen: dict[int, str],
    echo: Callable[[str], None],
) -> Iterator[Sample]:
    reader = reader_of(source)
    place = uris.join(root if root is not None else "", source.root)
    rejected, kept = len(log.rows), 0

    def usable() -> Iterator[Sample]:
        for item in reader.read(place, source.split, source.options):
            log.read += 1
            if isinstance(item, Reject):
                log.add(item.uri, source.name, None, item.reason, item.detail)
                continue
            sample = _keyed(source.root, item)
            name = _hashed(f"{source.part}/{sample.sample_id}")
            reason, detail = _first_problem(sample, source.part, wishes, seen.get(name))
            if reason:
                log.add_sample(sample, reason, detail)
                continue
            seen[name] = source.name
            yield sample

    end = None if source.limit is None else source.limit * source.step
    for sample in islice(usable(), 0, end, source.step):
        kept += 1
        _wish(sample, wishes)
        yield sample
    rejected = len(log.rows) - rejected
    if not kept:
        raise TpoError(
            f"source {source.name!r} has no samples: reader {source.reader}, root {place}, split {source.split!r}"
            f" ({rejected} rejected): check the root and the split"
        )
    echo(f"read {source.name}: {kept} samples for {source.part}, {rejected} rejected")


def _hashed(name: str) -> int:
    """8 bytes of an id, of which there are millions: two of 10 million meet with a probability of 3e-6."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _keyed(source_root: str, sample: Sample) -> Sample:
    return replace(sample, media=tuple(replace(media, uri=media_key(source_root, media)) for media in sample.media))


def _first_problem(sample: Sample, part: str, wishes: dict[str, Wish], twin: str | None) -> tuple[str, str]:
    reason, detail = _invalid(sample)
    if reason:
        return reason, detail
    if part == "train" and UNLABELLED in sample.provenance.flags:
        return "unlabelled", "the labels of this split are withheld: it cannot be trained on"
    if twin is not None:
        told = (
            f"source {twin!r} gave a sample of this part with this id already; the option dataset tells sources apart"
        )
        return "duplicate_sample_id", told
    if len(sample.media) > 1:
        return "several_media", f"{len(sample.media)} media; samples with one are supported"
    if sample.media:
        media = sample.media[0]
        known = wishes.get(media.uri)
        if known and known.media.kind != media.kind:
            return "media_conflict", f"another sample reads it as {known.media.kind}, this one as {media.kind}"
    return "", ""


def _wish(sample: Sample, wishes: dict[str, Wish]) -> None:
    for media in sample.media:
        wish = wishes.setdefault(media.uri, Wish(media))
        named = [target.frame for target in sample.targets if target.frame is not None]
        labelled = {entry.frame for target in sample.targets for entry in target.track or ()}
        if named:
            wish.also |= frozenset(named)
        if labelled:
            wish.prefer = ranges(labelled.union(*wish.prefer))


def finished(
    sample: Sample, decoded: Mapping[str, dict[str, Any]], failed: Mapping[str, tuple[str, str]], log: RejectLog
) -> Sample | None:
    """The sample with the size, rate and length of its decoded media, or None and a row in the log.

    Args:
        failed: (reason, detail) of the media that were not decoded: media_missing or decode_failed.

    Reasons beyond those and those of `validate`: size_mismatch, frame_count_mismatch and fps_mismatch: the annotation
    was made on another version of the media, so its boxes, frame numbers or times do not belong to this one.
    """
    if not sample.media:
        return sample
    media = sample.media[0]
    if media.uri not in decoded:
        reason, detail = failed[media.uri]
    else:
        facts = decoded[media.uri]
        reason, detail = _mismatch(sample, facts)
        if not reason:
            sample = settle(replace(sample, media=(_filled(media, facts),)))
            reason, detail = _invalid(sample)
    if reason:
        log.add_sample(sample, reason, detail)
        return None
    return sample


def _mismatch(sample: Sample, facts: dict[str, Any]) -> tuple[str, str]:
    media, size = sample.media[0], (facts["width"], facts["height"])
    placed = any(target.box or target.rle or target.track for target in sample.targets)
    if placed and (media.width or size[0], media.height or size[1]) != size:
        return "size_mismatch", f"annotated on {media.width}x{media.height}, decoded {size[0]}x{size[1]}"
    if media.n_frames not in (None, facts["n_frames"]) and any(target.track for target in sample.targets):
        return "frame_count_mismatch", f"annotated on {media.n_frames} frames, decoded {facts['n_frames']}"
    timed = media.kind == "video" and any(target.span_s for target in sample.targets)
    if timed and media.fps and facts["fps"] and abs(facts["fps"] / media.fps - 1) > FPS_TOLERANCE:
        return "fps_mismatch", f"annotated at {media.fps:g} frames/s, decoded {facts['fps']:g}"
    return "", ""


def _filled(media: Media, facts: dict[str, Any]) -> Media:
    timed = media.kind == "video" or (media.kind == "frames" and media.fps is not None)
    clip, end = media.clip_s, facts["media_duration_s"]
    return replace(
        media,
        width=facts["width"],
        height=facts["height"],
        n_frames=facts["n_frames"],
        fps=facts["fps"] if media.kind == "video" else media.fps,
        duration_s=end if timed else media.duration_s,
        clip_s=Clip(clip.start, min(clip.end, end)) if timed and clip is not None else clip,
    )


def _invalid(sample: Sample) -> tuple[str, str]:
    allowed = {"no_target", "no_answer"} if UNLABELLED in sample.provenance.flags else set()
    reasons = [reason for reason in validate(sample) if reason not in allowed]
    if not reasons:
        return "", ""
    spans = [target.span_s for target in sample.targets if target.span_s is not None]
    boxes = [target.box for target in sample.targets if target.box is not None]
    facts = f"moments {spans} s, boxes {boxes}"
    if sample.media:
        media = sample.media[0]
        facts += f" in {media.width}x{media.height}, {media.n_frames} frames, {media.sample_duration_s()} s"
    return reasons[0], f"{', '.join(reasons)} ({facts})"
