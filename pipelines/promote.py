"""python pipelines/promote.py --recipe NAME|PATH [key.path=value ...] [--dry-run] [--rollback]
python pipelines/promote.py --explain NAME --version N|ALIAS [--recipe NAME|PATH]

Makes the challenger the champion if every gate of the recipe holds; --rollback makes the champion before it champion
again. The log of both is the folder <work_uri>/promotions. --explain prints where a version comes from, and with a
recipe what it was promoted on; without one it asks the server that MLFLOW_TRACKING_URI names.

A gate (promotion.gates) names a metric as PART/TASK/NAME, the least or the most it may be, and how far it may lie below
the champion's or the base model's; until there is a champion, the base model stands in for it.

exit status: 0 done (or would be, with --dry-run), 1 failed, 2 a user's mistake, 3 refused by a gate
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from pipelines.usage import OVERRIDES, RECIPE, echo
from tpo_core.config.load import load_recipe
from tpo_core.config.schema import PromotionConfig
from tpo_core.errors import TpoError
from tpo_core.execution.cli import main_guard
from tpo_core.execution.lease import Lease
from tpo_core.storage.uri import join
from tpo_core.tracking.gates import GateResult
from tpo_core.tracking.lineage import explain
from tpo_core.tracking.promotion import promote, rollback
from tpo_core.tracking.promotion_log import PromotionLog
from tpo_core.tracking.registry import Registry, VersionInfo
from tpo_core.tracking.server import default_uri, is_missing

LOG = "promotions"  # folder below work_uri
REFUSED = 3  # 1 is what Python itself ends with when something breaks


def main(argv: Sequence[str] | None = None) -> int:
    """Promotes or rolls back; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help=RECIPE)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, change nothing")
    parser.add_argument("--rollback", action="store_true", help="undo the last promotion")
    parser.add_argument("--explain", metavar="NAME", help="print the lineage of a version of this model")
    parser.add_argument("--version", metavar="N|ALIAS", help="of --explain")
    args = parser.parse_intermixed_args(argv)
    if args.explain is not None:
        return tell_lineage(args)
    if args.recipe is None:
        raise TpoError("give --recipe NAME, the recipe whose model is promoted")
    if args.version is not None:
        raise TpoError("--version is for --explain")
    recipe = load_recipe(args.recipe, args.overrides)
    name, log = recipe.tracking.model_name, PromotionLog(join(recipe.work_uri, LOG))
    registry = registry_at(recipe.tracking.uri or default_uri(recipe.work_uri))
    lease = nullcontext() if args.dry_run else Lease(join(recipe.work_uri, "promotions.lease"), echo=echo)
    with lease:
        if args.rollback:
            return take_back(registry, name, log, dry_run=args.dry_run)
        return judge(registry, name, recipe.promotion, log, dry_run=args.dry_run)


def registry_at(uri: str) -> Registry:
    """TpoError when there is none."""
    if is_missing(uri):
        raise TpoError(f"there is no registry at {uri} yet: train and register a model with pipelines/full_tpo.py")
    return Registry(uri)


def tell_lineage(args: argparse.Namespace) -> int:
    """Prints the tree of a version."""
    if args.version is None:
        raise TpoError("say with --version which version of the model: a number or an alias")
    uri, log = os.environ.get("MLFLOW_TRACKING_URI"), None
    if args.recipe is not None:
        recipe = load_recipe(args.recipe, args.overrides)
        uri, log = recipe.tracking.uri or default_uri(recipe.work_uri), PromotionLog(join(recipe.work_uri, LOG))
    if uri is None:
        raise TpoError("give --recipe NAME, the recipe whose registry is asked, or set MLFLOW_TRACKING_URI to it")
    tree = explain(registry_at(uri), args.explain, args.version, log)
    Console(width=200, highlight=False, markup=False).print(tree, soft_wrap=True)
    return 0


def take_back(registry: Registry, name: str, log: PromotionLog, *, dry_run: bool) -> int:
    """Rolls back and says so."""
    leaves, returns = rollback(registry, name, log, dry_run=dry_run, tell=note)
    would, no_longer = (
        "would be " if dry_run else "",
        "" if leaves in (None, returns) else f", no longer {label(leaves)}",
    )
    echo(f"{would}rolled back: champion of {name} is {label(returns)} again{no_longer}")
    return 0


def judge(registry: Registry, name: str, asked: PromotionConfig, log: PromotionLog, *, dry_run: bool) -> int:
    """Promotes, and prints what was found and decided."""
    result = promote(registry, name, asked, log, dry_run=dry_run, tell=note)
    if not result.gates:
        put_back = f"its alias {'would be' if dry_run else 'was'} put back"
        did = "nothing to do" if result.action is None else put_back
        echo(f"champion of {name} is {label(result.champion)} already: {did}")
        return 0
    role = "champion" if result.action == "confirm" else "challenger"
    versions = f"{role} {label(result.challenger)} against {label(result.champion)} of {name}"
    echo(table(result.gates))
    if not result.ok:
        failed = [gate.metric for gate in result.gates if not gate.ok]
        echo(f"refused: {versions}: {len(failed)} of {len(result.gates)} gates fail ({', '.join(failed)})")
        return REFUSED
    did = "confirmed" if result.action == "confirm" else "promoted"
    echo(f"{'would be ' if dry_run else ''}{did}: {versions}: all {len(result.gates)} gates hold")
    return 0


def note(text: str) -> None:
    """Prints what was found in disorder."""
    echo(f"note: {text}")


def label(version: VersionInfo | int | None) -> str:
    """`v3`, or `the base model` where there is no version."""
    number = version.version if isinstance(version, VersionInfo) else version
    return "the base model" if number is None else f"v{number}"


def table(gates: Sequence[GateResult]) -> str:
    """One line a gate: metric, challenger, reference, verdict."""
    width = max(len("gate"), *(len(gate.metric) for gate in gates))
    lines = [f"{'gate':<{width}}  challenger  reference  verdict"]
    for gate in gates:
        verdict = f"{'ok' if gate.ok else 'FAIL'}: {gate.reason}"
        lines.append(f"{gate.metric:<{width}}  {number(gate.value):>10}  {number(gate.reference):>9}  {verdict}")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Four decimals, or a dash."""
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main_guard(main)
