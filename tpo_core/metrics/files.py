"""Reads the files of truths and predictions; what is wrong with one is a TpoError that names it."""

import json
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError


def text(path: Path) -> str:
    """The content of a UTF-8 file."""
    try:
        if path.is_dir():
            raise TpoError(f"{path}: a folder, but this metric reads a file here; see --help")
        if not path.exists():
            raise TpoError(f"{path}: there is no such file")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TpoError(f"{path}: not UTF-8 text (byte {error.start}: {error.reason}); convert it") from None
    except OSError as error:
        raise TpoError(f"{path}: cannot be read ({error.strerror})") from None


def lines(path: Path) -> list[tuple[int, str]]:
    """Lines that hold something, with their number from 1."""
    return [(number, line) for number, line in enumerate(text(path).split("\n"), start=1) if line.strip()]


def json_value(path: Path) -> Any:
    """The one JSON value of a file; NaN and Infinity are taken as Python writes them."""
    try:
        return json.loads(text(path))
    except ValueError as error:
        raise TpoError(f"{path}: not JSON ({error})") from None


def json_lines(path: Path, *needed: str) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, each with the needed keys."""
    rows = []
    for number, line in lines(path):
        try:
            row = json.loads(line)
        except ValueError:
            raise TpoError(f"{path}: line {number} is not JSON") from None
        rows.append(row)
        require(row, needed, f"{path}: line {number}")
    return rows


def require_id(value: Any, where: str) -> None:
    """TpoError unless `value` can name something."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TpoError(f"{where}: {value!r} is no id; it must be a number or a text")


def require_list(value: Any, where: str) -> list[Any]:
    """The value, if it is a list; else TpoError."""
    if not isinstance(value, list):
        raise TpoError(f"{where} is {value!r}, not a list")
    return value


def require(row: Any, needed: tuple[str, ...], where: str) -> None:
    """TpoError unless `row` is an object with all the needed keys."""
    if not isinstance(row, dict):
        raise TpoError(f"{where} is not an object{' with ' * bool(needed)}{', '.join(needed)}")
    lacking = [key for key in needed if key not in row]
    if lacking:
        raise TpoError(f"{where} has no {lacking[0]!r}")
