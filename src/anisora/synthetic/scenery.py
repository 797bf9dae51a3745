"""Backgrounds in layers: each function of BACKGROUNDS builds one place, from the sky to the ground.

A layer is (depth, repeats, primitives): depth 0 is infinitely far and never moves, depth 1 moves with the characters.
The ground line is y = 0 and one unit is a character's height, as in `rig`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from anisora.synthetic.display import SCENERY, Color, Pen, Prim, mix

PERIOD = 4.0
"""Width after which a repeating layer starts again."""

# mood: (sky at the top, sky at the horizon, tint of the land, amount of tint)
MOODS: dict[str, tuple[Color, Color, Color, float]] = {
    "day": ((92, 170, 240), (206, 236, 252), (255, 255, 240), 0.0),
    "morning": ((140, 196, 240), (255, 236, 208), (255, 226, 190), 0.14),
    "sunset": ((120, 92, 176), (255, 178, 120), (255, 140, 110), 0.24),
    "night": ((24, 30, 78), (72, 84, 150), (40, 50, 120), 0.42),
    "overcast": ((164, 178, 196), (222, 228, 234), (190, 200, 214), 0.2),
}

SceneLayer = tuple[float, bool, list[Prim]]


class Land:
    """Collects the layers of one place in one drawing style and mood."""

    def __init__(self, style: str, mood: str, line_width: float, rng: np.random.Generator) -> None:
        self.rng, self.mood = rng, mood
        # Animation backgrounds are painted behind cels; ink goes through everything only in line art.
        self.style = {"cel": "painted"}.get(style, style)
        self.line_width = 0.7 * line_width
        self.top, self.low, self.tint, self.amount = MOODS[mood]
        self.layers: list[SceneLayer] = []

    def pen(self, depth: float, repeats: bool = True) -> Pen:
        """A pen for a new layer on top of those there are."""
        pen = Pen(self.style, SCENERY, self.line_width, f"bg{len(self.layers)}:")
        self.layers.append((depth, repeats, pen.prims))
        return pen

    def color(self, color: Color, depth: float = 1.0) -> Color:
        """A local colour under this mood, hazier with distance."""
        return mix(mix(color, self.tint, self.amount), self.low, 0.45 * (1 - depth))

    def pick(self, *colors: Color) -> Color:
        return colors[int(self.rng.integers(len(colors)))]

    def along(self, count: int, margin: float = 0.3) -> list[float]:
        """Places along the period, evenly spread with some disorder, away from the seam."""
        gap = (PERIOD - 2 * margin) / count
        return [margin + gap * (k + float(self.rng.uniform(0.25, 0.75))) for k in range(count)]

    def sky(self) -> None:
        pen = self.pen(0.0, repeats=False)
        style = (lambda c: mix(c, (255, 253, 246), 0.6)) if self.style == "line" else (lambda c: c)
        pen.prims.append(
            Prim("gradient", "bg0:sky", SCENERY, (-9, -2.0, 9, 0.2), 0, style(self.top), shade=style(self.low))
        )
        x, y = float(self.rng.uniform(-0.5, 0.5)), float(self.rng.uniform(-1.3, -0.95))
        if self.mood == "night":
            stars = tuple(
                float(v) for _ in range(26) for v in (self.rng.uniform(-1.2, 1.2), self.rng.uniform(-1.7, -0.5))
            )
            pen.mark("dots", "stars", stars, (250, 246, 214), 0.016)
            pen.oval("moon", x, y, 0.11, 0.11, (252, 240, 200), plain=True)
        elif self.mood in ("sunset", "morning"):
            pen.oval("halo", x, y + 0.45, 0.24, 0.24, (*mix(self.low, (255, 250, 220), 0.5), 120), plain=True)
            pen.oval("sun", x, y + 0.45, 0.15, 0.15, (255, 244, 206), plain=True)

    def clouds(self, count: int = 4) -> None:
        pen = self.pen(0.15)
        color = self.color((255, 255, 255), 0.6)
        for k, x in enumerate(self.along(count, 0.5)):
            y, s = float(self.rng.uniform(-1.35, -0.8)), float(self.rng.uniform(0.1, 0.19))
            pen.prims.append(
                Prim(
                    "dots",
                    f"{pen.prefix}cloud{k}",
                    SCENERY,
                    (x - s, y, x, y - 0.4 * s, x + s, y, x + 0.3 * s, y + 0.1 * s),
                    1.3 * s,
                    color,
                )
            )

    def hills(self, depth: float, base: float, height: float, color: Color, peaks: bool = False) -> Pen:
        """A row of hills (or mountains) whose crest is about `height` above y = base."""
        pen = self.pen(depth)
        a, b = self.rng.uniform(0, 2 * math.pi, 2)
        m, n = self.rng.integers(1, 3), self.rng.integers(3, 6)
        points: list[float] = []
        steps = 28
        for k in range(steps + 1):
            w = 2 * math.pi * k / steps
            crest = 0.5 + 0.3 * math.sin(m * w + a) + 0.2 * math.sin(n * w + b)
            crest = abs(math.sin(n * w / 2 * 1.0 + b)) if peaks else crest
            points += [PERIOD * k / steps, base - height * crest]
        points += [PERIOD + 0.01, 1.5, -0.01, 1.5]
        pen.add("poly", "hills", tuple(points), self.color(color, depth), shaded=False)
        return pen

    def ground(self, color: Color, horizon: float = -0.2, detail: Color | None = None) -> Pen:
        """The plane the characters stand on, with bands of colour towards the viewer."""
        pen = self.pen(1.0)
        base = self.color(color)
        lit = pen.look(base, False)[0]
        band = mix(lit, (30, 20, 60), 0.12)
        pen.prims.append(Prim("rect", pen.prefix + "ground", SCENERY, (-0.01, horizon, PERIOD + 0.01, 2.5), 0, lit))
        pen.prims.append(Prim("rect", pen.prefix + "band", SCENERY, (-0.01, 0.12, PERIOD + 0.01, 2.5), 0, band))
        if detail is not None:
            for k, x in enumerate(self.along(18, 0.05)):
                y = float(self.rng.uniform(horizon + 0.04, 0.24))
                pen.oval(f"patch{k}", x, y, 0.07, 0.018, self.color(detail), plain=True)
        return pen

    def tree(self, pen: Pen, key: str, x: float, y: float, size: float, crown: Color, depth: float) -> None:
        trunk = self.color((124, 86, 62), depth)
        pen.add("stroke", f"{key}_trunk", (x, y, x, y - 0.6 * size), trunk, 0.11 * size)
        for k, (dx, dy, r) in enumerate(((-0.24, -0.62, 0.3), (0.26, -0.66, 0.3), (0.0, -0.95, 0.36))):
            shade = mix(crown, (30, 40, 70), 0.1 * (k == 0))
            pen.oval(
                f"{key}_crown{k}", x + dx * size, y + dy * size, r * size, r * size * 0.9, self.color(shade, depth)
            )

    def fir(self, pen: Pen, key: str, x: float, y: float, size: float, color: Color, depth: float) -> None:
        pen.add("stroke", f"{key}_trunk", (x, y, x, y - 0.2 * size), self.color((110, 80, 64), depth), 0.09 * size)
        for k in range(3):
            top, half = y - size * (0.55 + 0.27 * k), size * (0.34 - 0.08 * k)
            pen.add(
                "poly",
                f"{key}_{k}",
                (x - half, top + 0.42 * size, x, top, x + half, top + 0.42 * size),
                self.color(color, depth),
            )

    def house(self, pen: Pen, key: str, x: float, wide: float, tall: float, depth: float, lit: bool) -> None:
        wall = self.pick(
            (246, 220, 180), (240, 190, 160), (190, 214, 226), (226, 226, 214), (250, 206, 120), (214, 170, 190)
        )
        roof = self.pick((206, 90, 76), (96, 120, 170), (150, 96, 84), (88, 142, 128))
        y, half = -0.15, wide / 2
        pen.add(
            "poly",
            f"{key}_wall",
            (x - half, y, x - half, y - tall, x + half, y - tall, x + half, y),
            self.color(wall, depth),
            shaded=False,
        )
        pen.add(
            "poly",
            f"{key}_roof",
            (x - half - 0.06, y - tall, x, y - tall - 0.55 * wide, x + half + 0.06, y - tall),
            self.color(roof, depth),
            shaded=False,
        )
        glass = (255, 226, 130) if lit else self.color((120, 170, 206), depth)
        for k in range(2):
            for j in range(max(1, int(tall / 0.34))):
                wx, wy = x + (k - 0.5) * half * 0.95, y - tall + 0.17 + 0.32 * j
                pen.add(
                    "poly",
                    f"{key}_w{k}{j}",
                    (wx - 0.06, wy - 0.07, wx + 0.06, wy - 0.07, wx + 0.06, wy + 0.07, wx - 0.06, wy + 0.07),
                    glass,
                    shaded=False,
                )
        pen.add(
            "poly",
            f"{key}_door",
            (x - 0.06, y, x - 0.06, y - 0.2, x + 0.06, y - 0.2, x + 0.06, y),
            self.color(roof, depth),
            shaded=False,
        )

    def box(
        self, pen: Pen, key: str, x0: float, y0: float, x1: float, y1: float, color: Color, depth: float = 1.0
    ) -> None:
        pen.add("poly", key, (x0, y0, x1, y0, x1, y1, x0, y1), self.color(color, depth), shaded=False)


def meadow(land: Land) -> None:
    land.sky()
    land.clouds()
    land.hills(0.3, -0.35, 0.42, (104, 172, 140))
    pen = land.hills(0.6, -0.2, 0.22, (120, 196, 112))
    for k, x in enumerate(land.along(4)):
        land.tree(
            pen, f"tree{k}", x, -0.2, float(land.rng.uniform(0.5, 0.85)), land.pick((84, 166, 92), (110, 180, 84)), 0.7
        )
    ground = land.ground((140, 208, 104), -0.14, (116, 186, 92))
    for k, x in enumerate(land.along(16, 0.05)):
        y = float(land.rng.uniform(-0.08, 0.22))
        ground.oval(
            f"flower{k}", x, y, 0.02, 0.02, land.pick((255, 240, 120), (255, 150, 170), (255, 255, 255)), plain=True
        )


def town(land: Land) -> None:
    land.sky()
    land.clouds(3)
    far = land.pen(0.35)
    for k, x in enumerate(land.along(7, 0.2)):
        tall = float(land.rng.uniform(0.6, 1.15))
        land.box(far, f"block{k}", x - 0.17, -tall, x + 0.17, 0.3, (150, 164, 196), 0.35)
    near = land.pen(0.75)
    for k, x in enumerate(land.along(4, 0.35)):
        land.house(
            near,
            f"house{k}",
            x,
            float(land.rng.uniform(0.5, 0.7)),
            float(land.rng.uniform(0.45, 0.85)),
            0.85,
            land.mood == "night",
        )
    road = land.ground((182, 178, 186), -0.16)
    land.box(road, "curb", -0.01, -0.16, PERIOD, -0.11, (226, 220, 214))
    for k in range(8):
        land.box(road, f"dash{k}", 0.05 + 0.5 * k, 0.16, 0.3 + 0.5 * k, 0.185, (244, 240, 226))
    for k, x in enumerate(land.along(2, 0.4)):
        road.add("stroke", f"lamp{k}", (x, -0.13, x, -1.0), land.color((84, 88, 104)), 0.03)
        road.oval(f"light{k}", x, -1.02, 0.055, 0.055, (255, 238, 170))


def forest(land: Land) -> None:
    land.sky()
    land.hills(0.2, -0.5, 0.6, (92, 150, 120))
    far = land.pen(0.45)
    for k, x in enumerate(land.along(9, 0.1)):
        land.fir(
            far, f"fir{k}", x, -0.1, float(land.rng.uniform(0.8, 1.15)), land.pick((84, 140, 112), (100, 156, 110)), 0.5
        )
    mid = land.pen(0.75)
    for k, x in enumerate(land.along(4, 0.3)):
        land.tree(
            mid,
            f"tree{k}",
            x,
            -0.12,
            float(land.rng.uniform(0.95, 1.3)),
            land.pick((70, 140, 84), (96, 160, 76), (60, 126, 92)),
            0.85,
        )
    ground = land.ground((126, 160, 84), -0.14, (104, 138, 72))
    for k, x in enumerate(land.along(5, 0.2)):
        y = float(land.rng.uniform(-0.06, 0.04))
        ground.add("stroke", f"stem{k}", (x, y, x, y - 0.05), (250, 238, 214), 0.03)
        ground.oval(f"cap{k}", x, y - 0.06, 0.05, 0.032, land.pick((226, 84, 72), (236, 160, 80)))


def room(land: Land) -> None:
    wall = land.pick((250, 228, 196), (206, 226, 222), (240, 208, 206), (214, 212, 238), (226, 234, 200))
    pen = land.pen(0.85)
    lit = pen.look(land.color(wall), False)[0]
    pen.prims.append(Prim("rect", pen.prefix + "wall", SCENERY, (-0.01, -6, PERIOD + 0.01, 2), 0, lit))
    for k in range(16):
        land.box(pen, f"stripe{k}", 0.25 * k + 0.06, -6, 0.25 * k + 0.14, 0.5, mix(wall, (150, 120, 120), 0.1))
    glass = land.top if land.mood != "day" else (150, 208, 246)
    for k, x in enumerate((0.75, 2.7)):
        land.box(pen, f"frame{k}", x - 0.36, -1.2, x + 0.36, -0.5, (250, 248, 240))
        pen.add("poly", f"glass{k}", (x - 0.31, -1.15, x + 0.31, -1.15, x + 0.31, -0.55, x - 0.31, -0.55), glass)
        land.box(pen, f"bar{k}", x - 0.015, -1.15, x + 0.015, -0.55, (250, 248, 240))
        for j, side in enumerate((-1, 1)):
            curtain = (
                x + side * 0.46,
                -1.28,
                x + side * 0.2,
                -1.28,
                x + side * 0.34,
                -0.85,
                x + side * 0.42,
                -0.42,
                x + side * 0.5,
                -0.42,
            )
            pen.add(
                "poly",
                f"curtain{k}{j}",
                curtain,
                land.color(land.pick((226, 110, 110), (110, 150, 206), (240, 186, 96))),
            )
    land.box(pen, "shelf", 1.35, -0.95, 2.1, -0.9, (150, 104, 76))
    for k in range(8):
        x = 1.4 + 0.085 * k
        land.box(
            pen,
            f"book{k}",
            x,
            -0.95 - float(land.rng.uniform(0.12, 0.2)),
            x + 0.07,
            -0.95,
            land.pick((214, 90, 84), (84, 136, 190), (240, 196, 96), (110, 170, 120)),
        )
    land.box(pen, "picture", 3.35, -1.1, 3.75, -0.78, (158, 110, 82))
    land.box(pen, "painting", 3.39, -1.06, 3.71, -0.82, land.pick((150, 206, 220), (250, 214, 150), (200, 170, 220)))
    land.box(pen, "skirting", -0.01, -0.22, PERIOD, -0.15, (250, 244, 232))
    floor = land.ground((206, 158, 112), -0.16)
    for k in range(12):
        floor.mark(
            "stroke", f"plank{k}", (0.33 * k + 0.1, -0.16, 0.33 * k + 0.04, 0.6), land.color((178, 130, 90)), 0.012
        )
    floor.oval("rug", 2.0, 0.06, 0.8, 0.13, land.color(land.pick((214, 110, 120), (100, 150, 190), (240, 200, 120))))


def classroom(land: Land) -> None:
    pen = land.pen(0.85)
    lit = pen.look(land.color((244, 234, 210)), False)[0]
    pen.prims.append(Prim("rect", pen.prefix + "wall", SCENERY, (-0.01, -6, PERIOD + 0.01, 2), 0, lit))
    land.box(pen, "board_rim", 0.4, -1.28, 2.3, -0.48, (158, 112, 78))
    land.box(pen, "board", 0.46, -1.22, 2.24, -0.54, (64, 118, 98))
    for k in range(5):
        x, y = 0.6 + 0.33 * k, float(land.rng.uniform(-1.1, -0.7))
        pen.mark(
            "stroke",
            f"chalk{k}",
            (x, y, x + 0.08, y - 0.08, x + 0.16, y + 0.02, x + 0.24, y - 0.05),
            (232, 240, 232),
            0.014,
        )
    for k, x in enumerate((2.75, 3.45)):
        land.box(pen, f"frame{k}", x - 0.28, -1.25, x + 0.28, -0.5, (250, 250, 246))
        pen.add("poly", f"glass{k}", (x - 0.24, -1.21, x + 0.24, -1.21, x + 0.24, -0.54, x - 0.24, -0.54), land.top)
        land.box(pen, f"bar{k}", x - 0.24, -0.89, x + 0.24, -0.86, (250, 250, 246))
    land.box(pen, "panel", -0.01, -0.4, PERIOD, 0.4, (206, 172, 128))
    floor = land.ground((190, 160, 126), -0.16)
    for k, x in enumerate(land.along(3, 0.3)):
        land.box(floor, f"desk{k}", x - 0.22, -0.36, x + 0.22, -0.31, (222, 178, 120))
        for j, side in enumerate((-0.19, 0.19)):
            floor.mark("stroke", f"leg{k}{j}", (x + side, -0.31, x + side, -0.08), (120, 124, 136), 0.02)


def beach(land: Land) -> None:
    land.sky()
    land.clouds(3)
    sea = land.pen(0.35)
    color = sea.look(land.color((64, 164, 206), 0.8), False)[0]
    sea.prims.append(Prim("rect", sea.prefix + "sea", SCENERY, (-0.01, -0.52, PERIOD + 0.01, 1.5), 0, color))
    for k, x in enumerate(land.along(14, 0.1)):
        y = float(land.rng.uniform(-0.47, -0.2))
        sea.mark("stroke", f"glitter{k}", (x - 0.07, y, x + 0.07, y), land.color((206, 238, 246), 0.8), 0.016)
    island = land.pen(0.45)
    for k, x in enumerate(land.along(2, 0.6)):
        island.add(
            "blob",
            f"island{k}",
            (x - 0.4, -0.47, x - 0.15, -0.62, x + 0.12, -0.58, x + 0.4, -0.47),
            land.color((96, 160, 110), 0.6),
        )
    sand = land.ground((246, 220, 164), -0.2, (232, 200, 140))
    sand.mark(
        "stroke", "foam", tuple(v for k in range(17) for v in (0.25 * k, -0.2 + 0.015 * (k % 2))), (250, 252, 250), 0.03
    )
    for k, x in enumerate(land.along(2, 0.5)):
        sand.add("stroke", f"palm{k}", (x, -0.08, x + 0.04, -0.5, x + 0.12, -0.9), land.color((158, 118, 80)), 0.06)
        for j in range(5):
            w = math.pi * (0.05 + 0.225 * j)
            cx, cy = x + 0.12 + 0.3 * math.cos(w), -0.9 - 0.18 * math.sin(w) + 0.12 * abs(math.cos(w))
            sand.add(
                "blob",
                f"frond{k}{j}",
                (
                    x + 0.12,
                    -0.92,
                    (x + 0.12 + cx) / 2,
                    (cy - 0.92) / 2 - 0.06,
                    cx,
                    cy + 0.05,
                    (x + 0.12 + cx) / 2,
                    (cy - 0.92) / 2 + 0.02,
                ),
                land.color((78, 162, 96)),
            )


def night_city(land: Land) -> None:
    land.sky()
    for depth, base, tones in ((0.3, 0.8, ((58, 66, 120), (70, 78, 132))), (0.65, 0.55, ((44, 48, 92), (60, 54, 104)))):
        pen = land.pen(depth)
        for k, x in enumerate(land.along(7, 0.2)):
            tall, half = base + float(land.rng.uniform(0, 0.5)), float(land.rng.uniform(0.17, 0.24))
            pen.add(
                "poly",
                f"tower{k}",
                (x - half, 0.3, x - half, -tall, x + half, -tall, x + half, 0.3),
                land.pick(*tones),
                shaded=False,
            )
            for j in range(6):
                wx = x + half * (-0.5 if j % 2 else 0.5)
                wy = -tall + 0.12 + 0.17 * (j // 2)
                glow = land.pick((255, 222, 120), (255, 200, 110), (120, 130, 190))
                pen.mark(
                    "poly",
                    f"win{k}_{j}",
                    (wx - 0.045, wy - 0.045, wx + 0.045, wy - 0.045, wx + 0.045, wy + 0.045, wx - 0.045, wy + 0.045),
                    glow,
                )
    road = land.ground((92, 92, 134), -0.16)
    for k in range(8):
        land.box(road, f"dash{k}", 0.05 + 0.5 * k, 0.16, 0.3 + 0.5 * k, 0.185, (226, 210, 150))
    for k, x in enumerate(land.along(3, 0.3)):
        road.mark("stroke", f"lamp{k}", (x, -0.13, x, -0.95), (60, 60, 84), 0.03)
        road.oval(f"glow{k}", x, -0.98, 0.13, 0.13, (255, 230, 150, 70), plain=True)
        road.oval(f"light{k}", x, -0.98, 0.05, 0.05, (255, 240, 180), plain=True)


def snowfield(land: Land) -> None:
    land.sky()
    land.hills(0.25, -0.3, 0.62, (150, 174, 206), peaks=True)
    pen = land.hills(0.55, -0.2, 0.16, (226, 236, 246))
    for k, x in enumerate(land.along(6, 0.2)):
        land.fir(
            pen,
            f"fir{k}",
            x,
            -0.18,
            float(land.rng.uniform(0.5, 0.85)),
            land.pick((86, 140, 136), (70, 122, 122)),
            0.75,
        )
    ground = land.ground((240, 246, 252), -0.12, (214, 226, 240))
    x = float(land.rng.uniform(1.0, 3.0))
    for k, (y, r) in enumerate(((-0.1, 0.13), (-0.29, 0.095))):
        ground.oval(f"snowman{k}", x, y, r, r, (252, 252, 255))


def cherry_park(land: Land) -> None:
    land.sky()
    land.clouds(3)
    land.hills(0.3, -0.3, 0.35, (150, 176, 190))
    mid = land.pen(0.7)
    for k, x in enumerate(land.along(5, 0.25)):
        land.tree(
            mid,
            f"tree{k}",
            x,
            -0.12,
            float(land.rng.uniform(0.8, 1.15)),
            land.pick((250, 180, 200), (246, 160, 190), (255, 206, 216)),
            0.9,
        )
    ground = land.ground((170, 206, 130), -0.14, (250, 196, 210))
    land.box(ground, "path", -0.01, -0.05, PERIOD, 0.1, (232, 214, 180))
    for k, x in enumerate(land.along(2, 0.5)):
        land.box(ground, f"bench{k}", x - 0.22, -0.3, x + 0.22, -0.25, (168, 112, 78))
        land.box(ground, f"feet{k}", x - 0.17, -0.25, x - 0.13, -0.12, (110, 84, 70))
        land.box(ground, f"foot{k}", x + 0.13, -0.25, x + 0.17, -0.12, (110, 84, 70))


BACKGROUNDS: dict[str, Callable[[Land], None]] = {
    "meadow": meadow,
    "town": town,
    "forest": forest,
    "room": room,
    "classroom": classroom,
    "beach": beach,
    "night city": night_city,
    "snowfield": snowfield,
    "cherry park": cherry_park,
}
"""Every place by name."""


def background(name: str, mood: str, style: str, line_width: float, rng: np.random.Generator) -> list[SceneLayer]:
    """The layers of a place, far to near."""
    land = Land(style, mood, line_width, rng)
    BACKGROUNDS[name](land)
    return land.layers
