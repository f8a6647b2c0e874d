"""The contract of a reader, and the check of what it yields.

A reader is one function `parse(root, split, options)` that maps a native layout to canonical samples and yields a
`Reject` for a record it cannot use. `Reader.read` wraps it: options are checked, moments are clipped, and samples that
`tpo_core.data.sample.validate` refuses, or whose media lie outside the root, become rejects. How files are read is in
`tpo_core.data.readers.files`; media are named relative to `root`, which may be a path, file:// or s3://.
"""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tpo_core.data.instructions import render
from tpo_core.data.readers.files import NOT_UTF8, below
from tpo_core.data.sample import UNLABELLED, Media, Provenance, Sample, Target, Turn, settle, validate
from tpo_core.errors import TpoError

# What code that maps a record raises when the record has another shape than the format says.
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Reject:
    """A native record that gives no sample. `uri` is "<file below root>:<record, from 1>"; `reason` is a code."""

    uri: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Option:
    """One option of a reader: its default, what it means, and the values it may take (None: any)."""

    default: str
    help: str
    choices: tuple[str, ...] | None = None


LABELS = Option("", "folder of the label files, below the root")
Parse = Callable[[str, str, Mapping[str, str]], Iterator[Sample | Reject]]


@dataclass(frozen=True)
class Reader:
    """One native format. `layout` names the files expected below the root, with {split} for the split's name."""

    name: str
    summary: str
    layout: str
    default_split: str
    parse: Parse
    options: Mapping[str, Option] = field(default_factory=dict)

    def read(self, root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
        """Samples and rejects of one split, in the order of the files; an empty file gives nothing.

        Raises:
            TpoError: an option that does not exist or has a bad value (at once), a missing or unreadable label file,
                a split that the labels do not have (when iterated).
        """
        return self._checked(root, split, self.complete(options))

    def complete(self, options: Mapping[str, str]) -> dict[str, str]:
        """The options with their defaults. TpoError for an unknown name or value, with the nearest known one."""
        for name, value in options.items():
            option = self.options.get(name)
            if option is None:
                near = difflib.get_close_matches(name, self.options, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(sorted(self.options)) or 'none'}"
                raise TpoError(f"reader {self.name} has no option {name!r}; {hint}")
            if option.choices is not None and value not in option.choices:
                raise TpoError(
                    f"option {name} of reader {self.name} is one of {', '.join(option.choices)}; not {value!r}"
                )
        return {name: options.get(name, option.default) for name, option in self.options.items()}

    def _checked(self, root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
        for item in self.parse(root, split, options):
            checked = item if isinstance(item, Reject) else _checked_sample(item)
            yield _printable(checked) if isinstance(checked, Reject) else checked


def _checked_sample(sample: Sample) -> Sample | Reject:
    """Readers pass native values on as they are, so that one of another type than its field shows only here."""
    try:
        return _settled(sample)
    except MALFORMED as error:
        return _refused(sample, "bad_record", f"{type(error).__name__}: {error}")


def _printable(reject: Reject) -> Reject:
    """The reject without the surrogates that stand for bytes which are not UTF-8: no file or terminal takes them."""
    return Reject(
        *(text.encode("utf-8", "backslashreplace").decode() for text in (reject.uri, reject.reason, reject.detail))
    )


def _settled(sample: Sample) -> Sample | Reject:
    _require_room(sample)
    outside = next((media.uri for media in sample.media if escapes_root(media)), None)
    if outside is not None:
        return _refused(sample, "path_outside_root", f"{outside!r} is not a path below the root")
    if not _is_text(sample):
        return _refused(sample, "text_not_utf8", "holds bytes that are not UTF-8")
    sample = settle(sample)
    allowed = {"no_target", "no_answer"} if UNLABELLED in sample.provenance.flags else set()
    reasons = [reason for reason in validate(sample) if reason not in allowed]
    if not reasons:
        return sample
    spans = [target.span_s for target in sample.targets if target.span_s is not None]
    boxes = [target.box for target in sample.targets if target.box is not None]
    media = sample.media[0] if sample.media else None
    facts = f"moments {spans} s of {media.sample_duration_s()} s" if spans and media else ""
    facts = f"boxes {boxes} in {media.width} x {media.height}" if boxes and media and not spans else facts
    return _refused(sample, reasons[0], ", ".join(reasons) + (f" ({facts})" if facts else ""))


def _refused(sample: Sample, reason: str, detail: str) -> Reject:
    place = at(sample.provenance.source_file, sample.provenance.row)
    return Reject(place, reason, f"{sample.sample_id}: {detail}")


_BROKEN = re.compile(f"[\ud800-\udfff{NOT_UTF8}]")
_INT32 = 2**31


def _require_room(sample: Sample) -> None:
    """ValueError for a size or a count that is no number, or too large for its column."""
    for media in sample.media:
        for value in (media.width, media.height, media.n_frames, media.frame_stride):
            if value is not None and not (isinstance(value, int) and 0 <= value < _INT32):
                raise ValueError(f"a size or a number of frames is {value!r}")


def _is_text(sample: Sample) -> bool:
    """False where a label file held bytes that are not UTF-8, which `files` passes on as surrogates or NOT_UTF8.
    TypeError for a text that is none."""
    texts = [sample.sample_id, sample.provenance.native_id, *(turn.text for turn in sample.turns)]
    texts += [name for media in sample.media for name in (media.uri, *(media.frame_names or ()))]
    texts += [text for target in sample.targets for text in (target.label, target.object_id) if text is not None]
    texts += [*(sample.options or ()), *(() if sample.answer_text is None else (sample.answer_text,))]
    text = "\n".join(texts)
    return text.isascii() or not _BROKEN.search(text)


def escapes_root(media: Media) -> bool:
    """Whether the media, or one of its frame files, lies elsewhere than below the folder it is named relative to."""
    paths = [media.uri, *(media.frame_names or ())]
    if all(path[:1] != "/" and "://" not in path and ".." not in path and "\0" not in path for path in paths):
        return False  # nearly all
    return any(
        path[:1] == "/" or "://" in path or "\0" in path or posixpath.normpath(path).split("/")[0] == ".."
        for path in paths
    )


def at(source_file: str, row: int) -> str:
    """How a reject names its record: the file below the root and the 1-based number of the record."""
    return f"{source_file}:{row + 1}"


def row_id(file: str, number: int) -> str:
    """The native id of a record that has none of its own: its label file, below the folder of those, and its place.

    A collection may call all of its files alike ("video/caption/webvid/train.json"), so that the folder counts.
    """
    return f"{below(file).rpartition('.')[0] or below(file)}-{number}"


DATASET = "name of the data set in ids, reports and the mixture; sources that read files of one name need their own"


def grounded_turns(
    task: str, expression: str, sample_id: str, *, answers: int = 1, prompts: int = 0
) -> tuple[Turn, Turn]:
    """Question and answer of a grounding sample on `media[0]`.

    The answer refers to `targets[0:answers]`, the question to the `prompts` box targets after them.
    """
    question, answer = render(task, expression, sample_id)
    given = tuple(range(answers, answers + prompts))
    return Turn("user", question, (0,), given), Turn("assistant", answer, (), tuple(range(answers)))


def raw_json(**values: Any) -> str:
    """The `raw` field of a provenance: native values as JSON with sorted keys."""
    return json.dumps(values, sort_keys=True)


def mapped(
    rows: Iterable[Any], source: str, build: Callable[[Any, int], Iterable[Sample | Reject]]
) -> Iterator[Sample | Reject]:
    """What `build(record, number)` makes of each native record, numbered from 0.

    A record that `build` cannot map because it has another shape becomes a reject "bad_record" (or "text_not_utf8").
    """
    for number, row in enumerate(rows):
        try:
            items = list(build(row, number))
        except MALFORMED as error:
            reason = "text_not_utf8" if isinstance(error, UnicodeError) else "bad_record"
            items = [Reject(at(source, number), reason, f"{type(error).__name__}: {error}")]
        yield from items


@dataclass(frozen=True)
class LabelFile:
    """One label file (`source`, below the root) of a split: names the samples that are made of its records."""

    dataset: str
    split: str
    source: str
    reader: str

    def sample(
        self,
        task: str,
        native_id: str,
        row: int,
        media: Sequence[Media],
        turns: Sequence[Turn],
        targets: Sequence[Target] = (),
        *,
        raw: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
        origin: int = 0,
        **answer: Any,
    ) -> Sample:
        """A sample of record `row`; `raw` are the native values that were changed, `answer` the fields options,
        answer_index and answer_text of a `Sample`."""
        return Sample(
            sample_id=self.sample_id(native_id),
            dataset=self.dataset,
            split=self.split,
            task=task,
            media=tuple(media),
            turns=tuple(turns),
            targets=tuple(targets),
            provenance=Provenance(
                source_file=self.source,
                row=row,
                native_id=native_id,
                reader=self.reader,
                raw=raw_json(**(raw or {})),
                flags=tuple(flags),
                origin=origin,
            ),
            **answer,
        )

    def grounded(
        self,
        task: str,
        expression: str,
        native_id: str,
        row: int,
        media: Media,
        targets: Sequence[Target],
        *,
        prompts: int = 0,
        raw: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
        origin: int = 0,
    ) -> Sample:
        """A sample whose answer is its targets, but for the last `prompts` ones (boxes), which the question gives."""
        turns = grounded_turns(
            task, expression, self.sample_id(native_id), answers=len(targets) - prompts, prompts=prompts
        )
        return self.sample(task, native_id, row, (media,), turns, targets, raw=raw, flags=flags, origin=origin)

    def sample_id(self, native_id: str) -> str:
        return f"{self.dataset}/{self.split}/{native_id}"
