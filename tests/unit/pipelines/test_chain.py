"""The chain as a graph: what reads what, what runs again after a change, and how a user's mistake ends."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from pipelines.chain import Chain, build_chain
from pipelines.full_tpo import run_chain
from tpo_core.config.load import load_recipe
from tpo_core.data.sample import SCHEMA_VERSION
from tpo_core.execution.cli import main_guard
from tpo_core.execution.runner import run_steps
from tpo_core.execution.steps import fingerprints
from tpo_core.tracking.publish import Publisher

STAGES = ["task_assignment", "vision_task", "multitask"]


def steps_of(*overrides):
    recipe = load_recipe("quickstart", overrides)
    return build_chain(recipe, Publisher(recipe, "/nowhere"), print)


def changed(*overrides, since=()):
    """Steps of the quick-start recipe that overrides make run again after a run with the overrides `since`."""
    before, after = fingerprints(steps_of(*since)), fingerprints(steps_of(*overrides))
    assert list(before) == list(after)
    return [name for name in before if before[name] != after[name]]


def test_the_quickstart_chain_in_order_with_what_each_step_reads():
    assert {step.name: step.inputs for step in steps_of()} == {
        "render": (),
        "preprocess": ("render",),
        "evaluate_base": ("preprocess",),
        "task_assignment": ("preprocess",),
        "vision_task": ("preprocess", "task_assignment"),
        "multitask": ("preprocess", "vision_task"),
        "evaluate": ("preprocess", "multitask"),
        "register": ("preprocess", "evaluate_base", *STAGES, "evaluate"),
    }
    assert [step.name for step in steps_of()][-1] == "register"


def test_data_that_is_there_needs_no_rendering(tmp_path):
    steps = {step.name: step.inputs for step in steps_of("data.generator=null", f"data.root={tmp_path}")}
    assert "render" not in steps
    assert steps["preprocess"] == ()


def test_a_generator_runs_for_nobody_where_data_root_is_set(tmp_path):
    steps = {step.name: step.inputs for step in steps_of(f"data.root={tmp_path}")}
    assert "render" not in steps
    assert steps["preprocess"] == ()


def test_a_stage_may_be_left_out_and_the_next_one_reads_what_is_left():
    steps = {step.name: step.inputs for step in steps_of("stages.vision_task=null")}
    assert steps["multitask"] == ("preprocess", "task_assignment")
    assert "vision_task" not in steps["register"]


def test_a_stage_of_several_phases_is_several_steps():
    phases = "[{name: a, mixture: {region: 1}, steps: 1, batch_size: 2, micro_batch_size: 2},\
               {name: b, mixture: {mask: 1}, steps: 1, batch_size: 2, micro_batch_size: 2}]"
    steps = {step.name: step.inputs for step in steps_of(f"stages.vision_task.phases={phases}")}
    assert steps["vision_task.a"] == ("preprocess", "task_assignment")
    assert steps["vision_task.b"] == ("preprocess", "vision_task.a")
    assert steps["multitask"] == ("preprocess", "vision_task.b")


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("stages.vision_task.lr.lora=1e-5", ["vision_task", "multitask", "evaluate", "register"]),
        ("stages.multitask.phases.multitask.steps=7", ["multitask", "evaluate", "register"]),
        ("stages.task_assignment.loss_weights.lm=2", [*STAGES, "evaluate", "register"]),
        ("seed=18", [*STAGES, "evaluate", "register"]),
        ("model.lora.rank=4", [*STAGES, "evaluate", "register"]),
        ("data.frames.n_frames=6", ["preprocess", "evaluate_base", *STAGES, "evaluate", "register"]),
        ("evaluation.limit_per_task=7", ["evaluate_base", "evaluate", "register"]),
        ("tracking.model_name=other", ["register"]),
    ],
)
def test_a_change_runs_what_depends_on_it_and_nothing_else(override, again):
    assert changed(override) == again


def test_a_change_is_told_with_its_reason_at_each_step_that_runs_again(tmp_path):
    def launch(*overrides, **how):
        lines = []
        steps = [replace(step, fn=lambda ctx: {}) for step in steps_of(f"work_uri={tmp_path}", *overrides)]
        run_steps(steps, str(tmp_path), echo=lines.append, **how)
        return {(line.split()[0], line.split()[1]): line for line in lines}

    launch()
    told = launch("stages.vision_task.lr.lora=1e-5", dry_run=True)
    assert [step for verb, step in told if verb == "SKIP"] == ["render", "preprocess", "evaluate_base", STAGES[0]]
    assert told["RUN", "vision_task"].endswith("  stage.lr.lora 0.0012 -> 1e-05")
    assert told["RUN", "multitask"].endswith("  upstream vision_task changed")
    assert told["RUN", "evaluate"].endswith("  upstream multitask changed")
    assert told["RUN", "register"].endswith(
        "  upstream vision_task changed, upstream multitask changed, upstream evaluate changed"
    )
    assert [verb for verb, _ in launch()] == ["SKIP"] * 8  # what was there is there


def test_another_base_model_runs_what_reads_it_and_a_moved_one_nothing(tmp_path):
    moved = shutil.copytree("assets/quickstart_base", tmp_path / "moved")
    assert changed(f"model.base={moved}") == []
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert changed(f"model.base={moved}") == ["evaluate_base", *STAGES, "evaluate", "register"]


def test_another_sam2_runs_the_stages_and_a_moved_one_nothing(tmp_path):
    """It is no part of the model, but decides what the mask head learns."""
    for name in ("one", "moved", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}" if name != "other" else "{ }")
    base = ["model.mask.decoder=sam2", f"model.mask.sam2.source={tmp_path / 'one'}"]
    assert changed(base[0], f"model.mask.sam2.source={tmp_path / 'moved'}", since=base) == []
    again = changed(base[0], f"model.mask.sam2.source={tmp_path / 'other'}", since=base)
    assert again == [*STAGES, "evaluate", "register"]


def test_other_clips_run_everything():
    assert changed("data.generator.seed=8") == [step.name for step in steps_of()]


def test_numbers_compare_only_where_the_same_was_asked_of_the_same_data():
    def evaluation_id(*overrides, shards="s1"):
        return Chain(load_recipe("quickstart", overrides), None, print).evaluation_id(shards)

    first = evaluation_id()
    assert evaluation_id("evaluation.batch_size=7", "stages.multitask.lr.lora=1") == first
    assert evaluation_id("evaluation.limit_per_task=7") != first
    assert evaluation_id(shards="s2") != first


@pytest.mark.parametrize(
    "override",
    [
        "train.workers=2",
        "train.log_every_steps=1",
        "train.checkpoint_every_steps=1",
        "train.torch_threads=1",
        "evaluation.batch_size=3",
        "data.reject_budget=0.5",
        "work_uri=/elsewhere",
        "tracking.experiment=other",
        "promotion.gates=[]",
    ],
)
def test_where_and_how_it_is_carried_out_runs_nothing_again(override):
    assert changed(override) == []


def test_what_a_step_is_recorded_with_holds_no_password():
    uri = "postgresql://tpo:hunter2@db/mlflow"
    assert "hunter2" not in str([step.identity for step in steps_of(f"tracking.uri={uri}")])
    assert changed(f"tracking.uri={uri}", since=[f"tracking.uri={uri.replace('hunter2', 'other')}"]) == []


def test_a_dry_run_prints_the_graph_and_touches_nothing(tmp_path, capsys):
    work = tmp_path / "work"
    assert run_chain(["--recipe", "quickstart", f"work_uri={work}", "--dry-run"], doc=None) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].split() == ["vision_task", "reads", "preprocess,", "task_assignment"]
    told = [line.split() for line in lines if line.startswith("RUN")]
    assert [words[1] for words in told] == [step.name for step in steps_of()]
    assert all(words[3:] == ["no", "earlier", "result"] for words in told)
    assert list(tmp_path.iterdir()) == []


def test_preprocess_is_the_beginning_of_the_same_chain(tmp_path, capsys):
    run_chain(["--recipe", "quickstart", f"work_uri={tmp_path}", "--dry-run"], doc=None, until_step="preprocess")
    runs = [line for line in capsys.readouterr().out.splitlines() if line.startswith("RUN")]
    assert [line.split()[1] for line in runs] == ["render", "preprocess"]


MISTAKES = [
    (["--recipe", "quikstart"], "error: no recipe 'quikstart'; did you mean 'quickstart'?"),
    (["--recipe", "mine/gone.yaml"], "error: no recipe 'mine/gone.yaml': there is no such file"),
    (["stages.multitsk.lr.lora=1"], "error: recipe quickstart: stages: unknown stage 'multitsk'; did you mean"),
    (["train.wrkers=2"], "error: recipe quickstart: unknown key 'wrkers' in train; did you mean 'workers'?"),
    (["stages.multitsk=null"], "error: recipe quickstart: stages: unknown stage 'multitsk'; did you mean"),
    (["model.base=assets/quikstart_base"], "error: no model at 'assets/quikstart_base': not a folder, and not to be"),
    (["train.workers"], "error: override 'train.workers': write it as key.path=value"),
    (["--until-step", "multitsk"], "error: unknown step 'multitsk'; did you mean 'multitask'?"),
    (["--from-step", "evaluate", "--until-step", "multitask"], "error: step 'multitask' comes before 'evaluate'"),
    (["data.sources.mevis-val.reader=mevi"], "error: source 'mevis-val': no reader 'mevi'; did you mean 'mevis'?"),
    (["data.sources.refcoco-val.options.mask=1"], "error: source 'refcoco-val': reader refcoco has no option 'mask';"),
    (["data.sources.refcoco-val.options.masks=7"], "error: source 'refcoco-val': option masks of reader refcoco"),
    (["data.root=/none/here"], "error: source 'refcoco-train': there is no /none/here/train: check data.root and"),
    (["data.sources.mevis-val.root=/none"], "error: source 'mevis-val': there is no /none: check data.root and"),
    (["data.root=/none/here", "--dry-run"], "error: source 'refcoco-train': there is no /none/here/train: check"),
    (["data.root=gs://b"], "error: gs://b/train: unknown storage gs://; use a path, file:// or s3://"),
    (["evaluation.parts=[val]", "data.sources=[{name: a, reader: jsonl, root: a, split: s, part: train}]"],
     "error: no source feeds a part of evaluation.parts (val): data.sources feed train; name one of those"),
    (["work_uri=s3://bucket/run"], "error: tracking.uri is not set and s3://bucket/run cannot hold a database"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_before_a_cluster_is_touched(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.full_tpo.connect", lambda recipe: pytest.fail("Ray was started"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main_guard(lambda: run_chain(["--recipe", "quickstart", f"work_uri={tmp_path}", *arguments], doc=None))
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_a_bucket_is_not_looked_at_before_it_is_read(tmp_path):
    arguments = ["--recipe", "quickstart", f"work_uri={tmp_path}", "data.root=s3://bucket/data", "--dry-run"]
    assert run_chain(arguments, doc=None) == 0


def test_new_labels_are_another_data_set_and_all_that_reads_it_runs_again(tmp_path):
    for folder in ("train", "val"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / "labels.json").write_text("[]")
    before = fingerprints(steps_of(f"data.root={tmp_path / 'data'}"))
    assert fingerprints(steps_of(f"data.root={tmp_path / 'data'}")) == before
    (tmp_path / "data/train/labels.json").write_text("[1]")
    after = fingerprints(steps_of(f"data.root={tmp_path / 'data'}"))
    assert {name for name in before if before[name] != after[name]} == before.keys()


def test_data_that_is_gone_counts_as_what_it_was(tmp_path):
    data, work = tmp_path / "data", f"work_uri={tmp_path / 'work'}"
    (data / "train").mkdir(parents=True)
    (data / "train/labels.json").write_text("[]")
    preprocessed = next(step for step in steps_of(work, f"data.root={data}") if step.name == "preprocess")
    run_steps([replace(preprocessed, fn=lambda ctx: {})], str(tmp_path / "work"), echo=lambda line: None)
    shutil.rmtree(data)
    again = next(step for step in steps_of(work, f"data.root={data}") if step.name == "preprocess")
    assert again.identity == preprocessed.identity


def test_the_lines_of_a_phase_say_where_the_chain_stands(tmp_path, monkeypatch):
    def phase(*about, echo, **more):
        echo(f"{about[1]}  [###.......] 24/80")
        notes.append(more["open_tracker"].note)
        return {}

    monkeypatch.setattr("pipelines.chain.run_phase", phase)
    lines, notes = [], []
    recipe = load_recipe("quickstart", [f"work_uri={tmp_path}"])
    steps = {step.name: step for step in build_chain(recipe, Publisher(recipe, str(tmp_path)), lines.append)}
    data = [replace(steps[name], fn=some_of_each_kind) for name in ("render", "preprocess")]
    phases = [steps[name] for name in ("task_assignment", "vision_task", "multitask")]
    run_steps([*data, *phases], str(tmp_path), echo=lambda line: None)
    shown = [line.partition("24/80  | ")[::2] for line in lines]
    assert [name.split()[0] for name, _ in shown] == ["task_assignment", "vision_task", "multitask"]
    first, second, third = (where for _, where in shown)
    assert re.fullmatch(r"\[####\.{6}\] 3/5  \d+:\d\d so far", first)  # no phase has shown yet how long they take
    assert re.fullmatch(r"\[######\.{4}\] 4/5  \d+:\d\d so far, then about 0:\d\d to go", second)
    assert re.fullmatch(r"\[########\.{2}\] 5/5  \d+:\d\d so far", third)
    assert notes[0].startswith(
        "Phase 1 of 3 of the recipe `quickstart`, from the base model `assets/quickstart_base`: 80 "
    )
    assert "from the model of `task_assignment`: 660 steps that mix region 16, temporal 8, mask 6, chat 9" in notes[1]


def test_a_phase_that_fails_ends_the_run_of_the_pipeline(tmp_path, monkeypatch):
    def phase(*about, **more):
        raise RuntimeError("workers died more than train.max_failures times")

    monkeypatch.setattr("pipelines.chain.run_phase", phase)
    monkeypatch.setattr(Publisher, "fail", lambda publisher: f"{publisher.recipe.name}: MLflow was not there")
    lines = []
    recipe = load_recipe("quickstart", [f"work_uri={tmp_path}"])
    steps = {step.name: step for step in build_chain(recipe, Publisher(recipe, str(tmp_path)), lines.append)}
    data = [replace(steps[name], fn=some_of_each_kind) for name in ("render", "preprocess")]
    with pytest.raises(RuntimeError, match="workers died"):
        run_steps([*data, steps["task_assignment"]], str(tmp_path), echo=lambda line: None)
    assert lines == ["quickstart: MLflow was not there"]


def some_of_each_kind(ctx):
    """Stands for preprocessing."""
    counts = {"train": {kind: {"refcoco": 9} for kind in ("region", "temporal", "mask", "chat")}}
    manifest = {"schema_version": SCHEMA_VERSION, "files": {}, "counts": counts}
    (ctx.output / "manifest.json").write_text(json.dumps(manifest))
    return {}


def test_data_that_was_preprocessed_may_be_gone(tmp_path):
    gone = "data.root=/none/here"
    preprocessed = next(step for step in steps_of(gone) if step.name == "preprocess")
    run_steps([replace(preprocessed, fn=some_of_each_kind)], str(tmp_path), echo=lambda line: None)
    assert run_chain(["--recipe", "quickstart", f"work_uri={tmp_path}", gone, "--dry-run"], doc=None) == 0


@pytest.mark.parametrize("step", ["evaluate", "register"])
def test_the_run_of_the_pipeline_fails_with_its_last_steps(tmp_path, monkeypatch, step):
    recipe = load_recipe("quickstart", [])
    publisher = Publisher(recipe, str(tmp_path))
    ended = []
    monkeypatch.setattr(Publisher, "fail", lambda self: ended.append("FAILED"))
    monkeypatch.setattr(Chain, "measure" if step == "evaluate" else "publish", lambda *_: 1 / 0)
    bodies = {one.name: one.fn for one in build_chain(recipe, publisher, print)}
    with pytest.raises(ZeroDivisionError):
        bodies[step](None)
    assert ended == ["FAILED"]
