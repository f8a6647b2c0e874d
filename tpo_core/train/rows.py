"""Where a phase stands, and the rows that tell it: losses, rates, throughput, memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class Window:
    """Running sums between two logged rows, so that a row describes all its steps and not only the last one.

    samples, tokens, flops: of all ranks; kinds: samples by kind.
    """

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    wait_s: float = 0.0

    def add(self, values: list[tuple[str, float]]) -> None:
        for name, value in values:
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}


@dataclass
class Progress:
    """Where a phase stands: the part of the training state that is neither parameter nor optimizer moment.

    step: updates done, and the index of the next one: all that the order of samples and the randomness depend on.
    skipped, skipped_in_row: updates left out because something was not finite. seconds: spent in steps, all attempts.
    balance: what balances the losses (balance.py).
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    seconds: float = 0.0
    window: Window = field(default_factory=Window)
    balance: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def updates(self) -> int:
        """Steps in which the optimizer moved."""
        return self.step - self.skipped

    def finish_step(
        self, *, kinds: Mapping[str, int], tokens: int, flops: float, seconds: float, wait_s: float
    ) -> None:
        """Count a step. kinds: its samples by kind, of all ranks, as tokens and flops are."""
        self.step += 1
        self.samples += sum(kinds.values())
        self.tokens += tokens
        self.seconds += seconds
        for kind, samples in kinds.items():
            self.window.kinds[kind] = self.window.kinds.get(kind, 0) + samples
        self.window.steps += 1
        self.window.samples += sum(kinds.values())
        self.window.tokens += tokens
        self.window.flops += flops
        self.window.seconds += seconds
        self.window.wait_s += wait_s

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Progress":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**state, "window": Window(**state["window"])})


def make_row(
    progress: Progress, rates: Mapping[str, float], *, steps: int, memory_bytes: int, peak_flops: float | None
) -> Row:
    """One flat row about the steps since the last row.

    Keys: step (updates done), steps (of the phase), total, loss/<name>, kind/<kind> (total on samples of that kind),
    report/<name> (of rank 0), weight/<loss> (where a balance finds it), grad_norm (before clipping), lr/<group>,
    samples/<kind> (since the last row, all ranks), samples_per_s, tokens_per_s (read by the language model, all ranks),
    tflops_per_s (of the model, all ranks; absent where they are not counted), mfu (their fraction of peak_flops, 0 to
    1; absent where that is not known), data_wait (fraction of the time, 0 to 1), data_wait_s, memory_bytes
    (meter.memory_bytes; these are the highest of all ranks), eta_s, seconds (all attempts), samples, tokens, skipped.
    Losses are means over the steps whose update was made; of a kind that did not come up there is none. peak_flops: per
    second, of all devices together.
    """
    window = progress.window
    flops_per_s = window.flops / window.seconds
    return {
        "step": progress.step,
        "steps": steps,
        **window.means(),
        **{f"lr/{group}": rate for group, rate in rates.items()},
        **{f"samples/{kind}": samples for kind, samples in window.kinds.items()},
        "samples_per_s": window.samples / window.seconds,
        "tokens_per_s": window.tokens / window.seconds,
        **({"tflops_per_s": flops_per_s / 1e12} if flops_per_s else {}),
        **({"mfu": flops_per_s / peak_flops} if flops_per_s and peak_flops else {}),
        "data_wait": window.wait_s / window.seconds,
        "data_wait_s": window.wait_s,
        "memory_bytes": memory_bytes,
        "eta_s": (steps - progress.step) * window.seconds / window.steps,
        "seconds": progress.seconds,
        "samples": progress.samples,
        "tokens": progress.tokens,
        "skipped": progress.skipped,
    }


def numbers(row: Row) -> dict[str, float]:
    """What of a row is recorded at its step."""
    return {name: float(value) for name, value in row.items() if name not in ("step", "steps")}
