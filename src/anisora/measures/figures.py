"""The figures of a clip: found as salient parts of a picture, followed through the clip, cut out for an encoder to see.

The paper detects characters with GroundingDINO, segments and tracks them with SAM (section 5.2). Here the detector is a
salient-object network (`salience`: bundled, or any in ONNX), its connected parts are the figures, and each is followed
as foregrounds are (`foreground`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.measures.foreground import Mask, follow, parts
from anisora.measures.salience import FOREGROUND, Detector, Salience

#: Parts below this share of the picture are props; of the others the largest ones are figures.
LEAST_SHARE, MOST_FIGURES = 0.01, 4

#: The side of a cut-out, and how much of it is left black on each side of the figure: encoders that crop the middle
#: (DINOv2 keeps 224 of 256) crop no figure then.
CUT_PX, MARGIN = 224, 1 / 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """Where one figure is at some frames (`mask_HW` by frame number; frames in which it is not are left out), and at how
    many of the looks after the first it was found where it was expected (`found_share`)."""

    mask_HW: dict[int, Mask]
    found_share: float


def find_figures(frames_THWC: NDArray[np.uint8], frames: Sequence[int], detect: Detector) -> list[Figure]:
    """The figures of a clip at the frame numbers given (ascending), the largest first; none is an empty list.

    Those that stand in the first of these frames in which any stands; who enters later is not followed. Motion carries
    them from frame to frame, the detector looks again halfway between two of the frames given and at them. Raises what
    `detect` does.
    """
    detect = remembering(detect)
    for start in frames:
        if masks := instances(detect(frames_THWC[start]) >= FOREGROUND):
            break
    else:
        return []
    step = min((b - a for a, b in itertools.pairwise(frames)), default=2)
    found = []
    for mask in masks[:MOST_FIGURES]:
        followed = follow(frames_THWC[start : frames[-1] + 1], detect, max(1, step // 2), start=mask)
        at = {t: followed.mask_THW[t - start] for t in frames if t >= start}
        least = LEAST_SHARE / 2 * mask.size
        seen = {t: own for t, own in at.items() if own.sum() >= least}
        found.append(Figure(mask_HW=seen, found_share=followed.found_share))
    return found


def instances(mask_HW: Mask) -> list[Mask]:
    """The connected parts of a mask from `LEAST_SHARE` of the picture on, the largest first."""
    labels, sizes = parts(mask_HW)
    order = sorted(range(1, len(sizes)), key=lambda part: -sizes[part])
    return [labels == part for part in order if sizes[part] >= LEAST_SHARE * mask_HW.size]


def cut_out(picture_HWC: NDArray[np.uint8], mask_HW: Mask) -> NDArray[np.uint8]:
    """The figure under a mask on black, [CUT_PX, CUT_PX, 3]: square, as large as fits, its proportions kept."""
    import cv2

    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    figure = np.where(mask_HW[top:bottom, left:right, None], picture_HWC[top:bottom, left:right], 0).astype(np.uint8)
    inner = round(CUT_PX * (1 - 2 * MARGIN))
    scale = inner / max(figure.shape[:2])
    size = (max(1, round(figure.shape[1] * scale)), max(1, round(figure.shape[0] * scale)))
    small = cv2.resize(figure, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    square = np.zeros((CUT_PX, CUT_PX, 3), np.uint8)
    y, x = (CUT_PX - size[1]) // 2, (CUT_PX - size[0]) // 2
    square[y : y + size[1], x : x + size[0]] = small
    return square


def remembering(detect: Detector) -> Detector:
    """The same detector, which looks at each picture once: figures of a clip are followed one after the other."""
    seen: dict[bytes, Salience] = {}

    def once(picture_HWC: NDArray[np.uint8]) -> Salience:
        key = picture_HWC.tobytes()
        if key not in seen:
            seen[key] = detect(picture_HWC)
        return seen[key]

    return once
