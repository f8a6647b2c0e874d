"""Write the model of a checkpoint, in this process alone.

    python -m tpo_core.train.export --checkpoint URI --init MODEL --recipe NAME|PATH --stage NAME [--phase NAME]
        --output DIR [key.path=value ...]

A checkpoint holds what training changes; all else comes from the model that the phase started with. OUTPUT gets the
layout of the `model` folder of a finished phase. Exits with 2 and one line on a user's mistake.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tpo_core.config.load import load_recipe
from tpo_core.config.schema import Recipe, StageConfig
from tpo_core.errors import TpoError
from tpo_core.storage.local import disk_full_told, folder_named
from tpo_core.train.build import build_model
from tpo_core.train.checkpoints.reader import Checkpoint, committed, newest, open_checkpoint
from tpo_core.train.checkpoints.restore import differences, require_fit
from tpo_core.train.job import PhaseJob
from tpo_core.train.loop import seed_step
from tpo_core.train.optim import build_optimizer
from tpo_core.train.stages import find_phase, select_trainable
from tpo_core.train.strategies.replicated import Replicated


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tpo_core.train.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="folder step-NNNNNNNN, or the folder above for the newest")
    parser.add_argument("--init", required=True, help="what the phase started with: base model, or a `model` folder")
    parser.add_argument("--recipe", required=True, help="name of a recipe, or a YAML file")
    parser.add_argument("--stage", required=True, help="task_assignment, vision_task or multitask")
    parser.add_argument("--phase", help="name of the phase; needed when the stage has several")
    parser.add_argument("--output", required=True, type=folder_named, help="folder to write, which must not be there")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="changes to the recipe")
    return parser.parse_intermixed_args(arguments)


def export(checkpoint: Checkpoint, recipe: Recipe, stage: StageConfig, init_uri: str, output: Path) -> None:
    """Write the model of `checkpoint` to `output`, in one step. TpoError when it does not fit the model."""
    seed_step(recipe.seed, step=0, rank=0)  # what neither checkpoint nor `init_uri` holds starts as it did in training
    model = build_model(recipe, stage, init_uri)
    select_trainable(model, model.groups(), stage.lr)
    strategy = Replicated()
    strategy.prepare(model, lambda: build_optimizer(model.groups(), stage))
    require_fit(checkpoint, {name: list(tensor.shape) for name, tensor in strategy.state()})
    with checkpoint.tensors() as read:
        strategy.set_state(read, updates=0)  # without moments: nothing goes on from here
    aside = output.with_name(f"{output.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with disk_full_told(aside):
        model.save_pretrained(aside, strategy.weights())
        aside.rename(output)


def find(uri: str) -> Checkpoint:
    """The checkpoint of that folder, or the newest below it; TpoError if there is none."""
    found = committed(uri)
    if not found:
        return open_checkpoint(uri)
    checkpoint, passed = newest(found, Replicated())
    for line in passed:
        print(f"note: {line}", file=sys.stderr)
    if checkpoint is None:
        raise TpoError(f"no checkpoint below {uri} is whole: look for another place that has one")
    return checkpoint


def require_same(checkpoint: Checkpoint, job: PhaseJob) -> None:
    """TpoError when the recipe differs in what the model depends on besides its weights: the scale of LoRA has no
    shape, and the seed gives what is new and does not train. Rates and numbers of steps may differ."""
    held, wanted = ({name: run[name] for name in ("model", "seed")} for run in (checkpoint.manifest.run, job.identity))
    difference = next(differences(held, wanted), None)
    if difference is not None:
        raise TpoError(
            f"{checkpoint.uri} is of another model ({difference}): use the recipe and the overrides that it was made"
            " with"
        )


def run(arguments: Sequence[str]) -> None:
    """The command. TpoError for a user's mistake."""
    args = parse(arguments)
    recipe = load_recipe(args.recipe, args.overrides)
    ref = find_phase(recipe, args.stage, args.phase)
    if args.output.exists():
        raise TpoError(f"{args.output} is there already: give another --output, or delete it")
    checkpoint = find(args.checkpoint)
    job = PhaseJob(
        recipe=recipe, stage_name=ref.stage_name, phase=ref.phase, shards_uri="", init_uri=args.init, output=args.output
    )
    require_same(checkpoint, job)
    export(checkpoint, recipe, ref.stage, args.init, args.output)
    print(f"written {args.output}: the model after {checkpoint.manifest.step} steps")


def main(arguments: Sequence[str]) -> int:
    """`run` with errors told in one line."""
    try:
        run(arguments)
    except TpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
