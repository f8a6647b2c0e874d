"""SA-V: J and F of objects, as the evaluator of its repository measures them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import mask_files
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   folder with VIDEO/OBJECT/FRAME.png, one grey PNG an object (Annotations_6fps, or what holds it); or
                 with VIDEO/FRAME.png, palette index = object
--predictions    folder of the same layout; frames that are not annotated are ignored

Percent, over objects. The first and the last annotated frame are left out. An object counts from the frame where truth
or prediction shows it first. One that the truth does not show in a scored frame is left out.
"""


@dataclass
class _Object:
    """J and F of the frames since an object was first seen."""

    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    true: bool = False


def score(
    ground_truth: Path,
    predictions: Path,
    implementation: str,
    strict_official: bool,
    do_not_skip_first_and_last_frame: bool,
) -> Report:
    """Mean over the frames of an object, then over the objects of all videos."""
    root = ground_truth / "Annotations_6fps" if (ground_truth / "Annotations_6fps").is_dir() else ground_truth
    videos, given = _folders(root), _folders(predictions)
    rejections = Rejections()
    for reason, names in (("missing", videos.keys() - given.keys()), ("unknown", given.keys() - videos.keys())):
        for name in sorted(names):
            if strict_official:
                raise TpoError(f"{name}: {reason} video, at which the evaluator of SA-V stops")
            rejections.add(reason, name)
    cut = slice(None) if do_not_skip_first_and_last_frame else slice(1, -1)
    items: dict[str, Any] = {}
    unseen = 0
    for video, folder in videos.items():
        layers = _folders(folder)
        for layer in layers or {"": folder}:
            frames = sorted((folder / layer).glob("*.png"))[cut]
            read = _Reader(predictions / video / layer, bool(layers), strict_official, rejections)
            true = {number: one for number, one in _objects(frames, read).items() if one.true}
            if layers and not true:
                if strict_official:
                    raise TpoError(f"{video}/{layer}: never in a scored frame, at which the evaluator of SA-V stops")
                rejections.add("bad_truth", f"{video}/{layer}")
                unseen += 1
            for number, one in sorted(true.items()):
                j, f = 100 * float(np.mean(one.j)), 100 * float(np.mean(one.f))
                items[f"{video}/{layer or f'{number:03}'}"] = {"J&F": (j + f) / 2, "J": j, "F": f}
    j, f = (float(np.mean([item[m] for item in items.values()])) if items else float("nan") for m in "JF")
    result = {"J&F": (j + f) / 2, "J": j, "F": f}
    told = rejections.summary()
    return Report("sav", implementation, strict_official, result, len(items), len(items) + unseen, told, items)


def _folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise TpoError(f"{root}: not a folder of videos; see --help")
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}


class _Reader:
    """Reads truth and prediction of a frame; in the layout of SA-V both are of one object, number 1."""

    def __init__(self, folder: Path, one_object: bool, strict_official: bool, rejections: Rejections) -> None:
        self._folder = folder
        self._one_object = one_object
        self._strict = strict_official
        self._rejections = rejections

    def truth(self, path: Path) -> np.ndarray:
        image = mask_files.indices(path)
        if self._one_object and len(np.unique(image)) > 2:
            raise TpoError(f"{path}: more than one object; in the layout of SA-V a PNG has one")
        return self._numbered(image)

    def prediction(self, path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
        """None where it is not there or not usable: a miss, or strictly official a TpoError."""
        mine = self._folder / path.name
        where = f"{self._folder.parent.name}/{self._folder.name}/{path.name}"
        if not mine.is_file():
            self._tell("missing", where)
            return None
        try:
            image = mask_files.indices(mine)
        except TpoError as error:
            self._tell("malformed", str(error))
            return None
        if image.shape != shape:
            self._tell("malformed", f"{where}: {image.shape} for {shape}")
            return None
        if self._one_object and len(np.unique(image)) > 2:
            self._tell("malformed", f"{where}: more than one object")
            return None
        return self._numbered(image)

    def _numbered(self, image: np.ndarray) -> np.ndarray:
        return (image > 0).astype(np.uint8) if self._one_object else image

    def _tell(self, reason: str, what: str) -> None:
        if self._strict:
            raise TpoError(f"{what}: {reason}, at which the evaluator of SA-V stops")
        self._rejections.add(reason, what)


def _objects(frames: list[Path], read: _Reader) -> dict[int, _Object]:
    """Every number that truth or prediction shows."""
    objects: dict[int, _Object] = {}
    for path in frames:
        truth = read.truth(path)
        found = read.prediction(path, truth.shape)
        shown = [truth] if found is None else [truth, found]
        for number in {int(n) for image in shown for n in np.unique(image)} - {0}:
            objects.setdefault(number, _Object())
        for number, one in objects.items():
            true = truth == number
            one.true |= bool(true.any())
            j, f = (0.0, 0.0) if found is None else mask_files.pair_scores(found == number, true)
            one.j.append(j)
            one.f.append(f)
    return objects


SCORER = Scorer(
    "sav",
    ("sav",),
    READS,
    score,
    (Option("do_not_skip_first_and_last_frame", bool, "score all annotated frames", False),),
)
