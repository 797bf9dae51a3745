"""Moving pictures that are not video files: animated GIF, WebP and PNG, and sequences of stills in a folder.

Pillow decodes them: it composes partial frames and transparency of all three alike, where FFmpeg cannot animate WebP.
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from anisora.errors import BadImage, BadVideo
from anisora.media.image import load_image, over
from anisora.media.video import Frame, VideoInfo, parse_fps

#: GIF counts hundredths of a second, WebP and PNG thousandths (PNG's fractions are read to the nearest of them)
_TICKS_MS = {"GIF": 10}

#: rate of a sequence of stills that does not say its own, and of a lone still
SEQUENCE_FPS = Fraction(24)

#: the PNG text chunk in which the writer keeps a sequence's rate
FPS_KEY = "anisora_fps"

STILL_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".tga", ".webp", ".avif", ".gif"}
_MAGIC = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff")
_PRINTF = re.compile(r"%0?\d*d")


def is_sequence(path: str | os.PathLike[str]) -> bool:
    """Whether `path` means many stills: a folder, or a pattern such as `cut/*.png` or `cut/%04d.png`."""
    path = Path(path)
    return path.is_dir() or (not path.exists() and bool(_PRINTF.search(path.name) or glob.has_magic(str(path))))


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture, animated or still, by its first bytes and its name."""
    with open(path, "rb") as file:
        head = file.read(12)
    is_webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    return head.startswith(_MAGIC) or is_webp or Path(path).suffix.lower() in STILL_SUFFIXES


def probe_animation(path: Path, max_px: int) -> VideoInfo:
    """What an animated (or still) picture file holds; decodes it for its times. Raises BadVideo."""
    return _describe(path, _open(path, max_px), [duration_ms for _, duration_ms in _decode(path, max_px)])


def iter_animation(
    path: Path, *, background: tuple[int, int, int], max_px: int, keep_damaged: bool, notes: list[str]
) -> Iterator[Frame]:
    """The frames of an animated (or still) picture file.

    Raises BadVideo at the first damage, saying how many frames were decoded; with `keep_damaged` it goes into `notes`.
    """
    tick_ms, pts = _TICKS_MS.get(_open(path, max_px).format, 1), 0
    time_base = Fraction(tick_ms, 1000)
    try:
        for rgba_HWC, duration_ms in _decode(path, max_px):
            duration = duration_ms // tick_ms
            yield Frame(rgb_HWC=over(rgba_HWC, background), pts=pts, duration=duration, time_base=time_base)
            pts += duration
    except BadVideo as damage:
        if not (keep_damaged and pts):
            raise
        notes.append(f"damaged: {damage.got}")


def _open(path: Path, max_px: int) -> Any:
    from PIL import Image

    with warnings.catch_warnings(action="ignore"):  # of large pictures, where the check below is stricter, and metadata
        try:
            image = Image.open(path)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as reason:
            raise BadVideo("the file is damaged", got=f"{path} ({reason})", expected="GIF, WebP or PNG") from reason
    check_area(path, image.width, image.height, max_px)
    return image


def check_area(path: Path, width_px: int, height_px: int, max_px: int) -> None:
    """Raises BadVideo before frames of more than `max_px` pixels are decoded."""
    if width_px * height_px > max_px:
        raise BadVideo(
            "the video's frames are too large",
            got=f"{path}, {width_px}x{height_px}",
            expected=f"at most {max_px / 1e6:.0f} million pixels a frame",
            hint="scaling it down first",
        )


def _decode(path: Path, max_px: int) -> Iterator[tuple[np.ndarray, int]]:
    """(RGBA pixels, milliseconds) of every frame."""
    image = _open(path, max_px)
    num_frames = getattr(image, "n_frames", 1)
    for index in range(num_frames):
        # Codecs raise whatever they like on damaged data (OSError, SyntaxError, ValueError, EOFError, ...).
        try:
            image.seek(index)
            rgba_HWC = np.asarray(image.convert("RGBA"))
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as reason:
            raise BadVideo(
                "the video is damaged or cut short",
                got=f"{path}, {index} of {num_frames} frames decoded ({reason})",
                expected="a whole file",
                hint="copying or exporting it again",
            ) from reason
        yield rgba_HWC, _duration_ms(image.info, num_frames)


def _duration_ms(info: dict, num_frames: int) -> int:
    """Under 20 ms (most often 0) means 100 ms, as in browsers and FFmpeg; a lone still lasts one frame."""
    if num_frames == 1:
        return round(1000 / SEQUENCE_FPS)
    duration_ms = round(info.get("duration", 0))
    return duration_ms if duration_ms >= 20 else 100


