"""The recipe: every field a run is made of, its unit, its allowed range and its default.

No default lives anywhere else. Fields built with `execution` say where and how a run is carried out, not what it
computes: `identity` drops them, so that they never enter a fingerprint.
"""

import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tpo_core.config.base import Config, Fraction, drop_nulls, execution, late
from tpo_core.config.base import identity as identity
from tpo_core.config.model import LoraConfig as LoraConfig
from tpo_core.config.model import ModelConfig
from tpo_core.config.names import require_known
from tpo_core.config.nodes import NodesConfig
from tpo_core.config.stage import GROUPS as GROUPS
from tpo_core.config.stage import STAGES, StageConfig, fill_stage_defaults
from tpo_core.config.stage import PhaseConfig as PhaseConfig
from tpo_core.config.sweep import SweepConfig

PARTS = ("train", "val", "test", "unseen")
MEASURED_TASKS = ("region", "moment", "mask", "track", "qa", "choice", "caption")


class GeneratorConfig(Config):
    """Data sets that the platform writes for itself."""

    name: Literal["quickstart"] = Field(default="quickstart", description="which generator")
    seed: int = Field(default=0, ge=0, description="seed of the generated content")
    train_clips: int = Field(default=64, ge=1, description="number of clips of part train")
    val_clips: int = Field(default=16, ge=0, description="number of clips of part val")
    test_clips: int = Field(default=16, ge=0, description="number of clips of part test")
    unseen_clips: int = Field(
        default=16, ge=0, description="number of clips of part unseen (conditions absent from train)"
    )


class FeaturesConfig(Config):
    """Vectors of short clips that are stored beside the frames of a video."""

    encoder: str = Field(
        pattern=r"^[\w.]+:\w+$", description="module:factory of the encoder, see tpo_core/data/features.py"
    )
    options: dict[str, str] = Field(default_factory=dict, description="arguments of the factory")
    clip_len_s: float = Field(default=1.0, gt=0, description="seconds that one vector stands for")
    frames_per_clip: int = Field(default=2, ge=1, description="frames that the encoder sees of a clip")


class FramesConfig(Config):
    """Which frames of a video are kept, and how they are stored."""

    n_frames: int = Field(default=16, ge=1, description="frames kept of a video, at the midpoints of equal intervals")
    fps: float | None = Field(
        default=None, gt=0, description="keep so many frames per second, n_frames at most; null keeps n_frames"
    )
    features: FeaturesConfig | None = Field(default=None, description="clip features to store; null stores none")
    choice: Literal["midpoints", "mvbench", "all"] = late(
        default="midpoints",
        description="midpoints: as n_frames says; mvbench: by frame number, as the notebook of MVBench takes them; all:"
        " every frame",
    )
    short_side_px: int = Field(
        default=224, ge=16, description="short side of a stored frame, pixels; aspect ratio is kept"
    )
    jpeg_quality: int = Field(default=92, ge=1, le=100, description="JPEG quality of a stored frame, 1 to 100")
    decode_deadline_s: float = Field(
        default=60.0, gt=0, description="seconds after which decoding of one video is given up"
    )


