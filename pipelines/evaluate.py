"""python pipelines/evaluate.py --recipe NAME --model URI --shards URI --output DIR [key.path=value ...]

Measures any saved model, or a Hugging Face base before TPO, on the parts that the recipe names, and draws the gallery:
OUTPUT/PART/metrics.json, predictions.jsonl and gallery/*.png.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from pipelines.cluster import connect, on_cluster
from pipelines.report import metrics_table
from pipelines.usage import OVERRIDES, RECIPE, STATUSES
from tpo_core.config.load import load_recipe
from tpo_core.evaluation.evaluate import evaluate_part
from tpo_core.execution.cli import main_guard
from tpo_core.storage.local import disk_full_told


def main(argv: Sequence[str]) -> int:
    """Parses, measures each part as a Ray task, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=STATUSES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help=RECIPE)
    parser.add_argument("--model", required=True, help="`model` folder of a phase, or a base model")
    parser.add_argument("--shards", required=True, help="shard set, as preprocess.py leaves it")
    parser.add_argument("--output", required=True, type=Path, help="folder for metrics, predictions and gallery")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    args = parser.parse_intermixed_args(argv)
    recipe = load_recipe(args.recipe, args.overrides)
    model, output = str(Path(args.model).resolve()) if Path(args.model).exists() else args.model, args.output.resolve()
    shards = str(Path(args.shards).resolve()) if Path(args.shards).exists() else args.shards
    jobs = [partial(evaluate_part, recipe, model, shards, part, output) for part in recipe.evaluation.parts]
    with connect(recipe), disk_full_told(output):
        results = on_cluster(jobs, recipe.train, print)
    measured = {name: value for result in results for name, value in result["metrics"].items()}
    constant = {name: value for result in results for name, value in result["baseline"].items()}
    Console(width=120, highlight=False).print(metrics_table(measured, {}, constant))
    return 0


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
