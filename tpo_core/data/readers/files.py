"""How readers find and read label files: every function takes the root (a path, file:// or s3://) and a path below it.

A missing or damaged file is a TpoError that names it. What is large is streamed: lines, and the items of a JSON list or
object. A pickle is opened by an unpickler that builds containers and scalars only.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import ijson

from tpo_core.errors import TpoError
from tpo_core.storage.uri import exists, join, list_names, open_read, read_bytes


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


def read_table(root: str, path: str, reader: str) -> Iterator[dict[str | None, Any]]:
    """The rows of a CSV file by the names of its header. TpoError when it is missing, or where a quote has no end."""
    rows = csv.DictReader(read_lines(root, path, reader))

    def checked() -> Iterator[dict[str | None, Any]]:
        try:
            yield from rows
        except csv.Error as error:
            place = f"{join(root, path)} line {rows.line_num}"
            raise TpoError(f"{reader}: {place} is not CSV ({error}); is a quote missing before it?") from error

    return checked()


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


def _streamed(uri: str, reader: str, parse: Callable[[Any], Iterator[Any]], prefix: str, wanted: str) -> Iterator[Any]:
    given = 0
    try:
        try:
            with open_read(uri) as file:
                for item in parse(file):
                    given += 1
                    yield item
        except (ijson.JSONError, UnicodeDecodeError):  # perhaps of what one record holds: the others still count
            with open_read(uri) as file:
                for number, item in enumerate(parse(Mended(file)), start=1):
                    if number > given:
                        given = number
                        yield item
        if given:
            return
        with open_read(uri) as file:
            begins = {"list": "start_array", "object": "start_map"}[wanted]
            found = any(event == begins and at == prefix for at, event, _ in ijson.parse(Mended(file)))
    except (ijson.JSONError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise TpoError(f"{reader}: {uri} is not JSON ({text}); is the download complete?") from error
    if not found:
        place = f"under {prefix!r}" if prefix else "at its top"
        raise TpoError(f"{reader}: {uri} holds no JSON {wanted} {place}; is it the annotation file?")


class Mended:
    """A JSON file whose NaN and Infinity read as null, and whose bytes that are not UTF-8 as `NOT_UTF8`: what Python's
    own parser lets pass and a strict one does not. Samples of a record that holds either become rejects."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._held = ""
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """At least one byte until the end, whatever the size. ijson asks for 0 bytes to learn what `read` gives."""
        if size == 0:
            return b""
        mended = ""
        while not mended and not self._ended:
            chunk = self._file.read(size)
            self._ended = not chunk
            mended = self._complete(self._held + self._decode(chunk, self._ended))
        return mended.encode()

    def _complete(self, text: str) -> str:
        """`text` mended up to the last token that it holds whole; the rest waits for more."""
        parts, end = [], 0
        for token in _TOKEN.finditer(text):
            if token.end() == len(text) and not self._ended:
                break
            end = token.end()
            word = token[0]
            parts.append("null" if word in _NOT_FINITE else _SURROGATE.sub(NOT_UTF8, word))
        self._held = text[end:]
        return "".join(parts)


NOT_UTF8 = "\ufdd0"  # a code point that Unicode keeps out of texts
_SURROGATE = re.compile("[\udc80-\udcff]")
_NOT_FINITE = {"NaN", "Infinity", "-Infinity"}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|-?[A-Za-z]+|[^"A-Za-z-]+|.', re.DOTALL)


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
