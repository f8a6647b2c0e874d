"""python cluster/monitoring/make_dashboard.py: writes dashboard.json beside it, from the list of panels below.

Nobody edits the JSON: a test holds it equal to what this writes. Names of metrics are those that the code exports
(tpo_core/train/prometheus.py, tpo_core/data/preprocess.py, pipelines/gauges.py) and Ray's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("dashboard.json")
WIDTH, HEIGHT = 8, 8  # of a panel, in Grafana's grid of 24 columns
PHASE = "phase"


@dataclass(frozen=True)
class Panel:
    """A graph: its title, its unit as Grafana names it, and expressions by the legend of their lines."""

    title: str
    unit: str
    lines: dict[str, str]


PANELS = [
    Panel("Step of the chain that runs", "none", {"{{step}}": "max by (step) (ray_tpo_chain_step_running) == 1"}),
    Panel("Steps done of the phase", "none", {"{{phase}}": "max by (phase) (ray_tpo_step)"}),
    Panel("Time left of the phase", "s", {"{{phase}}": "max by (phase) (ray_tpo_eta_s)"}),
    Panel("Loss by task", "none", {"{{name}}": 'max by (name) (ray_tpo_loss{phase=~"$phase"})'}),
    Panel("Loss of batches by kind", "none", {"{{kind}}": 'max by (kind) (ray_tpo_kind_loss{phase=~"$phase"})'}),
    Panel("Gradient norm", "none", {"{{phase}}": 'max by (phase) (ray_tpo_grad_norm{phase=~"$phase"})'}),
    Panel("Samples per second", "none", {"{{phase}}": 'max by (phase) (ray_tpo_samples_per_s{phase=~"$phase"})'}),
    Panel("Tokens per second", "none", {"{{phase}}": 'max by (phase) (ray_tpo_tokens_per_s{phase=~"$phase"})'}),
    Panel("Model FLOP utilization", "percentunit", {"{{phase}}": 'max by (phase) (ray_tpo_mfu{phase=~"$phase"})'}),
    Panel("Waiting for data", "percentunit", {"{{phase}}": 'max by (phase) (ray_tpo_data_wait{phase=~"$phase"})'}),
    Panel(
        "Age of the checkpoint",
        "s",
        {"{{phase}}": 'time() - max by (phase) (ray_tpo_checkpoint_unix_s{phase=~"$phase"})'},
    ),
    Panel("Updates left out", "none", {"{{phase}}": 'max by (phase) (ray_tpo_skipped{phase=~"$phase"})'}),
    Panel(
        "Media decoded",
        "none",
        {"done": "max(ray_tpo_preprocess_media_done)", "to do in all": "max(ray_tpo_preprocess_media_total)"},
    ),
    Panel("Media decoded per second", "none", {"all workers": "max(ray_tpo_preprocess_media_per_s)"}),
    Panel(
        "Rejected",
        "none",
        {
            "samples": "max(ray_tpo_preprocess_samples_rejected)",
            "media": "max(ray_tpo_preprocess_media_failed)",
            "budget": "max(ray_tpo_preprocess_reject_budget) * max(ray_tpo_preprocess_samples_read)",
        },
    ),
    Panel(
        "Object store",
        "bytes",
        {"{{Location}}": "sum by (Location) (ray_object_store_memory)"},
    ),
    Panel("Spilled", "bytes", {"{{instance}}": 'sum by (instance) (ray_object_store_memory{Location="SPILLED"})'}),
    Panel("Disk in use", "bytes", {"{{instance}}": "max by (instance) (ray_node_disk_usage)"}),
    Panel("GPUs at work", "percent", {"{{instance}}": "avg by (instance) (ray_node_gpus_utilization)"}),
    Panel("Memory of the nodes", "bytes", {"{{instance}}": "max by (instance) (ray_node_mem_used_host)"}),
    Panel("Memory of the training ranks", "bytes", {"{{phase}}": "max by (phase) (ray_tpo_memory_bytes)"}),
]


def dashboard() -> dict[str, Any]:
    """Grafana's JSON."""
    return {
        "uid": "tpo-platform",
        "title": "TPO platform",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), _phases()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _phases() -> dict[str, Any]:
    return {
        "name": PHASE,
        "label": "Phase",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": f"label_values(ray_tpo_step, {PHASE})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    columns = 24 // WIDTH
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"x": number % columns * WIDTH, "y": number // columns * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(panel.lines.items())
        ],
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
