"""What the readers of moments and of timed captions share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tpo_core.data.instructions import render
from tpo_core.data.readers.base import MALFORMED, LabelFile, Reject, at, mapped
from tpo_core.data.sample import UNLABELLED, Media, Sample, Span, Target, Turn, span_reasons
from tpo_core.errors import TpoError

TASK_HELP = "span: one sample a sentence; dense_caption: one sample a video, its answer lists all sentences with times"


def positive(value: Any, name: str) -> float:
    """A duration or a rate. ValueError when it is no positive number."""
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} is {value!r}")
    return number


def seconds(pair: Any, per_second: float = 1.0) -> Span:
    """Start and end of a moment, given in units of which `per_second` make a second."""
    start, end = pair
    return float(start) / per_second, float(end) / per_second


def sentence(text: Any) -> str:
    """A query or a caption without the spaces around it. ValueError when nothing is left."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"expected a sentence, not {text!r}")
    return text.strip()


def span_sample(
    labels: LabelFile,
    native_id: str,
    row: int,
    media: Media,
    query: str,
    span: Span | None,
    *,
    raw: Mapping[str, Any] | None = None,
    flags: tuple[str, ...] = (),
) -> Sample:
    """A query and its one moment; without a moment (withheld labels) the sample is flagged "unlabelled"."""
    targets = () if span is None else (Target("span", label=query, span_s=span),)
    flags = flags if targets else (*flags, UNLABELLED)
    return labels.grounded("span", query, native_id, row, media, targets, raw=raw, flags=flags)


def parts(
    source: str, row: int, items: Iterable[Any], build: Callable[[Any, int], Iterable[Sample | Reject]]
) -> Iterator[Sample | Reject]:
    """`base.mapped` for the parts of record `row`: a part of another shape costs itself only, not the whole record."""
    for number, item in enumerate(items):
        try:
            made = list(build(item, number))
        except MALFORMED as error:
            made = [Reject(at(source, row), "bad_record", f"part {number + 1}: {type(error).__name__}: {error}")]
        yield from made


def dense_caption(
    labels: LabelFile,
    native_id: str,
    row: int,
    media: Media,
    events: Iterable[Any],
    read: Callable[[Any], Target],
    *,
    raw: Mapping[str, Any] | None = None,
) -> Iterator[Sample | Reject]:
    """One sample whose answer lists the events of a video by their start, and a reject for each event without use.

    `read(event)` is its target, a span or a point with a label. The answer is written as TimeIT writes it:
    "0.0 - 4.5 seconds, text.  4.5 - 9.0 seconds, text." (a point: "4.5 seconds, text."). An end past the video is
    clipped (flag "end_clipped"), the loss of an event is flagged "event_rejected".
    """
    duration_s = media.sample_duration_s()
    targets: list[Target] = []
    flags, raw_spans = [], []
    for number, event in enumerate(events):
        target = _event(event, read, duration_s)
        if not isinstance(target, Target):
            flags.append("event_rejected")
            yield Reject(at(labels.source, row), target[0], f"{native_id} event {number + 1}: {target[1]}")
            continue
        raw_spans.append(target.span_s)
        targets.append(_clipped(target, duration_s))
    if not targets:
        if not flags:
            yield Reject(at(labels.source, row), "no_labels", f"{native_id} has no events")
        return
    if [target.span_s for target in targets] != raw_spans:
        flags.append("end_clipped")
        raw = {**(raw or {}), "spans_s": raw_spans}
    targets.sort(key=lambda target: target.span_s or (0.0, 0.0))
    form = "timeline" if targets[0].kind == "point" else "dense_caption"
    question, answer = render(form, _listed(targets), labels.sample_id(native_id))
    turns = (Turn("user", question, (0,)), Turn("assistant", answer, (), tuple(range(len(targets)))))
    flags = list(dict.fromkeys(flags))
    yield labels.sample("dense_caption", native_id, row, (media,), turns, targets, raw=raw, flags=flags)


def _event(event: Any, read: Callable[[Any], Target], duration_s: float | None) -> Target | tuple[str, str]:
    """The target of an event, or the code and the detail of why there is none."""
    try:
        target = read(event)
    except MALFORMED as error:
        return "bad_record", f"{type(error).__name__}: {error}"
    assert target.span_s is not None
    reason = next(span_reasons(target.span_s, duration_s, point=target.kind == "point"), None)
    return target if reason is None else (reason, f"{target.span_s} s of {duration_s} s")


def _clipped(target: Target, duration_s: float | None) -> Target:
    assert target.span_s is not None
    start, end = target.span_s
    return target if duration_s is None or end <= duration_s else replace(target, span_s=(start, duration_s))


def _listed(targets: Iterable[Target]) -> str:
    lines = []
    for target in targets:
        assert target.span_s is not None
        assert target.label is not None
        start, end = target.span_s
        times = f"{start:.1f}" if target.kind == "point" else f"{start:.1f} - {end:.1f}"
        lines.append(f"{times} seconds, {target.label.rstrip(' .')}.")
    return "  ".join(lines)


def mapped_subset(
    pairs: Iterable[tuple[str, Any]],
    wanted: tuple[str, ...],
    labels: LabelFile,
    build: Callable[[tuple[str, Any], int], Iterable[Sample | Reject]],
) -> Iterator[Sample | Reject]:
    """`base.mapped` of the videos whose `subset` is one of `wanted`, in a file that holds all splits.

    TpoError at the end when it has videos of other subsets only.
    """
    others: set[str] = set()
    found = False

    def choose(pair: tuple[str, Any], row: int) -> Iterable[Sample | Reject]:
        nonlocal found
        if pair[1]["subset"] not in wanted:
            others.add(str(pair[1]["subset"]))
            return ()
        found = True
        return build(pair, row)

    yield from mapped(pairs, labels.source, choose)
    if others and not found:
        has = ", ".join(sorted(others))
        raise TpoError(f"{labels.reader}: {labels.source} has no videos of subset {wanted[0]!r}; it has {has}")
