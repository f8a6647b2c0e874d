import numpy as np
from PIL import Image

from tpo_core.evaluation.curves import _smooth, _spans, loss_curves

HISTORY = {
    "task_assignment": [{"step": s, "loss/lm": 2.0, "lr/lora": 1e-3} for s in (10, 20)],
    "vision_task": [{"step": 10, "loss/lm": 1.0, "loss/region": 0.5, "lr/lora": 1e-3, "lr/region_head": 2e-3}],
    "multitask": [],
}


def test_a_picture_is_written_also_for_short_and_empty_phases(tmp_path):
    loss_curves(HISTORY, tmp_path / "new" / "curves.png")
    assert np.asarray(Image.open(tmp_path / "new" / "curves.png")).std() > 0


def test_phases_follow_each_other():
    assert _spans(HISTORY) == {"task_assignment": (0, 20), "vision_task": (20, 30), "multitask": (30, 30)}


def test_the_running_mean_has_no_bias_at_the_start():
    assert _smooth([3.0, 3.0, 3.0]) == [3.0, 3.0, 3.0]
