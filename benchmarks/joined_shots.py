"""Videos with known shots: pieces of real or of drawn clips, joined by cuts, fades and dissolves.

Between the transitions lie what detectors take for one: flashes and fast pans. Truth is exact because it is made here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anisora.media.reader import iter_frames
from anisora.media.writer import write_video

FPS = 24
SIZE_PX = (320, 180)

#: what a join, or a disturbance inside a shot, can be; one round of the cycle has each once
KINDS = ("cut", "fade", "flash", "dissolve", "pan")

#: Real clips that are one shot each (looked at frame by frame); GIFs at 10 fps play held to 24.
REAL = (
    "anisora/01_dog.mp4", "anisora/05_default_juggle.mp4", "anisora/132.gif", "anisora/133.gif",
    "anisora/549321620_94606187-Scene-055.mp4", "anisora/cartoon_films_shuo_hua_26.mp4", "anisora/cartoon_films_tui_la_13.mp4",
    "anisora/000000_225_.gif", "anisora/000000_232_.gif",
    "anisora/case_11_seed666666.mp4", "anisora/motion_comics_tui_la_5_firstlast.gif",
    "anisora/motion_comics_zhi_dong_xi_2_last.gif", "anisora/multi_guide_pose_video.gif",
    "anisora/cartoon_films_ren_wu_shuo_hua_34_firstmidlast.gif",
    "anisora/i2v-14B_1280_720_1_1_The_figure_in_the_picture_is_taking_a_step_towards_20250227_130511.mp4",
    "pypi/bigbuckbunny.mp4", "realesrgan/onepiece_demo.mp4", "anita/00151_1_fps10.gif", "anita/00161_1_fps10.gif",
    "anita/071_1_fps10.gif", "anita/081_1_fps10.gif", "sakuga/134442-Scene-0021_1_fps10.gif",
    "sakuga/154059-Scene-0051_1_fps10.gif", "sakuga/201970-Scene-0101_1_fps10.gif", "sakuga/216931-Scene-0011_1_fps10.gif",
    "animatediff/01.gif", "animatediff/a4e85e_01.gif",
)  # fmt: skip

#: Where the one shot of a clip ends, in frames, if not with the clip.
UP_TO = {"realesrgan/onepiece_demo.mp4": 100, "sakuga/201970-Scene-0101_1_fps10.gif": 59}


@dataclass(frozen=True)
class Mark:
    """What lies at frames [start, end): for a cut, the first frame behind it. Flashes and pans are no transitions."""

    kind: str
    start: int
    end: int


Piece = Callable[[np.random.Generator, int], NDArray[np.uint8]]
"""(random, frames) -> a stretch of one shot, uint8 [frames, 180, 320, 3]."""


def joined(piece: Piece, rounds: int, seed: int) -> tuple[list[NDArray[np.uint8]], list[Mark]]:
    """A video of `rounds` times each of KINDS in random order, and what lies where."""
    rng = np.random.default_rng(seed)
    frames: list[NDArray[np.uint8]] = list(piece(rng, int(rng.integers(24, 60))))
    marks: list[Mark] = []
    for kind in (kind for _ in range(rounds) for kind in rng.permutation(KINDS)):
        here = len(frames)
        if kind == "flash":
            length, value = int(rng.integers(1, 4)), int(rng.choice([255, 255, 0]))
            tail = frames[-1]
            strength = rng.uniform(0.6, 1.0)
            frames += [_mixed(tail, np.full_like(tail, value), strength)] * length
            frames += [_mixed(tail, np.full_like(tail, value), strength / 3), tail, tail, tail]
            frames += [tail] * int(rng.integers(8, 16))
            marks.append(Mark("flash", here, here + length + 1))
        elif kind == "pan":
            frames += _pan(rng, frames[-1])
            marks.append(Mark("pan", here, len(frames)))
        else:
            following = list(piece(rng, int(rng.integers(28, 60))))
            if kind == "cut":
                marks.append(Mark("cut", here, here + 1))
            elif kind == "fade":
                marks.append(_fade(rng, frames, following))
            else:
                length = int(rng.integers(6, 21))
                pairs = zip(frames[-length:], following[:length], strict=True)
                mix = [_mixed(a, b, (i + 1) / (length + 1)) for i, (a, b) in enumerate(pairs)]
                frames[-length:] = mix
                following = following[length:]
                marks.append(Mark("dissolve", here - length, here))
            frames += following
    return frames, marks


def _mixed(a: NDArray[np.uint8], b: NDArray[np.uint8], weight: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.addWeighted(a, 1 - weight, b, weight, 0))


def _fade(rng: np.random.Generator, before: list, after: list) -> Mark:
    """Out to one colour, some frames of it, and in again."""
    colour = np.full_like(before[0], int(rng.choice([0, 0, 255])))
    out, hold, back = (int(n) for n in (rng.integers(6, 15), rng.integers(1, 10), rng.integers(6, 15)))
    for i in range(out):
        before[i - out] = _mixed(before[i - out], colour, (i + 1) / (out + 1))
    start = len(before) - out
    before += [colour] * hold
    for i in range(back):
        after[i] = _mixed(after[i], colour, (back - i) / (back + 1))
    return Mark("fade", start, start + out + hold + back)


def _pan(rng: np.random.Generator, still: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The camera sweeps over the last picture, mirrored to three widths, eased, and comes to rest."""
    wide = np.concatenate([still, still[:, ::-1], still], axis=1)
    length, width = int(rng.integers(10, 25)), still.shape[1]
    way = (1 - np.cos(np.linspace(0, np.pi, length))) / 2 * (2 * width - 2)
    direction = int(rng.choice([-1, 1]))
    offsets = way if direction > 0 else 2 * width - 2 - way[::-1][::-1]
    shift = [np.float32([[1, 0, -x], [0, 1, 0]]) for x in offsets]
    view = [np.asarray(cv2.warpAffine(wide, m, (width, still.shape[0]), flags=cv2.INTER_LINEAR)) for m in shift]
    return view + [view[-1]] * int(rng.integers(6, 12))


