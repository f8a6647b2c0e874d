"""From predicted spans to windows in seconds, as the published evaluation reports them: no suppression of overlaps."""

import torch
from torch import Tensor

Window = tuple[float, float, float]  # start and end in seconds, score in [0, 1]
DECIMALS = 4


def windows(logits_Q2: Tensor, spans_Q2: Tensor, duration_s: float) -> list[Window]:
    """All Q windows of one sample, best first, clamped to the video; every number rounded to 4 decimals.

    logits_Q2: class 0 is foreground. spans_Q2: centre and width as fractions of the duration.
    """
    scores_Q = logits_Q2.float().softmax(-1)[:, 0]
    centre_Q, width_Q = spans_Q2.float().unbind(-1)
    start_Q = ((centre_Q - width_Q / 2) * duration_s).clamp(0, duration_s)
    end_Q = ((centre_Q + width_Q / 2) * duration_s).clamp(0, duration_s)
    order_Q = scores_Q.argsort(descending=True, stable=True)
    rows = torch.stack([start_Q, end_Q, scores_Q], -1)[order_Q].tolist()
    return [(round(start, DECIMALS), round(end, DECIMALS), round(score, DECIMALS)) for start, end, score in rows]


def round_to_clips(found: list[Window], clip_len_s: float, last_s: float) -> list[Window]:
    """Windows clamped to [0, last_s], then with ends at multiples of the clip length, halves to the even multiple.

    The last end may so pass the end of the video by half a clip.
    """

    def rounded(time_s: float) -> float:
        return round(min(max(time_s, 0.0), last_s) / clip_len_s) * clip_len_s

    return [(rounded(start), rounded(end), score) for start, end, score in found]
