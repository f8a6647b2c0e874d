"""Whatever a file holds, the command ends with a report or with one line: never with a traceback."""

import copy
import io
import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from tpo_core.data import rle
from tpo_core.metrics.registry import METRICS, scorer
from tpo_core.metrics.score import main

DIGITS = "<digits>"  # written as an integer that Python itself refuses to read
VALUES = [None, "x", "", float("nan"), float("inf"), [], {}, -1, 10**9, True, 0, [[1, 2]], [[2, 1]], [None], "5", 1.5]
VALUES += [10**400, -(10**400), DIGITS]
WORDS = ["nan", "inf", "-inf", "-5", "0", "x", "", "1e400", "-1", "1.5", "7", "9" * 200]

QUERY = {"query": "q", "clip_start_sec": 0, "clip_end_sec": 9}
UID = {"clip_uid": "c", "annotation_uid": "a"}
NOTE = {"annotation_uid": "a", "language_queries": [QUERY] * 2}
SALIENCY = {"duration": 8, "relevant_clip_ids": [0], "saliency_scores": [[4, 4, 4]]}
CHOICE = {"question": "q", "candidates": ["x", "y"], "answer": "x", "question_type": "t"}
VIDEO = {"video_id": "1", "duration": "short", "domain": "d", "sub_category": "s"}
ASKED = {"question_id": "1-1", "task_type": "t", "answer": "C", "response": "C"}
WINDOWS = [{"qid": q, "pred_relevant_windows": [[0, 4, 1]], "pred_saliency_scores": [1, 0, 0, 0]} for q in (0, 1)]
PHRASE = {"id": 1, "width": 100, "height": 50, "gt_xywh": [10, 10, 20, 20], "dataset": "refcoco"}
CHARADES = "A 0.0 4.0##sits.\nB 2.0 4.0##stands.\n"

FIRST, SECOND = np.zeros((12, 16), np.uint8), np.zeros((12, 16), np.uint8)
FIRST[2:7, 3:9] = 1
SECOND[3:8, 4:10] = 1
RUNS = {"size": [12, 16], "counts": rle.encode(FIRST.astype(bool)).counts.decode()}
EXPRESSIONS = {"frames": ["00000", "00005"], "expressions": {"0": {"exp": "a", "anno_id": [1], "obj_id": "1"}}}
BOXES = "10,10,20,20\n12,10,20,20\n14,10,20,20\n"
PEOPLE = "".join(f"{t},{n},{20 * n},10,15,30,1,1,1\n" for t in (1, 2) for n in (1, 2))
IMAGE = """<annotation>
<object> <name>1</name> <bndbox> <xmin>0</xmin> <ymin>0</ymin> <xmax>10</xmax> <ymax>10</ymax> </bndbox> </object>
<object> <name>2</name> <scene>1</scene> <nobndbox>0</nobndbox> </object>
</annotation>"""


def frames(folder, *pictures):
    """The PNGs of a video, every fifth frame."""
    return {f"{folder}/{5 * place:05d}.png": picture for place, picture in enumerate(pictures)}


