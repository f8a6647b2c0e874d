"""Charades-STA: what each of the four codes makes of degenerate files."""

import json

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics import replies
from tpo_core.metrics.registry import score

TEXT = "A 0.0 4.0##sits. #1\nB 2.0 4.0##stands.\nC 1.0 2.0##runs.\nD 1.0 2.0##eats.\n"


@pytest.fixture
def run(tmp_path):
    def go(implementation, predictions, strict=False, text=TEXT):
        (tmp_path / "charades_sta_test.txt").write_text(text)
        rows = isinstance(predictions, list) and implementation == "cgdetr"
        path = tmp_path / "pred.json"
        path.write_text("\n".join(map(json.dumps, predictions)) if rows else json.dumps(predictions))
        return score("charades_sta", tmp_path / "charades_sta_test.txt", path, implementation, strict)

    return go


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


def test_cgdetr_numbers_text_lines_from_zero(run):
    given = [(0, [[0, 4, 1.0]]), (1, [[4, 2, 1.0]]), (2, []), (9, [[0, 1, 1.0]])]
    report = run("cgdetr", [{"qid": qid, "pred_relevant_windows": windows} for qid, windows in given])
    assert report.result["brief"]["MR-full-R1@0.5"] == 25.0
    assert counts(report) == {"missing": 1, "empty": 1, "reversed": 1, "unknown": 1}


def test_timesuite(run):
    given = {"0": {"timestamp": [[0, 4]]}, "1": {"timestamp": [[4, 2]]}, "2": {"timestamp": []}}
    report = run("timesuite", given)
    assert (report.result["0.7"], report.n, report.N) == (25.0, 4, 4)
    assert counts(report) == {"missing": 1, "empty": 1, "reversed": 1}
    with pytest.raises(TpoError, match="3 predictions for 4 truths"):
        run("timesuite", given, strict=True)
    with pytest.raises(TpoError, match="there is no prediction for 3"):
        run("timesuite", given | {"8": {"timestamp": []}}, strict=True)


def test_timesuite_parses_replies(run):
    given = [{"id": n, "generated_cap": text} for n, text in enumerate(["0 - 4", "from 2 to 4", "1..2 - 2", "1 - 2"])]
    report = run("timesuite", given)
    assert (report.result["0.7"], counts(report)) == (50.0, {"empty": 2, "unparsed": 2})
    with pytest.raises(TpoError, match=r"stops at 2.*1\.\.2"):
        run("timesuite", given, strict=True)


def test_of_a_reply_that_timesuite_has_twice_the_first_counts(run):
    given = [{"id": 0, "generated_cap": "0 - 4"}, {"id": "00", "generated_cap": "90 - 99"}]
    report = run("timesuite", given, text="A 0 4##sits.")
    assert (report.result["0.7"], counts(report)) == (100.0, {"duplicate": 1})
    official = run("timesuite", given, strict=True, text="A 0 4##sits.")
    assert (official.result["0.7"], official.rejected) == (0.0, {}), "there the last one counts"


def test_timesuite_ids_are_whole_numbers(run):
    with pytest.raises(TpoError, match="id '--1' is no whole number"):
        run("timesuite", {"--1": {"timestamp": [[0, 4]]}})


def test_timesuite_divides_by_nothing(run):
    text, given = "A 5 5##sits.", {"0": {"timestamp": [[5, 5]]}}
    assert run("timesuite", given, text=text).result["0.3"] == 0.0
    with pytest.raises(TpoError, match="0/0"):
        run("timesuite", given, strict=True, text=text)


def test_lmms_eval_takes_the_truth_from_the_keys(run):
    given = {
        "A.mp4>>>sits. #1>>>[0.0, 4.0]": "It happens in 0 - 4 seconds",
        "B.mp4>>>stands.>>>[2.0, 4.0]": "2 - 4",  # no word of when
        "X.mp4>>>waves.>>>[2.0, 4.0]": "It happens in 2 - 4 seconds",
    }
    report = run("lmms_eval", given)
    assert (report.result["0.7"], report.n, report.N) == (25.0, 4, 4)
    assert counts(report) == {"missing": 2, "unparsed": 1, "unknown": 1}
    official = run("lmms_eval", given, strict=True)
    assert (official.n, official.N) == (3, 5), "what belongs to no truth is scored there, so it is in N too"
    assert official.result["0.7"] == pytest.approx(200 / 3)
    assert counts(official) == {"missing": 2, "unparsed": 1, "extra": 1}


