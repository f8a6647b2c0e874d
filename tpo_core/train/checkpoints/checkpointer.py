"""Saves the state of a run beside the training, and finds where to resume.

`save` copies what this rank owns of the state to host memory and returns; a thread writes it (write.py). At most one
write is under way: the next save first waits for it, and there all ranks learn together how it ended. There is no
generator state in a checkpoint, because the loop derives all randomness from the step (loop.seed_step), and no position
in the data and no state of the schedule, because both are functions of the step.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tpo_core.errors import StorageTroubleError, TpoError, in_one_line
from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints.manifest import COMMIT, Manifest, folder_name, step_of
from tpo_core.train.checkpoints.part import DTYPES, File, owned
from tpo_core.train.checkpoints.reader import committed, newest
from tpo_core.train.checkpoints.restore import restore
from tpo_core.train.checkpoints.retention import Retention, kept, sweep, sweep_folder
from tpo_core.train.checkpoints.write import Write, clear_scratch
from tpo_core.train.rows import Progress
from tpo_core.train.strategies.base import Strategy

LOG = logging.getLogger(__name__)


class Checkpointer:
    """The checkpoints of one run, below `root`; made and called on all ranks alike.

    run: what the run computes, as JSON; a checkpoint of another one is refused. strategy_name: for the record.
    max_failed: writes in a row that may fail before it is an error. secure: has what a checkpoint builds on be as safe
    as itself; rank 0 calls it first, in the thread that writes, and where it fails there is no checkpoint. tell: takes
    each line for a reader, on rank 0.
    """

    def __init__(
        self,
        root: str,
        strategy: Strategy,
        *,
        run: Mapping[str, Any],
        strategy_name: str,
        retention: Retention,
        max_failed: int,
        secure: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self.root, self.strategy, self.run, self.strategy_name = root, strategy, dict(run), strategy_name
        self.retention, self.max_failed, self.secure, self.tell = retention, max_failed, secure, tell
        self.attempt: str = strategy.agree(uuid.uuid4().hex[:12])
        self.writes = self.failed = 0
        self.losses: dict[str, float] = {}  # of the last row that had any
        self.unswept: str | None = None  # rank 0: why what is no longer needed is still there
        self.under_way: tuple[int, Write] | None = None
        self.step: int | None = None  # of the last checkpoint that is known to be good
        self.saved: dict[int, dict[str, float]] = {}  # rank 0: committed steps, and the losses logged before each
        self.host: dict[str, Tensor] = {}  # this rank's slices; kept, because fresh memory costs as much as the copy

    def resume(self) -> tuple[Progress, list[str]]:
        """Load the newest checkpoint that is whole: where it stands, and lines about it and about those passed over.
        What a dead attempt left is cleared away.

        Raises TpoError when the checkpoint is of another run or model, or the storage does not answer.
        """
        found = self.strategy.agree(committed(self.root) if self.strategy.rank == 0 else [])
        checkpoint, lines = newest(found, self.strategy)
        progress = Progress()
        if checkpoint is None:
            lines.append("starting at step 0")
        else:
            restore(checkpoint, self.strategy, self.run)
            progress, self.step, self.losses = checkpoint.progress, checkpoint.manifest.step, checkpoint.manifest.losses
            lines.append(f"resuming at step {progress.step} from {checkpoint.name}")
        clear_scratch(self.root)
        if self.strategy.rank == 0:
            steps = {step_of(folder): manifest for folder, manifest in found}
            good = {
                step: manifest.losses
                for step, manifest in steps.items()
                if isinstance(manifest, Manifest) and step <= progress.step
            }
            self.saved = {step: good[step] for step in kept(good, self.retention)}
            lines += told_gone(good.keys() - self.saved.keys())
            stays = {*self.saved, *(steps.keys() - good.keys())}  # what was passed over stays for now
            self._sweep(stays, None if checkpoint is None else (checkpoint.uri, checkpoint.manifest.names))
            lines += self._take_unswept()
        return progress, lines

    def logged(self, row: Mapping[str, Any]) -> None:
        """Take the losses of a logged row (rows.make_row), which has none where no update was made: by them the best
        checkpoints are told."""
        self.losses = {name: value for name, value in row.items() if is_loss(name)} or self.losses

    def save(self, progress: Progress) -> None:
        """Save the state after `progress.step` updates, once the write before has ended.

        Parameters, optimizer and `progress` may change as soon as this returns. A write that fails is told, and leaves
        what was there; one more than `max_failed` in a row raises what went wrong, TpoError where the user can mend it.
        """
        self.wait()
        if progress.step == self.step:
            return
        index = self._copy_state()
        step, token = progress.step, f"{self.attempt}-{self.writes}"
        folder = uris.join(self.root, folder_name(step))
        manifest = partial(
            Manifest, step=step, strategy=self.strategy_name, run=self.run, progress=asdict(progress),
            losses=dict(self.losses),
        )  # fmt: skip
        write = Write(
            folder, token, rank=self.strategy.rank, world=self.strategy.world,
            begin=lambda: self._begin(step),
            commit=lambda parts: self._commit(folder, token, index, parts, manifest),
        )  # fmt: skip
        self.writes += 1
        self.under_way = step, write
        write.start(self.host)

    def wait(self) -> None:
        """Return when no write is under way; where the last one went well, `step` is its own. Raises as `save` does."""
        if self.under_way is None:
            return
        (step, write), self.under_way = self.under_way, None
        write.part_done.wait()
        parts_failed = any(self.strategy.everyone(write.error is not None))
        write.join(all_parts_done=not parts_failed)
        if self.strategy.rank == 0:
            self._say(*self._take_unswept())
        troubles = [each for each in self.strategy.everyone(trouble(write.error)) if each is not None]
        if not troubles:
            self.step, self.failed = step, 0
            return
        self.failed += 1
        # All ranks raise alike, and what is no matter of a storage that may recover comes first: it is not tried again.
        text, kind = min(troubles, key=lambda each: each[1] is StorageTroubleError)
        if self.failed > self.max_failed:
            mine = trouble(write.error) == (text, kind)
            raise write.error if write.error is not None and mine else kind(text)
        if self.strategy.rank == 0:
            last = folder_name(max(self.saved)) if self.saved else "none"
            self._say(f"the checkpoint of step {step} failed ({text}): training goes on; the last good one: {last}")

    def close(self) -> None:
        """Give up a write that is under way, without a word to the other ranks; nothing happens after `wait`."""
        if self.under_way is not None:
            self.under_way[1].join(all_parts_done=False)
            self.under_way = None

    def _copy_state(self) -> dict[str, dict[str, Any]]:
        """Copy this rank's slices to host memory, one tensor after another; dtype and shape of the whole tensors."""
        cuda, index = self.strategy.device.type == "cuda", {}
        for name, tensor in self.strategy.state():
            index[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape)}
            mine = tensor.reshape(-1)[owned(tensor.numel(), self.strategy.rank, self.strategy.world)]
            if not mine.numel():
                continue
            if name not in self.host:
                self.host[name] = torch.empty(mine.shape, dtype=mine.dtype, pin_memory=cuda)
            self.host[name].copy_(mine, non_blocking=cuda)
        if cuda:
            torch.cuda.synchronize(self.strategy.device)
        return index

    def _commit(
        self, folder: str, token: str, index: dict[str, Any], parts: list[File], manifest: Callable[..., Manifest]
    ) -> None:
        """What rank 0 does when all parts are there: the files that say so, then what is no longer needed goes."""
        data = json.dumps(index).encode()
        index_file = File(f"{token}-index.json", len(data), hashlib.sha256(data).hexdigest())
        uris.write_bytes(uris.join(folder, index_file.name), data)
        whole = manifest(index=index_file, parts=parts)
        uris.write_bytes(uris.join(folder, COMMIT), whole.to_bytes())
        if uris.is_local(self.root):
            local.sync(local.to_path(self.root))  # the name of the folder, before older ones go
        self.saved[whole.step] = whole.losses
        keep = kept(self.saved, self.retention)
        self.saved = {step: losses for step, losses in self.saved.items() if step in keep}
        self._sweep(keep, (folder, whole.names))

    def _begin(self, step: int) -> None:
        """What rank 0 does first."""
        self.secure()
        self._sweep({*self.saved, step}, None)

    def _sweep(self, keep: Collection[int], folder: tuple[str, Collection[str]] | None) -> None:
        """Delete all but the steps `keep`, and from one folder all but some files. What cannot be deleted harms no
        checkpoint: it is told as what it is, and the next write tries again."""
        try:
            sweep(self.root, keep)
            if folder is not None:
                sweep_folder(*folder)
        except Exception as error:  # of whichever storage
            self.unswept = in_one_line(error)
        else:
            self.unswept = None

    def _take_unswept(self) -> list[str]:
        """A line about what could not be deleted, if there is something."""
        why, self.unswept = self.unswept, None
        return [] if why is None else [f"what is no longer needed of checkpoints could not be deleted ({why})"]

    def _say(self, *lines: str) -> None:
        for line in lines:
            LOG.warning("%s", line)
            self.tell(line)


def told_gone(steps: Collection[int]) -> list[str]:
    """A line about checkpoints that are deleted when a run is resumed: an attempt that kept more of them, or died
    before it could delete one, left them."""
    if not steps:
        return []
    shown = ", ".join(map(str, sorted(steps)))
    return [
        f"the recipe keeps no checkpoint of step {shown} (train.keep_best, permanent_checkpoint_every_steps): deleted"
    ]


def is_loss(name: str) -> bool:
    """Whether a name in a row is that of a loss."""
    return name == "total" or name.startswith(("loss/", "kind/"))


def trouble(error: Exception | None) -> tuple[str, type[Exception]] | None:
    """An error in one line, and as what all ranks raise it."""
    if error is None:
        return None
    kinds: tuple[type[Exception], ...] = (StorageTroubleError, TpoError)
    return in_one_line(error), next((kind for kind in kinds if isinstance(error, kind)), RuntimeError)
