import json
import subprocess
import sys

import pytest

from tests.unit.evaluation.conftest import FakeModel
from tests.unit.evaluation.report.made_results import Page, make_footage, make_result, make_row, write_result
from tests.unit.evaluation.report.test_report_parts import leave_part
from tpo_core.errors import TpoError
from tpo_core.evaluation.report.footage import of_parts
from tpo_core.evaluation.report.write import write_report
from tpo_core.storage import uri as uris

ROWS = [make_row(number, scores={"iou": number / 12}) for number in range(12)]


def test_a_page_and_a_table_lie_beside_the_results(tmp_path):
    write_result(tmp_path, make_result(), ROWS)
    write_result(tmp_path, make_result("lasot", title="LaSOT", control={"ACC@0.5": 0.7}), [])
    (tmp_path / "notes").mkdir()
    (tmp_path / "log.txt").write_text("not a result")
    written = write_report(tmp_path, lambda entry, sample_id: make_footage(), title="Mine")
    assert written.page == f"{tmp_path}/report.html"
    page = Page(uris.read_bytes(written.page).decode())
    assert "SAM2 control" in page.text
    assert len(page.all("img")) == 9
    table = uris.read_bytes(written.table).decode()
    assert table.startswith("# Mine\n")
    assert "| RefCOCO val | ACC@0.5 | 0.750 |" in table
    assert written.numbers["refcoco_val/ACC@0.5"] == 0.75
    assert written.numbers["lasot/asked"] == 4.0


def test_the_same_again_gives_the_same_bytes(tmp_path):
    write_result(tmp_path, make_result(), ROWS)
    first, second = (
        write_report(tmp_path, lambda entry, sample_id: make_footage(noise=True), to=tmp_path / to) for to in ("a", "b")
    )
    assert uris.read_bytes(first.page) == uris.read_bytes(second.page)
    assert uris.read_bytes(first.table) == uris.read_bytes(second.table)


def test_entries_may_be_chosen_and_ordered(tmp_path):
    for name in ("a", "b", "c"):
        write_result(tmp_path, make_result(name, title=name.upper()), [])
    page = Page(uris.read_bytes(write_report(tmp_path, folders=["c", "gone", "a"]).page).decode())
    assert page.of("meta") == ["refcoco (iou) \u00b7 4/4 scored \u00b7 25.0 % missed activation"] * 2
    assert page.text.index("C ACC@0.5") < page.text.index("A ACC@0.5")


def test_the_parts_of_a_chain_are_reported_on_from_their_shards(tmp_path, shards):
    leave_part(tmp_path, shards, FakeModel())
    references = {"before TPO": {"val/region/miou": 0.5}}
    written = write_report(tmp_path, of_parts(shards), references=references, to=tmp_path / "report")
    assert written.page == f"{tmp_path}/report/report.html"
    page = Page(uris.read_bytes(written.page).decode())
    assert "before TPO" in page.text
    assert "best constant answer" in page.text
    assert "no such sample" not in page.text
    assert len(page.all("article")) == 21  # seven tasks of three samples
    assert written.numbers["val/mask/j"] == pytest.approx(0.75)


def test_without_results_it_says_what_to_run(tmp_path):
    with pytest.raises(TpoError, match=r"no results below .*: run pipelines/evaluate\.py"):
        write_report(tmp_path)


def test_results_and_report_may_lie_in_a_bucket(bucket):
    output = f"{bucket}/evaluation"
    uris.write_json(f"{output}/refcoco_val/result.json", make_result())
    uris.write_bytes(f"{output}/refcoco_val/rows.jsonl", "".join(f"{json.dumps(row)}\n" for row in ROWS).encode())
    written = write_report(output)
    assert written.page == f"{output}/report.html"
    assert len(Page(uris.read_bytes(written.page).decode()).all("article")) == 9


def test_neither_ray_nor_mlflow_is_needed():
    code = "import sys, tpo_core.evaluation.report.write; print([m for m in ('ray', 'mlflow') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
