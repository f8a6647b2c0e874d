"""python pipelines/preprocess.py --recipe NAME [key.path=value ...] [--dry-run]

The first steps of the chain alone: native annotations and videos to shards, on CPU nodes. What it leaves in
<work_uri>/preprocess (frames, samples, rejected.jsonl) is what full_tpo.py with the same data section finds, and skips.

What a reader expects and which options it has: python -m tpo_core.data.inspect --help
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.full_tpo import run_chain
from tpo_core.execution.cli import main_guard

if __name__ == "__main__":
    main_guard(lambda: run_chain(sys.argv[1:], until_step="preprocess", doc=__doc__))
