"""What a pipeline leaves in MLflow, against a real database."""

import pickle

import pytest

from tpo_core.config.schema import Recipe
from tpo_core.errors import TpoError
from tpo_core.tracking import publish
from tpo_core.tracking import registry as registry_module
from tpo_core.tracking import tracker as tracker_module
from tpo_core.tracking.publish import Publisher
from tpo_core.tracking.server import connect, experiment_id


@pytest.fixture
def make_recipe(mlflow_uri, request):
    """A recipe of an experiment of this test; `more` goes to the top of the recipe."""

    def make(*, uri=mlflow_uri, **more):
        phase = {"name": "p", "mixture": {"chat": 1}, "steps": 1, "batch_size": 1, "micro_batch_size": 1}
        source = {"name": "s", "reader": "r", "root": "/nowhere", "split": "train", "part": "train"}
        name = request.node.name
        return Recipe.model_validate(
            {
                "name": "small",
                "data": {"sources": [source]},
                "model": {"base": "base"},
                "stages": {"task_assignment": {"phases": [phase]}},
                "tracking": {"uri": uri, "experiment": name, "model_name": name},
                **more,
            }
        )

    return make


def children(uri, parent):
    client = connect(uri)
    home = client.get_run(parent).info.experiment_id
    found = client.search_runs([home], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.info.run_name: run.info.run_id for run in found}


def test_a_recipe_has_one_run_that_is_found_again(make_recipe, mlflow_uri):
    first = Publisher(make_recipe(), "unused").run_id
    run = connect(mlflow_uri).get_run(first)
    assert run.info.run_name == "small"
    assert Publisher(make_recipe(), "elsewhere").run_id == first
    assert Publisher(make_recipe(work_uri="moved", train={"log_every_steps": 3}), "moved").run_id == first
    assert Publisher(make_recipe(seed=1), "unused").run_id != first


