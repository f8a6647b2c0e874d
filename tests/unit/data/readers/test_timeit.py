import json

import pytest

from tpo_core.data.instructions import conversation
from tpo_core.data.readers import READERS, Reject
from tpo_core.data.readers.timeit import parsed
from tpo_core.data.sample import Turn
from tpo_core.errors import TpoError

ASKED = "Find the moment of the query 'a person's dog barks' in the video."
MOMENT = {"q": ASKED, "a": "The given query happens in 35.0 - 79.0 seconds."}
STEPS = {"q": "Which steps?", "a": "0.0 - 13.0 seconds, clean it.  13.0 - 25.0 seconds, put it under the neck ."}


def read(root, rows, name="timeit", **options):
    file = {"timeit": "train.json", "queryd": "instruct_tvg_14.6k_queryd.json"}[name]
    (root / file).write_text(json.dumps(rows))
    return list(READERS[name].read(str(root), "train", options))


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        ("The given query happens in 35.0 - 79.0 seconds.", [("span", (35.0, 79.0), None)]),
        ("The given query happens in 3 - 7 seconds.", [("span", (3.0, 7.0), None)]),
        (STEPS["a"], [("span", (0.0, 13.0), "clean it"), ("span", (13.0, 25.0), "put it under the neck")]),
        ("2.7 seconds, Intro.  16.0 seconds, End.", [("point", (2.7, 2.7), "Intro"), ("point", (16.0, 16.0), "End")]),
        (
            "0.0 - 3.0 seconds, bake for 30 seconds, then 5 - 6 seconds more.  3.0 - 9.0 seconds, wait 2 - 4 seconds.",
            [
                ("span", (0.0, 3.0), "bake for 30 seconds, then 5 - 6 seconds more"),
                ("span", (3.0, 9.0), "wait 2 - 4 seconds"),
            ],
        ),
        (
            "The highlight timestamps are in the 57.0, 62.4 seconds. Their saliency scores are 2.1, 1.8.",
            [("point", (57.0, 57.0), None), ("point", (62.4, 62.4), None)],
        ),
        (
            "The highlight timestamps are in the 57 second. Their saliency scores are 2.",
            [("point", (57.0, 57.0), None)],
        ),
        ("4.0 - 4.0 seconds, blink.", [("point", (4.0, 4.0), "blink")]),
        ("A dog runs for 3 seconds.", []),
    ],
)
def test_times_are_parsed_where_they_are_labels_and_nowhere_else(answer, times):
    assert [(t.kind, t.span_s, t.label) for t in parsed(answer)] == times


def test_text_is_kept_as_it_is_and_the_answers_refer_to_their_times(tmp_path):
    asr = {
        "q": "Transcribed speech: 1.0 - 2.0 seconds, hello.\nWhen? ",
        "a": " The given query happens in 1 - 2 seconds. ",
    }
    (sample,) = read(tmp_path, [{"video": "HiREST/clips/x_35_79.mp4", "QA": [STEPS, asr]}])
    assert (sample.sample_id, sample.task, sample.media[0].uri) == (
        "timeit/train/train-0",
        "chat",
        "HiREST/clips/x_35_79.mp4",
    )
    assert sample.turns == (
        Turn("user", "Which steps?", (0,)),
        Turn("assistant", STEPS["a"], (), (0, 1)),
        Turn("user", asr["q"]),
        Turn("assistant", asr["a"], (), (2,)),
    )
    assert [t.span_s for t in sample.targets] == [(0.0, 13.0), (13.0, 25.0), (1.0, 2.0)]


def test_an_answer_without_a_question_is_a_caption(tmp_path):
    (sample,) = read(tmp_path, [{"video": "a.mp4", "QA": [{"q": "", "a": "1.0 seconds, a."}]}])
    assert sample.turns == (Turn("assistant", "1.0 seconds, a.", (0,), (0,)),)
    assert conversation(sample)[0].role == "user"


def test_by_option_one_moment_trains_the_head(tmp_path):
    rows = [
        {"video": "a.mp4", "QA": [MOMENT]},
        {"video": "a.mp4", "QA": [STEPS]},
        {"video": "a.mp4", "QA": [MOMENT, MOMENT]},
        {"video": "a.mp4", "QA": [{"q": "When?", "a": "2.7 seconds, Intro."}]},
    ]
    sample, *others = read(tmp_path, rows, task="span")
    assert sample.task == "span"
    assert sample.turns == (
        Turn("user", ASKED, (0,)),
        Turn("assistant", "The given query happens in <time_begin><temp> seconds.", (), (0,)),
    )
    assert (sample.targets[0].label, sample.targets[0].span_s) == ("a person's dog barks", (35.0, 79.0))
    assert json.loads(sample.provenance.raw) == {"a": MOMENT["a"]}
    assert [other.task for other in others] == ["chat", "chat", "chat"]


def test_a_query_without_quotes_is_the_question(tmp_path):
    (sample,) = read(tmp_path, [{"video": "a.mp4", "QA": [{**MOMENT, "q": "When does it rain?"}]}], task="span")
    assert sample.targets[0].label == "When does it rain?"


def test_queryd_is_the_same_form_with_moments_by_default(tmp_path):
    row = {"video": "QuerYD/videos/x.mp4", "QA": [MOMENT]}
    (sample,) = read(tmp_path, [row], name="queryd")
    assert (sample.sample_id, sample.dataset, sample.task) == (
        "queryd/train/instruct_tvg_14.6k_queryd-0",
        "queryd",
        "span",
    )
    (sample,) = read(tmp_path, [row], name="queryd", task="chat")
    assert (sample.task, sample.turns[1].text) == ("chat", MOMENT["a"])


def test_a_file_of_training_data_is_not_read_as_another_split(tmp_path):
    (tmp_path / "instruct_tvg_14.6k_queryd.json").write_text("[]")
    with pytest.raises(TpoError, match="holds training data, not split 'val'"):
        list(READERS["queryd"].read(str(tmp_path), "val", {}))
    (tmp_path / "val.json").write_text(json.dumps([{"video": "a.mp4", "QA": [MOMENT]}]))
    assert len(list(READERS["queryd"].read(str(tmp_path), "val", {"file": "{split}.json"}))) == 1


@pytest.mark.parametrize("task", ["chat", "span"])
def test_exactly_the_planted_faults_are_rejected(tmp_path, task):
    def row(*pairs, video="a.mp4"):
        return {"video": video, "QA": list(pairs)}

    good = row(MOMENT)
    planted = {
        1: (row({**MOMENT, "a": "The given query happens in 9.0 - 8.0 seconds."}), "moment_reversed"),
        2: ({"QA": [MOMENT]}, "bad_record"),
        3: (row(), "no_answer"),
        5: (row({"q": "When?", "a": " "}), "no_answer"),
        6: (row({"q": "When?"}), "bad_record"),
        7: (row(MOMENT, video="../a.mp4"), "path_outside_root"),
        8: (["text"], "bad_record"),
    }
    items = read(tmp_path, [planted.get(k, (good, ""))[0] for k in range(10)], task=task)
    rejects = {int(i.uri.rpartition(":")[2]) - 1: i.reason for i in items if isinstance(i, Reject)}
    assert rejects == {k: reason for k, (_, reason) in planted.items()}
    assert len(items) == 10


def test_the_first_samples_come_although_the_file_is_broken_later(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{"video": "a.mp4", "QA": [MOMENT]}] * 3000)[:-50])
    assert next(READERS["timeit"].read(str(tmp_path), "train", {})).sample_id == "timeit/train/train-0"
