"""Finding a recipe, overriding it, and the one line a user gets for a mistake."""

from pathlib import Path

import pytest

from tpo_core.config import load
from tpo_core.config.load import load_recipe
from tpo_core.config.schema import GROUPS
from tpo_core.errors import TpoError

SMALL = str(Path(__file__).parent / "recipes" / "small.yaml")


def refusal(*overrides: str, recipe: str = SMALL) -> str:
    with pytest.raises(TpoError) as caught:
        load_recipe(recipe, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_reads_a_file_and_names_the_recipe_after_it():
    recipe = load_recipe(SMALL)
    assert (recipe.name, recipe.work_uri) == ("small", "runs/small")
    assert recipe.stages["multitask"].lr == {"lora": 2e-5, "task_vectors": 2e-5}
    assert recipe.data.sources[1].options == {"fps": "2"}


def test_finds_a_recipe_by_name(monkeypatch):
    monkeypatch.setattr(load, "RECIPES", Path(SMALL).parent)
    assert load_recipe("small") == load_recipe(SMALL)


def test_an_unknown_recipe_names_the_nearest_and_all(monkeypatch):
    monkeypatch.setattr(load, "RECIPES", Path(SMALL).parent)
    assert refusal(recipe="smal") == "no recipe 'smal'; did you mean 'small'? all recipes: small"
    assert refusal(recipe="nowhere/x.yaml") == "no recipe 'nowhere/x.yaml': there is no such file"


def test_recipes_of_the_house_load():
    for path in load.RECIPES.glob("*.yaml"):
        assert load_recipe(path.stem).name == path.stem


def test_overrides_reach_tables_list_items_and_whole_values():
    recipe = load_recipe(
        SMALL,
        [
            "seed=7",
            "train.workers=2",
            "stages.vision_task.lr.lora=1e-5",
            "stages.multitask.phases.mix.steps=10",
            "stages.multitask.phases.0.batch_size=16",
            "data.sources.boxes.limit=3",
            "data.frames={n_frames: 4, short_side_px: 64}",
            "evaluation.parts=[test]",
            "tracking.uri=http://mlflow:5000/?a=b",
        ],
    )
    assert (recipe.seed, recipe.train.workers) == (7, 2)
    assert recipe.stages["multitask"].phases[0].steps == 10
    assert recipe.stages["multitask"].phases[0].batch_size == 16
    assert recipe.data.sources[0].limit == 3
    assert recipe.data.frames.n_frames == 4
    assert recipe.evaluation.parts == ["test"]
    assert recipe.tracking.uri == "http://mlflow:5000/?a=b"


def test_one_rate_changes_and_the_default_table_stays():
    lr = load_recipe(SMALL, ["stages.vision_task.lr.lora=1e-3"]).stages["vision_task"].lr
    assert lr == {"lora": 1e-3, "task_vectors": 1e-4, "region_head": 1e-4, "temporal_head": 1e-4}


def test_null_freezes_a_group_and_drops_a_stage():
    recipe = load_recipe(SMALL, ["stages.vision_task.lr.lora=null", "stages.multitask=null"])
    assert "lora" not in recipe.stages["vision_task"].lr
    assert list(recipe.stages) == ["task_assignment", "vision_task"]


def test_rates_follow_the_heads_whatever_the_order_of_overrides():
    rate = "stages.vision_task.lr.lora=1e-3"
    heads = ["stages.vision_task.heads=[region]", "stages.vision_task.phases.temporal.mixture={region: 1}"]
    one, other = load_recipe(SMALL, [rate, *heads]), load_recipe(SMALL, [*heads, rate])
    assert one == other
    assert set(one.stages["vision_task"].lr) == {"lora", "task_vectors", "region_head"}


def test_null_takes_an_entry_out_of_any_table():
    gone = ["stages.multitask.phases.mix.mixture.chat=null", "data.sources.moments.options.fps=null"]
    recipe = load_recipe(SMALL, gone)
    assert set(recipe.stages["multitask"].phases[0].mixture) == {"region", "temporal", "mask"}
    assert recipe.data.sources[1].options == {}


def test_a_section_that_the_file_leaves_out_can_be_set():
    recipe = load_recipe(SMALL, ["model.lora.rank=8", "model.temporal.width=64", "train.gpus_per_worker=1"])
    assert (recipe.model.lora.rank, recipe.model.lora.alpha) == (8, 32.0)
    assert (recipe.model.temporal.width, recipe.train.gpus_per_worker) == (64, 1.0)


def test_gates_have_no_name_and_go_by_index():
    assert load_recipe(SMALL, ["promotion.gates.0.max_drop=0.5"]).promotion.gates[0].max_drop == 0.5
    assert refusal("promotion.gates.3.max_drop=0.5") == "unknown item '3' in promotion.gates; known: 0"


def test_the_later_override_wins_and_the_file_is_left_as_it_was():
    assert load_recipe(SMALL, ["seed=1", "seed=2"]).seed == 2
    assert load_recipe(SMALL).seed == 0


def test_epochs_can_replace_steps():
    phase = "stages.multitask.phases.mix"
    assert (
        load_recipe(SMALL, [f"{phase}.steps=null", f"{phase}.epochs=0.5"]).stages["multitask"].phases[0].epochs == 0.5
    )
    assert refusal(f"{phase}.epochs=0.5") == (
        "recipe small: stages.multitask.phases.mix: set exactly one of steps and epochs (null removes the other)"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.wokers=2", "recipe small: unknown key 'wokers' in train; did you mean 'workers'?"),
        ("trian.workers=2", "recipe small: unknown key 'trian' in the recipe; did you mean 'train'?"),
        ("stages.multitask.lr_=1", "recipe small: unknown key 'lr_' in stages.multitask; did you mean 'lr'?"),
        ("data.sources.boxes.limt=1", "recipe small: unknown key 'limt' in data.sources.boxes; did you mean 'limit'?"),
        ("data.generator.sed=1", "recipe small: unknown key 'sed' in data.generator; did you mean 'seed'?"),
        ("stages.multitask.phases.mxi.steps=1", "unknown item 'mxi' in stages.multitask.phases; did you mean 'mix'?"),
        ("stages.multitask.phases.9.steps=1", "unknown item '9' in stages.multitask.phases; known: mix"),
        ("model.base.x=1", "override model.base.x: model.base is text, it has no 'x'"),
        ("train.workers", "override 'train.workers': write it as key.path=value, for example train.workers=2"),
        ("train..workers=1", "override 'train..workers=1': write it as key.path=value, for example train.workers=2"),
        ("train.workers=[1", "override 'train.workers=[1': '[1' is not valid YAML; quote it"),
    ],
)
def test_a_mistyped_key_gets_its_neighbour_and_place(override, message):
    assert refusal(override) == message


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("train.workers=0", "recipe small: train.workers = 0: must be >= 1 (number of training workers"),
        ("data.reject_budget=3", "recipe small: data.reject_budget = 3: must be >= 0 and <= 1 (fraction of samples"),
        ("model.lora.dropout=1", "recipe small: model.lora.dropout = 1: must be >= 0 and < 1 (dropout"),
        ("train.strategy=fsdp", "recipe small: train.strategy = 'fsdp': input should be 'ddp'"),
        ("train.workers=many", "recipe small: train.workers = 'many': must be a whole number, or [min, max] (number"),
        ("train.workers=[4,1]", "recipe small: train.workers = [4, 1]: must be [min, max] with min <= max (number"),
        ("stages.multitask.lr.lora=-1", "recipe small: stages.multitask.lr.lora = -1: input should be greater than 0"),
        (
            "stages.multitask.lr.lorra=1",
            "recipe small: stages.multitask: unknown lr group 'lorra'; did you mean 'lora'",
        ),
        (
            "data.sources.boxes.options.masks=no",
            "recipe small: data.sources.boxes.options.masks = False: input should be",
        ),
        (
            "tracking.experiment=7",
            "recipe small: tracking.experiment = 7: input should be a valid string; quote it: YAML",
        ),
        ("model.base=null", "recipe small: model.base = None: input should be a valid string (path, URI or hub name"),
    ],
)
def test_a_bad_value_gets_its_path_and_range(override, start):
    assert refusal(override).startswith(start)


