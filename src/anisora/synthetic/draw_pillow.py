"""Draws display lists with Pillow at four times the size: slower, always there, and the second opinion on Skia."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from anisora.synthetic.display import Color, Frame, Prim, shading, tiles

_OVERSAMPLE = 4


def _flatten(prim: Prim) -> list[tuple[float, float]]:
    """The part's outline, or the line of a stroke, as a polygon in layer coordinates."""
    pts = prim.pts
    if prim.kind == "ellipse":
        cx, cy, ux, uy, vx, vy = pts
        turns = [2 * math.pi * k / 48 for k in range(48)]
        return [(cx + ux * math.cos(w) + vx * math.sin(w), cy + uy * math.cos(w) + vy * math.sin(w)) for w in turns]
    points = list(zip(pts[::2], pts[1::2], strict=True))
    return _smooth(points) if prim.kind == "blob" else points


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The closed Catmull-Rom spline through the points, ten steps from each to the next."""
    out, n = [], len(points)
    for i in range(n):
        p0, p1, p2, p3 = (np.array(points[(i + k - 1) % n]) for k in range(4))
        for u in np.arange(10) / 10:
            a = 2 * p1 + (p2 - p0) * u + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2 + (3 * (p1 - p2) + p3 - p0) * u**3
            out.append(tuple(a / 2))
    return out


class PillowBackend:
    """Draws the frames of one clip into RGB arrays of (height_px, width_px, 3)."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self.width_px, self.height_px = width_px, height_px

    def draw(self, frame: Frame) -> np.ndarray:
        """The frame as uint8 HWC."""
        size = (self.width_px * _OVERSAMPLE, self.height_px * _OVERSAMPLE)
        image = Image.new("RGB", size)
        self._draw(image, frame, _OVERSAMPLE, None)
        return np.asarray(image.resize((self.width_px, self.height_px), Image.Resampling.BOX))

    def owners(self, frame: Frame) -> np.ndarray:
        """Which primitive is on top, int32 HW, as `SkiaBackend.owners`."""
        image = Image.new("I", (self.width_px, self.height_px))
        self._draw(image, frame, 1, 1)
        return np.asarray(image).astype(np.int32) - 1

    def _draw(self, image: Image.Image, frame: Frame, scale: int, first_code: int | None) -> None:
        number = 0
        for layer in frame:
            a, b, c, d, e, f = (v * scale for v in layer.matrix)
            for dx in tiles(layer, self.width_px):
                for k, prim in enumerate(layer.prims):
                    code = None if first_code is None else first_code + number + k
                    _draw_prim(image, prim, (a, b, c + a * dx, d, e, f + d * dx), code)
            number += len(layer.prims)


def _draw_prim(image: Image.Image, prim: Prim, m: tuple[float, ...], code: int | None) -> None:
    a, b, c, d, e, f = m
    if prim.kind in ("gradient", "rect"):
        x0, y0, x1, y1 = prim.pts
        points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    else:
        points = _flatten(prim)
    # Pillow's pixel centres are integers, the display list's are halves.
    points = [(a * x + b * y + c - 0.5, d * x + e * y + f - 0.5) for x, y in points]
    scale = math.sqrt(abs(a * e - b * d))
    pairs = (("line", prim.line_width), ("fill", 0.0)) if prim.line_width else (("fill", 0.0),)
    for what, grow in pairs:
        color = prim.line if what == "line" else prim.fill
        shade = prim.shade if what == "fill" and code is None else None
        if code is None and shade is None and len(color) == 3:
            _shape(ImageDraw.Draw(image), prim, points, (prim.width + 2 * grow) * scale, grow * scale, color)
            continue
        if code is not None:
            _shape(ImageDraw.Draw(image), prim, points, (prim.width + 2 * grow) * scale, grow * scale, code)
            continue
        mask = Image.new("L", image.size)
        alpha = color[3] if len(color) == 4 else 255
        _shape(ImageDraw.Draw(mask), prim, points, (prim.width + 2 * grow) * scale, grow * scale, alpha)
        image.paste(_fill(prim, color, m, mask.getbbox(), image.size), (0, 0), mask)


def _shape(draw: ImageDraw.ImageDraw, prim: Prim, points: list, width: float, grow: float, ink: Color | int) -> None:
    if prim.kind == "dots":
        for x, y in points:
            _disc(draw, x, y, width / 2, ink)
    elif prim.kind == "segments":
        for p, q in zip(points[::2], points[1::2], strict=True):
            _line(draw, [p, q], width, ink)
    elif prim.kind == "stroke":
        _line(draw, points, width, ink)
    else:
        draw.polygon(points, fill=ink)
        if grow:
            _line(draw, [*points, points[0]], 2 * grow, ink)


def _line(draw: ImageDraw.ImageDraw, points: list, width: float, ink: Color | int) -> None:
    draw.line(points, fill=ink, width=max(1, round(width)))
    for x, y in points:
        _disc(draw, x, y, width / 2, ink)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, ink: Color | int) -> None:
    r = max(r - 0.5, 0.0)  # both corners of Pillow's box are inside
    draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)


def _fill(prim: Prim, color: Color, m: tuple[float, ...], box: tuple | None, size: tuple[int, int]) -> Image.Image:
    """An image that is right inside the box: the plain colour, or the part's shading."""
    picture = Image.new("RGB", size, color[:3])
    if prim.shade is None or box is None:
        return picture
    a, b, c, d, e, f = m
    y, x = np.mgrid[box[1] : box[3], box[0] : box[2]] + 0.5
    if prim.kind == "gradient":
        top, bottom = prim.pts[1] * e + f, prim.pts[3] * e + f
        amount = (y - top) / (bottom - top)
    else:
        px, py, radius, (start, end) = shading(prim)
        scale = math.sqrt(abs(a * e - b * d))
        distance = np.hypot(x - (a * px + b * py + c), y - (d * px + e * py + f)) / (radius * scale)
        amount = (distance - start) / (end - start)
    amount = np.clip(amount, 0, 1)[..., None]
    pixels = np.array(color[:3]) * (1 - amount) + np.array(prim.shade[:3]) * amount
    picture.paste(Image.fromarray(pixels.round().astype(np.uint8)), box[:2])
    return picture
