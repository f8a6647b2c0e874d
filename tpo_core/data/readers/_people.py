"""Phrases that name exactly one of the people on a frame, by a clear margin, from their boxes alone."""

from __future__ import annotations

from collections.abc import Mapping

from tpo_core.data.sample import Box

MIN_GAP = 0.5  # in widths of the person named: distance of its centre to the next one's
MIN_TALLER = 1.15  # height over the next one's; chosen by eye


def named_people(people: Mapping[int, Box]) -> dict[str, int]:
    """Phrase -> identity of the leftmost, rightmost and tallest of `people` (identity -> box of one frame)."""
    if len(people) < 2:
        return {}
    centre = {identity: (box[0] + box[2]) / 2 for identity, box in people.items()}
    height = {identity: box[3] - box[1] for identity, box in people.items()}
    across, tall = sorted(people, key=centre.__getitem__), sorted(people, key=height.__getitem__, reverse=True)
    named = {}
    for phrase, one, other in (
        ("the leftmost person", across[0], across[1]),
        ("the rightmost person", across[-1], across[-2]),
    ):
        if abs(centre[one] - centre[other]) >= MIN_GAP * (people[one][2] - people[one][0]):
            named[phrase] = one
    if height[tall[0]] >= MIN_TALLER * height[tall[1]]:
        named["the tallest person"] = tall[0]
    return named
