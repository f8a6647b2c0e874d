"""Which checkpoints stay, and how the others go."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tpo_core.config.schema import TrainConfig
from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints.manifest import COMMIT, Manifest, step_folders
from tpo_core.train.checkpoints.reader import committed

NEWEST = 2  # the last one, and one to fall back on should it turn out damaged


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What is kept besides the newest: every one at a multiple of `permanent_every` steps, and the `best` ones with the
    lowest loss `metric`."""

    permanent_every: int | None
    best: int
    metric: str

    @classmethod
    def of(cls, train: TrainConfig) -> "Retention":
        return cls(
            permanent_every=train.permanent_checkpoint_every_steps, best=train.keep_best, metric=train.best_metric
        )


def kept(saved: Mapping[int, Mapping[str, float]], retention: Retention, *, newest: int = NEWEST) -> set[int]:
    """The steps whose checkpoints stay, of those `saved`, given with the losses that were logged last before each.

    newest: how many stay because they are the last ones; 0 once the run is finished and nothing will resume. Of two
    with the same loss the earlier is the better one; one without the loss is never among the best.
    """
    steps = sorted(saved)
    last = steps[len(steps) - newest :] if newest < len(steps) else steps
    every = retention.permanent_every
    permanent = [step for step in steps if every is not None and step % every == 0]
    with_loss = [step for step in steps if retention.metric in saved[step]]
    best = sorted(with_loss, key=lambda step: (saved[step][retention.metric], step))[: retention.best]
    return {*last, *permanent, *best}


def sweep(root: str, keep: Collection[int]) -> None:
    """Delete the folders of all steps but `keep`, committed or left by an attempt that died. What says that one is
    whole goes first, so that a kill in the middle leaves none that only looks whole."""
    for step, folder in step_folders(root).items():
        if step not in keep:
            uris.delete(uris.join(folder, COMMIT))
            uris.delete(folder)


def sweep_folder(folder: str, names: Collection[str]) -> None:
    """Delete all files of one checkpoint's folder but `names`: what attempts that died at the same step left."""
    for name in set(uris.list_names(folder)) - set(names):
        uris.delete(uris.join(folder, name))


def drop_ephemeral(root: str, retention: Retention) -> None:
    """Delete what only served to resume; for a run that is finished."""
    saved = {each.step: each.losses for _, each in committed(root) if isinstance(each, Manifest)}
    keep = kept(saved, retention, newest=0)
    sweep(root, keep)
    if not keep:
        uris.delete(root)  # which may be a link to a disk that is large enough
