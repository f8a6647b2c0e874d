"""python pipelines/train_stage.py --recipe NAME --stage NAME --shards URI --init URI --output DIR [key.path=value ...]

One phase of one stage, outside the chain: reads committed shards and the weights to start from, writes
OUTPUT/model, OUTPUT/history.jsonl and OUTPUT/phase.json. The same command after a kill continues where it was.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script's own folder is on the path, its parent is not

from pipelines.checkpoint_lease import checkpoint_lease
from pipelines.checks import check_groups, check_phase, check_places
from pipelines.cluster import connect
from pipelines.usage import OVERRIDES, RECIPE, STATUSES, echo
from tpo_core.config.load import load_recipe
from tpo_core.config.schema import Recipe, identity
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.execution.cli import main_guard
from tpo_core.execution.fingerprint import differences, fingerprint
from tpo_core.execution.lease import Lease
from tpo_core.models.source import identify
from tpo_core.storage.local import disk_full_told, folder_named
from tpo_core.storage.uri import absolute, write_json
from tpo_core.train.ray_trainer import run_phase
from tpo_core.train.stages import PhaseRef, find_phase


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=STATUSES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help=RECIPE)
    parser.add_argument("--stage", required=True, help="task_assignment, vision_task or multitask")
    parser.add_argument("--phase", help="name of the phase; needed when the stage has several")
    parser.add_argument("--shards", required=True, help="shard set, as preprocess.py leaves it: path or URI")
    parser.add_argument("--init", required=True, help="base model, or the model folder of the phase before")
    parser.add_argument("--output", required=True, type=folder_named, help="folder shared by driver and workers")
    parser.add_argument("--restart", action="store_true", help="drop what an earlier attempt left in OUTPUT")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    return parser.parse_intermixed_args(argv)


def claim(output: Path, asked: dict[str, Any], *, restart: bool) -> None:
    """Note in the folder what is trained there. TpoError when an earlier attempt asked for something else."""
    note = output / "asked.json"
    if note.exists() and not restart:
        changes = list(differences(json.loads(note.read_text()), asked))
        if changes:
            raise TpoError(
                f"{output} holds another run ({changes[0]}): give another --output, or --restart to begin anew"
            )
    output.mkdir(parents=True, exist_ok=True)
    write_json(note, asked)


def asked_for(recipe: Recipe, ref: PhaseRef, shards: ShardSet, init: str) -> dict[str, Any]:
    """What the result depends on: of data and weights their content, since another set may lie at a place tomorrow."""
    return {
        "stage": {ref.stage_name: identity(ref.stage) | {"phases": [identity(ref.phase)]}},
        "model": identity(recipe.model),
        "seed": recipe.seed,
        "shards": shards.digest,
        "init": identify(init),
    }


def main(argv: list[str]) -> int:
    """Trains the phase; the last line is its result, a JSON object."""
    args = parse(argv)
    recipe = load_recipe(args.recipe, args.overrides)
    ref = find_phase(recipe, args.stage, args.phase)
    check_groups(recipe)
    check_places(recipe, args.output)
    shards = ShardSet.open(args.shards)
    check_phase(recipe, ref, shards)
    asked = asked_for(recipe, ref, shards, args.init)
    run_id = fingerprint(ref.name, 1, asked, {})[:12]
    with (
        Lease(f"{absolute(args.output)}.lease", echo=echo),
        checkpoint_lease(recipe, ref.name, run_id, echo),
        connect(recipe),
        disk_full_told(args.output),
    ):
        claim(args.output, asked, restart=args.restart)
        result = run_phase(
            recipe,
            ref.stage_name,
            ref.phase,
            shards_uri=args.shards,
            init_uri=args.init,
            output=args.output,
            open_tracker=None,
            resume=not args.restart,
            run_id=run_id,
            echo=echo,
        )
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
