"""Clips spoiled on purpose, in five degrees, each in one way: the questions that metrics are asked to answer.

What belongs to which dimension, and which kinds are kept out of all fitting, was written down in docs/evaluation.md
before anything was tuned. No metric imports this module. A spoiled clip has the frames, size and length of the clean
one; the same seed spoils in the same pattern at every severity, only more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadRequest

Frames = NDArray[np.uint8]  # [T, H, W, 3]
SEVERITIES = (1, 2, 3, 4, 5)

#: OpenJPEG halves a picture five times, and refuses those that it cannot.
LEAST_JPEG2000_PX = 32

#: Light and the two colours of composite video, of red, green and blue (NTSC, ITU-R BT.470).
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One way to spoil: `apply(frames, severity, rng, other)` gives the spoiled frames.

    `dimension` is what must fall, None for a control, which has `spares`: the dimension that must stay. `use` says
    whether anything may be fitted or chosen with it. `other` is another clip of the same shape, where one is needed.
    """

    apply: Callable[[Frames, int, np.random.Generator, Frames], Frames]
    dimension: str | None
    use: Literal["fitting", "held_out"]
    spares: str | None = None


def corrupt(
    frames_THWC: Frames, kind: str, severity: int, *, seed: int = 0, other_THWC: Frames | None = None
) -> Frames:
    """The frames spoiled in the way `kind` of `CORRUPTIONS`, `severity` 1 to 5; 0 leaves them as they are.

    Where another clip is needed and none is given, a drawn one is used. Raises BadRequest for an unknown kind or
    severity.
    """
    if kind not in CORRUPTIONS:
        raise BadRequest("unknown corruption", got=kind, expected=", ".join(CORRUPTIONS))
    if severity not in (0, *SEVERITIES):
        raise BadRequest("unknown severity", got=severity, expected="0 to 5")
    if severity == 0:
        return frames_THWC
    other = _fitted(other_THWC if other_THWC is not None else _drawn(frames_THWC, seed), frames_THWC)
    rng = np.random.default_rng([seed, sum(kind.encode())])
    return CORRUPTIONS[kind].apply(frames_THWC, severity, rng, other)


def _drawn(like: Frames, seed: int) -> Frames:
    from anisora.synthetic import render_clip

    height, width = like.shape[1:3]
    return render_clip(400 + seed % 100, 0, n_frames=len(like), size_px=(max(width, 8), max(height, 8))).video_THWC


def _fitted(other: Frames, like: Frames) -> Frames:
    """`other` with the length (played to and fro) and size of `like`."""
    import cv2

    height, width = like.shape[1:3]
    there_and_back = [*range(len(other)), *range(len(other) - 2, 0, -1)]
    picked = [other[there_and_back[t % len(there_and_back)]] for t in range(len(like))]
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in picked])


def _at(severity: int, *values: float) -> float:
    return values[severity - 1]


def _bytes(values: NDArray) -> Frames:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _each(frames: Frames, change: Callable[[Frames, int], NDArray]) -> Frames:
    """Every frame [H, W, 3] changed by itself: a clip in floats would be eight times as large."""
    return np.stack([_bytes(change(frame, t)) for t, frame in enumerate(frames)])


# ---------------------------------------------------------------------------------------------------- smoothness


