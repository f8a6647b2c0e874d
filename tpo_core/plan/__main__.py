"""python -m tpo_core.plan --recipe videochat_tpo --gpus 64 [key.path=value ...] [--gpu h100] [--mfu 0.4] [--json]

What a recipe will cost, before anything is spent: steps, tokens, FLOPs and hours of each phase, memory of a GPU by
strategy, storage, decoding on CPUs, money. Nothing is fetched and no cluster is touched: the model is built from shapes
alone. Work and activations are counted on the model's own code; sizes of data sets are the published ones unless
--shards names a preprocessed set; everything else that is assumed is printed, and --assume changes it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from tpo_core.config.load import load_recipe
from tpo_core.config.names import nearest
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.execution.cli import main_guard
from tpo_core.plan.assumptions import Assumptions, assume
from tpo_core.plan.facts import GPUS, Gpu
from tpo_core.plan.phases import Planner
from tpo_core.plan.pool import FORM, Pool, parse_data_sets
from tpo_core.plan.table import assumption_lines, memory_table, phase_table, stage_table
from tpo_core.plan.warn import misfits

EPILOG = f"""GPUs: {", ".join(GPUS)}. --assume takes:
{chr(10).join(f"  {name:<22} {field.description}" for name, field in Assumptions.model_fields.items())}

Left out: attention scores, activations computed again, the second pass of the loss kl, passes through the vision tower
that samples share (samples_per_media), evaluation, the time that the network takes (put it into mfu), starting up, and
what failures cost (python -m tpo_core.plan.scale).

exit status: 0 done, 2 a mistake (one line), or with --strict a phase that does not fit into a GPU"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m tpo_core.plan",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--recipe", required=True, help="name of a recipe in pipelines/recipes, or path of a YAML file")
    made.add_argument("overrides", nargs="*", metavar="key.path=value", help="change of the recipe, as in full_tpo.py")
    made.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs, one a worker")
    made.add_argument("--gpu", default="a100-80", metavar="NAME", help="kind of GPU (default: a100-80, the paper's)")
    made.add_argument("--mfu", type=float, metavar="F", help="the same as --assume mfu=F")
    made.add_argument("--assume", action="append", default=[], metavar="KEY=VALUE", help="replaces an assumption")
    made.add_argument("--data-set", action="append", default=[], metavar=FORM, help="replaces, or adds, a data set")
    made.add_argument("--shards", metavar="URI", help="output of preprocess, whose samples are counted")
    made.add_argument("--strict", action="store_true", help="status 2 when a phase does not fit into a GPU")
    made.add_argument("--json", action="store_true", help="one JSON object in place of tables")
    return made


def main(argv: Sequence[str]) -> int:
    """Plans a recipe and prints it."""
    args = parser().parse_intermixed_args(argv)
    if args.gpus < 1:
        raise TpoError(f"--gpus {args.gpus}: must be >= 1")
    gpu = gpu_of(args.gpu)
    assumed = assume([*args.assume, *([f"mfu={args.mfu}"] if args.mfu is not None else [])])
    workers = [f"train.workers={args.gpus}", "train.gpus_per_worker=1"]
    recipe = load_recipe(args.recipe, [*args.overrides, *workers])
    shards = None if args.shards is None else ShardSet.open(args.shards)
    pool = Pool(recipe.data, parse_data_sets(args.data_set), shards)
    phases = Planner(recipe, pool, gpu, args.gpus, assumed).phases()
    decoding = pool.decoding(recipe.data.frames, assumed)
    too_large = misfits(recipe, phases, gpu, assumed)
    unknown = f"decoding of {', '.join(pool.unknown)} is left out: give their sizes with --data-set"
    warnings = [*too_large, *([unknown] if pool.unknown else [])]
    tables = {
        "sizing": stage_table(phases, decoding, gpu, args.gpus, assumed, paper=recipe.model.backbone == "videochat2"),
        "phases": phase_table(phases),
        "memory": memory_table(phases),
    }
    if args.json:
        found = {"phases": list(map(asdict, phases)), "decoding": asdict(decoding), "warnings": warnings}
        print(json.dumps({**found, "tables": tables}))
    else:
        print(f"{recipe.name} on {args.gpus} x {args.gpu}, {recipe.train.strategy}\n")
        for lines in (*tables.values(), assumption_lines(assumed, args.gpu, gpu)):
            print("\n".join(lines) + "\n")
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    return 2 if args.strict and too_large else 0


def gpu_of(name: str) -> Gpu:
    """TpoError for a GPU that is not known."""
    if name not in GPUS:
        raise TpoError(f"--gpu {name!r}: {nearest(name, GPUS)}; known are {', '.join(GPUS)}")
    return GPUS[name]


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
