"""Reading moving pictures, whatever holds them: video files, animated pictures, folders of stills.

`iter_frames` streams and is the base; `read_video` gathers a clip in memory; `probe` describes without decoding all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from anisora.errors import BadVideo
from anisora.files import existing_file
from anisora.media.container import iter_container, probe_container
from anisora.media.image import BLACK, MAX_PX, WHITE, load_mask
from anisora.media.pictures import (
    is_picture,
    is_sequence,
    iter_animation,
    iter_sequence,
    probe_animation,
    probe_sequence,
)
from anisora.media.video import Frame, VideoFrames, VideoInfo, at_rate, parse_fps

#: decoded frames beyond this are refused by `read_video`; `iter_frames` has no such limit
MAX_BYTES = 8 * 2**30


def probe(path: str | os.PathLike[str], *, fps: Any = None, max_px: int = MAX_PX) -> VideoInfo:
    """What a video holds: size, rate, length, codec, ... `fps` is the rate of a sequence of stills. Raises BadVideo."""
    path = Path(path)
    if is_sequence(path):
        return probe_sequence(path, parse_fps(fps) if fps else None, max_px)
    existing_file(path, BadVideo, "the video")
    return probe_animation(path, max_px) if is_picture(path) else probe_container(path, max_px)


def iter_frames(
    path: str | os.PathLike[str],
    *,
    at_fps: Any = None,
    fps: Any = None,
    background: tuple[int, int, int] = WHITE,
    keep_damaged: bool = False,
    max_px: int = MAX_PX,
    threads: int = 0,
    notes: list[str] | None = None,
) -> Iterator[Frame]:
    """The frames of a video in the order in which they are shown, upright RGB uint8, one at a time.

    `path` is a video file, an animated picture, a folder of stills or a pattern of them (`cut/*.png`, `cut/%04d.png`).
    `at_fps` holds and drops frames by presentation time to reach that rate; `fps` says the rate of a sequence of stills
    (else what its writer noted, else 24). Transparent parts show `background`. `threads` decode, 0 leaves it to FFmpeg.
    Remarks (interlaced, not square, ...) are appended to `notes`.
    Raises BadVideo for what cannot be decoded; `keep_damaged` yields what can be and notes the rest.
    """
    path = Path(path)
    remarks = notes if notes is not None else []
    if is_sequence(path):
        rate = probe(path, fps=fps, max_px=max_px).fps
        frames = iter_sequence(path, rate, background=background, max_px=max_px, notes=remarks)
    elif is_picture(existing_file(path, BadVideo, "the video")):
        frames = iter_animation(path, background=background, max_px=max_px, keep_damaged=keep_damaged, notes=remarks)
    else:
        frames = iter_container(
            path, background=background, max_px=max_px, threads=threads, keep_damaged=keep_damaged, notes=remarks
        )
    return at_rate(frames, parse_fps(at_fps)) if at_fps else frames


def read_video(
    path: str | os.PathLike[str],
    *,
    num_frames: int | None = None,
    at_fps: Any = None,
    fps: Any = None,
    max_bytes: int = MAX_BYTES,
    **options: Any,
) -> VideoFrames:
    """A whole clip, or its first `num_frames` frames: uint8 [T, H, W, 3] with exact times.

    `options` are those of `iter_frames`. Raises BadVideo for what cannot be decoded or does not fit in `max_bytes`.
    """
    notes: list[str] = []
    frames = iter_frames(path, at_fps=at_fps, fps=fps, notes=notes, **options)
    if num_frames is not None and num_frames < 1:
        raise BadVideo("no frames were asked for", got=f"num_frames={num_frames}", expected="1 or more")
    times: list[Frame] = []
    pixels = np.empty(0, np.uint8)
    for frame in islice(frames, num_frames):
        if (len(times) + 1) * frame.rgb_HWC.nbytes > max_bytes:
            raise _too_long(path, frame, max_bytes)
        if len(times) == len(pixels):  # grows by half where it lies, so that a clip is never held twice
            pixels.resize((len(pixels) * 3 // 2 + 16, *frame.rgb_HWC.shape), refcheck=False)
        pixels[len(times)] = frame.rgb_HWC
        times.append(replace(frame, rgb_HWC=np.empty(0)))
    pixels.resize((len(times), *pixels.shape[1:]), refcheck=False)
    rate = parse_fps(at_fps) if at_fps else _rate(path, fps, times)
    return VideoFrames(
        frames_THWC=pixels,
        pts=tuple(frame.pts for frame in times),
        time_base=times[0].time_base,
        fps=rate,
        duration_s=times[-1].end_s - times[0].time_s,
        notes=tuple(notes),
    )


def _too_long(path: str | os.PathLike[str], frame: Frame, max_bytes: int) -> BadVideo:
    height, width, _ = frame.rgb_HWC.shape
    return BadVideo(
        "the video does not fit in memory",
        got=f"{path}, over {max_bytes // frame.rgb_HWC.nbytes} frames of {width}x{height}",
        expected=f"at most {max_bytes / 2**30:g} GiB decoded",
        hint="a shorter or smaller clip",
    )


def _rate(path: str | os.PathLike[str], fps: Any, times: list[Frame]) -> Fraction:
    """The rate a file states; animated pictures state times only, which `times` has already."""
    if not is_sequence(path) and is_picture(path) and len(times) > 1:
        return len(times) / (times[-1].end_s - times[0].time_s)
    return probe(path, fps=fps).fps


def load_mask_video(path: str | os.PathLike[str], **options: Any) -> np.ndarray:
    """A mask [T, H, W], float32 in [0, 1], from a video, or [1, H, W] from a still; white is 1, transparent is 0.

    `options` are those of `read_video`. Lossy files do not reach pure black and white: nothing is thresholded here.
    """
    clip = read_video(path, background=BLACK, **options)
    return np.stack([load_mask(frame) for frame in clip.frames_THWC])
