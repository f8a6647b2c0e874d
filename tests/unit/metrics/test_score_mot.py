"""MOTChallenge: the files, the numbers of small worlds worked out by hand, and rows at which TrackEval would stop."""

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics.registry import score

FRAMES = 4


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def truth_row(frame, number, left, kind=1, marked=1):
    return f"{frame},{number},{left},10,20,40,{marked},{kind},1"


def row(frame, number, left, width=20, more=",0.9,-1,-1,-1"):
    return f"{frame},{number},{left},10,{width},40{more}"


@pytest.fixture
def run(tmp_path):
    """Two people who stand still, left at 10 and right at 200."""
    folder = tmp_path / "gt" / "MOT17-02"
    write(folder / "seqinfo.ini", ["[Sequence]", "name=MOT17-02", f"seqLength={FRAMES}"])
    write(folder / "gt" / "gt.txt", [truth_row(t, n, 10 + 190 * (n - 1)) for t in range(1, FRAMES + 1) for n in (1, 2)])

    def run(rows, **options):
        (tmp_path / "mine").mkdir(exist_ok=True)
        if rows is not None:
            write(tmp_path / "mine" / "MOT17-02.txt", rows)
        return score("mot", tmp_path / "gt", tmp_path / "mine", **options)

    return run


def perfect():
    return [row(t, n, 10 + 190 * (n - 1)) for t in range(1, FRAMES + 1) for n in (1, 2)]


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


@pytest.mark.parametrize("strict", [False, True])
def test_a_perfect_tracker(run, strict):
    report = run(perfect(), strict_official=strict)
    assert report.result["HOTA"]["HOTA"] == pytest.approx(100)
    assert report.result["CLEAR"]["MOTA"] == pytest.approx(100)
    assert report.result["Identity"]["IDF1"] == pytest.approx(100)
    assert report.result["CLEAR"]["CLR_TP"] == 8
    assert (report.n, report.N, report.rejected) == (1, 1, {})


@pytest.mark.parametrize("strict", [False, True])
def test_a_missed_person(run, strict):
    """Half of the detections: DetA = 1/2, AssA = 1, HOTA = sqrt(1/2)."""
    result = run([row(t, 1, 10) for t in range(1, FRAMES + 1)], strict_official=strict).result
    assert result["HOTA"]["DetA"] == pytest.approx(50)
    assert result["HOTA"]["AssA"] == pytest.approx(100)
    assert result["HOTA"]["HOTA"] == pytest.approx(100 * 0.5**0.5)
    assert result["CLEAR"]["MOTA"] == pytest.approx(50)
    assert (result["CLEAR"]["CLR_FN"], result["CLEAR"]["ML"]) == (4, 1)
    assert result["Identity"]["IDF1"] == pytest.approx(100 * 4 / 6)


def test_a_switch_of_identity(run):
    """The tracks swap halfway: each pair shares 2 of 6 frames, so AssA = 1/3."""
    rows = [row(t, n if t <= 2 else 3 - n, 10 + 190 * (n - 1)) for t in range(1, FRAMES + 1) for n in (1, 2)]
    result = run(rows).result
    assert result["HOTA"]["AssA"] == pytest.approx(100 / 3)
    assert result["HOTA"]["HOTA"] == pytest.approx(100 / 3**0.5)
    assert result["CLEAR"]["IDSW"] == 2
    assert result["CLEAR"]["MOTA"] == pytest.approx(75)
    assert result["Identity"]["IDF1"] == pytest.approx(50)


def test_overlap_decides_at_which_thresholds_a_box_is_found(run):
    """IoU 15/25 = .6 is found at 12 of the 19 thresholds .05, .10, ..., .95."""
    result = run([row(t, n, 15 + 190 * (n - 1)) for t in range(1, FRAMES + 1) for n in (1, 2)]).result
    assert result["HOTA"]["DetRe"] == pytest.approx(100 * 12 / 19)
    assert result["CLEAR"]["MOTP"] == pytest.approx(60)


