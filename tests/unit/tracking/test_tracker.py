import logging
import re
import socket
import threading
from pathlib import Path

import pytest

from tpo_core.errors import TpoError
from tpo_core.storage.uri import without_password
from tpo_core.tracking import tracker as tracker_module
from tpo_core.tracking.server import (
    MlflowClient,
    connect,
    default_uri,
    is_missing,
    legal_name,
    telling,
)
from tpo_core.tracking.tracker import MlflowTracker, NullTracker, flatten


@pytest.fixture
def open_tracker(mlflow_uri):
    def opened(**more):
        return MlflowTracker(mlflow_uri, "tracker tests", "run", close_deadline_s=60, **more)

    return opened


def steps(client, run_id, key):
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, key))


def test_a_run_holds_what_was_logged(open_tracker, mlflow_uri, tmp_path):
    (tmp_path / "history.jsonl").write_text("{}\n")
    tracker = open_tracker()
    tracker.log_params({"seed": 3, "stage": {"phases": [{"name": "a", "lr": 0.1}], "text": "x" * 9000}})
    for step in (10, 20):
        tracker.log_metrics({"loss/region": 1.0 / step, "test/acc@0.5": 0.5}, step)
    tracker.set_tags({"commit": "abc"})
    tracker.log_artifact(tmp_path / "history.jsonl", "train")
    tracker.close()
    client = connect(mlflow_uri)
    run = client.get_run(tracker.wait_run_id())
    assert run.info.status == "FINISHED"
    assert run.data.params | {"stage.text": ""} == {
        "seed": "3",
        "stage.phases.a.name": "a",
        "stage.phases.a.lr": "0.1",
        "stage.text": "",
    }
    assert len(run.data.params["stage.text"]) == 6000
    assert run.data.tags["commit"] == "abc"
    assert steps(client, run.info.run_id, "loss/region") == [(10, 0.1), (20, 0.05)]
    assert steps(client, run.info.run_id, "test/acc_at_0.5") == [(10, 0.5), (20, 0.5)]


def test_artifacts_lie_beside_the_database(open_tracker, mlflow_uri, tmp_path):
    (tmp_path / "gallery.png").write_bytes(b"png")
    tracker = open_tracker()
    tracker.log_artifact(tmp_path, "gallery")
    tracker.close()
    root = Path(mlflow_uri.removeprefix("sqlite:///")).parent / "artifacts"
    assert (root / tracker.wait_run_id() / "artifacts" / "gallery" / "gallery.png").read_bytes() == b"png"


def test_a_replay_does_not_extend_the_curve(open_tracker, mlflow_uri):
    first = open_tracker()
    first.log_params({"seed": 1})
    for step in (1, 2, 3, 3):
        first.log_metrics({"loss": float(step)}, step)
    first.close("FAILED")
    second = open_tracker(run_id=first.wait_run_id())
    second.log_params({"seed": 1, "more": 2})
    for step in (2, 3, 4, 5):
        second.log_metrics({"loss": float(step)}, step)
    second.close()
    assert second.wait_run_id() == first.wait_run_id()
    client = connect(mlflow_uri)
    assert steps(client, first.wait_run_id(), "loss") == [(step, float(step)) for step in (1, 2, 3, 4, 5)]
    assert client.get_run(first.wait_run_id()).data.params == {"seed": "1", "more": "2"}


def test_a_changed_parameter_is_told_and_keeps_the_rest(open_tracker, mlflow_uri, caplog):
    first = open_tracker()
    first.log_params({"seed": 1})
    first.close()
    second = open_tracker(run_id=first.wait_run_id())
    second.log_params({"seed": 2, "more": 3})
    second.close()
    assert "keeps its first value of seed" in caplog.text
    assert connect(mlflow_uri).get_run(first.wait_run_id()).data.params == {"seed": "1", "more": "3"}


def test_a_nested_run_names_its_parent(open_tracker, mlflow_uri):
    parent = open_tracker()
    parent.close()
    child = open_tracker(find_parent=lambda client: parent.wait_run_id())
    child.close()
    assert connect(mlflow_uri).get_run(child.wait_run_id()).data.tags["mlflow.parentRunId"] == parent.wait_run_id()


def test_a_run_is_found_again_by_its_key_and_sent_only_what_it_lacks(open_tracker, mlflow_uri):
    first, other = open_tracker(key=("tpo_phase", "f1")), open_tracker(key=("tpo_phase", "f2"))
    first.log_metrics({"loss": 1.0}, 1)
    assert first.close() is None
    again = open_tracker(key=("tpo_phase", "f1"))
    for step in (1, 2):
        again.log_metrics({"loss": float(step)}, step)
    again.close()
    other.close()
    assert again.wait_run_id() == first.wait_run_id() != other.wait_run_id()
    assert steps(connect(mlflow_uri), first.wait_run_id(), "loss") == [(1, 1.0), (2, 2.0)]


def test_a_run_that_is_not_there_is_a_warning(open_tracker, caplog):
    tracker = open_tracker(run_id="0" * 32)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close()
    assert "refused" in caplog.text
    assert "2 records lost" in caplog.text


