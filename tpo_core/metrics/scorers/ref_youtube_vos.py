"""Ref-YouTube-VOS: J and F of the masks of expressions on annotated frames."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import expressions, mask_files
from tpo_core.metrics.expressions import Expression
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Report

READS = """\
--ground-truth   folder with meta_expressions.json (or meta_expressions/SPLIT/meta_expressions.json), whose expressions
                 have an obj_id, and Annotations/VIDEO/FRAME.png (or SPLIT/Annotations), palette index = obj_id
--predictions    folder with VIDEO/EXPRESSION/FRAME.png; what is not black is the mask

The rule of the server is not public. This is the rule of MeViS on the frames of a video that have an annotation; see
the help of mevis for what is degenerate.
"""


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool, split: str) -> Report:
    """Mean over the annotated frames of an expression, then over the expressions."""
    meta = _first(
        ground_truth / "meta_expressions.json", ground_truth / "meta_expressions" / split / "meta_expressions.json"
    )
    annotations = _first(ground_truth / "Annotations", ground_truth / split / "Annotations")
    videos = expressions.videos_of(meta)
    truths = _truths(videos, annotations, f"{meta}")
    return expressions.report("ref_youtube_vos", implementation, videos, truths, predictions, strict_official)


def _first(*paths: Path) -> Path:
    for path in paths:
        if path.exists():
            return path
    raise TpoError(f"there is neither {' nor '.join(str(path) for path in paths)}; see --help")


def _truths(videos: dict[str, Any], annotations: Path, where: str) -> Iterator[Expression | str]:
    for video, entry in videos.items():
        paths = {frame: annotations / video / f"{frame}.png" for frame in sorted(entry["frames"])}
        images = {frame: mask_files.indices(path) for frame, path in paths.items() if path.is_file()}
        for name, expression in entry["expressions"].items():
            if "obj_id" not in expression:
                yield f"{video}_{name} has no obj_id (a split without truth)"
            elif not images:
                yield f"{video}_{name} has no annotated frame"
            else:
                number = _number(expression["obj_id"], f"{where}: {video} {name}")
                yield Expression(video, name, [(frame, image == number) for frame, image in images.items()])


def _number(obj_id: Any, where: str) -> int:
    try:
        return int(obj_id)
    except (TypeError, ValueError):
        raise TpoError(f"{where}: obj_id {obj_id!r} is no number of an object") from None


SCORER = Scorer(
    "ref_youtube_vos",
    ("mevis_rule",),
    READS,
    score,
    (Option("split", str, "train, valid or test, where the folder has them", "valid"),),
)
