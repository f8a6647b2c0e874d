import pytest
import torch

from tpo_core.errors import TpoError
from tpo_core.models.convert.places import Room, places, published_name, to_ours, to_published

NAMES = [
    ("box_token", "task_tokens.vectors.region"),
    ("temporal_token", "task_tokens.vectors.temporal"),
    ("track_token", "task_tokens.vectors.mask"),
    ("loc_encoder.0.weight", "task_tokens.loc_encoder.0.weight"),
    ("loc_decoder.2.bias", "heads.region.loc_decoder.2.bias"),
    ("track_embed.layers.0.weight", "heads.mask.track_embed.layers.0.weight"),
    ("track_embed_decode2.layers.1.bias", "heads.mask.track_embed_decode2.layers.1.bias"),
    ("cg_model.query_embed.weight", "heads.temporal.network.query_embed.weight"),
    ("project_up.bias", "model.project_up.bias"),
    ("lm.base_model.model.model.norm.weight", "model.language_model.norm.weight"),
]


@pytest.mark.parametrize(("theirs", "ours"), NAMES)
def test_names_go_both_ways(theirs, ours):
    value = torch.randn(1, 1, 6)
    assert list(to_ours(theirs, value)) == [ours]
    assert published_name(ours) == theirs
    assert torch.equal(to_published(theirs, to_ours(theirs, value).__getitem__), value)


def test_task_vectors_lose_and_regain_two_dimensions():
    value = torch.randn(1, 1, 6)
    (ours,) = to_ours("track_token", value).values()
    assert ours.shape == (6,)
    assert to_published("track_token", lambda name: ours).shape == (1, 1, 6)


@pytest.mark.parametrize("name", ["sam.no_mem_embed", "merge_proj.weight", "track_embedding.layers.0.weight", "box"])
def test_tensors_of_other_rooms_are_none_of_our_model(name):
    with pytest.raises(TpoError, match=r"is no tensor of the VideoChat2 backbone"):
        to_ours(name, torch.zeros(1))


def test_a_part_that_was_never_published_has_no_place():
    with pytest.raises(TpoError, match=r"heads.temporal.prompt.weight has no place in the published checkpoint"):
        published_name("heads.temporal.prompt.weight")


def test_every_tensor_of_ours_has_one_place_and_every_place_one_room(layout):
    rooms = places(layout)
    assert list(rooms) == sorted(rooms)
    of_room = {room: [name for name, place in rooms.items() if place.room == room] for room in Room}
    made = [name for each in of_room[Room.MODEL] for name in to_ours(each, torch.empty(6, 6, device="meta"))]
    assert sorted(made) == sorted(layout.model)
    assert all(name.startswith("sam.") for name in of_room[Room.SAM2])
    assert of_room[Room.CONSTANT] == ["cg_criterion.empty_weight", "qformer.bert.embeddings.position_ids"]
    assert len(of_room[Room.UNUSED]) == 19
    assert all(bool(place.reason) == (place.room == Room.UNUSED) for place in rooms.values())


def test_shapes_of_unused_tensors_follow_the_sizes(layout):
    rooms = places(layout)
    assert rooms["project_down.weight"].shape == (12, 24)
    assert rooms["merge_proj.weight"].shape == (24, 48)
    assert rooms["temporal_embed.layers.1.weight"].shape == (2, 24)
    assert rooms["cg_model.txt_proj_linear.net.1.weight"].shape == (16, 24)
    assert rooms["cg_model.txt_position_embed.position_embeddings.weight"].shape == (None, 16)