def test_strictly_official_lmms_eval_scores_no_more_than_there_are(run):
    """Two equal sentences of the truth are one key."""
    given = {"V1.mp4>>>a>>>[0, 10]": "start 0 - 10", "V2.mp4>>>b>>>[0, 5]": "start 0 - 5"}
    report = run("lmms_eval", given, strict=True, text="V1 0 10##a\nV1 0 10##a\n")
    assert (report.n, report.N, report.result["mIoU"]) == (2, 2, 100.0)
    assert counts(report) == {"extra": 1}
    assert "left out" not in report.as_text()


def test_lmms_eval_is_told_of_a_sentence_twice(run):
    given = {"A>>>sits.>>>[0, 4]": "It happens in 0 - 4", "A.mp4>>>sits.>>>[0, 4]": "It happens in 8 - 9"}
    report = run("lmms_eval", given, text="A 0 4##sits.")
    assert (report.result["0.7"], report.n, report.N, counts(report)) == (100.0, 1, 1, {"duplicate": 1})
    official = run("lmms_eval", given, strict=True, text="A 0 4##sits.")
    assert (official.result["0.7"], official.n, official.N) == (50.0, 2, 2)


def test_reversed_truths_leave_the_denominator(run):
    text = "A 4 0##sits.\nB 0 4##sits.\n"
    report = run("timesuite", {"0": {"timestamp": [[0, 4]]}, "1": {"timestamp": [[0, 4]]}}, text=text)
    assert (report.result["0.7"], report.n, report.N, counts(report)) == (100.0, 1, 2, {"bad_truth": 1})


def test_vtimellm_reads_its_log(tmp_path):
    truth = {"v": {"duration": 50.0, "timestamps": [[5, 15], [0, 5], [1, 2]], "sentences": ["a", "b", "c"]}}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    log = [("grounding", 0, "from 10 to 30"), ("grounding", 1, "never"), ("captioning", 0, "x")]
    lines = [
        {"task": task, "video_id": "v", "query_id": 0, "answer": reply, "info": {"sentence_id": number}}
        for task, number, reply in [*log, ("grounding", 0, "from 00 to 01")]
    ]
    (tmp_path / "log.txt").write_text("\n".join(map(json.dumps, lines)))
    report = score("charades_sta", tmp_path / "gt.json", tmp_path / "log.txt", "vtimellm")
    assert report.result["R1@0.7"] == pytest.approx(100 / 3)
    assert counts(report) == {"missing": 1, "unparsed": 1, "duplicate": 1}
    official = score("charades_sta", tmp_path / "gt.json", tmp_path / "log.txt", "vtimellm", strict_official=True)
    assert (official.n, official.N) == (2, 3)


@pytest.mark.parametrize(
    ("reply", "timesuite", "lmms_eval"),
    [
        ("3 - 5", (3.0, 5.0), None),
        ("It happens in 5 - 3", (3.0, 5.0), (3.0, 5.0)),
        ("It happens in 3.0\u20135.5 s", None, (3.0, 5.5)),
        ("It starts at 3s\nand ends at 5 s", None, None),
        ("It starts at 3 s\nand ends at 5 s", (3.0, 5.0), (3.0, 5.0)),
        ("It starts at 3.5\nand ends at 5.25", (3.5, 5.25), (3.5, 5.25)),
        ("start 3s - 5s", None, (3.0, 5.0)),
        ("starts at 00:00:18! ends at 00:00:23", (0.0, 0.0), (0.0, 0.0)),
        ("No idea.", None, None),
        ("A specific example is : 20.8 - 30.0 seconds", (20.8, 30.0), None),
    ],
)
def test_replies(reply, timesuite, lmms_eval):
    assert replies.timesuite(reply) == timesuite
    assert replies.lmms_eval(reply) == lmms_eval


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gt.txt", "A 0.0##sits", "line 1 is not `VIDEO START END##SENTENCE`"),
        ("gt.json", "[]", "a JSON object with a list of annotations"),
        ("gt.jsonl", '{"qid": 1, "relevant_windows": [[0, 1]]}\n' * 2, "repeats id 1"),
        ("gt.txt", "\n", "holds no truth"),
    ],
)
def test_damaged_truths_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    (tmp_path / "pred.json").write_text("{}")
    with pytest.raises(TpoError, match=message):
        score("charades_sta", tmp_path / name, tmp_path / "pred.json", "timesuite")
