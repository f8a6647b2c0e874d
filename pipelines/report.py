"""print_report(...): the table at the end of a chain, and where to look. page_of(...): the page on measured parts;
track(...): a page in MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tpo_core.config.schema import TrackingConfig
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation.report.footage import of_parts
from tpo_core.evaluation.report.write import PAGE, TABLE, Written, write_report
from tpo_core.execution.artifact import Artifact
from tpo_core.storage.uri import copy_here
from tpo_core.tracking.report import log_report

# Metrics worth a line, with the name that people use for them.
HEADLINES = {
    "region/acc@0.5": "region Acc@0.5",
    "region/miou": "region mIoU",
    "moment/r1@0.3": "moment R1@0.3",
    "moment/r1@0.5": "moment R1@0.5",
    "moment/r1@0.7": "moment R1@0.7",
    "moment/miou": "moment mIoU",
    "mask/j": "mask J",
    "mask/f": "mask F",
    "mask/j&f": "mask J&F",
    "track/miou": "track mean IoU",
    "qa/accuracy": "QA accuracy",
    "choice/accuracy": "multiple choice accuracy",
    "activation/false": "false activation",
    "activation/missed": "missed activation",
}


def metrics_table(measured: Mapping[str, float], base: Mapping[str, float], constant: Mapping[str, float]) -> Table:
    """A row a metric; for each part the TPO model, the base model before TPO and the constant baseline, in percent."""
    parts = _parts(measured)
    table = Table(title="TPO / base before TPO / best constant answer, in percent", title_justify="left")
    table.add_column("metric")
    for part in parts:
        table.add_column(part, justify="right")
    for name, label in HEADLINES.items():
        cells = [
            " / ".join(_percent(numbers.get(f"{part}/{name}")) for numbers in (measured, base, constant))
            for part in parts
        ]
        if any(f"{part}/{name}" in measured for part in parts):
            table.add_row(label, *cells)
    return table


def _parts(measured: Mapping[str, float]) -> list[str]:
    """Measured parts, in the order of the recipe."""
    return list(dict.fromkeys(name.split("/")[0] for name in measured))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def times_table(done: Mapping[str, Artifact]) -> Table:
    """How long each step took when it ran."""
    table = Table(title="steps", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    table.add_column("result in")
    for name, artifact in done.items():
        table.add_row(name, f"{artifact.provenance['seconds']:.0f}", artifact.uri)
    return table


def page_of(
    results: Path, shards_uri: str, title: str, references: Mapping[str, Mapping[str, float]], to: Path
) -> Written | None:
    """Writes the page and the table on the parts that were measured into the folder `to`; references as of
    write_report. None where no part lies here: machines that share no disk keep what they measured."""
    if not any((folder / "metrics.json").is_file() for folder in results.glob("*")):
        return None
    return write_report(results, of_parts(ShardSet.open(shards_uri)), title=title, references=references, to=to)


def track(written: Written, config: TrackingConfig, uri: str, name: str, parent: str | None) -> str | None:
    """Logs a report, wherever it lies, to the run `name` of MLflow at `uri`, below the run `parent` (an id) if there is
    one. Returns what was lost, in words."""
    with tempfile.TemporaryDirectory() as folder:
        page, table = Path(folder, PAGE), Path(folder, TABLE)
        copy_here(written.page, page)
        copy_here(written.table, table)
        return log_report(uri, config.experiment, name, page=page, table=table, numbers=written.numbers, parent=parent)


def print_report(done: Mapping[str, Artifact], echo: Callable[[str], None]) -> None:
    """The table of the evaluation, the time of each step, and where to look."""
    console = Console(width=120, highlight=False)
    measured, base, registered = done["evaluate"], done["evaluate_base"].result, done["register"].result
    console.print(times_table(done))
    console.print(metrics_table(measured.result["metrics"], base["metrics"], measured.result["baseline"]))
    echo(f"registered {registered['name']} version {registered['version']} as challenger")
    for part in _parts(measured.result["metrics"])[:1]:
        echo(f"gallery    {measured.uri}/{part}/gallery/gallery.png")
    echo(f"report     {done['register'].uri}/{PAGE}")
    echo(f"curves     {done['register'].uri}/loss_curves.png")
    echo(f"MLflow     mlflow ui --backend-store-uri {registered['uri']}")
