"""What each phase of a recipe costs: steps, tokens, FLOPs, hours, memory by strategy, checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass

from tpo_core.config.schema import Recipe
from tpo_core.plan.assumptions import Assumptions
from tpo_core.plan.facts import Gpu
from tpo_core.plan.memory import MOMENTS, STRATEGIES, Memory, memory_of
from tpo_core.plan.pool import Pool
from tpo_core.plan.skeleton import FP32, Activations, Skeleton, activations, backbone_of
from tpo_core.train.checkpoints.retention import NEWEST
from tpo_core.train.stages import PhaseRef, phases_of, plan_phase

TERA = 1e12


@dataclass(frozen=True)
class PhaseCost:
    """One phase. Tokens are those that the language model reads, padding left out; flops: forward and backward of the
    whole phase; memory: of one GPU by strategy; checkpoint_bytes: all that are kept at a time, and one being written;
    model_bytes: the weights that it hands on."""

    name: str
    stage: str
    steps: int
    samples: int
    visual_tokens: float
    text_tokens: float
    flops: float
    hours: float
    parameters: int
    trained: int
    rows: int
    memory: dict[str, Memory]
    checkpoint_bytes: float
    model_bytes: float

    @property
    def tokens(self) -> float:
        """All tokens."""
        return self.visual_tokens + self.text_tokens


class Planner:
    """Costs of a recipe on `gpus` GPUs of one kind; models and their activations are looked at once each."""

    def __init__(self, recipe: Recipe, pool: Pool, gpu: Gpu, gpus: int, assumed: Assumptions) -> None:
        self.recipe, self.pool, self.gpu, self.gpus, self.assumed = recipe, pool, gpu, gpus, assumed
        self.backbone = backbone_of(recipe.model)
        self._kept: dict[tuple[frozenset[str | None], int, int], Activations] = {}

    def phases(self) -> list[PhaseCost]:
        """In the order in which they run. TpoError for a data set without a known number of samples."""
        return [self.phase(ref) for ref in phases_of(self.recipe)]

    def phase(self, ref: PhaseRef) -> PhaseCost:
        """One phase."""
        counts = self.pool.counts(ref.phase, ref.name)
        plan = plan_phase(ref.stage, ref.phase, counts=counts, world=self.gpus)
        model = Skeleton.on(self.backbone, self.recipe.model, ref.stage.heads, ref.stage.lr)
        shares = kinds_of_samples(ref, plan.samples)
        visual = text = flops = 0.0
        for kind, samples in shares.items():
            for n_frames, part in self._frames(ref, kind).items():
                load = model.load(n_frames, *self._text(kind))
                visual += samples * part * model.backbone.visual_tokens(n_frames)
                flops += samples * part * model.step_flops(load)
            text += samples * self._text(kind)[0]
        rows = max(1, max(ref.phase.sizes.values()) // self.gpus)
        kept = self._activations(ref, model)
        return PhaseCost(
            name=ref.name,
            stage=ref.stage_name,
            steps=plan.steps,
            samples=plan.samples,
            visual_tokens=visual,
            text_tokens=text,
            flops=flops,
            hours=flops / (self.gpus * self.gpu.peak_tflops * TERA * self.assumed.mfu) / 3600,
            parameters=model.size,
            trained=model.trained_size,
            rows=rows,
            memory={name: memory_of(name, model, kept, rows=rows, world=self.gpus) for name in STRATEGIES},
            checkpoint_bytes=self._checkpoints(plan.steps) * (1 + MOMENTS) * FP32 * model.trained_size,
            model_bytes=FP32 * model.size,
        )

    def _frames(self, ref: PhaseRef, kind: str) -> dict[int, float]:
        return self.pool.frames_of(ref.phase, kind, self.recipe.data.frames.n_frames)

    def _text(self, kind: str) -> tuple[int, int]:
        a = self.assumed
        if kind == "chat":
            return a.chat_text_tokens, a.chat_answer_tokens
        return a.task_text_tokens, a.task_answer_tokens

    def _activations(self, ref: PhaseRef, model: Skeleton) -> Activations:
        """Those of the longest clip of the phase with the longest text."""
        text, answer = max(self._text(kind) for kind in ref.phase.mixture)
        frames = max(max(self._frames(ref, kind)) for kind in ref.phase.mixture)
        base = model.backbone.vlm.named_parameters()
        key = (frozenset(model.backbone.group_of(name) for name, param in base if param.requires_grad), frames, text)
        if key not in self._kept:
            self._kept[key] = activations(model, n_frames=frames, text_tokens=text, answer_tokens=answer)
        return self._kept[key]

    def _checkpoints(self, steps: int) -> int:
        """How many lie there at most at a time: those for good, the newest, and one that is being written."""
        train = self.recipe.train
        every = train.permanent_checkpoint_every_steps
        return (steps // every if every else 0) + train.keep_best + NEWEST + 1


def kinds_of_samples(ref: PhaseRef, samples: int) -> Mapping[str, float]:
    """Samples of each kind in a phase: the mixture counts micro-batches, whose sizes may differ."""
    weights = {kind: weight * ref.phase.sizes[kind] for kind, weight in ref.phase.mixture.items()}
    total = sum(weights.values())
    return {kind: samples * weight / total for kind, weight in weights.items()}
