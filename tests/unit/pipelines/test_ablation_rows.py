"""Rows of the ablation: what each leaves out of one recipe, and that nothing else differs."""

import pytest

from pipelines.ablation_rows import ROWS, changes, choose_rows, require_equal_steps, row_recipe
from pipelines.chain import build_chain
from tpo_core.config.load import load_recipe
from tpo_core.config.schema import identity
from tpo_core.errors import TpoError
from tpo_core.execution.steps import fingerprints
from tpo_core.tracking.publish import Publisher

NAME = "ablation_quickstart"
WHOLE = load_recipe(NAME, [])
STAGES = ("task_assignment", "vision_task", "multitask")
BY_NAME = {row.name: row for row in ROWS}


def recipe_of(name, seed=1, overrides=(), equal="steps"):
    return row_recipe(NAME, overrides, BY_NAME[name], seed, equal)


def prints_of(name, seed=1):
    recipe = recipe_of(name, seed)
    return fingerprints(build_chain(recipe, Publisher(recipe, "/nowhere"), print))


def mixtures(recipe):
    return {name: set(stage.phases[0].mixture) for name, stage in recipe.stages.items()}


@pytest.mark.parametrize(
    ("name", "kinds", "heads"),
    [
        ("conversation", {"chat"}, []),
        ("R", {"region"}, ["region"]),
        ("M", {"mask"}, ["mask"]),
        ("T", {"temporal"}, ["temporal"]),
        ("R+M", {"region", "mask"}, ["region", "mask"]),
        ("T+R+M", {"region", "mask", "temporal"}, ["region", "temporal", "mask"]),
    ],
)
def test_a_row_learns_its_kinds_with_its_heads_and_their_rates(name, kinds, heads):
    recipe = recipe_of(name)
    for stage in STAGES[1:]:
        assert mixtures(recipe)[stage] == kinds
        assert recipe.stages[stage].heads == heads
        rates = {group for group in recipe.stages[stage].lr if group.endswith("_head")}
        assert rates == {f"{head}_head" for head in heads}
        assert ("task_vectors" in recipe.stages[stage].lr) == bool(heads)


def test_rows_with_heads_share_the_assignment_of_all_tasks_and_the_others_have_their_own():
    assert mixtures(recipe_of("R"))["task_assignment"] == {"region", "temporal", "mask", "chat"}
    assert mixtures(recipe_of("conversation"))["task_assignment"] == {"chat"}
    first = {row.name: prints_of(row.name)["task_assignment"] for row in ROWS if row.trains}
    shared = {first[row.name] for row in ROWS if row.heads}
    assert len(shared) == 1
    assert len(set(first.values())) == 3
    assert prints_of("R", seed=2)["task_assignment"] not in shared


def test_data_is_made_once_for_all_rows_and_seeds():
    prints = [prints_of(row.name, seed) for row in ROWS for seed in (1, 2)]
    assert len({each["preprocess"] for each in prints}) == 1
    assert len({each["evaluate"] for each in prints}) == 2 * (len(ROWS) - 1)  # untrained, the base is the whole recipe


def test_the_row_as_text_has_the_whole_mixture_and_no_head():
    recipe = recipe_of("text")
    assert (recipe.model.coordinates, recipe.model.heads) == ("text", [])
    assert mixtures(recipe) == mixtures(WHOLE)
    assert all(stage.heads == [] for stage in recipe.stages.values())
    assert set(recipe.stages["vision_task"].lr) == {"lora"}
    assert set(recipe.stages["multitask"].lr) == {"lora", "vision_encoder", "connector"}


def test_the_last_row_is_the_recipe_itself():
    assert changes(BY_NAME["TPO"], WHOLE, "steps") == []
    assert identity(recipe_of("TPO", seed=WHOLE.seed)) == identity(WHOLE)


