"""Frames out of videos, images and folders of frames, decoded in a child process that may be killed.

Damaged files make native decoders hang, leak or crash, and decord bundles an ffmpeg of 2021: so files are only ever
opened in a child, one request at a time, under a deadline. A child that overruns or dies is replaced, and each child is
retired after `RECYCLE_AFTER` requests. Videos go to decord first and to PyAV when decord fails. Decoding, resizing and
JPEG encoding all happen in the child, so that raw frames need not cross the pipe.

Time 0 is the first presented frame; a frame is shown from its time stamp until the next one.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from types import TracebackType

import av
import decord
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image

from tpo_core.data.frames import (
    IMAGE_SUFFIXES,
    DecodedMedia,
    DecodeError,
    DecodeRequest,
    Timeline,
    encode_jpeg,
    natural_key,
    select_frames,
    stored_size,
)
from tpo_core.storage import local
from tpo_core.storage import uri as uris

RECYCLE_AFTER = 2000  # requests; decord is known to leak (18 MB after 2,000 clips of 96 px), a new child costs seconds
START_DEADLINE_S = 120.0  # imports of a child on a busy machine
DECODER_THREADS = 1  # a decoder's own threads; parallelism comes from the number of readers


Decoder = Callable[[DecodeRequest], DecodedMedia]


@contextmanager
def _local_copy(uri: str) -> Iterator[str]:
    """A path on this machine with the bytes of `uri`; what had to be fetched is removed again."""
    if uris.is_local(uri):
        path = local.to_path(uri)
        if not path.is_file():
            raise FileNotFoundError("no such file")
        yield str(path)
        return
    with tempfile.NamedTemporaryFile(suffix=os.path.splitext(uri)[1]) as file:
        file.write(uris.read_bytes(uri))
        file.flush()
        yield file.name


def read_timeline(path: str) -> Timeline:
    """Frame times of the first video stream of a local file.

    Raises:
        ValueError: no video, no frames, or clearly fewer frames than the container's header promises (a cut file).
    """
    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("holds no video stream")
        stream = container.streams.video[0]
        promised, rate, base = stream.frames, stream.average_rate, stream.time_base
        packets = [packet for packet in container.demux(stream) if packet.size]
        missing = promised - len(packets)
        packets = [packet for packet in packets if not packet.is_discard]
        if not packets:
            raise ValueError("holds no frames")
        if missing > max(1, 0.01 * promised):
            raise ValueError(f"holds {promised - missing} of the {promised} frames its header promises")
        stamps = sorted({packet.pts for packet in packets if packet.pts is not None})
        last = max(packets, key=lambda packet: packet.pts if packet.pts is not None else 0)
        container.seek(0, stream=stream)
        first = next(container.decode(stream))
        turned = first.rotation % 180 != 0
        width, height = (first.height, first.width) if turned else (first.width, first.height)
    if len(stamps) == len(packets) and base is not None:
        starts = (np.array(stamps, np.float64) - stamps[0]) * float(base)
        tail = float((last.duration or 0) * base) or (starts[-1] / (len(starts) - 1) if len(starts) > 1 else 1.0)
        order = {stamp: number for number, stamp in enumerate(stamps)}
    else:  # containers without (distinct) presentation times, e.g. raw streams and some AVI: a constant rate
        if not rate:
            raise ValueError("has neither time stamps nor a frame rate")
        starts, tail, order = np.arange(len(packets)) / float(rate), 1 / float(rate), {}
    duration = float(starts[-1] + tail)
    return Timeline(starts, duration, len(starts) / duration, width, height, first.rotation, order)


def _finished(
    request: DecodeRequest, line: Timeline, index: np.ndarray, frames_THWC: np.ndarray, decoder: str
) -> DecodedMedia:
    assert len(frames_THWC) == len(index), f"{decoder} gave {len(frames_THWC)} frames for {len(index)}"
    times = line.starts_s[index] - (request.clip_s[0] if request.clip_s is not None else 0.0)
    media = DecodedMedia(
        frames_THWC=frames_THWC,
        jpegs=None,
        frame_index=index,
        times_s=times,
        n_frames=len(line.starts_s),
        fps=line.fps or None,
        duration_s=line.duration_s,
        width=line.width,
        height=line.height,
        stored_width=frames_THWC.shape[2],
        stored_height=frames_THWC.shape[1],
        decoder=decoder,
    )
    if request.jpeg_quality is None:
        return media
    return replace(media, frames_THWC=None, jpegs=encode_jpeg(frames_THWC, request.jpeg_quality))


def decode_with_decord(request: DecodeRequest) -> DecodedMedia:
    """A video by decord, decoded at the stored size (a 1080p file at full size peaks at 1.9 GB)."""
    with _local_copy(request.uri) as path:
        line = read_timeline(path)
        index = select_frames(line.starts_s, line.duration_s, request)
        width, height = stored_size(line.width, line.height, request.short_side_px)
        # fault_tol=1: more than one frame replaced by its neighbour is an error, not a silent repair
        reader = decord.VideoReader(path, width=width, height=height, num_threads=DECODER_THREADS, fault_tol=1)
        if len(reader) != len(line.starts_s):
            raise ValueError(f"sees {len(reader)} frames where the container holds {len(line.starts_s)}")
        return _finished(request, line, index, reader.get_batch(index.tolist()).asnumpy(), "decord")


def decode_with_pyav(request: DecodeRequest) -> DecodedMedia:
    """A video by PyAV: every frame up to the last wanted one is decoded in turn and matched by its time stamp."""
    with _local_copy(request.uri) as path:
        line = read_timeline(path)
        index = select_frames(line.starts_s, line.duration_s, request)
        width, height = stored_size(line.width, line.height, request.short_side_px)
        quarters = line.rotation // 90 % 4
        coded = (height, width) if quarters % 2 else (width, height)
        wanted: set[int] = set(index.tolist())
        found: dict[int, np.ndarray] = {}
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = DECODER_THREADS
            for count, frame in enumerate(container.decode(stream)):
                number = count if frame.pts is None else line.order.get(frame.pts, count)
                if number in wanted:
                    small = frame.reformat(*coded, format="rgb24", interpolation=Interpolation.BICUBIC)
                    found[number] = np.rot90(small.to_ndarray(), quarters)
                if len(found) == len(wanted):
                    break
        if len(found) < len(wanted):
            raise ValueError(f"frame {min(wanted - set(found))} of {len(line.starts_s)} cannot be decoded")
        return _finished(request, line, index, np.stack([found[number] for number in index.tolist()]), "pyav")


def decode_stills(request: DecodeRequest) -> DecodedMedia:
    """One image, or the wanted files of a folder of frames, by PIL; any mode becomes RGB, EXIF rotation is ignored
    (annotations of image sets refer to the pixels as stored)."""
    if request.kind == "image":
        files, seconds = [request.uri], 0.0
    else:
        names: Sequence[str] = request.frame_names or sorted(
            (name for name in uris.list_names(request.uri) if name.lower().endswith(IMAGE_SUFFIXES)), key=natural_key
        )
        if not names:
            raise ValueError("holds no frames")
        files = [uris.join(request.uri, name) for name in names]
        seconds = (request.frame_stride or 1) / request.fps if request.fps else 1.0
    starts, duration = np.arange(len(files)) * seconds, len(files) * seconds
    index = select_frames(starts, duration, request)
    size = (0, 0)
    frames: list[np.ndarray] = []
    for number in index.tolist():
        with Image.open(io.BytesIO(uris.read_bytes(files[number]))) as image:
            if frames and image.size != size:
                raise ValueError(f"frame {number} has size {image.size}, the first one {size}")
            size = image.size
            small = image.convert("RGB").resize(stored_size(*size, request.short_side_px), Image.Resampling.BICUBIC)
            frames.append(np.asarray(small))
    line = Timeline(starts, duration, 1 / seconds if seconds and request.fps else 0.0, *size, 0, {})
    return _finished(request, line, index, np.stack(frames), "pil")


VIDEO_DECODERS: tuple[Decoder, ...] = (decode_with_decord, decode_with_pyav)


def _serve(connection: Connection, _decoders: tuple[Decoder, ...]) -> None:
    """The child: answers (decoder, request) with DecodedMedia, or with the text of what went wrong. It gets the
    decoders at the start already, so that importing them does not count against the first deadline."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    decord.logging.set_level(decord.logging.QUIET)
    connection.send("ready")
    while True:
        try:
            decoder, request = connection.recv()
        except EOFError:
            return
        try:
            answer = decoder(request)
        except Exception as error:  # whatever a decoder throws at a bad file is the answer; the parent raises it
            answer = " ".join(str(error).split())[:300] or type(error).__name__
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # the main thread may hang in native code


