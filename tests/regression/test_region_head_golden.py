"""Region head and box encoder against values of the published implementation; sizes and cases come from the pack."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tpo_core.heads.base import RegionTargets
from tpo_core.heads.region import RegionHead, box_loss
from tpo_core.models.task_tokens import BoxEncoder

PACK = Path(__file__).resolve().parents[1] / "golden" / "models" / "region_head"
FACTS = json.loads(PACK.with_suffix(".json").read_text())
WEIGHTS = load_file(PACK.with_suffix(".weights.safetensors"))
CASES = load_file(PACK.with_suffix(".cases.safetensors"))
TOLERANCE = FACTS["tolerance"]
HIDDEN = FACTS["config"]["hidden"]


def part(name: str) -> dict[str, torch.Tensor]:
    """Weights of a published module, under the names within it."""
    return {key.removeprefix(f"{name}."): value for key, value in WEIGHTS.items() if key.startswith(f"{name}.")}


def close(got: torch.Tensor, want: torch.Tensor, atol: float = TOLERANCE["atol"]) -> None:
    torch.testing.assert_close(got, want, atol=atol, rtol=TOLERANCE["rtol"])


@pytest.fixture
def head() -> RegionHead:
    made = RegionHead(HIDDEN, "l1_giou")
    made.loc_decoder.load_state_dict(part("loc_decoder"))
    return made


def test_the_pack_has_cases():
    assert FACTS["losses"]
    assert {f"loss.{case}.in.predictions" for case in FACTS["losses"]} <= CASES.keys()


@pytest.mark.parametrize("case", FACTS["losses"])
def test_losses_and_their_gradient(case):
    want = FACTS["losses"][case]
    predicted_N4 = CASES[f"loss.{case}.in.predictions"].clone().requires_grad_()
    assert (predicted_N4[:, 2:] >= predicted_N4[:, :2]).all(1).tolist() == want["valid"]
    terms = box_loss(predicted_N4, CASES[f"loss.{case}.in.targets"])
    assert terms["l1"].item() / 2 == pytest.approx(want["l1"], abs=TOLERANCE["loss_atol"])
    assert terms["giou"].item() * 5 == pytest.approx(want["giou_term"], abs=5 * TOLERANCE["loss_atol"])
    total = terms["l1"] + terms["giou"]
    assert total.item() == pytest.approx(want["loss"], abs=TOLERANCE["loss_atol"])
    total.backward()
    close(predicted_N4.grad, CASES[f"loss.{case}.out.gradient"], TOLERANCE["grad_atol"])


def test_boxes_of_hidden_vectors(head):
    close(head.loc_decoder(CASES["modules.in.hidden"]), CASES["modules.out.boxes"])


def test_embeddings_of_given_boxes():
    encoder = BoxEncoder(HIDDEN)
    encoder.load_state_dict(part("loc_encoder"))
    close(encoder(CASES["modules.in.boxes"]), CASES["modules.out.box_embeddings"])


def test_from_hidden_vectors_to_loss_and_gradients(head):
    hidden_NC = CASES["end_to_end.in.hidden"].clone().requires_grad_()
    targets_N4 = CASES["end_to_end.in.targets"]
    close(head.loc_decoder(hidden_NC), CASES["end_to_end.out.boxes"])
    total = head(hidden_NC, None, RegionTargets(targets_N4)).total
    assert total.item() == pytest.approx(FACTS["end_to_end"]["loss"], abs=TOLERANCE["loss_atol"])
    total.backward()
    close(hidden_NC.grad, CASES["end_to_end.out.gradient_hidden"], TOLERANCE["grad_atol"])
    weight = head.loc_decoder[2].weight
    close(weight.grad, CASES["end_to_end.out.gradient_loc_decoder.2.weight"], TOLERANCE["grad_atol"])
