"""DAVIS 2017: region similarity J and contour accuracy F of objects."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from tpo_core.errors import TpoError
from tpo_core.metrics import files, mask_files, masks
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   DAVIS itself (ImageSets, Annotations or Annotations_unsupervised); or a folder with SEQUENCE/FRAME.png.
                 The palette index is the object, 255 is void
--predictions    folder with SEQUENCE/FRAME.png, palette index = object

semi-supervised  without the first and the last frame; void is background; objects keep their numbers
unsupervised     all frames; void does not count; at most 20 proposals, matched to the objects by mean (J + F)/2, of
                 more objects some get none; with Annotations_unsupervised and a mask an expression, the rule of
                 Ref-DAVIS17

The objects of a sequence are those up to the largest number in its first frame. Strictly official, the decay is wrong
for more than 256 frames, and the objects of `unsupervised` are numbered by the proposal that they got.
"""

MAX_PROPOSALS = 20


def score(
    ground_truth: Path, predictions: Path, implementation: str, strict_official: bool, subset: str, resolution: str
) -> Report:
    """J and F by object and frame, their statistics over the frames, then means over the objects."""
    semi = implementation == "semi-supervised"
    sequences = _sequences(ground_truth, semi, subset, resolution)
    if not predictions.is_dir():
        raise TpoError(f"{predictions}: not a folder with SEQUENCE/FRAME.png; see --help")
    rejections = Rejections()
    items: dict[str, Any] = {}
    total = 0
    for name, frames in sequences.items():
        n_objects = _n_objects(frames[0])
        total += n_objects
        scored = frames[1:-1] if semi else frames
        if n_objects == 0 or not scored:
            if strict_official and not scored:
                raise TpoError(f"{name}: {len(frames)} frames, of which none is scored, at which the code stops")
            rejections.add("bad_truth", f"{name}: {n_objects} objects in {len(scored)} scored frames")
            continue
        read = _Reader(predictions / name, MAX_PROPOSALS if not semi else n_objects, strict_official, rejections)
        measure = _semi_supervised if semi else _unsupervised
        j_KT, f_KT = measure(scored, n_objects, read, strict_official)
        for number in range(n_objects):
            items[f"{name}_{number + 1}"] = _item(j_KT[number], f_KT[number], strict_official)
    for path in sorted(predictions.iterdir()):
        if path.is_dir() and path.name not in sequences:
            rejections.add("unknown", path.name)
    measures = [f"{letter}-{name}" for letter in "JF" for name in ("Mean", "Recall", "Decay")]
    means = {m: float(np.mean([item[m] for item in items.values()])) if items else float("nan") for m in measures}
    result = {"J&F-Mean": (means["J-Mean"] + means["F-Mean"]) / 2} | means
    return Report("davis", implementation, strict_official, result, len(items), total, rejections.summary(), items)


