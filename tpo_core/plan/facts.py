"""Published facts that a plan needs before anything is there: GPUs, data sets, shapes of bases, hours of the paper."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import LlavaOnevisionConfig, PreTrainedConfig

from tpo_core.models.videochat2.config import VideoChat2Config
from tpo_core.train.meter import PEAK_TFLOPS


@dataclass(frozen=True)
class Gpu:
    """peak_tflops: dense bf16. memory_gib: what CUDA reports as total, rounded down. hour_usd: an assumption."""

    peak_tflops: float
    memory_gib: float
    hour_usd: float


# Prices of 4.92, 5.41 and 1.84 are those of EC2 Capacity Blocks for p5, p5e and p4d in 2024, a GPU
# (https://aws.amazon.com/ec2/capacityblocks/pricing/). That of a100-80, which is not sold there, is a round guess.
GPUS = {
    "a100-40": Gpu(PEAK_TFLOPS["A100"], 39, 1.84),
    "a100-80": Gpu(PEAK_TFLOPS["A100"], 79, 2.50),
    "h100": Gpu(PEAK_TFLOPS["H100"], 79, 4.92),
    "h200": Gpu(PEAK_TFLOPS["H200"], 139, 5.41),
}


@dataclass(frozen=True)
class DataSet:
    """The training split of a data set. samples: of `kind`. media: different videos or images that they show.
    length_s, height_px: of a video, typical; 0 s is an image."""

    kind: str
    samples: int
    media: int
    length_s: float = 0.0
    height_px: int = 480

    @property
    def is_video(self) -> bool:
        """Whether a sample shows a clip, and not one frame."""
        return self.length_s > 0


VIDEO_FPS = 30.0  # of every video below

# Samples: TimeIT (arXiv 2312.02051), the label files of the data sets, and for conversation the collections of the
# VideoChat2 code base, rounded. Media, lengths and heights are round figures, which only decoding depends on.
# VideoChat2-IT counts as video throughout, so that its cost is an upper bound.
DATA_SETS = {
    "didemo": DataSet("temporal", 33_000, 8_400, 30, 360),
    "queryd": DataSet("temporal", 14_600, 1_300, 280, 360),
    "hirest": DataSet("temporal", 459, 459, 260, 360),
    "activitynet_captions": DataSet("temporal", 37_400, 10_000, 120, 360),
    "tacos": DataSet("temporal", 9_790, 75, 290, 480),
    "nlq": DataSet("temporal", 11_291, 1_000, 500, 480),
    "qvhighlights": DataSet("temporal", 7_218, 7_100, 150, 360),
    "charades_sta": DataSet("temporal", 12_400, 5_300, 31, 480),
    "refcoco": DataSet("region", 120_624, 16_994),
    "refcoco+": DataSet("region", 120_191, 16_992),
    "refcocog": DataSet("region", 80_512, 21_899),
    "as_v2": DataSet("region", 240_000, 100_000),
    "visual_genome": DataSet("region", 5_400_000, 108_077),
    "mevis": DataSet("mask", 23_000, 1_700, 13, 480),
    "sa_v": DataSet("mask", 190_000, 50_000, 14, 480),
    "youcook2": DataSet("chat", 1_300, 1_300, 320, 480),
    "videochat2_it": DataSet("chat", 2_000_000, 1_400_000, 20, 360),
    "sharegpt4v": DataSet("chat", 420_000, 420_000),
    "sharegpt4o": DataSet("chat", 2_000, 2_000, 60, 480),
    "llava_hound": DataSet("chat", 540_000, 300_000),
}

# Hours on 64 GPUs (A100) of each stage of VideoChat-TPO: arXiv 2412.19326 v2, table 19.
PAPER_GPUS = 64
PAPER_HOURS = {"task_assignment": 0.5, "vision_task": 11.0, "multitask": 52.0}


def llava_onevision(**text: Any) -> LlavaOnevisionConfig:
    """SigLIP so400m at 384 px without its last layer, and a Qwen2: the configuration that transformers has as default
    for the tower, and `text` for the language model."""
    return LlavaOnevisionConfig(text_config={"model_type": "qwen2", **text}, tie_word_embeddings=False)


# Bases whose shapes are known, so that nothing has to be fetched. Source: their config.json.
BASES: dict[str, Callable[[], PreTrainedConfig]] = {
    "videochat2": VideoChat2Config,
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": lambda: llava_onevision(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152_128,
    ),
}
