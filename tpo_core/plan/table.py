"""A plan as text: markdown tables, so that documents hold what the command prints."""

from collections.abc import Iterable, Sequence

from tpo_core.plan.assumptions import Assumptions
from tpo_core.plan.facts import PAPER_GPUS, PAPER_HOURS, Gpu
from tpo_core.plan.memory import STRATEGIES
from tpo_core.plan.phases import PhaseCost
from tpo_core.plan.pool import Decoding
from tpo_core.plan.warn import GIB

PAPER_HEAD = (f"paper, {PAPER_GPUS} GPUs", "GPU hours of that", "USD of that", "MFU of that")
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" + "--:|" * (len(head) - 1)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def short(value: float) -> str:
    """Three digits and a unit."""
    for size, unit in UNITS:
        if value >= size:
            return f"{value / size:#.3g}".rstrip(".") + f" {unit}"
    return f"{value:.3g}"


def gib(size_bytes: float) -> str:
    """Bytes as GiB."""
    return f"{size_bytes / GIB:,.1f}" if size_bytes < 100 * GIB else f"{size_bytes / GIB:,.0f}"


def phase_table(phases: list[PhaseCost]) -> list[str]:
    """Work."""
    return markdown(
        ("phase", "steps", "samples", "tokens", "visual", "FLOP", "hours", "trains", "of parameters"),
        [
            (
                each.name,
                f"{each.steps:,}",
                f"{each.samples:,}",
                short(each.tokens),
                f"{each.visual_tokens / each.tokens:.0%}",
                short(each.flops),
                f"{each.hours:.2f}",
                short(each.trained),
                short(each.parameters),
            )
            for each in phases
        ],
    )


def memory_table(phases: list[PhaseCost]) -> list[str]:
    """GiB of a GPU by strategy, and what those of ddp consist of."""
    return markdown(
        ("GiB a GPU", "samples", *STRATEGIES, "ddp: parameters", "gradients, moments", "activations"),
        [
            (
                each.name,
                str(each.rows),
                *(gib(each.memory[name].total) for name in STRATEGIES),
                gib(each.memory["ddp"].parameters),
                gib(each.memory["ddp"].gradients + each.memory["ddp"].optimizer),
                gib(each.memory["ddp"].activations),
            )
            for each in phases
        ],
    )


def stage_table(
    phases: list[PhaseCost], decoding: Decoding, gpu: Gpu, gpus: int, assumed: Assumptions, *, paper: bool
) -> list[str]:
    """The sizing table: hours, GPU hours, storage and money by stage. paper: whether the hours of VideoChat-TPO on
    PAPER_GPUS stand beside ours, with what they cost and the MFU at which this work takes them, both on GPUs of the
    kind that is planned for."""
    gpu_usd = gpu.hour_usd if assumed.gpu_hour_usd is None else assumed.gpu_hour_usd
    core_usd = decoding.core_hours * assumed.cpu_hour_usd
    rows = []
    if decoding.media:
        core_hours, shards = f"{decoding.core_hours:,.0f} core hours", storage(decoding.stored_bytes, assumed)
        raw = "unknown" if assumed.raw_gib is None else gib(assumed.raw_gib * GIB)
        rows.append(["preprocess", core_hours, "-", f"{core_usd:,.0f}", raw, *shards, *["-"] * len(PAPER_HEAD) * paper])
    for stage in dict.fromkeys(each.stage for each in phases):
        own = [each for each in phases if each.stage == stage]
        hours = sum(each.hours for each in own)
        stored = sum(each.model_bytes for each in own) + max(each.checkpoint_bytes for each in own)
        paid = hours * gpus * gpu_usd
        cells = [stage, f"{hours:.2f} h", f"{hours * gpus:,.0f}", f"{paid:,.0f}", "-", *storage(stored, assumed)]
        if paper:
            taken = PAPER_HOURS[stage] * PAPER_GPUS
            mfu = f"{assumed.mfu * hours * gpus / taken:.1%}"
            cells += [f"{PAPER_HOURS[stage]:g} h", f"{taken:,.0f}", f"{taken * gpu_usd:,.0f}", mfu]
        rows.append(cells)
    head = ["stage", f"time on {gpus} GPUs", "GPU hours", "USD", "raw media, GiB", "storage, GiB", "USD a month"]
    return markdown([*head, *(PAPER_HEAD if paper else ())], rows)


def storage(size_bytes: float, assumed: Assumptions) -> tuple[str, str]:
    """GiB, and what they cost a month."""
    return gib(size_bytes), f"{size_bytes / GIB * assumed.s3_gib_month_usd:,.0f}"


def assumption_lines(assumed: Assumptions, gpu_name: str, gpu: Gpu) -> list[str]:
    """What was taken for granted."""
    usd = gpu.hour_usd if assumed.gpu_hour_usd is None else assumed.gpu_hour_usd
    values = ", ".join(f"{name}={value:g}" for name, value in assumed.model_dump().items() if value is not None)
    return [
        f"{gpu_name}: {gpu.peak_tflops:g} TFLOP/s in bf16, {gpu.memory_gib:g} GiB, {usd:g} USD an hour.",
        f"Assumed: {values}.",
    ]
