import json
import time

import pytest

from pipelines.checkpoint_lease import checkpoint_lease
from tests.unit.train.stub import stub_recipe
from tpo_core.errors import TpoError


def test_two_outputs_with_one_place_for_checkpoints_train_one_after_the_other(tmp_path):
    recipe = stub_recipe(checkpoint_uri=str(tmp_path / "safe"))
    place = tmp_path / "safe/vision_task.all/run"
    place.parent.mkdir(parents=True)
    other = {"token": "t", "pid": 1, "host": "another", "time": time.time()}
    (tmp_path / "safe/vision_task.all/run.lease").write_text(json.dumps(other))
    with pytest.raises(TpoError, match=rf"{place} is being made by pid 1 on another"):
        checkpoint_lease(recipe, "vision_task.all", "run", print).__enter__()
    with checkpoint_lease(recipe, "vision_task.all", "another_run", print):
        assert place.with_name("another_run.lease").exists()
    assert not place.with_name("another_run.lease").exists()


def test_checkpoints_in_the_output_need_no_lease_of_their_own(tmp_path):
    with checkpoint_lease(stub_recipe(), "vision_task.all", "run", print):
        assert list(tmp_path.iterdir()) == []
