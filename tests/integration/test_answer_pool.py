"""A pool of actors answers a benchmark like one process does, loads the model once an actor, and tells mistakes."""

import errno
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from tests.unit.evaluation.benches import bench_of, entry_of
from tests.unit.evaluation.test_bench import mvbench_layout
from tpo_core.errors import TpoError
from tpo_core.evaluation.pool import RayPool
from tpo_core.evaluation.record import Record
from tpo_core.evaluation.work import HopelessError
from tpo_core.storage.local import disk_full_told

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Counted:
    """A model whose loadings can be counted from here; the answer to a question is its number's letter."""

    folder: str
    mistake: str = ""
    name: str = "counted"

    def identity(self):
        return self.name

    def open(self):
        import uuid
        from pathlib import Path

        (Path(self.folder) / uuid.uuid4().hex).touch()
        if self.mistake == "load":
            raise TpoError("no model there: give another one")
        if self.mistake == "bug":
            raise ValueError("header too large")
        return self

    def answer(self, requests, max_new_tokens):
        if self.mistake == "answer":
            raise TpoError("the question is none: ask another one")
        if self.mistake == "disk":
            with disk_full_told(Path(self.folder)):
                raise OSError(errno.ENOSPC, "No space left on device")
        return [Record(r.ask.key, "AB"[int(r.ask.key.rpartition("-")[2]) % 2]) for r in requests]


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "loaded").mkdir()
    root = mvbench_layout(tmp_path / "mvbench", {"moving_count": 12})
    return bench_of(tmp_path, entry_of("mvbench", "choice", "mvbench", prompt="letter"), root)


def test_actors_answer_what_one_process_answers(cluster, bench, tmp_path):
    pool = RayPool(workers=2, cpus=0.5, gpus=0.0)
    result = bench.run(Counted(str(tmp_path / "loaded")), batch_size=2, pool=pool)
    assert result["metrics"]["Avg"] == 50.0
    assert (result["asked"], result["scored"]) == (12, 12)
    assert 1 <= len(list((tmp_path / "loaded").iterdir())) <= 2
    alone = bench.run(Counted(str(tmp_path / "loaded"), name="alone"), batch_size=2)
    assert alone["metrics"] == result["metrics"]


def test_what_was_answered_is_not_asked_again_of_actors(cluster, bench, tmp_path):
    pool = RayPool(workers=1, cpus=0.5, gpus=0.0)
    first = bench.run(Counted(str(tmp_path / "loaded")), batch_size=5, pool=pool)
    (folder,) = (Path(bench.place.output) / "answers").iterdir()
    next(folder.iterdir()).unlink()  # as if it had been in flight
    assert bench.run(Counted(str(tmp_path / "loaded")), batch_size=5, pool=pool) == first
    assert " of 12 are answered already" in bench.lines[-2]


@pytest.mark.parametrize(
    ("mistake", "told", "hopeless"),
    [("load", "no model there", True), ("bug", "counted cannot be loaded: ValueError: header", True),
     ("answer", "the question is none", False), ("disk", "disk full while writing", True)],
)  # fmt: skip
def test_a_mistake_of_an_actor_comes_out_as_it_is(cluster, bench, tmp_path, mistake, told, hopeless):
    with pytest.raises(TpoError, match=rf"^{told}") as caught:
        bench.run(Counted(str(tmp_path / "loaded"), mistake), pool=RayPool(workers=1, cpus=0.5, gpus=0.0))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, HopelessError) is hopeless
