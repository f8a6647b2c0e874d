"""What can be said of a quick-start clip: captions, questions with answers, and the expressions that name a thing.

Places and sizes are said in coarse words ("far left", "very high", "small"). The wording never asks "where" or "when":
those are the task requests, whose templates live in tpo_core/data/instructions.yaml, and a base model that has read
only this file has never been asked for a box, a moment or a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tpo_core.data.quickstart.world import ACTIONS, COLOURS, GROUNDS, KINDS, SHRUNK, UNSEEN_GROUNDS, Clip, Thing

_COUNT_WORDS = {1: "one", 2: "two", 3: "three"}
COLUMNS = ("far left", "left", "centre", "right", "far right")
ROWS = ("very high", "high", "halfway up", "low", "very low")
SIZES = ("tiny", "small", "big")
_PLACE_EDGES_PX = (28.0, 41.0, 55.0, 68.0)  # fifths of the band in which centres can lie
_SIZE_EDGES_PX = (10.5, 15.0)  # radius; only a shrunken thing is tiny
DOUBT_PX = 1.0  # no question about a word that is this near to another one
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
    """Names the things in random order with size and place, the ground, and (for a clip) what happens.

    With a frame number `t`, only what that frame shows: vanished things are not named.
    """
    phrases = [_phrase(thing) for thing in rng.permutation(np.array(things_seen(clip, t), object))]
    scene = f"{_join(phrases) if phrases else 'nothing'} on {clip.ground}."
    sentences = [scene[0].upper() + scene[1:]]
    for event in clip.events:
        if t is None or (event.start <= t < event.end and event.action == "glows"):
            sentences.append(f"The {clip.things[event.thing].name} {event.action}.")
    return " ".join(sentences)


def _phrase(seen: Seen) -> str:
    return f"a {size(seen)} {seen.name} {column(seen)} and {row(seen)}"


def questions(clip: Clip, rng: np.random.Generator, *, t: int | None = None) -> list[Question]:
    """Every question the clip (or, with `t`, one frame of it) answers without doubt, in fixed order."""
    shown = things_seen(clip, t)
    found = [Question("ground", "What is the ground?", clip.ground)]
    if shown:
        found.append(Question("count", "How many objects are there?", _COUNT_WORDS[len(shown)]))
    for seen in shown:
        found += _naming(seen, shown) + _measures(seen)
    found += _left_of(shown, rng)
    return found + _events(clip, t)


@dataclass(frozen=True)
class Seen:
    """A thing as a clip or a frame shows it. x_px, y_px: its centre, over a clip the mean; moves: over the clip."""

    thing: Thing
    x_px: float
    y_px: float
    radius_px: float
    moves: bool

    @property
    def name(self) -> str:
        return self.thing.name


def things_seen(clip: Clip, t: int | None) -> list[Seen]:
    """Over a clip, every thing; on a frame, those that have not vanished, at the size they have there."""
    found = []
    for index, thing in enumerate(clip.things):
        action = None if t is None else clip.action_of(index, t)
        if action == "vanishes":
            continue
        x, y = (float(v) for v in (thing.centres_T2.mean(0) if t is None else thing.centres_T2[t]))
        radius_px = thing.radius_px * (SHRUNK if action == "shrinks" else 1.0)
        moves = t is None and float(np.abs(thing.centres_T2[-1] - thing.centres_T2[0]).max()) > 4.0
        found.append(Seen(thing, x, y, radius_px, moves))
    return found


def _naming(seen: Seen, shown: list[Seen]) -> list[Question]:
    found, thing = [], seen.thing
    if sum(other.thing.kind == thing.kind for other in shown) == 1:
        found.append(Question("colour", f"What colour is the {thing.kind}?", thing.colour))
    if sum(other.thing.colour == thing.colour for other in shown) == 1:
        found.append(Question("shape", f"Which object is {thing.colour}?", thing.kind))
    return found


def _measures(seen: Seen) -> list[Question]:
    """Place across, height and size of a thing, each where its word is beyond doubt; no place of what moves."""
    found = []
    if not seen.moves and _clear(_PLACE_EDGES_PX, seen.x_px):
        found.append(Question("across", f"How far across is the {seen.name}?", column(seen)))
    if not seen.moves and _clear(_PLACE_EDGES_PX, seen.y_px):
        found.append(Question("height", f"How high is the {seen.name}?", row(seen)))
    if _clear(_SIZE_EDGES_PX, seen.radius_px):
        found.append(Question("size", f"How big is the {seen.name}?", size(seen)))
    return found


def _left_of(shown: list[Seen], rng: np.random.Generator) -> list[Question]:
    """One yes-no question on the first two things, either way round, when they are clearly apart (12 px)."""
    if len(shown) < 2:
        return []
    a, b = (shown[0], shown[1]) if rng.random() < 0.5 else (shown[1], shown[0])
    if abs(b.x_px - a.x_px) < 12:
        return []
    return [Question("left_of", f"Is the {a.name} left of the {b.name}?", "yes" if a.x_px < b.x_px else "no")]


def _events(clip: Clip, t: int | None) -> list[Question]:
    """Who does what: over a clip every event, on a frame only what can be seen on it, a glow."""
    found = []
    for event in clip.events:
        name = clip.things[event.thing].name
        if t is None or (event.action == "glows" and event.start <= t < event.end):
            found.append(Question("who", f"Which object {event.action}?", f"the {name}"))
        if t is None:
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


def vocabulary() -> list[str]:
    """Words of the world, for the tokenizer: each becomes one token."""
    words = [*KINDS, *COLOURS, *GROUNDS, *UNSEEN_GROUNDS, *ACTIONS, *_COUNT_WORDS.values(), *SIZES]
    return [*words, *dict.fromkeys(word for place in (*COLUMNS, *ROWS) for word in place.split())]


def _word(words: tuple[str, ...], edges_px: tuple[float, ...], value_px: float) -> str:
    return words[int(np.searchsorted(edges_px, value_px))]


def _clear(edges_px: tuple[float, ...], value_px: float) -> bool:
    return min(abs(value_px - edge) for edge in edges_px) >= DOUBT_PX


def column(seen: Seen) -> str:
    """How far across it is, in a word or two."""
    return _word(COLUMNS, _PLACE_EDGES_PX, seen.x_px)


def row(seen: Seen) -> str:
    """How high it is, in a word or two."""
    return _word(ROWS, _PLACE_EDGES_PX, seen.y_px)


def size(seen: Seen) -> str:
    """How big it is, in a word."""
    return _word(SIZES, _SIZE_EDGES_PX, seen.radius_px)


def _join(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
