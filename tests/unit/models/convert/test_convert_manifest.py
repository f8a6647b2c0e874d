import json
from math import prod
from pathlib import Path

import pytest

from tpo_core.errors import TpoError
from tpo_core.models.convert.checkpoint import Header
from tpo_core.models.convert.layout import Layout, Sizes
from tpo_core.models.convert.manifest import check_manifest, read_manifest
from tpo_core.models.convert.places import Room, places

MANIFEST = Path(__file__).resolve().parents[3] / "golden" / "models" / "videochat_tpo_manifest.json"


@pytest.fixture(scope="module")
def release():
    return read_manifest(MANIFEST)


@pytest.fixture(scope="module")
def published():
    return Layout(Sizes.published())


def test_all_published_names_and_shapes_map(release, published):
    report = check_manifest(release, published)
    assert report.wrong == []
    assert any(line.startswith("2594 of 2594 names and shapes map, one to one") for line in report.lines)
    assert len(release) == json.loads(MANIFEST.read_text())["tensor_count"]


def test_never_executed_tensors_of_the_release_are_the_unused_ones(published):
    about = json.loads(MANIFEST.read_text())
    unused = [name for name, place in places(published).items() if place.room == Room.UNUSED]
    assert len(unused) == about["never_executed_tensor_count"]
    assert {p for p in about["never_executed_prefixes"] if any(n.startswith(p) for n in unused)} == set(
        about["never_executed_prefixes"]
    )
    assert [name for name in unused if not name.startswith(tuple(about["never_executed_prefixes"]))] == []


def test_the_table_counts_tensors_and_numbers_by_prefix(release, published):
    rows = {line.split()[0]: line.split()[1:] for line in check_manifest(release, published).lines[1:] if line}
    assert rows["lm"] == ["741", "7,284,310,128", "741"]
    assert rows["sam"] == ["900", "224,430,386", "900"]
    assert rows["cg_model"] == ["285", "13,953,835", "278", "7"]
    assert rows["qformer"][:2] == ["329", f"{sum(prod(h.shape) for n, h in release.items() if n[:8] == 'qformer.'):,}"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("box_token"), ["lacks box_token"]),
        (lambda t: t.update(new=Header((1,), "BF16")), ["holds new, which does not belong there"]),
        (
            lambda t: t.update(query_tokens=Header((1, 31, 768), "BF16")),
            ["holds query_tokens of shape (1, 31, 768) where (1, 32, 768) is needed"],
        ),
        (
            lambda t: t.update(query_tokens=Header((1, 32, 768), "F32")),
            ["holds query_tokens as F32 where BF16 is needed"],
        ),
        (
            lambda t: (t.pop("sam.no_obj_ptr"), t.update({"loc_decoder.0.bias": Header((2049,), "BF16")})),
            ["lacks sam.no_obj_ptr", "holds loc_decoder.0.bias of shape (2049) where (2048) is needed"],
        ),
    ],
)
def test_what_does_not_fit_is_listed(release, published, change, said):
    changed = dict(release)
    change(changed)
    report = check_manifest(changed, published)
    assert report.wrong == said
    assert report.lines[-len(said) - 1 :] == [
        f"{len(said)} of 2594 names and shapes do not fit:",
        *(f"  {each}" for each in said),
    ]


def test_a_place_that_the_rules_get_wrong_is_noticed(release, published, monkeypatch):
    """The way back cannot notice it alone: the rules there and back must agree."""
    module = "tpo_core.models.convert.manifest"
    real = __import__(module, fromlist=["to_ours"]).to_ours

    def swapped(name, value):
        if name == "project_up.weight":
            return {"model.project_up.bias": value}
        return real(name, value)

    monkeypatch.setattr(f"{module}.to_ours", swapped)
    assert check_manifest(release, published).wrong == [
        "fills model.project_up.bias twice",
        "leaves model.project_up.weight of our model empty",
    ]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tensors": [1]}', '{"tensors": {"a": {"shape": [1]}}}'])
def test_a_file_that_is_no_manifest_is_told(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(TpoError, match=r"m.json is no manifest"):
        read_manifest(tmp_path / "m.json")
    with pytest.raises(TpoError, match=r"none.json cannot be read \(No such file"):
        read_manifest(tmp_path / "none.json")
