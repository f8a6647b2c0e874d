"""What makes a folder of weights a model that MLflow loads: code, signature, example, requirements, and a card."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import save_model
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Object, Property

PACKAGE = Path(__file__).resolve().parents[1]
CODE = PACKAGE / "inference" / "served.py"
CARD = "README.md"
UNSTATED = "not stated in the recipe: look it up at its publisher"
# What answering a question imports; the versions are those that are installed here.
REQUIRED = [
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "accelerate",
    "numpy",
    "scipy",
    "pillow",
    "pyarrow",
    "decord",
    "av",
    "pydantic",
    "PyYAML",
    "matplotlib",
    "boto3",
    "pandas",
    "mlflow",
]
MAX_NEW_TOKENS = 128
EXAMPLE = pd.DataFrame({"media": ["clip.mp4"], "question": ["When does the ball move?"]})


def signature() -> ModelSignature:
    """Of a table of questions and one of answers: boxes xyxy in pixels, moments in seconds, masks as run lengths."""
    number, text = DataType.double, DataType.string
    moment = Object([Property(name, number) for name in ("start_s", "end_s", "score")])
    given: list[ColSpec | TensorSpec] = [
        ColSpec(text, "text"),
        ColSpec(text, "readable"),
        ColSpec(Array(Array(number)), "boxes"),
    ]
    given += [ColSpec(Array(moment), "moments"), ColSpec(AnyType(), "masks")]
    return ModelSignature(
        inputs=Schema([ColSpec(text, "media"), ColSpec(text, "question")]),
        outputs=Schema(given),
        params=ParamSchema([ParamSpec("max_new_tokens", DataType.long, MAX_NEW_TOKENS)]),
    )


def write_package(folder: Path, card: str) -> None:
    """Writes into a new folder what goes beside the weights, which are not copied: they lie where MLmodel lies."""
    with TemporaryDirectory() as aside:
        code = copytree(PACKAGE, Path(aside) / PACKAGE.name, ignore=ignore_patterns("__pycache__"))
        save_model(
            folder,
            python_model=str(CODE),
            code_paths=[str(code)],
            signature=signature(),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIRED],
            input_example=EXAMPLE,
        )
    described = Model.load(folder)
    described.flavors["python_function"]["artifacts"] = {"model": {"path": ".", "uri": "."}}
    described.flavors["python_function"]["model_code_path"] = CODE.name  # no path of the machine that made it
    described.save(folder / "MLmodel")
    (folder / CARD).write_text(card)


def card_of(
    recipe: Mapping[str, Any], tags: Mapping[str, str], metrics: Mapping[str, float], base: Mapping[str, float]
) -> str:
    """The model card in Markdown. recipe: as JSON."""
    made = recipe["data"]["generator"] is not None and recipe["data"]["root"] is None
    unstated = "rendered by the recipe's generator" if made else UNSTATED
    sources = "\n".join(
        f"- {one['name']}: `{one['reader']}`, split {one['split']}, as {one['part']};"
        f" licence: {one['licence'] or unstated}"
        for one in recipe["data"]["sources"]
    )
    stages = "\n".join(
        f"- {name}: {', '.join(phase['name'] for phase in stage['phases'])}" for name, stage in recipe["stages"].items()
    )
    rows = "\n".join(
        f"| {name} | {value:.4f} | {f'{base[name]:.4f}' if name in base else '-'} |"
        for name, value in sorted(metrics.items())
    )
    return f"""# {recipe["tracking"]["model_name"]}

Made by the recipe `{recipe["name"]}` of the base model `{recipe["model"]["base"]}`, commit `{tags.get("commit", "-")}`.

## Stages

{stages}

## Metrics

| metric | this model | base |
|---|---|---|
{rows}

## Limits

It was measured on the parts above and on nothing else: on other media, other questions and other languages nothing is
known of it. What a head points at is a guess even where the text sounds sure. It is no means to identify people.

## Licences

The weights are bound by the licence of the base model `{recipe["model"]["base"]}`
({recipe["model"]["licence"] or UNSTATED}) and by those of all data below. Read them before the model is passed on.

## Data

Manifest `{tags.get("data_digest", "-")}`.

{sources}
"""


def fitted(card: str, most_chars: int) -> str:
    """The card, or as many of its lines as fit into a column of MLflow's database, and where the rest is. PostgreSQL
    refuses what is longer; SQLite takes it."""
    if len(card) <= most_chars:
        return card
    rest = f"... the rest is in `{CARD}` among the files of the version.\n"
    return card[: card.rindex("\n", 0, most_chars - len(rest)) + 1] + rest
