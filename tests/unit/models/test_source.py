"""A model is identified by its content, wherever it lies, and a missing one is told before anything is spent."""

import os
import shutil

import pytest

from tpo_core.errors import TpoError
from tpo_core.models.source import SAMPLED_BYTES, identify
from tpo_core.storage import uri as uris
from tpo_core.storage.commit import commit


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "weights.safetensors").write_bytes(bytes(5 * SAMPLED_BYTES))
    return tmp_path / "model"


def test_a_moved_model_is_the_same_model(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "other name")
    assert identify(str(moved)) == identify(str(folder)) == identify(f"file://{folder}")


@pytest.mark.parametrize("at", [0, 5 * SAMPLED_BYTES // 2, 5 * SAMPLED_BYTES - 1])
def test_other_weights_are_another_model(folder, at):
    before, weights = identify(str(folder)), folder / "weights.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[at] = 1
    weights.write_bytes(changed)
    assert identify(str(folder)) != before


def test_a_further_file_is_another_model_but_a_card_is_not(folder):
    before = identify(str(folder))
    (folder / "README.md").write_text("# Card")
    assert identify(str(folder)) == before
    (folder / "extra.json").write_text("{}")
    assert identify(str(folder)) != before


def test_a_model_that_is_nowhere_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("no/such-model", "no such model/at/all"):
        with pytest.raises(TpoError, match=r"^no model at '.*': not a folder, and not to be had from the hub \(.*\)$"):
            identify(name)


def test_all_bytes_of_a_folder_tell_it_from_another_with_the_same_samples(folder, tmp_path):
    merged = shutil.copytree(folder, tmp_path / "merged")
    weights = bytearray((merged / "weights.safetensors").read_bytes())
    weights[SAMPLED_BYTES + 1] = 1  # between the samples
    (merged / "weights.safetensors").write_bytes(weights)
    assert identify(str(merged), whole=True) != identify(str(folder), whole=True)
    moved = shutil.copytree(folder, tmp_path / "moved")
    os.utime(moved / "weights.safetensors", ns=(1, 1))
    assert identify(str(moved), whole=True) == identify(str(folder), whole=True)


def test_weights_that_were_replaced_in_place_are_read_again(folder):
    weights = folder / "weights.safetensors"
    before = identify(str(folder), whole=True)
    weights.write_bytes(bytes(SAMPLED_BYTES) + b"1" + bytes(4 * SAMPLED_BYTES - 1))
    os.utime(weights, ns=(1, 1))
    assert identify(str(folder), whole=True) != before


def test_a_model_that_was_replaced_in_a_bucket_is_another_one(folder, bucket):
    uri = f"{bucket}/model"
    commit(shutil.copytree(folder, folder.with_name("first")), uri)
    before = identify(uri)
    assert identify(uri) == before
    uris.delete(uri)
    (folder / "weights.safetensors").write_bytes(bytes(5 * SAMPLED_BYTES - 1) + b"1")
    commit(folder, uri)
    assert identify(uri) != before
    with pytest.raises(TpoError, match=r"^s3://\S*/none is no finished folder"):
        identify(f"{bucket}/none")
