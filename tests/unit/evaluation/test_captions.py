"""Subtitles reach the model, and whoever reads the number learns of which videos they were missing."""

import json
from pathlib import Path

import pytest

from tests.unit.evaluation.benches import Scripted, bench_of, entry_of, text
from tpo_core.errors import StorageTroubleError, TpoError
from tpo_core.evaluation import captions

HELLO = "1\n00:00:04,000 --> 00:00:06,000\nHello.\n\n2\n00:01:00,000 --> 00:01:01,000\nBye.\n"
KEYS = ["video_mme/test/1-1", "video_mme/test/2-1", "video_mme/test/3-1"]


@pytest.fixture
def root(tmp_path):
    """One question about each of three videos, of which two have subtitles."""
    about = {"duration": "short", "domain": "d", "sub_category": "s", "task_type": "t", "question": "Who?"}
    options = {"options": ["A. x", "B. y", "C. z", "D. w"], "answer": "B"}
    rows = [{"video_id": str(n), "videoID": f"v{n}", "question_id": f"{n}-1", **about, **options} for n in (1, 2, 3)]
    (tmp_path / "vmme/subtitle").mkdir(parents=True)
    (tmp_path / "vmme/rows.json").write_text(json.dumps(rows))
    for name in ("v1", "v2"):
        srt(tmp_path / "vmme", name).write_text(HELLO)
    return tmp_path / "vmme"


def srt(root: Path, name: str) -> Path:
    return root / f"subtitle/{name}.srt"


@pytest.fixture
def bench(tmp_path, root):
    entry = entry_of(
        "video_mme", "choice", "video_mme", prompt="best_option", subtitles="subtitle/{name}.srt",
        options={"file": "rows.json"},
    )  # fmt: skip
    return bench_of(tmp_path, entry, root)


def test_subtitles_at_the_frames_stand_before_the_question(bench):
    model = Scripted(text("B"))
    assert bench.run(model)["metrics"]["entire dataset/Overall"] == 100.0
    asked = {shown.ask.key: shown.example.sample.turns[1].text for shown in model.shown}
    assert asked[KEYS[0]].startswith("Subtitles of this video:\nHello.\nQuestion: Who?")
    assert asked[KEYS[2]].startswith("Question: Who?")


def test_videos_without_subtitles_are_counted(bench, root):
    result = bench.run(Scripted(text("B")))
    assert result["without_subtitles"] == 1
    assert result["notes"] == ["1 media have no file of subtitles and were asked without."]
    srt(root, "v3").write_text(HELLO)
    result = bench.run(Scripted(text("B")))
    assert (result["without_subtitles"], result["notes"]) == (0, [])


@pytest.mark.parametrize("folder", [True, False])
def test_a_benchmark_with_subtitles_needs_some(bench, root, folder):
    for path in srt(root, "v1").parent.iterdir():
        path.unlink()
    if not folder:
        (root / "subtitle").rmdir()
    model = Scripted(text("B"))
    with pytest.raises(TpoError, match=r"^video_mme: none of 3 media has a file of subtitles \(subtitle/\{name\}\.srt"):
        bench.run(model)
    assert model.opened == 0


@pytest.mark.parametrize(("name", "content"), [("v3", HELLO), ("v1", HELLO.replace("Hello", "Welcome"))])
def test_answers_to_other_subtitles_are_not_taken(bench, root, name, content):
    bench.run(Scripted(text("B")))
    kept = Scripted(text("A"))
    bench.run(kept)
    assert kept.asked == []
    srt(root, name).write_text(content)
    model = Scripted(text("A"))
    assert bench.run(model)["metrics"]["entire dataset/Overall"] == 0.0
    assert sorted(model.asked) == KEYS


def test_a_file_that_is_none_costs_its_video_alone(bench, root):
    srt(root, "v2").write_text("no subtitles")
    model = Scripted(text("B"))
    result = bench.run(model, batch_size=3)
    assert sorted(model.asked) == [KEYS[0], KEYS[2]]
    assert result["metrics"]["entire dataset/Overall"] == pytest.approx(66.7)
    assert [row["failure"] for row in bench.rows()] == [None, "not_asked", None]
    srt(root, "v2").write_text(HELLO)
    assert bench.run(Scripted(text("B")))["metrics"]["entire dataset/Overall"] == 100.0


def test_a_file_that_cannot_be_read_costs_its_video_alone(bench, monkeypatch):
    read = captions.read_bytes

    def refused(uri):
        if uri.endswith("v2.srt"):
            raise TpoError(f"{uri} cannot be read: permission denied")
        return read(uri)

    monkeypatch.setattr(captions, "read_bytes", refused)
    assert bench.run(Scripted(text("B")))["metrics"]["entire dataset/Overall"] == pytest.approx(66.7)


def test_a_storage_that_does_not_answer_is_no_matter_of_a_video(bench, monkeypatch):
    def silent(uri):
        raise StorageTroubleError("s3 does not answer")

    monkeypatch.setattr(captions, "read_bytes", silent)
    with pytest.raises(StorageTroubleError):
        bench.run(Scripted(text("B")))
