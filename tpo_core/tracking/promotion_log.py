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


class PromotionLog:
    """The log at a URI. An entry holds `number`, `done`, `model`, `action`, and the versions `from` and `to`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def entries(self) -> list[dict[str, Any]]:
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
        if not write_new(self._place(number, "json"), json.dumps(_finite(entry), allow_nan=False, indent=1).encode()):
            raise TpoError(f"{self.uri} has got another entry meanwhile: look at it, then run this again")
        return number

    def finish(self, number: int) -> None:
        """Say that what an entry announces has happened; may be repeated."""
        write_new(self._place(number, "done"), b"")

    def _place(self, number: int, kind: str) -> str:
        return join(self.uri, f"{number:06}.{kind}")


def champions(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Versions of one model that became champion one after another and were not rolled back, the present one last."""
    found: list[int] = []
    for entry in entries:
        if entry["action"] == "promote":
            found.append(entry["to"])
        else:
            while found and found[-1] != entry["to"]:
                found.pop()
    return found


def _finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON does not have, as null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
