"""A card of the gallery to draw on: palette, type, text that wraps. Sizes are in points of the finished card.

Everything is drawn at SCALE times the size and reduced at the end, which makes edges and letters smooth.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SCALE = 2
PAPER, PANEL, INK, MUTED, RULE = (255, 255, 255), (244, 246, 249), (28, 33, 43), (104, 113, 128), (214, 219, 227)
# Far from each other, for colour-blind readers too, and from the plain colours that things in frames tend to have.
TRUTH, PREDICTION, HALO = (0, 196, 140), (255, 41, 135), (12, 14, 18)

Rgb = tuple[int, int, int]
Rect = tuple[float, float, float, float]  # left, top, right, bottom


@cache
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow, `size` points high."""
    return ImageFont.load_default(size * SCALE)


class Canvas:
    """A white card of width x height points."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def finish(self) -> Image.Image:
        """The card, (width, height) pixels."""
        return self._image.resize((self.width, self.height), Image.Resampling.LANCZOS)

    def paste(self, picture: Image.Image, left: float, top: float) -> None:
        """Put a picture that is already SCALE times its size in points."""
        self._image.paste(picture, (round(left * SCALE), round(top * SCALE)))

    def rectangle(
        self, rect: Rect, fill: Rgb | None = None, outline: Rgb | None = None, line: float = 1.0, round_: float = 0
    ) -> None:
        """A rectangle, maybe with round corners; `line` is the width of its outline."""
        box = [round(value * SCALE) for value in rect]
        self._draw.rounded_rectangle(box, round_ * SCALE, fill, outline, round(line * SCALE))

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Rgb, width: float = 1.0) -> None:
        """A straight line."""
        self._draw.line([round(v * SCALE) for v in (x0, y0, x1, y1)], colour, round(width * SCALE))

    def text(self, x: float, y: float, text: str, size: float, colour: Rgb = INK, anchor: str = "la") -> float:
        """One line of text; anchor as in Pillow ("la": left, top; "ra": right; "mm": middle). Returns its width."""
        self._draw.text((x * SCALE, y * SCALE), text, colour, font(size), anchor)
        return text_width(text, size)

    def paragraph(
        self, x: float, y: float, text: str, size: float, width: float, max_lines: int, colour: Rgb = INK
    ) -> float:
        """Text wrapped at `width`, at most `max_lines` with an ellipsis; returns the y below it."""
        for line in wrap(text, size, width, max_lines):
            self.text(x, y, line, size, colour)
            y += 1.36 * size
        return y

    def legend(self, x: float, y: float, entries: list[tuple[Rgb, str]], size: float) -> float:
        """Coloured squares with their meaning, in one row whose middle is at y; returns the x behind it."""
        side = 0.8 * size
        for colour, label in entries:
            self.rectangle((x, y - side / 2, x + side, y + side / 2), fill=colour, round_=0.2 * side)
            x += side + 0.5 * size
            x += self.text(x, y, label, size, INK, "lm") + 1.6 * size
        return x


def text_width(text: str, size: float) -> float:
    """Width in points."""
    return font(size).getlength(text) / SCALE


def wrap(text: str, size: float, width: float, max_lines: int) -> list[str]:
    """Lines no wider than `width`, broken between words, inside a word only where it is too long itself."""
    lines, current = [], ""
    for word in text.split():
        while text_width(word, size) > width:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or text_width(word[:n], size) <= width)
            lines += [current] * bool(current) + [word[:fits]]
            current, word = "", word[fits:]
        if text_width(f"{current} {word}".strip(), size) <= width:
            current = f"{current} {word}".strip()
        else:
            lines, current = [*lines, current], word
    lines += [current] * bool(current)
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    while last and text_width(f"{last}...", size) > width:
        last = last[:-1]
    return [*lines[: max_lines - 1], f"{last.rstrip()}..."]


class Picture:
    """A frame enlarged to width x height points, on which labels in pixels of the original media are drawn."""

    def __init__(self, frame_HWC: np.ndarray, width: float, height: float, original_wh: tuple[int, int]) -> None:
        size = (round(width * SCALE), round(height * SCALE))
        self.image = Image.fromarray(frame_HWC).resize(size, Image.Resampling.BICUBIC)
        self._fx, self._fy = size[0] / original_wh[0], size[1] / original_wh[1]

    def box(self, box_xyxy: np.ndarray, colour: Rgb, line: float) -> None:
        """A rectangle with a dark rim, so that it shows on any ground."""
        x1, y1, x2, y2 = (float(v) for v in box_xyxy)
        inner = [x1 * self._fx, y1 * self._fy, max(x2, x1) * self._fx, max(y2, y1) * self._fy]
        draw = ImageDraw.Draw(self.image)
        rim, body = round((line + 1.5) * SCALE), round(line * SCALE)
        grown = (rim - body) / 2
        draw.rectangle(
            [inner[0] - grown, inner[1] - grown, inner[2] + grown, inner[3] + grown], outline=HALO, width=rim
        )
        draw.rectangle(inner, outline=colour, width=body)

    def fill(self, mask_HW: np.ndarray, colour: Rgb, opacity: float) -> None:
        """Tint the inside of a mask."""
        inside = self._enlarged(mask_HW)
        pixels = np.asarray(self.image, np.float32)
        tinted = pixels * (1 - opacity) + np.array(colour, np.float32) * opacity
        self.image = Image.fromarray(np.where(inside[..., None], tinted, pixels).astype(np.uint8))

    def contour(self, mask_HW: np.ndarray, colour: Rgb, line: float) -> None:
        """Draw the outline of a mask, with a dark rim."""
        inside = self._enlarged(mask_HW)
        body = round(line * SCALE / 2)
        pixels = np.array(self.image)
        pixels[_grown(inside, body + 1) & ~_shrunk(inside, body + 1)] = HALO
        pixels[_grown(inside, body) & ~_shrunk(inside, body)] = colour
        self.image = Image.fromarray(pixels)

    def _enlarged(self, mask_HW: np.ndarray) -> np.ndarray:
        grey = Image.fromarray(mask_HW.astype(np.uint8) * 255).resize(self.image.size, Image.Resampling.BICUBIC)
        return np.asarray(grey) > 127


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def _shrunk(mask: np.ndarray, steps: int) -> np.ndarray:
    return ~_grown(~mask, steps)
