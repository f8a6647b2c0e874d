"""Draws the labels of samples on decoded frames, for a look at a dataset; one PNG a sample.

From top to bottom: the frames with their boxes and masks, the timeline of moments, instants and highlights, and the
conversation with the options of a question. Each label has a colour of its own, which its text in the timeline shares;
what the question gives is yellow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tpo_core.data import rle
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import DecodedMedia, DecodeError, DecodeRequest, ranges
from tpo_core.data.sample import Box, Media, Rle, Sample, Target
from tpo_core.storage.uri import resolve

N_FRAMES = 6
COLUMNS = 3
SHORT_SIDE_PX, IMAGE_SHORT_SIDE_PX = 240, 480
DEADLINE_S = 60.0
TEXT_PX, LINE_PX, MARGIN_PX, LEAST_WIDTH_PX = 14, 19, 6, 480
MOST_LINES, MOST_TURNS, MOST_ROWS = 6, 8, 12  # of one turn, of a conversation, of a timeline
SHOWN_INSTANT_PX = 4
GIVEN, DIM, WHITE, GREY = (255, 200, 0), (150, 150, 150), (255, 255, 255), (70, 70, 70)
LABELS = ((0, 220, 80), (90, 170, 255), (255, 110, 180), (255, 140, 60), (180, 130, 255), (60, 220, 220))
MASK_OPACITY = 128
PLAIN_SIGNS = {0x2013: "-", 0x2014: "-", 0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2026: "..."}

Colour = tuple[int, int, int]
Across = Callable[[float], float]  # seconds to pixels


def draw_samples(samples: Sequence[Sample], root: str, folder: Path) -> Iterator[str]:
    """Writes `<number>_<sample id>.png` for each sample and yields one line about each; media lie below `root`.

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
            sheet(sample, decoded).save(path)
            yield f"drawn     {path}"


def _request(sample: Sample, root: str) -> DecodeRequest:
    media: Media = sample.media[0]
    still, named = media.kind == "image", {target.frame for target in sample.targets if target.frame is not None}
    labelled = {entry.frame for target in sample.targets for entry in target.track or () if entry.visible}
    return DecodeRequest(
        uri=resolve(root, media.uri),
        kind=media.kind,
        short_side_px=IMAGE_SHORT_SIDE_PX if still else SHORT_SIDE_PX,
        n_frames=1 if still else max(N_FRAMES - len(named), 1),
        prefer_frames=ranges(labelled),
        also_frames=tuple(sorted(named)),
        clip_s=None if media.clip_s is None else (media.clip_s.start, media.clip_s.end),
        frame_names=media.frame_names,
        fps=media.fps,
        frame_stride=media.frame_stride,
    )


