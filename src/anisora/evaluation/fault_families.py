"""Families of faults drawn at random, from which the network for pictures learns what a fault is, and not a list.

Each kind of `corruptions` is one fault; a network that learns from them alone misses what it was not shown. A family is a
rule with everything left to chance: what shape the light takes that should not be there, what pattern lies over the picture,
what filter it went through. Some come near kinds that may be fitted on; none was made after one that is held out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [H, W, 3]
Plane = NDArray[np.floating]  # [H, W]

#: What words are made of; nobody need be able to read them.
LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .-@")

#: How strong each of the five severities is, as a share of the third.
STRENGTHS = (0.3, 0.6, 1.0, 1.6, 2.5)


def spoil(picture: Picture, family: str, severity: int, *, seed: int) -> Picture:
    """The picture [H, W, 3] with a fault of one of `FAMILIES`; the same seed has the same fault at every severity, 1 to 5."""
    rng = np.random.default_rng([seed, sum(family.encode())])
    spoiled = FAMILIES[family](picture.astype(np.float32), STRENGTHS[severity - 1], rng)
    return np.rint(np.clip(spoiled, 0, 255)).astype(np.uint8)


def _light(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """Light or colour that is none of the scene's: in cells, in soft or hard patches, from one side."""
    height, width = picture.shape[:2]
    shape = (_cells, _shards, _patches, _slope)[rng.integers(4)](height, width, rng)
    amount = 0.07 * strength * (shape / (shape.std() + 1e-6))[..., None] * _color(rng)
    return picture * (1 + amount) if rng.random() < 0.6 else picture + 160 * amount


