"""From true moments to what the criterion compares with, as in the published start-and-end data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tpo_core.heads.base import Movable
from tpo_core.heads.cgdetr.spans import to_centres

MAX_WINDOWS = 5
PAIRS = 2
ROUNDING = 1e-4  # of a clip; times that were fp32 fractions of a duration may lie just before a clip's edge


@dataclass
class CgDetrTargets(Movable):
    """spans: per sample (k, 2), centre and width as fractions of the clips' time, 0 <= k <= 5. P pairs of clips, of
    which the positive shall be the more salient: positive_BP, negative_BP, indices. saliency_BV: 0 outside moments, 1
    inside, or in data with highlights the sum of three annotators' scores, 0 to 12. relevant_BV: 1 inside moments."""

    spans: list[Tensor]
    positive_BP: Tensor
    negative_BP: Tensor
    saliency_BV: Tensor
    relevant_BV: Tensor


def build_targets(
    windows_s: list[Tensor],
    clip_len_s: list[float],
    mask_BV: Tensor,
    generators: Sequence[torch.Generator],
) -> CgDetrTargets:
    """Targets on the CPU of B samples; windows_s: per sample (k, 2) start and end in seconds, k >= 0.

    At most 5 windows, drawn at random, become spans; all of them mark clips. mask_BV says which clips sample b has, of
    clip_len_s[b] seconds each; generators[b] determines every draw.
    """
    spans, positive, negative, relevant = [], [], [], []
    counts = mask_BV.sum(1).tolist()
    for windows_K2, clip_s, count, generator in zip(windows_s, clip_len_s, counts, generators, strict=True):
        windows_K2 = windows_K2.cpu().float()
        chosen = torch.randperm(len(windows_K2), generator=generator)[:MAX_WINDOWS]
        spans.append(to_centres(windows_K2[chosen]) / (count * clip_s))
        inside_V = clips_inside(windows_K2, clip_s, count)
        pair = draw_pair(inside_V, generator)
        positive.append(pair[0])
        negative.append(pair[1])
        relevant.append(F.pad(inside_V.float(), (0, mask_BV.shape[1] - count)))
    relevant_BV = torch.stack(relevant)
    return CgDetrTargets(spans, torch.stack(positive), torch.stack(negative), relevant_BV, relevant_BV)


def clips_inside(windows_K2: Tensor, clip_s: float, count: int) -> Tensor:
    """Which of the clips (count,) lie in some window: from the one that holds its start up to, without it, the one
    that holds its end, but at least one."""
    inside_V = torch.zeros(count, dtype=torch.bool)
    for start_s, end_s in windows_K2.tolist():
        first = max(0, min(int(start_s / clip_s + ROUNDING), count - 1))
        inside_V[first : max(first + 1, int(end_s / clip_s + ROUNDING))] = True
    return inside_V


def draw_pair(inside_V: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two clips inside and two outside. A side with one clip gives it twice; a pair without one of its sides compares
    a clip with itself, which costs a constant."""
    pools = [index for index in (inside_V.nonzero()[:, 0], (~inside_V).nonzero()[:, 0]) if len(index)]
    drawn = [draw(pool, generator) for pool in pools]
    return drawn[0], drawn[-1]


def draw(pool: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(pool), generator=generator)
    return pool[order[torch.arange(PAIRS) % len(pool)]]
