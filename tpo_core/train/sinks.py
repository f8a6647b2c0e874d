"""Where the numbers of logged rows go besides the history."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

FINISHED, FAILED, STOPPED = "FINISHED", "FAILED", "KILLED"  # as MLflow calls them


class MetricSink(Protocol):
    """One place that takes them. No method raises for trouble on the other side, or waits for it, but `close`."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Record `metrics` at `step`; recording one of them again changes nothing."""

    def log_artifact(self, path: Path, folder: str) -> None:
        """Keep a file below `folder`; it stays in place until `close`."""

    def close(self, status: str) -> str | None:
        """Deliver what is still on its way, up to a deadline, and record how the phase ended: FINISHED, FAILED, or
        STOPPED, to be gone on with. Returns what was lost, in words."""


class NoSink:
    """Keeps nothing: the history file has it all."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Nothing."""

    def log_artifact(self, path: Path, folder: str) -> None:
        """Nothing."""

    def close(self, status: str) -> str | None:
        """Nothing."""
        return None


class Sinks:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[MetricSink]) -> None:
        self.sinks = sinks

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """See MetricSink."""
        for sink in self.sinks:
            sink.log_metrics(metrics, step)

    def log_artifact(self, path: Path, folder: str) -> None:
        """See MetricSink."""
        for sink in self.sinks:
            sink.log_artifact(path, folder)

    def close(self, status: str) -> str | None:
        """See MetricSink."""
        troubles = [sink.close(status) for sink in self.sinks]
        return "; ".join(filter(None, troubles)) or None
