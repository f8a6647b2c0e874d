import dataclasses

import pytest
import torch

from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import HeadOutput, MaskTargets, RegionTargets, TemporalTargets, take_rows
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


def test_total_is_the_sum_of_the_means_of_the_terms():
    assert HeadOutput({"a": torch.tensor(2.0), "b": torch.tensor(2.5)}, {"a": 2, "b": 0}).total.item() == 3.5


def test_every_head_is_built_under_its_own_name_and_an_unknown_one_is_refused():
    config = ModelConfig(base="base")
    for name in HEADS:
        assert build_head(name, config, 8, 8).name == name
    assert len({head.slot for head in HEADS.values()} | {head.begin for head in HEADS.values()}) == 2 * len(HEADS)
    with pytest.raises(TpoError, match="unknown head 'depth'"):
        build_head("depth", config, 8, 8)


def frames_context(random_context):
    """Three clips of five frames, of which the last has two."""
    context = random_context(3, 5)
    context.frame_mask_BT[2, 2:] = False
    return context


def mask_targets():
    masks_NTHW = torch.zeros(3, 5, 8, 8, dtype=torch.uint8)
    masks_NTHW[:, :, 2:5, 3:6] = 1
    valid_NT = torch.tensor([[True] * 5, [True, False, False, True, False], [True, True, False, False, False]])
    return MaskTargets(masks_NTHW, valid_NT, torch.tensor([False, False, True]), torch.full((3, 5, 4), 0.5))


def moments():
    return TemporalTargets([torch.tensor([[0.1, 0.5]]), torch.zeros(0, 2), torch.tensor([[0.1, 0.2], [0.3, 0.9]])])


CASES = {
    "region": (lambda: RegionTargets(torch.rand(3, 4).sort(1).values), {"region": {"loss": "mse"}}),
    "temporal": (moments, {}),
    "mask": (mask_targets, {"mask": {"train_frames": 4}}),
    "mask every frame": (mask_targets, {}),
    "temporal cg_detr": (moments, {"temporal": {"decoder": "cg_detr"}}),
}


def rows_of(targets, index):
    changes = {each.name: take_rows(getattr(targets, each.name), index) for each in dataclasses.fields(targets)}
    return type(targets)(**changes)


@pytest.mark.parametrize("case", CASES)
def test_counts_are_known_before_and_add_up_over_the_parts_of_a_batch(random_context, case):
    make, config = CASES[case]
    torch.manual_seed(0)
    head = build_head(case.split()[0], ModelConfig(base="base", **config), 24, 16).eval()
    context, targets, hidden_NC = frames_context(random_context), make(), torch.randn(3, 24)
    parts = [torch.tensor([0]), torch.tensor([1, 2])]
    counts = [head.counts(context.rows(index), rows_of(targets, index)) for index in parts]
    whole = head(hidden_NC, context, targets)
    assert whole.counts == head.counts(context, targets) == {name: sum(c[name] for c in counts) for name in counts[0]}
    assert set(whole.sums) == set(whole.counts)
    assert min(whole.counts.values()) > 0


@pytest.mark.parametrize("case", ["region", "temporal", "mask every frame"])
def test_sums_add_up_over_the_parts_of_a_batch(random_context, case):
    make, config = CASES[case]
    torch.manual_seed(0)
    head = build_head(case.split()[0], ModelConfig(base="base", **config), 24, 16).eval()
    context, targets, hidden_NC = frames_context(random_context), make(), torch.randn(3, 24)
    whole = head(hidden_NC, context, targets).sums
    split = [
        head(hidden_NC[index], context.rows(index), rows_of(targets, index)).sums
        for index in (torch.tensor([0]), torch.tensor([1, 2]))
    ]
    for name, value in whole.items():
        torch.testing.assert_close(value, sum(part[name] for part in split))
