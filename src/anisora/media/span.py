"""Single frames out of the middle of a video, exact to the frame, without decoding all that comes before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadVideo
from anisora.media.container import iter_container
from anisora.media.image import MAX_PX, WHITE
from anisora.media.pictures import is_picture, is_sequence
from anisora.media.reader import iter_frames
from anisora.media.video import Frame
from anisora.records import Span


def read_frames(path: Path, span: Span, indices: Sequence[int]) -> NDArray[np.uint8]:
    """The frames of those numbers (counted from the start of the file, ascending, inside the span), uint8 RGB.

    Raises BadVideo for a file that cannot be read, or that has fewer frames than the span says.
    """
    wanted = set(indices)
    frames = [frame.rgb_HWC for number, frame in enumerate(_span(path, span), span.start_frame) if number in wanted]
    if len(frames) != len(wanted):
        raise BadVideo("the video has fewer frames than its span", got=f"{path}, {len(frames)}", expected=len(wanted))
    return np.stack(frames)


def _span(path: Path, span: Span) -> Iterator[Frame]:
    """The frames of a span: from the key frame before it where the time stamps can be trusted, else counted out."""
    if span.start_frame and not is_sequence(path) and not is_picture(path):
        frames = iter_container(
            path, background=WHITE, max_px=MAX_PX, threads=1, keep_damaged=True, notes=[], start_pts=span.start_pts
        )
        first = next((frame for frame in frames if frame.pts >= span.start_pts), None)
        if first is not None and first.pts == span.start_pts:
            yield first
            yield from islice(frames, span.num_frames - 1)
            return
    yield from islice(iter_frames(path, keep_damaged=True, threads=1), span.start_frame, span.end_frame)
