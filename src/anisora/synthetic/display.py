"""The display list: what a frame consists of, before anybody draws it.

A frame is a list of layers, a layer is an affine map from its own coordinates to pixels plus plain primitives. Rigs
write it, the drawing backends (`draw_skia`, `draw_pillow`) and the answer key (`truth`) read it; none knows the others.
y points down everywhere. Colours are (red, green, blue) or (red, green, blue, alpha), 0-255.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

Color = tuple[int, ...]
Matrix = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x' = a x + b y + c, y' = d x + e y + f."""

# Who owns a pixel of the id map: group 0 is scenery, characters are 1, 2; then come things, then effects.
SCENERY, FIRST_CHARACTER, FIRST_OBJECT, FIRST_EFFECT = 0, 1, 10, 20


class Prim(NamedTuple):
    """One primitive. `key` names the same part in every frame, which is what makes exact flow possible.

    kind       pts (flat x, y, ...)                     width
    ellipse    centre, first half axis, second half axis
    stroke     points of an open line                   of the line; ends and joints are round
    poly       corners of a closed polygon
    blob       points of a closed smooth curve
    dots       centres                                  diameter
    segments   pairs of end points                      of the lines
    gradient   left top, right bottom; `fill` at the top runs to `shade` at the bottom
    """

    kind: str
    key: str
    group: int
    pts: tuple[float, ...]
    width: float
    fill: Color
    line_width: float = 0.0
    line: Color = (0, 0, 0)
    shade: Color | None = None
    hard: bool = False


class Layer(NamedTuple):
    """Primitives under one map to pixels.

    `cache_key`: layers of one clip with equal key hold equal primitives. `period`: the layer repeats along x after
    so many of its units, without end. `is_camera`: the layer lies in the plane of the characters.
    """

    matrix: Matrix
    prims: list[Prim]
    cache_key: object
    period: float | None = None
    is_camera: bool = False


Frame = list[Layer]


def tiles(layer: Layer, width_px: int) -> list[float]:
    """Offsets along x, in layer units, at which a repeating layer has to be drawn to fill the width."""
    if layer.period is None:
        return [0.0]
    a, _, c = layer.matrix[:3]
    first = int(-c / a // layer.period)
    last = int((width_px - c) / a // layer.period)
    return [k * layer.period for k in range(first, last + 1)]


def shading(prim: Prim) -> tuple[float, float, float, list[float]]:
    """Centre, radius and the two stops of a part's light: a disc of light towards the upper left."""
    pts = prim.pts
    if prim.kind == "ellipse":
        cx, cy, ux, uy, vx, vy = pts
        half_w, half_h = abs(ux) + abs(vx), abs(uy) + abs(vy)
    else:
        xs, ys = pts[::2], pts[1::2]
        x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
        cx, cy, half_w, half_h = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
    size = max(half_w, half_h, 1e-4)
    stops = [0.66, 0.69] if prim.hard else [0.15, 1.0]
    return cx - 0.45 * half_w, cy - 0.45 * half_h, 1.75 * size, stops


@lru_cache(maxsize=4096)
def mix(a: Color, b: Color, amount: float) -> Color:
    """The colour `amount` (0 to 1) of the way from a to b."""
    return tuple(round(x + (y - x) * amount) for x, y in zip(a[:3], b[:3], strict=True))


class Pen:
    """Writes primitives of one group in one drawing style.

    flat     plain colours, no outline
    line     ink outlines around pale, paper-like fills
    cel      dark outlines of the colour's own hue, a hard two-tone shadow
    painted  soft shading, no outline
    """

    def __init__(self, style: str, group: int, line_width: float, prefix: str) -> None:
        self.style, self.group, self.prefix, self.prims = style, group, prefix, list[Prim]()
        self.line_width = {"flat": 0.0, "line": 1.15, "cel": 0.8, "painted": 0.0}[style] * line_width
        self._looks: dict[tuple, tuple] = {}

    def look(self, color: Color, shaded: bool) -> tuple:
        """(fill, outline colour, shadow colour or None) of a base colour in this style."""
        got = self._looks.get((color, shaded))
        if got is None:
            got = self._looks[color, shaded] = self._make_look(color, shaded)
        return got

    def _make_look(self, color: Color, shaded: bool) -> tuple:
        if self.style == "line":
            return mix(color, (255, 253, 246), 0.5), (38, 32, 44), None
        ink = mix(mix(color, (52, 24, 60), 0.35), (20, 10, 30), 0.5)
        if self.style == "cel" and shaded:
            return color, ink, mix(mix(color, (70, 50, 130), 0.22), (20, 10, 40), 0.12)
        if self.style == "painted" and shaded:
            return mix(color, (255, 246, 220), 0.22), ink, mix(color, (50, 30, 90), 0.3)
        return color, ink, None

    def add(
        self,
        kind: str,
        key: str,
        pts: tuple[float, ...],
        color: Color,
        width: float = 0.0,
        outlined: bool = True,
        shaded: bool = True,
    ) -> None:
        """Put one part on top of what is there."""
        fill, ink, shade = self.look(color, shaded and kind != "stroke")
        line_width = self.line_width if outlined else 0.0
        hard = self.style == "cel"
        self.prims.append(Prim(kind, self.prefix + key, self.group, pts, width, fill, line_width, ink, shade, hard))

    def mark(self, kind: str, key: str, pts: tuple[float, ...], color: Color, width: float = 0.0) -> None:
        """Put one part on top in exactly this colour: eyes, ink, light; no outline, no shading."""
        self.prims.append(Prim(kind, self.prefix + key, self.group, pts, width, color))

    def oval(self, key: str, x: float, y: float, rx: float, ry: float, color: Color, plain: bool = False) -> None:
        """An upright ellipse."""
        if plain:
            self.mark("ellipse", key, (x, y, rx, 0.0, 0.0, ry), color)
        else:
            self.add("ellipse", key, (x, y, rx, 0.0, 0.0, ry), color)