def _pattern(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """Waves, stripes or thin lines in even steps, up to three of them one over another."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    drawn = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(1, 4)):
        angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
        step_px = np.exp(rng.uniform(np.log(3), np.log(64)))
        place = ((x * np.cos(angle) + y * np.sin(angle)) / step_px + rng.random()) % 1
        wave, stripe, line = np.sin(2 * np.pi * place), np.sign(place - 0.5), 2.0 * (place < max(1 / step_px, 0.06))
        drawn += rng.choice([-1, 1]) * (wave, stripe, line)[rng.integers(3)]
    return picture + 11 * strength * (drawn / max(1, np.abs(drawn).max() / 1.5))[..., None] * _color(rng)


def _grain(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """Fine or coarse grain, grey or coloured; or the strongest grains alone, as dirt."""
    import cv2

    height, width = picture.shape[:2]
    grain: NDArray = rng.standard_normal((height, width, 1 if rng.random() < 0.5 else 3)).astype(np.float32)
    sigma_px = rng.choice([0, 0, 0.7, 1.5, 3, 5])
    if sigma_px:
        grain = cv2.GaussianBlur(grain, (0, 0), sigma_px).reshape(height, width, -1)
    least = rng.uniform(1.5, 3) if rng.random() < 0.3 else 0.0
    grain = np.where(np.abs(grain) > least * grain.std(), grain, 0)
    return picture + 10 * strength * grain / (grain.std() + 1e-6)


def _bend(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """Every place drawn aside, by waves as small as a line or as large as a hand."""
    import cv2

    height, width = picture.shape[:2]
    offsets: NDArray = rng.standard_normal((height, width, 2)).astype(np.float32)
    wave_px = rng.uniform(0.8, 10)
    offsets = cv2.GaussianBlur(offsets, (0, 0), wave_px)
    offsets *= (1.3 + 0.2 * wave_px) * strength / offsets.std()
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(picture, x + offsets[..., 0], y + offsets[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT_101)


def _filter(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """What a small random filter makes of it, laid over it: rims, echoes, softness."""
    import cv2

    reach = int(rng.integers(1, 6))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = rng.standard_normal(y.shape) * np.exp(-rng.uniform(0, 2) * np.hypot(y, x))
    kernel -= kernel.mean()
    laid_over = cv2.filter2D(picture, -1, (kernel / np.abs(kernel).sum()).astype(np.float32))
    return picture + min(4.0, 9 / (laid_over.std() + 1e-6)) * strength * laid_over


def _parts(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """Rectangles that are flat, or from elsewhere in the picture, or lighter or darker than around them."""
    height, width = picture.shape[:2]
    kind, side = rng.integers(3), int(rng.integers(4, 40))
    spoiled = picture.copy()
    for _ in range(max(1, round(14 * strength * rng.uniform(0.6, 1.5)))):
        tall, wide = (min(most, max(2, int(side * rng.uniform(0.5, 2)))) for most in (height, width))
        (top, from_top), (left, from_left) = (rng.integers(0, n + 1, 2) for n in (height - tall, width - wide))
        part = spoiled[top : top + tall, left : left + wide]
        elsewhere = picture[from_top : from_top + tall, from_left : from_left + wide]
        part[:] = (part.mean((0, 1)), elsewhere, part + rng.choice([-1, 1]) * rng.uniform(8, 40))[kind]
    return spoiled


def _strokes(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """Lines and arcs of one colour that nobody drew."""
    import cv2

    height, width = picture.shape[:2]
    color, covers, wide_px = rng.uniform(0, 255, 3), rng.uniform(0.3, 1), int(rng.integers(1, 4))
    drawn = np.zeros((height, width), np.float32)
    for _ in range(max(1, round(7 * strength * rng.uniform(0.6, 1.5)))):
        middle = tuple(int(v) for v in rng.uniform(0, 1, 2) * (width, height))
        axes = tuple(int(v) for v in rng.uniform(0.02, 1, 2) * min(height, width))
        turn, start = rng.uniform(0, 360, 2)
        cv2.ellipse(drawn, middle, axes, turn, start, start + rng.uniform(20, 200), 1.0, wide_px, cv2.LINE_AA)
    return picture + covers * drawn[..., None] * (color - picture)


def _lettering(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """Pale words over the picture, one or many, in any letters, size, colour and direction."""
    import cv2

    height, width = picture.shape[:2]
    word = "".join(rng.choice(LETTERS, rng.integers(3, 12)))
    font, size, thick = int(rng.integers(8)), rng.uniform(0.4, 2.5), int(rng.integers(1, 4))
    (wide, tall), _ = cv2.getTextSize(word, font, size, thick)
    drawn = np.zeros((height, width), np.uint8)
    if rng.random() < 0.7:
        step_y, step_x = (max(1, int(side * rng.uniform(1.2, 3))) for side in (tall, wide))
        places = [(x, y) for y in range(tall // 2, height + tall, step_y) for x in range(-wide // 2, width, step_x)]
    else:
        places = [(int(rng.uniform(0, 0.6) * width), int(rng.uniform(0.2, 0.9) * height))]
    for place in places:
        cv2.putText(drawn, word, place, font, size, 255, thick, cv2.LINE_AA)
    about = (width / 2, height / 2) if len(places) > 1 else places[0]  # one word must not be turned out of the picture
    turn = cv2.getRotationMatrix2D(about, rng.choice([0, rng.uniform(-60, 60)]), 1)
    covers = min(0.9, 0.27 * strength * rng.uniform(0.8, 1.3)) / 255 * cv2.warpAffine(drawn, turn, (width, height))
    shade = rng.uniform(150, 255) if picture.mean() < 150 else rng.uniform(0, 110)
    color = np.full(3, shade) if rng.random() < 0.8 else rng.uniform(0, 255, 3)
    return picture + covers[..., None] * (color - picture)


def _fused(picture: NDArray, strength: float, rng: np.random.Generator) -> NDArray:
    """What is fine is lost in what lies about it: in its middle level, or in the calmest part of it."""
    rule = (_middle, _calmest)[rng.integers(2)]
    reach_px = strength * rng.uniform(1, 3)
    less, more = (rule(picture, reach) if reach else picture for reach in (int(reach_px), int(reach_px) + 1))
    return less + (reach_px % 1) * (more - less)


def _middle(picture: NDArray, reach: int) -> NDArray:
    import cv2

    return np.asarray(cv2.medianBlur(picture.astype(np.uint8), 2 * reach + 1), np.float32)


def _calmest(picture: NDArray, reach: int) -> NDArray:
    """Of four squares that meet in each place the mean of the one that varies least (Kuwahara et al. 1976)."""
    import cv2

    light = picture.mean(axis=-1)
    side = (reach + 1, reach + 1)
    corners = [(x, y) for x in (0, reach) for y in (0, reach)]
    means = np.stack([cv2.blur(picture, side, anchor=corner) for corner in corners])
    unrest = np.stack([cv2.blur(light**2, side, anchor=at) - cv2.blur(light, side, anchor=at) ** 2 for at in corners])
    return np.take_along_axis(means, unrest.argmin(axis=0)[None, ..., None], axis=0)[0]


def _color(rng: np.random.Generator) -> NDArray:
    """What a fault adds to red, green and blue: in most cases the same."""
    return np.ones(3) if rng.random() < 0.7 else rng.uniform(-1, 1, 3)


def _cells(height: int, width: int, rng: np.random.Generator) -> Plane:
    import cv2

    count = rng.integers(2, 9)
    rough = rng.standard_normal((count, count)).astype(np.float32)
    sharp_or_soft = (cv2.INTER_NEAREST, cv2.INTER_CUBIC)[rng.integers(2)]
    return np.asarray(cv2.resize(rough, (width, height), interpolation=sharp_or_soft))


def _shards(height: int, width: int, rng: np.random.Generator) -> Plane:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    points = rng.uniform(size=(rng.integers(4, 30), 2)) * (height, width)
    levels = rng.standard_normal(len(points)).astype(np.float32)
    nearest = np.stack([(y - v) ** 2 + (x - u) ** 2 for v, u in points]).argmin(axis=0)
    return levels[nearest]


def _patches(height: int, width: int, rng: np.random.Generator) -> Plane:
    y, x = np.mgrid[:height, :width].astype(np.float32) / min(height, width)
    drawn: Plane = np.zeros((height, width))
    sign, edge = rng.choice([-1, 1]), rng.integers(1, 4)
    for _ in range(rng.integers(2, 12)):
        (v, u), radius = rng.uniform(size=2) * (height, width) / min(height, width), rng.uniform(0.04, 0.3)
        sign = rng.choice([-1, 1]) if rng.random() < 0.5 else sign
        drawn += sign * np.exp(-((((y - v) ** 2 + (x - u) ** 2) / (2 * radius**2)) ** edge))
    return drawn


def _slope(height: int, width: int, rng: np.random.Generator) -> Plane:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    return ((along - along.min()) / np.ptp(along)) ** rng.uniform(0.7, 3)


FAMILIES: dict[str, Callable[[NDArray, float, np.random.Generator], NDArray]] = {
    "light": _light,
    "pattern": _pattern,
    "grain": _grain,
    "bend": _bend,
    "filter": _filter,
    "parts": _parts,
    "strokes": _strokes,
    "lettering": _lettering,
    "fused": _fused,
}
