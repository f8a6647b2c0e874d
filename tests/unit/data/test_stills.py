"""Images and folders of frames."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from tests.unit.data.test_decode import grey, numbers_seen, request
from tpo_core.data import decode
from tpo_core.data.fetch import local_copy
from tpo_core.data.frames import DecodeRequest, FetchError, natural_key
from tpo_core.errors import TpoError
from tpo_core.storage import uri


def test_an_image_is_one_rgb_frame(tmp_path):
    picture = Image.new("P", (40, 30), 0)
    picture.putpalette([10, 200, 30] + [0] * 765)
    picture.save(tmp_path / "one.png")
    media = decode.decode_stills(request(tmp_path / "one.png", "image", n_frames=8, short_side_px=15))
    assert media.frames_THWC.shape == (1, 15, 20, 3)
    assert tuple(media.frames_THWC[0, 0, 0]) == (10, 200, 30)
    assert (media.n_frames, media.fps, media.width, media.height, media.decoder) == (1, None, 40, 30, "pil")
    assert media.times_s.tolist() == [0.0]


def test_a_folder_of_frames_is_read_in_numerical_order(tmp_path):
    for number in (0, 1, 2, 9, 10, 11):
        Image.new("RGB", (32, 24), (grey(number),) * 3).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    media = decode.decode_stills(request(tmp_path, "frames", n_frames=16, short_side_px=24))
    assert numbers_seen(media) == [0, 1, 2, 9, 10, 11]
    assert media.times_s.tolist() == [0, 1, 2, 3, 4, 5]
    listed = DecodeRequest(
        str(tmp_path), "frames", 24, n_frames=3, frame_names=("2.png", "9.png", "10.png"), fps=30, frame_stride=5
    )
    media = decode.decode_stills(listed)
    assert numbers_seen(media) == [2, 9, 10]
    assert media.times_s == pytest.approx([0, 1 / 6, 2 / 6])


def test_a_missing_frame_is_told_even_where_it_was_not_asked_for(tmp_path):
    for number in (0, 1, 3):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{number}.png")
    names = tuple(f"{number}.png" for number in range(4))
    with pytest.raises(ValueError, match=r"lacks 1 of 4 frames, the first one 2\.png"):
        decode.decode_stills(DecodeRequest(str(tmp_path), "frames", 24, n_frames=1, frame_names=names))


def test_grey_of_16_bits_keeps_its_shades(tmp_path):
    shades = np.linspace(0, 65535, 32, dtype=np.uint16)[None].repeat(24, 0)
    Image.fromarray(shades).save(tmp_path / "a.png")
    media = decode.decode_stills(DecodeRequest(str(tmp_path / "a.png"), "image", 24, n_frames=1))
    assert media.frames_THWC is not None
    assert np.array_equal(media.frames_THWC[0, 0, :, 0], shades[0] >> 8)


def test_hidden_files_are_no_frames(tmp_path):
    """An archive that was made on a Mac holds a file of attributes beside each frame."""
    for number in range(4):
        Image.new("RGB", (32, 24), (grey(number),) * 3).save(tmp_path / f"{number}.png")
        (tmp_path / f"._{number}.png").write_bytes(b"attributes")
    media = decode.decode_stills(request(tmp_path, "frames", n_frames=16, short_side_px=24))
    assert (media.n_frames, numbers_seen(media)) == (4, [0, 1, 2, 3])


def test_digits_of_other_scripts_are_no_numbers():
    assert sorted(["2.png", "10.png", "1\u00b2.png"], key=natural_key) == ["1\u00b2.png", "2.png", "10.png"]


def test_a_listing_that_fails_is_no_damaged_folder(monkeypatch):
    def refused(_uri: str) -> list[str]:
        raise ClientError({"Error": {"Code": "InvalidRequest"}}, "ListObjectsV2")

    monkeypatch.setattr(uri, "list_names", refused)
    with pytest.raises(FetchError, match=r"^s3://bucket/clip: .*InvalidRequest"):
        decode.decode_stills(DecodeRequest("s3://bucket/clip", "frames", 24, n_frames=1))


def test_a_video_that_cannot_be_opened_is_no_damaged_one(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"x")

    def gone(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "open", gone)
    with pytest.raises(FetchError, match=r"a\.mp4: .*Stale file handle"):
        decode.decode_video(request(tmp_path / "a.mp4", n_frames=1))


def test_a_full_disk_for_temporary_files_is_told_with_its_place(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(uri, "copy_here", full)
    with pytest.raises(TpoError, match=r"disk full while writing \S*tpo-media-"), local_copy("s3://bucket/a.mp4"):
        pass
