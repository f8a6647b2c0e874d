"""What rank 0 leaves behind of a phase: notes, history, tracked metrics, the model and the summary."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from tpo_core.storage import local
from tpo_core.train.job import PhaseJob
from tpo_core.train.rows import Progress, Row, numbers
from tpo_core.train.sinks import MetricSink

TRACKED_TRACE_MB = 64  # a larger trace stays where it is: MLflow would take minutes over it


class Savable(Protocol):
    """A model that can be written."""

    def save_pretrained(self, directory: Path, weights: Mapping[str, Tensor]) -> None:
        """Write `weights`, a whole state dict, in the Hugging Face layout."""


class Recorder:
    """Writes them, each line at once: a reader follows along, and a kill loses nothing that was told."""

    def __init__(self, job: PhaseJob, progress: Progress, sink: MetricSink) -> None:
        """Rows beyond `progress.step` come from an attempt that died after its last checkpoint: they are dropped. The
        others are handed to `sink` again, which may not have got them when that attempt died."""
        self.job, self.sink = job, sink
        job.output.mkdir(parents=True, exist_ok=True)
        keep = [row for row in read_history(job.history) if row["step"] <= progress.step]
        local.write_bytes(str(job.history), "".join(json.dumps(row) + "\n" for row in keep).encode())
        for row in keep:
            sink.log_metrics(numbers(row), row["step"])

    def note(self, *lines: str) -> None:
        with self.job.notes.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def row(self, row: Row, checkpoint_step: int | None) -> None:
        """checkpoint_step: of the last checkpoint that is known to be good. It is not in the history, because it also
        tells how fast the storage is."""
        with self.job.history.open("a") as file:
            file.write(json.dumps(row) + "\n")
        known = {} if checkpoint_step is None else {"checkpoint_step": float(checkpoint_step)}
        self.sink.log_metrics(numbers(row) | known, row["step"])

    def sync(self) -> None:
        """Have the disk hold all that was written: a checkpoint that outlives a machine must not know more rows."""
        for path in (self.job.history, self.job.notes):
            local.sync(path)

    def traced(self) -> None:
        """A trace has been written."""
        size_mb = self.job.trace.stat().st_size / 1e6
        self.note(f"a trace of torch.profiler ({size_mb:.1f} MB) is in {self.job.trace.name}, beside the history")
        if size_mb <= TRACKED_TRACE_MB:
            self.sink.log_artifact(self.job.trace, "profile")

    def finish(self, model: Savable, weights: Mapping[str, Tensor]) -> None:
        """Write the model, then the summary: {steps, samples, seconds, skipped, losses of the last row}."""
        aside = self.job.model.with_name("model.partial")
        for path in (aside, self.job.model):  # left by an attempt that died right here
            shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(aside, weights)
        local.sync_tree(aside)  # before the summary says that it is there
        aside.rename(self.job.model)
        last = read_history(self.job.history)[-1]
        losses = {k: v for k, v in last.items() if k == "total" or k.startswith(("loss/", "kind/"))}
        summary = {k: last[k] for k in ("steps", "samples", "seconds", "skipped")} | {"final": losses}
        local.write_bytes(str(self.job.summary), json.dumps(summary, indent=1).encode())
        self.close()

    def close(self) -> None:
        """Deliver what is on its way to the sink, and tell what did not arrive."""
        trouble = self.sink.close()
        if trouble:
            self.note(f"{trouble}; all is in {self.job.history.name}, which the step `register` sends once more")


def read_history(path: Path) -> list[Row]:
    """All complete rows of a history; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
