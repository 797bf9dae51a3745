"""What a user hands over (paths, PIL pictures, uint8 arrays) brought to float tensors of the shot's size, once.

T pixel frames, H W pixels, C = 3
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anisora.errors import BadImage, BadMask, BadRequest, BadVideo

FITS = ("cover", "contain")


def read_picture(source: Any) -> np.ndarray:
    """A guide as uint8 [H, W, 3]: from a path, a PIL picture or such an array. Raises BadImage."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise BadImage(
                "a guide is not an RGB picture",
                got=f"{source.dtype} {list(source.shape)}",
                expected="uint8 [height, width, 3], a PIL picture or a path",
            )
        return source
    if isinstance(source, (str, os.PathLike)):
        from anisora.media.image import load_image

        source = load_image(source)
    if isinstance(source, Image.Image):
        return np.asarray(source.convert("RGB"))
    raise BadImage("a guide is not a picture", got=type(source).__name__, expected="a path, a PIL picture or an array")


def read_mask(source: Any, num_frames: int, what: str) -> np.ndarray:
    """A mask as float32 [1 or T, H, W] in [0, 1]: still or one per frame. Raises BadMask.

    Arrays may be bool, uint8 (255 = 1) or float in [0, 1]; a stack of PIL pictures is a mask video.
    """
    if isinstance(source, (str, os.PathLike)):
        source = Image.fromarray(read_picture(source)).convert("L")
    if isinstance(source, (list, tuple)):
        source = np.stack([_grey(frame) if isinstance(frame, Image.Image) else np.asarray(frame) for frame in source])
    if isinstance(source, Image.Image):
        source = _grey(source)
    mask = _unit_range(np.asarray(source), what)
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or 0 in mask.shape:
        raise BadMask(f"the {what} has a wrong shape", got=list(mask.shape), expected="[H, W] or [T, H, W]")
    if len(mask) not in (1, num_frames):
        raise BadMask(
            f"the {what} has a wrong number of frames",
            got=len(mask),
            expected=f"1 or {num_frames}, the shot's",
            hint="a still mask, or another --frames",
        )
    return mask


def read_video(source: Any, num_frames: int) -> np.ndarray:
    """A video to keep parts of, as uint8 [T, H, W, 3]. Raises BadVideo."""
    video = np.asarray(source)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3:
        raise BadVideo("not an RGB video", got=f"{video.dtype} {list(video.shape)}", expected="uint8 [T, H, W, 3]")
    if len(video) != num_frames:
        raise BadVideo(
            "the video is not as long as the shot",
            got=f"{len(video)} frames",
            expected=f"{num_frames}",
            hint="another --frames, or cut the video",
        )
    return video


def check_same_aspect(mask: np.ndarray, picture_size_px: tuple[int, int], what: str, whose: str) -> None:
    """Raises BadMask unless the mask, scaled to the picture's width or height, is within one of its pixels of it."""
    width, height = picture_size_px
    mask_height, mask_width = mask.shape[-2:]
    if abs(mask_width * height / width - mask_height) < 1 or abs(mask_height * width / height - mask_width) < 1:
        return
    raise BadMask(
        f"the {what} has another aspect than {whose}",
        got=f"{mask_width}x{mask_height}",
        expected=f"the aspect of {width}x{height}",
        hint=f"draw the mask on {whose} itself",
    )


def fitted(frames_THWC: np.ndarray, size_px: tuple[int, int], fit: str) -> np.ndarray:
    """Frames (uint8 or float32) at `size_px`: scaled and centre-cropped, or scaled and letterboxed with zeros."""
    width, height = size_px
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    if fit not in FITS:
        raise BadRequest("unknown fit", got=fit, expected=" or ".join(FITS))
    channels = [[_fit_one(frame[..., c], size_px, fit) for c in range(frame.shape[-1])] for frame in frames_THWC]
    return np.moveaxis(np.asarray(channels), 1, -1)


def _fit_one(plane_HW: np.ndarray, size_px: tuple[int, int], fit: str) -> np.ndarray:
    image, (width, height) = Image.fromarray(plane_HW), size_px
    across, down = width / image.width, height / image.height
    if fit == "cover":
        scale = max(across, down)
        spare_x, spare_y = image.width - width / scale, image.height - height / scale
        box = (spare_x / 2, spare_y / 2, image.width - spare_x / 2, image.height - spare_y / 2)
        return np.asarray(image.resize(size_px, Image.Resampling.BICUBIC, box=box))
    scale = min(across, down)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas = np.zeros((height, width), plane_HW.dtype)
    canvas[top : top + inner[1], left : left + inner[0]] = np.asarray(image.resize(inner, Image.Resampling.BICUBIC))
    return canvas


def to_float_TCHW(frames_THWC: np.ndarray) -> Tensor:
    """uint8 frames to float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode in ("I;16", "I;16L", "I;16B"):
        return np.asarray(image).astype(np.float32) / 65535
    return np.asarray(image.convert("L"))


def _unit_range(mask: np.ndarray, what: str) -> np.ndarray:
    if mask.dtype == np.uint8:
        return mask.astype(np.float32) / 255
    if mask.dtype != bool and not np.issubdtype(mask.dtype, np.floating):
        raise BadMask(f"the {what} has a wrong type", got=mask.dtype, expected="bool, uint8 or float in [0, 1]")
    mask = mask.astype(np.float32)
    if mask.size and not (mask.min() >= 0 and mask.max() <= 1):
        raise BadMask(f"the {what} is out of range", got=f"{mask.min()} to {mask.max()}", expected="0 to 1")
    return mask