def _flicker(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The brightness of each frame is off by a gain of its own."""
    gain = 1 + _at(severity, 0.015, 0.03, 0.06, 0.1, 0.16) * rng.standard_normal(len(frames))
    return _each(frames, lambda frame, t: frame * gain[t])


def _displaced(frames: Frames, offsets_T2HW: Iterable[NDArray]) -> Frames:
    """Each frame pulled along offsets [2, H, W] of its own, in pixels."""
    import cv2

    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]].astype(np.float32)
    return np.stack(
        [
            cv2.remap(frame, x + dx, y + dy, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT_101)
            for frame, (dx, dy) in zip(frames, (np.asarray(o, np.float32) for o in offsets_T2HW), strict=True)
        ]
    )


def _waves(rng: np.random.Generator, frames: Frames, count: int, knots: int) -> Iterator[NDArray[np.float32]]:
    """So many smooth random fields [2, H, W] of spread 1 with about so many bumps along the short side."""
    import cv2

    height, width = frames.shape[1:3]
    rows = max(2, round(knots * height / min(height, width)))
    columns = max(2, round(knots * width / min(height, width)))
    grid = rng.standard_normal((count, 2, rows, columns)).astype(np.float32)
    for pair in grid:
        yield np.stack([cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in pair])


def _wobble(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Every frame is bent in a way of its own, over parts as large as a limb."""
    amount = _at(severity, 0.003, 0.006, 0.01, 0.016, 0.025) * min(frames.shape[1:3])
    return _displaced(frames, (amount * field for field in _waves(rng, frames, len(frames), 5)))


def _boil(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Lines tremble: as `wobble`, over parts as small as a stroke."""
    amount = _at(severity, 0.002, 0.004, 0.007, 0.011, 0.016) * min(frames.shape[1:3])
    return _displaced(frames, (amount * field for field in _waves(rng, frames, len(frames), 28)))


def _shake(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Every frame is shifted as a whole, at random."""
    amount = _at(severity, 0.003, 0.006, 0.012, 0.02, 0.03) * min(frames.shape[1:3])
    shift = amount * rng.standard_normal((len(frames), 2))
    return _displaced(frames, (np.broadcast_to(by[:, None, None], (2, *frames.shape[1:3])) for by in shift))


def _tear(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """A band of each frame, anywhere, is shifted sideways."""
    height, width = frames.shape[1:3]
    torn = frames.copy()
    tall = round(_at(severity, 0.06, 0.1, 0.16, 0.24, 0.35) * height)
    by = max(1, round(_at(severity, 0.01, 0.015, 0.025, 0.04, 0.06) * width))
    for frame, place, sign in zip(torn, rng.uniform(size=len(frames)), rng.choice([-1, 1], len(frames)), strict=True):
        top = round(place * (height - tall))
        frame[top : top + tall] = np.roll(frame[top : top + tall], sign * by, axis=1)
    return torn


def _static(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Fresh grain lies on every frame."""
    amount = _at(severity, 3, 6, 10, 16, 24)
    return np.stack([_bytes(frame + amount * rng.standard_normal((*frame.shape[:2], 1))) for frame in frames])


def _strobe(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """One frame in five, at random, flashes towards white."""
    struck = np.zeros(len(frames))
    struck[rng.permutation(len(frames))[: max(1, round(len(frames) / 5))]] = _at(severity, 0.08, 0.15, 0.25, 0.4, 0.6)
    return _each(frames, lambda frame, t: frame + (255.0 - frame) * struck[t])


def _shuffle(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Frames change places with one up to four away; a share of them, more with severity."""
    order = np.arange(len(frames))
    starts, reach = rng.permutation(len(frames)), rng.integers(1, 5, len(frames))
    for start in starts[: round(_at(severity, 0.1, 0.2, 0.35, 0.6, 1.0) * len(frames))]:
        target = min(len(frames) - 1, start + reach[start])
        order[[start, target]] = order[[target, start]]
    return frames[order]


# ---------------------------------------------------------------------------------------------------- motion


def _stops_at(frames: Frames, severity: int) -> int:
    return round((1 - _at(severity, 0.2, 0.4, 0.6, 0.8, 0.95)) * (len(frames) - 1))


def _freeze(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The clip stops, and its last picture is held to the end."""
    last = _stops_at(frames, severity)
    return frames[np.minimum(np.arange(len(frames)), last)]


def _slow(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Only the beginning of the clip is played, in as much time as all of it."""
    share = 1 - _at(severity, 0.2, 0.4, 0.6, 0.8, 0.95)
    return frames[np.floor(np.arange(len(frames)) * share).astype(int)]


def _push_in(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The clip stops, and the camera moves in on its last picture: a shot that moves, and nothing in it."""
    return _camera_goes_on(frames, severity, lambda share: (0.25 * share, 0, (0, 0)))


def _pan(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The clip stops, and the camera pans over its last picture and turns: a shot that moves, and nothing in it."""
    toward, turn = rng.uniform(0, 2 * np.pi), 8 * rng.choice([-1, 1])
    across, down = 0.3 * np.cos(toward), 0.3 * np.sin(toward)
    return _camera_goes_on(frames, severity, lambda share: (0, turn * share, (across * share, down * share)))


def _sway(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The clip stops, and the camera wavers over its last picture, as if held in the hand."""
    waves = rng.uniform(1.5, 4, 3)  # over the whole of the clip: across, down, of the turn

    def at(share: float) -> tuple[float, float, tuple[float, float]]:
        across, down, turn = np.sin(2 * np.pi * waves * share)
        return 0, 2 * turn, (0.03 * across, 0.03 * down)

    return _camera_goes_on(frames, severity, at)


def _camera_goes_on(
    frames: Frames, severity: int, at: Callable[[float], tuple[float, float, tuple[float, float]]]
) -> Frames:
    """The clip stops, and the camera goes on: so large a share of the clip later so much larger, so many degrees, and so far
    across and down in shares of the short side."""
    import cv2

    last = _stops_at(frames, severity)
    height, width = frames.shape[1:3]
    moved = frames.copy()
    for t in range(last + 1, len(frames)):
        larger, turn, way = at((t - last) / (len(frames) - 1))
        seen = cv2.getRotationMatrix2D((width / 2, height / 2), turn, 1 + larger)
        seen[:, 2] += min(height, width) * np.array(way)
        moved[t] = cv2.warpAffine(frames[last], seen, (width, height), borderMode=cv2.BORDER_REFLECT)
    return moved


# ---------------------------------------------------------------------------------------------------- appeal


def _blur(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    import cv2

    sigma = _at(severity, 0.003, 0.006, 0.01, 0.015, 0.022) * min(frames.shape[1:3])
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def _jpeg(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, int(_at(severity, 40, 25, 15, 9, 5))]
    saved = [cv2.imencode(".jpg", frame, quality)[1] for frame in frames]
    return np.stack([np.asarray(cv2.imdecode(picture, cv2.IMREAD_COLOR)) for picture in saved])


def _wash(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Contrast and colour fade towards grey."""
    keep = _at(severity, 0.8, 0.65, 0.5, 0.35, 0.2)
    return _each(frames, lambda frame, _: keep * frame + (1 - keep) * 150)


def _dirt(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The same grain lies on every frame."""
    grain = rng.standard_normal((*frames.shape[1:3], 1))
    amount = _at(severity, 3, 6, 10, 16, 24)
    return _each(frames, lambda frame, _: frame + amount * grain)


def _posterize(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Few levels are left in each channel."""
    step = 255 / (_at(severity, 20, 12, 8, 5, 3) - 1)
    return _each(frames, lambda frame, _: np.rint(frame / step) * step)


def _speckle(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The same specks of dust, dark and light, lie on every frame."""
    import cv2

    height, width = frames.shape[1:3]
    radius = max(1, round(0.006 * min(height, width)))
    specked = frames.copy()
    for x, y, light in rng.uniform(size=(200, 3))[: int(_at(severity, 12, 25, 50, 100, 200))]:
        shade = 235 if light > 0.5 else 20
        for frame in specked:
            cv2.circle(frame, (int(x * width), int(y * height)), radius, (shade,) * 3, -1)
    return specked


def _smear(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Everything is drawn out sideways."""
    import cv2

    wide = max(2, round(_at(severity, 0.01, 0.02, 0.035, 0.055, 0.08) * min(frames.shape[1:3])))
    return np.stack([cv2.blur(frame, (wide, 1)) for frame in frames])


def _veil(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Bright haze lies over the picture, thicker towards one side."""
    share = _at(severity, 0.25, 0.4, 0.55, 0.7, 0.85) * np.linspace(0, 1, frames.shape[2])[None, :, None]
    return _each(frames, lambda frame, _: (1 - share) * frame + share * 235)


def _ghost(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The picture shows through itself a second time, a little to the side."""
    aside = max(1, round(0.03 * min(frames.shape[1:3])))
    share = _at(severity, 0.1, 0.18, 0.27, 0.36, 0.45)
    return _each(frames, lambda frame, _: (1 - share) * frame + share * np.roll(frame, aside, axis=1))


def _scratch(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The same light scratches run from top to bottom of every frame."""
    width = frames.shape[2]
    wide = max(1, round(0.004 * min(frames.shape[1:3])))
    scratched = frames.copy()
    for place in rng.uniform(size=24)[: int(_at(severity, 2, 4, 8, 14, 24))]:
        left = int(place * (width - wide))
        scratched[:, :, left : left + wide] = _bytes(0.3 * frames[:, :, left : left + wide] + 0.7 * 225)
    return scratched


def _halo(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Sharpened too much: lines get rims."""
    import cv2

    sigma, amount = 0.006 * min(frames.shape[1:3]), _at(severity, 0.7, 1.2, 2.0, 3.2, 5.0)
    return _each(
        frames, lambda frame, _: frame + amount * (frame.astype(np.float32) - cv2.GaussianBlur(frame, (0, 0), sigma))
    )


def _mosaic(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The picture is made of squares, each of one colour."""
    import cv2

    height, width = frames.shape[1:3]
    side = max(2.0, _at(severity, 0.008, 0.012, 0.016, 0.024, 0.035) * min(height, width))
    few = (max(1, round(width / side)), max(1, round(height / side)))
    small = [cv2.resize(frame, few, interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST) for frame in small])


def _in_color(frames: Frames, change: Callable[[NDArray], NDArray]) -> Frames:
    """The frames with the two colour channels of L*a*b*, [H, W, 2], changed; those without any colour stay to the bit, which
    the way there and back is not."""
    import cv2

    if (np.ptp(frames, axis=-1) == 0).all():
        return frames
    changed = []
    for frame in frames:
        lab = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2LAB)
        lab[..., 1:] = change(lab[..., 1:])
        changed.append(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
    return np.stack(changed)


def _bleed(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Colour lies beside the lines, as in a bad print."""
    aside = max(1, round(_at(severity, 0.006, 0.012, 0.02, 0.03, 0.045) * min(frames.shape[1:3])))
    return _in_color(frames, lambda colors: np.roll(colors, aside, axis=1))


def _comb(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Every second row is shifted sideways, as of interlaced film."""
    aside = max(1, round(_at(severity, 0.004, 0.008, 0.012, 0.02, 0.03) * min(frames.shape[1:3])))
    combed = frames.copy()
    combed[:, 1::2] = np.roll(frames[:, 1::2], aside, axis=2)
    return combed


def _weave(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """A screen's fine pattern lies over the picture."""
    height, width = frames.shape[1:3]
    y, x = np.mgrid[:height, :width] * (2 * np.pi / (0.018 * min(height, width)))
    screen = (np.sin(0.92 * x + 0.39 * y) + np.sin(0.92 * y - 0.39 * x)) / 2
    amount = _at(severity, 4, 7, 12, 20, 32)
    return _each(frames, lambda frame, _: frame + amount * screen[..., None])


def _crackle(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Every pixel is another's from nearby, always the same: as behind rough glass."""
    height, width = frames.shape[1:3]
    reach = max(1.0, _at(severity, 0.003, 0.005, 0.008, 0.013, 0.02) * min(height, width))
    y, x = np.mgrid[:height, :width]
    dy, dx = np.rint(reach * rng.uniform(-1, 1, (2, height, width))).astype(int)
    return frames[:, np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)]


def _run(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Colours run over the lines."""
    import cv2

    sigma = _at(severity, 0.01, 0.02, 0.035, 0.055, 0.08) * min(frames.shape[1:3])
    return _in_color(frames, lambda colors: np.asarray(cv2.GaussianBlur(colors, (0, 0), sigma)))


def _dropout(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Blocks of the picture are lost, the same on every frame: each shows its mean colour."""
    height, width = frames.shape[1:3]
    side = max(2, round(0.06 * min(height, width)))
    corners = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    lost = frames.copy()
    for i in rng.permutation(len(corners))[: max(1, round(_at(severity, 0.02, 0.04, 0.08, 0.14, 0.24) * len(corners)))]:
        y, x = corners[i]
        block = frames[:, y : y + side, x : x + side]
        lost[:, y : y + side, x : x + side] = _bytes(block.mean(axis=(1, 2), keepdims=True))
    return lost


def _tiles(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The picture falls into tiles, each a little brighter or darker: a decoder that works in parts."""
    import cv2

    height, width = frames.shape[1:3]
    side = max(1, round(min(height, width) / 4))
    gain = rng.standard_normal((-(-height // side), -(-width // side)))
    per_pixel = np.kron(gain, np.ones((side, side)))[:height, :width].astype(np.float32)
    seam = cv2.blur(per_pixel, (3, 3))
    gains = 1 + _at(severity, 0.015, 0.03, 0.055, 0.09, 0.14) * seam[..., None]
    return _each(frames, lambda frame, _: frame * gains)


def _grid(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Thin lines in even steps, light ones across and dark ones down: the steps of a decoder."""
    short = min(frames.shape[1:3])
    step, thick = max(2, round(short / 32)), max(1, round(short / 256))
    height, width = (np.arange(n) % step < thick for n in frames.shape[1:3])
    lines = height[:, None].astype(np.float32) - width[None, :]
    amount = _at(severity, 4, 8, 14, 22, 34)
    return _each(frames, lambda frame, _: frame + amount * lines[..., None])


def _fringe(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Red lies outside and blue inside of where green is, more so towards the edges of the picture: a poor lens."""
    import cv2

    height, width = frames.shape[1:3]
    fringed = frames.copy()
    for channel, sign in ((0, 1), (2, -1)):
        scale = 1 + sign * _at(severity, 0.004, 0.008, 0.014, 0.022, 0.034)
        about = np.array([[scale, 0, (1 - scale) * (width - 1) / 2], [0, scale, (1 - scale) * (height - 1) / 2]])
        for frame in fringed:
            one = np.ascontiguousarray(frame[..., channel])
            frame[..., channel] = cv2.warpAffine(one, about, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return fringed


def _stain(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Soft dark stains lie on every frame."""
    height, width = frames.shape[1:3]
    y, x = np.mgrid[:height, :width]
    lets_through = np.ones((height, width))
    for v, u, size in rng.uniform(size=(7, 3)):
        radius = (0.05 + 0.08 * size) * min(height, width)
        lets_through *= 1 - _at(severity, 0.1, 0.2, 0.32, 0.47, 0.65) * np.exp(
            -((((y - v * height) ** 2 + (x - u * width) ** 2) / (2 * radius**2)) ** 2)
        )
    return _each(frames, lambda frame, _: frame * lets_through[..., None])


def _watermark(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """A word lies across every frame in pale letters, again and again."""
    import cv2

    height, width = frames.shape[1:3]
    short, covers = min(height, width), np.zeros((height, width), np.uint8)
    size, thick = 0.003 * short, max(1, round(0.008 * short))
    for row, y in enumerate(np.arange(0.15, height / short + 0.2, 0.3)):
        for x in np.arange(-0.3 * (row % 2), width / short, 0.6):
            place = (round(x * short), round(y * short))
            cv2.putText(covers, "preview", place, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 20, 1.3)
    share = _at(severity, 0.1, 0.17, 0.26, 0.38, 0.55) / 255 * cv2.warpAffine(covers, turn, (width, height))[..., None]
    shade = 90.0 if frames[0].mean() > 170 else 220.0
    return _each(frames, lambda frame, _: (1 - share) * frame + share * shade)


def _wavelet(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Saved as JPEG 2000 in far too few bytes."""
    import cv2

    height, width = frames.shape[1:3]
    below, beside = max(0, LEAST_JPEG2000_PX - height), max(0, LEAST_JPEG2000_PX - width)
    share = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, int(_at(severity, 40, 25, 16, 10, 6))]
    starved = []
    for frame in frames:
        whole = cv2.copyMakeBorder(frame, 0, below, 0, beside, cv2.BORDER_REPLICATE)
        saved = cv2.imencode(".jp2", whole, share)[1]
        starved.append(np.asarray(cv2.imdecode(saved, cv2.IMREAD_COLOR))[:height, :width])
    return np.stack(starved)


def _bitrot(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Bytes of the saved pictures have changed, at the same places of every frame."""
    import io

    from PIL import Image

    places, values = rng.uniform(size=48), rng.integers(0, 255, 48)
    stretch = max(1, round(min(frames.shape[1:3]) / 32))  # a change spoils no more blocks than these in a row
    rotten = []
    for frame in frames:
        saved = io.BytesIO()
        Image.fromarray(frame).save(saved, "jpeg", quality=92, restart_marker_blocks=stretch)
        data = bytearray(saved.getvalue())
        begins = data.index(b"\xff\xda") + 14
        for place, value in zip(places[: int(_at(severity, 4, 8, 14, 26, 48))], values, strict=False):
            at = begins + int(place * (len(data) - 2 - begins))
            if 0xFF not in data[at - 1 : at + 1]:  # the marks between the stretches stay
                data[at] = value
        rotten.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    return np.stack(rotten)


def _rainbow(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Sent as composite video: colour lies in a wave on the light, fine light is taken for colour, and dots stay at edges."""
    import cv2

    height, width = frames.shape[1:3]
    short = min(height, width)
    wave_px = max(4.0, short / 64)
    rows = np.arange(height) // max(1, round(short / 256))
    beside = round(4 * wave_px)  # so that the wave does not break at the sides
    angle = 2 * np.pi * np.arange(width + 2 * beside) / wave_px + np.pi * rows[:, None]
    carrier = np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)
    amount, to_rgb = _at(severity, 0.4, 0.8, 1.4, 2.0, 2.8), np.linalg.inv(TO_YIQ)

    def sent(frame: NDArray, _: int) -> NDArray:
        wide = cv2.copyMakeBorder(frame, 0, 0, beside, beside, cv2.BORDER_REPLICATE)
        yiq = wide.astype(np.float32) @ TO_YIQ.T
        signal = yiq[..., :1] + (carrier * yiq[..., 1:]).sum(-1, keepdims=True)
        color = cv2.GaussianBlur(2 * carrier * signal, (0, 0), 0.75 * wave_px, None, 0.01)
        light = signal - (carrier * color).sum(-1, keepdims=True)
        received = np.concatenate([light, color], axis=-1) @ to_rgb.T
        return frame + amount * (received[:, beside:-beside] - frame)

    return _each(frames, sent)


def _denoise(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Denoised far too much: what is fine melts into patches, and their edges stay sharp."""
    import cv2

    reach = max(1, round(_at(severity, 0.004, 0.008, 0.012, 0.016, 0.02) * min(frames.shape[1:3])))
    return np.stack([cv2.medianBlur(np.ascontiguousarray(frame), 2 * reach + 1) for frame in frames])


def _alias(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Made smaller with no filter and large again: lines are lost where they fall between the places looked at."""
    import cv2

    height, width = frames.shape[1:3]
    step_px = _at(severity, 1.3, 1.6, 2.0, 2.6, 3.4) * max(1, min(height, width) / 256)
    fewer = (max(1, round(width / step_px)), max(1, round(height / step_px)))
    small = (cv2.resize(frame, fewer, interpolation=cv2.INTER_NEAREST) for frame in frames)
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in small])


# ---------------------------------------------------------------------------------------------------- image and video


def _ramp(count: int) -> NDArray:
    """From 0 at the first frame to 1 at the last, [T]."""
    return np.linspace(0, 1, count)


def _recolor(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Hues drift away, farther and farther."""
    import cv2

    turn = _at(severity, 12, 25, 45, 70, 90) * float(rng.choice([-1, 1]))
    spoiled = []
    for frame, share in zip(frames, np.linspace(0, 1, len(frames)), strict=True):
        hsv = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2HSV).astype(np.int16)
        hsv[..., 0] = (hsv[..., 0] + round(turn * share)) % 180
        spoiled.append(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))
    return np.stack(spoiled)


def _replace(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Another clip shows through, more and more."""
    share = _at(severity, 0.15, 0.3, 0.5, 0.75, 1.0) * _ramp(len(frames))
    return _each(frames, lambda frame, t: (1 - share[t]) * frame + share[t] * other[t])


def _intrude(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """A part of another clip comes in and grows over a part of the picture."""
    height, width = frames.shape[1:3]
    middle_y, middle_x = rng.uniform(0.25, 0.75, size=2) * (height, width)
    side = np.sqrt(_at(severity, 0.06, 0.12, 0.22, 0.36, 0.55) * _ramp(len(frames)))
    intruded = frames.copy()
    for t, share in enumerate(side):
        rows, columns = (
            slice(max(0, round(middle - share * size / 2)), round(middle + share * size / 2))
            for middle, size in ((middle_y, height), (middle_x, width))
        )
        intruded[t, rows, columns] = other[t, rows, columns]
    return intruded


def _restyle(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """The picture turns into a pencil drawing of itself."""
    import cv2

    share = _at(severity, 0.15, 0.3, 0.5, 0.75, 1.0) * _ramp(len(frames))

    def restyled(frame: Frames, t: int) -> NDArray:
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)
        soft = cv2.GaussianBlur(grey, (0, 0), 0.02 * min(frames.shape[1:3]))
        sketch = np.repeat((255 * np.minimum(1, grey / (soft + 1)))[..., None], 3, axis=-1)
        return (1 - share[t]) * frame + share[t] * sketch

    return _each(frames, restyled)


# ---------------------------------------------------------------------------------------------------- character


def _middle(frames: Frames) -> NDArray:
    """1 in an ellipse in the middle, soft at its edge, [H, W]."""
    height, width = frames.shape[1:3]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.clip((0.65 - np.hypot(x * width / min(height, width), y)) / 0.1, 0, 1)


def _swap(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """From the middle of the clip on, what is in the middle of the picture is that of another clip."""
    share, half = _at(severity, 0.25, 0.4, 0.55, 0.75, 1.0) * _middle(frames)[..., None], len(frames) // 2
    return _each(frames, lambda frame, t: frame if t < half else (1 - share) * frame + share * other[t])


def _melt(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """What is in the middle of the picture is bent out of shape, more and more, always the same way."""
    amount = _at(severity, 0.02, 0.04, 0.06, 0.09, 0.13) * min(frames.shape[1:3])
    field = next(_waves(rng, frames, 1, 7)) * _middle(frames)
    return _displaced(frames, (share * field for share in amount * _ramp(len(frames))))


def _jumble(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """From the middle of the clip on, squares of what is in the middle of the picture have changed places."""
    height, width = frames.shape[1:3]
    cells = min(6, height, width)
    side = max(1, round(0.8 * min(height, width) / cells))
    top, left = (height - cells * side) // 2, (width - cells * side) // 2
    corners = [(top + side * row, left + side * column) for row in range(cells) for column in range(cells)]
    moved = rng.permutation(len(corners))[: round(_at(severity, 0.1, 0.2, 0.35, 0.6, 1.0) * len(corners))]
    jumbled, half = frames.copy(), len(frames) // 2
    for there, here in zip(moved, np.roll(moved, 1), strict=True):
        (y, x), (v, u) = corners[there], corners[here]
        jumbled[half:, y : y + side, x : x + side] = frames[half:, v : v + side, u : u + side]
    return jumbled


# ---------------------------------------------------------------------------------------------------- controls


def _holds(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Each picture is held for 2, 2, 3, 3, 4 frames: limited animation, no fault."""
    step = int(_at(severity, 2, 2, 3, 3, 4))
    return frames[np.arange(len(frames)) // step * step]


def _static_warp(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """All frames are bent in one and the same way: another drawing, as steady as before."""
    amount = _at(severity, 0.003, 0.006, 0.01, 0.016, 0.025) * min(frames.shape[1:3])
    return _displaced(frames, [amount * next(_waves(rng, frames, 1, 5))] * len(frames))


def _color_script(frames: Frames, severity: int, rng: np.random.Generator, other: Frames) -> Frames:
    """Night falls: the light of the scene turns blue and dim."""
    tint, haze = np.array([0.45, 0.6, 0.95]), np.array([0, 4, 18])
    share = _at(severity, 0.2, 0.4, 0.6, 0.8, 1.0) * _ramp(len(frames))
    return _each(frames, lambda frame, t: (1 - share[t]) * frame + share[t] * (tint * frame + haze))


CORRUPTIONS: dict[str, Corruption] = {
    "flicker": Corruption(apply=_flicker, dimension="anime.smoothness", use="fitting"),
    "wobble": Corruption(apply=_wobble, dimension="anime.smoothness", use="fitting"),
    "shake": Corruption(apply=_shake, dimension="anime.smoothness", use="fitting"),
    "shuffle": Corruption(apply=_shuffle, dimension="anime.smoothness", use="fitting"),
    "boil": Corruption(apply=_boil, dimension="anime.smoothness", use="fitting"),
    "tear": Corruption(apply=_tear, dimension="anime.smoothness", use="held_out"),
    "freeze": Corruption(apply=_freeze, dimension="anime.motion", use="fitting", spares="anime.smoothness"),
    "slow": Corruption(apply=_slow, dimension="anime.motion", use="held_out"),
    "blur": Corruption(apply=_blur, dimension="anime.appeal", use="fitting", spares="anime.smoothness"),
    "jpeg": Corruption(apply=_jpeg, dimension="anime.appeal", use="fitting", spares="anime.smoothness"),
    "wash": Corruption(apply=_wash, dimension="anime.appeal", use="fitting"),
    "dirt": Corruption(apply=_dirt, dimension="anime.appeal", use="fitting"),
    "posterize": Corruption(apply=_posterize, dimension="anime.appeal", use="fitting"),
    "recolor": Corruption(apply=_recolor, dimension="anime.image_video", use="fitting"),
    "replace": Corruption(apply=_replace, dimension="anime.image_video", use="fitting"),
    "restyle": Corruption(apply=_restyle, dimension="anime.image_video", use="fitting"),
    "swap": Corruption(apply=_swap, dimension="anime.character", use="fitting"),
    "melt": Corruption(apply=_melt, dimension="anime.character", use="fitting"),
    "holds": Corruption(apply=_holds, dimension=None, use="fitting", spares="anime.smoothness"),
    "static_warp": Corruption(apply=_static_warp, dimension=None, use="held_out", spares="anime.smoothness"),
    "color_script": Corruption(apply=_color_script, dimension=None, use="fitting", spares="anime.character"),
    "static": Corruption(apply=_static, dimension="anime.smoothness", use="fitting"),
    "strobe": Corruption(apply=_strobe, dimension="anime.smoothness", use="held_out"),
    "speckle": Corruption(apply=_speckle, dimension="anime.appeal", use="fitting"),
    "smear": Corruption(apply=_smear, dimension="anime.appeal", use="fitting"),
    "veil": Corruption(apply=_veil, dimension="anime.appeal", use="fitting"),
    "ghost": Corruption(apply=_ghost, dimension="anime.appeal", use="fitting"),
    "scratch": Corruption(apply=_scratch, dimension="anime.appeal", use="fitting"),
    "halo": Corruption(apply=_halo, dimension="anime.appeal", use="fitting"),
    "mosaic": Corruption(apply=_mosaic, dimension="anime.appeal", use="fitting"),
    "bleed": Corruption(apply=_bleed, dimension="anime.appeal", use="fitting"),
    "comb": Corruption(apply=_comb, dimension="anime.appeal", use="fitting"),
    "weave": Corruption(apply=_weave, dimension="anime.appeal", use="fitting"),
    "crackle": Corruption(apply=_crackle, dimension="anime.appeal", use="fitting"),
    "jumble": Corruption(apply=_jumble, dimension="anime.character", use="held_out"),
    "run": Corruption(apply=_run, dimension="anime.appeal", use="fitting"),
    "dropout": Corruption(apply=_dropout, dimension="anime.appeal", use="fitting"),
    "tiles": Corruption(apply=_tiles, dimension="anime.appeal", use="fitting"),
    "fringe": Corruption(apply=_fringe, dimension="anime.appeal", use="fitting"),
    "stain": Corruption(apply=_stain, dimension="anime.appeal", use="fitting"),
    "push_in": Corruption(apply=_push_in, dimension="anime.motion", use="fitting"),
    "grid": Corruption(apply=_grid, dimension="anime.appeal", use="fitting"),
    "intrude": Corruption(apply=_intrude, dimension="anime.image_video", use="held_out"),
    "watermark": Corruption(apply=_watermark, dimension="anime.appeal", use="fitting"),
    "wavelet": Corruption(apply=_wavelet, dimension="anime.appeal", use="held_out"),
    "bitrot": Corruption(apply=_bitrot, dimension="anime.appeal", use="held_out"),
    "rainbow": Corruption(apply=_rainbow, dimension="anime.appeal", use="held_out"),
    "denoise": Corruption(apply=_denoise, dimension="anime.appeal", use="fitting"),
    "pan": Corruption(apply=_pan, dimension="anime.motion", use="fitting"),
    "sway": Corruption(apply=_sway, dimension="anime.motion", use="held_out"),
    "alias": Corruption(apply=_alias, dimension="anime.appeal", use="held_out"),
}