def sheet(sample: Sample, decoded: DecodedMedia) -> Image.Image:
    """The decoded frames, `COLUMNS` side by side, above the timeline and the text of the sample."""
    assert decoded.frames_THWC is not None, "drawing needs raw frames"
    colours = _colours(sample)
    panels = [
        _panel(sample, frame_HWC, int(index), float(time_s), decoded, colours)
        for frame_HWC, index, time_s in zip(decoded.frames_THWC, decoded.frame_index, decoded.times_s, strict=True)
    ]
    columns = min(COLUMNS, len(panels))
    across, down = panels[0].width, panels[0].height
    width, rows = max(columns * across, LEAST_WIDTH_PX), -(-len(panels) // columns)
    below = [*_timeline(sample, decoded, colours, width), *_conversation(sample, width)]
    image = Image.new("RGB", (width, rows * down + sum(part.height for part in below) + MARGIN_PX))
    for i, panel in enumerate(panels):
        image.paste(panel, (i % columns * across, i // columns * down))
    top = rows * down
    for part in below:
        image.paste(part, (0, top))
        top += part.height
    return image


def _colours(sample: Sample) -> list[Colour]:
    """Of each target; those of the same object or group share one."""
    given = {ref for turn in sample.turns if turn.role == "user" for ref in turn.target_refs}
    kinds: dict[object, Colour] = {}
    colours = []
    for number, target in enumerate(sample.targets):
        same = target.object_id or (number if target.group is None else ("group", target.group))
        colours.append(GIVEN if number in given else kinds.setdefault(same, LABELS[len(kinds) % len(LABELS)]))
    return colours


def _panel(
    sample: Sample, frame_HWC: np.ndarray, index: int, time_s: float, decoded: DecodedMedia, colours: list[Colour]
) -> Image.Image:
    image = Image.fromarray(frame_HWC)
    draw = ImageDraw.Draw(image)
    scale = (image.width / decoded.width, image.height / decoded.height)
    several = len({target.object_id for target in sample.targets}) > 1
    for target, colour in zip(sample.targets, colours, strict=True):
        box, mask = _at(target, index)
        if mask is not None:
            image.paste(colour, mask=_stencil(mask, image.size))
        if box is not None:
            corners = tuple(value * scale[i % 2] for i, value in enumerate(box))
            draw.rectangle(corners, outline=colour, width=2)
        name = target.label or (target.object_id if several else None)
        place = box if box is not None or mask is None else rle.bbox(mask)
        if name and place is not None:
            _tag(draw, max(place[0] * scale[0], 0) + 2, max(place[1] * scale[1], 0) + 2, name, colour, image.width)
    if sample.media[0].kind != "image":
        spans = ((target.span_s, colour) for target, colour in zip(sample.targets, colours, strict=True))
        inside = next((colour for span, colour in spans if span and span[0] <= time_s < span[1]), WHITE)
        _tag(draw, 0, image.height - LINE_PX, f"{time_s:.1f} s, frame {index}", inside, image.width)
    return image


def _at(target: Target, index: int) -> tuple[Box | None, Rle | None]:
    """The box and the mask of a target on a frame; a label without a frame (an image) is on every one."""
    if target.track is None:
        here = target.frame is None or target.frame == index
        return (target.box, target.rle) if here else (None, None)
    entry = next((entry for entry in target.track if entry.frame == index and entry.visible), None)
    return (entry.box, entry.rle) if entry is not None else (None, None)


def _stencil(mask: Rle, size: tuple[int, int]) -> Image.Image:
    half = Image.fromarray(rle.decode(mask).astype(np.uint8) * MASK_OPACITY)
    return half.resize(size, Image.Resampling.NEAREST)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT_PX)


def _tag(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, colour: Colour, width: int) -> None:
    """A line of text on a dark ground, shortened to what fits between `x` and `width`."""
    font, text = _font(), _plain(text)
    room = width - x - 4
    while text and font.getlength(text) > room:
        text = text[:-4].rstrip() + "..." if len(text) > 4 else ""
    if text:
        draw.rectangle((x, y, x + font.getlength(text) + 4, y + LINE_PX - 1), fill=(0, 0, 0))
        draw.text((x + 2, y), text, fill=colour, font=font)


def _plain(text: str) -> str:
    """The text on one line, with what Pillow's own font cannot draw as "?"."""
    return " ".join(text.translate(PLAIN_SIGNS).split()).encode("latin-1", "replace").decode("latin-1")


def _timeline(sample: Sample, decoded: DecodedMedia, colours: list[Colour], width: int) -> list[Image.Image]:
    """A ruler with the times of the frames, and a row for each moment, instant and series of highlights."""
    timed = [i for i, target in enumerate(sample.targets) if target.span_s is not None or target.saliency is not None]
    if not timed:
        return []
    clip = sample.media[0].clip_s
    length_s = max((min(clip.end, decoded.duration_s) - clip.start) if clip else decoded.duration_s, 1e-6)

    def x(time_s: float) -> float:
        return MARGIN_PX + (width - 2 * MARGIN_PX - 1) * min(max(time_s / length_s, 0.0), 1.0)

    shown = timed[:MOST_ROWS]
    rest = len(timed) - len(shown)
    image = Image.new("RGB", (width, (len(shown) + 1 + (rest > 0)) * LINE_PX + MARGIN_PX))
    draw, font = ImageDraw.Draw(image), _font()
    draw.line((x(0), 4, x(length_s), 4), fill=DIM)
    for time_s in decoded.times_s:
        draw.polygon([(x(time_s) - 4, 0), (x(time_s) + 4, 0), (x(time_s), 7)], fill=WHITE)
    end = f"{length_s:.1f} s"
    draw.text((MARGIN_PX, 6), "0 s", fill=DIM, font=font)
    draw.text((width - MARGIN_PX - font.getlength(end), 6), end, fill=DIM, font=font)
    for row, number in enumerate(shown, 1):
        _row(draw, sample.targets[number], colours[number], x, row * LINE_PX + MARGIN_PX, width)
    if rest:
        draw.text((MARGIN_PX, (len(shown) + 1) * LINE_PX + 4), f"and {rest} more", fill=DIM, font=font)
    return [image]


def _row(draw: ImageDraw.ImageDraw, target: Target, colour: Colour, x: Across, top: int, width: int) -> None:
    bottom = top + LINE_PX - 3
    draw.rectangle((MARGIN_PX, top, width - MARGIN_PX, bottom), fill=(28, 28, 28))
    if target.saliency is not None:
        _highlights(draw, target, colour, x, top, bottom)
        return
    assert target.span_s is not None
    start, end = target.span_s
    left = x(start)
    right = left + SHOWN_INSTANT_PX if target.kind == "point" else max(x(end), left + 1)
    draw.rectangle((left, top, right, bottom), fill=colour)
    times = f"{start:.1f} s" if target.kind == "point" else f"{start:.1f} - {end:.1f} s"
    text = f"{times}  {target.label or ''}".strip()
    fits_right = width - right > _font().getlength(_plain(text)) + 3 * MARGIN_PX
    if fits_right or width - right > left:
        _tag(draw, right + 2, top - 1, text, colour, width - MARGIN_PX)
    else:
        _tag(draw, max(MARGIN_PX, left - _font().getlength(_plain(text)) - 8), top - 1, text, colour, int(left) - 2)


def _highlights(draw: ImageDraw.ImageDraw, target: Target, colour: Colour, x: Across, top: int, bottom: int) -> None:
    """One bar a clip, as high as the mean of its scores in relation to the highest of the sample."""
    assert target.saliency is not None
    length_s = target.saliency.clip_len_s
    means = [sum(scores) / max(len(scores), 1) for scores in target.saliency.scores]
    highest = max(means, default=0.0) or 1.0
    for clip, mean in zip(target.saliency.clip_ids, means, strict=True):
        height = round((bottom - top) * mean / highest)
        left = x(clip * length_s)
        draw.rectangle((left, bottom - height, max(left, x((clip + 1) * length_s) - 1), bottom), fill=colour)


def _conversation(sample: Sample, width: int) -> list[Image.Image]:
    lines: list[tuple[str, Colour]] = []
    for turn in sample.turns[:MOST_TURNS]:
        lines += [(line, WHITE) for line in _wrapped(f"{turn.role}: {turn.text}", width)]
        if sample.options and turn.role == "user" and turn is sample.turns[0]:
            for place, option in enumerate(sample.options):
                right = place == sample.answer_index
                text = f"    {chr(ord('A') + place)}. {option}{'  <- answer' if right else ''}"
                lines += [(line, LABELS[0] if right else DIM) for line in _wrapped(text, width)]
    if len(sample.turns) > MOST_TURNS:
        lines.append((f"and {len(sample.turns) - MOST_TURNS} more turns", DIM))
    image = Image.new("RGB", (width, max(len(lines), 1) * LINE_PX + MARGIN_PX))
    draw, font = ImageDraw.Draw(image), _font()
    for row, (line, colour) in enumerate(lines):
        draw.text((MARGIN_PX, row * LINE_PX + 4), line, fill=colour, font=font)
    return [image]


def _wrapped(text: str, width: int) -> list[str]:
    """The text in at most `MOST_LINES` lines that fit; words that are longer than a line are broken."""
    font, room = _font(), width - 2 * MARGIN_PX
    indent = text[: len(text) - len(text.lstrip())]
    lines, line = [], indent
    for word in _plain(text).split(" "):
        while font.getlength(f"{line}{word}") > room:
            if line.strip():
                lines.append(line)
                line = indent + "  "
                continue
            fits = next(n for n in range(len(word), 0, -1) if n == 1 or font.getlength(line + word[:n]) <= room)
            lines.append(line + word[:fits])
            word, line = word[fits:], indent + "  "
        line += f"{word} "
    lines.append(line)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1].rstrip()} ..."]
    return lines