def test_nothing_but_kinds_heads_rates_and_seed_differs():
    def rest(recipe):
        plain = identity(recipe)
        plain["seed"] = 0
        plain["model"] = {key: value for key, value in plain["model"].items() if key not in ("heads", "coordinates")}
        for stage in plain["stages"].values():
            stage["heads"], stage["lr"] = [], {}
            stage["phases"] = [
                {key: value for key, value in phase.items() if key not in ("mixture", "micro_batch_sizes")}
                for phase in stage["phases"]
            ]
        return plain

    assert all(rest(recipe_of(row.name, seed=5)) == rest(WHOLE) for row in ROWS)


def test_every_row_has_the_same_budget_of_steps():
    recipes = [recipe_of(row.name, seed) for row in ROWS for seed in (1, 2, 3)]
    steps = require_equal_steps(recipes)
    assert list(steps) == list(STAGES)
    assert steps == {name: stage.phases[0].steps for name, stage in WHOLE.stages.items()}
    longer = recipe_of("R", overrides=["stages.multitask.phases.multitask.steps=99"])
    with pytest.raises(TpoError, match=r"rows need the same$"):
        require_equal_steps([*recipes, longer])


def steps_of(name, overrides=()):
    recipe = recipe_of(name, overrides=overrides, equal="samples")
    return [stage.phases[0].steps for stage in recipe.stages.values()]


def test_with_equal_samples_a_row_takes_the_share_of_steps_that_its_kinds_have():
    phase = "stages.vision_task.phases.vision_task"
    shares = [f"{phase}.steps=100", f"{phase}.mixture={{region: 5, temporal: 3, mask: 1, chat: 1}}"]
    whole = [WHOLE.stages[name].phases[0].steps for name in STAGES]
    assert [steps_of(name, shares)[1] for name in ("R", "T", "M", "R+M", "T+R+M")] == [50, 30, 10, 60, 90]
    assert steps_of("R")[0] == whole[0]  # task assignment is that of all tasks, in every row with heads
    assert steps_of("conversation")[0] == whole[0] / 4
    assert steps_of("TPO") == steps_of("text") == whole
    assert steps_of("M", [f"{phase}.steps=4", shares[1]])[1] == 1


def test_epochs_are_refused_since_they_are_other_steps_for_other_data():
    phase = "stages.multitask.phases.multitask"
    recipe = recipe_of("R", overrides=[f"{phase}.steps=null", f"{phase}.epochs=1"])
    with pytest.raises(TpoError, match=r"^phase multitask is given in epochs"):
        require_equal_steps([recipe])


def test_changes_of_the_user_reach_every_row_and_stay_out_of_those_without_the_group():
    overrides = ["stages.vision_task.lr.region_head=0.5", "evaluation.limit_per_task=3", "work_uri=/w"]
    recipe = recipe_of("R", overrides=overrides)
    assert recipe.stages["vision_task"].lr["region_head"] == 0.5
    other = recipe_of("M", seed=3, overrides=overrides)
    assert "region_head" not in other.stages["vision_task"].lr
    assert (other.evaluation.limit_per_task, other.work_uri, other.seed) == (3, "/w", 3)
    assert other.name == "ablation_quickstart.M.seed3"
    assert recipe_of("R+M").name == "ablation_quickstart.R_M.seed1"


def test_a_recipe_whose_phases_hold_one_kind_each_is_refused():
    with pytest.raises(TpoError, match=r"row 'M' has nothing to learn in stages\.vision_task\.phases\.region"):
        changes(BY_NAME["M"], load_recipe("videochat_tpo", ["data.root=/d"]), "steps")


def test_rows_are_chosen_by_name_in_the_order_of_the_table():
    assert [row.name for row in choose_rows(["TPO", "base", "R+M"])] == ["base", "R+M", "TPO"]
    with pytest.raises(TpoError, match=r"^no row 'tpo'; did you mean 'TPO'\?$|^no row 'tpo'; known: base"):
        choose_rows(["tpo"])


def test_a_row_is_taught_what_its_kinds_are_measured_as():
    assert [task for task in ("region", "moment", "mask", "track", "qa") if BY_NAME["M"].taught(task)] == [
        "mask",
        "track",
    ]
    assert not BY_NAME["conversation"].taught("region")