def test_a_range_of_workers_is_written_as_a_list():
    assert load_recipe(SMALL, ["train.workers=[1,4]"]).train.workers == (1, 4)


def test_without_heads_only_the_lora_rate_is_left():
    assert load_recipe(SMALL, ["stages.vision_task.heads=[]"]).stages["vision_task"].lr == {"lora": 2e-5}


def test_several_mistakes_are_counted():
    assert refusal("train.wokers=2", "seed=-1").endswith("(and 1 more)")


def test_a_missing_value_says_what_it_is(tmp_path):
    path = tmp_path / "bare.yaml"
    path.write_text("data: {root: /d, sources: [{name: a, reader: r, root: a, split: s, part: val}]}\nmodel: {}\n")
    assert refusal(recipe=str(path)) == (
        "recipe bare: model.base is missing (path, URI or hub name of the Hugging Face base model) (and 1 more)"
    )
    fix = ["model.base=b", "stages.multitask.phases=[{name: p, mixture: {chat: 1}, steps: 1, micro_batch_size: 1}]"]
    assert set(load_recipe(str(path), fix).stages["multitask"].lr) == set(GROUPS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "a recipe is a YAML mapping, this is a list"),
        ("", "a recipe is a YAML mapping, this is empty"),
        ("a: [1\n", "not valid YAML"),
        ("seed: 1\nseed: 2\n", "the key 'seed' is given twice"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    assert message in refusal(recipe=str(path))


def test_a_file_in_another_encoding_is_one_line(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("seed: 1  # f\u00fcr alle\n".encode("latin-1"))
    assert refusal(recipe=str(path)) == f"{path}: not UTF-8 text (byte 12: invalid start byte): save it as UTF-8"


def test_text_that_yaml_takes_for_something_else_is_to_be_quoted():
    assert "quote it" in refusal("data.sources.boxes.options.masks=no")
    assert "quote it" not in refusal("model.base=null")
    assert load_recipe(SMALL, ["data.sources.boxes.options.masks='no'"]).data.sources[0].options["masks"] == "no"


def test_a_file_of_overrides_stands_where_it_is_named(tmp_path):
    best = tmp_path / "best.yaml"
    best.write_text("stages.multitask.loss_weights.region: 2.5\nseed: 3\n")
    recipe = load_recipe("quickstart", [f"@{best}", "seed=4"])
    assert recipe.stages["multitask"].loss_weights["region"] == 2.5
    assert recipe.seed == 4
    assert load_recipe("quickstart", ["seed=4", f"@{best}"]).seed == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"there is no file .*gone\.yaml: write @ and the path"),
        ("- 1\n", r"a file of overrides is a YAML mapping, this is a list"),
        ("stages..lr: 1\n", r"'stages\.\.lr' is no dotted path"),
        ("1: 1\n", r"1 is no dotted path"),
        ("stages.multitask.loss_weights.regio: 1\n", r"unknown loss 'regio'; did you mean 'region'"),
    ],
)
def test_a_bad_file_of_overrides_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / ("gone.yaml" if text is None else "best.yaml")
    if text is not None:
        path.write_text(text)
    with pytest.raises(TpoError, match=message):
        load_recipe("quickstart", [f"@{path}"])
