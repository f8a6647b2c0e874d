import errno
import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.unit.train.checkpoints.made import checkpointer, debris, save_at, steps_at, trained
from tests.unit.train.stub import Run, StubBatches
from tpo_core.errors import StorageTroubleError, TpoError
from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints import write
from tpo_core.train.checkpoints.reader import open_checkpoint
from tpo_core.train.strategies.replicated import Replicated

pytestmark = pytest.mark.slow  # two processes that import torch


def fail(path, uri):
    raise OSError(errno.ENOSPC, "No space left on device")


def goes_on_and_then_fails(root: Path, run: Run) -> dict:
    """Rank 1 alone cannot write: both ranks learn it, both go on, both stop when it was too often."""
    lines, put = [], uris.put_file
    saver = checkpointer(root, run.strategy, max_failed=1, lines=lines)
    save_at(saver, run, 1)
    if run.strategy.rank == 1:
        uris.put_file = fail
    save_at(saver, run, 2)
    failed = saver.failed
    uris.put_file = put
    save_at(saver, run, 3)
    saver.logged({"total": 1.0})
    uris.put_file = fail if run.strategy.rank == 1 else put
    save_at(saver, run, 4)
    try:
        save_at(saver, run, 5)
    except TpoError as error:
        raised = str(error)
    uris.put_file = put
    return {"lines": lines, "failed": failed, "raised": raised}


def storage_in_trouble(root: Path, run: Run) -> dict:
    """Rank 1 alone has no storage: both ranks stop for a reason that may pass, so that the run is tried again."""

    def put(path, uri):
        raise StorageTroubleError("s3://b/k: the storage failed 8 times; run again when it has recovered")

    whole = uris.put_file
    uris.put_file = put if run.strategy.rank == 1 else whole
    try:
        save_at(checkpointer(root, run.strategy, max_failed=0), run, 5)
    except StorageTroubleError as error:
        return {"raised": str(error)}
    finally:
        uris.put_file = whole
    return {}


def leftovers(root: Path, run: Run) -> dict:
    """What a dead attempt left at a step is not taken for the parts of the living."""
    if run.strategy.rank == 0:
        dead = root / "step-00000005"
        dead.mkdir(parents=True)
        for rank in range(2):
            (dead / f"0123-0-{rank:05d}.safetensors").write_bytes(b"old")
            (dead / f"0123-0-{rank:05d}.json").write_text('{"name": "0123-0-00001.safetensors"}')
    run.strategy.barrier()
    save_at(checkpointer(root, run.strategy), run, 5)
    return {}


def invisible(root: Path, run: Run) -> dict:
    """A place that each rank has for itself."""
    write.VISIBLE_S = 0.1
    lines = []
    own = root / str(run.strategy.rank)
    save_at(checkpointer(own, run.strategy, lines=lines), run, 5)
    return {"lines": lines}


def two_ranks(rank: int, folder: str) -> None:
    """What each of two gloo processes does; leaves its findings in `folder`."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    run = Run(strategy=Replicated(), steps=3).train(StubBatches(rank=rank, world=2))
    found = {
        each.__name__: each(Path(folder) / each.__name__, run)
        for each in (goes_on_and_then_fails, storage_in_trouble, leftovers, invisible)
    }
    save_at(checkpointer(Path(folder) / "plain", run.strategy), run, 3)
    torch.save(dict(run.strategy.state()), f"{folder}/state-{rank}.pt")
    half = Path(folder) / "damaged"
    save_at(checkpointer(half, run.strategy), run, 5, 10)
    if rank == 0:
        part = next((half / "step-00000010").glob("*-00001.safetensors"))
        part.write_bytes(part.read_bytes()[:-1] + b"\0\0")
    run.strategy.barrier()
    found["resumed"] = checkpointer(half, run.strategy).resume()[0].step
    Path(folder, f"found-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(two_ranks, (str(folder),), nprocs=2, start_method="spawn")
    return folder, [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]


def test_two_ranks_write_halves_that_one_reads_whole(ranks):
    folder, _ = ranks
    checkpoint = open_checkpoint(str(folder / "plain" / "step-00000003"))
    assert checkpoint.manifest.world == 2
    sizes = [part.size_bytes for part in checkpoint.manifest.parts]
    assert max(sizes) < 0.7 * sum(sizes)
    state = torch.load(folder / "state-0.pt")
    with checkpoint.tensors() as read:
        for name, tensor in state.items():
            assert torch.equal(read(name), tensor), name
    assert set(checkpoint.index()) == set(state)
    alone = trained(1)
    assert checkpointer(folder / "plain", alone.strategy).resume()[0].step == 3
    assert all(torch.equal(tensor, dict(alone.strategy.state())[name]) for name, tensor in state.items())
    assert debris(folder / "plain") == []


def test_a_rank_that_cannot_write_is_known_to_all(ranks):
    folder, found = ranks
    assert [each["goes_on_and_then_fails"]["failed"] for each in found] == [1, 1]
    lines = found[0]["goes_on_and_then_fails"]["lines"]
    assert [line.partition(" (")[0] for line in lines] == [f"the checkpoint of step {n} failed" for n in (2, 4)]
    assert all("disk full while writing" in line for line in lines)
    assert found[1]["goes_on_and_then_fails"]["lines"] == []
    assert all("disk full while writing" in each["goes_on_and_then_fails"]["raised"] for each in found)
    assert steps_at(folder / "goes_on_and_then_fails") == [1, 3]


def test_a_storage_that_one_rank_cannot_reach_ends_all_of_them_for_a_reason_that_may_pass(ranks):
    _, found = ranks
    assert ["run again when it has recovered" in each["storage_in_trouble"]["raised"] for each in found] == [True] * 2


def test_leftovers_of_a_dead_attempt_are_not_taken_for_parts(ranks):
    folder, _ = ranks
    [name] = steps_at(folder / "leftovers")
    checkpoint = open_checkpoint(str(folder / "leftovers" / f"step-{name:08d}"))
    assert not any(part.name.startswith("0123") for part in checkpoint.manifest.parts)
    assert debris(folder / "leftovers") == []


def test_a_place_that_nodes_do_not_share_is_told(ranks):
    folder, found = ranks
    [line] = found[0]["invisible"]["lines"]
    assert "does not show the parts that other workers wrote: set train.checkpoint_uri to a place that" in line
    assert steps_at(folder / "invisible" / "0") == []


def test_ranks_agree_on_what_is_damaged(ranks):
    assert [each["resumed"] for each in ranks[1]] == [5, 5]