def test_a_dead_server_neither_raises_nor_holds_up(caplog):
    caplog.set_level(logging.WARNING)
    tracker = MlflowTracker("http://127.0.0.1:9", "x", "run", queue_size=5, close_deadline_s=0.05)
    for step in range(100):
        tracker.log_metrics({"loss": 1.0}, step)
    tracker.log_params({"seed": 1})
    assert tracker.wait_run_id(deadline_s=0.01) is None
    trouble = tracker.close()
    assert trouble == "MLflow at http://127.0.0.1:9 has not taken everything: 102 records lost"
    assert tracker.close() is None
    assert caplog.text.count("102 records lost") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://tpo:hunter2@db/mlflow", "postgresql://tpo:***@db/mlflow"),
        ("postgresql://tpo:hun@t/er:2@db:5432/mlflow", "postgresql://tpo:***@db:5432/mlflow"),
        ("mysql://db/m?user=tpo&password=hunter2&x=1", "mysql://db/m?user=tpo&password=***&x=1"),
        ("no answer of http://u:hunter2@h:80/api (a@b)", "no answer of http://u:***@h:80/api (a@b)"),
        ("http://127.0.0.1:5000/api", "http://127.0.0.1:5000/api"),
        ("sqlite:////a/b@c/mlflow.db", "sqlite:////a/b@c/mlflow.db"),
        ("models:/tpo@champion", "models:/tpo@champion"),
    ],
)
def test_a_password_is_never_shown(text, shown):
    assert without_password(text) == shown


def test_trouble_with_a_server_names_it_without_its_password(caplog, monkeypatch):
    asked, again = threading.Event(), threading.Event()

    def connect(uri):
        (again if asked.is_set() else asked).set()
        raise ConnectionError(f"no route to {uri}")

    monkeypatch.setattr(tracker_module, "connect", connect)
    tracker = MlflowTracker("http://tpo:hunter2@h:80", "x", "run", close_deadline_s=0.05)
    assert again.wait(60)
    trouble = tracker.close()
    assert "MLflow at http://tpo:***@h:80 does not answer, trying on: no route to http://tpo:***@h:80" in caplog.text
    assert trouble.startswith("MLflow at http://tpo:***@h:80 has not taken")
    assert "hunter2" not in caplog.text


class Refusing:
    """A client whose server says no, and where it was asked."""

    def get_run(self, run_id):
        raise ConnectionError("no route to http://tpo:hunter2@h:80/api/2.0")


def test_an_error_line_names_the_registry_without_its_password():
    with pytest.raises(TpoError, match=r"no MLflow registry answers at http://tpo:\*\*\*@h:80:") as caught:
        telling(Refusing(), "http://tpo:hunter2@h:80").get_run("x")
    assert "hunter2" not in str(caught.value)


class BlackHole:
    """A server that takes connections and requests, and answers none. `asked` is set when a request has come."""

    def __init__(self):
        self.asked, self.held = threading.Event(), []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            connection.recv(1)
            self.held.append(connection)
            self.asked.set()

    def close(self):
        self.socket.close()
        for connection in self.held:
            connection.close()


@pytest.fixture
def black_hole():
    hole = BlackHole()
    yield hole
    hole.close()


def test_a_server_that_never_answers_is_waited_for_by_nobody(black_hole):
    """Each call returns while the first request is still unanswered, as all of them are for ever."""
    tracker = MlflowTracker(black_hole.uri, "x", "run", queue_size=5, close_deadline_s=0.05)
    assert black_hole.asked.wait(30)
    for step in range(100):
        tracker.log_metrics({"loss": 1.0}, step)
    tracker.set_tags({"a": "b"})
    assert len(black_hole.held) == 1
    assert tracker.wait_run_id(deadline_s=0.01) is None
    assert tracker.close().endswith("102 records lost")


def test_what_was_sent_before_the_server_went_away_is_not_counted_as_lost(open_tracker, monkeypatch):
    tracker = open_tracker()
    tracker.log_metrics({"loss": 1.0}, 1)
    assert tracker.wait_run_id(60)
    for each in ("log_batch", "set_terminated"):
        monkeypatch.setattr(MlflowClient, each, refuse)
    sent = threading.Event()
    send = tracker._send
    monkeypatch.setattr(tracker, "_send", lambda *about: sent.set() or send(*about))
    tracker.log_metrics({"loss": 1.0}, 2)
    assert sent.wait(60)
    tracker._deadline_s = 0.05
    lost = int(re.search(r"(\d+) records lost", tracker.close()).group(1))
    assert lost in (2, 3)  # the second row and the end; the first one too if it had not gone before


def refuse(*args, **more):
    raise ConnectionError("gone")


def test_the_null_tracker_takes_everything(tmp_path):
    tracker = NullTracker()
    tracker.log_params({})
    tracker.log_metrics({}, 1)
    tracker.log_artifact(tmp_path, "x")
    tracker.set_tags({})
    tracker.close()


def test_flatten_names_list_items_as_overrides_do():
    assert flatten({"a": [{"name": "x", "n": 1}, 2], "b": {"c": None}}) == {
        "a.x.name": "x",
        "a.x.n": 1,
        "a.1": 2,
        "b.c": None,
    }


def test_names_are_spelled_as_mlflow_allows():
    assert legal_name("test/region/acc@0.5") == "test/region/acc_at_0.5"
    assert legal_name("test/mask/j&f") == "test/mask/j_and_f"
    assert legal_name("a=b,c") == "a_b_c"


def test_the_database_of_a_run_lies_in_its_work_folder(tmp_path):
    uri = default_uri(str(tmp_path))
    assert uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert is_missing(uri)
    assert not is_missing("http://mlflow:5000")
    with pytest.raises(TpoError, match=r"set tracking\.uri"):
        default_uri("s3://bucket/run")
