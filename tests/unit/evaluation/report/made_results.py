"""Results as an evaluation leaves them, made up, and a reader of the page that they give."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from tests.unit.evaluation.conftest import DURATION_S, FRAMES, HEIGHT, TIMES_S, WIDTH, make_sample
from tpo_core.evaluation.report.entries import Entry, Row
from tpo_core.evaluation.report.footage import Footage

VOID = {"meta", "img", "br", "line", "link", "hr", "input"}


def make_row(number: int = 0, task: str = "region", **more) -> dict:
    """A row of rows.jsonl; by default a box that is half right."""
    return {
        "sample_id": f"tiny/val/{task}-{number}",
        "task": task,
        "request": "Where is the ball?",
        "answer": "There.",
        "activated": ["region"],
        "truth": [4.0, 3.0, 20.0, 15.0],
        "prediction": [4.0, 3.0, 12.0, 15.0],
        "scores": {"iou": 0.5},
        "failure": None,
    } | more


def make_result(name: str = "refcoco_val", **more) -> dict:
    """The content of a result.json."""
    return {
        "entry": name,
        "title": "RefCOCO val",
        "metric": "refcoco",
        "implementation": "iou",
        "metrics": {"ACC@0.5": 0.75},
        "published": {"videochat_tpo": {"ACC@0.5": 0.859}},
        "asked": 4,
        "scored": 4,
        "rejected": {},
        "activation": {"false": None, "missed": 0.25},
        "control": None,
        "model": "runs/mine/model",
        "digest": "0123abcd",
    } | more


def write_result(output: Path, result: dict, rows: list[dict]) -> Path:
    """Leaves an entry below `output`; returns its folder."""
    folder = output / result["entry"]
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_entry(rows: list[dict] = (), **more) -> Entry:
    """An entry whose rows are in memory."""
    records = [Row.model_validate(row) for row in rows]
    values = {
        "name": "refcoco_val",
        "title": "RefCOCO val",
        "metric": "refcoco (iou)",
        "metrics": {"ACC@0.5": 0.75},
        "references": {},
        "asked": len(records),
        "scored": len(records),
        "rejected": {},
        "activation": {},
        "model": "mine",
        "digest": "0123",
        "command": "",
        "rows": lambda: iter(records),
    }
    return Entry(**values | more)


def make_footage(task: str = "region", *, noise: bool = False, width: int = WIDTH, height: int = HEIGHT) -> Footage:
    """Grey frames, or such as no JPEG makes small."""
    chance = np.random.default_rng(0)

    def frame(place: int) -> np.ndarray:
        grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        return chance.integers(0, 256, (960, 960, 3), np.uint8) if noise else grey

    sample, times_s, frames = make_sample(task), np.array(TIMES_S), np.array(FRAMES, np.int64)
    return Footage(sample, times_s, frames, width, height, DURATION_S, frame)


class Page(HTMLParser):
    """What is on a page: its tags with their attributes, its visible text, the texts of elements by class."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[tuple[str, str]] = []
        self.by_class: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("class") or ""))
            self.by_class.setdefault(self.open[-1][1], []).append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data):
        if self.open and self.open[-1][0] != "style":
            self.words.append(data)
            for _, name in self.open:
                self.by_class[name][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a tag."""
        return [attrs for name, attrs in self.tags if name == tag]

    def of(self, name: str) -> list[str]:
        """The texts of all elements of a class."""
        return [" ".join(text.split()) for text in self.by_class.get(name, [])]
