"""The video encoders the writer can use, as a table, and which of them each kind of file takes.

Which encoders exist depends on how PyAV's FFmpeg was built: each file kind lists several, best first, and the first one
that is there is the default.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from anisora.errors import BadSize, BadVideo


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How FFmpeg's encoder `name` is driven.

    `quality` is the default of its constant-quality option `quality_option`, lower is better; the values were chosen to
    look alike. `odd_pixel_format` is taken for odd widths or heights where `pixel_format` halves the colour planes and
    the encoder cannot split a pixel; None refuses such sizes.
    """

    name: str
    pixel_format: str = "yuv420p"
    odd_pixel_format: str | None = "yuv420p"
    is_lossless: bool = False
    quality_option: str | None = None
    quality: int | None = None
    options: dict[str, str] = field(default_factory=dict)


ENCODERS: dict[str, Encoder] = {
    # H.264 halves colour by whole pixels, so odd sizes are written as 4:4:4, which some players cannot show.
    "libx264": Encoder(name="libx264", odd_pixel_format="yuv444p", quality_option="crf", quality=16),
    "libopenh264": Encoder(name="libopenh264", odd_pixel_format=None, options={"rc_mode": "quality"}),
    "libvpx-vp9": Encoder(
        name="libvpx-vp9", quality_option="crf", quality=24, options={"b:v": "0", "row-mt": "1", "cpu-used": "2"}
    ),
    "libsvtav1": Encoder(name="libsvtav1", quality_option="crf", quality=24, options={"preset": "7"}),
    "libaom-av1": Encoder(
        name="libaom-av1", quality_option="crf", quality=24, options={"cpu-used": "6", "row-mt": "1"}
    ),
    # Bit-exact: the frames that were given are the frames that are read.
    "libx264rgb": Encoder(
        name="libx264rgb", pixel_format="rgb24", odd_pixel_format="rgb24", is_lossless=True, options={"qp": "0"}
    ),
    "libvpx-vp9-lossless": Encoder(
        name="libvpx-vp9", pixel_format="gbrp", odd_pixel_format="gbrp", is_lossless=True, options={"lossless": "1"}
    ),
    "ffv1": Encoder(name="ffv1", pixel_format="bgr0", odd_pixel_format="bgr0", is_lossless=True),
}

#: suffix -> the encoders it takes, best first
ENCODERS_BY_SUFFIX: dict[str, tuple[str, ...]] = {
    ".mp4": (
        "libx264",
        "libopenh264",
        "libsvtav1",
        "libaom-av1",
        "libvpx-vp9",
        "libx264rgb",
        "libvpx-vp9-lossless",
    ),
    ".mov": ("libx264", "libopenh264", "libx264rgb"),
    ".mkv": (
        "libx264",
        "libopenh264",
        "libvpx-vp9",
        "libsvtav1",
        "libaom-av1",
        "ffv1",
        "libx264rgb",
        "libvpx-vp9-lossless",
    ),
    ".webm": ("libvpx-vp9", "libsvtav1", "libaom-av1", "libvpx-vp9-lossless"),
}


@cache
def is_available(key: str) -> bool:
    """Whether this build of FFmpeg has the encoder that `ENCODERS[key]` drives."""
    import av

    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 otherwise prints its settings on stderr: errors only
    try:
        av.Codec(ENCODERS[key].name, "w")
    except ValueError:  # av.codec.codec.UnknownCodecError
        return False
    return True


def pick_encoder(path: Path, codec: str | None, lossless: bool) -> Encoder:
    """The encoder for a file: `codec` by its key in `ENCODERS`, else the best one there is. Raises BadVideo."""
    keys = ENCODERS_BY_SUFFIX[path.suffix.lower()]
    fitting = [key for key in keys if ENCODERS[key].is_lossless == lossless]
    usable = [key for key in fitting if is_available(key)]
    if codec is None and usable:
        return ENCODERS[usable[0]]
    if codec in ENCODERS and codec in keys and is_available(codec) and ENCODERS[codec].is_lossless >= lossless:
        return ENCODERS[codec]
    kind = f"a{' lossless' if lossless else 'n'} encoder for {path.suffix}"
    problem = "is not in this build of FFmpeg" if codec in keys and not is_available(codec) else "does not fit"
    raise BadVideo(
        f"{kind} that {problem}", got=codec, expected=" or ".join(usable) or "a build of FFmpeg with one of them"
    )


def pick_pixel_format(encoder: Encoder, width_px: int, height_px: int) -> str:
    """The pixel format in which the encoder keeps exactly this size. Raises BadSize, naming the nearest legal one."""
    if width_px % 2 == height_px % 2 == 0:
        return encoder.pixel_format
    if encoder.odd_pixel_format is None:
        raise BadSize(
            f"{encoder.name} cannot write odd sizes",
            got=f"{width_px}x{height_px}",
            expected="even width and height",
            hint=f"{width_px + width_px % 2}x{height_px + height_px % 2}, or .webm",
        )
    return encoder.odd_pixel_format


def open_encoder(context: Any) -> None:
    """Opens an encoder's codec context, and leaves every thread the priority that it had.

    Run by root, SVT-AV1 makes the thread that opens it real-time, with those that this one starts: nothing else runs before
    them, and the next sum that BLAS shares out among threads hardly ends. Raises what opening raises.
    """
    if not hasattr(os, "sched_setscheduler"):  # Linux alone has it
        context.open(strict=False)
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    before = _threads()
    try:
        context.open(strict=False)
    finally:
        for thread in {0} | (_threads() - before):  # 0 is the one that runs this
            with suppress(ProcessLookupError):
                os.sched_setscheduler(thread, policy, priority)


def _threads() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/task").glob("*")}
