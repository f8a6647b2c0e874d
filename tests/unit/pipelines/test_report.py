import io

from rich.console import Console

from pipelines.report import metrics_table, print_report
from tpo_core.execution.artifact import Artifact


def printed(table):
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    return text.getvalue()


def row(text, label):
    line = next(line for line in text.splitlines() if label in line)
    return [cell.strip() for cell in line.strip("\u2502\u2503").replace("\u2503", "\u2502").split("\u2502")]


MEASURED = {"test/region/acc@0.5": 0.625, "test/qa/accuracy": 0.9, "unseen/region/acc@0.5": 0.5, "test/other/x": 0.1}
BASE = {"test/region/acc@0.5": 0.0, "test/qa/accuracy": 0.91}
CONSTANT = {"test/region/acc@0.5": 0.0312}


def test_a_row_a_metric_and_a_column_a_part_in_percent():
    text = printed(metrics_table(MEASURED, BASE, CONSTANT))
    assert row(text, "metric") == ["metric", "test", "unseen"]
    assert row(text, "region Acc@0.5") == ["region Acc@0.5", "62.5 / 0.0 / 3.1", "50.0 / - / -"]
    assert row(text, "QA accuracy") == ["QA accuracy", "90.0 / 91.0 / -", "- / - / -"]


def test_what_was_not_measured_has_no_row():
    text = printed(metrics_table(MEASURED, BASE, CONSTANT))
    assert "mask" not in text
    assert "other" not in text


def artifact(step, result):
    return Artifact(
        step=step, version=1, uri=f"/runs/{step}/0123", fingerprint="0123", inputs={}, identity={}, result=result,
        provenance={"seconds": 61.4},
    )  # fmt: skip


def test_the_report_says_what_was_registered_and_where_to_look(capsys):
    done = {
        "evaluate_base": artifact("evaluate_base", {"metrics": BASE, "baseline": {}}),
        "evaluate": artifact("evaluate", {"metrics": MEASURED, "baseline": CONSTANT}),
        "register": artifact("register", {"name": "tpo", "version": 3, "uri": "sqlite:////runs/mlflow.db"}),
    }
    lines = []
    print_report(done, lines.append)
    out = capsys.readouterr().out
    assert row(out, "evaluate_base") == ["evaluate_base", "61", "/runs/evaluate_base/0123"]
    assert "62.5 / 0.0 / 3.1" in out
    assert lines == [
        "registered tpo version 3 as challenger",
        "gallery    /runs/evaluate/0123/test/gallery/gallery.png",
        "report     /runs/register/0123/report.html",
        "curves     /runs/register/0123/loss_curves.png",
        "MLflow     mlflow ui --backend-store-uri sqlite:////runs/mlflow.db",
    ]


def test_the_gallery_is_that_of_the_first_part_that_was_measured():
    done = {
        "evaluate_base": artifact("evaluate_base", {"metrics": {}, "baseline": {}}),
        "evaluate": artifact("evaluate", {"metrics": {"val/mask/j": 0.5, "unseen/mask/j": 0.4}, "baseline": {}}),
        "register": artifact("register", {"name": "tpo", "version": 3, "uri": "sqlite:////runs/mlflow.db"}),
    }
    lines = []
    print_report(done, lines.append)
    assert "gallery    /runs/evaluate/0123/val/gallery/gallery.png" in lines
