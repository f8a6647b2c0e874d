"""What goes wrong in a Ray worker and is the user's to mend reaches the driver as one line."""

import errno
import importlib
import sys

import pytest
import ray

from pipelines.cluster import on_cluster
from tpo_core.config.schema import DataConfig, TrainConfig
from tpo_core.data import preprocess
from tpo_core.data.frames import DecodeRequest
from tpo_core.data.intake import RejectLog
from tpo_core.data.media_store import ShardJob
from tpo_core.errors import TpoError
from tpo_core.storage.local import disk_full_told

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=1, resources={"node_group_cpu": 1}, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class WorkerOnAFullDisk(preprocess._ShardWorker):
    """Every shard file meets a full disk."""

    def __init__(self, *arguments):
        super().__init__(*arguments)

        def full(path, rows):
            raise OSError(errno.ENOSPC, "No space left on device")

        importlib.import_module("tpo_core.data.media_store").write_media_shard = full  # in the worker's process


def test_a_full_disk_of_a_decoding_worker(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(preprocess, "_ShardWorker", WorkerOnAFullDisk)
    request = DecodeRequest(uri="none.mp4", kind="video", short_side_px=16, n_frames=1)
    job = ShardJob({"none.mp4": request}, {"none.mp4": "0"})
    with pytest.raises(TpoError, match=f"^disk full while writing {tmp_path} ") as caught:
        preprocess._decode(str(tmp_path), [job], DataConfig(), 1, "cpu", RejectLog(tmp_path / "rejects", 0.0), print)
    assert "\n" not in str(caught.value)


def fill_the_disk(threads, echo):
    raise OSError(errno.ENOSPC, "No space left on device")


def refuse(threads, echo):
    echo("looking for the model")
    raise TpoError("no model at x: give another one")


def test_a_mistake_that_a_job_finds_comes_out_as_it_is(cluster):
    with pytest.raises(TpoError) as caught:
        on_cluster([refuse], TrainConfig(max_failures=0), print)
    assert str(caught.value) == "no model at x: give another one"


def test_a_full_disk_of_a_job_is_told_by_the_step_around_it(cluster, tmp_path):
    with pytest.raises(TpoError, match=rf"^disk full while writing {tmp_path} \("), disk_full_told(tmp_path):
        on_cluster([fill_the_disk], TrainConfig(max_failures=0), print)


def test_a_job_that_can_never_be_placed_is_refused(cluster, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(TpoError, match="Ray has no room for an evaluation, 1 CPU and 1 GPU"):
        on_cluster([refuse], TrainConfig(gpus_per_worker=1), print)


def test_a_job_goes_to_nodes_of_its_group_and_nowhere_else(cluster, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert on_cluster([lambda threads, echo: "ran"], TrainConfig(), print, group="cpu") == ["ran"]
    with pytest.raises(TpoError, match=r"1 CPU on a node of group gpu: it has 1 CPU .* of group cpu: ask"):
        on_cluster([refuse], TrainConfig(), print, group="gpu")
