"""QuerYD: narrations of a video with their moments, as TimeIT published them.

Format: see `tpo_core.data.readers.timeit`; the dataset is https://www.robots.ox.ac.uk/~vgg/data/queryd/, whose own
layout is not read. Each row asks for the moment of one narration, so that by default it trains the temporal head.
"""

from tpo_core.data.readers import timeit

NAME = "queryd"
READER = timeit.reader(
    NAME, "QuerYD: moments of a narration, in the form of TimeIT", "instruct_tvg_14.6k_queryd.json", "span"
)
