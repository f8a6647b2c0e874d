"""How a phase gets from the disk of the machine where rank 0 runs to the driver's, where the two share none.

`<exchange>/kept/` holds the small files of a phase that is under way, no older than its newest checkpoint: all that an
attempt on another machine goes on with, since rows beyond the checkpoint are dropped anyway. `stacks/` takes what ranks
that hung left behind. `result/` is the output of a finished phase, committed. They stay until the next step drops them,
when the driver has committed what it collected; `checkpoints/` (job.checkpoints) has then only what is kept for good,
and stays.
"""

import hashlib
import shutil
from pathlib import Path

from tpo_core.storage import uri as uris
from tpo_core.storage.commit import SUCCESS, commit, fetch, is_committed
from tpo_core.storage.local import Entry, disk_full_told

SUMMARY = "phase.json"


def output_here(exchange: str) -> Path:
    """The output folder of a phase on this machine."""
    return uris.scratch_dir() / "phases" / hashlib.sha256(exchange.encode()).hexdigest()[:16]


def pull(exchange: str, output: Path) -> None:
    """Begin where an earlier attempt was at its newest checkpoint, on whichever machine that ran."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for name in uris.list_names(uris.join(exchange, "kept")):
        uris.copy_here(uris.join(exchange, "kept", name), output / name)


class Keeper:
    """Has the files directly below `output` outlive this machine. A history has a megabyte after thousands of rows; a
    trace, which may have hundreds, does not change once it is there, and is sent once."""

    def __init__(self, exchange: str, output: Path) -> None:
        self.exchange, self.output = exchange, output
        self._sent: dict[str, Entry] = {}

    def keep(self) -> None:
        """Called before a checkpoint says that it is one, so that one never knows more than they do."""
        for name, now in uris.entries(self.output).items():
            if self._sent.get(name) != now:
                uris.write_bytes(uris.join(self.exchange, "kept", name), (self.output / name).read_bytes())
                self._sent[name] = now


def deliver(exchange: str, output: Path) -> None:
    """Hand over the output of a finished phase; it is gone from here afterwards. A group that was started again because
    one of its machines went after the phase was delivered, comes here once more: the first one counts. What the phase
    handed over when it was to end earlier is replaced."""
    if is_delivered(exchange, uris.read_json(output / SUMMARY).get("until_step")):
        shutil.rmtree(output)
        return
    uris.delete(result(exchange))
    (output / "model" / SUCCESS).touch()  # the next phase fetches the model alone, as it does a base model
    commit(output, result(exchange))


def is_delivered(exchange: str, until_step: int | None) -> bool:
    """Whether a phase that came to this end (PhaseJob.until_step) waits to be collected."""
    place = result(exchange)
    return is_committed(place) and uris.read_json(uris.join(place, SUMMARY)).get("until_step") == until_step


def collect(exchange: str, output: Path) -> None:
    """Move what was delivered to the driver's output, the summary when the rest is there: it says so. `exchange` is
    remote, and keeps what it has."""
    stacks = uris.join(exchange, "stacks")
    for name in uris.list_names(stacks):
        (output / "stacks").mkdir(exist_ok=True)
        uris.copy_here(uris.join(stacks, name), output / "stacks" / name)
    copy = fetch(result(exchange))
    (copy / SUCCESS).unlink()  # from here on it is not whole; after a kill it is fetched again
    with disk_full_told(output):
        for path in sorted(copy.iterdir(), key=lambda each: each.name == SUMMARY):
            target = output / path.name
            if path.name == SUMMARY:  # a kill must not leave half of it, and the scratch may be another disk
                uris.write_bytes(target, path.read_bytes())
            else:
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
                shutil.move(path, target)
    shutil.rmtree(copy)


def put_stacks(exchange: str, path: Path) -> str:
    """Move the stacks of a rank that hung to where any machine can read them; returns where."""
    uri = uris.join(exchange, "stacks", path.name)
    uris.put_file(path, uri)
    return uri


def clear(exchange: str) -> None:
    """Delete all but checkpoints, for a phase that has been committed."""
    for name in ("kept", "stacks", "result"):
        uris.delete(uris.join(exchange, name))


def result(exchange: str) -> str:
    return uris.join(exchange, "result")
