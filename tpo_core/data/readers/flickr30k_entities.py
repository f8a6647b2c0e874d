"""Flickr30k Entities: the boxes of each noun phrase in five sentences an image; one sample a phrase.

Format: https://github.com/BryanPlummer/flickr30k_entities. `<split>.txt` lists images; `Sentences/<image>.txt` marks
phrases as `[/EN#<chain>/<type>/<type> words]`; `Annotations/<image>.xml` has objects named after the chains they show.

- A box may belong to several chains (several names), a chain to several boxes: any one of them is right, and the merged
  hull of the other protocol follows from them.
- Chain 0 is not visual, and `scene` and `nobndbox` mark chains without a box: nothing is there to be found, so such
  phrases are not read. A phrase whose chain the XML does not name at all is a reject.
- Coordinates are used raw, as by every evaluator; the heritage of VOC suggests that they start at 1 (option `origin`).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at, mapped
from tpo_core.data.readers.files import below, fill, read_lines
from tpo_core.data.sample import Media, Sample, Target
from tpo_core.storage.uri import join, list_names, read_bytes

NAME = "flickr30k_entities"
NOT_VISUAL = "0"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_PHRASE = re.compile(r"\[/EN#(?P<chain>\d+)(?P<types>(?:/[^\s/\]]+)*) (?P<words>[^\]]*)\]")


@dataclass(frozen=True)
class Annotation:
    """Size in pixels, native corners by chain, and the chains that are said to have no box."""

    width: int
    height: int
    corners: Mapping[str, list[list[float]]]
    boxless: frozenset[str]


def _number(element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no {path}")
    return float(text)


def _annotation(content: bytes) -> Annotation:
    try:
        tree = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"the annotation is not XML: {error}") from error
    corners: dict[str, list[list[float]]] = defaultdict(list)
    boxless = set()
    for item in tree.iter("object"):
        chains = [name.text or "" for name in item.findall("name")]
        box = item.find("bndbox")
        for chain in chains:
            if box is not None:
                corners[chain].append([_number(box, corner) for corner in CORNERS])
            else:
                boxless.add(chain)
    size = (int(_number(tree, "size/width")), int(_number(tree, "size/height")))
    return Annotation(*size, corners, frozenset(boxless))


def _phrases(line: str) -> tuple[str, list[tuple[re.Match[str], int]]]:
    """The sentence without marks, and its phrases with the character at which each begins there."""
    plain, phrases, end = "", [], 0
    for found in _PHRASE.finditer(line):
        plain += line[end : found.start()]
        phrases.append((found, len(plain)))
        plain += found["words"]
        end = found.end()
    return plain + line[end:], phrases


def _targets(words: str, corners: list[list[float]], origin: int) -> tuple[Target, ...]:
    rule, group = ("any_of", 0) if len(corners) > 1 else ("single", None)
    boxes = [(left - origin, top - origin, right - origin, bottom - origin) for left, top, right, bottom in corners]
    return tuple(Target("box", label=words, group=group, set_rule=rule, box=box) for box in boxes)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source, folder, origin = below(options["labels"], f"{split}.txt"), options["labels"], int(options["origin"])
    images = [line.strip() for line in read_lines(root, source, NAME)]
    there = {kind: set(list_names(join(root, folder, kind))) for kind in ("Sentences", "Annotations")}

    def build(image: str, number: int) -> Iterator[Sample | Reject]:
        if not image:
            return
        sentences, annotations = f"{image}.txt", f"{image}.xml"
        if sentences not in there["Sentences"] or annotations not in there["Annotations"]:
            yield Reject(at(source, number), "no_labels", f"{image} is listed, but has no sentences or no annotation")
            return
        annotation = _annotation(read_bytes(join(root, folder, "Annotations", annotations)))
        labels = LabelFile(NAME, split, below(folder, "Sentences", sentences), NAME)
        uri = fill(options["image"], name=image, split=split)
        media = Media(uri, "image", width=annotation.width, height=annotation.height)
        for row, line in enumerate(read_lines(root, labels.source, NAME)):
            sentence, phrases = _phrases(line)
            for place, (found, start) in enumerate(phrases):
                words, chain = found["words"], found["chain"]
                corners = annotation.corners.get(chain, [])
                if corners and words.strip():
                    raw = {
                        "bndboxes": corners,
                        "chain": chain,
                        "types": found["types"].strip("/").split("/"),
                        "sentence": sentence,
                        "phrase_span": [start, start + len(words)],
                    }
                    targets = _targets(words, corners, origin)
                    native_id = f"{image}-{row}-{place}"
                    yield labels.grounded("phrase_box", words, native_id, row, media, targets, raw=raw, origin=origin)
                elif chain != NOT_VISUAL and chain not in annotation.boxless:
                    yield Reject(at(labels.source, row), "no_labels", f"chain {chain} ({words!r}) is not annotated")

    yield from mapped(images, source, build)


READER = Reader(
    name=NAME,
    summary="Flickr30k Entities: the boxes of a phrase in an image",
    layout="{split}.txt, Sentences/<image>.txt, Annotations/<image>.xml, flickr30k-images/<image>.jpg",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "image": Option("flickr30k-images/{name}.jpg", "path of an image below the root"),
        "origin": Option("0", "coordinate of the first pixel in the annotations", ("0", "1")),
    },
)
