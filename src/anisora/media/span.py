"""Single frames out of the middle of a video, exact to the frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadVideo
from anisora.media.reader import iter_frames
from anisora.records import Span


def read_frames(path: Path, span: Span, indices: Sequence[int]) -> NDArray[np.uint8]:
    """The frames of those numbers (counted from the start of the file, ascending, inside the span), uint8 RGB.

    Raises BadVideo for a file that cannot be read, or that has fewer frames than the span says.
    """
    wanted = set(indices)
    frames = [
        frame.rgb_HWC
        for number, frame in enumerate(islice(iter_frames(path, keep_damaged=True, threads=1), span.end_frame))
        if number in wanted
    ]
    if len(frames) != len(wanted):
        raise BadVideo("the video has fewer frames than its span", got=f"{path}, {len(frames)}", expected=len(wanted))
    return np.stack(frames)