def test_predictions_on_distractors_are_taken_out(run, tmp_path):
    statue = [truth_row(t, 3, 400, kind=7, marked=0) for t in range(1, FRAMES + 1)]
    people = (tmp_path / "gt" / "MOT17-02" / "gt" / "gt.txt").read_text().splitlines()
    write(tmp_path / "gt" / "MOT17-02" / "gt" / "gt.txt", people + statue)
    rows = perfect() + [row(t, 9, 400) for t in range(1, FRAMES + 1)]
    assert run(rows).result["CLEAR"]["CLR_FP"] == 0
    assert run(rows, no_preprocessing=True).result["CLEAR"]["CLR_FP"] == 4
    assert run(rows, benchmark="MOT15").result["CLEAR"]["CLR_FP"] == 4


@pytest.mark.parametrize(
    ("bad", "reason", "false_positives"),
    [
        (row(3, 7, "nan"), "not_finite", 1),
        (row(3, 7, 10, width=-5), "reversed", 1),
        (row(3, 7, 10, width=0), "zero_length", 1),
        (row(FRAMES + 1, 7, 10), "out_of_range", 0),
        (row(0, 7, 10), "out_of_range", 0),
        (row(3, 1, 500), "duplicate", 0),
        (row(3, -1, 10), "malformed", 0),
        (row(3, 7, 10, more=",0.9,3"), "malformed", 0),
        (row(3, 7, 10, more=""), "malformed", 0),
        ("nonsense", "malformed", 0),
        ("nan,1,2,3,4,5,6", "malformed", 0),
    ],
)
def test_a_degenerate_row_is_told_and_helps_nobody(run, bad, reason, false_positives):
    report = run([*perfect(), bad])
    assert counts(report) == {reason: 1}
    assert report.result["CLEAR"]["CLR_FP"] == false_positives
    assert report.result["CLEAR"]["CLR_TP"] == 8


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(FRAMES + 1, 7, 10)], "invalid timesteps"),
        ([row(3, 1, 10), row(3, 1, 500)], "same ID more than once"),
        ([row(3, 7, 10, more="")], "TrackEval stops"),
        ([row(3, 7, "nan")], "TrackEval stops"),
        (["nonsense"], "invalidly formatted"),
        (None, "Tracker file not found"),
    ],
)
def test_strictly_official_trackeval_stops(run, capsys, rows, message):
    """And nothing of its traceback is seen, which it prints itself."""
    with pytest.raises(TpoError, match=message):
        run(rows, strict_official=True)
    assert capsys.readouterr() == ("", "")


def test_a_sequence_without_a_file_is_missed(run, tmp_path):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "data" / "MOT17-99.txt", [])
    report = run(None)
    assert counts(report) == {"missing": 1, "unknown": 1}
    assert report.result["CLEAR"]["CLR_FN"] == 8
    assert report.result["HOTA"]["HOTA"] == 0


def test_sequences_are_combined_over_detections(run, tmp_path):
    folder = tmp_path / "gt" / "MOT17-04"
    write(folder / "seqinfo.ini", ["[Sequence]", "seqLength=1"])
    write(folder / "gt" / "gt.txt", [truth_row(1, 1, 10)])
    report = run(perfect())
    assert report.result["CLEAR"]["MOTA"] == pytest.approx(100 * 8 / 9)
    assert report.per_item["MOT17-04"]["CLEAR"]["MOTA"] == 0
    assert report.N == 2
    write(tmp_path / "seqmap.txt", ["name", "MOT17-02"])
    assert run(perfect(), sequences=str(tmp_path / "seqmap.txt")).N == 1
    write(tmp_path / "seqmap.txt", ["name", "MOT17-05"])
    with pytest.raises(TpoError, match="no truth of MOT17-05"):
        run(perfect(), sequences=str(tmp_path / "seqmap.txt"))


def test_truths_that_cannot_be_read(run, tmp_path):
    write(tmp_path / "gt" / "MOT17-02" / "seqinfo.ini", ["[Sequence]"])
    with pytest.raises(TpoError, match="no seqLength"):
        run(perfect())
    (tmp_path / "nothing").mkdir()
    with pytest.raises(TpoError, match=r"no SEQUENCE/gt/gt.txt"):
        score("mot", tmp_path / "nothing", tmp_path / "mine")
