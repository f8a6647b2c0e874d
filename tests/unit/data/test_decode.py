"""Decoding: the right frames at the right times, and nothing a damaged file does gets past the child."""

import io
import os
import signal
import tempfile
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tpo_core.data import decode, frame_reader
from tpo_core.data.decode import decode_with_decord, decode_with_pyav
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import (
    DecodedMedia,
    DecodeError,
    DecodeRequest,
    EncoderError,
    FeatureRequest,
    FetchError,
    ranges,
    select_frames,
    stored_size,
)
from tpo_core.errors import TpoError
from tpo_core.storage import uri

RATE = 10


def grey(number: int) -> int:
    return 20 + 8 * number


def write_video(path: Path, n_frames: int = 24, *, size=(128, 96), stamps=None, rotation=0, options=None) -> Path:
    """Frame k is a flat grey of value grey(k) with a red top left corner; `stamps` in tenths of a second."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 8
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(n_frames):
            picture = np.full((size[1], size[0], 3), grey(number), np.uint8)
            picture[: size[1] // 4, : size[0] // 4] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts = number if stamps is None else stamps[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers_seen(media: DecodedMedia) -> list[int]:
    assert media.frames_THWC is not None
    levels = media.frames_THWC[:, -8:, -8:].mean((1, 2, 3))
    return [round((level - grey(0)) / 8) for level in levels]


def request(path: Path, kind: str = "video", *, short_side_px: int = 96, **wanted) -> DecodeRequest:
    return DecodeRequest(str(path), kind, short_side_px, **wanted)


def hang(_: DecodeRequest) -> DecodedMedia:
    threading.Event().wait()
    raise AssertionError("not reached")


def fail(_: DecodeRequest) -> DecodedMedia:
    raise ValueError("two lines\nof trouble")


def crash(_: DecodeRequest) -> DecodedMedia:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("media") / "clip.mp4")


@pytest.fixture(scope="module")
def reader():
    with FrameReader(deadline_s=60) as shared:
        yield shared


@pytest.mark.parametrize("decoder", [decode_with_decord, decode_with_pyav])
def test_the_frames_that_come_back_are_the_frames_asked_for(clip, decoder):
    media = decoder(request(clip, n_frames=1, also_frames=(23, 0, 7, 8)))
    assert media.frame_index.tolist() == [0, 7, 8, 12, 23] == numbers_seen(media)
    assert media.times_s == pytest.approx([0, 0.7, 0.8, 1.2, 2.3])
    assert (media.n_frames, media.width, media.height) == (24, 128, 96)
    assert media.fps == pytest.approx(RATE)
    assert media.duration_s == pytest.approx(2.4)


def test_uniform_sampling_takes_the_midpoints_of_equal_intervals(clip, reader):
    media = reader.decode(request(clip, n_frames=4, short_side_px=48))
    assert media.frame_index.tolist() == [3, 9, 15, 21] == numbers_seen(media)
    assert media.frames_THWC.shape == (4, 48, 64, 3)
    assert media.frames_THWC.dtype == np.uint8
    assert media.decoder == "decord"
    assert tuple(media.frames_THWC[0, 4, 4]) == pytest.approx((253, 0, 0), abs=8)


def test_small_media_are_never_enlarged(clip, reader):
    assert reader.decode(request(clip, n_frames=1, short_side_px=500)).frames_THWC.shape == (1, 96, 128, 3)
    assert stored_size(1920, 1080, 96) == (171, 96)
    assert stored_size(30, 2000, 64) == (30, 2000)


def test_a_short_video_gives_fewer_frames_and_repeats_none(tmp_path, reader):
    media = reader.decode(request(write_video(tmp_path / "short.mp4", 3), n_frames=16))
    assert media.frame_index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("decoder", [decode_with_decord, decode_with_pyav])
def test_variable_frame_rate_is_sampled_by_time(tmp_path, decoder):
    path = write_video(tmp_path / "vfr.mp4", 8, stamps=[0, 1, 2, 3, 20, 40, 60, 70])
    media = decoder(request(path, n_frames=4))
    assert media.frame_index.tolist() == [3, 4, 5, 7] == numbers_seen(media)
    assert media.times_s == pytest.approx([0.3, 2.0, 4.0, 7.0])


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_both_decoders_turn_a_rotated_video_the_same_way(tmp_path, rotation):
    path = write_video(tmp_path / "turned.mp4", 4, rotation=rotation)
    first, second = (decoder(request(path, n_frames=1)) for decoder in (decode_with_decord, decode_with_pyav))
    assert first.frames_THWC.shape == second.frames_THWC.shape == (1, first.height, first.width, 3)
    difference = first.frames_THWC.astype(int) - second.frames_THWC
    assert np.abs(difference).mean() < 3


def test_jpeg_bytes_decode_to_the_frames(clip, reader):
    wanted = request(clip, n_frames=3)
    plain = reader.decode(wanted)
    packed = reader.decode(request(clip, n_frames=3, jpeg_quality=95))
    assert packed.frames_THWC is None
    assert len(packed.jpegs) == 3
    for jpeg, frame in zip(packed.jpegs, plain.frames_THWC, strict=True):
        assert np.abs(np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) - frame).mean() < 3


def test_a_clip_is_sampled_inside_its_bounds_and_timed_from_its_start(clip, reader):
    media = reader.decode(request(clip, n_frames=2, clip_s=(1.0, 2.0)))
    assert media.frame_index.tolist() == [12, 17]
    assert media.times_s == pytest.approx([0.2, 0.7])
    with pytest.raises(DecodeError, match=r"starts at 9 s but the media ends at 2\.4 s"):
        reader.decode(request(clip, n_frames=2, clip_s=(9.0, 12.0)))


def test_annotated_frames_are_preferred_and_named_frames_are_added():
    starts = np.arange(100) / 10
    chosen = select_frames(starts, 10.0, DecodeRequest("v", "video", 96, n_frames=4))
    assert chosen.tolist() == [12, 37, 62, 87]
    wanted = DecodeRequest(
        "v", "video", 96, n_frames=4, prefer_frames=ranges((0, 40, 44, 62, 400)), also_frames=(99, 500)
    )
    assert select_frames(starts, 10.0, wanted).tolist() == [0, 40, 62, 87, 99]


@pytest.mark.parametrize("content", [b"", b"garbage" * 500, None])
def test_damaged_files_raise_one_line_and_leave_the_reader_usable(tmp_path, clip, reader, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(clip.read_bytes()[:2000] if content is None else content)
    with pytest.raises(DecodeError) as caught:
        reader.decode(request(path, n_frames=4))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert reader.decode(request(clip, n_frames=2)).n_frames == 24


def test_a_missing_file_is_told_as_such(tmp_path, reader):
    with pytest.raises(DecodeError, match=r"none\.mp4: no such file$"):
        reader.decode(request(tmp_path / "none.mp4", n_frames=4))


def test_a_storage_that_fails_is_not_a_damaged_file(tmp_path, bucket, clip, monkeypatch):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    uri.write_bytes(f"{bucket}/a.png", (tmp_path / "a.png").read_bytes())
    asked = DecodeRequest(f"{bucket}/a.png", "image", 24, n_frames=1)
    with FrameReader(deadline_s=60) as reader:
        assert reader.decode(asked).width == 32
        with pytest.raises(DecodeError, match="no such file"):
            reader.decode(DecodeRequest(f"{bucket}/b.png", "image", 24, n_frames=1))
    with monkeypatch.context() as patch:
        patch.setattr(uri, "read_bytes", broken)
        with pytest.raises(FetchError, match=r"a\.png: AWS Error SLOW_DOWN"):
            decode.decode_stills(asked)
    with FrameReader(deadline_s=60, decoders=(outage, decode_with_pyav)) as reader, pytest.raises(FetchError):
        reader.decode(request(clip, n_frames=2))
    with FrameReader(deadline_s=60) as reader, pytest.raises(DecodeError, match="no such file"):
        reader.decode(DecodeRequest(f"{bucket}/a.mp4", "video", 24, n_frames=1))


def test_a_remote_video_is_fetched_before_the_deadline_runs_and_leaves_nothing(tmp_path, bucket, clip, monkeypatch):
    uri.write_bytes(f"{bucket}/a.mp4", Path(clip).read_bytes())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    asked = DecodeRequest(f"{bucket}/a.mp4", "video", 24, n_frames=2)
    with FrameReader(deadline_s=60) as reader:
        assert len(reader.decode(asked).frame_index) == 2
    with FrameReader(deadline_s=60, decoders=(name_the_file,)) as reader, pytest.raises(DecodeError) as told:
        reader.decode(asked)
    assert told.value.detail.startswith(str(tmp_path / "temporary"))  # the child is never asked for the remote file
    with FrameReader(deadline_s=0.2, decoders=(hang,)) as reader, pytest.raises(DecodeError, match="no answer within"):
        reader.decode(asked)
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(uri, "copy_here", broken)
    with FrameReader(deadline_s=60) as reader, pytest.raises(FetchError, match=r"a\.mp4: AWS Error SLOW_DOWN"):
        reader.decode(asked)


def test_a_storage_that_refuses_or_does_not_answer_ends_the_job(monkeypatch):
    def refused(_uri: str) -> bytes:
        raise TpoError("s3://bucket/a.png: access denied; check the credentials and the bucket's policy")

    monkeypatch.setattr(uri, "read_bytes", refused)
    with pytest.raises(FetchError, match=r"^s3://bucket/a\.png: access denied"):
        decode.decode_stills(DecodeRequest("s3://bucket/a.png", "image", 24, n_frames=1))


def test_an_encoder_that_fails_ends_the_job_and_damns_no_video(clip):
    asked = FeatureRequest("tests.unit.data.test_decode:Moody", (), 1.0, 1)
    with FrameReader(deadline_s=60) as reader, pytest.raises(EncoderError, match="RuntimeError: no driver"):
        reader.decode(request(clip, n_frames=2, features=asked))


class Moody:
    """An encoder that cannot work."""

    def __call__(self, frames_THWC):
        raise RuntimeError("no driver")


def test_a_deadline_is_a_failure_that_may_pass_and_damage_is_not(tmp_path, clip):
    with FrameReader(deadline_s=0.2, decoders=(hang,)) as reader, pytest.raises(DecodeError) as slow:
        reader.decode(request(clip, n_frames=2))
    (tmp_path / "bad.mp4").write_bytes(b"")
    with FrameReader(deadline_s=60) as reader, pytest.raises(DecodeError) as bad:
        reader.decode(request(tmp_path / "bad.mp4", n_frames=2))
    assert (slow.value.passing, bad.value.passing) == (True, False)


def broken(*_: object) -> bytes:
    raise OSError("AWS Error SLOW_DOWN\nduring GetObject")


def name_the_file(request: DecodeRequest) -> DecodedMedia:
    raise ValueError(request.uri)


def outage(request: DecodeRequest) -> DecodedMedia:
    raise FetchError(f"{request.uri}: no answer")


def test_a_cut_file_whose_header_promises_more_frames_is_refused(tmp_path, reader):
    whole = write_video(tmp_path / "whole.mp4", 24, options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    with pytest.raises(DecodeError, match=r"holds \d+ of the 24 frames"):
        reader.decode(request(cut, n_frames=4))


def test_a_decoder_that_hangs_is_killed_and_the_next_one_asked(clip):
    with FrameReader(deadline_s=0.2, decoders=(hang,)) as reader:
        with pytest.raises(DecodeError, match=r"no answer within 0\.2 s"):
            reader.decode(request(clip, n_frames=2))
        assert reader.pid is None
    with FrameReader(deadline_s=60, decoders=(crash, decode_with_pyav)) as reader:
        assert reader.decode(request(clip, n_frames=2)).decoder == "pyav"


def test_when_all_decoders_fail_the_error_names_each(clip):
    with FrameReader(deadline_s=60, decoders=(crash, fail)) as reader, pytest.raises(DecodeError) as caught:
        reader.decode(request(clip, n_frames=2))
    assert "crash: the decoding process died (exit code -9); fail: two lines of trouble" in str(caught.value)


def test_the_child_is_recycled_and_ends_with_the_reader(clip, monkeypatch):
    monkeypatch.setattr(frame_reader, "RECYCLE_AFTER", 2)
    with FrameReader(deadline_s=60) as reader:
        pids = []
        for _ in range(3):
            reader.decode(request(clip, n_frames=1))
            pids.append(reader.pid)
    assert pids[0] == pids[1] != pids[2]
    with pytest.raises(ProcessLookupError):
        os.kill(pids[2], 0)


@pytest.mark.parametrize("decoder", [decode_with_decord, decode_with_pyav])
def test_a_rate_asks_for_as_many_frames_as_the_length_holds_but_no_more_than_the_most(clip, decoder):
    chosen = [decoder(request(clip, n_frames=most, sample_fps=5)).frame_index.tolist() for most in (100, 4)]
    assert chosen == [[1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23], [3, 9, 15, 21]]
    assert decoder(request(clip, n_frames=9, sample_fps=0.1)).frame_index.tolist() == [12]


@pytest.mark.parametrize(("size", "expected"), [((176, 144), "decord"), ((1280, 720), "pyav"), ((3840, 2160), "pyav")])
def test_the_decoder_suits_the_size_and_the_aspect_ratio_is_kept(tmp_path, reader, size, expected):
    media = reader.decode(request(write_video(tmp_path / "sized.mp4", 3, size=size), n_frames=8))
    assert (media.decoder, media.width, media.height) == (expected, *size)
    assert numbers_seen(media) == [0, 1, 2]
    assert media.frames_THWC.shape == (3, 96, round(96 * size[0] / size[1]), 3)


def test_pyav_jumps_over_what_lies_between_the_wanted_frames(tmp_path):
    path = write_video(tmp_path / "long.mp4", 28)
    line = decode.read_timeline(str(path))
    assert line.keyframes[0] == 0
    assert len(line.keyframes) >= 3
    wanted = [1, 2, *line.keyframes[-1:].tolist(), 27]
    with av.open(str(path)) as container:
        frames = list(decode._pyav_frames(container, line, wanted, 96))
    assert [number for number, _ in frames] == wanted
    assert [round((frame[-8:, -8:].mean() - grey(0)) / 8) for _, frame in frames] == wanted


def write_long_video(path: Path, minutes: int) -> Path:
    """A film of 720p at 30 frames per second: ten seconds of noise are encoded, and their packets repeated."""
    source, rng = path.with_name("part.mp4"), np.random.default_rng(0)
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "qp": "36"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        noise = rng.integers(0, 255, (720, 1280, 3), np.uint8)
        for number in range(300):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, number, 1), "rgb24")))
        container.mux(stream.encode())
    with av.open(str(path), "w") as film:
        copy = None
        for turn in range(6 * minutes):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                copy = copy or film.add_stream_from_template(stream)
                for packet in (packet for packet in container.demux(stream) if packet.dts is not None):
                    packet.pts += int(turn * 10 / stream.time_base)
                    packet.dts += int(turn * 10 / stream.time_base)
                    packet.stream = copy
                    film.mux(packet)
    return path


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of a process from /proc")
def test_a_film_of_ten_minutes_takes_no_more_memory_than_a_clip(tmp_path):
    film = write_long_video(tmp_path / "film.mp4", 10)
    assert film.stat().st_size > 100 << 20  # more than the decoding process may take beside its imports
    with FrameReader(deadline_s=300) as reader:
        media = reader.decode(request(film, n_frames=64, short_side_px=224, jpeg_quality=92))
        assert (media.n_frames, len(media.jpegs)) == (18_000, 64)
        assert media.duration_s == pytest.approx(600)
        assert reader.pid is not None
        assert peak_mib(reader.pid) < 150


class Brightness:
    """An encoder of clips: the mean level of each frame, in one vector."""

    def __init__(self, scale: str) -> None:
        self.scale = float(scale)

    def __call__(self, frames_THWC):
        return frames_THWC[:, -8:, -8:].mean((1, 2, 3)) * self.scale


@pytest.mark.parametrize("decoder", [decode_with_decord, decode_with_pyav])
def test_each_second_gets_a_vector_of_its_own_frames(clip, decoder):
    asked = FeatureRequest("tests.unit.data.test_decode:Brightness", (("scale", "1"),), 1.0, 2)
    media = decoder(request(clip, n_frames=2, features=asked))
    assert media.frame_index.tolist() == [6, 18] == numbers_seen(media)
    assert media.features_SD.dtype == np.float16
    seen = (media.features_SD.astype(float) - grey(0)) / 8
    assert np.abs(seen - [[2, 7], [12, 17], [21, 23]]).max() < 0.4  # the last clip is 0.4 s long


def test_an_encoder_that_does_not_exist_is_told(clip):
    with pytest.raises(TpoError, match=r"'nowhere:None' cannot be imported"):
        decode_with_pyav(request(clip, n_frames=2, features=FeatureRequest("nowhere:None", (), 1.0, 1)))
