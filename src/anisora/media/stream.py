"""Frames as the decoder leaves them: in its own memory, in the order in which they are shown, with exact times.

A scan looks at every frame of a video, but at few of its pixels, so nothing is converted here; `media.pyramid` makes
small pictures of such frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anisora.errors import BadVideo
from anisora.files import existing_file
from anisora.media import container as files
from anisora.media.image import MAX_PX
from anisora.media.pictures import is_picture, is_sequence
from anisora.media.reader import iter_frames


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One decoded frame: `picture` is PyAV's, shown from `pts` for `duration`. `is_damaged`: shown wrong, or perhaps.

    Its memory belongs to the decoder: it is good until the next frame is asked for.
    """

    picture: Any
    pts: int
    duration: int
    time_base: Fraction
    is_damaged: bool = False


@dataclass(kw_only=True)
class Remarks:
    """What was found on the way through a file: damage, and what a viewer would want to know."""

    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def iter_decoded(path: Path, remarks: Remarks, *, max_px: int = MAX_PX) -> Iterator[Decoded]:
    """The frames of a video in the order in which they are shown, decoded by one thread; damage goes into `remarks`.

    Time stamps ascend strictly: those that stand still or run backwards are moved on by the least step, which a note
    says. After an error, frames count as damaged until the next one that needs no other. Raises BadVideo for what is no
    video, or holds not a single frame that can be decoded.
    """
    if is_sequence(path) or is_picture(existing_file(path, BadVideo, "the video")):
        frames = _from_pictures(path, remarks, max_px)
    else:
        frames = _from_container(path, remarks, max_px)
    last, num_frames, is_moved = None, 0, False
    for frame in frames:
        if last is not None and frame.pts <= last:
            frame, is_moved = replace(frame, pts=last + 1), True
        yield frame
        last, num_frames = frame.pts, num_frames + 1
    if is_moved:
        remarks.notes.append("time stamps stand still or run backwards in places: moved on by the least step")
    if not num_frames:
        reason = remarks.damage[0] if remarks.damage else "no frames"
        raise BadVideo("no frame could be decoded", got=f"{path} ({reason})", expected="a video")


def _from_pictures(path: Path, remarks: Remarks, max_px: int) -> Iterator[Decoded]:
    """Animated pictures and folders of stills, which come as RGB."""
    import av

    for frame in iter_frames(path, keep_damaged=True, max_px=max_px, notes=remarks.notes):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.rgb_HWC), "rgb24")
        yield Decoded(picture=picture, pts=frame.pts, duration=frame.duration, time_base=frame.time_base)
    remarks.damage += [note for note in remarks.notes if note.startswith("damaged")]


def _from_container(path: Path, remarks: Remarks, max_px: int) -> Iterator[Decoded]:
    with files.opened(path) as container:
        stream = files.video_stream(container, path)
        files.check_area(path, stream.width, stream.height, max_px)
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        end, num_damages, is_damaged = 0, 0, False
        time_base, step = stream.time_base, files.frame_step(stream)
        for number, picture in enumerate(files.decoded(container, stream, path, remarks.damage)):
            if number == 0:
                remarks.notes += files.remarks(stream, picture)
            if len(remarks.damage) > num_damages:
                num_damages, is_damaged = len(remarks.damage), True
            if picture.key_frame and not picture.is_corrupt:
                is_damaged = False
            pts = end if picture.pts is None else picture.pts
            duration = picture.duration or step
            end = pts + duration
            yield Decoded(picture=picture, pts=pts, duration=duration, time_base=time_base, is_damaged=is_damaged)
        if missing := files.missing_bytes(path):
            remarks.damage.append(f"the file ends {missing} bytes early")
