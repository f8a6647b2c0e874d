"""How readers find and read label files: every function takes the root (a path, file:// or s3://) and a path below it.

A missing or damaged file is a TpoError that names it. What is large is streamed: lines, and the items of a JSON list or
object. A pickle is opened by an unpickler that builds containers and scalars only.
"""

from __future__ import annotations

import difflib
import io
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import ijson

from tpo_core.errors import TpoError
from tpo_core.storage.uri import exists, join, list_names, open_read, read_bytes

_NOTHING = object()


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


def read_lines(root: str, path: str, reader: str, *, encoding: str = "utf-8-sig") -> Iterator[str]:
    """Lines of a text file without their ends, streamed. TpoError at once when it is missing.

    Bytes that are not of the encoding come as lone surrogates; `Reader.read` rejects the samples that hold any.
    """
    return _lines(require(root, path, reader), encoding)


def _lines(uri: str, encoding: str) -> Iterator[str]:
    with open_read(uri) as file, io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape") as text:
        yield from (line.rstrip("\r\n") for line in text)


def read_json_file(root: str, path: str, reader: str) -> Any:
    """The content of a JSON file. TpoError when it is missing or not JSON."""
    uri = require(root, path, reader)
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise TpoError(f"{reader}: {uri} is not JSON ({error}); is the download complete?") from error


def stream_items(root: str, path: str, reader: str, prefix: str = "") -> Iterator[Any]:
    """The items of a JSON list, one after another; `prefix` names the key it lies under, "" for a list at the top.

    Raises:
        TpoError: the file is missing (at once), is not JSON, or has no list there (when iterated).
    """
    uri, place = require(root, path, reader), f"{prefix}.item" if prefix else "item"
    return _streamed(uri, reader, lambda file: ijson.items(file, place, use_float=True), prefix, "list")


def stream_pairs(root: str, path: str, reader: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs of a JSON object, one after another: of the whole file, or of the object under `prefix`,
    for example "database". Raises as `stream_items` does."""
    uri = require(root, path, reader)
    return _streamed(uri, reader, lambda file: ijson.kvitems(file, prefix, use_float=True), prefix, "object")


def _streamed(
    uri: str, reader: str, parse: Callable[[BinaryIO], Iterator[Any]], prefix: str, wanted: str
) -> Iterator[Any]:
    try:
        with open_read(uri) as file:
            first = next(items := parse(file), _NOTHING)
            if first is not _NOTHING:
                yield first
                yield from items
                return
        with open_read(uri) as file:
            begins = {"list": "start_array", "object": "start_map"}[wanted]
            found = any(event == begins and at == prefix for at, event, _ in ijson.parse(file))
    except (ijson.JSONError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise TpoError(f"{reader}: {uri} is not JSON ({text}); is the download complete?") from error
    if not found:
        place = f"under {prefix!r}" if prefix else "at its top"
        raise TpoError(f"{reader}: {uri} holds no JSON {wanted} {place}; is it the annotation file?")


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every class and function, so that a pickle can only hold containers and scalars."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which annotations do not need")


def read_pickle_list(root: str, path: str, reader: str) -> list[Any]:
    """The list in a pickle (of Python 2, too) that holds containers and scalars only.

    Raises:
        TpoError: no such file, no list, or anything that loading would have to import or call.
    """
    uri = require(root, path, reader)
    try:
        content = _PlainUnpickler(io.BytesIO(read_bytes(uri)), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise TpoError(
            f"{reader}: {uri} is not a pickle of plain annotations ({error}); refusing to load it"
        ) from error
    if not isinstance(content, list):
        raise TpoError(f"{reader}: {uri} holds no list; is it the annotation file?")
    return content
