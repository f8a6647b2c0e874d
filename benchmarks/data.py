"""python benchmarks/data.py [--only NAME ...] [--rounds N]

Measures the data platform against what one would use without it, as ratios of one run on the same files, the contenders
in turns. Inputs are made in a temporary folder (about 300 MB). WebDataset and MosaicML Streaming take part where they
can be imported: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PACKAGES = ("decord", "av", "pillow", "pyarrow", "torch", "ray", "webdataset", "mosaicml-streaming")


def versions() -> str:
    """Of what is measured, as far as it is installed."""
    there = {each.name.lower(): each.version for each in importlib.metadata.distributions()}
    return ", ".join(f"{name} {there[name]}" for name in PACKAGES if name in there)


def load() -> str:
    """How busy the machine is, with others too."""
    return f"load average {os.getloadavg()[0]:.1f}"


def main() -> None:
    from benchmarks.benches import BENCHES  # not above: decoding processes import this file, and would be larger by it

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES), help="which to run")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, {versions()}")
    print(f"ratios above 1: ours is faster; median (range) of {args.rounds} rounds; {load()} at the start\n")
    print("| what | measured | asked |\n|---|---|---|")
    for name in args.only:
        with tempfile.TemporaryDirectory(prefix="tpo-bench-") as folder:
            os.environ["TPO_SCRATCH"] = f"{folder}/scratch"
            for what, measured, asked in BENCHES[name](Path(folder), args.rounds):
                print(f"| {what} | {measured} | {asked} |", flush=True)
    print(f"\n{load()} at the end")


if __name__ == "__main__":
    main()
