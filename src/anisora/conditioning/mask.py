"""From pixels given to the masks that a network reads, and back: pooling, packing, unshuffling, feathering.

`keep` is 1 where a pixel is given and 0 where it is to be generated; every family's mask is made of it here.

    T pixel frames, H W pixels, F latent frames, Y X latents, M mask channels (= temporal stride)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from anisora import geometry

#: from this value on, a pixel of the motion area belongs to it
AREA_THRESHOLD = 0.5


def area_of(motion_T1HW: Tensor) -> Tensor:
    """Where a motion area says "may move": bool, motion >= 1/2."""
    return motion_T1HW >= AREA_THRESHOLD


def pool_T1YX(keep_T1HW: Tensor, stride: int, snap: str = "exact") -> Tensor:
    """`keep` at latent resolution [T, 1, Y, X]: a cell is given as its least given pixel is, so half a cell is none.

    `snap="anisora"` takes the nearest pixel instead, as the public any-mask code does for its spatial masks.
    """
    if snap == "anisora":
        size = (keep_T1HW.shape[-2] // stride, keep_T1HW.shape[-1] // stride)
        return F.interpolate(keep_T1HW, size=size, mode="nearest")
    return -F.max_pool2d(-keep_T1HW, stride)


def pack_MFYX(keep_T1YX: Tensor, stride: int = 4) -> Tensor:
    """[T, 1, Y, X] -> [M, F, Y, X] as Wan reads it: frame 0 fills all M channels of latent frame 0, and
    frame p >= 1 sits at latent frame (p - 1) // M + 1, channel (p - 1) % M (`geometry.slot`, `geometry.channel`).
    """
    num_latent_frames = geometry.latent_frames(keep_T1YX.shape[0], stride)
    first_MYX, rest_TYX = keep_T1YX[:1, 0].expand(stride, -1, -1), keep_T1YX[1:, 0]
    folded_FMYX = torch.cat([first_MYX, rest_TYX]).unflatten(0, (num_latent_frames, stride))
    return folded_FMYX.transpose(0, 1).contiguous()


def unpack_T1YX(mask_MFYX: Tensor) -> Tensor:
    """The inverse of `pack_MFYX`."""
    stride = mask_MFYX.shape[0]
    return mask_MFYX.transpose(0, 1).flatten(0, 1)[stride - 1 :].unsqueeze(1)


def unshuffle_MTYX(mask_T1HW: Tensor, stride: int = 8) -> Tensor:
    """[T, 1, H, W] -> [stride * stride, T, Y, X]: each latent cell's pixels as channels, nothing lost.

    VACE's spatial folding (WanVACEPipeline.prepare_masks), row within the cell first.
    """
    return F.pixel_unshuffle(mask_T1HW, stride).transpose(0, 1)


def resize_time_MFYX(mask_MTYX: Tensor, stride: int = 4) -> Tensor:
    """VACE's nearest resize of T pixel frames to F latent frames, kept as its checkpoints know it."""
    size = (geometry.latent_frames(mask_MTYX.shape[1], stride), *mask_MTYX.shape[-2:])
    return F.interpolate(mask_MTYX.unsqueeze(0), size=size, mode="nearest-exact").squeeze(0)


def static_cells_FYX(motion_T1HW: Tensor, temporal: int, spatial: int) -> Tensor:
    """Which latent cells lie wholly outside the motion area, over all their pixels and frames: bool [F, Y, X]."""
    static_T1YX = pool_T1YX((~area_of(motion_T1HW)).float(), spatial)
    return pack_MFYX(static_T1YX, temporal).amin(0) > 0


def feather_T1HW(motion_T1HW: Tensor, feather_px: int) -> Tensor:
    """How much of the generated picture shows: 0 outside the area, rising to the motion value over `feather_px` inside.

    The ramp lies inside the area only, so that nothing outside it can change; the first pixel inside has
    1 / (feather_px + 1) of its value.
    """
    if _is_constant_in_time(motion_T1HW):
        return _feather_1HW(motion_T1HW[0], feather_px).expand_as(motion_T1HW)
    return torch.stack([_feather_1HW(motion_1HW, feather_px) for motion_1HW in motion_T1HW])


def _feather_1HW(motion_1HW: Tensor, feather_px: int) -> Tensor:
    import cv2
    import numpy as np

    area_HW = area_of(motion_1HW)[0].cpu().numpy().astype(np.uint8)
    if area_HW.all():  # no edge, so no ramp; the transform needs at least one pixel outside
        return motion_1HW
    depth_HW = cv2.distanceTransform(area_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return (torch.from_numpy(depth_HW).to(motion_1HW) / (feather_px + 1)).clamp(max=1) * motion_1HW


def _is_constant_in_time(x_TCHW: Tensor) -> bool:
    return x_TCHW.stride(0) == 0 or bool((x_TCHW == x_TCHW[:1]).all())
