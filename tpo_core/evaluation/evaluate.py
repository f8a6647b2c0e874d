"""Evaluates a saved model (or a base before TPO) on one part of a shard set and leaves everything one may look at.

<output>/<part>/metrics.json        flat metrics, counts, the constant baselines beside them
<output>/<part>/predictions.jsonl   a row for each answered request
<output>/<part>/gallery/*.png       predictions drawn on frames, truth beside prediction
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tpo_core.config.schema import Recipe, identity
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation import truth
from tpo_core.evaluation.constants import constant_baselines
from tpo_core.evaluation.gallery import GalleryItem, gallery
from tpo_core.evaluation.latency import latency
from tpo_core.evaluation.measure import Scored, measure
from tpo_core.models.source import identify, local_path
from tpo_core.models.tpo import SETTINGS, TpoModel
from tpo_core.storage.uri import exists, join

EVALUATION_VERSION = 4  # raise it when the same model would get other numbers; 4: choices are asked too
GALLERY_TASKS = ("region", "moment", "mask", "track")


def evaluate_part(
    recipe: Recipe,
    model_uri: str,
    shards_uri: str,
    part: str,
    output: Path,
    *,
    threads: int,
    echo: Callable[[str], None],
) -> dict[str, Any]:
    """Runs the model over a part and writes the folder above. Returns {metrics, counts, baseline, asked}.

    What is there already is returned when it answers the same question (of an evaluation that was cut off at another
    part), and measured anew when the model, the shards, the evaluation section of the recipe or the code are others.
    """
    torch.set_num_threads(threads)
    folder = output / part
    finished = folder / "metrics.json"
    shards = ShardSet.open(shards_uri)
    asked = {
        "version": EVALUATION_VERSION,
        "model": identify(model_uri, whole=True),
        "built_by": built_by(recipe, model_uri),
        "shards": shards.digest,
        "evaluation": identity(recipe.evaluation),
    }
    if finished.exists() and (result := json.loads(finished.read_text()))["asked"] == asked:
        return result
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = load_model(recipe, model_uri)
    config = recipe.evaluation
    measured = measure(model, shards, part, config, echo)
    examples = [one.example for one in measured.scored]
    timed = latency(model, part, examples, config.timed_requests, config.max_new_tokens)
    with (folder / "predictions.jsonl").open("w") as file:
        file.writelines(json.dumps(one.row()) + "\n" for one in measured.scored)
    if model.heads:
        gallery(pick(measured.scored, config.gallery_size), folder / "gallery")
    result = {
        "metrics": measured.metrics | timed,
        "counts": measured.counts,
        "baseline": constant_baselines(shards, part, measured.scored),
        "asked": asked,
    }
    aside = finished.with_suffix(".partial")
    aside.write_text(json.dumps(result, indent=1))
    os.replace(aside, finished)
    return result


def built_by(recipe: Recipe, model_uri: str) -> dict[str, Any] | None:
    """What of the recipe makes the model that `load_model` gives: of a base the model section; None of one that
    training saved with its own. A name on the hub is taken for a base, so that nothing is fetched."""
    return None if exists(join(model_uri, SETTINGS)) else identity(recipe.model)


def load_model(recipe: Recipe, model_uri: str) -> TpoModel:
    """A model that training saved, or a Hugging Face base without heads, ready to answer."""
    if (Path(local_path(model_uri)) / SETTINGS).exists():
        model = TpoModel.from_pretrained(model_uri, run=recipe.model)
    else:
        model = TpoModel.from_base(model_uri, recipe.model, heads=[])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def pick(scored: Sequence[Scored], size: int) -> list[GalleryItem]:
    """At most `size` answers for the gallery, none twice: the tasks in turn, at equal distances through its answers."""
    groups = [[one for one in scored if one.task == task] for task in GALLERY_TASKS]
    groups = [group for group in groups if group]
    share = -(-size // len(groups)) if groups else 0
    columns = [
        [group[i * len(group) // share] for i in range(share)] if len(group) > share else group for group in groups
    ]
    chosen = [column[row] for row in range(share) for column in columns if row < len(column)]
    return [gallery_item(one) for one in chosen[:size]]


def gallery_item(one: Scored) -> GalleryItem:
    """What the gallery draws of an answer."""
    example = one.example
    true: Any = {
        "region": lambda: truth.true_box(example.sample),
        "moment": lambda: truth.true_spans(example.sample),
        "mask": lambda: truth.true_masks(example),
        "track": lambda: truth.true_track(example),
    }[one.task]()
    predicted: Any = None
    if one.found is not None:
        predicted = {
            "region": lambda: one.found.box_xyxy.numpy(),
            "moment": lambda: one.found.spans_s[:1].numpy(),
            "mask": lambda: one.found.masks_THW.numpy(),
            "track": lambda: one.found.boxes_T4.numpy(),
        }[one.task]()
    return GalleryItem(
        kind=one.task,
        title=truth.request_text(example.sample),
        question=truth.request_text(example.sample),
        answer_text=one.answer.text,
        frames_THWC=example.frames_THWC,
        times_s=example.times_s,
        size_wh=(example.width, example.height),
        truth=true,
        prediction=predicted,
        score="  ".join(f"{name} {value:.2f}" for name, value in one.scores.items()),
    )
