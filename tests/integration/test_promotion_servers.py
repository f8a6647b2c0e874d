"""Runs, versions and promotion on a real MLflow server before PostgreSQL and S3, and on servers in trouble."""

from pathlib import Path

import pytest

from tests.tracking_servers import broken_server, free_port, mlflow_server, postgres, postgres_bin
from tpo_core.config.schema import GateConfig, PromotionConfig
from tpo_core.errors import TpoError
from tpo_core.storage import s3
from tpo_core.storage.uri import list_names
from tpo_core.tracking.models import model_folder
from tpo_core.tracking.promotion import CHALLENGER, CHAMPION, promote, rollback
from tpo_core.tracking.promotion_log import PromotionLog
from tpo_core.tracking.registry import RECORD, SAMPLES, Registry
from tpo_core.tracking.server import connect, experiment_id
from tpo_core.tracking.tracker import MlflowTracker

METRIC = "test/qa/accuracy"
ASKED = PromotionConfig(gates=[GateConfig(metric=METRIC, max_drop=0.0, worst_drop=0.02)])

needs_postgres = pytest.mark.skipif(postgres_bin() is None, reason="no PostgreSQL here: apt-get install postgresql")


@pytest.fixture(autouse=True)
def _few_tries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def register(registry, uri, tmp_path, number, right):
    """A version that got `right` of 200 samples right."""
    folder = tmp_path / f"model-{number}"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes([number]) * 1000)
    client = connect(uri)
    run = client.create_run(experiment_id(client, "servers", uri)).info.run_id
    samples = {"model": {METRIC: {f"s{i}": float(i < right) for i in range(200)}}}
    registry.write_record(run, "versions/1", {SAMPLES: samples})
    return registry.register_version(
        folder,
        "tpo",
        tags={"fingerprint": f"f{number}", RECORD: "versions/1"},
        metrics={METRIC: right / 200},
        base_metrics={METRIC: 0.5},
        run_id=run,
        experiment="servers",
    )


def offer(registry, log, number, tell=print):
    registry.set_alias("tpo", CHALLENGER, number)
    return promote(registry, "tpo", ASKED, log, tell=tell)


@pytest.mark.slow
@pytest.mark.timeout(400)
@needs_postgres
def test_postgres_and_s3_behind_a_server(bucket, tmp_path):
    log, port = PromotionLog(f"{bucket}/runs/promotions"), free_port()
    with postgres() as database:
        with mlflow_server(database, f"{bucket}/mlflow", tmp_path / "mlflow.log", port) as uri:
            first = MlflowTracker(uri, "servers", "phase", key=("tpo_phase", "f"), close_deadline_s=60)
            first.log_params({"a": {"b": [{"name": "x", "steps": 1}]}})
            for step in range(500):
                first.log_metrics({"loss": 1.0 / (step + 1)}, step)
            assert first.close("FAILED") is None
            registry = Registry(uri)
            for number, right in enumerate((120, 140, 60), start=1):
                register(registry, uri, tmp_path, number, right)
            with pytest.raises(TpoError, match="no values by sample of the base"):
                raise_first(offer(registry, log, 1))
            registry.set_alias("tpo", CHAMPION, 1)  # by hand: it is the yardstick where the log is empty
            assert offer(registry, log, 2).ok
            assert not offer(registry, log, 3).ok
            assert registry.get_alias("tpo", CHAMPION).version == 2
            folder = model_folder("models:/tpo@champion", uri)
            assert Path(folder, "weights.bin").read_bytes() == bytes([2]) * 1000
            assert list_names(f"{bucket}/mlflow")
        with pytest.raises(TpoError, match="no MLflow registry answers"):
            offer(registry, log, 2)  # the server is down
        with mlflow_server(database, f"{bucket}/mlflow", tmp_path / "mlflow.log", port) as uri:
            again = MlflowTracker(uri, "servers", "phase", key=("tpo_phase", "f"), close_deadline_s=60)
            for step in range(490, 510):
                again.log_metrics({"loss": 1.0 / (step + 1)}, step)
            assert again.close("FINISHED") is None
            assert again.wait_run_id() == first.wait_run_id()
            client = connect(uri)
            history = client.get_metric_history(first.wait_run_id(), "loss")
            assert [point.step for point in sorted(history, key=lambda one: one.step)] == list(range(510))
            assert client.get_run(first.wait_run_id()).data.params == {"a.b.x.name": "x", "a.b.x.steps": "1"}
            client.delete_model_version("tpo", "2")
            told = []
            offer(Registry(uri), log, 3, told.append)
            assert any("v2 was deleted" in note for note in told)
    s3.client.cache_clear()


def raise_first(result):
    """The reason of the first gate that refuses, as an error."""
    raise TpoError(next(gate.reason for gate in result.gates if not gate.ok))


def test_a_server_that_answers_500_is_one_line(tmp_path):
    with broken_server() as uri:
        with pytest.raises(TpoError, match=r"no MLflow registry answers at http://127\.0\.0\.1:\d+: start it"):
            Registry(uri)
        tracker = MlflowTracker(uri, "servers", "phase", close_deadline_s=0.5)
        tracker.log_metrics({"loss": 1.0}, 1)
        assert "2 records lost" in tracker.close()


def test_a_registry_that_goes_away_between_log_and_alias_is_finished_later(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    registry, log = Registry(uri), PromotionLog(str(tmp_path / "promotions"))
    for number, right in enumerate((120, 140), start=1):
        register(registry, uri, tmp_path, number, right)
    plain = PromotionConfig(gates=[GateConfig(metric=METRIC)])
    registry.set_alias("tpo", CHALLENGER, 1)
    assert promote(registry, "tpo", plain, log).moved
    registry.set_alias("tpo", CHALLENGER, 2)
    with broken_server() as away, monkeypatch.context() as patch:
        gone = connect(away)
        patch.setattr(registry._client._client, "set_registered_model_alias", gone.set_registered_model_alias)
        with pytest.raises(TpoError, match="no MLflow registry answers"):
            promote(registry, "tpo", plain, log)
    registry = Registry(uri)
    assert registry.get_alias("tpo", CHAMPION).version == 1
    told = []
    promote(registry, "tpo", plain, log, tell=told.append)
    assert told == ["a promote to v2 was cut off: it is finished now"]
    assert registry.get_alias("tpo", CHAMPION).version == 2
    connect(uri).delete_model_version("tpo", "2")
    assert rollback(registry, "tpo", log) == (None, 1)
    assert registry.get_alias("tpo", CHAMPION).version == 1


def test_a_model_that_was_deleted_and_registered_anew_is_another_one(tmp_path):
    """MLflow counts its versions from 1 again; the log knows them by their fingerprints."""
    uri = f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    registry, log = Registry(uri), PromotionLog(str(tmp_path / "promotions"))
    plain = PromotionConfig(gates=[GateConfig(metric=METRIC)])
    for number, right in ((1, 120), (2, 140)):
        registry.set_alias("tpo", CHALLENGER, register(registry, uri, tmp_path, number, right).version)
        assert promote(registry, "tpo", plain, log).moved
    connect(uri).delete_registered_model("tpo")
    assert register(registry, uri, tmp_path, 3, 60).version == 1
    told = []
    assert rollback(registry, "tpo", log, tell=told.append) == (None, None)
    assert told == ["champion v2 was deleted: nothing stands in for it"]
    assert registry.get_alias("tpo", CHAMPION) is None