def _describe(path: Path, image: Any, durations_ms: list[int]) -> VideoInfo:
    return VideoInfo(
        path=path,
        container=image.format.lower(),
        codec=image.format.lower(),
        pixel_format=image.mode.lower(),
        width_px=image.width,
        height_px=image.height,
        fps=SEQUENCE_FPS if len(durations_ms) == 1 else Fraction(1000 * len(durations_ms), sum(durations_ms)),
        num_frames=len(durations_ms),
        duration_s=Fraction(sum(durations_ms), 1000),
        time_base=Fraction(_TICKS_MS.get(image.format, 1), 1000),
        has_alpha=image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
    )


def sequence_paths(path: str | os.PathLike[str]) -> list[Path]:
    """The stills of a folder or pattern, `frame_2` before `frame_10`. Raises BadVideo when there are none."""
    path = Path(path)
    if path.is_dir():
        found = [entry for entry in path.iterdir() if entry.suffix.lower() in STILL_SUFFIXES]
        found = [entry for entry in found if not entry.name.startswith(".")]
    elif match := _PRINTF.search(path.name):
        before, after = path.name[: match.start()], path.name[match.end() :]
        numbered = re.compile(rf"{re.escape(before)}\d+{re.escape(after)}")
        found = [entry for entry in _folder_entries(path.parent) if numbered.fullmatch(entry.name)]
    else:
        found = [Path(name) for name in glob.glob(str(path))]
    if not found:
        raise BadVideo("no stills found", got=path, expected=f"pictures ({', '.join(sorted(STILL_SUFFIXES))})")
    return sorted(found, key=_natural_order)


def _folder_entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _natural_order(path: Path) -> tuple:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name))


def probe_sequence(path: Path, fps: Fraction | None, max_px: int) -> VideoInfo:
    """What a sequence of stills holds, judged by its first."""
    from PIL import Image

    stills = sequence_paths(path)
    first = load_still(stills[0], (0, 0, 0), max_px)
    with Image.open(stills[0]) as image:
        mode, said = image.mode, getattr(image, "text", {}).get(FPS_KEY)
    fps = fps or (parse_fps(said) if said else SEQUENCE_FPS)
    return VideoInfo(
        path=path,
        container="sequence",
        codec=stills[0].suffix.lower().lstrip("."),
        pixel_format=mode.lower(),
        width_px=first.shape[1],
        height_px=first.shape[0],
        fps=fps,
        num_frames=len(stills),
        duration_s=len(stills) / fps,
        time_base=1 / fps,
        has_alpha=mode in ("RGBA", "LA", "PA"),
    )


def iter_sequence(
    path: Path, fps: Fraction, *, background: tuple[int, int, int], max_px: int, notes: list[str]
) -> Iterator[Frame]:
    """The stills as frames, one a tick. Raises BadVideo for a damaged still or one of another size, by name."""
    stills = sequence_paths(path)
    notes += _gaps(stills)
    first = None
    for index, still in enumerate(stills):
        rgb_HWC = load_still(still, background, max_px)
        first = rgb_HWC if first is None else first
        check_same_size(still, rgb_HWC, first)
        yield Frame(rgb_HWC=rgb_HWC, pts=index, duration=1, time_base=1 / fps)


def load_still(path: Path, background: tuple[int, int, int], max_px: int) -> np.ndarray:
    """uint8 [H, W, 3] of one still of a sequence; its faults become BadVideo."""
    try:
        return np.asarray(load_image(path, background=background, max_px=max_px))
    except BadImage as reason:
        raise BadVideo(f"a still of the sequence: {reason.what}", got=reason.got, expected=reason.expected) from reason


def check_same_size(name: object, rgb_HWC: np.ndarray, first_HWC: np.ndarray) -> None:
    """Raises BadVideo when a frame's size differs from the first one's."""
    if rgb_HWC.shape != first_HWC.shape:
        raise BadVideo(
            "the frames differ in size",
            got=f"{name}: {rgb_HWC.shape[1]}x{rgb_HWC.shape[0]}",
            expected=f"{first_HWC.shape[1]}x{first_HWC.shape[0]} like the first",
            hint="cutting the video where the size changes",
        )


def _gaps(stills: list[Path]) -> list[str]:
    """A note naming the numbers that a numbered sequence leaves out; none for names without numbers."""
    numbers = [re.findall(r"\d+", still.stem) for still in stills]
    if not all(numbers):
        return []
    missing = [(int(a[-1]), int(b[-1])) for a, b in pairwise(numbers) if int(b[-1]) - int(a[-1]) > 1]
    if not missing or len(missing) == len(stills) - 1:  # numbered by twos or threes throughout: no gap
        return []
    gaps = ", ".join(f"{low + 1} to {high - 1}" if high - low > 2 else f"{low + 1}" for low, high in missing)
    return [f"the numbering leaves out {gaps}"]
