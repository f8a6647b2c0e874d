"""A trace of some steps by torch.profiler, for chrome://tracing or https://ui.perfetto.dev."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function


class Profile:
    """Traces steps `first` to `last`, counted from 1 as rows count them, into `path` (a Chrome trace, gzipped).

    `at` is called before the first step of a run and after every step. A run that ends, or is resumed, between the two
    traces what it runs of them. steps None: nothing is traced. total: steps of the phase. on_trace: called when the
    trace is there.
    """

    def __init__(
        self,
        steps: tuple[int, int] | None,
        total: int,
        path: Path,
        device: torch.device,
        on_trace: Callable[[], None],
    ) -> None:
        first, last = steps or (0, 0)
        self.first, self.last = first, min(last, total)
        self.on_trace = on_trace
        self.path, self.cuda = path, device.type == "cuda"
        self.running: profile | None = None
        self.mark: Any = None

    def at(self, done: int) -> None:
        """`done` steps are done; each that is traced is one event `step N` around what it does."""
        self._end_mark()
        if done >= self.last:
            self.close()
        elif done >= self.first - 1:
            if self.running is None:
                activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.cuda else [])]
                self.running = profile(activities=activities)
                self.running.start()
            self.mark = record_function(f"step {done + 1}")
            self.mark.__enter__()

    def close(self) -> None:
        """Stop, and write the trace if one was begun."""
        self._end_mark()
        if self.running is not None:
            self.running.stop()
            self.running.export_chrome_trace(str(self.path))
            self.running = None
            self.on_trace()

    def _end_mark(self) -> None:
        if self.mark is not None:
            self.mark.__exit__(None, None, None)
            self.mark = None
