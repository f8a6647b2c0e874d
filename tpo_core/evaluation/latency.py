"""How long a request takes that is asked alone, as a user of the model would ask it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from tpo_core.data.example import Example
from tpo_core.models.tpo import TpoModel

PERCENTILES = {"median_s": 50, "p95_s": 95}


def latency(
    model: TpoModel,
    part: str,
    examples: Sequence[Example],
    requests: int,
    max_new_tokens: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Asks at most `requests` of the examples, at equal distances, one after another, from decoded frames to the text
    and what the heads found: "<part>/latency/<median_s or p95_s>", of this machine as busy as it was. Nothing when none
    is asked."""
    count = min(requests, len(examples))
    if not count:
        return {}
    asked = [examples[number * len(examples) // count] for number in range(count)]
    model.chat(asked[:1], max_new_tokens)  # a first request also pays for what is made once
    took_s = []
    for example in asked:
        began_s = clock()
        model.chat([example], max_new_tokens)
        took_s.append(clock() - began_s)
    return {f"{part}/latency/{name}": float(np.percentile(took_s, at)) for name, at in PERCENTILES.items()}
