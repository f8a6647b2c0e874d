"""What the paper says of its ablations (arXiv 2412.19326 v2), and whether measured rows agree.

A claim compares two rows on one number. It is judged seed by seed, since rows of one seed share their order of samples
and the requests that they are asked: it holds when every seed agrees, fails when none does, and is open otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Numbers = Mapping[str, float]  # metric -> value in [0, 1]
Measured = Mapping[str, Mapping[int, Numbers]]  # row -> seed -> metrics of the part; the base has one seed for all

BASE = "base"


@dataclass(frozen=True)
class Claim:
    """`better` has more of `metric` than `worse`. paper: the two numbers there and where; None: it does not tell."""

    text: str
    metric: str
    better: str
    worse: str
    paper: str | None


QA, REGION, MOMENT, MASK, TRACK = "qa/accuracy", "region/acc@0.5", "moment/r1@0.5", "mask/j", "track/miou"

CLAIMS = (
    Claim("TPO talks better than its base", QA, "TPO", BASE, "MVBench 66.8 and 60.4, table 2"),
    Claim("... than with the same data as text", QA, "TPO", "text", "MVBench 66.8 and 64.7, table 11"),
    Claim("... than after conversation alone", QA, "TPO", "conversation", None),
    Claim("Task data helps to talk even as text", QA, "text", BASE, "MVBench 64.8 and 60.4, table 13"),
    Claim("Heads time better than text", MOMENT, "TPO", "text", "Charades R@.5 40.2 and 18.6, table 11"),
    Claim("Heads point better than text", REGION, "TPO", "text", None),
    Claim("Heads segment better than text", MASK, "TPO", "text", None),
    Claim("Heads track better than text", TRACK, "TPO", "text", None),
    Claim("All together point better than regions alone", REGION, "TPO", "R", "RefCOCO 82.0 and 77.3, table 12"),
    Claim("All together segment better than masks alone", MASK, "TPO", "M", "J&F 63.9 and 55.1, table 12"),
    Claim("All together time better than moments alone", MOMENT, "TPO", "T", "40.2 and 30.2, table 12"),
    Claim("All together track better than masks alone", TRACK, "TPO", "M", None),
    Claim("Masks help regions", REGION, "R+M", "R", "RefCOCO 80.2 and 77.3, table 12"),
    Claim("Regions help masks", MASK, "R+M", "M", "Ref-YouTube-VOS J&F 58.3 and 55.1, table 12"),
    Claim("Moments help regions", REGION, "T+R+M", "R+M", "81.6 and 80.2, table 12"),
    Claim("Moments help masks", MASK, "T+R+M", "R+M", "61.4 and 58.3, table 12"),
    Claim("Regions and masks help moments", MOMENT, "T+R+M", "T", "36.7 and 30.2, table 12"),
    Claim("Conversation helps regions", REGION, "TPO", "T+R+M", "82.0 and 81.6, table 12"),
    Claim("Conversation helps masks", MASK, "TPO", "T+R+M", "63.9 and 61.4, table 12"),
    Claim("Conversation helps moments", MOMENT, "TPO", "T+R+M", "40.2 and 36.7, table 12"),
)


def gains(claim: Claim, measured: Measured) -> list[float]:
    """`better` minus `worse` for each seed that both rows have, in order of the seeds; the base counts for any seed."""
    better, worse = measured.get(claim.better, {}), measured.get(claim.worse, {})
    if claim.worse == BASE:
        worse = {seed: numbers for seed in better for numbers in worse.values()}
    both = sorted(set(better) & set(worse))
    return [
        better[seed][claim.metric] - worse[seed][claim.metric]
        for seed in both
        if claim.metric in better[seed] and claim.metric in worse[seed]
    ]


def verdict(found: list[float]) -> str:
    """What the gains of all seeds say of a claim, in words."""
    agree = sum(gain > 0 for gain in found)
    if not found:
        return "not measured"
    if agree == len(found):
        return f"holds ({agree} of {len(found)} seeds)"
    return f"{'does not hold' if agree == 0 else 'open'} ({agree} of {len(found)} seeds)"


def spread(values: list[float]) -> float | None:
    """Standard deviation over seeds (n - 1); None of one seed, which has none."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
