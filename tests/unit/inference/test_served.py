"""A registered model, loaded by MLflow, answers about a real video."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow.pyfunc import load_model

from tests.unit.inference.test_inference import make_it_say, write_video
from tpo_core.config.schema import FramesConfig
from tpo_core.inference.assistant import load
from tpo_core.tracking.models import model_folder
from tpo_core.tracking.package import CARD, REQUIRED, card_of, fitted, write_package
from tpo_core.tracking.registry import Registry

RECIPE = {
    "name": "small",
    "tracking": {"model_name": "tpo"},
    "model": {"base": "tiny-base", "licence": "Apache 2.0"},
    "stages": {"multitask": {"phases": [{"name": "multitask"}]}},
    "data": {
        "generator": None,
        "root": None,
        "sources": [{"name": "boxes", "reader": "refcoco", "split": "val", "part": "test", "licence": None}],
    },
}


@pytest.fixture
def registered(make_model, tmp_path):
    """The URI of a registry with a tiny model as champion, which points where it is asked to."""
    model = make_model()
    model.frames = FramesConfig(n_frames=4, short_side_px=24)
    make_it_say(model, "<box_begin>")
    model.save_pretrained(tmp_path / "model")
    write_package(tmp_path / "package", card_of(RECIPE, {"commit": "c0ffee"}, {"test/qa/accuracy": 0.5}, {}))
    uri = f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    registry = Registry(uri)
    made = registry.register_version(
        tmp_path / "model",
        "tpo",
        tags={},
        metrics={},
        base_metrics=None,
        run_id=None,
        experiment="served",
        beside=tmp_path / "package",
        description="a card",
    )
    registry.set_alias("tpo", "champion", made.version)
    return uri


def test_a_registered_model_answers(registered, tmp_path):
    clip = write_video(tmp_path / "clip.mp4")
    served = load_model("models:/tpo@champion")
    asked = pd.DataFrame({"media": [str(clip)] * 2, "question": ["Where is it?", "Where?"]})
    answers = served.predict(asked, params={"max_new_tokens": 2})
    assert list(answers.columns) == [column.name for column in served.metadata.signature.outputs]
    assert len(answers) == 2
    folder = model_folder("models:/tpo@champion", registered)
    own = load(folder, "cpu").chat(str(clip), "Where is it?", max_new_tokens=2).row()
    first = answers.iloc[0].to_dict()
    assert first["text"] == own["text"]
    assert first["boxes"] == own["boxes"]
    json.dumps([first["boxes"], first["moments"], first["masks"]])
    names = [line.split("==")[0] for line in Path(folder, "requirements.txt").read_text().split()]
    assert set(REQUIRED) <= set(names)
    described = yaml.safe_load(Path(folder, "MLmodel").read_text())["flavors"]["python_function"]
    assert described["model_code_path"] == "served.py"


# As a machine that serves: what trains is not installed there, and the repository is not there.
ELSEWHERE = """
import sys
sys.modules.update(dict.fromkeys(["ray", "deepspeed", "optuna", "pipelines", "tests"]))
from mlflow.pyfunc import load_model
import pandas
served = load_model("models:/tpo@champion")
asked = pandas.DataFrame({"media": [sys.argv[1]], "question": ["Where is it?"]})
answer = served.predict(asked, params={"max_new_tokens": 2}).iloc[0]
import tpo_core
print(tpo_core.__file__)
print(answer["text"])
"""


def test_a_registered_model_answers_where_the_repository_is_not(registered, tmp_path):
    clip = write_video(tmp_path / "clip.mp4")
    away = tmp_path / "away"
    away.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, clip], cwd=away, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code, text = done.stdout.splitlines()[-2:]
    folder = model_folder("models:/tpo@champion", registered)
    assert Path(code).parent.samefile(Path(folder, "code", "tpo_core"))
    assert text == load(folder, "cpu").chat(str(clip), "Where is it?", max_new_tokens=2).row()["text"]


def test_a_card_names_the_licences_that_the_recipe_states():
    [source] = RECIPE["data"]["sources"]
    card = card_of(RECIPE, {}, {}, {})
    assert "`tiny-base`\n(Apache 2.0)" in card
    assert "as test; licence: not stated in the recipe: look it up at its publisher" in card
    data = RECIPE["data"] | {"sources": [source | {"licence": "CC BY 4.0"}]}
    assert "as test; licence: CC BY 4.0\n" in card_of(RECIPE | {"data": data}, {}, {}, {})
    card = card_of(RECIPE | {"data": RECIPE["data"] | {"generator": {"name": "quickstart"}}}, {}, {}, {})
    assert "as test; licence: rendered by the recipe's generator" in card


def test_a_card_says_what_it_is_made_of():
    card = card_of(RECIPE, {"commit": "c0ffee", "data_digest": "d1"}, {"a/b/c": 0.5, "a/b/d": 1.0}, {"a/b/c": 0.25})
    assert "commit `c0ffee`" in card
    assert "Manifest `d1`" in card
    assert "| a/b/c | 0.5000 | 0.2500 |" in card
    assert "| a/b/d | 1.0000 | - |" in card
    assert "- boxes: `refcoco`, split val, as test" in card
    for title in ("Stages", "Data", "Metrics", "Limits", "Licences"):
        assert f"## {title}" in card


def test_a_card_that_is_too_long_for_the_registry_loses_the_last_sources_and_says_so():
    card = card_of(RECIPE, {"data_digest": "d1"}, {"a/b/c": 0.5}, {})
    assert fitted(card, len(card)) == card
    shorter = fitted(card + "- one more source\n" * 50, len(card) + 200)
    assert len(shorter) <= len(card) + 200
    assert shorter.startswith(card)
    assert shorter.splitlines()[-1] == f"... the rest is in `{CARD}` among the files of the version."
    assert card.index("## Licences") < card.index("## Data"), "what is bound by law is not what is cut"
