"""The published mask head in training against values of its implementation; sizes and cases come from the pack.

The targets are those of a Sam2VideoModel that holds the pack's prompt encoder; its other parts are small and idle.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Sam2VideoModel

from tests.tiny_sam2 import tiny_config, tiny_sam2
from tpo_core.config.model import Sam2MaskConfig
from tpo_core.heads.base import MaskTargets
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.head import Sam2MaskHead
from tpo_core.heads.sam2.targets import tight_boxes
from tpo_core.models.convert.sam2 import PUBLISHED_PREFIX, to_facebook, to_hf

PACK = Path(__file__).resolve().parents[1] / "golden" / "models" / "mask_adapter"
FACTS = json.loads(PACK.with_suffix(".json").read_text())
WEIGHTS = load_file(PACK.with_suffix(".weights.safetensors"))
CASES = load_file(PACK.with_suffix(".cases.safetensors"))
TOLERANCE, SIZES = FACTS["tolerance"], FACTS["config"]


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=TOLERANCE["other_atol"], rtol=TOLERANCE["other_rtol"])


@pytest.fixture(scope="module")
def sam() -> Sam2VideoModel:
    model = tiny_sam2(tiny_config(prompt_width=SIZES["prompt_dim"], image_size=SIZES["image_size"]))
    state = to_facebook(model.state_dict(), PUBLISHED_PREFIX)
    encoder = {name: value for name, value in WEIGHTS.items() if name.startswith(PUBLISHED_PREFIX)}
    assert encoder.keys() <= state.keys()
    model.load_state_dict(to_hf({**state, **encoder}))
    return model


@pytest.fixture
def head(sam) -> Sam2MaskHead:
    made = Sam2MaskHead(Sam2MaskConfig(), SIZES["hidden"], FrozenSam2(sam))
    made.load_state_dict({name: value for name, value in WEIGHTS.items() if name.startswith("track_embed")})
    return made


def box_targets(boxes_N4: Tensor) -> MaskTargets:
    """Samples of one frame with a box and no mask."""
    count = len(boxes_N4)
    return MaskTargets(
        masks_NTHW=torch.zeros(count, 1, 2, 2, dtype=torch.uint8),
        valid_NT=torch.ones(count, 1, dtype=torch.bool),
        box_only_N=torch.ones(count, dtype=torch.bool),
        boxes_NT4=boxes_N4[:, None],
    )


def test_targets_are_the_prompts_that_sam2_makes_of_the_boxes(head):
    got_N3C = head.sam.embed_boxes(CASES["in.boxes"])
    torch.testing.assert_close(got_N3C, CASES["out.target_embeddings"], atol=TOLERANCE["target_atol"], rtol=0)
    assert (got_N3C[:, 2] == got_N3C[:1, 2]).all()  # the third row knows nothing of the box


def test_the_dense_part_of_a_prompt_without_a_mask(sam):
    _, dense_1Chw = sam.prompt_encoder(None, None, None, None)
    assert list(dense_1Chw.shape[-2:]) == SIZES["image_embedding"]
    close(dense_1Chw[0], CASES["out.dense_row"][:, None, None].expand_as(dense_1Chw[0]))


def test_prompts_and_boxes_of_hidden_vectors(head):
    close(head.prompts(CASES["in.hidden"]), CASES["out.embeddings"])
    close(head.track_embed_decode2(CASES["in.hidden"]), CASES["out.boxes"])


def test_losses_of_a_batch_and_their_gradients(head):
    hidden_NC = CASES["in.hidden"].clone().requires_grad_()
    output = head(hidden_NC, None, box_targets(CASES["in.boxes"]))
    want = FACTS["losses"]
    close(output.losses["embedding"], torch.tensor(want["mean_l1_embedding"]))
    close(output.losses["box"], torch.tensor(want["mean_l1_box"]))
    close(output.total, torch.tensor(want["total"]))
    output.total.backward()
    close(hidden_NC.grad, CASES["out.gradient_hidden"])
    close(head.track_embed.layers[1].bias.grad, CASES["out.gradient_track_embed.layers.1.bias"])


@pytest.mark.parametrize("row", range(len(CASES["in.hidden"])))
def test_losses_of_one_sample(head, row):
    losses = head(CASES["in.hidden"][[row]], None, box_targets(CASES["in.boxes"][[row]])).losses
    close(losses["embedding"], CASES["out.l1_embedding"][row])
    close(losses["box"], CASES["out.l1_box"][row])


@pytest.mark.parametrize("name", FACTS["mask_to_box"]["boxes"])
def test_tight_boxes_stand_to_the_published_ones_as_documented(name):
    mask_HW = CASES[f"mask_to_box.{name}.in.mask"]
    height, width = mask_HW.shape
    box_4 = tight_boxes(mask_HW[None, None])[0, 0]
    want_4 = torch.tensor(FACTS["mask_to_box"]["boxes"][name])
    if name in FACTS["mask_to_box"]["not_required"]:
        assert box_4.isfinite().all() == mask_HW.any()
    elif not mask_HW.any():
        assert box_4.isnan().all()
        assert (want_4 == -1).all()
    else:
        sides = torch.tensor([width, height, width, height])
        outside = box_4 * sides - torch.tensor([1, 1, 0, 0])
        close(torch.minimum(outside.clamp(min=0), sides - 1) / sides, want_4)
