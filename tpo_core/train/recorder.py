"""What rank 0 leaves behind of a phase: notes, history, tracked metrics, the model and the summary."""

import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from tpo_core.errors import in_one_line
from tpo_core.storage import local
from tpo_core.train.job import PhaseJob
from tpo_core.train.rows import Progress, Row, numbers
from tpo_core.train.sinks import FAILED, FINISHED, STOPPED, MetricSink

TRACKED_TRACE_MB = 64  # a larger trace stays where it is: MLflow would take minutes over it


class Savable(Protocol):
    """A model that can be written."""

    def save_pretrained(self, directory: Path, weights: Mapping[str, Tensor]) -> None:
        """Write `weights`, a whole state dict, in the Hugging Face layout."""


class Recorder:
    """Writes them, each line at once: a reader follows along, and a kill loses nothing that was told."""

    def __init__(self, job: PhaseJob, sink: MetricSink) -> None:
        self.job, self.sink = job, sink
        self.step = 0  # of the last row
        self.waiting: dict[Path, str] = {}  # lines that a full disk did not take
        self.writing = threading.Lock()  # checkpoints are written in a thread of their own, which calls `sync`
        job.output.mkdir(parents=True, exist_ok=True)

    def resume(self, progress: Progress) -> None:
        """Drop the rows of steps that an attempt took beyond its last checkpoint, and a row that ends within the window
        that goes on, because that attempt failed there. The others are handed to the sink again, which may not have got
        them when that attempt died."""
        self.step = progress.step - progress.window.steps
        keep = [row for row in read_history(self.job.history) if row["step"] <= self.step]
        local.write_bytes(str(self.job.history), "".join(json.dumps(row) + "\n" for row in keep).encode())
        for row in keep:
            self.sink.log_metrics(numbers(row), row["step"])

    def note(self, *lines: str) -> None:
        self._append(self.job.notes, "".join(f"{line}\n" for line in lines))

    def row(self, row: Row, checkpoint_step: int | None) -> None:
        """checkpoint_step: of the last checkpoint that is known to be good. It is not in the history, because it also
        tells how fast the storage is."""
        self.step = row["step"]
        self._append(self.job.history, json.dumps(row) + "\n")
        known = {} if checkpoint_step is None else {"checkpoint_step": float(checkpoint_step)}
        self.sink.log_metrics(numbers(row) | known, row["step"])

    def sync(self) -> None:
        """Have the disk hold all that was written: a checkpoint that outlives a machine must not know more rows."""
        for path in (self.job.history, self.job.notes):
            with self.writing:
                self._write(path)
            local.sync(path)

    def _append(self, path: Path, text: str) -> None:
        """A disk that is full ends no training: what it does not take stands before whatever comes next, and no
        checkpoint is good before it is written."""
        with self.writing:
            self.waiting[path] = self.waiting.get(path, "") + text
            try:
                self._write(path)
            except OSError as error:
                if not local.is_disk_full(error):
                    raise

    def _write(self, path: Path) -> None:
        """What waits for a file, all or nothing. OSError."""
        text = self.waiting.get(path, "")
        if not text:
            return
        size_bytes = path.stat().st_size if path.exists() else 0
        try:
            with path.open("a") as file:
                file.write(text)
        except OSError:
            if path.exists():
                os.truncate(path, size_bytes)
            raise
        del self.waiting[path]

    def traced(self) -> None:
        """A trace has been written."""
        size_mb = self.job.trace.stat().st_size / 1e6
        self.note(f"a trace of torch.profiler ({size_mb:.1f} MB) is in {self.job.trace.name}, beside the history")
        if size_mb <= TRACKED_TRACE_MB:
            self.sink.log_artifact(self.job.trace, "profile")

    def finish(
        self, model: Savable, weights: Mapping[str, Tensor], progress: Progress, losses: Mapping[str, float]
    ) -> None:
        """Write the model, then the summary: {steps, samples, seconds, skipped, final: losses}, and until_step where
        that is not the end of the phase.

        An attempt that finished, and of which another rank died before it could say so, has left both: the summary goes
        first, because with it the phase counts as finished.
        """
        self.job.summary.unlink(missing_ok=True)
        aside = self.job.model.with_name("model.partial")
        for path in (aside, self.job.model):  # left by an attempt that died right here
            shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(aside, weights)
        local.sync_tree(aside)  # before the summary says that it is there
        aside.rename(self.job.model)
        self.sync()
        counts = {"samples": progress.samples, "seconds": progress.seconds, "skipped": progress.skipped}
        summary = {"steps": progress.step, **counts, "final": dict(losses)}
        if self.job.until_step is not None:
            summary["until_step"] = self.job.until_step
        local.write_bytes(str(self.job.summary), json.dumps(summary, indent=1).encode())
        self.close(FINISHED)

    def leave(self, step: int, saved: int | None) -> None:
        """Note where training was when it was asked to stop, and at which step it goes on. saved: that of the last good
        checkpoint."""
        last = "nothing" if saved is None else f"the checkpoint of step {saved}"
        if saved == step:
            self.note(f"asked to stop: saved and left at step {step}")
        elif step == 0:
            self.note("asked to stop: left before the first step")
        else:
            self.note(f"asked to stop: left at step {step} without saving it; what stays is {last}")
        self.close(STOPPED)

    def fail(self, error: Exception, unlogged: Row | None) -> None:
        """Record the steps since the last row, note why the phase ends here, and say so to the sink."""
        try:
            if unlogged is not None and unlogged["step"] > self.step:
                self.row(unlogged, None)
            self.note(f"failed: {in_one_line(error)}")
        finally:
            self.close(FAILED)

    def close(self, status: str) -> None:
        """Deliver what is on its way to the sink, and tell what did not arrive. status: see MetricSink."""
        trouble = self.sink.close(status)
        if trouble:
            self.note(f"{trouble}; all is in {self.job.history.name}, which the step `register` sends once more")


class Unrecorded:
    """What the ranks but 0 have for a Recorder: nothing is written."""

    def resume(self, progress: Progress) -> None:
        """Nothing."""

    def note(self, *lines: str) -> None:
        """Nothing."""

    def row(self, row: Row, checkpoint_step: int | None) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def traced(self) -> None:
        """Nothing."""

    def finish(
        self, model: Savable, weights: Mapping[str, Tensor], progress: Progress, losses: Mapping[str, float]
    ) -> None:
        """Nothing."""

    def leave(self, step: int, saved: int | None) -> None:
        """Nothing."""

    def fail(self, error: Exception, unlogged: Row | None) -> None:
        """Nothing."""


def read_history(path: Path) -> list[Row]:
    """All complete rows of a history; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
