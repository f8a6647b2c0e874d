"""Scenes of the quick-start world: which things a clip shows, how they move, and what happens to them when.

A clip is a handful of named, coloured things on a textured ground. One or two of them do something for a short while
(glow, vanish, shrink), which is what moments are about. Everything is a pure function of a seed; drawing is in draw.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("ball", "box", "cone", "ring", "cross", "star", "heart", "moon")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
TEXTURES = ("plain", "striped", "dotted")
ACTIONS = ("glows", "vanishes", "shrinks")
GROUNDS = ("grass", "sand", "stone", "wood")
UNSEEN_GROUNDS = ("water", "brick")
# Pairs kept out of every split but `unseen`, one a kind and a colour: each word is known, only the pair is new.
UNSEEN_PAIRS = frozenset((COLOURS[(3 * i + 1) % len(COLOURS)], kind) for i, kind in enumerate(KINDS))

SIDE_PX = 96
N_FRAMES = 12
FPS = 8.0
SHRUNK = 0.5  # share of its radius that a thing keeps while it `shrinks`
_RADIUS_PX = (12.0, 18.0)
_EVENT_FRAMES = (3, 5)  # of 12: the whole clip as an answer stays below 0.5 tIoU
_MAX_SPEED_PX = 1.6


@dataclass(frozen=True)
class Thing:
    """One object: its name is unique in its clip; `centres_T2` are pixels (x, y) on every frame."""

    kind: str
    colour: str
    texture: str
    radius_px: float
    angle_rad: float
    centres_T2: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @property
    def heading(self) -> str | None:
        """`left` or `right` when the thing clearly moves sideways over the clip, else None."""
        shift_px = float(self.centres_T2[-1, 0] - self.centres_T2[0, 0])
        if abs(shift_px) < 6.0:
            return None
        return "left" if shift_px < 0 else "right"


@dataclass(frozen=True)
class Event:
    """Thing number `thing` does `action` on frames [start, end)."""

    thing: int
    action: str
    start: int
    end: int

    def span_s(self) -> tuple[float, float]:
        return self.start / FPS, self.end / FPS


@dataclass(frozen=True)
class Clip:
    """A clip's whole truth; `ground` names the background texture, `pan_px` is its drift a frame (x, y)."""

    clip_id: str
    ground: str
    ground_seed: int
    pan_px: tuple[float, float]
    things: tuple[Thing, ...]
    events: tuple[Event, ...]
    n_frames: int = N_FRAMES

    @property
    def duration_s(self) -> float:
        return self.n_frames / FPS

    def action_of(self, thing: int, frame: int) -> str | None:
        """What a thing does on a frame, or None."""
        for event in self.events:
            if event.thing == thing and event.start <= frame < event.end:
                return event.action
        return None


def sample_clip(clip_id: str, seed: int, *, unseen: bool = False) -> Clip:
    """One clip, a pure function of the seed. `unseen`: a held-out ground and at least one held-out colour-kind pair."""
    rng = np.random.default_rng(seed)
    names = _sample_names(rng, unseen)
    grounds = UNSEEN_GROUNDS if unseen else GROUNDS
    return Clip(
        clip_id=clip_id,
        ground=str(rng.choice(grounds)),
        ground_seed=int(rng.integers(1 << 30)),
        pan_px=(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(-0.8, 0.8))),
        things=_place(rng, names),
        events=_sample_events(rng, len(names)),
    )


def _sample_names(rng: np.random.Generator, unseen: bool) -> list[tuple[str, str]]:
    """Two or three distinct (colour, kind) pairs; half of the time one shares its colour or its kind with the first."""
    held_out = sorted(UNSEEN_PAIRS)
    first = held_out[rng.integers(len(held_out))] if unseen else _allowed_pair(rng)
    names = [first]
    count = int(rng.integers(2, 4))
    while len(names) < count:
        pair = _allowed_pair(rng)
        lottery = rng.random()
        if lottery < 0.25:
            pair = (names[0][0], pair[1])
        elif lottery < 0.5:
            pair = (pair[0], names[0][1])
        if pair not in names and pair not in UNSEEN_PAIRS:
            names.append(pair)
    order = rng.permutation(count)
    return [names[i] for i in order]


def _allowed_pair(rng: np.random.Generator) -> tuple[str, str]:
    while True:
        pair = (str(rng.choice(COLOURS)), str(rng.choice(KINDS)))
        if pair not in UNSEEN_PAIRS:
            return pair


def _place(rng: np.random.Generator, names: list[tuple[str, str]]) -> tuple[Thing, ...]:
    """Straight paths inside the frame on which things hardly ever overlap (the closest of 60 tries wins otherwise)."""
    best: tuple[Thing, ...] = ()
    best_gap = -np.inf
    for _ in range(60):
        things = tuple(_one_thing(rng, colour, kind) for colour, kind in names)
        gap = min(
            float(np.min(np.linalg.norm(a.centres_T2 - b.centres_T2, axis=1)) - 0.95 * (a.radius_px + b.radius_px))
            for i, a in enumerate(things)
            for b in things[:i]
        )
        if gap > best_gap:
            best, best_gap = things, gap
        if gap > 0:
            break
    return best


def _one_thing(rng: np.random.Generator, colour: str, kind: str) -> Thing:
    radius_px = float(rng.uniform(*_RADIUS_PX))
    low, high = radius_px + 1.0, SIDE_PX - radius_px - 1.0
    middle = rng.uniform(low, high, size=2)
    velocity = rng.uniform(-_MAX_SPEED_PX, _MAX_SPEED_PX, size=2) * (rng.random() < 0.7)
    offsets = np.arange(N_FRAMES)[:, None] - (N_FRAMES - 1) / 2
    centres = np.clip(middle + offsets * velocity, low, high)
    return Thing(kind, colour, str(rng.choice(TEXTURES)), radius_px, float(rng.uniform(-0.35, 0.35)), centres)


def _sample_events(rng: np.random.Generator, n_things: int) -> tuple[Event, ...]:
    """One event, or (6 of 10 clips) two events of two things with different actions."""
    count = 2 if rng.random() < 0.6 else 1
    things = rng.permutation(n_things)[:count]
    actions = rng.permutation(len(ACTIONS))[:count]
    events = []
    for thing, action in zip(things, actions, strict=True):
        length = int(rng.integers(_EVENT_FRAMES[0], _EVENT_FRAMES[1] + 1))
        start = int(rng.integers(0, N_FRAMES - length + 1))
        events.append(Event(int(thing), ACTIONS[action], start, start + length))
    return tuple(events)
