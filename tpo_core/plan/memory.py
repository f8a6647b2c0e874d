"""What a GPU holds in training, by strategy, in bytes. Follows tpo_core/train/strategies as they are."""

from dataclasses import dataclass

from tpo_core.plan.skeleton import FP32, Activations, Skeleton
from tpo_core.train.strategies.replicated import BUCKET_ELEMENTS

MOMENTS = 2  # of AdamW, fp32
STRATEGIES = ("ddp", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU. optimizer: moments, and the flat fp32 copy that ZeRO moves. activations: with the bf16 copies
    of frozen weights. buckets: what gradients pass through on their way to other ranks."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    buckets: float

    @property
    def total(self) -> float:
        """All of it; the reserve for CUDA comes on top."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.buckets


def memory_of(strategy: str, model: Skeleton, kept: Activations, *, rows: int, world: int) -> Memory:
    """rows: samples that a rank passes through the model at once. Parameters are fp32 under every strategy; autocast
    makes the bf16 copies of them anew in each pass, so that cutting parameters into pieces does not shrink those."""
    whole, trained = FP32 * model.size, FP32 * model.trained_size
    cut_parameters, cut_moments = strategy in ("zero3", "fsdp2"), strategy != "ddp"
    share = world if cut_moments else 1
    flat_copy = trained / share if strategy in ("zero2", "zero3") else 0.0
    bucket = FP32 * min(model.trained_size, BUCKET_ELEMENTS) if world > 1 else 0
    return Memory(
        parameters=whole / world + FP32 * model.gathered_size if cut_parameters and world > 1 else whole,
        gradients=trained / share,
        optimizer=MOMENTS * trained / share + flat_copy,
        activations=rows * kept.row_bytes + kept.copy_bytes,
        buckets=2.0 * bucket,
    )
