"""Draws the quick-start world with numpy: anti-aliased shapes from signed distances, textures, and the true masks.

Signed distances are in units of the thing's radius, negative inside; multiplied by the radius they are pixels, so that
`clip(0.5 - distance_px, 0, 1)` is a box-filtered coverage (one pixel of anti-aliasing).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tpo_core.data.quickstart.world import SHRUNK, SIDE_PX, Clip, Thing

RGB = {
    "red": (214, 40, 40),
    "orange": (244, 140, 20),
    "yellow": (240, 222, 40),
    "green": (44, 160, 60),
    "cyan": (60, 212, 224),
    "blue": (40, 72, 214),
    "purple": (142, 52, 190),
    "white": (240, 240, 240),
}
_GROUND_RGB = {  # two tones and the noise's stretch along (y, x): muted, so that colours belong to things
    "grass": ((62, 84, 52), (90, 110, 70), (1.0, 1.0)),
    "sand": ((150, 134, 104), (178, 164, 134), (1.0, 1.0)),
    "stone": ((88, 90, 94), (124, 126, 130), (1.0, 1.0)),
    "wood": ((86, 62, 44), (120, 92, 68), (6.0, 0.5)),
    "water": ((52, 78, 96), (84, 110, 126), (0.4, 3.0)),
    "brick": ((104, 66, 56), (132, 92, 80), (1.0, 1.0)),
}
_GLOW_RGB = np.array((255, 250, 205), np.float32)
_GLOW_REACH_PX = 5.0
_TILE_PX = 160
_TILES_A_GROUND = 24


def render(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) uint8 and each thing's visible mask (things, T, H, W) bool; later ones cover earlier."""
    frames = _ground(clip)
    masks = np.zeros((len(clip.things), clip.n_frames, SIDE_PX, SIDE_PX), bool)
    for index, thing in enumerate(clip.things):
        for t in range(clip.n_frames):
            action = clip.action_of(index, t)
            if action != "vanishes":
                _draw(frames[t], masks[:, t], index, thing, thing.centres_T2[t], action)
    return np.clip(frames, 0, 255).astype(np.uint8), masks


def _draw(
    frame: np.ndarray, masks: np.ndarray, index: int, thing: Thing, centre: np.ndarray, action: str | None
) -> None:
    """Paints one thing into a float frame (H, W, 3) and updates the visible masks (things, H, W) in place."""
    radius = thing.radius_px * (SHRUNK if action == "shrinks" else 1.0)
    reach = radius * 1.05 + 2.0 + (2.5 * _GLOW_REACH_PX if action == "glows" else 0.0)
    x0, x1 = max(int(centre[0] - reach), 0), min(int(centre[0] + reach) + 2, SIDE_PX)
    y0, y1 = max(int(centre[1] - reach), 0), min(int(centre[1] + reach) + 2, SIDE_PX)
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32) + 0.5
    cos, sin = np.cos(thing.angle_rad), np.sin(thing.angle_rad)
    dx, dy = (xs - centre[0]) / radius, (ys - centre[1]) / radius
    u, v = cos * dx + sin * dy, -sin * dx + cos * dy
    distance_px = _distance(thing.kind, u, v) * radius
    window = frame[y0:y1, x0:x1]
    if action == "glows":
        halo = 0.9 * np.exp(-((np.maximum(distance_px, 0) / _GLOW_REACH_PX) ** 2) / 2)[..., None]
        window += halo * (_GLOW_RGB - window)
    alpha = np.clip(0.5 - distance_px, 0, 1)[..., None]
    window += alpha * (_paint(thing, u, v) - window)
    inside = alpha[..., 0] > 0.5
    masks[:index, y0:y1, x0:x1] &= ~inside
    masks[index, y0:y1, x0:x1] = inside


