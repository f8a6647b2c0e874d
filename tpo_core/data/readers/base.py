"""What every reader shares: the options it takes, how it finds its files, and the check of what it yields.

A reader is one function `parse(root, split, options)` that maps a native layout to canonical samples and yields a
`Reject` for a record it cannot use. `Reader.read` wraps it: options are checked, moments are clipped, and samples that
`tpo_core.data.sample.validate` refuses become rejects. Media are named relative to `root`; label files are read through
`tpo_core.storage`, so `root` may be a path, file:// or s3://.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tpo_core.data.instructions import render
from tpo_core.data.sample import UNLABELLED, Sample, Turn, settle, validate
from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage.uri import exists, is_local, join, list_names, read_bytes


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
            yield item if isinstance(item, Reject) else _settled(item)


def _settled(sample: Sample) -> Sample | Reject:
    sample = settle(sample)
    allowed = {"no_target"} if UNLABELLED in sample.provenance.flags else set()
    reasons = [reason for reason in validate(sample) if reason not in allowed]
    if not reasons:
        return sample
    spans = [target.span_s for target in sample.targets if target.span_s is not None]
    boxes = [target.box for target in sample.targets if target.box is not None]
    media = sample.media[0] if sample.media else None
    facts = f"moments {spans} s of {media.sample_duration_s()} s" if spans and media else ""
    facts = f"boxes {boxes} in {media.width} x {media.height}" if boxes and media and not spans else facts
    detail = f"{sample.sample_id}: {', '.join(reasons)}" + (f" ({facts})" if facts else "")
    return Reject(at(sample.provenance.source_file, sample.provenance.row), reasons[0], detail)


def at(source_file: str, row: int) -> str:
    """How a reject names its record: the file below the root and the 1-based number of the record."""
    return f"{source_file}:{row + 1}"


def fill(template: str, **names: str) -> str:
    """Puts names into a path template such as "videos/{name}.mp4"; other braces stay."""
    for key, value in names.items():
        template = template.replace("{" + key + "}", value)
    return template


def below(*parts: str) -> str:
    """A path below the root, empty parts left out."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def require(root: str, path: str, reader: str) -> str:
    """The URI of a label file. TpoError when it is not there, naming it and a similar file where there is one."""
    uri = join(root, path)
    if not exists(uri):
        folder, _, name = uri.rpartition("/")
        similar = difflib.get_close_matches(name, list_names(folder), n=3)
        hint = f"there is {', '.join(similar)}" if similar else "check root, split and options"
        hint = hint if exists(root) else "the root does not exist"
        raise TpoError(f"{reader}: expected the label file {uri}; {hint} (inspect {reader} --help shows the layout)")
    return uri


def read_lines(root: str, path: str, reader: str) -> Iterator[str]:
    """Lines of a UTF-8 text file without their ends; local files are streamed. TpoError at once when it is missing."""
    return _lines(require(root, path, reader), reader)


def _lines(uri: str, reader: str) -> Iterator[str]:
    try:
        if is_local(uri):
            with local.to_path(uri).open(encoding="utf-8-sig") as file:
                yield from (line.rstrip("\r\n") for line in file)
        else:
            yield from read_bytes(uri).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise TpoError(f"{reader}: {uri} is not UTF-8 text ({error.reason}); convert it") from error


def read_json_file(root: str, path: str, reader: str) -> Any:
    """The content of a JSON file. TpoError when it is missing or not JSON."""
    uri = require(root, path, reader)
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise TpoError(f"{reader}: {uri} is not JSON ({error}); is the download complete?") from error


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
