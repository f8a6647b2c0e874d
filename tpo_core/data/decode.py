"""Frames out of videos, images and folders of frames: the decoders, which `tpo_core.data.frame_reader` runs.

Time 0 is the first presented frame; a frame is shown from its time stamp until the next one. A file is read twice: once
without decoding, for the time of each frame and the number of frames there must be, then for the frames that are
wanted. Each of those is resized, stored as JPEG and let go before the next one, so that memory does not grow with the
length of a video.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import av
import decord
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Interpolation
from PIL import Image

from tpo_core.data.features import ClipFeatures
from tpo_core.data.fetch import fetching, names, read
from tpo_core.data.frames import (
    IMAGE_SUFFIXES,
    DecodedMedia,
    DecodeRequest,
    Timeline,
    encode_jpeg,
    feature_frames,
    natural_key,
    select_frames,
    stored_size,
)
from tpo_core.storage import local
from tpo_core.storage import uri as uris

DECODER_THREADS = 1  # a decoder's own threads; parallelism comes from the number of readers
# decord's jumps land on wrong frames, while its count of frames is right, where decoding cannot begin cleanly at every
# keyframe (open GOPs, intra refresh) and in containers such as AVI, MPEG-TS and WMV. So it is asked for H.264 in these
# containers alone, and only where every keyframe is an instantaneous refresh (IDR); PyAV reads all else.
DECORD_CONTAINERS = ("mp4", "matroska")
IDR = 5  # type of an H.264 NAL unit
# From here on PyAV is as fast (10.2 s of CPU for 300 frames of a 10-minute 720p film, decord 16.3) and takes 88 MiB
# where decord takes 341 and grows with the film; below, decord is faster where most frames are wanted (300 of 900
# frames at 240p: 0.57 s, PyAV 0.80).
PYAV_FROM_PX = 1280 * 720
FRAMES_AT_A_TIME = 8  # that decord decodes into one array
# H.264 and H.265 never write three zero bytes in a row, and the length in front of a unit holds no more than three: so
# these are a part of the file that was lost, which decoders fill with a guess.
LOST = bytes(16)
CUT_TOLERANCE_S = 0.5  # by which the last frame may end before the length that the header states; 1 % of a long video

Decoder = Callable[[DecodeRequest], DecodedMedia]

decord.logging.set_level(decord.logging.QUIET)  # what it cannot read is told by an error


def _path(uri: str) -> str:
    path = local.to_path(uri)
    with fetching(uri):  # a mount that is gone, or a file that may not be read, is no damaged video
        if not path.is_file():
            raise FileNotFoundError
        with path.open("rb") as file:
            file.read(1)
    return str(path)


def read_timeline(path: str) -> Timeline:
    """Frame times of the first video stream of a local file.

    Raises:
        ValueError: no video, no frames, clearly fewer frames or less time than the container's header promises (a cut
            file), or a part of a frame that was lost.
    """
    with av.open(path) as container:
        stream = _video_stream(container)
        promised, rate, base = stream.frames, stream.average_rate, stream.time_base
        packets = _packets(container, stream)
        named = any(name in container.format.name for name in DECORD_CONTAINERS)
        jumps = not container.format.name.startswith("mpeg")
        begins = bool(packets) and packets[0].is_key and all(each.is_idr for each in packets if each.is_key)
        # AVI has times of decoding alone, so that with B-frames those of H.264 frames come out of order: count instead
        counted = container.format.name == "avi" and stream.codec.name == "h264" and stream.codec_context.has_b_frames
        clean = named and stream.codec.name == "h264" and begins
        missing = promised - len(packets)
        packets = [packet for packet in packets if not packet.hidden]
        if not packets:
            raise ValueError("holds no frames")
        if missing > max(1, 0.01 * promised):
            raise ValueError(f"holds {promised - missing} of the {promised} frames its header promises")
    with av.open(path) as container:  # anew: a raw stream cannot be wound back
        first = next(container.decode(_video_stream(container)))
        turned = first.rotation % 180 != 0
        width, height = (first.height, first.width) if turned else (first.width, first.height)
    stamps = np.array(sorted({packet.stamp for packet in packets if packet.stamp is not None}), np.int64)
    if len(stamps) == len(packets) and base is not None:
        starts = (stamps - stamps[0]) * float(base)
        last = max(packets, key=lambda packet: packet.stamp or 0)
        tail = float(last.duration * base) or (starts[-1] / (len(starts) - 1) if len(starts) > 1 else 1.0)
        # a jump in an MPEG program or transport stream gives frames with stamps that are guessed
        keyed = sorted(packet.stamp for packet in packets if packet.is_key and packet.stamp is not None and jumps)
        keyframes = np.searchsorted(stamps, keyed)
        if counted:
            stamps, keyframes = np.zeros(0, np.int64), np.zeros(0, np.int64)
    else:  # containers without (distinct) presentation times, e.g. raw streams and some AVI: a constant rate
        if not rate:
            raise ValueError("has neither time stamps nor a frame rate")
        starts, tail = np.arange(len(packets)) / float(rate), 1 / float(rate)
        stamps, keyframes, clean = np.zeros(0, np.int64), np.zeros(0, np.int64), False
    duration = float(starts[-1] + tail)
    return Timeline(starts, duration, len(starts) / duration, width, height, first.rotation, stamps, keyframes, clean)


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream; the cover picture of a song is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise ValueError("holds no video stream")


class _Packet(NamedTuple):
    """Facts of one encoded frame. `hidden`: decoded, not shown."""

    stamp: int | None
    duration: int
    is_key: bool
    hidden: bool
    is_idr: bool


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> list[_Packet]:
    """Each packet of the stream. ValueError where a part of one was lost, or where Matroska, which does not count
    frames, ends too early."""
    header = stream.codec_context.extradata or b""
    checked = stream.codec.name in ("h264", "hevc") and header[:1] == b"\1"  # units with their length in front
    prefix_bytes = (header[4] & 3) + 1 if checked and stream.codec.name == "h264" else 0
    stated_s = (container.duration or 0) / av.time_base if "matroska" in container.format.name else 0.0
    packets: list[_Packet] = []
    end_s = 0.0
    for packet in container.demux() if stated_s else container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is not None and packet.time_base is not None:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != stream.index:
            continue
        if checked and LOST in bytes(packet):
            raise ValueError(f"a part of packet {len(packets)} is zero: it was lost")
        is_idr = packet.is_keyframe and IDR in _unit_types(bytes(packet), prefix_bytes)
        packets.append(_Packet(packet.pts, packet.duration or 0, packet.is_keyframe, packet.is_discard, is_idr))
    if stated_s - end_s > max(CUT_TOLERANCE_S, 0.01 * stated_s):
        raise ValueError(f"ends after {end_s:g} of the {stated_s:g} s its header promises")
    return packets


def _unit_types(data: bytes, prefix_bytes: int) -> set[int]:
    """Types of the H.264 units of a packet; none where their length does not stand in front (0 bytes of it)."""
    types, at = set(), 0
    while prefix_bytes and at + prefix_bytes < len(data):
        types.add(data[at + prefix_bytes] & 31)
        at += prefix_bytes + int.from_bytes(data[at : at + prefix_bytes], "big")
    return types


class _Wanted:
    """The frames that a request asks of a media with a known timeline, and what becomes of each."""

    def __init__(self, request: DecodeRequest, line: Timeline) -> None:
        self.request, self.line = request, line
        self.stored = select_frames(line.starts_s, line.duration_s, request)
        self._features = None
        index = self.stored
        if request.features is not None:
            clips = feature_frames(line.starts_s, line.duration_s, request)
            self._features = ClipFeatures(request.features, clips)
            index = np.union1d(index, clips)
        self.index: list[int] = index.tolist()
        self._kept: set[int] = set(self.stored.tolist())

    def collect(self, frames: Iterable[tuple[int, np.ndarray]], decoder: str) -> DecodedMedia:
        """Takes (number, HWC uint8 RGB of stored size) for each of `index`, ascending."""
        request, line = self.request, self.line
        raw: list[np.ndarray] = []
        jpegs: list[bytes] = []
        height = width = 0
        for count, (number, frame_HWC) in enumerate(frames):
            assert number == self.index[count], f"{decoder} gave frame {number} for {self.index[count]}"
            height, width = frame_HWC.shape[:2]
            if self._features is not None:
                self._features.add(number, frame_HWC)
            if number not in self._kept:
                continue
            if request.jpeg_quality is None:
                raw.append(frame_HWC)
            else:
                jpegs.append(encode_jpeg(frame_HWC, request.jpeg_quality))
        assert len(raw) + len(jpegs) == len(self.stored), f"{decoder} gave too few frames"
        return DecodedMedia(
            frames_THWC=np.stack(raw) if request.jpeg_quality is None else None,
            jpegs=None if request.jpeg_quality is None else tuple(jpegs),
            frame_index=self.stored,
            times_s=line.starts_s[self.stored] - (request.clip_s[0] if request.clip_s is not None else 0.0),
            n_frames=len(line.starts_s),
            fps=line.fps or None,
            duration_s=line.duration_s,
            width=line.width,
            height=line.height,
            stored_width=width,
            stored_height=height,
            decoder=decoder,
            features_SD=None if self._features is None else self._features.done(),
        )


def decode_video(request: DecodeRequest) -> DecodedMedia:
    """A video by the decoder that is right, and suits its size. Decoders of videos read files of this machine."""
    path = _path(request.uri)
    line = read_timeline(path)
    small = line.width * line.height < PYAV_FROM_PX
    return (_by_decord if small and line.clean_cuts else _by_pyav)(path, line, request)


def decode_with_decord(request: DecodeRequest) -> DecodedMedia:
    """A video by decord, decoded at the stored size."""
    path = _path(request.uri)
    return _by_decord(path, read_timeline(path), request)


def decode_with_pyav(request: DecodeRequest) -> DecodedMedia:
    """A video by PyAV: from the keyframe before a wanted frame on, each frame matched by its time stamp."""
    path = _path(request.uri)
    return _by_pyav(path, read_timeline(path), request)


def _by_decord(path: str, line: Timeline, request: DecodeRequest) -> DecodedMedia:
    if not line.clean_cuts:
        raise ValueError("is of a kind that decord reads wrong frames of")
    wanted = _Wanted(request, line)
    width, height = stored_size(line.width, line.height, request.short_side_px)
    # fault_tol=1: more than one frame replaced by its neighbour is an error, not a silent repair
    reader = decord.VideoReader(path, width=width, height=height, num_threads=DECODER_THREADS, fault_tol=1)
    if len(reader) != len(line.starts_s):
        raise ValueError(f"sees {len(reader)} frames where the container holds {len(line.starts_s)}")

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(wanted.index), FRAMES_AT_A_TIME):
            numbers = wanted.index[start : start + FRAMES_AT_A_TIME]
            yield from zip(numbers, reader.get_batch(numbers).asnumpy(), strict=True)

    return wanted.collect(frames(), "decord")


def _by_pyav(path: str, line: Timeline, request: DecodeRequest) -> DecodedMedia:
    wanted = _Wanted(request, line)
    with av.open(path) as container:
        return wanted.collect(_pyav_frames(container, line, wanted.index, request.short_side_px), "pyav")


def _pyav_frames(
    container: av.container.InputContainer, line: Timeline, index: list[int], short_side_px: int
) -> Iterator[tuple[int, np.ndarray]]:
    stream = _video_stream(container)
    stream.codec_context.thread_count = DECODER_THREADS
    quarters = line.rotation // 90 % 4
    width, height = stored_size(line.width, line.height, short_side_px)
    coded = (height, width) if quarters % 2 else (width, height)
    decoded, jumps, at = enumerate(container.decode(stream)), len(line.keyframes) > 0, -1

    def reach(number: int, key: int) -> tuple[int, av.VideoFrame | None]:
        for count, frame in decoded:
            stamp = frame.pts if len(line.stamps) else None
            seen = count if stamp is None else int(np.searchsorted(line.stamps, stamp))
            if frame.is_corrupt and seen >= key:  # those that follow are predicted from it
                raise ValueError(f"frame {seen} of {len(line.starts_s)} is damaged")
            if seen >= number:
                return seen, frame
        return len(line.starts_s), None

    for number in index:
        key = line.keyframes[np.searchsorted(line.keyframes, number, side="right") - 1] if jumps else 0
        if at < key - 1:  # frames in between would be decoded for nothing
            container.seek(int(line.stamps[key]), stream=stream)
            decoded = enumerate(container.decode(stream))
        at, frame = reach(number, key)
        if at > number and jumps:  # a container without an index, or a stream that takes more than a keyframe to start
            jumps = False
            container.seek(0)
            decoded = enumerate(container.decode(stream))
            at, frame = reach(number, 0)
        if at != number or frame is None:
            raise ValueError(f"frame {number} of {len(line.starts_s)} cannot be decoded")
        small = frame.reformat(*coded, format="rgb24", interpolation=Interpolation.BICUBIC)
        yield number, np.ascontiguousarray(np.rot90(small.to_ndarray(), quarters))


def decode_stills(request: DecodeRequest) -> DecodedMedia:
    """One image, or the wanted files of a folder of frames, by PIL; any mode becomes RGB, EXIF rotation is ignored
    (annotations of image sets refer to the pixels as stored)."""
    files, seconds = _files(request)
    starts, duration = np.arange(len(files)) * seconds, len(files) * seconds
    none = np.zeros(0, np.int64)
    rate = 1 / seconds if seconds and request.fps else 0.0
    plan = Timeline(starts, duration, rate, 0, 0, 0, none, none, False)
    first_number = int(select_frames(starts, duration, request)[0])
    first = read(files[first_number])
    with Image.open(io.BytesIO(first)) as image:
        size = image.size
    wanted = _Wanted(request, replace(plan, width=size[0], height=size[1]))
    width, height = stored_size(*size, request.short_side_px)

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        for number in wanted.index:
            content = first if number == first_number else read(files[number])
            with Image.open(io.BytesIO(content)) as image:
                if image.format == "JPEG" and not _has_end(content):
                    raise ValueError(f"frame {number} has no end: it was cut or lost")
                if image.size != size:
                    raise ValueError(f"frame {number} has size {image.size}, the first one {size}")
                small = _rgb(image).resize((width, height), Image.Resampling.BICUBIC)
                yield number, np.asarray(small)

    return wanted.collect(frames(), "pil")


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB. PIL clips 16-bit grey to white, so that its upper byte is taken here."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, np.int32) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _has_end(jpeg: bytes) -> bool:
    """Whether an end marker follows the pixels of a JPEG file: where they are zero, PIL makes grey of them."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1] != 0xDA:  # the segments before the pixels, thumbnails too
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") if jpeg[at + 1] != 0xFF else 1
    return jpeg.find(b"\xff\xd9", at) >= 0


def _files(request: DecodeRequest) -> tuple[list[str], float]:
    """The files of an image or a folder of frames, and the seconds from one to the next."""
    if request.kind == "image":
        return [request.uri], 0.0
    there = names(request.uri)
    wanted: Sequence[str] = request.frame_names or sorted(
        (name for name in there if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")), key=natural_key
    )
    if not wanted:
        raise ValueError("holds no frames")
    known = set(there)
    lost = [name for name in wanted if "/" not in name and name not in known]
    if lost:
        raise ValueError(f"lacks {len(lost)} of {len(wanted)} frames, the first one {lost[0]}")
    seconds = (request.frame_stride or 1) / request.fps if request.fps else 1.0
    return [uris.join(request.uri, name) for name in wanted], seconds


VIDEO_DECODERS: tuple[Decoder, ...] = (decode_video, decode_with_pyav)