# metric, its implementations, more words; truth and predictions: the content of the file gt or p, or of a folder by the
# names of the files in it. Text is written as it is, an array as a PNG, a list of a .jsonl as lines, the rest as JSON.
CASES = [
    ("qvhighlights", ("cgdetr", "moment_detr", "tpo"), ["--nms", "0.5", "--clip-round"],
     {"gt.jsonl": [{"qid": q, "relevant_windows": [[0, 4]], **SALIENCY} for q in (0, 1)]}, {"p.jsonl": WINDOWS}),
    ("charades_sta", ("cgdetr",), [], {"gt.txt": CHARADES}, {"p.jsonl": WINDOWS}),
    ("charades_sta", ("timesuite",), [],
     {"gt.json": {"annotations": [{"id": k, "timestamp": [0, 4], "image_id": "v", "caption": "c"} for k in (0, 1)]}},
     {"p.json": {"0": {"timestamp": [[0, 4]]}, "1": {"timestamp": [[0, 4]]}}}),
    ("charades_sta", ("lmms_eval",), [], {"gt.txt": CHARADES},
     {"p.json": {"A.mp4>>>sits.>>>[0.0, 4.0]": "0 to 4", "B.mp4>>>stands.>>>[2.0, 4.0]": "from 2 - 4"}}),
    ("charades_sta", ("vtimellm",), [],
     {"gt.json": {"v": {"duration": 50, "timestamps": [[5, 15]], "sentences": ["a"]}}},
     {"p.jsonl": [{"video_id": "v", "answer": "from 10 to 30", "info": {"sentence_id": 0}}]}),
    ("nlq", ("nlq",), [], {"gt.json": {"videos": [{"clips": [{"clip_uid": "c", "annotations": [NOTE]}]}]}},
     {"p.json": [{**UID, "query_idx": k, "predicted_times": [[0, 9]]} for k in (0, 1)]}),
    ("tacos", ("2dtan",), [], {"gt.json": {"s.avi": {"timestamps": [[0, 294]], "fps": 29.4, "num_frames": 588}}},
     {"p.json": [[[0, 10, 0.9]]]}),
    ("tacos", ("2dtan",), [], {"gt.jsonl": [{"qid": q, "relevant_windows": [[0, 4]]} for q in (0, 1)]},
     {"p.jsonl": WINDOWS}),
    ("didemo", ("didemo",), [], {"gt.json": [{"times": [[0, 1]] * 4}]}, {"p.json": [[[0, 1], [0, 0]]]}),
    ("nextgqa", ("nextgqa",), ["--fractions"],
     {"gt.json": {"v": {"duration": 9, "location": {"1": [[0, 4]]}}}}, {"p.json": {"v_1": [0, 0.5]}}),
    ("mvbench", ("official", "lmms_eval"), [], {"gt.json": [CHOICE] * 2},
     {"p.json": [{"pred": "(A)", "gt": "(A) x"}] * 2}),
    ("mlvu", ("mlvu",), [], {"gt.json": [CHOICE] * 2}, {"p.json": {"res_list": [{"pred": "A)"}] * 2}}),
    ("seed_bench", ("seed_bench", "lmms_eval"), [],
     {"gt.json": {"questions": [{"question_id": 1, "question_type_id": 1, "answer": "A", "data_type": "image"}]}},
     {"p.json": [{"q_id": 1, "prediction": "A"}]}),
    ("short_answers", ("words",), [], {"gt.json": [{"id": "a", "answer": "red"}]},
     {"p.json": [{"id": "a", "answer": "Red."}]}),
    ("video_mme", ("video_mme",), ["--skip-missing"], {"gt.json": [VIDEO | {"questions": [ASKED]}]},
     {"p.json": [VIDEO | {"questions": [ASKED]}]}),
    ("refcoco", ("iou", "lmms_eval", "shikra", "all_seeing_v2", "mdetr"), [],
     {"gt.jsonl": [PHRASE, PHRASE | {"id": 2}]},
     {"p.jsonl": [{"id": 1, "pred_xyxy": [10, 10, 30, 30]}, {"id": 2, "pred_xyxy": [[10, 10, 30, 30]]}]}),
    ("refcoco", ("lmms_eval", "shikra", "all_seeing_v2"), [], {"gt.jsonl": [PHRASE]},
     {"p.jsonl": [{"id": 1, "text": "it is [[100, 200, 300, 600]]"}]}),
    ("flickr30k", ("any_box", "merged_box"), [],
     {"Annotations/7.xml": IMAGE, "test.txt": "7\n",
      "Sentences/7.txt": "[/EN#1/people/other A man] in [/EN#2/scene a room] .\n"},
     {"p.json": [{"image_id": 7, "sentence_id": 0, "boxes": [[[0, 0, 10, 10]]]}]}),
    ("davis", ("semi-supervised", "unsupervised"), [], frames("s", FIRST, FIRST, SECOND),
     frames("s", FIRST, SECOND, SECOND)),
    ("mevis", ("mevis",), [],
     {"meta_expressions.json": {"videos": {"v": EXPRESSIONS}}, "mask_dict.json": {"1": [RUNS, None]}},
     frames("v/0", FIRST, SECOND)),
    ("ref_youtube_vos", ("mevis_rule",), [],
     {"meta_expressions.json": {"videos": {"v": EXPRESSIONS}}, **frames("Annotations/v", FIRST, SECOND)},
     frames("v/0", FIRST, SECOND)),
    ("sav", ("sav",), [], frames("v/0", FIRST, FIRST, SECOND), frames("v/0", FIRST, SECOND, SECOND)),
    ("lasot", ("pytracking", "lasot_matlab", "got10k_toolkit"), [],
     {"c/c-1/groundtruth.txt": BOXES, "c/c-1/full_occlusion.txt": "0,0,1", "c/c-1/out_of_view.txt": "0,0,0"},
     {"c-1.txt": BOXES}),
    ("got10k", ("got10k",), [],
     {"list.txt": "s\n", "s/groundtruth.txt": BOXES, "s/cover.label": "8\n8\n4\n",
      "s/meta_info.ini": "[METAINFO]\nresolution: (64, 48)\n"},
     {"s/s_001.txt": BOXES, "s/s_time.txt": "0.1\n0.1\n0.1\n"}),
    ("trackingnet", ("trackingnet",), [], {"anno/s.txt": BOXES}, {"s.txt": BOXES, "t.txt": BOXES}),
    ("mot", ("trackeval",), [],
     {"S/seqinfo.ini": "[Sequence]\nname=S\nseqLength=2\n", "S/gt/gt.txt": PEOPLE}, {"data/S.txt": PEOPLE}),
]  # fmt: skip
RUNS_OF_CASES = [(*case[:1], implementation, *case[2:]) for case in CASES for implementation in case[1]]
TRIALS, TRIALS_OF = 50, {str: 16, np.ndarray: 5}  # of each file; masks and TrackEval take longer