class _Reader:
    """Reads the predictions of a sequence; by default what is wrong with a frame is told, and it is a miss (None)."""

    def __init__(self, folder: Path, max_id: int, strict_official: bool, rejections: Rejections) -> None:
        self._folder = folder
        self._max_id = max_id
        self._strict = strict_official
        self._rejections = rejections
        if not folder.is_dir():
            self._tell("missing", folder.name)

    def __call__(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        path = self._folder / name
        where = f"{self._folder.name}/{name}"
        if not path.is_file():
            if self._folder.is_dir():
                self._tell("missing", where)
            return None
        try:
            image = mask_files.indices(path)
        except TpoError as error:
            self._tell("malformed", str(error))
            return None
        if image.shape != shape:
            self._tell("malformed", f"{where}: {image.shape} for {shape}")
            return None
        if image.max() > self._max_id:
            self._tell("out_of_range", f"{where}: object {image.max()} of at most {self._max_id}")
        return image

    def _tell(self, reason: str, what: str) -> None:
        if self._strict:
            raise TpoError(f"{what}: {reason}, at which the code of DAVIS stops")
        self._rejections.add(reason, what)


def _semi_supervised(
    frames: list[Path], n_objects: int, read: _Reader, strict_official: bool
) -> tuple[np.ndarray, np.ndarray]:
    """J and F, each (objects, frames)."""
    j_KT, f_KT = np.zeros((2, n_objects, len(frames)))
    for t, path in enumerate(frames):
        truth = mask_files.indices(path)
        found = read(path.name, truth.shape)
        if found is not None:
            for k in range(n_objects):
                one, true = masks.shape_of(found == k + 1), masks.shape_of(truth == k + 1)
                j_KT[k, t], f_KT[k, t] = masks.region_j(one, true), masks.contour_f(one, true)
    return j_KT, f_KT


def _unsupervised(
    frames: list[Path], n_objects: int, read: _Reader, strict_official: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The same for the proposal that each object got; of fewer proposals than objects the rest are empty."""
    j_PKT, f_PKT = np.zeros((2, max(MAX_PROPOSALS, n_objects), n_objects, len(frames)))
    n_proposals = n_objects
    for t, path in enumerate(frames):
        truth = mask_files.indices(path)
        found = read(path.name, truth.shape)
        if found is None:
            continue
        void = truth == mask_files.VOID
        counted = np.where(void, 0, found)
        true = [masks.shape_of((truth == k + 1) & ~void) for k in range(n_objects)]
        empty = masks.shape_of(np.zeros_like(void))
        shown = min(int(found.max()), MAX_PROPOSALS)
        n_proposals = max(n_proposals, shown)
        for p in range(len(j_PKT)):
            one = masks.shape_of(counted == p + 1) if p < shown else empty
            for k in range(n_objects):
                j_PKT[p, k, t], f_PKT[p, k, t] = masks.region_j(one, true[k]), masks.contour_f(one, true[k])
    mean_PK = (j_PKT.mean(axis=2) + f_PKT.mean(axis=2)) / 2
    proposals, objects = linear_sum_assignment(-mean_PK[:n_proposals])
    order = np.arange(n_objects) if strict_official else np.argsort(objects)
    return j_PKT[proposals, objects][order], f_PKT[proposals, objects][order]


def _item(j_T: np.ndarray, f_T: np.ndarray, strict_official: bool) -> dict[str, float]:
    names = ("Mean", "Recall", "Decay")
    j, f = (masks.statistics(each, official_bins=strict_official) for each in (j_T, f_T))
    return {f"J-{n}": value for n, value in zip(names, j, strict=True)} | {
        f"F-{n}": value for n, value in zip(names, f, strict=True)
    }


def _n_objects(first: Path) -> int:
    image = mask_files.indices(first)
    return int(np.max(image, where=image != mask_files.VOID, initial=0))


def _sequences(root: Path, semi: bool, subset: str, resolution: str) -> dict[str, list[Path]]:
    """The truth of each frame, by sequence."""
    if not root.is_dir():
        raise TpoError(f"{root}: not the folder of DAVIS; see --help")
    if (root / "ImageSets").is_dir():
        year = "2019" if not semi and subset.startswith("test") else "2017"
        listed = root / "ImageSets" / year / f"{subset}.txt"
        annotations = root / ("Annotations" if semi else "Annotations_unsupervised") / resolution
        names = [line.strip() for _, line in files.lines(listed)]
    else:
        annotations = root
        names = sorted(path.name for path in root.iterdir() if path.is_dir())
    found = {name: sorted((annotations / name).glob("*.png")) for name in names}
    for name, frames in found.items():
        if not frames:
            raise TpoError(f"{annotations / name}: holds no FRAME.png")
    if not found:
        raise TpoError(f"{root}: holds no SEQUENCE/FRAME.png; see --help")
    return found


SCORER = Scorer(
    "davis",
    ("semi-supervised", "unsupervised"),
    READS,
    score,
    (
        Option("subset", str, "train, val, test-dev or test-challenge of DAVIS itself", "val"),
        Option("resolution", str, "480p or Full-Resolution of DAVIS itself", "480p"),
    ),
)
