"""Proof without weights that the names and shapes of the published checkpoint and of our model fit, one to one."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from tpo_core.errors import TpoError
from tpo_core.models.convert.checkpoint import Header, differences
from tpo_core.models.convert.layout import Layout
from tpo_core.models.convert.places import Place, Room, places, to_ours
from tpo_core.models.convert.sam2 import to_hf
from tpo_core.models.convert.videochat_tpo import wanted


@dataclass(frozen=True)
class Report:
    """lines: a table by prefix and the verdict; wrong: what does not fit, a phrase for each tensor."""

    lines: list[str]
    wrong: list[str]


def read_manifest(path: str | Path) -> dict[str, Header]:
    """A JSON file with `tensors`: name -> {shape, dtype}, dtype as safetensors writes it.

    Raises TpoError when it is none.
    """
    try:
        tensors = json.loads(Path(path).read_text(encoding="utf-8"))["tensors"]
        return {name: Header(tuple(each["shape"]), each["dtype"]) for name, each in tensors.items()}
    except OSError as error:
        raise TpoError(f"{path} cannot be read ({error.strerror}): give the path of a manifest") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TpoError(f"{path} is no manifest: it needs `tensors`, with shape and dtype by name") from error


def check_manifest(headers: Mapping[str, Header], layout: Layout) -> Report:
    """Whether each tensor has one place, and each tensor of our model and of SAM2 comes from one of them."""
    rooms = places(layout)
    wrong = differences(headers, wanted(rooms, headers)) or _unfilled(headers, rooms, layout)
    if wrong:
        verdict = f"{len(wrong)} of {len(rooms)} names and shapes do not fit:"
        return Report([*_table(headers, rooms), "", verdict, *(f"  {each}" for each in wrong)], wrong)
    filled = len(layout.model) + len(layout.sam2)
    verdict = (
        f"{len(headers)} of {len(rooms)} names and shapes map, one to one; all {filled} tensors of our model "
        f"({len(layout.model)}) and of SAM2 ({len(layout.sam2)}) are filled"
    )
    unused = [f"  {name}: {place.reason}" for name, place in rooms.items() if place.room == Room.UNUSED]
    return Report([*_table(headers, rooms), "", verdict, f"{len(unused)} are unused:", *unused], [])


def _unfilled(headers: Mapping[str, Header], rooms: Mapping[str, Place], layout: Layout) -> list[str]:
    """The way there, with shapes alone: the names of `headers` are those of `rooms` by now."""
    of_room: dict[Room, dict[str, Tensor]] = {room: {} for room in Room}
    for name, header in headers.items():
        of_room[rooms[name].room][name] = torch.empty(header.shape, device="meta")
    model = [pair for name, value in of_room[Room.MODEL].items() for pair in to_ours(name, value).items()]
    return [*_compared(model, layout.model), *_compared(to_hf(of_room[Room.SAM2]).items(), layout.sam2)]


def _compared(made: Iterable[tuple[str, Tensor]], ours: Mapping[str, Tensor]) -> list[str]:
    wrong, seen = [], set[str]()
    for name, value in made:
        if name in seen:
            wrong.append(f"fills {name} twice")
        elif name not in ours:
            wrong.append(f"makes {name}, which our model does not have")
        elif ours[name].shape != value.shape:
            wrong.append(f"makes {name} of shape {tuple(value.shape)} where {tuple(ours[name].shape)} is needed")
        seen.add(name)
    return wrong + [f"leaves {name} of our model empty" for name in sorted(ours.keys() - seen)]


def _table(headers: Mapping[str, Header], rooms: Mapping[str, Place]) -> list[str]:
    """A line for each prefix: how many tensors and numbers, and how many of the tensors go to which room."""
    rows = [("prefix", "tensors", "parameters", *(room.value for room in Room))]
    for prefix in sorted({name.partition(".")[0] for name in headers}):
        names = [name for name in headers if name.partition(".")[0] == prefix]
        counts = [sum(name in rooms and rooms[name].room == room for name in names) for room in Room]
        numbers = sum(prod(headers[name].shape) for name in names)
        rows.append((prefix, f"{len(names):,}", f"{numbers:,}", *(f"{count:,}" if count else "" for count in counts)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
