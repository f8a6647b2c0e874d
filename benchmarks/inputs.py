"""Inputs of the benchmarks, made on the spot: videos of a few sizes, and clips as JPEG frames."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tpo_core.data.media_store import MediaStore
from tpo_core.data.sample import Media, Provenance, Sample, Turn
from tpo_core.data.shards import ShardSet, write_manifest, write_media_index, write_media_shard, write_samples

VIDEO_SIZES = {"240p": (320, 240), "360p": (640, 360), "480p": (854, 480), "720p": (1280, 720)}
LENGTHS_S = (10, 15, 20, 30)  # of the videos of a size, in turns, as are the rates
RATES = (25, 30)
TEXTURE = {160: 110, 48: 60, 12: 40, 4: 24}  # size of the blobs in pixels, and how strong they are
CUT_EVERY_S = 7
FRAME_PX = 224
FRAMES_PER_CLIP = 16


def picture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth shapes with some grain, uint8 RGB: it compresses about as a photograph does."""
    coarse = Image.fromarray(rng.integers(0, 255, (height // 40 + 2, width // 40 + 2, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return np.clip(smooth + rng.integers(-8, 9, (height, width, 1)), 0, 255).astype(np.uint8)


def texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Blobs of several sizes, uint8 RGB."""
    total = np.zeros((height, width, 3), np.float32)
    for size, strength in TEXTURE.items():
        noise = Image.fromarray(rng.integers(0, 255, (height // size + 2, width // size + 2, 3), np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32) * (strength / 255)
    return np.clip(total + 10, 0, 255).astype(np.uint8)


def write_video(path: Path, size: tuple[int, int], rate: int, seconds: int, seed: int) -> Path:
    """A camera that pans over a scene, an object that crosses it, a cut now and then; h264 with the encoder's own
    distance of keyframes (250 frames at most, and one at a cut)."""
    rng, (width, height) = np.random.default_rng(seed), size
    scene, thing = texture(rng, width * 5 // 4, height * 5 // 4), texture(rng, width // 4, height // 4)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * rate):
            if number and number % (CUT_EVERY_S * rate) == 0:
                scene = np.ascontiguousarray(scene[::-1, ::-1])
            left, top = _swing(number / rate, 0.7, width // 4), _swing(number / rate, 0.5, height // 4)
            frame = scene[top : top + height, left : left + width].copy()
            left = _swing(number / rate, 1.3, width - thing.shape[1])
            top = _swing(number / rate, 1.1, height - thing.shape[0])
            frame[top : top + thing.shape[0], left : left + thing.shape[1]] = thing
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def _swing(time_s: float, per_s: float, width: int) -> int:
    """A place that goes to and fro in [0, width]."""
    return round((math.sin(time_s * per_s) + 1) / 2 * width)


def write_videos(folder: Path, each: int) -> dict[str, list[Path]]:
    """`each` videos of every size, by the name of the size."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(name: str, number: int) -> Path:
        rate, seconds = RATES[number % len(RATES)], LENGTHS_S[number % len(LENGTHS_S)]
        return write_video(folder / f"{name}-{number}.mp4", VIDEO_SIZES[name], rate, seconds, number)

    return {name: [one(name, number) for number in range(each)] for name in VIDEO_SIZES}


def more_names(paths: list[Path], times: int) -> list[Path]:
    """So many names of each file, which are so many media; the disk holds it once."""
    named = [path.with_stem(f"{path.stem}-{turn}") for turn in range(times) for path in paths]
    for number, link in enumerate(named):
        os.link(paths[number % len(paths)], link)
    return named


def write_annotations(root: Path, videos: list[Path]) -> None:
    """One question on each video, in the jsonl format."""
    with (root / "train.jsonl").open("w") as file:
        for number, path in enumerate(videos):
            row = {
                "sample_id": f"bench/{number}", "dataset": "bench", "split": "train", "task": "chat",
                "media": [{"uri": path.relative_to(root).as_posix(), "kind": "video"}],
                "turns": [{"role": "user", "text": "What?"}, {"role": "assistant", "text": "A picture that moves."}],
                "provenance": {"source_file": "train.jsonl", "row": number, "native_id": "0", "reader": "jsonl"},
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def clips(count: int) -> Iterator[list[bytes]]:
    """The JPEG frames of `count` clips; few pictures, each moved a little from frame to frame."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        base, frames = picture(rng, 298, FRAME_PX), []
        for number in range(FRAMES_PER_CLIP):
            buffer = io.BytesIO()
            Image.fromarray(np.roll(base, 7 * number, 1)).save(buffer, "JPEG", quality=92)
            frames.append(buffer.getvalue())
        yield frames


def write_clip_set(root: Path, frames_of_clips: list[list[bytes]]) -> ShardSet:
    """A shard set with one conversation on each clip."""

    def row(number: int, frames: list[bytes]) -> dict[str, Any]:
        return {
            "uri": f"{number}.mp4", "kind": "video", "width": 298, "height": FRAME_PX, "stored_width": 298,
            "stored_height": FRAME_PX, "n_frames": 480, "fps": 30.0, "duration_s": 16.0, "media_duration_s": 16.0,
            "frame_index": [30 * k for k in range(len(frames))], "frame_times_s": [1.0 * k for k in range(len(frames))],
            "frames": frames, "decoder": "none", "features": None, "features_dim": None,
        }  # fmt: skip

    def sample(number: int) -> Sample:
        turns = (Turn("user", "What?", (0,)), Turn("assistant", "A picture that moves."))
        media = (Media(f"{number}.mp4", "video", width=298, height=FRAME_PX),)
        return Sample(f"b/{number}", "b", "train", "chat", media, turns, Provenance("b", number, str(number), "jsonl"))

    total = len(frames_of_clips)
    file = write_media_shard(root / "media/0.arrow", (row(k, frames) for k, frames in enumerate(frames_of_clips)))
    files = {"media/0.arrow": file} | write_media_index(root, ((f"{k}.mp4", 0, k) for k in range(total)))
    files |= write_samples(root, "train", (sample(k) for k in range(total)))
    write_manifest(root, {"files": files, "counts": {"train": {"chat": {"b": total}}}, "media_store": "media"})
    return ShardSet.open(root)


def store_in(folder: Path) -> MediaStore:
    folder.mkdir(parents=True)
    return MediaStore(str(folder), "media")
