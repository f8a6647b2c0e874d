"""The append-only log of promotions: a folder of numbered files, 000001.json and on, none of which is ever rewritten.

An entry is written before the alias moves, and `000001.done` beside it after. So an entry without a mark is a move that
somebody began; whoever comes next finishes it. Two processes cannot write the same number: the storage refuses the
second, on S3 as on a disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.storage.uri import join, list_names, read_json, write_new

Entry = dict[str, Any]


class PromotionLog:
    """The log at a URI. An entry holds `number`, `done`, `model`, `action`, the versions `from` and `to`, and of the
    latter `fingerprint`, `metrics` and `evaluation` (which entries of earlier releases lack).

    action: `promote`, `rollback` (also of an alias that other hands moved), or `confirm`: a champion that was measured
    again was judged again, and stays.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def entries(self) -> list[Entry]:
        """Of all models, oldest first."""
        names = list_names(self.uri)
        numbers = sorted(int(name.removesuffix(".json")) for name in names if name.endswith(".json"))
        return [
            {**read_json(self._place(number, "json")), "number": number, "done": f"{number:06}.done" in names}
            for number in numbers
        ]

    def append(self, entry: Mapping[str, Any], after: int) -> int:
        """Write the entry that follows number `after`; its number. TpoError if there is one already."""
        number = after + 1
        if not write_new(self._place(number, "json"), json.dumps(finite(entry), allow_nan=False, indent=1).encode()):
            raise TpoError(f"{self.uri} has got another entry meanwhile: look at it, then run this again")
        return number

    def finish(self, number: int) -> None:
        """Say that what an entry announces has happened; may be repeated."""
        write_new(self._place(number, "done"), b"")

    def _place(self, number: int, kind: str) -> str:
        return join(self.uri, f"{number:06}.{kind}")


def champions(entries: Sequence[Entry]) -> list[Entry]:
    """Of the entries of one model, those by which versions became champion one after another that were not rolled back,
    the present one last; of a version that was judged again, the entry that says so."""
    found: list[Entry] = []
    for entry in entries:
        if entry["action"] == "promote":
            found.append(entry)
            continue
        while found and _version(found[-1]) != _version(entry):
            found.pop()
        if entry["action"] == "confirm":
            found[-1:] = [entry]
    return found


def judged(entries: Sequence[Entry], model: str, version: int, fingerprint: str | None) -> Entry | None:
    """The last entry that says what a version was judged on; None for one that never passed."""
    mine = [entry for entry in entries if entry["model"] == model and _version(entry) == (version, fingerprint)]
    return next((entry for entry in reversed(mine) if entry["action"] != "rollback"), None)


def _version(entry: Entry) -> tuple[int | None, str | None]:
    """By number and fingerprint: MLflow counts from 1 again when a model was deleted and registered anew."""
    return entry["to"], entry["fingerprint"]


def finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON does not have, as null."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
