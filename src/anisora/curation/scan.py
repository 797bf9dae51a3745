"""What one decode of a video found, and how it is kept: per-frame signals, never verdicts."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadInput
from anisora.files import existing_file, write_atomic
from anisora.measures.clip import ClipView, Signals
from anisora.media.video import VideoInfo
from anisora.records import Span

#: of the file that `Scan.save` writes; another one is refused
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The signals of one video.

    `pts_T` are the time stamps of its frames in `time_base` seconds, `end_pts` where the last frame ends. `errors` say
    why an observer has no signals; `read_errors` what of the file could not be decoded; `notes` what a viewer would
    want to know of it.
    """

    info: VideoInfo
    pts_T: NDArray[np.int64]
    end_pts: int
    time_base: Fraction
    signals: Signals
    errors: Mapping[str, str] = field(default_factory=dict)
    read_errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        return len(self.pts_T)

    @cached_property
    def fps(self) -> Fraction:
        """The rate the file states, or its mean rate where the two disagree."""
        mean = self.num_frames / (self.time_base * int(self.end_pts - self.pts_T[0]))
        return self.info.fps if abs(mean - self.info.fps) < self.info.fps / 50 else mean.limit_denominator(1001)

    def span(self, start_frame: int, end_frame: int) -> Span:
        """The span of frames [start_frame, end_frame), with its times."""
        end_pts = self.end_pts if end_frame == self.num_frames else int(self.pts_T[end_frame])
        return Span(
            start_frame=start_frame,
            end_frame=end_frame,
            start_pts=int(self.pts_T[start_frame]),
            end_pts=end_pts,
            time_base=self.time_base,
        )

    def clip(self, span: Span, crop_xywh_px: tuple[int, int, int, int] | None = None) -> ClipView:
        """A span with its part of the signals, for the measures."""
        return ClipView(
            path=self.info.path,
            span=span,
            fps=self.fps,
            width_px=self.info.width_px,
            height_px=self.info.height_px,
            crop_xywh_px=crop_xywh_px,
            signals={name: _within(arrays, span) for name, arrays in self.signals.items()},
            signal_errors=self.errors,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes everything as one .npz, whole or not at all; equal scans give equal bytes. Raises WriteFailed."""
        head = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("pts_T", "signals")}
        head |= {"format": FORMAT, "info": asdict(self.info)}
        arrays: dict[str, Any] = {"head": np.array(json.dumps(head, default=str)), "pts_T": self.pts_T}
        for name, signal in self.signals.items():
            arrays |= {f"{name}/{key}": values for key, values in signal.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scan:
        """What `save` wrote. Raises BadInput for a file that is none, or of another format."""
        try:
            with np.load(existing_file(path, BadInput, "the scan"), allow_pickle=False) as stored:
                arrays = dict(stored)
            head = json.loads(str(arrays.pop("head")))
        except (ValueError, OSError, KeyError, EOFError) as reason:
            raise BadInput("not a stored scan", got=f"{path} ({reason})", expected="a file of Scan.save") from reason
        if (found := head.pop("format")) != FORMAT:
            raise BadInput("a scan of another format", got=f"{path}, {found}", expected=FORMAT, hint="scanning again")
        pts = arrays.pop("pts_T")
        signals: dict[str, dict[str, NDArray]] = {}
        for key, values in arrays.items():
            name, _, array = key.partition("/")
            signals.setdefault(name, {})[array] = values
        head |= {"info": _info(head["info"]), "time_base": Fraction(head["time_base"])}
        head |= {key: tuple(head[key]) for key in ("read_errors", "notes")}
        return cls(pts_T=pts, signals=signals, **head)


def _within(arrays: Mapping[str, NDArray], span: Span) -> Mapping[str, NDArray]:
    """The rows of a signal whose frames lie in the span; arrays that are not one row a frame are left whole."""
    index = arrays["index"]
    first, last = np.searchsorted(index, (span.start_frame, span.end_frame))
    return {key: values[first:last] if len(values) == len(index) else values for key, values in arrays.items()}


def _info(stored: Mapping[str, Any]) -> VideoInfo:
    exact = {key: Fraction(stored[key]) for key in ("fps", "time_base", "sample_aspect")}
    duration = stored["duration_s"]
    exact["duration_s"] = None if duration is None else Fraction(duration)  # type: ignore[assignment]
    return VideoInfo(**{**stored, **exact, "path": Path(stored["path"])})
