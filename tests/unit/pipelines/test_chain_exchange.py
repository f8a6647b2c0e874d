"""Phases of a chain whose work folder is no disk."""

from types import SimpleNamespace

from pipelines import chain as chains
from pipelines.chain import Chain
from tests.unit.train.stub import stub_recipe
from tpo_core.execution.artifact import RECORD, Artifact
from tpo_core.storage import uri as uris
from tpo_core.storage.commit import SUCCESS
from tpo_core.tracking.publish import Publisher


def chain_at(work_uri):
    recipe = stub_recipe().model_copy(update={"work_uri": str(work_uri)})
    return Chain(recipe, Publisher(recipe, "unused"), print)


def finished_phase(uri):
    uris.write_bytes(uris.join(uri, "model", "weights"), b"w")
    uris.write_json(
        uris.join(uri, RECORD),
        {"step": "vision_task", "version": 1, "fingerprint": "f" * 64, "inputs": {}, "identity": {}, "result": {},
         "provenance": {}},
    )  # fmt: skip
    uris.write_bytes(uris.join(uri, SUCCESS), b"")
    return Artifact.load(uri)


def test_a_local_work_folder_needs_no_exchange(tmp_path):
    chain, phase = chain_at(tmp_path), finished_phase(str(tmp_path / "vision_task" / "f"))
    assert chain.exchange("vision_task", "f" * 64) is None
    assert chain.model_of(phase) == f"{tmp_path}/vision_task/f/model"


def test_the_step_that_reads_a_phase_drops_what_it_needed_while_it_ran(bucket):
    chain, phase = chain_at(bucket), finished_phase(f"{bucket}/vision_task/f")
    exchange = chain.exchange("vision_task", phase.fingerprint)
    assert exchange == f"{bucket}/exchange/vision_task/ffffffffffff"
    uris.write_bytes(uris.join(exchange, "kept", "notes.txt"), b"")
    other = chain.exchange("vision_task", "e" * 64)
    uris.write_bytes(uris.join(other, "kept", "notes.txt"), b"")
    assert chain.model_of(phase) == f"{bucket}/vision_task/f/model"
    assert not uris.exists(exchange)
    assert uris.exists(other)


def test_checkpoints_that_are_kept_for_good_stay(bucket):
    chain, phase = chain_at(bucket), finished_phase(f"{bucket}/vision_task/f")
    exchange = chain.exchange("vision_task", phase.fingerprint)
    kept = uris.join(exchange, "checkpoints", "step-00000008", "checkpoint.json")
    left = [uris.join(exchange, name) for name in ("kept/notes.txt", "stacks/rank1.txt", "result/phase.json")]
    for each in (kept, *left):
        uris.write_bytes(each, b"")
    chain.model_of(phase)
    assert uris.exists(kept)
    assert not any(uris.exists(each) for each in left)


def test_rendered_data_are_read_where_all_machines_see_them(tmp_path, monkeypatch):
    roots = []
    monkeypatch.setattr(chains, "preprocess", lambda data, root, *_, **__: roots.append(root))
    monkeypatch.chdir(tmp_path)
    for uri in ("s3://bucket/runs/render/f", "runs/render/f"):
        rendered = SimpleNamespace(uri=uri)
        chain_at(tmp_path).preprocess(SimpleNamespace(inputs={"render": rendered}, output=tmp_path))
    assert roots == ["s3://bucket/runs/render/f", f"{tmp_path}/runs/render/f"]
