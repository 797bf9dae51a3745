"""Other looks of the drawn clips, for arms that are trained on one look and measured on another.

Each is a function from a clip with its truth to frames, uint8 THWC; what happens in the clip stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anisora.synthetic.lettering import Lettered

Frames = NDArray[np.uint8]

#: warm white of the paper that a pencil test is drawn on
PAPER = np.array([246, 242, 230], np.float32) / 255

#: where the light of `volumes` comes from: left, above, in front
LIGHT = np.array([-0.45, -0.6, 0.66], np.float32)


def drawn(clip: Any) -> Frames:
    """As the corpus draws it."""
    return clip.video_THWC


def pencil(clip: Any) -> Frames:
    """A pencil test: dark lines where the picture changes, on paper, without colours (colour dodge of a blurred negative)."""
    import cv2

    frames = []
    for frame_HWC in clip.video_THWC:
        grey_HW = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
        blurred_HW = cv2.GaussianBlur(grey_HW, (0, 0), sigmaX=max(1.0, len(grey_HW) / 60))
        line_HW = np.minimum(1, grey_HW / np.maximum(blurred_HW, 1).astype(np.float32)) ** 3
        frames.append(np.rint(255 * line_HW[..., None] * PAPER).astype(np.uint8))
    return np.stack(frames)


def subtitled(clip: Any) -> Frames:
    """With a line of dialogue burnt in for at least half of the clip; which one follows from the first frame."""
    return _with_subtitle(clip).frames_THWC


def subtitle_area(clip: Any) -> NDArray[np.bool_]:
    """The box that `subtitled` writes into: [H, W]."""
    area_HW = np.zeros(clip.video_THWC.shape[1:3], bool)
    for box in _with_subtitle(clip).box_T:
        if box is not None:
            left, top, right, bottom = box
            area_HW[top:bottom, left:right] = True
    return area_HW


def _with_subtitle(clip: Any) -> Lettered:
    from anisora.synthetic.lettering import letter

    seed = int(clip.video_THWC[0].sum()) % 100_000
    return letter(clip.video_THWC, "subtitle", "source-serif", "en", seed)


def volumes(clip: Any) -> Frames:
    """Every figure and thing blown up to a rounded body, lit from one side with a highlight, as in a 3D film."""
    return np.stack([_lit(f, ids) for f, ids in zip(clip.video_THWC, clip.truth.ids_THW, strict=True)])


def _lit(frame_HWC: Frames, ids_HW: NDArray[np.uint8]) -> Frames:
    import cv2

    height_HW = np.zeros(ids_HW.shape, np.float32)
    for owner in np.unique(ids_HW[ids_HW > 0]):
        inside_HW = (ids_HW == owner).astype(np.uint8)
        depth_HW = cv2.distanceTransform(inside_HW, cv2.DIST_L2, 5)
        radius = float(depth_HW.max()) or 1.0
        height_HW += np.sqrt(np.maximum(0, radius**2 - (radius - depth_HW) ** 2)) * inside_HW
    height_HW = cv2.GaussianBlur(height_HW, (0, 0), sigmaX=1.0)
    down_HW, right_HW = np.gradient(height_HW)
    normal_HW3 = np.stack([-right_HW, -down_HW, np.ones_like(height_HW)], axis=-1)
    normal_HW3 /= np.linalg.norm(normal_HW3, axis=-1, keepdims=True)
    toward_HW = np.maximum(0, normal_HW3 @ (LIGHT / np.linalg.norm(LIGHT)))
    body_HW1 = (ids_HW > 0)[..., None]
    lit_HWC = frame_HWC * (0.35 + 0.85 * toward_HW[..., None]) + 110 * toward_HW[..., None] ** 24
    return np.rint(np.clip(np.where(body_HW1, lit_HWC, frame_HWC * 0.92), 0, 255)).astype(np.uint8)


LOOKS: dict[str, Callable[[Any], Frames]] = {
    "drawn": drawn,
    "pencil": pencil,
    "subtitled": subtitled,
    "volumes": volumes,
}