def _paint(thing: Thing, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colour (h, w, 3) of a thing: its base colour, lit from the upper left, with stripes or dots a third darker."""
    base = np.array(RGB[thing.colour], np.float32)
    light = 1.0 - 0.10 * (u + v)
    if thing.texture == "striped":
        light = light * np.where(np.sin(9.0 * u) > 0.2, 1.0, 0.72)
    elif thing.texture == "dotted":
        light = light * np.where(np.sin(8.0 * u) * np.sin(8.0 * v) > -0.25, 1.0, 0.68)
    return base * light[..., None]


def _distance(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance (about; exact on straight edges) of unit shapes whose extent is about [-1, 1]."""
    r = np.hypot(u, v)
    if kind == "ball":
        return r - 0.95
    if kind == "box":
        return np.maximum(np.abs(u), np.abs(v)) - 0.85
    if kind == "ring":
        return np.abs(r - 0.7) - 0.27
    if kind == "cross":
        a, b = np.abs(u), np.abs(v)
        return np.minimum(np.maximum(a - 0.34, b - 1.0), np.maximum(a - 1.0, b - 0.34))
    if kind == "cone":
        return np.maximum(v - 0.8, 0.894 * np.abs(u) - 0.447 * v - 0.447 * 0.98)
    if kind == "moon":
        return np.maximum(r - 1.0, 0.78 - np.hypot(u - 0.55, v))
    if kind == "heart":
        a = np.abs(u)
        lobes = np.hypot(a - 0.46, v + 0.32) - 0.52
        tip = np.maximum(0.707 * (a + v) - 0.62, -v - 0.32)
        return np.minimum(lobes, np.maximum(tip, a - 0.98))
    return _star_distance(u, v, r)


def _star_distance(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Five points: the plane is folded into half a point, whose edge runs from (1, 0) to 0.45 at 36 degrees."""
    fold = np.abs((np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    px, py = r * np.cos(fold), r * np.sin(fold)
    ex, ey = 0.45 * np.cos(np.pi / 5) - 1.0, 0.45 * np.sin(np.pi / 5)
    length = np.hypot(ex, ey)
    return ((px - 1.0) * ey - py * ex) / length


def _ground(clip: Clip) -> np.ndarray:
    return np.stack([_ground_frame(clip, t) for t in range(clip.n_frames)])


def _ground_frame(clip: Clip, t: int) -> np.ndarray:
    """The drifting window on the clip's ground tile, float32 (H, W, 3), whole-pixel steps."""
    tile = _tile(clip.ground, clip.ground_seed % _TILES_A_GROUND)
    corner = np.array([clip.ground_seed % 29 + 16, clip.ground_seed % 31 + 16]) + np.round(np.array(clip.pan_px) * t)
    x, y = corner.astype(int) % (_TILE_PX - SIDE_PX)
    return tile[y : y + SIDE_PX, x : x + SIDE_PX].copy()


@cache
def _tile(ground: str, number: int) -> np.ndarray:
    """A ground tile (160, 160, 3) float32: three octaves of value noise between two tones, with courses for brick."""
    rng = np.random.default_rng([sum(map(ord, ground)), number])
    low, high, stretch = _GROUND_RGB[ground]
    octaves = [_value_noise(rng, cell_px, stretch) * weight for cell_px, weight in ((24, 0.5), (9, 0.3), (3, 0.2))]
    noise = np.sum(octaves, axis=0)
    tile = np.array(low, np.float32) + noise[..., None] * (np.array(high, np.float32) - np.array(low, np.float32))
    if ground == "brick":
        ys, xs = np.mgrid[0:_TILE_PX, 0:_TILE_PX]
        joint = (ys % 12 < 2) | ((xs + 12 * (ys // 12 % 2)) % 24 < 2)
        tile[joint] *= 0.72
    return tile


def _value_noise(rng: np.random.Generator, cell_px: int, stretch: tuple[float, float]) -> np.ndarray:
    """Smooth noise in [0, 1] (160, 160): random values on a grid of cells, bilinear in between."""
    axes = []
    for factor in stretch:
        step = max(cell_px * factor, 2.0)
        positions = np.arange(_TILE_PX) / step
        axes.append((positions.astype(int), (positions % 1).astype(np.float32)))
    (yi, yf), (xi, xf) = axes
    grid = rng.random((yi.max() + 2, xi.max() + 2), dtype=np.float32)
    top = grid[yi][:, xi] * (1 - xf) + grid[yi][:, xi + 1] * xf
    bottom = grid[yi + 1][:, xi] * (1 - xf) + grid[yi + 1][:, xi + 1] * xf
    return top * (1 - yf[:, None]) + bottom * yf[:, None]