def test_nothing_is_made_before_it_is_needed(make_recipe, tmp_path):
    Publisher(make_recipe(uri=None), str(tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_a_phase_continues_its_run(make_recipe, mlflow_uri):
    publisher = Publisher(make_recipe(), "unused")
    sink = pickle.loads(pickle.dumps(publisher.phase_sink("vision_task", "f-continue")))  # it travels to a worker
    first = sink()
    first.log_metrics({"loss/region": 2.0}, 10)
    first.close("FAILED")
    again = Publisher(make_recipe(), "unused").phase_sink("vision_task", "f-continue")()
    again.log_metrics({"loss/region": 1.0}, 20)
    again.close()
    run_id = first.wait_run_id()
    assert children(mlflow_uri, publisher.run_id) == {"vision_task": run_id}
    assert curve(mlflow_uri, run_id) == [(10, 2.0), (20, 1.0)]
    noted = publisher.phase_sink("vision_task", "f-continue", note="Phase 2 of 3")()
    noted.close()
    assert connect(mlflow_uri).get_run(run_id).data.tags["mlflow.note.content"] == "Phase 2 of 3"
    assert connect(mlflow_uri).get_run(run_id).info.status == "FINISHED"


def test_a_pipeline_that_failed_goes_on_in_the_same_run_when_a_phase_of_it_does(make_recipe, mlflow_uri):
    publisher, client = Publisher(make_recipe(), "unused"), connect(mlflow_uri)
    phase = publisher.phase_sink("vision_task", "f-failed")
    first = phase(close_deadline_s=60)
    first.close("FAILED")
    parent = client.get_run(first.wait_run_id()).data.tags["mlflow.parentRunId"]
    assert publisher.fail() is None
    assert client.get_run(parent).info.status == "FAILED"
    again = phase(close_deadline_s=60)
    again.close("FINISHED")
    assert client.get_run(parent).info.status == "RUNNING"
    assert children(mlflow_uri, parent) == {"vision_task": first.wait_run_id()}


def curve(uri, run_id, key="loss/region"):
    return sorted((point.step, point.value) for point in connect(uri).get_metric_history(run_id, key))


def test_each_phase_has_its_own_run(make_recipe, mlflow_uri):
    publisher = Publisher(make_recipe(), "unused")
    for name in ("vision_task", "multitask"):
        publisher.phase_sink(name, f"each-{name}")().close()
    assert set(children(mlflow_uri, publisher.run_id)) == {"vision_task", "multitask"}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def register(make_recipe, model, tmp_path):
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "gallery.png").write_bytes(b"png")
    (tmp_path / "curves.png").write_bytes(b"png")

    def one(fingerprint="f1", points=0.6, histories=None, **recipe):
        return Publisher(make_recipe(**recipe), "unused").register(
            model=model,
            fingerprint=fingerprint,
            tags={"data_digest": "d1", "recipe": "small"},
            metrics={"test/region/acc@0.5": points},
            base_metrics={"test/region/acc@0.5": 0.0},
            pictures={"gallery/test": tmp_path / "gallery", "curves": tmp_path / "curves.png"},
            histories=histories or {},
            samples={"model": {"test/region/acc@0.5": {"region/s1": points}}},
            lineage={"made_by": "multitask"},
        )

    return one


def test_a_version_is_registered_as_challenger_with_its_lineage(register, registry, mlflow_uri, request):
    made = register()
    assert made == {"name": request.node.name, "version": 1, "uri": mlflow_uri, "run_id": made["run_id"]}
    challenger = registry.get_alias(request.node.name, "challenger")
    assert challenger.version == 1
    assert registry.samples(challenger) == {"model": {"test/region/acc@0.5": {"region/s1": 0.6}}}
    assert challenger.metrics == {"test/region/acc@0.5": 0.6}
    assert challenger.base_metrics == {"test/region/acc@0.5": 0.0}
    assert (challenger.tags["fingerprint"], challenger.tags["data_digest"]) == ("f1", "d1")
    client = connect(mlflow_uri)
    run = client.get_run(made["run_id"])
    assert run.data.params["stages.task_assignment.phases.p.steps"] == "1"
    assert run.data.metrics == {"test/region/acc_at_0.5": 0.6, "base/test/region/acc_at_0.5": 0.0}
    assert run.info.status == "FINISHED"
    card = client.get_model_version(request.node.name, "1").description
    assert "| test/region/acc@0.5 | 0.6000 | 0.0000 |" in card
    assert run.data.tags["mlflow.note.content"] == card
    assert {item.path for item in client.list_artifacts(made["run_id"])} == {"gallery", "curves", "versions"}
    assert [item.path for item in client.list_artifacts(made["run_id"], "gallery/test")] == ["gallery/test/gallery.png"]


def test_a_password_goes_nowhere(register, registry, mlflow_uri, monkeypatch, request):
    """The server is the database of all tests, whatever it is called."""
    experiment_id(connect(mlflow_uri), request.node.name, mlflow_uri)
    for module in (publish, registry_module, tracker_module):
        monkeypatch.setattr(module, "connect", lambda uri: connect(mlflow_uri))
    made = register(uri="postgresql://tpo:hunter2@db/mlflow")
    assert made["uri"] == "postgresql://tpo:***@db/mlflow"
    run = connect(mlflow_uri).get_run(made["run_id"])
    assert run.data.params["tracking.uri"] == made["uri"]
    version = connect(mlflow_uri).get_model_version(request.node.name, "1")
    assert "hunter2" not in f"{run.data.params} {run.data.tags} {version.tags} {version.description}"


def test_registering_may_be_repeated_and_a_new_model_takes_the_alias(register, registry, request):
    assert register() == register()
    assert [info.version for info in registry.list(request.node.name)] == [1]
    assert register(fingerprint="f2", points=0.7)["version"] == 2
    assert registry.get_alias(request.node.name, "challenger").version == 2


def dead_sink(make_recipe, fingerprint, monkeypatch):
    """Of a phase whose server is away; the recipe and the step are those of a run with one."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Publisher(make_recipe(uri="http://127.0.0.1:9"), "unused").phase_sink("vision_task", fingerprint)


def test_a_dead_server_is_waited_for_by_no_phase(make_recipe, monkeypatch):
    tracker = dead_sink(make_recipe, "f-dead", monkeypatch)(close_deadline_s=0.05)
    tracker.log_metrics({"loss": 1.0}, 1)
    assert tracker.wait_run_id(deadline_s=0.01) is None
    assert tracker.close() == "MLflow at http://127.0.0.1:9 has not taken everything: 2 records lost"


HISTORY = [(10, {"loss/region": 2.0}), (20, {"loss/region": 1.0})]


def test_registering_delivers_what_the_server_missed(register, make_recipe, mlflow_uri, monkeypatch):
    lost = dead_sink(make_recipe, "f-missed", monkeypatch)(close_deadline_s=0.05)
    lost.log_metrics(*reversed(HISTORY[0]))
    assert lost.close() is not None
    partly = Publisher(make_recipe(), "unused").phase_sink("multitask", "f-partly")()
    partly.log_metrics(*reversed(HISTORY[0]))
    partly.close()
    histories = {"vision_task": ("f-missed", HISTORY), "multitask": ("f-partly", HISTORY)}
    made = register(histories=histories)
    runs = children(mlflow_uri, made["run_id"])
    assert set(runs) == {"vision_task", "multitask"}
    assert [curve(mlflow_uri, runs[name]) for name in runs] == [[(10, 2.0), (20, 1.0)]] * 2
    assert register(histories=histories) == made  # and once is enough
    assert children(mlflow_uri, made["run_id"]) == runs
    assert [curve(mlflow_uri, runs[name]) for name in runs] == [[(10, 2.0), (20, 1.0)]] * 2


def test_registering_without_a_server_is_one_line(make_recipe, model, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    publisher = Publisher(make_recipe(uri="http://127.0.0.1:9"), "unused")
    with pytest.raises(TpoError, match=r"no MLflow registry answers at http://127\.0\.0\.1:9: start it or set"):
        publisher.register(
            model=model, fingerprint="f", tags={}, metrics={}, base_metrics={}, pictures={},
            histories={"vision_task": ("f-unreached", HISTORY)}, samples={}, lineage={},
        )  # fmt: skip
