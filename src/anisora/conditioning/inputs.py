"""What a user hands over (paths, PIL pictures, arrays) brought to float tensors of the shot's size, once.

Reading, fitting and the change of layout are `media`'s; what is here is that they fit together: lengths and aspects.

    T pixel frames, H W pixels
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anisora.errors import BadImage, BadMask, BadVideo
from anisora.media.frames import Fit, fit_mask, place, to_float_CTHW
from anisora.media.frames import fit as fit_frames
from anisora.media.image import load_image, load_mask


def read_picture(source: Any) -> np.ndarray:
    """A guide as uint8 [H, W, 3]: from a path, a PIL picture or an array. Raises BadImage."""
    return np.array(load_image(source))


def read_mask(source: Any, num_frames: int, what: str) -> np.ndarray:
    """A mask as float32 [1 or T, H, W] in [0, 1], white 1: still or one per frame. Raises BadMask, naming `what`.

    `source` is a path (a still or a video), a PIL picture, a list of either, or an array [H, W] or [T, H, W]: bool,
    uint8 or float in [0, 1].
    """
    try:
        mask_THW = _read_mask_THW(source)
    except (BadImage, BadVideo) as reason:
        raise BadMask(
            f"the {what}: {reason.what}", got=reason.got, expected=reason.expected, hint=reason.hint
        ) from None
    if len(mask_THW) in (1, num_frames):
        return mask_THW
    raise BadMask(
        f"the {what} has a wrong number of frames",
        got=len(mask_THW),
        expected=f"1 or {num_frames}, the shot's",
        hint="a still mask, or a shot of its length",
    )


def _read_mask_THW(source: Any) -> np.ndarray:
    if isinstance(source, (str, os.PathLike)):
        from anisora.media.reader import load_mask_video

        return load_mask_video(source)
    if isinstance(source, (list, tuple)) or (isinstance(source, np.ndarray) and source.ndim == 3):
        if not len(source):
            raise BadImage("a mask without frames", got=0, expected="1 or more")
        masks = [load_mask(frame) for frame in source]
        if len({mask.shape for mask in masks}) > 1:
            raise BadImage("mask frames of different sizes", got=sorted({mask.shape for mask in masks}))
        return np.stack(masks)
    return load_mask(source)[None]


def read_frames(source: Any, num_frames: int) -> np.ndarray:
    """A video to keep parts of, as uint8 [T, H, W, 3]: from a path or such an array. Raises BadVideo."""
    if isinstance(source, (str, os.PathLike)):
        from anisora.media.reader import read_video

        source = read_video(source).frames_THWC
    video = np.asarray(source)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3:
        raise BadVideo("not an RGB video", got=f"{video.dtype} {list(video.shape)}", expected="uint8 [T, H, W, 3]")
    if len(video) != num_frames:
        raise BadVideo(
            "the video is not as long as the shot",
            got=f"{len(video)} frames",
            expected=f"{num_frames}",
            hint="a shot of the video's length, or cutting the video",
        )
    return video


def check_same_aspect(mask_THW: np.ndarray, picture_THWC: np.ndarray, what: str, whose: str) -> None:
    """Raises BadMask unless the mask's height follows from its width by the picture's aspect, to within a pixel."""
    (mask_height, mask_width), (height, width) = mask_THW.shape[1:], picture_THWC.shape[1:3]
    # either way round: a mask scaled by hand was rounded on one of its sides
    if abs(mask_width * height / width - mask_height) < 1 or abs(mask_height * width / height - mask_width) < 1:
        return
    raise BadMask(
        f"the {what} has another aspect than {whose}",
        got=f"{mask_width}x{mask_height}",
        expected=f"the aspect of {width}x{height}",
        hint=f"drawing the mask on {whose} itself",
    )


def picture_TCHW(frames_THWC: np.ndarray, size_px: tuple[int, int], fit: Fit) -> Tensor:
    """Frames in [-1, 1] at (width, height) `size_px`; the bars of `contain` are black."""
    return to_float_CTHW(fit_frames(frames_THWC, size_px, fit)[0]).transpose(0, 1)


def mask_T1HW(mask_THW: np.ndarray, size_px: tuple[int, int], fit: Fit, bars: float) -> Tensor:
    """A mask at `size_px`, moved as a picture of its aspect is; the bars of `contain` are `bars`."""
    mask_height, mask_width = mask_THW.shape[1:]
    placement = place((mask_width, mask_height), size_px, fit)
    return torch.from_numpy(fit_mask(mask_THW, placement, pad=bars))[:, None]
