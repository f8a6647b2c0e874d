"""Which frames a benchmark looks at, where that is a part of its number."""


def mvbench(
    n_frames: int, fps: float, last: int, bound_s: tuple[float, float] | None = None, first: int = 0
) -> list[int]:
    """Numbers of the frames that the notebook of MVBench takes: one from the middle of each of `n_frames` segments.

    `bound_s`: start and end in seconds; without it all frames from `first` (1 for folders of JPEG files) to `last`.
    """
    start, end = first, last
    if bound_s is not None:
        start, end = max(first, round(bound_s[0] * fps)), min(round(bound_s[1] * fps), last)
    segment = float(end - start) / n_frames
    return [int(start + segment / 2 + round(segment * place)) for place in range(n_frames)]
