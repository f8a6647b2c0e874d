"""Name -> class of every task head. Adding a task is one file in this package and one line here."""

from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import TaskHead
from tpo_core.heads.mask import MaskHead
from tpo_core.heads.region import RegionHead
from tpo_core.heads.temporal import TemporalHead

HEADS: dict[str, type[TaskHead]] = {head.name: head for head in (RegionHead, TemporalHead, MaskHead)}


def build_head(name: str, config: ModelConfig, hidden_size: int, vision_size: int) -> TaskHead:
    """A freshly initialised head. Raises TpoError for an unknown name."""
    if name not in HEADS:
        raise TpoError(f"unknown head {name!r}: choose from {', '.join(HEADS)} (model.heads, stages.*.heads)")
    return HEADS[name].from_config(config, hidden_size, vision_size)
