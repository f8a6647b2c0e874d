"""Several places for the same numbers."""

from pathlib import Path

from tpo_core.train.sinks import NoSink, Sinks


class Kept(NoSink):
    def __init__(self):
        self.calls = []

    def log_metrics(self, metrics, step):
        self.calls.append((metrics, step))

    def log_artifact(self, path, folder):
        self.calls.append((path, folder))

    def close(self, status):
        self.calls.append(status)


def test_all_sinks_get_everything():
    first, second = Kept(), Kept()
    both = Sinks([first, NoSink(), second])
    both.log_metrics({"total": 1.0}, 3)
    both.log_artifact(Path("trace"), "profile")
    both.close("FAILED")
    assert first.calls == [({"total": 1.0}, 3), (Path("trace"), "profile"), "FAILED"] == second.calls
