"""How near one video is to another in the eyes of a network: a distance of deep features.

Pixel errors prefer a blurred mean to a sharp frame that is off by one pixel; distances of deep features agree better
with people (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"). The usual
networks are not to be had inside a pip package; EfficientNet-Lite0 is, under Apache-2.0. Its distance here is that
paper's with all channel weights 1, so it is *not* LPIPS, and its values compare only with one another.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from anisora import assets

if TYPE_CHECKING:
    from anisora.measures.similarity import Frames

ASSET = "efficientnet-lite0"

#: (blocks, kernel, stride, expansion, channels in, channels out) of each stage; Tan & Le 2019, table 1, without
#: squeeze-and-excitation and with ReLU6: the "lite" form.
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)

#: The last stage at each resolution: 1/2, 1/4, 1/8, 1/16, 1/32 of the input.
TAPPED_STAGES = (0, 1, 2, 4, 6)

#: Frames are enlarged to this shorter side: at 96 px the deep stages would see 3 x 3 positions.
SHORTER_SIDE_PX = 192


def perceptual_distance(result_THWC: Frames, truth_THWC: Frames) -> NDArray[np.float32]:
    """The distance of each pair of frames, [T], 0 for equal ones: squared differences of unit-length feature vectors,
    averaged over positions and stages, so each value lies in [0, 4].

    Raises AssetMissing when the network's weights are neither installed nor reachable.
    """
    if result_THWC.shape != truth_THWC.shape:
        raise ValueError(f"videos of one shape are compared: got {result_THWC.shape} and {truth_THWC.shape}")
    return feature_distance(features(result_THWC), features(truth_THWC))


def feature_distance(result: list[Tensor], truth: list[Tensor]) -> NDArray[np.float32]:
    """The distance [T] of what `features` made of two videos: saves time where one is compared with many."""
    pairs = zip(result, truth, strict=True)
    stages = [(_unit(a) - _unit(b)).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]
    return torch.stack(stages).mean(dim=0).numpy()


@torch.inference_mode()
def features(frames_THWC: Frames) -> list[Tensor]:
    """Feature maps [T, C, h, w] of the tapped stages, for uint8 frames of any size."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2).float()
    scale = SHORTER_SIDE_PX / min(pixels.shape[-2:])
    pixels = functional.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=scale < 1)
    return network()((pixels - 127) / 128)


def _unit(maps: Tensor) -> Tensor:
    return maps / maps.norm(dim=1, keepdim=True).clamp_min(1e-6)


@cache
def network() -> EfficientNetLite0:
    """The network with its ImageNet weights, loaded once per process. Raises AssetMissing."""
    weights = torch.load(assets.locate(ASSET), map_location="cpu", weights_only=True)
    net = EfficientNetLite0()
    # The classifier's weights are in the file too; everything before it must be there and fit.
    net.load_state_dict({name: w for name, w in weights.items() if not name.startswith("_fc.")})
    return net.eval().requires_grad_(False)


def weights_sha256() -> str:
    """The hash that says which weights a distance was measured with."""
    return assets.ASSETS[ASSET].sha256


class EfficientNetLite0(nn.Module):
    """[B, 3, H, W] in about [-1, 1] -> the feature maps of `TAPPED_STAGES`. Parameter names are those of the file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks = [
            MBConv(kernel, stride if i == 0 else 1, expansion, into if i == 0 else out, out)
            for repeats, kernel, stride, expansion, into, out in STAGES
            for i in range(repeats)
        ]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = functional.relu6(self._bn0(self._conv_stem(pad_same(pixels, 3, 2))))
        ends = np.cumsum([stage[0] for stage in STAGES]) - 1
        taps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in {int(ends[stage]) for stage in TAPPED_STAGES}:
                taps.append(x)
        return taps


class MBConv(nn.Module):
    """An inverted residual: widen, filter each channel, narrow; added to its input where that fits."""

    def __init__(self, kernel: int, stride: int, expansion: int, into: int, out: int) -> None:
        super().__init__()
        wide = into * expansion
        if expansion != 1:
            self._expand_conv = nn.Conv2d(into, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = _norm(out)
        self.expands, self.is_residual = expansion != 1, stride == 1 and into == out
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        wide = functional.relu6(self._bn1(self._depthwise_conv(pad_same(wide, self.kernel, self.stride))))
        narrow = self._bn2(self._project_conv(wide))
        return x + narrow if self.is_residual else narrow


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zero padding as the weights were trained with: what is uneven goes to the right and bottom."""
    height, width = (max(((side - 1) // stride) * stride + kernel - side, 0) for side in x.shape[-2:])
    return functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