def places(value, path=()):
    """Paths to all parts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, each in items for place in places(each, (*path, key))]


def damaged_value(content, chance):
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


def damaged_text(content, chance):
    """Another word, a line less, a line twice, or half of it."""
    kind, lines = chance.random(), content.splitlines(keepends=True)
    if kind < 0.6:
        found = chance.choice(list(re.finditer(r"[\w.+-]+", content)))
        return content[: found.start()] + chance.choice(WORDS) + content[found.end() :]
    line = chance.randrange(len(lines))
    if kind < 0.9:
        return "".join(lines[:line] + lines[line : line + 1] * chance.choice([0, 2]) + lines[line + 1 :])
    return content[: len(content) // 2]


def damaged_picture(content, chance):
    """Other indices, of another size or kind, or what is no picture."""
    others = [
        np.zeros_like(content),
        np.full_like(content, chance.choice([1, 2, 25, 255])),
        content[:5, :5],
        np.stack([content] * 3, axis=2),
        content.astype(np.uint16) * 300,
    ]
    return chance.choice([*map(png, others), b"no picture"])


def damaged(content, chance):
    """Another content; None for a file that is gone."""
    kind = chance.random()
    if kind < 0.08:
        return chance.choice([None, b"", b"\xff\xfe\x00"])
    if isinstance(content, str):
        return damaged_text(content, chance)
    return damaged_picture(content, chance) if isinstance(content, np.ndarray) else damaged_value(content, chance)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink(missing_ok=True)
    elif isinstance(content, bytes | np.ndarray):
        path.write_bytes(png(content) if isinstance(content, np.ndarray) else content)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        text = "\n".join(map(json.dumps, content)) if path.suffix == ".jsonl" else json.dumps(content)
        path.write_text(text.replace(json.dumps(DIGITS), "9" * 5000))


def given(folder, files):
    """What the command is told: the file, which is called gt or p, or the folder."""
    name = next(iter(files))
    return folder / name if name.startswith(("gt.", "p.")) else folder


def ended(words, capsys):
    """The exit status of a command that says one thing or one line."""
    status = main(words)
    out, err = capsys.readouterr()
    if err:
        assert not out
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    else:
        json.loads(out, parse_constant=pytest.fail)
    return status


@pytest.mark.parametrize(("metric", "implementation", "more", "truth", "predictions"), RUNS_OF_CASES)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # TrackEval leaves the file open at which it stops
@pytest.mark.filterwarnings("error")
def test_a_damaged_file_ends_in_a_report_or_in_one_line(
    tmp_path, capsys, metric, implementation, more, truth, predictions
):
    sides = {tmp_path / "gt": truth, tmp_path / "mine": predictions}
    whole = {folder / name: content for folder, files in sides.items() for name, content in files.items()}
    for path, content in whole.items():
        write(path, content)
    true, mine = (str(given(folder, files)) for folder, files in sides.items())
    words = [metric, "--implementation", implementation, *more, "--ground-truth", true, "--predictions", mine, "--json"]
    assert ended(words, capsys) == 0, "undamaged"
    chance = random.Random(0)
    statuses = set()
    for path, content in whole.items():
        for _ in range(TRIALS_OF.get(type(content), TRIALS)):
            write(path, damaged(content, chance))
            statuses |= {ended(words, capsys), ended([*words, "--strict-official"], capsys)}
        write(path, content)
    assert statuses == {0, 2}


def test_every_metric_and_every_implementation_is_damaged():
    known = {(metric, implementation) for metric in METRICS for implementation in scorer(metric).implementations}
    assert {case[:2] for case in RUNS_OF_CASES} == known
