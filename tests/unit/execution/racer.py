"""python -m tests.unit.execution.racer WORK MARKS [STOP_IN]: one launch of a chain of three steps, for races.

Each step says in the folder MARKS that it was begun; in the step STOP_IN it then waits to be killed. The chain starts
when MARKS/go is there.
"""

import os
import sys
import time
import uuid
from functools import partial
from pathlib import Path

from tpo_core.execution.cli import main_guard
from tpo_core.execution.runner import run_steps
from tpo_core.execution.steps import Step, StepContext

NAMES = ("a", "b", "c")
LONG_S = 60.0


def body(name: str, marks: Path, stop_in: str | None, ctx: StepContext) -> dict:
    (marks / f"{name}-{os.getpid()}-{uuid.uuid4().hex}").touch()
    with (ctx.output / "lines.txt").open("a") as file:
        for number in range(200):
            file.write(f"{name} {number}\n")
            file.flush()
            if name == stop_in:
                time.sleep(LONG_S)
    return {"resumed": ctx.resumed}


def main(work: str, marks: Path, stop_in: str | None) -> None:
    steps = [
        Step(name, partial(body, name, marks, stop_in), {"name": name}, tuple(NAMES[:place][-1:]))
        for place, name in enumerate(NAMES)
    ]
    (marks / f"ready-{os.getpid()}").touch()
    deadline_s = time.monotonic() + LONG_S
    while not (marks / "go").exists():
        assert time.monotonic() < deadline_s, "nobody said go"
        time.sleep(0.001)
    run_steps(steps, work, echo=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
