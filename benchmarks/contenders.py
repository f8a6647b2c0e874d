"""Other ways to the same frames: a plain decord loop, WebDataset and MosaicML Streaming."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Batches = Callable[[Path, int, int], Iterator[Any]]  # (folder, batch size, workers) -> batches of decoded clips


def plain_decord(path: Path, n_frames: int, short_side_px: int, quality: int) -> list[bytes]:
    """What one writes without this platform: decode at full size, then resize and encode by PIL."""
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    picks = [int((k + 0.5) * len(reader) / n_frames) for k in range(n_frames)]
    encoded = []
    for frame in reader.get_batch(picks).asnumpy():
        image, buffer = Image.fromarray(frame), io.BytesIO()
        scale = min(1.0, short_side_px / min(image.size))
        size = (round(image.width * scale), round(image.height * scale))
        image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
        encoded.append(buffer.getvalue())
    return encoded


def decoded(jpegs: list[bytes]) -> Any:
    """frames_THWC of one clip as a tensor, which worker processes hand over in shared memory and not through a pipe."""
    import torch

    images = [Image.open(io.BytesIO(jpeg)) for jpeg in jpegs]
    frames_THWC = np.empty((len(images), images[0].height, images[0].width, 3), np.uint8)
    for place, image in enumerate(images):
        frames_THWC[place] = np.asarray(image)
    return torch.from_numpy(frames_THWC)


def write_webdataset(folder: Path, frames_of_clips: list[list[bytes]]) -> None:
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, frames in enumerate(frames_of_clips):
            parts = {f"{k:02d}.jpg": jpeg for k, jpeg in enumerate(frames)} | {"json": json.dumps({"text": "What?"})}
            for name, content in parts.items():
                data = content.encode() if isinstance(content, str) else content
                info = tarfile.TarInfo(f"{number:06d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def read_webdataset(folder: Path, batch: int, workers: int) -> Iterator[Any]:
    import webdataset
    from torch.utils.data import DataLoader

    data = webdataset.WebDataset(str(folder / "0.tar"), shardshuffle=False, empty_check=False).shuffle(256)
    loader = DataLoader(data.map(_webdataset_clip), batch_size=batch, num_workers=workers, collate_fn=list)
    return iter(loader)


def _webdataset_clip(sample: dict[str, Any]) -> tuple[Any, Any]:
    frames = [sample[name] for name in sorted(name for name in sample if name.endswith(".jpg"))]
    return json.loads(sample["json"]), decoded(frames)


def write_streaming(folder: Path, frames_of_clips: list[list[bytes]]) -> None:
    writer = _streaming().MDSWriter
    columns = {"text": "str"} | {f"{k:02d}": "bytes" for k in range(len(frames_of_clips[0]))}
    with writer(out=str(folder), columns=columns) as out:
        for frames in frames_of_clips:
            out.write({"text": "What?"} | {f"{k:02d}": jpeg for k, jpeg in enumerate(frames)})


def read_streaming(folder: Path, batch: int, workers: int) -> Iterator[Any]:
    from torch.utils.data import DataLoader

    data = _streaming().StreamingDataset(local=str(folder), shuffle=True, batch_size=batch)
    return iter(DataLoader(data, batch_size=batch, num_workers=workers, collate_fn=_streaming_clips))


def _streaming_clips(samples: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(row["text"], decoded([row[name] for name in sorted(row) if name.isdigit()])) for row in samples]


def _streaming() -> Any:
    """The package, which imports torchvision for the data sets of its own that are not used here; torchvision's wheel
    does not load beside a CPU build of torch, so empty modules stand in for it."""
    if "streaming" not in sys.modules and "torchvision" not in sys.modules:
        import transformers.utils
        from transformers import PreTrainedTokenizerBase  # noqa: F401  # looks for torchvision, once

        transformers.utils.is_torchvision_available()
        names = {"": {}, ".datasets": {"VisionDataset": object}, ".transforms": {}}
        for name, content in (names | {".transforms.functional": {"to_tensor": None}}).items():
            module = types.ModuleType(f"torchvision{name}")
            module.__dict__.update(content, __path__=[])
            sys.modules[module.__name__] = module
    import streaming

    return streaming


OTHERS: dict[str, tuple[Callable[[Path, list[list[bytes]]], None], Batches]] = {
    "WebDataset": (write_webdataset, read_webdataset),
    "MosaicML Streaming": (write_streaming, read_streaming),
}
