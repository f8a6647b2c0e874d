"""Whatever a file holds, the command ends with a report or with one line: never with a traceback."""

import copy
import json
import random

import pytest

from tpo_core.metrics.score import main

VALUES = [None, "x", "", float("nan"), float("inf"), [], {}, -1, 10**9, True, 0, [[1, 2]], [[2, 1]], [None], "5", 1.5]
QUERY = {"query": "q", "clip_start_sec": 0, "clip_end_sec": 9}
NOTE = {"annotation_uid": "a", "language_queries": [QUERY] * 2}
SALIENCY = {"duration": 8, "relevant_clip_ids": [0], "saliency_scores": [[4, 4, 4]]}
CHOICE = {"question": "q", "candidates": ["x", "y"], "answer": "x", "question_type": "t"}
VIDEO = {"video_id": "1", "duration": "short", "domain": "d", "sub_category": "s"}
ASKED = {"question_id": "1-1", "task_type": "t", "answer": "C", "response": "C"}

# metric, its options, truth, predictions
CASES = {
    "qvhighlights": (
        ["qvhighlights", "--nms", "0.5", "--clip-round"],
        [{"qid": q, "relevant_windows": [[0, 4]], **SALIENCY} for q in (1, 2)],
        [{"qid": q, "pred_relevant_windows": [[0, 4, 1]], "pred_saliency_scores": [1, 0, 0, 0]} for q in (1, 2)],
    ),
    "timesuite": (
        ["charades_sta", "--implementation", "timesuite"],
        {"annotations": [{"id": k, "timestamp": [0, 4], "image_id": "v", "caption": "c"} for k in (0, 1)]},
        {"0": {"timestamp": [[0, 4]]}, "1": {"timestamp": [[0, 4]]}},
    ),
    "vtimellm": (
        ["charades_sta", "--implementation", "vtimellm"],
        {"v": {"duration": 50, "timestamps": [[5, 15]], "sentences": ["a"]}},
        [{"video_id": "v", "answer": "from 10 to 30", "info": {"sentence_id": 0}}],
    ),
    "nlq": (
        ["nlq"],
        {"videos": [{"clips": [{"clip_uid": "c", "annotations": [NOTE]}]}]},
        [{"clip_uid": "c", "annotation_uid": "a", "query_idx": k, "predicted_times": [[0, 9]]} for k in (0, 1)],
    ),
    "tacos": (
        ["tacos"],
        {"s.avi": {"timestamps": [[0, 294]], "fps": 29.4, "num_frames": 588}},
        [[[0, 10, 0.9]]],
    ),
    "didemo": (["didemo"], [{"times": [[0, 1]] * 4}], [[[0, 1], [0, 0]]]),
    "nextgqa": (["nextgqa", "--fractions"], {"v": {"duration": 9, "location": {"1": [[0, 4]]}}}, {"v_1": [0, 0.5]}),
    "mvbench": (["mvbench"], [CHOICE] * 2, [{"pred": "(A)", "gt": "(A) x"}] * 2),
    "mlvu": (["mlvu"], [CHOICE] * 2, {"res_list": [{"pred": "A)"}] * 2}),
    "seed_bench": (
        ["seed_bench"],
        {"questions": [{"question_id": 1, "question_type_id": 1, "answer": "A"}]},
        [{"q_id": 1, "prediction": "A"}],
    ),
    "short_answers": (["short_answers"], [{"id": "a", "answer": "red"}], [{"id": "a", "answer": "Red."}]),
    "video_mme": (
        ["video_mme", "--skip-missing"],
        [VIDEO | {"questions": [ASKED]}],
        [VIDEO | {"questions": [ASKED]}],
    ),
}


def places(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, each in items for place in places(each, (*path, key))]


def damaged(content, chance):
    """A copy in which something is gone or has another value."""
    copied = copy.deepcopy(content)
    path = chance.choice(places(copied))
    holder = copied
    for key in path[:-1]:
        holder = holder[key]
    if chance.random() < 0.25:
        del holder[path[-1]]
    else:
        holder[path[-1]] = copy.deepcopy(chance.choice(VALUES))
    return copied


def write(path, content):
    text = "\n".join(map(json.dumps, content)) if path.suffix == ".jsonl" else json.dumps(content)
    path.write_text(text)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error")
def test_a_damaged_file_ends_in_a_report_or_in_one_line(tmp_path, capsys, case):
    words, truth, predictions = CASES[case]
    suffixes = {"qvhighlights": (".jsonl", ".jsonl"), "vtimellm": (".json", ".jsonl")}.get(case, (".json", ".json"))
    paths = [tmp_path / f"{name}{suffix}" for name, suffix in zip(("gt", "pred"), suffixes, strict=True)]
    given = ["--ground-truth", str(paths[0]), "--predictions", str(paths[1]), "--json"]
    chance = random.Random(0)
    statuses = set()
    for trial in range(120):
        write(paths[0], damaged(truth, chance) if trial % 2 else truth)
        write(paths[1], predictions if trial % 2 else damaged(predictions, chance))
        for strict in ([], ["--strict-official"]):
            statuses.add(main([*words, *given, *strict]))
            out, err = capsys.readouterr()
            if err:
                assert err.startswith("error: ")
                assert err.count("\n") == 1
            else:
                json.loads(out, parse_constant=pytest.fail)
    assert statuses <= {0, 2}
    assert 0 in statuses
