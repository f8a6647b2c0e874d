"""What can be said of a quick-start clip: captions, questions with answers, and the expressions that name a thing.

The wording never asks for a place or a time ("where", "when"): those are the task requests, whose templates live in
tpo_core/data/instructions.yaml, and a base model that has read only this file has never been asked for a box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tpo_core.data.quickstart.world import ACTIONS, COLOURS, GROUNDS, KINDS, UNSEEN_GROUNDS, Clip, Thing

_COUNT_WORDS = {1: "one", 2: "two", 3: "three"}
CAPTION_REQUESTS = (
    "Describe the scene.",
    "What does the video show?",
    "Give a short caption.",
    "Describe what you see.",
)


@dataclass(frozen=True)
class Question:
    """One question of a kind (for the per-kind blind control) with its short answer."""

    kind: str
    text: str
    answer: str


def caption(clip: Clip, rng: np.random.Generator, *, t: int | None = None) -> str:
    """Names the things in random order with a coarse place, the ground, and (for a clip) what happens.

    With a frame number `t`, only what that frame shows: vanished things are not named.
    """
    shown = [i for i in range(len(clip.things)) if t is None or clip.action_of(i, t) != "vanishes"]
    phrases = []
    for i in rng.permutation(shown):
        thing = clip.things[i]
        phrases.append(f"a {thing.name} {_coarse_place(thing, t)}")
    scene = f"{_join(phrases) if phrases else 'nothing'} on {clip.ground}."
    sentences = [scene[0].upper() + scene[1:]]
    for event in clip.events:
        if t is None or (event.start <= t < event.end and event.action == "glows"):
            sentences.append(f"The {clip.things[event.thing].name} {event.action}.")
    return " ".join(sentences)


def questions(clip: Clip, rng: np.random.Generator, *, t: int | None = None) -> list[Question]:
    """Every question the clip (or, with `t`, one frame of it) answers without doubt, in fixed order."""
    shown = [clip.things[i] for i in range(len(clip.things)) if t is None or clip.action_of(i, t) != "vanishes"]
    found = [Question("ground", "What is the ground?", clip.ground)]
    if shown:
        found.append(Question("count", "How many objects are there?", _COUNT_WORDS[len(shown)]))
    found += _naming(shown) + _sides(shown, rng, t) + _left_of(shown, rng, t)
    if t is None:
        found += _events(clip)
    return found


def _naming(shown: list[Thing]) -> list[Question]:
    found = []
    for thing in shown:
        if sum(other.kind == thing.kind for other in shown) == 1:
            found.append(Question("colour", f"What colour is the {thing.kind}?", thing.colour))
        if sum(other.colour == thing.colour for other in shown) == 1:
            found.append(Question("shape", f"Which object is {thing.colour}?", thing.kind))
    return found


def _sides(shown: list[Thing], rng: np.random.Generator, t: int | None) -> list[Question]:
    """On which side of the frame one thing is, across and down, where its centre is 6 px or more off the middle."""
    if not shown:
        return []
    thing = shown[rng.integers(len(shown))]
    x, y = thing.centres_T2.mean(0) if t is None else thing.centres_T2[t]
    found = []
    if abs(x - 48) >= 6:
        across = "left" if x < 48 else "right"
        found.append(Question("side", f"Is the {thing.name} on the left or on the right?", across))
    if abs(y - 48) >= 6:
        down = "top" if y < 48 else "bottom"
        found.append(Question("side", f"Is the {thing.name} at the top or at the bottom?", down))
    return found


def _left_of(shown: list[Thing], rng: np.random.Generator, t: int | None) -> list[Question]:
    """One yes-no question on the first two things, either way round, when they are clearly apart (12 px)."""
    if len(shown) < 2:
        return []
    a, b = (shown[0], shown[1]) if rng.random() < 0.5 else (shown[1], shown[0])
    apart_px = _x_px(b, t) - _x_px(a, t)
    if abs(apart_px) < 12:
        return []
    return [Question("left_of", f"Is the {a.name} left of the {b.name}?", "yes" if apart_px > 0 else "no")]


def _events(clip: Clip) -> list[Question]:
    found = []
    for event in clip.events:
        name = clip.things[event.thing].name
        found.append(Question("who", f"Which object {event.action}?", f"the {name}"))
        found.append(Question("what", f"What does the {name} do?", f"it {event.action}"))
    return found


def expression(clip: Clip, thing: int, *, motion: bool) -> str:
    """A referring expression without article rules: `red ball`, or with `motion` `red ball that moves to the left`."""
    target = clip.things[thing]
    if motion and target.heading:
        return f"the {target.name} that moves to the {target.heading}"
    return f"the {target.name}"


def event_query(clip: Clip, event: int) -> str:
    """The moment query of an event: `the red ball glows`."""
    happening = clip.events[event]
    return f"the {clip.things[happening.thing].name} {happening.action}"


PLACES = tuple(
    [f"at the {row} {column}" for row in ("top", "bottom") for column in ("left", "right")]
    + [f"at the {side}" for side in ("top", "bottom", "left", "right")]
    + ["in the middle"]
)


def vocabulary() -> list[str]:
    """Words of the world, for the tokenizer: each becomes one token."""
    return [*KINDS, *COLOURS, *GROUNDS, *UNSEEN_GROUNDS, *ACTIONS, *_COUNT_WORDS.values()]


def _x_px(thing: Thing, t: int | None) -> float:
    return float(thing.centres_T2[:, 0].mean() if t is None else thing.centres_T2[t, 0])


def _coarse_place(thing: Thing, t: int | None) -> str:
    """One of nine places in words, from the mean centre in thirds of a 96-px frame."""
    x, y = thing.centres_T2.mean(0) if t is None else thing.centres_T2[t]
    column = "left" if x < 36 else "right" if x > 60 else ""
    row = "top" if y < 36 else "bottom" if y > 60 else ""
    if column and row:
        return f"at the {row} {column}"
    return f"at the {row or column}" if row or column else "in the middle"


def _join(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
