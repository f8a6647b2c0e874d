"""Short answers compared word by word.

An answer is right if it equals the truth after: lower case, punctuation removed, the articles a, an, the removed, runs
of white space made one. Nothing is searched for inside a longer answer, so saying everything gains nothing.
"""

import re
import string
from collections.abc import Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """`The red Car.` becomes `red car`."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def matches(answer: str, truth: str) -> bool:
    """Whether the answer is right. An empty answer is right for no truth."""
    given = normalise(answer)
    return given != "" and given == normalise(truth)


def score(answers: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
    """`accuracy` in [0, 1] over all questions; NaN of none."""
    right = [matches(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
    return {"accuracy": float(np.mean(right)) if right else float("nan")}
