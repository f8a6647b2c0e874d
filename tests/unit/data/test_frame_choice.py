"""A benchmark's own choice of frames reaches the decoder, and changes nothing for others."""

import hashlib
import json

import numpy as np
import pytest

from tpo_core.config.base import identity
from tpo_core.config.schema import FramesConfig
from tpo_core.data.frame_choice import mvbench
from tpo_core.data.frames import DecodeRequest, select_frames
from tpo_core.data.intake import Wish
from tpo_core.data.media_store import media_digest
from tpo_core.data.sample import SCHEMA_VERSION, Clip, Media

FPS = 25.0


def chosen(total, fps=FPS, **request):
    wanted = DecodeRequest("v", request.pop("kind", "video"), 96, n_frames=4, choice="mvbench", **request)
    return select_frames(np.arange(total) / fps, total / fps, wanted).tolist()


def test_frames_of_a_video_are_those_of_the_notebook():
    assert chosen(250) == mvbench(4, FPS, 249)
    assert chosen(250, clip_s=(2.0, 6.0)) == mvbench(4, FPS, 249, (2.0, 6.0))


def test_files_of_a_folder_are_numbered_from_one():
    assert chosen(30, 3.0, kind="frames", clip_s=(1.0, 9.0)) == [n - 1 for n in mvbench(4, 3.0, 30, (1.0, 9.0), 1)]


def test_a_short_video_gives_each_frame_once():
    assert chosen(2) == [0, 1]


@pytest.mark.parametrize(("clip", "frames"), [(None, range(50)), ((0.1, 0.3), range(2, 8)), ((0.41, 0.42), [10])])
def test_every_frame_of_a_video_or_a_clip(clip, frames):
    request = DecodeRequest("v", "video", 96, n_frames=4, choice="all", clip_s=clip)
    assert select_frames(np.arange(50) / FPS, 2.0, request).tolist() == list(frames)


def test_an_image_has_one_frame():
    request = DecodeRequest("i.jpg", "image", 96, n_frames=4, choice="mvbench")
    assert select_frames(np.zeros(1), 0.0, request).tolist() == [0]


def test_the_recipe_says_which_choice_is_asked_for():
    wish = Wish(Media("v.mp4", "video", clip_s=Clip(1.0, 2.0)))
    assert wish.request("v.mp4#t=1.0,2.0", None, FramesConfig(choice="mvbench")).choice == "mvbench"
    assert wish.request("v.mp4#t=1.0,2.0", None, FramesConfig()).choice == "midpoints"


def test_media_stored_before_there_was_a_choice_are_found_again():
    plain = DecodeRequest("v", "video", 96, n_frames=4)
    assert media_digest("v", "1", plain) != media_digest("v", "1", DecodeRequest("v", "video", 96, 4, choice="mvbench"))
    asked = {**vars(plain), "uri": "", "features": None, "prefer_frames": []}
    del asked["choice"]
    before = hashlib.sha256(json.dumps([SCHEMA_VERSION, "v", "1", asked], sort_keys=True).encode()).hexdigest()
    assert media_digest("v", "1", plain) == before
    assert "choice" not in identity(FramesConfig())
