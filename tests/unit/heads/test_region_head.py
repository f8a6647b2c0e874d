import pytest
import torch

from tpo_core.heads.base import RegionTargets
from tpo_core.heads.region import RegionHead, box_loss, generalized_iou


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


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ((0.2, 0.1, 0.2, 0.6), (0.2, 0.2, 0.2, 0.5)),
        ((0.1, 0.3, 0.5, 0.3), (0.2, 0.3, 0.4, 0.3)),
        ((0.2, 0.2, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2)),
        ((0.0, 0.0, 1e-20, 1e-20), (0.0, 0.0, 1e-20, 1e-20)),
    ],
)
def test_boxes_without_area_give_no_gradient_beyond_that_of_l1(predicted, true):
    predicted_14 = torch.tensor([predicted], requires_grad=True)
    total = torch.stack(list(box_loss(predicted_14, torch.tensor([true])).values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert predicted_14.grad.abs().max() <= 2 / 4
