"""python pipelines/evaluate.py --recipe NAME --model URI --shards URI | --suite NAME --output DIR [key.path=value ...]

Measures any saved model, or a Hugging Face base before TPO.

--shards   on the parts of a shard set that the recipe names: OUTPUT/PART/metrics.json, predictions.jsonl,
           gallery/*.png, and OUTPUT/report.html
--suite    on official benchmarks, by their own metrics: OUTPUT/ENTRY/result.json, rows.jsonl, native/, and
           OUTPUT/report.html. What was answered is kept: the same command goes on where it was.

  python pipelines/evaluate.py --recipe videochat_tpo --model s3://bucket/model --suite tpo_paper \\
      --data-root s3://bucket/data --output s3://bucket/eval --only mvbench charades_sta --limit 200
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from pipelines.cluster import connect, on_cluster
from pipelines.report import metrics_table, page_of
from pipelines.suites import Asked, check_data, entry_lines, find_model, log_evaluation, results_table, run_suite
from pipelines.usage import OVERRIDES, RECIPE, STATUSES, echo
from tpo_core.config.load import load_recipe
from tpo_core.config.schema import Recipe
from tpo_core.errors import TpoError
from tpo_core.evaluation.evaluate import evaluate_part
from tpo_core.evaluation.suite import load_suite, suite_names
from tpo_core.execution.cli import main_guard
from tpo_core.storage import local
from tpo_core.storage.local import disk_full_told
from tpo_core.storage.uri import absolute, is_local

MODEL = "folder or URI of a saved model, a base model, or models:/NAME@ALIAS or models:/NAME/VERSION of the registry"


def parser_of() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=STATUSES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help=RECIPE)
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--shards", metavar="URI", help="shard set, as preprocess.py leaves it")
    parser.add_argument("--suite", metavar="NAME|PATH", help=f"one of {', '.join(suite_names())}, or a YAML file")
    parser.add_argument("--output", required=True, help="folder for the results; of a suite a path or a URI")
    parser.add_argument("--data-root", metavar="URI", help="where the data sets of a suite lie")
    parser.add_argument("--only", nargs="+", default=[], metavar="ENTRY", help="these entries of the suite alone")
    parser.add_argument("--limit", type=count, metavar="N", help="so many samples of each entry, at equal distances")
    parser.add_argument(
        "--sam2", metavar="URI", help="SAM2 of the control (default: that of the recipe, if its mask head is of SAM2)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what the suite would ask; load and write nothing")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    return parser


def main(argv: Sequence[str]) -> int:
    """Parses, measures parts or a suite, prints the table."""
    args = parser_of().parse_intermixed_args(argv)
    overrides = [*args.overrides, *(word for word in args.only if "=" in word)]  # --only takes all words behind it
    args.only = [word for word in args.only if "=" not in word]
    recipe = load_recipe(args.recipe, overrides)
    if (args.shards is None) == (args.suite is None):
        raise TpoError("say either --shards URI (parts of a shard set) or --suite NAME (official benchmarks)")
    return measure_parts(args, recipe) if args.suite is None else measure_suite(args, recipe)


def count(text: str) -> int:
    """A whole number from 1. TpoError when it is none."""
    if not text.isdecimal() or int(text) < 1:
        raise TpoError(f"--limit takes a whole number from 1, not {text!r}")
    return int(text)


def measure_parts(args: argparse.Namespace, recipe: Recipe) -> int:
    """Each part as a Ray task."""
    given = [name for name in ("data_root", "limit", "sam2") if getattr(args, name) is not None]
    given += [name for name in ("only", "dry_run") if getattr(args, name)]
    if given:
        raise TpoError(f"--{given[0].replace('_', '-')} is for --suite")
    if not is_local(args.output):
        raise TpoError(f"--output {args.output}: parts are measured into a local folder")
    output = local.to_path(args.output).resolve()
    model = find_model(args.model, recipe, str(output))
    shards = str(Path(args.shards).resolve()) if Path(args.shards).exists() else args.shards
    jobs = [partial(evaluate_part, recipe, model, shards, part, output) for part in recipe.evaluation.parts]
    with connect(recipe), disk_full_told(output):
        results = on_cluster(jobs, recipe.train, print, group=recipe.nodes.evaluate)
    measured = {name: value for result in results for name, value in result["metrics"].items()}
    constant = {name: value for result in results for name, value in result["baseline"].items()}
    Console(width=120, highlight=False).print(metrics_table(measured, {}, constant))
    title = f"{recipe.name}: {args.model}"
    if written := page_of(output, shards, title, {}, output):
        echo(f"report  {written.page}")
        log_evaluation(written, recipe, title, echo)
    return 0


def measure_suite(args: argparse.Namespace, recipe: Recipe) -> int:
    """Entry after entry, each by a pool of actors."""
    root = args.data_root or recipe.data.root
    if root is None:
        raise TpoError("say with --data-root where the data sets of the suite lie")
    mask = recipe.model.mask
    asked = Asked(
        recipe=recipe,
        suite=load_suite(args.suite).only(args.only),
        model=args.model,
        data_root=absolute(root),
        output=absolute(args.output),
        limit=args.limit,
        sam2=args.sam2 or (mask.sam2.source if "mask" in recipe.model.heads and mask.decoder == "sam2" else None),
    )
    if args.dry_run:
        for line in entry_lines(asked):
            echo(line)
        return 0
    check_data(asked)
    asked = replace(asked, model=find_model(args.model, recipe, asked.output))
    if asked.sam2 is not None and os.path.exists(asked.sam2):
        asked = replace(asked, sam2=os.path.abspath(asked.sam2))
    with connect(recipe):
        ran = run_suite(asked, echo)
    if ran.results:
        Console(width=120, highlight=False).print(results_table(asked.suite, ran.results))
    ran.check()
    return 0


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
