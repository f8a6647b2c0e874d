import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.models.convert.published_files import write_checkpoint
from tpo_core.errors import TpoError
from tpo_core.models.convert.checkpoint import Checkpoint, Header, Wanted, differences, write_shards

INDEX = "model.safetensors.index.json"


@pytest.fixture
def tensors():
    return {f"t{number}": torch.randn(number + 1, 3) for number in range(5)}


@pytest.fixture
def folder(tensors, tmp_path):
    return write_checkpoint(tmp_path / "given", tensors, shards=2)


def test_all_tensors_are_read_from_all_files(folder, tensors):
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.headers == {name: Header(tuple(value.shape), "F32") for name, value in tensors.items()}
    assert all(torch.equal(checkpoint.read(name), value) for name, value in tensors.items())
    assert checkpoint.headers["t4"].size_bytes == tensors["t4"].nbytes


def test_a_folder_without_an_index_is_all_its_files(folder, tensors):
    (folder / INDEX).unlink()
    assert Checkpoint.open(folder).headers.keys() == tensors.keys()


def test_one_file_is_enough(tensors, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(Checkpoint.open(tmp_path).read("t3"), tensors["t3"])


def test_files_that_both_hold_a_tensor_are_refused(folder, tensors):
    (folder / INDEX).unlink()
    save_file({"t3": tensors["t3"]}, folder / "old.safetensors")
    with pytest.raises(TpoError, match=r"old.safetensors and model-00002-of-00002.safetensors both hold t3"):
        Checkpoint.open(folder)


def test_a_folder_that_is_no_checkpoint_is_told(tmp_path):
    (tmp_path / "README.md").write_text("nothing here")
    with pytest.raises(TpoError, match=r"is no checkpoint: it has neither model.safetensors.index.json nor"):
        Checkpoint.open(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(TpoError, match=r"no model at .*nowhere/at/all"):
        Checkpoint.open(tmp_path / "nowhere" / "at" / "all")


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_file_that_is_cut_short_is_named(folder, kept):
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(TpoError, match=r"model-00002-of-00002.safetensors is cut short") as told:
        Checkpoint.open(folder)
    assert "\n" not in str(told.value)


def test_a_pointer_in_place_of_a_file_is_told(folder):
    (folder / "model-00001-of-00002.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    with pytest.raises(TpoError, match=r"model-00001-of-00002.safetensors is cut short or no safetensors file"):
        Checkpoint.open(folder)


def test_an_index_that_names_a_missing_shard_is_told(folder):
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(TpoError, match=r"lacks model-00001-of-00002.safetensors, which model.safetensors.index.json"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"metadata": {}}', '{"weight_map": 3}', '{"weight_map": ["t0"]}', '"text"']
)
def test_an_index_that_is_none_is_told(folder, text):
    (folder / INDEX).write_text(text)
    with pytest.raises(TpoError, match=r"index.json is no index of safetensors files"):
        Checkpoint.open(folder)


def test_index_and_files_must_agree(folder):
    index = json.loads((folder / INDEX).read_text())
    for change, message in (
        ({"t9": "model-00001-of-00002.safetensors"}, r"model-00001-of-00002.safetensors lacks t9"),
        ({"t0": "model-00002-of-00002.safetensors"}, r"model-00001-of-00002.safetensors holds t0, which .* not name"),
    ):
        (folder / INDEX).write_text(json.dumps({"weight_map": {**index["weight_map"], **change}}))
        with pytest.raises(TpoError, match=message):
            Checkpoint.open(folder)


def test_differences_come_one_a_tensor_with_the_missing_first():
    headers = {
        "a": Header((2, 3), "F32"),
        "b": Header((2,), "I8"),
        "extra": Header((1,), "F32"),
        "free": Header((9, 4), "BF16"),
        "flat": Header((6,), "F32"),
    }
    wanted = {
        "a": Wanted((2, 4)), "b": Wanted((2,), ("BF16", "F32")), "gone": Wanted((1,)), "free": Wanted((None, 4)),
        "flat": Wanted((6, 1)),
    }  # fmt: skip
    assert differences(headers, wanted) == [
        "lacks gone",
        "holds extra, which does not belong there",
        "holds a of shape (2, 3) where (2, 4) is needed",
        "holds flat of shape (6) where (6, 1) is needed",
        "holds b as I8 where BF16 or F32 is needed",
    ]
    assert differences(headers, {name: Wanted(each.shape, (each.dtype,)) for name, each in headers.items()}) == []


def test_shards_hold_at_most_their_size_and_come_back_whole(tensors, tmp_path):
    told: list[int] = []
    sizes = {name: value.nbytes for name, value in tensors.items()}
    write_shards(tmp_path, sizes, lambda name: {name: tensors[name]}, told.append, shard_bytes=60)
    files = sorted(tmp_path.glob("*.safetensors"))
    held = [list(load_file(file)) for file in files]
    assert [sorted(each) for each in held] == [["t0", "t1"], ["t2"], ["t3"], ["t4"]]
    assert [file.name for file in files] == [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
    assert told == list(sizes.values())
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(sizes.values())
    checkpoint = Checkpoint.open(tmp_path)
    assert all(torch.equal(checkpoint.read(name), value) for name, value in tensors.items())


def test_one_key_may_give_several_tensors_or_parts_of_one(tmp_path):
    whole = torch.arange(12.0).view(6, 2)
    make = {"q": dict(zip("abc", whole.chunk(3), strict=True)), "z": {"flat": torch.ones(1, 1, 2).reshape(-1)}}
    write_shards(tmp_path, {"q": 48, "z": 8}, make.__getitem__, lambda size: None)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.read("b").tolist() == whole[2:4].tolist()
    assert checkpoint.headers.keys() == {"a", "b", "c", "flat"}