class SourceConfig(Config):
    """One split of one native data set, and the part of the run it feeds."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    name: str = Field(min_length=1, description="name of this source in overrides, reports and rejects")
    reader: str = Field(min_length=1, description="reader of the native format (tpo_core/data/readers)")
    root: str = Field(description="where it lies: relative to data.root, an absolute path, or a URI")
    split: str = Field(description="split as the data set names it, for example 'train' or 'testA'")
    part: Literal["train", "val", "test", "unseen"] = Field(description="part of the run that it feeds")
    limit: int | None = Field(default=None, ge=1, description="keep the first so many samples; null keeps all")
    step: int = late(default=1, ge=1, description="keep each step-th sample, from the first on; 1 keeps all")
    options: Annotated[dict[str, str], BeforeValidator(drop_nulls)] = Field(
        default_factory=dict, description="options of the reader"
    )
    licence: str | None = execution(None, description="its licence, as the model card shall name it")


class DataConfig(Config):
    """What preprocessing reads and writes."""

    generator: GeneratorConfig | None = Field(
        default=None, description="write these data sets first; null uses existing ones"
    )
    root: str | None = Field(default=None, description="root URI of native data sets; null is what the generator wrote")
    frames: FramesConfig = Field(default_factory=FramesConfig, description="frame sampling and storage")
    sources: list[SourceConfig] = Field(default_factory=list, description="data sets to read")
    shard_size_mib: int = Field(default=256, ge=1, le=4096, description="aimed size of a shard file, MiB")
    reject_budget: Fraction = execution(0.01, description="fraction of samples that may be rejected, 0 to 1")

    @model_validator(mode="after")
    def _sources_resolve(self) -> "DataConfig":
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"sources: the name {name!r} is used twice; names must differ")
        relative = [s.name for s in self.sources if "://" not in s.root and not s.root.startswith("/")]
        if relative and self.root is None and self.generator is None:
            raise ValueError(f"source {relative[0]!r} has a relative root, so set data.root (or data.generator)")
        return self


def _workers(value: Any) -> int | tuple[int, int]:
    """A union of types would tell a mistake twice, once for each."""
    ends = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(isinstance(end, int) and not isinstance(end, bool) for end in ends):
        raise PydanticCustomError("workers", "must be a whole number, or [min, max]")
    least, most = ends
    if least < 1:
        raise PydanticCustomError("workers", "must be >= 1")
    if least > most:
        raise PydanticCustomError("workers", "must be [min, max] with min <= max")
    return (least, most) if isinstance(value, list | tuple) else least


Workers = Annotated[int | tuple[int, int], BeforeValidator(_workers)]


class TrainConfig(Config):
    """Where and how training runs; nothing here changes what is computed."""

    workers: Workers = execution(
        1,
        description="number of training workers, which must divide every micro_batch_size; or [min, max], to start with"
        " what the cluster has and to follow it",
    )
    cpus_per_worker: float = execution(0.5, ge=0, description="CPUs that Ray reserves for a worker")
    gpus_per_worker: float = execution(0.0, ge=0, description="GPUs that Ray reserves for a worker")
    torch_threads: int | None = execution(None, ge=1, description="torch threads per worker; null is cores / workers")
    loader_workers: int = execution(2, ge=0, description="threads per worker that prepare batches ahead; 0: none ahead")
    strategy: Literal["ddp", "zero2", "zero3", "fsdp2"] = execution(
        "ddp",
        description="what is cut up: nothing (ddp), gradients and moments (zero2), parameters too (zero3, fsdp2)",
    )
    log_every_steps: int = execution(10, ge=1, description="optimizer steps between two logged rows")
    peak_tflops: float | None = execution(
        None,
        gt=0,
        description="what a device does at best, TFLOP/s, for MFU; null goes by its name, if known",
    )
    profile_steps: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = execution(
        None, description="first and last optimizer step of each phase that torch.profiler traces on rank 0; null: none"
    )
    checkpoint_uri: str | None = execution(
        None, description="where checkpoints go, path or URI, below it a folder a phase; null is in the phase's output"
    )
    checkpoint_every_steps: int = execution(
        100, ge=1, description="optimizer steps between two checkpoints, of which the newest two are kept"
    )
    permanent_checkpoint_every_steps: int | None = execution(
        None, ge=1, description="optimizer steps between two checkpoints that are kept for good; null keeps none"
    )
    keep_best: int = execution(0, ge=0, description="checkpoints with the lowest best_metric that are kept for good")
    best_metric: str = execution(
        "total", description="loss, as rows name it (total, loss/<name>, kind/<kind>), that tells the best checkpoints"
    )
    max_failed_checkpoints: int = execution(
        2, ge=0, description="checkpoints in a row that may fail to be written before training fails"
    )
    max_skipped_steps: int = execution(5, ge=0, description="steps in a row without a finite loss before a phase fails")
    max_failures: int = execution(2, ge=0, description="worker failures survived before the run fails")
    resize_interval_s: float = execution(
        60.0, gt=0, description="seconds between two looks at whether there is room for more of workers [min, max]"
    )
    hang_timeout_s: float | None = execution(
        1800.0, gt=0, description="seconds without the end of a step after which a worker is taken to hang; null: never"
    )
    stop_deadline_s: float = execution(
        25.0, gt=0, description="seconds from SIGTERM until a process ends, whether or not all could be saved"
    )

    @property
    def least_workers(self) -> int:
        """What training needs to start, and to go on."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """What training takes where there is room."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @model_validator(mode="after")
    def _devices_can_be_had(self) -> "TrainConfig":
        gpus = self.gpus_per_worker
        if 0 < gpus < 1 and self.most_workers > 1:
            raise ValueError(
                f"gpus_per_worker {gpus:g} would let workers share a GPU, which NCCL refuses: set 1, or workers 1"
            )
        if gpus > 1:
            raise ValueError(f"gpus_per_worker {gpus:g} leaves GPUs idle: a worker uses one, so set 1 and more workers")
        return self

    @field_validator("profile_steps")
    @classmethod
    def _profile_in_order(cls, steps: tuple[int, int] | None) -> tuple[int, int] | None:
        if steps is not None and steps[0] > steps[1]:
            raise ValueError("must be [first, last] with first <= last")
        return steps

    @field_validator("checkpoint_uri")
    @classmethod
    def _checkpoint_uri_absolute(cls, uri: str | None) -> str | None:
        """Workers may run elsewhere."""
        return uri if uri is None or "://" in uri else os.path.abspath(uri)