def real_pieces(folder: Path) -> Piece:
    """Pieces of the real clips under `folder`."""
    clips = load_clips(folder)
    order: list[int] = []

    def piece(rng: np.random.Generator, length: int) -> NDArray[np.uint8]:
        if not order:
            order.extend(rng.permutation(len(clips)).tolist())
        clip = clips[order.pop()]
        start = int(rng.integers(0, max(1, len(clip) - length)))
        part = clip[start : start + length]
        part = part + [part[-1]] * (length - len(part))
        return np.stack(part)[:, :, :: int(rng.choice([-1, 1]))]

    return piece


def load_clips(folder: Path) -> list[list[NDArray[np.uint8]]]:
    """The one shot of each of the real clips, fitted, at most six seconds of it."""
    clips = []
    for name in REAL:
        frames = iter_frames(folder / name, at_fps=FPS, threads=1)
        clips.append([_fitted(frame.rgb_HWC) for frame in islice(frames, UP_TO.get(name, 6 * FPS))])
    return clips


def _fitted(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width, height = SIZE_PX
    scale = max(width / frame.shape[1], height / frame.shape[0])
    size = (max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale)))
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)  # type: ignore[assignment]
    y, x = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return np.ascontiguousarray(frame[y : y + height, x : x + width])


def drawn_pieces(seed: int) -> Piece:
    """Pieces of procedural cartoon clips: with all its cameras, drawn on ones, twos and threes."""
    from anisora.synthetic import render_clip

    numbers: Iterator[int] = iter(range(10**6))

    def piece(rng: np.random.Generator, length: int) -> NDArray[np.uint8]:
        return render_clip(seed, next(numbers), n_frames=length, fps=Fraction(FPS), size_px=SIZE_PX).video_THWC

    return piece


def build(kind: str, folder: Path, real: Path | None, rounds: int, seed: int) -> tuple[Path, list[Mark]]:
    """The video file of a corpus ("real" or "drawn"), written once into `folder`, and its marks."""
    import json

    video, truth = folder / f"{kind}-{rounds}-{seed}.mp4", folder / f"{kind}-{rounds}-{seed}.json"
    if not truth.exists():
        frames, marks = joined(real_pieces(real) if kind == "real" and real else drawn_pieces(seed), rounds, seed)
        folder.mkdir(parents=True, exist_ok=True)
        write_video(video, iter(frames), FPS, quality=23)
        truth.write_text(json.dumps([asdict(mark) for mark in marks]))
        print(f"{video}: {len(frames)} frames", file=sys.stderr)
    return video, [Mark(**mark) for mark in json.loads(truth.read_text())]
