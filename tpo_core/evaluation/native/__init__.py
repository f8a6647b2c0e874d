"""Answers as the files that the official metrics read, by metric: one file of this package for each kind of file.

`BENCHMARKS[metric]` writes the predictions, and the truth of the samples that were asked where the official file holds
more of them, so that `python -m tpo_core.metrics.score` gives the same number on them.
"""

from tpo_core.evaluation.native.boxes import GOT10K, LASOT, REFCOCO
from tpo_core.evaluation.native.choices import MLVU, MVBENCH, SEED_BENCH, SHORT_ANSWERS, VIDEO_MME
from tpo_core.evaluation.native.files import Answered, Benchmark, Files
from tpo_core.evaluation.native.masks import MEVIS, REF_YOUTUBE_VOS
from tpo_core.evaluation.native.moments import CHARADES_STA, NEXT_GQA, QVHIGHLIGHTS

BENCHMARKS: dict[str, Benchmark] = {
    "mvbench": MVBENCH,
    "video_mme": VIDEO_MME,
    "mlvu": MLVU,
    "seed_bench": SEED_BENCH,
    "short_answers": SHORT_ANSWERS,
    "nextgqa": NEXT_GQA,
    "charades_sta": CHARADES_STA,
    "qvhighlights": QVHIGHLIGHTS,
    "refcoco": REFCOCO,
    "lasot": LASOT,
    "got10k": GOT10K,
    "mevis": MEVIS,
    "ref_youtube_vos": REF_YOUTUBE_VOS,
}

__all__ = ["BENCHMARKS", "Answered", "Benchmark", "Files"]