class EvaluationConfig(Config):
    """What is measured after training."""

    parts: list[str] = Field(
        default=["val", "test", "unseen"], min_length=1, description=f"parts, of {', '.join(PARTS)}"
    )
    limit_per_task: int | None = Field(default=None, ge=1, description="samples per task and part; null takes all")
    limit_by_task: Annotated[dict[str, Annotated[int, Field(ge=1)]], BeforeValidator(drop_nulls)] = Field(
        default_factory=dict, description=f"tasks with another limit, of {', '.join(MEASURED_TASKS)}, and that limit"
    )
    batch_size: int = execution(8, ge=1, description="samples decoded together")
    workers: int = execution(
        1,
        ge=1,
        description="models that answer a suite of benchmarks side by side, each with train.gpus_per_worker GPUs",
    )
    max_new_tokens: int = Field(default=64, ge=1, description="longest answer, tokens")
    timed_requests: int = execution(
        16, ge=0, description="requests per part that are asked once more, alone, for the latency; 0 leaves it out"
    )
    gallery_size: int = Field(default=12, ge=0, description="predictions drawn on frames, per part")

    @field_validator("parts")
    @classmethod
    def _parts_known(cls, parts: list[str]) -> list[str]:
        return require_known("part", parts, PARTS)

    @field_validator("limit_by_task")
    @classmethod
    def _tasks_known(cls, limits: dict[str, int]) -> dict[str, int]:
        require_known("task", list(limits), MEASURED_TASKS)
        return limits


class TrackingConfig(Config):
    """Where runs and models are recorded."""

    uri: str | None = execution(None, description="MLflow tracking URI; null is a sqlite file under work_uri")
    experiment: str = execution("tpo", min_length=1, description="MLflow experiment")
    model_name: str = execution("tpo", min_length=1, description="name in the model registry")


class GateConfig(Config):
    """A metric that a challenger must hold to be promoted. With max_value lower is better, otherwise higher."""

    metric: str = Field(pattern=r"^[^/\s]+(/[^/\s]+)+$", description="as in 'test/region/acc@0.5'")
    against: Literal["champion", "base"] = Field(default="champion", description="model that it is compared with")
    max_drop: float = Field(default=0.0, description="allowed drop, in the metric's unit; negative demands a gain")
    min_value: float | None = Field(default=None, description="absolute floor, in the metric's unit; null is none")
    max_value: float | None = late(
        default=None, description="absolute ceiling of a metric of which less is better (latency, false activation)"
    )
    worst_drop: float | None = late(
        default=None,
        description="drop that the samples must exclude with 97.5 % confidence, in the metric's unit, max_drop or more,"
        " which takes 3.7 / worst_drop samples or more where there is no gain; null compares the numbers as they are",
    )
    min_samples: int = late(default=30, ge=2, description="samples below which worst_drop cannot be judged")

    @model_validator(mode="after")
    def _one_direction(self) -> "GateConfig":
        if self.max_value is not None and (self.min_value, self.worst_drop, self.max_drop) != (None, None, 0.0):
            raise ValueError("max_value is a ceiling and stands alone: give min_value, max_drop or worst_drop no value")
        if self.worst_drop is not None and self.worst_drop < self.max_drop:
            raise ValueError(
                f"worst_drop {self.worst_drop:g} is below max_drop {self.max_drop:g}: set it to that or more"
            )
        return self


class PromotionConfig(Config):
    """What promotion asks for."""

    gates: list[GateConfig] = Field(default_factory=list, description="all must hold")
    required_parts: list[str] = late(
        default_factory=list, description="parts that must have been evaluated, on the data that the champion was"
    )

    @field_validator("required_parts")
    @classmethod
    def _parts_known(cls, parts: list[str]) -> list[str]:
        return require_known("part", parts, PARTS)


