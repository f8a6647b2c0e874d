"""Name -> class of every task head. Adding a task is one file in this package and one line here.

`HEADS` gives the default of each task; decoders of one task share its name and tokens.
"""

from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import TaskHead
from tpo_core.heads.cgdetr.head import CgDetrHead
from tpo_core.heads.mask import MaskHead
from tpo_core.heads.region import RegionHead
from tpo_core.heads.sam2.head import Sam2MaskHead
from tpo_core.heads.temporal import TemporalHead

HEADS: dict[str, type[TaskHead]] = {head.name: head for head in (RegionHead, TemporalHead, MaskHead)}
TEMPORAL_DECODERS: dict[str, type[TaskHead]] = {"frames": TemporalHead, "cg_detr": CgDetrHead}
MASK_DECODERS: dict[str, type[TaskHead]] = {"light": MaskHead, "sam2": Sam2MaskHead}


def build_head(name: str, config: ModelConfig, hidden_size: int, vision_size: int) -> TaskHead:
    """A freshly initialised head, of the decoder that the recipe names. Raises TpoError for an unknown name."""
    if name not in HEADS:
        raise TpoError(f"unknown head {name!r}: choose from {', '.join(HEADS)} (model.heads, stages.*.heads)")
    chosen = {
        TemporalHead.name: TEMPORAL_DECODERS[config.temporal.decoder],
        MaskHead.name: MASK_DECODERS[config.mask.decoder],
    }
    kind = chosen.get(name, HEADS[name])
    return kind.from_config(config, hidden_size, vision_size)
