"""The foreground of a clip, frame by frame: found in the first frame, carried along the motion, looked at again now and then.

Finding it anew in every frame would jump from figure to figure; carrying it alone would fray. So optical flow carries the
mask from drawing to drawing, and every few frames what the detector sees there replaces it, as far as it is the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.measures.flow import dis_flow, pull
from anisora.measures.salience import FOREGROUND, Detector
from anisora.measures.tracker import Tracker

Mask = NDArray[np.bool_]

#: parts below this share of the picture are specks
SPECK_SHARE = 0.002

#: what is seen is the thing that was followed when they share this much of their union
SAME_IOU = 0.4


@dataclass(frozen=True, kw_only=True, eq=False)
class Foreground:
    """`mask_THW`; how often it was `looked` for after the first frame, and how often it was `found` where it was expected."""

    mask_THW: Mask
    looked: int
    found: int

    @property
    def area_HW(self) -> Mask:
        """Wherever it was at any time: the motion area of the paper's section 4.2.2."""
        return np.logical_or.reduce(self.mask_THW, axis=0)

    @property
    def found_share(self) -> float:
        """1 where nothing had to be looked for."""
        return self.found / self.looked if self.looked else 1.0


def follow(frames_THWC: NDArray[np.uint8], detect: Detector, every: int, start: Mask | None = None) -> Foreground:
    """The foreground of the first frame through a clip, looked at again every `every` frames and in the last one; or, from
    `start`, one part of that frame.

    A frame in which it is not found where the motion leads keeps the carried mask. Of a thing that leaves the picture a
    rim at the border may stay, where it was before; what enters later belongs to it only where it touches it.
    """
    mask = without_specks(detect(frames_THWC[0]) >= FOREGROUND) if start is None else start
    masks, looked, found = [mask], 0, 0
    last = len(frames_THWC) - 1
    for t in range(1, last + 1):
        mask = carried(mask, frames_THWC[t - 1], frames_THWC[t])
        if mask.any() and (t % every == 0 or t == last):
            looked += 1
            seen = same_thing(detect(frames_THWC[t]) >= FOREGROUND, mask)
            if seen is not None:
                mask, found = seen, found + 1
        masks.append(mask)
    return Foreground(mask_THW=np.stack(masks), looked=looked, found=found)


def follow_with(frames_THWC: NDArray[np.uint8], detect: Detector, every: int, track: Tracker) -> Foreground:
    """The foreground of the first frame as a tracker follows it; the detector looks as often as in `follow`, and only says
    whether it sees the same thing there."""
    start = without_specks(detect(frames_THWC[0]) >= FOREGROUND)
    last = len(frames_THWC) - 1
    mask_THW = track(frames_THWC, start) if start.any() else np.zeros(frames_THWC.shape[:3], bool)
    looks = [t for t in range(1, last + 1) if mask_THW[t].any() and (t % every == 0 or t == last)]
    found = [t for t in looks if same_thing(detect(frames_THWC[t]) >= FOREGROUND, mask_THW[t]) is not None]
    return Foreground(mask_THW=mask_THW, looked=len(looks), found=len(found))


def carried(mask_HW: Mask, before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> Mask:
    """A mask of one frame where the optical flow puts it in the next; held drawings keep it to the pixel."""
    if not mask_HW.any() or np.array_equal(before_HWC, after_HWC):
        return mask_HW
    return pull(mask_HW.astype(np.float32), dis_flow(after_HWC, before_HWC, fine=False)) >= 0.5


def same_thing(seen_HW: Mask, expected_HW: Mask) -> Mask | None:
    """The parts of what is seen that lie on what was expected; None where they are not the same thing.

    A part counts when half of it lies there, or when it holds half of what was expected.
    """
    labels, sizes = parts(seen_HW)
    shared = np.bincount(labels[expected_HW], minlength=len(sizes))
    belongs = (2 * shared >= sizes) | (2 * shared >= expected_HW.sum())
    belongs[0] = False
    kept = belongs[labels]
    union = (kept | expected_HW).sum()
    return kept if union and (kept & expected_HW).sum() >= SAME_IOU * union else None


def without_specks(mask_HW: Mask) -> Mask:
    """A mask without its parts below `SPECK_SHARE` of the picture."""
    labels, sizes = parts(mask_HW)
    large = sizes >= SPECK_SHARE * mask_HW.size
    large[0] = False
    return large[labels]


def parts(mask_HW: Mask) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """The connected parts by number, 0 for what is not masked, and how many pixels each number has."""
    import cv2

    count, labels = cv2.connectedComponents(mask_HW.astype(np.uint8))
    return np.asarray(labels, np.int32), np.bincount(np.ravel(labels), minlength=count)
