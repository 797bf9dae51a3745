"""LPIPS with the shift-tolerant AlexNet (Ghildyal & Liu 2022), whose weights come inside a pip package: a loss to train on.

A frame that is sharp but a pixel off is nearer to the truth than a blurred one; this distance says so, and says so
smoothly enough for gradients. `measures.perceptual` is another network on purpose: what is trained on one is measured by
the other. Values are those of the variant "shift_tolerant" of stlpips-pytorch and compare with no other LPIPS.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from anisora import assets

ASSET = "stlpips-alex"

#: Channels of the five feature maps.
CHANNELS = (64, 192, 384, 256, 256)


class BlurPool(nn.Module):
    """Every second place of the maps after a small blur, so that a shift by one pixel changes little (Zhang 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", (row[:, None] * row).expand(channels, 1, 3, 3).clone())

    def forward(self, maps: Tensor) -> Tensor:
        padded = functional.pad(maps, (2, 2, 2, 2), mode="reflect")
        return functional.conv2d(padded, self.get_buffer("filt"), stride=2, groups=maps.shape[1])


class ShiftTolerantLPIPS(nn.Module):
    """Two batches of pictures [B, 3, H, W] in [-1, 1], sides >= 32 px -> distances [B]; names are those of the file."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleDict(
            {
                "slice1": _numbered(0, nn.Conv2d(3, 64, 11, padding=2), BlurPool(64), nn.ReLU()),
                "slice2": _numbered(3, nn.MaxPool2d(3, 1), BlurPool(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
                "slice3": _numbered(7, nn.MaxPool2d(3, 1), BlurPool(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
                "slice4": _numbered(11, nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
                "slice5": _numbered(13, nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
            }
        )
        self.scaling_layer = _Scaling()
        for index, channels in enumerate(CHANNELS):
            weigh = nn.Sequential(nn.Dropout(0.0), nn.Conv2d(channels, 1, 1, bias=False))
            self.add_module(f"lin{index}", nn.ModuleDict({"model": weigh}))

    def forward(self, a_B3HW: Tensor, b_B3HW: Tensor) -> Tensor:
        total = a_B3HW.new_zeros(len(a_B3HW))
        for index, (a, b) in enumerate(zip(self.features(a_B3HW), self.features(b_B3HW), strict=True)):
            weigh = self.get_submodule(f"lin{index}.model")
            total = total + weigh((_unit(a) - _unit(b)).square()).mean(dim=(1, 2, 3))
        return total

    def features(self, pictures_B3HW: Tensor) -> list[Tensor]:
        """The five feature maps."""
        maps, taps = self.scaling_layer(pictures_B3HW), []
        for name in self.net:
            maps = self.net[name](maps)
            taps.append(maps)
        return taps


class _Scaling(nn.Module):
    """Colours as the network was trained with them; the numbers come with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    def forward(self, pictures_B3HW: Tensor) -> Tensor:
        return (pictures_B3HW - self.get_buffer("shift")) / self.get_buffer("scale")


def _numbered(first: int, *layers: nn.Module) -> nn.Sequential:
    """Layers named by their place in the whole network, as in the file."""
    result = nn.Sequential()
    for number, layer in enumerate(layers, start=first):
        result.add_module(str(number), layer)
    return result


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()


@cache
def network() -> ShiftTolerantLPIPS:
    """The distance with its trained weights, loaded once per process. Raises AssetMissing."""
    net = ShiftTolerantLPIPS()
    net.load_state_dict(torch.load(assets.locate(ASSET), map_location="cpu", weights_only=True))
    return net.eval().requires_grad_(False)
