"""python benchmarks/metrics.py [--rounds N]

Measures how long `python -m tpo_core.metrics.score` takes for files of the size of a real benchmark: both tasks of the
1,550 queries of QVHighlights val, and J and F of 100 frames of 480p with two objects. CPU time of the whole command, on
one core.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
QUERIES, CLIPS, WINDOWS = 1550, 75, 10
FRAMES, SIZE_WH = 100, (854, 480)


def write_queries(folder: Path, rng: np.random.Generator) -> list[str]:
    """A truth of one to three windows a query and a submission of ten, with saliency scores of all clips."""
    truth, given = [], []
    for qid in range(QUERIES):
        windows = [[2 * int(start), 2 * int(start + length)] for start, length in rng.integers(1, 20, (1 + qid % 3, 2))]
        clips = sorted({clip for start, end in windows for clip in range(start // 2, end // 2)})
        scores = rng.integers(0, 5, (len(clips), 3)).tolist()
        truth.append(
            {"qid": qid, "duration": 2 * CLIPS, "relevant_windows": windows, "relevant_clip_ids": clips}
            | {"saliency_scores": scores}
        )
        starts, lengths, confidences = rng.uniform(0, 100, WINDOWS), rng.uniform(2, 50, WINDOWS), rng.random(WINDOWS)
        ranked = sorted(zip(starts, starts + lengths, confidences, strict=True), key=lambda window: -window[2])
        given.append({"qid": qid, "pred_relevant_windows": ranked, "pred_saliency_scores": rng.random(CLIPS).tolist()})
    for name, rows in (("truth", truth), ("predictions", given)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "qvhighlights",
        "--ground-truth",
        str(folder / "truth.jsonl"),
        "--predictions",
        str(folder / "predictions.jsonl"),
    ]


def write_masks(folder: Path, rng: np.random.Generator) -> list[str]:
    """Two moving discs, and the same ones a few pixels off."""
    y_H1, x_1W = np.ogrid[: SIZE_WH[1], : SIZE_WH[0]]
    for name, noise in (("truth", 0.0), ("predictions", 4.0)):
        (folder / name / "clip").mkdir(parents=True)
        for frame in range(FRAMES):
            mask_HW = np.zeros(SIZE_WH[::-1], np.uint8)
            for number, radius in ((1, 90), (2, 60)):
                x, y = 200 * number + frame + rng.normal(0, noise), 150 * number + rng.normal(0, noise)
                mask_HW[(x_1W - x) ** 2 + (y_H1 - y) ** 2 < radius**2] = number
            picture = Image.fromarray(mask_HW, "P")
            picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
            picture.save(folder / name / "clip" / f"{frame:05d}.png")
    return ["davis", "--ground-truth", str(folder / "truth"), "--predictions", str(folder / "predictions")]


def cpu_seconds(words: list[str]) -> float:
    """Of the command on one core, imports included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, "-m", "tpo_core.metrics.score", *words]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **one_thread}, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; %(default)s")
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    print("| what | CPU seconds, median (range) | asked |\n|---|---|---|")
    for title, write, asked in (
        (f"QVHighlights, {QUERIES:,} queries, moments and highlights", write_queries, "< 2 s"),
        (f"J and F, {FRAMES} frames of 480p, 2 objects", write_masks, "< 5 s"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            words = write(Path(folder), rng)
            took = sorted(cpu_seconds(words) for _ in range(rounds))
        print(f"| {title} | {statistics.median(took):.2f} ({took[0]:.2f} - {took[-1]:.2f}) | {asked} |")


if __name__ == "__main__":
    main()