class Recipe(Config):
    """A whole run, validated before anything is spent."""

    name: str = execution(pattern=r"^[A-Za-z0-9_.-]+$", description="name of the recipe")
    seed: int = Field(default=0, ge=0, description="seed of sample order, initialisation and dropout")
    work_uri: str = execution(min_length=1, description="where results go; default runs/<name>")
    data: DataConfig = Field(description="data")
    model: ModelConfig = Field(description="model")
    stages: dict[str, StageConfig] = Field(min_length=1, description=f"stages, run in this order: {', '.join(STAGES)}")
    train: TrainConfig = execution(default_factory=TrainConfig, description="where and how training runs")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="evaluation")
    tracking: TrackingConfig = execution(default_factory=TrackingConfig, description="tracking")
    promotion: PromotionConfig = Field(default_factory=PromotionConfig, description="promotion")
    nodes: NodesConfig = execution(default_factory=NodesConfig, description="groups of nodes that work asks for")
    sweep: SweepConfig | None = execution(None, description="search for the loss weights of a stage; null is none")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        return fill_stage_defaults({"work_uri": f"runs/{raw['name']}", **raw} if "name" in raw else raw)

    @field_validator("stages", mode="before")
    @classmethod
    def _stages_known(cls, stages: Any) -> Any:
        """Before the stages are read, so that a mistyped name is not taken for a stage without phases."""
        if isinstance(stages, dict):
            require_known("stage", list(stages), STAGES)
        return stages

    @field_validator("stages")
    @classmethod
    def _stages_in_order(cls, stages: dict[str, StageConfig]) -> dict[str, StageConfig]:
        return {name: stages[name] for name in STAGES if name in stages}

    @model_validator(mode="after")
    def _sections_agree(self) -> "Recipe":
        if not self.data.sources:
            raise ValueError("data.sources is empty: name at least one data set")
        for name, stage in self.stages.items():
            for head in stage.heads:
                if head not in self.model.heads:
                    raise ValueError(f"stages.{name}.heads holds {head!r} but model.heads does not")
            for phase in stage.phases:
                for kind, size in phase.sizes.items():
                    self._require_fit(f"stages.{name}.phases.{phase.name}.micro_batch_size {size} (of {kind})", size)
        self._require_traced_steps()
        self._require_known_tasks()
        self._require_gradients_in_one_piece()
        losses = [f"loss/{name}" for stage in self.stages.values() for name in stage.loss_weights]
        kinds = [f"kind/{kind}" for stage in self.stages.values() for phase in stage.phases for kind in phase.mixture]
        require_known("train.best_metric", [self.train.best_metric], dict.fromkeys(["total", *losses, *kinds]))
        return self

    def _require_traced_steps(self) -> None:
        """Epochs become steps when the samples have been counted."""
        traced, steps = self.train.profile_steps, [p.steps for stage in self.stages.values() for p in stage.phases]
        longest = max((each for each in steps if each is not None), default=0)
        if traced is not None and None not in steps and traced[0] > longest:
            raise ValueError(f"train.profile_steps begins at {traced[0]} but the longest phase has {longest} steps")

    def _require_gradients_in_one_piece(self) -> None:
        """The norms of gradnorm are those of single losses, taken while the graph of the forward is there."""
        if "gradnorm" not in {stage.balance for stage in self.stages.values()}:
            return
        if self.train.strategy != "ddp":
            raise ValueError(f"balance gradnorm needs train.strategy ddp, not {self.train.strategy}: change either")
        if self.model.activation_checkpointing:
            raise ValueError("balance gradnorm needs what model.activation_checkpointing drops: set one of them off")
        for name, stage in self.stages.items():
            if stage.balance == "gradnorm" and "lora" not in stage.lr:
                raise ValueError(f"stages.{name}.balance gradnorm looks at the adapters: set lr.lora")

    def _require_known_tasks(self) -> None:
        """Whether the sweep fits the stages is its own command's matter: others may leave a stage out."""
        if self.sweep is not None:
            asked = [name.partition("/")[0] for name in (*self.sweep.metrics, self.sweep.qa_metric)]
            for task in (*asked, *self.sweep.limit_by_task):
                require_known("task of sweep", [task], MEASURED_TASKS)

    def _require_fit(self, what: str, size: int) -> None:
        """A fixed number of workers shares a micro-batch evenly; of a varying one, each gets a sample at least."""
        workers = self.train.workers
        if isinstance(workers, int) and size % workers:
            raise ValueError(f"train.workers {workers} must divide {what}")
        if not isinstance(workers, int) and workers[1] > size:
            raise ValueError(f"train.workers {list(workers)} must not exceed {what}: each worker takes a sample of it")
