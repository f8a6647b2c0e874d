import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tpo_core.heads.base import RegionTargets
from tpo_core.heads.region import RegionHead, box_loss, generalized_iou

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "models"


@pytest.fixture(scope="module")
def golden() -> tuple[dict, dict, dict]:
    facts = json.loads((GOLDEN / "region_head.json").read_text())
    return (
        facts,
        load_file(GOLDEN / "region_head.weights.safetensors"),
        load_file(GOLDEN / "region_head.cases.safetensors"),
    )


def published_head(weights: dict) -> RegionHead:
    head = RegionHead(64, "l1_giou")
    head.load_state_dict({name: value for name, value in weights.items() if name.startswith("loc_decoder.")})
    return head


@pytest.mark.parametrize("case", ["one", "ragged_2_1", "one_inverted_of_three", "no_valid_box"])
def test_loss_and_gradient_equal_the_published_ones(golden, case):
    facts, _, cases = golden
    predicted = cases[f"loss.{case}.in.predictions"].requires_grad_()
    terms = box_loss(predicted, cases[f"loss.{case}.in.targets"])
    total = terms["l1"] + terms["giou"]
    total.backward()
    assert total.item() == pytest.approx(facts["losses"][case]["loss"], abs=1e-6)
    torch.testing.assert_close(predicted.grad, cases[f"loss.{case}.out.gradient"], atol=1e-5, rtol=1e-4)


def test_head_loads_published_weights_and_gives_their_boxes_and_gradients(golden, random_context):
    facts, weights, cases = golden
    head = published_head(weights)
    torch.testing.assert_close(
        head.loc_decoder(cases["modules.in.hidden"]), cases["modules.out.boxes"], atol=1e-5, rtol=1e-4
    )
    hidden = cases["end_to_end.in.hidden"].requires_grad_()
    targets = RegionTargets(cases["end_to_end.in.targets"])
    total = head(hidden, random_context(5, 1), targets).total
    total.backward()
    assert total.item() == pytest.approx(facts["end_to_end"]["loss"], abs=1e-6)
    torch.testing.assert_close(hidden.grad, cases["end_to_end.out.gradient_hidden"], atol=1e-5, rtol=1e-4)


def test_generalized_iou_of_disjoint_and_of_degenerate_boxes():
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    apart = torch.tensor([[2.0, 0.0, 3.0, 1.0]])
    point = torch.zeros(1, 4)
    assert generalized_iou(unit, unit).item() == pytest.approx(1)
    assert generalized_iou(unit, apart).item() == pytest.approx(-1 / 3)
    assert generalized_iou(point, point).isfinite().all()


def test_degenerate_boxes_give_finite_gradients():
    predicted = torch.zeros(3, 4, requires_grad=True)
    sum(box_loss(predicted, torch.zeros(3, 4)).values()).backward()
    assert predicted.grad.isfinite().all()


def test_predictions_are_ordered_and_inside_the_image(random_context):
    torch.manual_seed(0)
    head = RegionHead(8, "l1_giou")
    context = random_context(20, 1)
    boxes = torch.stack([p.box_xyxy for p in head.predict(50 * torch.randn(20, 8), context)])
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([64.0, 48.0, 64.0, 48.0])).all()


@pytest.mark.parametrize("loss", ["l1_giou", "mse"])
def test_overfits_eight_samples(loss, random_context):
    torch.manual_seed(0)
    head, hidden, context = RegionHead(32, loss), torch.randn(8, 32), random_context(8, 1)
    corner = torch.rand(8, 2) * 0.5
    targets = RegionTargets(torch.cat([corner, corner + 0.1 + 0.4 * torch.rand(8, 2)], 1))
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    first = head(hidden, context, targets).total.item()
    for _ in range(300):
        optimizer.zero_grad()
        head(hidden, context, targets).total.backward()
        optimizer.step()
    output = head(hidden, context, targets)
    assert output.total.item() < 0.1 * first
    assert output.report["iou"] > 0.8
