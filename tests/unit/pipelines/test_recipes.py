"""The recipes of the paper are whole: readers, options, heads and phases are there, and the numbers are the paper's."""

import pytest

from pipelines.full_tpo import run_chain
from pipelines.sweep_loss_weights import plan_of
from tpo_core.config.load import load_recipe
from tpo_core.data.readers import READERS
from tpo_core.train.stages import phases_of, plan_phase

PAPER = ("videochat_tpo", "llava_ov_tpo")
PHASES = (
    "task_assignment",
    "vision_task.region",
    "vision_task.mask",
    "vision_task.temporal",
    "multitask.tasks",
    "multitask.conversation",
)
SAMPLES = {"temporal": 116_500, "region": 540_000, "mask": 114_600, "chat": 3_040_000}  # paper, table 18


@pytest.fixture
def places(tmp_path):
    """Overrides that put base and data where a dry run finds them."""

    def make(name):
        recipe = load_recipe(name, [])
        for source in recipe.data.sources:
            (tmp_path / "data" / source.root).mkdir(parents=True, exist_ok=True)
        (tmp_path / "base").mkdir()
        (tmp_path / "base" / "config.json").write_text("{}")
        models = [f"{field}={tmp_path / 'base'}" for field in ("model.base", "model.mask.sam2.source")]
        return [f"data.root={tmp_path / 'data'}", f"work_uri={tmp_path / 'work'}", *models]

    return make


@pytest.mark.parametrize("name", PAPER)
def test_a_dry_run_shows_the_six_phases_in_order(name, places, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.checks.base_groups", lambda *_: {"lora", "vision_encoder", "connector"})
    assert run_chain(["--recipe", name, *places(name), "--dry-run"], doc=None) == 0
    told = capsys.readouterr().out
    order = [told.index(f" {phase} ") for phase in PHASES]
    assert order == sorted(order)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", PAPER)
def test_every_phase_draws_from_data_sets_that_the_sources_give(name):
    recipe = load_recipe(name, [])
    given = {source.options.get("dataset", source.reader) for source in recipe.data.sources if source.part == "train"}
    for ref in phases_of(recipe):
        assert set(ref.phase.datasets) <= given, ref.name
    for source in recipe.data.sources:
        READERS[source.reader].complete(source.options)


@pytest.mark.parametrize("name", PAPER)
def test_weights_are_chosen_on_data_that_no_phase_trains_on_and_no_gate_judges(name):
    recipe = load_recipe(name, [])
    plan = plan_of(recipe)
    assert plan.rungs[-1] == 800
    chosen_on = {source.name for source in recipe.data.sources if source.part == plan.config.part}
    assert chosen_on
    assert plan.config.part not in {"train", *recipe.promotion.required_parts}
    judged = {gate.metric.partition("/")[0] for gate in recipe.promotion.gates}
    assert judged == set(recipe.promotion.required_parts)


def test_rates_sizes_and_lengths_are_those_of_table_17():
    recipe = load_recipe("videochat_tpo", [])
    phases = {ref.name: ref for ref in phases_of(recipe)}
    steps = {
        name: plan_phase(ref.stage, ref.phase, counts=SAMPLES, world=recipe.train.least_workers).steps
        for name, ref in phases.items()
    }
    assert steps["task_assignment"] * 128 == pytest.approx(150_000, rel=0.001)
    assert steps["vision_task.temporal"] == pytest.approx(45_500, rel=0.001)  # paper notes, decision 19
    assert steps["vision_task.mask"] == pytest.approx(2_700, rel=0.01)
    assert steps["vision_task.region"] == pytest.approx(4_200, rel=0.01)
    sizes = {name: ref.phase.batch_size for name, ref in phases.items()}
    assert sizes == dict.fromkeys(phases, 128) | {"vision_task.temporal": 64}
    assert recipe.stages["task_assignment"].lr == {"lora": 2e-5}
    second = recipe.stages["vision_task"].lr
    assert (second["lora"], second["region_head"], second["temporal_head"]) == (2e-5, 1e-4, 1e-4)
    assert set(recipe.stages["multitask"].lr.values()) == {2e-5}
    for stage in recipe.stages.values():
        assert (stage.warmup_fraction, stage.weight_decay, stage.eps, stage.min_lr_fraction) == (0.2, 0.02, 1e-5, 0.05)
        assert stage.precision == "bf16"
    assert (recipe.model.lora.rank, recipe.model.lora.alpha, recipe.data.frames.n_frames) == (16, 32, 16)
