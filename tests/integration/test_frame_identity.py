"""Each frame carries its number, in bars: whatever the container, the codec and the keyframes, the frame that comes out
is the one that was asked for, or the file is refused."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tpo_core.data.decode import VIDEO_DECODERS, read_timeline
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import DecodedMedia, DecodeError, DecodeRequest

FRAMES = 200
BITS = 8
H264 = "libx264"


def write_bars(path: Path, codec: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = 32 * BITS, 64, "yuv420p"
        for number in range(FRAMES):
            bars = np.array([(number >> bit) & 1 for bit in range(BITS)], np.uint8) * 255
            picture = np.broadcast_to(bars.repeat(32)[None, :, None], (64, 32 * BITS, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        container.mux(stream.encode())


def numbers_seen(media: DecodedMedia) -> list[int]:
    assert media.frames_THWC is not None
    levels = media.frames_THWC[..., 0].reshape(len(media.frames_THWC), 64, BITS, 32)[:, 16:48, :, 8:24].mean((1, 3))
    return [int(value) for value in (levels > 128) @ (1 << np.arange(BITS))]


OPEN_GOP = "open-gop=1:keyint=25:min-keyint=25:bframes=3:scenecut=0"
CASES = {
    "closed.mp4": (H264, {"bf": "3", "g": "25"}),
    "closed.mov": (H264, {"bf": "3", "g": "25"}),
    "closed.mkv": (H264, {"bf": "3", "g": "25"}),
    "closed.flv": (H264, {"bf": "3", "g": "25"}),
    "open.mp4": (H264, {"x264-params": OPEN_GOP}),
    "open.mkv": (H264, {"x264-params": OPEN_GOP}),
    "refresh.mp4": (H264, {"x264-params": "intra-refresh=1:keyint=30"}),
    "plain.avi": (H264, {"bf": "0", "g": "25"}),
    "plain.ts": (H264, {"bf": "0", "g": "25"}),
    "reordered.avi": (H264, {"bf": "3", "g": "25"}),
    "raw.h264": (H264, {"bf": "3", "g": "25"}),
    "av1.mp4": ("libsvtav1", {"preset": "10", "g": "25", "svtav1-params": "keyint=25"}),
    "reordered.ts": (H264, {"bf": "3", "g": "25"}),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=25:bframes=3:log-level=none"}),
    "hevc-open.mp4": ("libx265", {"x265-params": "keyint=25:bframes=3:open-gop=1:log-level=none"}),
    "mpeg4.avi": ("mpeg4", {"bf": "0", "g": "12"}),
    "mpeg4-b.avi": ("mpeg4", {"bf": "2", "g": "12"}),
    "mpeg4-b.mp4": ("mpeg4", {"bf": "2", "g": "12"}),
    "mpeg4-b.mkv": ("mpeg4", {"bf": "2", "g": "12"}),
    "mpeg1.mpg": ("mpeg1video", {"bf": "0", "g": "15"}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "0", "g": "15"}),
    "mpeg2.mts": ("mpeg2video", {"bf": "2", "g": "15"}),
    "wmv.wmv": ("wmv2", {"g": "12"}),
    "vp8.webm": ("libvpx", {"g": "25", "deadline": "realtime"}),
    "vp9.webm": ("libvpx-vp9", {"g": "25", "cpu-used": "8", "deadline": "realtime"}),
}


@pytest.fixture(scope="module")
def reader():
    with FrameReader(deadline_s=60) as shared:
        yield shared


@pytest.mark.parametrize("name", CASES)
def test_the_frame_that_comes_is_the_frame_asked_for(tmp_path, reader, name):
    write_bars(tmp_path / name, *CASES[name])
    for n_frames in (7, 16, 60):
        asked = DecodeRequest(str(tmp_path / name), "video", 64, n_frames)
        media = reader.decode(asked)
        assert numbers_seen(media) == media.frame_index.tolist(), media.decoder
        for decoder in VIDEO_DECODERS:
            media = decoder(asked)
            assert numbers_seen(media) == media.frame_index.tolist(), decoder.__name__
    assert media.n_frames == FRAMES


def test_decord_is_asked_only_where_decoding_begins_cleanly_at_every_keyframe(tmp_path):
    clean = {}
    for name in ("closed.mp4", "closed.mkv", "open.mp4", "refresh.mp4", "plain.avi", "hevc.mp4", "mpeg4-b.mp4"):
        write_bars(tmp_path / name, *CASES[name])
        clean[name] = read_timeline(str(tmp_path / name)).clean_cuts
    assert [name for name, is_clean in clean.items() if is_clean] == ["closed.mp4", "closed.mkv"]


def test_a_file_that_begins_between_keyframes_is_refused_or_right(tmp_path, reader):
    write_bars(tmp_path / "whole.mp4", *CASES["closed.mp4"])
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(tmp_path / "rest.mp4"), "w") as rest:
        stream = whole.streams.video[0]
        copy = rest.add_stream_from_template(stream)
        for packet in [each for each in whole.demux(stream) if each.dts is not None][53:]:
            packet.stream = copy
            rest.mux(packet)
    with pytest.raises(DecodeError, match="cannot be decoded"):
        reader.decode(DecodeRequest(str(tmp_path / "rest.mp4"), "video", 64, 60))
