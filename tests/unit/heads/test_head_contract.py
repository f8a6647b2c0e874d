import pytest
import torch

from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import HeadOutput, RegionTargets, TemporalTargets
from tpo_core.heads.registry import HEADS, build_head


def test_rows_selects_in_every_tensor_and_keeps_the_grid(random_context):
    context = random_context(3, 2)
    picked = context.rows(torch.tensor([2, 0]))
    assert picked.grid_hw == context.grid_hw
    assert torch.equal(picked.patches_BTNC, context.patches_BTNC[[2, 0]])
    assert picked.size_wh_B2.shape == (2, 2)


def test_targets_move_with_their_lists_and_tensors():
    assert RegionTargets(torch.zeros(1, 4)).to("meta").boxes_N4.device.type == "meta"
    assert TemporalTargets([torch.zeros(1, 2)]).to("meta").spans[0].device.type == "meta"


def test_total_is_the_sum_of_the_terms():
    assert HeadOutput({"a": torch.tensor(1.0), "b": torch.tensor(2.5)}).total.item() == 3.5


def test_every_head_is_built_under_its_own_name_and_an_unknown_one_is_refused():
    config = ModelConfig(base="base")
    for name in HEADS:
        assert build_head(name, config, 8, 8).name == name
    assert len({head.slot for head in HEADS.values()} | {head.begin for head in HEADS.values()}) == 2 * len(HEADS)
    with pytest.raises(TpoError, match="unknown head 'depth'"):
        build_head("depth", config, 8, 8)
