"""Draws the labels of samples on decoded frames, for a look at a dataset; one PNG a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tpo_core.data import rle
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import DecodedMedia, DecodeError, DecodeRequest
from tpo_core.data.sample import Box, Media, Rle, Sample, Target
from tpo_core.storage.uri import join

N_FRAMES = 6
SHORT_SIDE_PX = 240
DEADLINE_S = 60.0
CAPTION_PX = 44
GIVEN, LABEL, OUTSIDE = (255, 200, 0), (0, 220, 80), (70, 70, 70)


def draw_samples(samples: Sequence[Sample], root: str, folder: Path) -> Iterator[str]:
    """Writes `<number>_<sample id>.png` for each sample and yields one line about each; media lie below `root`.

    A strip of frames: boxes and masks green, a given box yellow, frames outside every moment under a grey bar.
    A file that cannot be decoded yields a line that says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FrameReader(deadline_s=DEADLINE_S) as reader:
        for number, sample in enumerate(samples):
            if not sample.media:
                yield f"not drawn {sample.sample_id}: it has no media"
                continue
            try:
                decoded = reader.decode(_request(sample, root))
            except DecodeError as error:
                yield f"not drawn {sample.sample_id}: {error}"
                continue
            path = folder / f"{number:03d}_{sample.sample_id.replace('/', '_')}.png"
            strip(sample, decoded).save(path)
            yield f"drawn     {path}"


def _request(sample: Sample, root: str) -> DecodeRequest:
    media: Media = sample.media[0]
    return DecodeRequest(
        uri=join(root, media.uri),
        kind=media.kind,
        short_side_px=SHORT_SIDE_PX,
        n_frames=1 if media.kind == "image" else N_FRAMES,
        also_frames=tuple(target.frame for target in sample.targets if target.frame is not None),
        clip_s=None if media.clip_s is None else (media.clip_s.start, media.clip_s.end),
        frame_names=media.frame_names,
        fps=media.fps,
        frame_stride=media.frame_stride,
    )


def strip(sample: Sample, decoded: DecodedMedia) -> Image.Image:
    """The decoded frames side by side with the labels of the sample, above its question and answer."""
    assert decoded.frames_THWC is not None, "drawing needs raw frames"
    panels = [
        _panel(sample, frame_HWC, int(index), float(time_s), decoded)
        for frame_HWC, index, time_s in zip(decoded.frames_THWC, decoded.frame_index, decoded.times_s, strict=True)
    ]
    width, height = sum(panel.width for panel in panels), panels[0].height
    image = Image.new("RGB", (max(width, 480), height + CAPTION_PX))
    for i, panel in enumerate(panels):
        image.paste(panel, (i * panel.width, 0))
    text = [f"{turn.role}: {turn.text}" for turn in sample.turns][:3]
    safe = "\n".join(text).encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font can draw
    ImageDraw.Draw(image).multiline_text((4, height + 2), safe, fill=(255, 255, 255), spacing=1)
    return image


def _panel(sample: Sample, frame_HWC: np.ndarray, index: int, time_s: float, decoded: DecodedMedia) -> Image.Image:
    image = Image.fromarray(frame_HWC)
    draw = ImageDraw.Draw(image)
    scale = (image.width / decoded.width, image.height / decoded.height)
    given = {ref for turn in sample.turns if turn.role == "user" for ref in turn.target_refs}
    for number, target in enumerate(sample.targets):
        box, mask = _at(target, index)
        if mask is not None:
            image.paste(LABEL, mask=_stencil(mask, image.size))
        if box is not None:
            corners = tuple(value * scale[i % 2] for i, value in enumerate(box))
            draw.rectangle(corners, outline=GIVEN if number in given else LABEL, width=2)
    spans = [target.span_s for target in sample.targets if target.span_s is not None]
    if spans:
        inside = any(start <= time_s < end for start, end in spans)
        draw.rectangle((0, 0, image.width, 6), fill=LABEL if inside else OUTSIDE)
        draw.text((4, 8), f"{time_s:.1f} s", fill=(255, 255, 255))
    return image


def _at(target: Target, index: int) -> tuple[Box | None, Rle | None]:
    """The box and the mask of a target on a frame; a label without a frame (an image) is on every one."""
    if target.track is None:
        here = target.frame is None or target.frame == index
        return (target.box, target.rle) if here else (None, None)
    entry = next((entry for entry in target.track if entry.frame == index and entry.visible), None)
    return (entry.box, entry.rle) if entry is not None else (None, None)


def _stencil(mask: Rle, size: tuple[int, int]) -> Image.Image:
    half = Image.fromarray(rle.decode(mask).astype(np.uint8) * 128)
    return half.resize(size, Image.Resampling.NEAREST)
