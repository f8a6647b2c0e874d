"""Makes media whose container, codec or orientation is unusual, and damages media in the ways that disks, downloads and
encoders do."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.unit.data.test_decode import RATE, grey, write_video

Make = Callable[[Path], object]


def then(make: Make, *damages: Make) -> Make:
    """Makes a file and damages it."""

    def all_of_it(path: Path) -> None:
        make(path)
        for damage in damages:
            damage(path)

    return all_of_it


def fast(path: Path) -> None:
    """The video of write_video with its header in front."""
    write_video(path, options={"movflags": "faststart"})


def coded(codec: str, width: int = 128, height: int = 96, **options: str) -> Make:
    """The grey levels of write_video in another codec, and the container of the path's suffix."""

    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=RATE, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.gop_size = 8
            for number in range(24):
                frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), grey(number), np.uint8), "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write


def busy(width: int, height: int, codec: str = "libx264") -> Make:
    """Noise that moves: each packet is larger than the damage done to it, and each is predicted from the first."""

    def write(path: Path) -> None:
        coarse = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(
                codec, rate=RATE, options={"preset": "ultrafast", "x265-params": "log-level=0"}
            )
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(8):
                picture = np.roll(coarse, number, 1).repeat(8, 0).repeat(8, 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode())

    return write


def sound(path: Path) -> None:
    """A file without a video stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def frames(*sizes: tuple[int, int]) -> Make:
    """A folder of frames 1.png, 2.png, ..."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        for number, size in enumerate(sizes, 1):
            Image.new("RGB", size, (90, 90, 90)).save(folder / f"{number}.png")

    return write


def noise_image(path: Path) -> None:
    Image.effect_noise((128, 96), 50).save(path)


def cut(share: float) -> Make:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def zero_tail(path: Path) -> None:
    """As a download leaves a file that reserved all of its size and then stopped."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))


def zero_payload(first: float) -> Make:
    """Zeroes the media data of an mp4 from a share on; its header stays whole."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        start = data.index(b"mdat") + 4
        end = start + int.from_bytes(data[start - 8 : start - 4], "big") - 8
        begin = start + int(first * (end - start))
        data[begin:end] = bytes(end - begin)
        path.write_bytes(data)

    return damage


def scratch(content: bytes) -> Make:
    """Overwrites a part of the first packet, behind its middle."""

    def damage(path: Path) -> None:
        with av.open(str(path)) as container:
            first = next(packet for packet in container.demux(video=0) if packet.size)
            assert first.pos is not None
            at = first.pos + first.size * 3 // 4
        data = path.read_bytes()
        path.write_bytes(data[:at] + content + data[at + len(content) :])

    return damage


def turn(a: int, b: int, c: int, d: int) -> Make:
    """Sets the display matrix of an mp4: x' = a x + c y, y' = b x + d y, with y downwards."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        matrix = data.index(b"tkhd") + 44
        for place, value in ((0, a), (4, b), (12, c), (16, d)):
            data[matrix + place : matrix + place + 4] = (value << 16).to_bytes(4, "big", signed=True)
        path.write_bytes(data)

    return change
