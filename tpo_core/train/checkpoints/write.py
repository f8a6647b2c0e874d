"""One checkpoint on its way to its place, in the background.

Each rank writes its part; rank 0 then commits. It learns that the others are done from a small file of each, not from a
collective: those belong to the training that goes on meanwhile.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints.part import File, write_part

POLL_S = (0.02, 1.0)  # between two looks for the parts of the other ranks: at first, and at most
VISIBLE_S = 90.0  # an NFS client may show a folder as it was this long ago (attribute caching, acdirmax 60 s)


class Write:
    """One rank's work for the checkpoint in `folder`.

    token: the same on all ranks, and of this write alone. begin: what rank 0 does first, while the others write.
    commit: what it does with all parts when they are there.
    `error` is what went wrong; it is final for the part once `part_done` is set, and for all once `join` returns.
    """

    def __init__(
        self,
        folder: str,
        token: str,
        *,
        rank: int,
        world: int,
        begin: Callable[[], None],
        commit: Callable[[list[File]], None],
    ) -> None:
        self.folder, self.token, self.rank, self.world = folder, token, rank, world
        self.begin, self.commit = begin, commit
        self.error: Exception | None = None
        self.part_done, self.all_done, self.given_up = threading.Event(), threading.Event(), threading.Event()
        self.thread = threading.Thread(target=lambda: None)

    def start(self, slices: Mapping[str, Tensor]) -> None:
        """Write `slices`, which must not change before `part_done` is set."""
        self.thread = threading.Thread(target=self._run, args=(slices,), name="checkpoint", daemon=True)
        self.thread.start()

    def join(self, *, all_parts_done: bool) -> None:
        """Wait for the end. all_parts_done: every rank's part is written; else rank 0 waits for them no longer."""
        (self.all_done if all_parts_done else self.given_up).set()
        self.thread.join()

    def _run(self, slices: Mapping[str, Tensor]) -> None:
        try:
            with local.disk_full_told(staged_path(self.folder, self._part())):
                if self.rank == 0:
                    self.begin()
                own = self._put_part(slices)
                self.part_done.set()
                if self.rank == 0 and (parts := self._gather(own)) is not None:
                    self.commit(parts)
        except Exception as error:  # the Checkpointer tells it, and raises it when there were too many
            self.error = error
        finally:
            self.part_done.set()

    def _put_part(self, slices: Mapping[str, Tensor]) -> File:
        staged, name = staged_path(self.folder, self._part()), self._part()
        staged.parent.mkdir(parents=True, exist_ok=True)
        try:
            part = replace(write_part(staged, slices), name=name)
            uris.put_file(staged, uris.join(self.folder, name))
        finally:
            staged.unlink(missing_ok=True)
        if self.rank:
            uris.write_bytes(uris.join(self.folder, self._marker(self.rank)), json.dumps(asdict(part)).encode())
        return part

    def _part(self) -> str:
        return f"{self.token}-{self.rank:05d}.safetensors"

    def _marker(self, rank: int) -> str:
        return f"{self.token}-{rank:05d}.json"

    def _gather(self, own: File) -> list[File] | None:
        """The parts of all ranks, as soon as they are there; None when they are waited for no longer."""
        markers = [self._marker(rank) for rank in range(1, self.world)]
        pause_s, waited_s = POLL_S[0], 0.0
        while markers and not set(uris.list_names(self.folder)) >= set(markers):
            if waited_s > VISIBLE_S:
                raise TpoError(
                    f"{self.folder} does not show the parts that other workers wrote:"
                    " set train.checkpoint_uri to a place that all nodes share"
                )
            if self.given_up.wait(pause_s):
                return None
            waited_s += pause_s if self.all_done.is_set() else 0.0
            pause_s = min(2 * pause_s, POLL_S[1])
        return [own, *(File(**uris.read_json(uris.join(self.folder, marker))) for marker in markers)]


def staged_path(folder: str, name: str) -> Path:
    """Where a part is written before it is put in its place: beside it, or in the scratch folder for S3."""
    if uris.is_local(folder):
        return local.to_path(folder) / f".{name}.partial"
    return scratch_folder(folder.rpartition("/")[0]) / name


def scratch_folder(root: str) -> Path:
    """This machine's folder for parts on their way to a remote root."""
    return uris.scratch_dir() / "checkpoints" / hashlib.sha256(root.encode()).hexdigest()[:16]


def clear_scratch(root: str) -> None:
    """Delete what attempts that died on this machine left of their parts; every rank does, before one writes."""
    for left in scratch_folder(root).glob("*"):
        left.unlink(missing_ok=True)
