"""A two-step chain that counts its calls."""

from pathlib import Path

import pytest

from tpo_core.execution.artifact import Artifact
from tpo_core.execution.runner import run_steps
from tpo_core.execution.steps import Step


class Chain:
    """`numbers` writes a file, `total` sums it."""

    def __init__(self, work: str) -> None:
        self.work = work
        self.calls: list[str] = []
        self.lines: list[str] = []
        self.upto = 3
        self.scale = 1.0
        self.version = 1
        self.breaks: BaseException | None = None
        self.resumed: list[bool] = []
        self.stood: list[str] = []

    def steps(self) -> list[Step]:
        return [
            Step("numbers", self.numbers, {"data": {"upto": self.upto}}, version=self.version),
            Step("total", self.total, {"scale": self.scale}, inputs=("numbers",)),
        ]

    def numbers(self, ctx) -> dict:
        self.calls.append("numbers")
        (ctx.output / "numbers.txt").write_text("\n".join(map(str, range(self.upto))))
        return {"rows": self.upto}

    def total(self, ctx) -> dict:
        self.calls.append("total")
        self.resumed.append(ctx.resumed)
        self.stood.append(ctx.position())
        half = ctx.output / "half.txt"
        done = half.read_text() if half.exists() else "fresh"
        half.write_text("half")
        if self.breaks:
            raise self.breaks
        values = (ctx.inputs["numbers"].path / "numbers.txt").read_text().split()
        return {"sum": self.scale * sum(map(int, values)), "found": done}

    def run(self, **options) -> dict[str, Artifact]:
        self.calls, self.lines, self.stood = [], [], []
        return run_steps(self.steps(), self.work, echo=self.lines.append, **options)

    def verbs(self) -> list[str]:
        return [line.split()[0] for line in self.lines]

    def partials(self) -> list[Path]:
        return sorted(Path(self.work).glob("*/*.partial"))


@pytest.fixture
def chain(tmp_path) -> Chain:
    return Chain(str(tmp_path / "runs"))
