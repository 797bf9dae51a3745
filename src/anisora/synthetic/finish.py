"""How a clip is drawn beyond its style: on what paper, in what light, with how broad a line, and where its subject stands.

All of it is constant over a clip and lies over the whole picture, so what is known of motion stays exact: a pixel becomes
`pixel * gain + lift`, the same in every frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from anisora.synthetic.parts import choose
from anisora.synthetic.versions import Version


class Finish(NamedTuple):
    """What is chosen for a clip."""

    paper: str = "none"
    light: float = 0.0
    """0 to 1: how much of the colour of the hour lies on everything, and how dark the corners are."""
    ink: float = 1.0
    """Width of the lines; 1 is usual."""
    aside: float = 0.0
    """How far from the middle of the picture the subject stands, in heights of the picture; to the right positive."""


def draw_finish(rng: np.random.Generator, version: Version) -> Finish:
    """The finish of a clip of this version."""
    return Finish(
        paper=choose(rng, version.papers, tuple(version.papers.values())),
        light=max(0.0, float(rng.uniform(*version.light))),
        ink=math.exp(float(rng.uniform(*version.ink_log))),
        aside=float(rng.uniform(-version.aside, version.aside)),
    )


# mood: (red, green, blue) of full light; never above 1, so that nothing burns out.
_LIGHTS = {
    "day": (1.0, 0.99, 0.94),
    "morning": (1.0, 0.95, 0.88),
    "sunset": (1.0, 0.83, 0.72),
    "night": (0.66, 0.72, 0.95),
    "overcast": (0.88, 0.91, 0.95),
}


def _smooth(noise_HW: np.ndarray, steps: int) -> np.ndarray:
    """Noise averaged with its neighbours, of deviation 1 again."""
    for _ in range(steps):
        noise_HW = noise_HW + np.roll(noise_HW, 1, 0) + np.roll(noise_HW, 1, 1) + np.roll(noise_HW, (1, 1), (0, 1))
    return noise_HW / noise_HW.std()


def _rough(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Drawing paper: fine grain and soft blotches."""
    fine, soft = (_smooth(rng.normal(size=(height, width)), steps) for steps in (1, 6))
    return 0.6 * fine + 0.5 * soft


def _canvas(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """The weave of a canvas, about forty threads to the height."""
    y, x = np.mgrid[:height, :width] * (2 * math.pi * 40 / max(height, 80))
    return np.sin(x + 0.4 * np.sin(y / 7)) * np.sin(y) + 0.4 * _smooth(rng.normal(size=(height, width)), 1)


def _hatching(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Strokes of a pencil or crayon, all in one direction, now denser, now lighter."""
    y, x = np.mgrid[:height, :width]
    strokes = rng.normal(size=height + width)[x + y]
    return 0.75 * strokes + 0.5 * _smooth(rng.normal(size=(height, width)), 2)


# name: (its grain, how much it shows in the white, how much of the paint it lets through)
PAPERS: dict[str, tuple[Callable[[np.random.Generator, int, int], np.ndarray], float, float]] = {
    "rough": (_rough, 0.016, 0.055),
    "canvas": (_canvas, 0.02, 0.05),
    "hatching": (_hatching, 0.012, 0.09),
}


def finished(video_THWC: np.ndarray, finish: Finish, mood: str, rng: np.random.Generator) -> np.ndarray:
    """The frames, uint8, on this paper and in this light; the same frames where there is neither."""
    if finish.paper == "none" and not finish.light:
        return video_THWC
    _, height, width, _ = video_THWC.shape
    gain, lift = _light(finish.light, mood, height, width), np.zeros((height, width, 1))
    if finish.paper != "none":
        grain, white, through = PAPERS[finish.paper]
        grain_HW1 = np.clip(grain(rng, height, width), -2, 2)[..., None]
        bare = through * (grain_HW1 + 2) / 2  # share of the paper that shows: 0 to 2 `through`
        gain = gain * (1 - white * (grain_HW1 + 2) / 2)
        gain, lift = gain * (1 - bare), 255 * gain * bare
    # In 8.8 fixed point: gain and lift together never exceed 255.
    fixed, offset = np.round(256 * gain).astype(np.uint16), np.floor(256 * lift).astype(np.uint16)
    return ((video_THWC * fixed + offset) >> 8).astype(np.uint8)


def _light(amount: float, mood: str, height: int, width: int) -> np.ndarray:
    """Gain [H, W, 3] of the hour's colour and of corners that fall off."""
    y, x = np.mgrid[:height, :width]
    off = ((x + 0.5) / width - 0.5) ** 2 + ((y + 0.5) / height - 0.5) ** 2
    return (1 - 0.35 * amount * off[..., None]) * (1 - amount * (1 - np.array(_LIGHTS[mood])))
