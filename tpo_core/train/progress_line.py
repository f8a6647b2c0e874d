"""The line a person reads while a phase trains, and the thread that brings it from the workers to the driver."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tpo_core.train.rows import Row

LONGEST_LINE_BYTES = 65_536
POLL_S = 0.5


def format_row(name: str, row: Row) -> str:
    """`vision_task  [###.......] 120/400  30%  loss 1.2 (lm 0.4 region 0.8)  lr 1.0e-03  gn 0.9  23 samples/s  ...`.

    lr is the highest of all groups, gn the gradient norm before clipping, wait the share of time spent on data, mem the
    highest memory of a rank (of its device, or of the process on a CPU).
    """
    done, steps = row["step"], row["steps"]
    parts = " ".join(f"{key.removeprefix('loss/')} {row[key]:.3g}" for key in row if key.startswith("loss/"))
    finite = "total" in row
    loss = f"loss {row['total']:.4g} ({parts})" if finite else "loss not finite"
    norm = f"  gn {row['grad_norm']:.2g}" if finite else ""
    rate = max(value for key, value in row.items() if key.startswith("lr/"))
    mfu = f"  mfu {row['mfu']:.0%}" if "mfu" in row else ""
    skipped = f"  skipped {row['skipped']}" if row["skipped"] else ""
    return (
        f"{name}  {bar(done / steps)} {done}/{steps}  {done / steps:.0%}  {loss}  lr {rate:.1e}{norm}"
        f"  {row['samples_per_s']:.3g} samples/s  {count(row['tokens_per_s'])} tokens/s{mfu}"
        f"  wait {row['data_wait']:.0%}  mem {row['memory_bytes'] / 2**30:.3g} GiB  eta {clock(row['eta_s'])}{skipped}"
    )


def bar(fraction: float) -> str:
    """`[###.......]`: ten cells; plain text, since a job log cannot redraw a line."""
    full = int(10 * fraction)
    return f"[{'#' * full}{'.' * (10 - full)}]"


def count(number: float) -> str:
    """812, 4.1k, 23k, 1.2M: two digits are enough to see a change."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2g}{unit}" if number < 100 * size else f"{number / size:.0f}{unit}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """1:20, 12:05, 3:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Follower:
    """Echo what is appended to files while a block runs: `with Follower({path: as_text}, echo): ...`.

    The files need not exist yet, may shrink (a resumed run drops rows; reading goes on from the new end), and are read
    to their end before the block is left.
    """

    def __init__(self, files: dict[Path, Callable[[str], str]], echo: Callable[[str], None]) -> None:
        self.files, self.echo = files, echo
        self.offsets = {path: path.stat().st_size if path.exists() else 0 for path in files}
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "Follower":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.poll()

    def run(self) -> None:
        while not self.done.wait(POLL_S):
            self.poll()

    def poll(self) -> None:
        """Echo every complete new line."""
        for path, as_text in self.files.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                self.offsets[path] = _line_start(file, self.offsets[path])
                file.seek(self.offsets[path])
                new = file.read()
            complete = new[: new.rfind(b"\n") + 1]
            self.offsets[path] += len(complete)
            for line in complete.decode().splitlines():
                self.echo(as_text(line))


def _line_start(file: BinaryIO, offset: int) -> int:
    """`offset`, or the start of the line it lies in: a file that shrank may have grown again before it is looked at."""
    begin = max(0, offset - LONGEST_LINE_BYTES)
    file.seek(begin)
    known = file.read(offset - begin)
    return begin + known.rfind(b"\n") + 1


def row_line(name: str) -> Callable[[str], str]:
    """Turns a line of a history into the line a person reads."""
    return lambda line: format_row(name, json.loads(line))
