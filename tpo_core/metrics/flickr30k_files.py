"""Reads Flickr30k Entities: which phrases of a sentence have boxes, and which."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files


@dataclass(frozen=True)
class Phrase:
    """Words of a sentence, the chain of mentions that they belong to, and its categories."""

    words: str
    chain: str
    categories: tuple[str, ...]


def image_ids(folder: Path, subset: str) -> list[str]:
    """The images of a subset."""
    return [line.strip() for _, line in files.lines(folder / f"{subset}.txt")]


def boxes(path: Path) -> dict[str, np.ndarray]:
    """The boxes (k, 4) of each chain, xyxy as they are written; chains without a box have no entry."""
    try:
        root = ET.fromstring(files.text(path))
    except ET.ParseError as error:
        raise TpoError(f"{path}: not XML ({error})") from None
    found: dict[str, list[list[int]]] = {}
    for each in root.findall("object"):
        box = each.find("bndbox")
        if box is None:
            continue
        corners = [_int(box, side, path) for side in ("xmin", "ymin", "xmax", "ymax")]
        for name in each.findall("name"):
            found.setdefault(name.text or "", []).append(corners)
    return {chain: np.array(rows, np.float64) for chain, rows in found.items()}


def sentences(path: Path) -> list[list[Phrase]]:
    """The phrases of each sentence; a phrase is `[/EN#CHAIN/CATEGORY/CATEGORY WORD WORD]`."""
    return [_phrases(line, path) for line in files.text(path).split("\n") if line]


def _phrases(line: str, path: Path) -> list[Phrase]:
    phrases: list[Phrase] = []
    mark, words = None, []
    for token in line.split():
        if mark is None:
            mark = token.split("/") if token.startswith("[") else None
            continue
        words.append(token.removesuffix("]"))
        if token.endswith("]"):
            if len(mark) < 2:
                raise TpoError(f"{path}: {mark[0]!r} opens a phrase without /EN#CHAIN")
            phrases.append(Phrase(" ".join(words), mark[1].removeprefix("EN#"), tuple(mark[2:])))
            mark, words = None, []
    return phrases


def _int(box: ET.Element, side: str, path: Path) -> int:
    try:
        return int(box.findtext(side, ""))
    except ValueError:
        raise TpoError(f"{path}: a bndbox without a whole number {side}") from None
