"""How the picture is framed and how the camera moves, as one map from world to pixels for each depth."""

from __future__ import annotations

import math
from typing import NamedTuple

from anisora.synthetic.display import Matrix
from anisora.synthetic.pose import wave

CAMERAS = ("static", "pan", "zoom_in", "zoom_out", "shake", "tilt")
"""Camera moves. With somebody who travels, a pan follows."""

# (least and most height of the picture, height of its middle above the ground as a part of that)
FRAMINGS: dict[str, tuple[float, float, float, float]] = {
    "full": (1.18, 1.36, 0.0, 0.43),
    "half": (0.78, 0.92, 0.6, 0.0),
    "close": (0.64, 0.76, 0.7, 0.0),
    "face": (0.47, 0.57, 0.755, 0.0),
}


class View(NamedTuple):
    """Where the camera stands and how it moves, constant over a clip."""

    camera: str
    height: float
    """How much of the world the picture is high at rest, in character heights."""
    middle_y: float
    amount: float
    """Size of the move: 1 is usual."""
    direction: int
    phase: float
    follow: float
    """Speed of who is followed, heights a second; 0 if nobody is."""
    middle_x: float = 0.0
    """Where the middle of the picture is, in character heights; the subject is around 0."""

    @property
    def move(self) -> str:
        """The camera's move as captions tell it: a pan after somebody follows."""
        return "follow" if self.camera == "pan" and self.follow else self.camera


def offset(view: View, t: float) -> tuple[float, float, float]:
    """(x, y, zoom) of the camera against its rest, t in seconds; everything eases and repeats every 4 s or goes on."""
    u = 0.5 - 0.5 * math.cos(math.pi * t / 2)
    if view.camera == "pan":
        if view.follow:
            return view.follow * (t - 1) * (0.75 + 0.25 * view.amount), 0.0, 1.0
        return view.direction * 0.32 * view.amount * view.height * (u - 0.5), 0.0, 1.0
    if view.camera == "tilt":
        return 0.0, view.direction * 0.2 * view.amount * view.height * (u - 0.5), 1.0
    if view.camera == "zoom_in":
        return 0.0, 0.0, 0.88 * (1 + 0.34 * view.amount) ** u
    if view.camera == "zoom_out":
        return 0.0, 0.0, 0.88 * (1 + 0.34 * view.amount) ** (1 - u)
    if view.camera == "shake":
        size = 0.015 * view.amount * view.height
        x = wave(t, 1.9, view.phase) + 0.6 * wave(t, 2.7, 2 * view.phase)
        y = wave(t, 2.3, view.phase + 0.3) + 0.6 * wave(t, 3.1, view.phase)
        return size * x, size * y, 1.0
    return 0.0, 0.0, 1.0


def matrix(view: View, t: float, depth: float, width_px: int, height_px: int) -> Matrix:
    """World to pixels for things at `depth`: 1 in the plane of the characters, 0 infinitely far."""
    x, y, zoom = offset(view, t)
    scale = height_px / view.height * zoom**depth
    return (
        scale, 0.0, width_px / 2 - scale * depth * x - scale * view.middle_x,
        0.0, scale, height_px / 2 - scale * (view.middle_y + depth * y),
    )  # fmt: skip
