"""The whole of preprocessing against a real S3 server on this machine, through a proxy that breaks what passes."""

import time
from urllib.request import urlopen

import pytest
import ray

from tests.conftest import use_endpoint
from tests.integration.test_preprocess import DECODE_ON_RAY, built, run
from tests.s3_server import Faults, faulty_proxy
from tpo_core.data.example import load_example
from tpo_core.data.media_store import MediaStore
from tpo_core.data.shards import ShardSet
from tpo_core.storage import uri as uris
from tpo_core.storage.commit import commit

__all__ = ["built"]


@pytest.fixture
def cluster_on_s3(bucket, s3_endpoint, monkeypatch):
    """A Ray whose processes, as this one, reach S3 through a proxy with faults, which the fixture gives."""
    faults = Faults(seed=3, errors=0.05, resets=0.05, slow=0.02)
    with faulty_proxy(s3_endpoint, faults) as endpoint:
        use_endpoint(monkeypatch, endpoint)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield faults
        ray.shutdown()


@pytest.mark.ray
def test_from_s3_to_s3_with_faults_on_the_way(built, cluster_on_s3, bucket, s3_endpoint, monkeypatch, tmp_path):
    """Labels, media and store on S3, workers of a Ray of their own, and a proxy that breaks one request in ten."""
    root, local_set, expected, _ = built
    for path in (path for path in root.rglob("*") if path.is_file()):
        uris.write_bytes(f"{bucket}/in/{path.relative_to(root).as_posix()}", path.read_bytes())
    store = MediaStore(f"{bucket}/runs/media", "../../media")
    faults = cluster_on_s3
    result, _ = run(f"{bucket}/in", tmp_path / "out", decode=DECODE_ON_RAY, store=store)
    assert sum(faults.counts.values()) > 0, faults.counts
    assert {name: result[name] for name in ("samples", "media", "decoded", "rejected")} == {
        name: expected[name] for name in ("samples", "media", "decoded", "rejected")
    }
    assert scraped("ray_tpo_preprocess_media_done{", [expected["decoded"]], deadline_s=60) == [expected["decoded"]]
    assert scraped("ray_tpo_preprocess_reject_budget{", [0.01], deadline_s=60) == [0.01]
    again, _ = run(f"{bucket}/in", tmp_path / "again", decode=DECODE_ON_RAY, store=store)
    assert (again["decoded"], again["digest"]) == (0, result["digest"])
    commit(tmp_path / "again", f"{bucket}/runs/preprocess/abc")
    remote, here = ShardSet.open(f"{bucket}/runs/preprocess/abc"), ShardSet.open(local_set)
    for part in here.parts:
        for ours, theirs in zip(remote.samples(part), here.samples(part), strict=True):
            assert ours == theirs
            assert (load_example(remote, ours).frames_THWC == load_example(here, theirs).frames_THWC).all()


def scraped(beginning: str, wanted: list[float], deadline_s: float) -> list[float]:
    """The values of a metric on the endpoint of this machine's Ray node, once they are as wanted: Ray exports every
    10 s, so what is there first may be from when decoding began."""
    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    end, values = time.monotonic() + deadline_s, list[float]()
    while time.monotonic() < end:
        with urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(beginning)]
        if values == wanted:
            break
        time.sleep(0.5)
    return values
