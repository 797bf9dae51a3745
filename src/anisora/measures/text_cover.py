"""How much of a clip's picture is covered by text, three ways, from cheap to the paper's.

`edge_cover` reads what the scan has stored and costs nothing. `text_cover` looks at a few frames with PP-OCR (found and
read) or, as in the paper, with CRAFT (found only). All are shares of the picture in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anisora.assets import ASSETS
from anisora.measures.clip import ClipView
from anisora.records import Score

Detector = Literal["pp-ocr", "craft"]

#: Frames looked at in a clip: enough to meet a subtitle that shows for a third of it.
NUM_FRAMES = 4


def edge_cover(clip: ClipView) -> Score:
    """The share of text-like edges that the scan saw, the mean over the span; its values are comparable among clips only.

    Thin lines count too, so it ranks; it does not decide.
    """
    signal = clip.signals.get("text_edges")
    if signal is None or not len(signal["cover"]):
        reason = "no_signal" if signal is None else "too_short"
        return Score(name="edge_cover", version=1, unit="share", raw=None, reason=reason)
    shares = np.asarray(signal["cover"])
    return Score(name="edge_cover", version=1, unit="share", raw=float(shares.mean()), per_frame=shares)


def text_cover(
    clip: ClipView, *, detector: Detector = "pp-ocr", num_frames: int = NUM_FRAMES, weights: str | Path | None = None
) -> Score:
    """The mean share of the picture inside rectangles around text, over `num_frames` frames spread over the span.

    `weights` is a CRAFT .pth of the user's; otherwise the bundled networks are used. The score's `details` hold the
    largest share of a frame. Raises AssetMissing, BadCheckpoint, BadVideo.
    """
    find = _finder(detector, weights)
    frames_THWC = clip.frames_at(clip.spread(num_frames))
    shares = np.array([covered_HW(find(frame), *frame.shape[:2]).mean() for frame in frames_THWC])
    return Score(
        name="text_cover",
        version=1,
        unit="share",
        raw=float(shares.mean()),
        backend="full" if weights else "bundled",
        weights_sha256=weights_sha256(detector, weights),
        per_frame=shares.astype(np.float32),
        details={"detector": detector, "largest": float(shares.max())},
    )


def covered_HW(corners: Iterable[NDArray[np.float32]], height: int, width: int) -> NDArray[np.bool_]:
    """True inside any of the quadrangles."""
    import cv2

    mask = np.zeros((height, width), np.uint8)
    for quadrangle in corners:
        cv2.fillConvexPoly(mask, np.rint(quadrangle).astype(np.int32), 1)
    return mask.astype(bool)


def _finder(detector: Detector, weights: str | Path | None) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    if detector == "craft":
        from anisora.measures.craft import find_letters

        return lambda frame: find_letters(frame, weights=weights)
    from anisora.measures.text_reader import read_text

    return lambda frame: [line.corners for line in read_text(frame)]


def weights_sha256(detector: Detector, weights: str | Path | None = None) -> str:
    """The hash of the networks that `text_cover` would use, for the key of its results."""
    from anisora.files import sha256_file
    from anisora.measures import text_reader

    if weights:
        return sha256_file(weights)
    return ASSETS["craft"].sha256 if detector == "craft" else text_reader.weights_sha256()
