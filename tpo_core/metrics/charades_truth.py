"""Reads the truth of Charades-STA in the forms that it is passed around in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import files
from tpo_core.metrics.submission import pair


@dataclass(frozen=True)
class Sentence:
    """One sentence; `windows` are [[start_s, end_s]], as in the file. `id` is the line from 0 where none is given."""

    id: Any
    video: str
    text: str
    windows: Any

    @property
    def window(self) -> tuple[float, float] | None:
        """Its one moment, (start_s, end_s); None for what is none."""
        return pair(self.windows[0]) if isinstance(self.windows, list) and len(self.windows) == 1 else None


def sentences(path: Path) -> list[Sentence]:
    """Of `charades_sta_*.txt`, of its JSON lines (qid, relevant_windows) or of its COCO form (annotations)."""
    if path.suffix == ".txt":
        found = [_of_line(path, number, line) for number, line in files.lines(path)]
    elif path.suffix == ".jsonl":
        rows = files.json_lines(path, "qid", "relevant_windows")
        found = [Sentence(r["qid"], str(r.get("vid")), str(r.get("query")), r["relevant_windows"]) for r in rows]
    else:
        found = _of_coco(path)
    ids = [sentence.id for sentence in found]
    for one in ids:
        files.require_id(one, f"{path}: id")
    if len(set(ids)) < len(ids):
        raise TpoError(f"{path}: repeats id {next(one for one in ids if ids.count(one) > 1)}; keep one")
    if not found:
        raise TpoError(f"{path}: holds no truth, so there is nothing to score")
    return found


def _of_line(path: Path, number: int, line: str) -> Sentence:
    """A sentence may hold # itself, so the first ## parts it from its moment."""
    head, mark, text = line.partition("##")
    fields = head.split()
    try:
        start_s, end_s = float(fields[1]), float(fields[2])
    except (IndexError, ValueError):
        mark = ""
    if not mark:
        raise TpoError(f"{path}: line {number} is not `VIDEO START END##SENTENCE`")
    return Sentence(number - 1, fields[0], text.strip(), [[start_s, end_s]])


def _of_coco(path: Path) -> list[Sentence]:
    content = files.json_value(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise TpoError(f"{path}: neither a .txt nor a .jsonl, nor a JSON object with a list of annotations")
    found = []
    for number, row in enumerate(content["annotations"]):
        files.require(row, ("id", "timestamp"), f"{path}: annotation {number}")
        found.append(Sentence(row["id"], str(row.get("image_id")), str(row.get("caption")), [row["timestamp"]]))
    return found
