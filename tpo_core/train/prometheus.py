"""Shows the numbers of logged rows as gauges that Ray exports to Prometheus, where each name begins with `ray_`.

Ray's own agent on the node of rank 0 is what Prometheus asks (Grafana's Ray dashboards already do); nothing listens
here. Every gauge has the tag `phase`.
"""

import time
from pathlib import Path

from ray.util.metrics import Gauge

# What a name in a row (rows.make_row) becomes: the gauge, and the tag that takes the rest of the name.
SERIES = {
    "loss/": ("tpo_loss", "name"),
    "kind/": ("tpo_kind_loss", "kind"),
    "lr/": ("tpo_lr", "group"),
    "report/": ("tpo_report", "name"),
}
CHECKPOINT_TIME = "tpo_checkpoint_unix_s"
SINGLE = {
    "grad_norm": "L2 norm of the gradients before clipping",
    "samples_per_s": "samples a second, all ranks",
    "tokens_per_s": "tokens that the language model reads a second, all ranks",
    "tflops_per_s": "TFLOP of the model a second, all ranks",
    "mfu": "fraction of what the devices do at best, 0 to 1",
    "data_wait": "fraction of the time spent waiting for data, 0 to 1",
    "memory_bytes": "highest memory of a rank, bytes",
    "eta_s": "seconds that the phase is expected to take from here",
    "skipped": "updates left out because something was not finite",
    "checkpoint_step": "step of the last checkpoint that is known to be good",
}


class PrometheusSink:
    """The newest row of a phase; rank 0 has one."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.gauges: dict[str, Gauge] = {}
        self.checkpoint_step: float | None = None

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """See MetricSink."""
        self._set("tpo_step", step, "updates done")
        if CHECKPOINT_TIME not in self.gauges or metrics.get("checkpoint_step") != self.checkpoint_step:
            self.checkpoint_step = metrics.get("checkpoint_step")
            self._set(CHECKPOINT_TIME, time.time(), "when there was a new checkpoint, or work began, in Unix seconds")
        if "total" in metrics:
            self._set("tpo_loss", metrics["total"], name="total")
        for name, value in metrics.items():
            if name in SINGLE:
                self._set(f"tpo_{name}", value, SINGLE[name])
            head, slash, rest = name.partition("/")
            if head + slash in SERIES:
                gauge, tag = SERIES[head + slash]
                self._set(gauge, value, **{tag: rest})

    def log_artifact(self, path: Path, folder: str) -> None:
        """Nothing: gauges are numbers."""

    def close(self, status: str) -> str | None:
        """Nothing is on its way; the gauges go with the process."""
        return None

    def _set(self, gauge: str, value: float, description: str = "", **tags: str) -> None:
        if gauge not in self.gauges:
            self.gauges[gauge] = Gauge(gauge, description, ("phase", *tags))
        self.gauges[gauge].set(value, {"phase": self.phase, **tags})
