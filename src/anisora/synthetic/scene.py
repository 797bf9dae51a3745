"""Puts a plan on stage: at any instant, the display list of the whole picture."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from anisora.synthetic.camera import matrix
from anisora.synthetic.costume import dress
from anisora.synthetic.display import FIRST_CHARACTER, FIRST_EFFECT, FIRST_OBJECT, SCENERY, Frame, Layer, Pen, Prim
from anisora.synthetic.plan import DRAWING_RATES, ClipPlan
from anisora.synthetic.rig import Skeleton, skeleton
from anisora.synthetic.scenery import PERIOD, background
from anisora.synthetic.things import EFFECTS, OBJECTS, particles


class Moment(NamedTuple):
    """One instant of a scene."""

    frame: Frame
    skeletons: list[Skeleton]
    drawing: int
    """Number of the held drawing; the cast of two moments with one number is the same."""


class Scene:
    """A plan with everything built that does not change over time."""

    def __init__(self, plan: ClipPlan, width_px: int, height_px: int) -> None:
        self.plan, self.width_px, self.height_px = plan, width_px, height_px
        # One line is about a pixel of a 96 pixel picture, whatever the framing.
        self.line_width = 0.0105 * plan.view.height * plan.finish.ink
        rng = np.random.default_rng(np.random.SeedSequence((plan.rng_seed, 1)))
        self.shift = float(rng.uniform(0, PERIOD))
        self.layers = background(plan.background, plan.mood, plan.style, self.line_width, rng)
        self.particles = particles(rng)
        self._last: tuple[int, tuple[list[Prim], list[Skeleton]]] | None = None

    def moment(self, index: int, time_s: Fraction) -> Moment:
        """What is to be drawn for frame `index`: cast and effects as of the held drawing, the camera as of now."""
        rate = DRAWING_RATES[self.plan.drawing]
        drawing = index if rate is None else math.floor(time_s * rate)
        drawn_s = float(time_s if rate is None else Fraction(drawing) / rate)
        if self._last is None or self._last[0] != drawing:
            self._last = (drawing, self._cast(drawn_s))
        cast, skeletons = self._last[1]
        layers = [self._background(k, float(time_s)) for k in range(len(self.layers))]
        stage = matrix(self.plan.view, float(time_s), 1.0, self.width_px, self.height_px)
        layers.append(Layer(stage, cast, None if rate is None else ("cast", drawing), is_camera=True))
        if self.plan.effect:
            height = float(self.height_px)
            layers.append(Layer((height, 0, 0, 0, height, 0), self._effect(drawn_s), None))
        return Moment(layers, skeletons, drawing)

    def _background(self, k: int, time_s: float) -> Layer:
        depth, repeats, prims = self.layers[k]
        a, b, c, d, e, f = matrix(self.plan.view, time_s, depth, self.width_px, self.height_px)
        if not repeats:
            return Layer((a, b, c, d, e, f), prims, ("background", k))
        return Layer((a, b, c - a * self.shift, d, e, f), prims, ("background", k), period=PERIOD)

    def _cast(self, t: float) -> tuple[list[Prim], list[Skeleton]]:
        plan, prims, skeletons = self.plan, list[Prim](), list[Skeleton]()
        for k, person in enumerate(plan.people):
            s = skeleton(person, t)
            skeletons.append(s)
            prims.append(_shadow(s, k))
            pen = Pen(plan.style, FIRST_CHARACTER + k, self.line_width, f"p{k}:")
            prims += dress(person.character, s, pen)
        if plan.item:
            pen = Pen(plan.style, FIRST_OBJECT, self.line_width, "object:")
            OBJECTS[plan.item](t, plan.people[0], skeletons[0], pen)
            prims += pen.prims
        return prims, skeletons

    def _effect(self, t: float) -> list[Prim]:
        pen = Pen(self.plan.style, FIRST_EFFECT, 0.0, "effect:")
        assert self.plan.effect is not None
        EFFECTS[self.plan.effect](t, self.width_px / self.height_px, self.particles, pen)
        return pen.prims


def _shadow(s: Skeleton, k: int) -> Prim:
    """A soft spot on the ground that grows fainter as its owner leaves the ground."""
    height = max(s.pose.lift, 0.0)
    wide = 0.17 * (1 - 0.9 * height)
    x = s.joints["hips"][0]
    return Prim(
        "ellipse", f"p{k}:shadow", SCENERY, (x, 0.0, wide, 0.0, 0.0, 0.035), 0.0, (30, 20, 60, round(70 * (1 - height)))
    )
