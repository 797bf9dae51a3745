"""RGB to YUV and back, once for reading and writing, so that what is written is what is read.

Flags measured on 400 random colours, 4:2:0, against the exact matrix: with these both directions are correctly rounded
(0.51 levels at most, no bias); FFmpeg's faster default paths err by up to 2.7 levels and come back 1.3 levels darker.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# AVColorSpace, AVColorRange, AVColorPrimaries and AVColorTransferCharacteristic numbers (ITU-T H.273)
RGB, BT709, UNSPECIFIED, SMPTE170M = 0, 1, 2, 6
LIMITED, FULL = 1, 2


def _flags() -> Any:
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def from_rgb(reformatter: Any, rgb_HWC: np.ndarray, pixel_format: str) -> Any:
    """A PyAV frame in `pixel_format` of uint8 RGB [H, W, 3]: BT.709 and limited range for YUV, as it is for RGB."""
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HWC), "rgb24")
    is_yuv = pixel_format.startswith("yuv")
    frame.colorspace, frame.color_range = RGB, FULL
    converted = reformatter.reformat(
        frame,
        format=pixel_format,
        interpolation=_flags(),
        dst_colorspace=BT709 if is_yuv else None,
        dst_color_range=LIMITED if is_yuv else FULL,
        threads=1,
    )
    converted.color_primaries = converted.color_trc = BT709
    return converted


def to_rgb(reformatter: Any, frame: Any, *, with_alpha: bool = False) -> np.ndarray:
    """uint8 RGB [H, W, 3], or RGBA [H, W, 4], of a PyAV frame by its own matrix and range.

    Where the file names no matrix, players take BT.709 for high definition and BT.601 below; so do we.
    """
    is_yuv = not frame.format.is_rgb and frame.format.name != "pal8"
    if frame.colorspace == UNSPECIFIED and is_yuv:
        frame.colorspace = BT709 if frame.width >= 1280 or frame.height >= 720 else SMPTE170M
    # Planar RGB is the same to the bit and three times faster to convert to.
    target = "rgba" if with_alpha else "gbrp" if is_yuv else "rgb24"
    converted = reformatter.reformat(frame, format=target, interpolation=_flags(), dst_color_range=FULL, threads=1)
    return converted.to_ndarray()
