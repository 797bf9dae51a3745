"""What a measure sees of a clip: its span, the signals that a scan has stored of it, and, when asked for, its pixels.

Most measures need the stored signals only and never decode. Those that look at pixels get them here, read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anisora.records import Span

Signals = Mapping[str, Mapping[str, NDArray]]
"""observer -> array name -> values; the first axis is frames seen, and "index" says which, in frames of the source."""


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """One span of one video.

    `signals` hold the span's frames only. `signal_errors` say why an observer has none. `width_px` and `height_px` are
    of the upright picture. `crop_xywh_px` is what of the picture counts; pixels come out cropped, signals do not.
    `load` replaces the reading of `path`: it gets frame numbers of the source and returns those frames, uint8 RGB.
    """

    path: Path
    span: Span
    fps: Fraction
    width_px: int
    height_px: int
    crop_xywh_px: tuple[int, int, int, int] | None = None
    signals: Signals = field(default_factory=dict)
    signal_errors: Mapping[str, str] = field(default_factory=dict)
    load: Callable[[Sequence[int]], NDArray[np.uint8]] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_frames(cls, frames_THWC: NDArray[np.uint8], fps: Fraction | int, signals: Signals | None = None) -> ClipView:
        """A clip that is in memory already, as a whole video of its own."""
        frames, height, width, _ = frames_THWC.shape
        rate = Fraction(fps)
        return cls(
            path=Path("memory"),
            span=Span(start_frame=0, end_frame=frames, start_pts=0, end_pts=frames, time_base=1 / rate),
            fps=rate,
            width_px=width,
            height_px=height,
            signals=signals or {},
            load=lambda indices: frames_THWC[list(indices)],
        )

    @cached_property
    def frames_THWC(self) -> NDArray[np.uint8]:
        """All frames of the span, uint8 RGB; decoded at the first use. Raises BadVideo."""
        return self.frames_at(range(self.span.start_frame, self.span.end_frame))

    def frames_at(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """The frames of those numbers (of the source, ascending, inside the span), uint8 RGB [n, H, W, 3].

        Raises BadVideo where the file has fewer frames than the span says.
        """
        frames = (self.load or self._read)(indices)
        if self.crop_xywh_px is None:
            return frames
        x, y, width, height = self.crop_xywh_px
        return frames[:, y : y + height, x : x + width]

    def spread(self, num_frames: int) -> list[int]:
        """`num_frames` frame numbers (fewer in a shorter clip), each in the middle of an equal part of the span."""
        count = min(num_frames, self.span.num_frames)
        return [self.span.start_frame + (2 * i + 1) * self.span.num_frames // (2 * count) for i in range(count)]

    def _read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        from anisora.media.span import read_frames

        return read_frames(self.path, self.span, indices)