class FrameReader:
    """Reads media through one child process; a context manager, not thread-safe.

    Args:
        deadline_s: seconds after which a decoder is given up on one file and its process killed.
        decoders: tried in turn on videos; importable functions, since they run in the child.
    """

    def __init__(self, *, deadline_s: float, decoders: Sequence[Decoder] = VIDEO_DECODERS) -> None:
        self.deadline_s = deadline_s
        self.decoders = tuple(decoders)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._served = 0

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when none runs."""
        return self._process.pid if self._process is not None else None

    def decode(self, request: DecodeRequest) -> DecodedMedia:
        """Answers one request.

        Raises:
            DecodeError: no decoder could read it, in one line with the text of each. The reader stays usable.
        """
        decoders = self.decoders if request.kind == "video" else (decode_stills,)
        texts: dict[str, str] = {}
        for decoder in decoders:
            answer = self._ask(decoder, request)
            if isinstance(answer, DecodedMedia):
                return answer
            texts[decoder.__name__.removeprefix("decode_with_")] = answer
        if len(set(texts.values())) == 1:
            raise DecodeError(request.uri, next(iter(texts.values())))
        raise DecodeError(request.uri, "; ".join(f"{name}: {text}" for name, text in texts.items()))

    def _ask(self, decoder: Decoder, request: DecodeRequest) -> DecodedMedia | str:
        if self._served >= RECYCLE_AFTER:
            self.close()
        process, connection = self._child()
        self._served += 1
        try:
            connection.send((decoder, request))
            if not connection.poll(self.deadline_s):
                self.close()
                return f"no answer within {self.deadline_s:g} s"
            return connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            process.join()
            self.close()
            return f"the decoding process died (exit code {process.exitcode})"

    def _child(self) -> tuple[multiprocessing.process.BaseProcess, Connection]:
        if self._process is None or self._connection is None:
            spawn = multiprocessing.get_context("spawn")
            here, there = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(there, self.decoders), daemon=True)
            process.start()
            there.close()
            self._process, self._connection, self._served = process, here, 0
            try:
                started = here.poll(START_DEADLINE_S) and here.recv() == "ready"
            except EOFError:
                started = False
            if not started:
                self.close()
                raise RuntimeError(f"the decoding process did not start (exit code {process.exitcode})")
        return self._process, self._connection

    def close(self) -> None:
        """Ends the child, if one runs; a later request starts a new one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()  # it holds nothing that needs saving
            self._process.join()
        self._process = self._connection = None
