import pytest
import torch
from torch import nn

from tests.unit.train.checkpoints.made import RUN, checkpointer, save_at, trained
from tests.unit.train.stub import Run, StubModel
from tpo_core.errors import TpoError
from tpo_core.train.checkpoints.restore import differences


def saved(root):
    run = trained(3)
    save_at(checkpointer(root, run.strategy), run, 3)
    return run


class Wider(StubModel):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)


class Deeper(StubModel):
    def __init__(self):
        super().__init__()
        self.adapter.append(nn.Linear(4, 4))


def built(model):
    """A Run of the model, with the trainable groups of the stub."""
    run = Run()
    run.model = model
    for param in model.base.parameters():
        param.requires_grad_(False)
    run.strategy.prepare(model, lambda: torch.optim.AdamW(p for p in model.parameters() if p.requires_grad))
    return run


@pytest.mark.parametrize(
    ("model", "difference"),
    [
        (Wider(), r"param/head\.weight: shape \[1, 4\] in it, shape \[2, 4\] in the model"),
        (Deeper(), r"param/adapter\.3\.weight: none in it, shape \[4, 4\] in the model"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path, model, difference):
    saved(tmp_path)
    with pytest.raises(TpoError, match=rf"^{tmp_path}/step-00000003 is of another model \({difference}\): use the"):
        checkpointer(tmp_path, built(model).strategy).resume()


def test_one_that_lacks_what_the_checkpoint_trained_is_refused(tmp_path):
    saved(tmp_path)
    run = Run()
    run.model.head.weight.requires_grad_(False)
    with pytest.raises(TpoError, match=r"param/head\.weight: shape \[1, 4\] in it, none in the model"):
        checkpointer(tmp_path, run.strategy).resume()


def test_a_checkpoint_of_another_run_is_refused_and_nothing_is_touched(tmp_path):
    run = saved(tmp_path)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    other = {"stage": {"lr": {"lora": 0.02}, "phases": [{"steps": 12}]}, "seed": 0}
    expected = r"step-00000003 is of another run \(stage\.lr\.lora 0\.01 -> 0\.02\): give this one a folder of its own"
    with pytest.raises(TpoError, match=expected):
        checkpointer(tmp_path, run.strategy, run=other).resume()
    assert (tmp_path / "step-00000003" / "checkpoint.json").exists()
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (RUN, []),
        ({**RUN, "seed": 1}, ["seed 0 -> 1"]),
        ({"stage": RUN["stage"]}, ["seed 0 -> nothing"]),
        ({**RUN, "more": "x"}, ['more nothing -> "x"']),
        ({**RUN, "stage": {**RUN["stage"], "phases": [{"steps": 13}]}}, ["stage.phases[0].steps 12 -> 13"]),
        ({**RUN, "stage": {**RUN["stage"], "phases": []}}, ['stage.phases [{"steps": 12}] -> []']),
    ],
)
def test_differences_are_named(new, expected):
    assert list(differences(RUN, new)) == expected


def test_a_long_value_is_cut():
    assert list(differences({"a": 1}, {"a": "x" * 99})) == [f'a 1 -> "{"x" * 44}...']
