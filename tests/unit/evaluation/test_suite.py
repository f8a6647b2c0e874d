"""Suites are data: those that come along are whole, and a mistake in one is a line that says what to do."""

import re

import pytest
import yaml

from tpo_core.config.base import identity
from tpo_core.data.readers import READERS
from tpo_core.errors import TpoError
from tpo_core.evaluation.native import BENCHMARKS
from tpo_core.evaluation.suite import load_suite, suite_names
from tpo_core.metrics.scorers import mvbench

PAPER = "mvbench video_mme video_mme_subtitles mlvu next_gqa seed_bench charades_sta qvhighlights lasot got10k mevis"


@pytest.mark.parametrize("name", suite_names())
def test_suites_that_come_along_can_be_read_and_scored(name):
    for entry in load_suite(name).entries:
        READERS[entry.reader].complete(entry.options)
        assert entry.metric in BENCHMARKS


def test_the_suite_of_the_paper_has_its_benchmarks():
    names = [entry.name for entry in load_suite("tpo_paper").entries]
    assert set(PAPER.split()) <= set(names)
    assert sum(name.startswith("refcoco") for name in names) == 8
    assert "ref_youtube_vos" in names


def test_the_truth_of_refcoco_is_of_the_split_that_is_asked():
    """The official folders hold several refs(SPLIT_BY).p, of which the metric takes none that is not named."""
    entries = [entry for entry in load_suite("tpo_paper").entries if entry.metric == "refcoco"]
    for entry in entries:
        options = READERS[entry.reader].complete(entry.options)
        assert entry.metric_options == {"split": entry.split, "split_by": options["split_by"]}, entry.name
        assert options["split_by"] == ("umd" if options["dataset"] == "refcocog" else "unc"), entry.name
    assert len(entries) == 8


def test_published_numbers_are_those_of_the_paper():
    entries = {entry.name: entry for entry in load_suite("tpo_paper").entries}
    gain = {}
    for name, metric in (("mvbench", "Avg"), ("video_mme", "entire dataset/Overall"), ("mlvu", "Avg")):
        published = entries[name].published
        gain[name] = round(published.videochat_tpo[metric] - published.videochat2[metric], 1)
    assert gain == {"mvbench": 6.4, "video_mme": 9.3, "mlvu": 10.2}  # as the text gives them
    assert set(entries["mvbench"].published.videochat_tpo) == {*mvbench.TASKS, "Avg"}
    tasks = [value for name, value in entries["mvbench"].published.videochat_tpo.items() if name != "Avg"]
    assert sum(tasks) / len(tasks) == pytest.approx(66.8, abs=0.06)
    assert all(entry.published is None or "table" in entry.published.source for entry in entries.values())


def test_where_a_data_set_lies_is_no_part_of_what_is_asked():
    entry = load_suite("tpo_paper").entries[0]
    elsewhere = entry.model_copy(update={"root": "s3://other", "title": "t", "published": None})
    assert identity(entry) == identity(elsewhere)
    assert identity(entry) != identity(entry.model_copy(update={"frames": 8}))


def test_some_entries_alone():
    suite = load_suite("tpo_paper")
    assert [entry.name for entry in suite.only(["mevis", "mlvu"]).entries] == ["mlvu", "mevis"]
    assert suite.only([]) == suite
    with pytest.raises(TpoError, match=r"^suite tpo_paper has no entry 'mevi'; did you mean 'mevis'\?"):
        suite.only(["mevi"])


GOOD = {
    "name": "a", "title": "A", "task": "region", "reader": "refcoco", "root": "r", "split": "val", "metric": "refcoco",
    "implementation": "iou",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reader": "refcocoo"}, "unknown reader 'refcocoo'; did you mean 'refcoco'?"),
        ({"metric": "mevsi"}, "unknown metric 'mevsi'; did you mean 'mevis'?"),
        ({"implementation": "iuo"}, "unknown implementation of refcoco 'iuo'"),
        ({"metric_options": {"splt": "val"}}, "unknown option of refcoco 'splt'; did you mean 'split'?"),
        ({"prompt": "letter"}, "prompt letter is not for task region"),
        ({"task": "choice"}, "prompt as_trained is not for task choice"),
        ({"control": True}, "plain SAM2 does no region"),
        ({"fram": 3}, "unknown key 'fram' in entries.a; did you mean 'frames'?"),
        ({"frames": 0}, "entries.a.frames = 0: must be >= 1"),
    ],
)
def test_a_mistake_in_a_suite_is_one_line(tmp_path, change, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"entries": [{**GOOD, **change}]}))
    with pytest.raises(TpoError, match=f"^suite mine: .*{re.escape(message)}") as caught:
        load_suite(str(path))
    assert "\n" not in str(caught.value)


def test_names_differ_and_a_suite_is_there(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"entries": [GOOD, GOOD]}))
    with pytest.raises(TpoError, match=r"the name 'a' is used twice"):
        load_suite(str(path))
    with pytest.raises(TpoError, match=r"^no suite 'tpo_papr'; did you mean 'tpo_paper'\?"):
        load_suite("tpo_papr")
    with pytest.raises(TpoError, match=r"^no suite '/nowhere\.yaml': there is no such file"):
        load_suite("/nowhere.yaml")
