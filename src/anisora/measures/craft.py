"""CRAFT (Baek et al. 2019), the text detector with which the paper measures text cover: where letters are, unread.

Two ways to the same network: `bundled`, an ONNX file that a pip package carries (MIT), and `full`, the authors' .pth by
path, opened with the architecture below. Letters and the gaps between them come out as two maps at half size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anisora.assets import locate
from anisora.errors import BadCheckpoint
from anisora.files import existing_file

if TYPE_CHECKING:
    import torch

#: As in the authors' demo: a letter's least peak, and where letters and links begin.
LETTER_PEAK, LETTER, LINK = 0.7, 0.4, 0.4
#: ImageNet's mean and spread, in grey levels.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_SPREAD = np.array([0.229, 0.224, 0.225], np.float32) * 255

Maps = NDArray[np.float32]  # [2, h/2, w/2]: letters, links
Network = Callable[[NDArray[np.float32]], Maps]


def find_letters(
    picture_HWC: NDArray[np.uint8], *, max_side_px: int = 640, weights: str | Path | None = None
) -> list[NDArray[np.float32]]:
    """The rectangles around words and lines: corners float [4, 2] in pixels each.

    Pictures are brought to `max_side_px`; the paper's code takes 1280, at eleven times the time of 640. `weights` is a
    .pth of the authors, by default the bundled ONNX file. Raises AssetMissing, BadCheckpoint.
    """
    import cv2

    height, width = picture_HWC.shape[:2]
    ratio = max_side_px / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    shrunk = cv2.resize(picture_HWC, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    padded = np.zeros((-(-size[1] // 32) * 32, -(-size[0] // 32) * 32, 3), np.float32)
    padded[: size[1], : size[0]] = (shrunk - _MEAN) / _SPREAD
    letters_HW, links_HW = _network(str(weights) if weights else None)(padded.transpose(2, 0, 1)[None])
    scale = np.array([2 * width / size[0], 2 * height / size[1]], np.float32)
    found = [corners * scale for corners in _words(letters_HW, links_HW)]
    return [corners for corners in found if corners[:, 0].min() < width and corners[:, 1].min() < height]


def _words(letters_HW: NDArray[np.float32], links_HW: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The authors' grouping: areas of letters and links that hold one sure letter, without the links, grown a little."""
    import cv2

    letters, links = letters_HW > LETTER, links_HW > LINK
    count, labels, stats, _ = cv2.connectedComponentsWithStats((letters | links).astype(np.uint8), connectivity=4)
    words = []
    for k in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[k])
        part = (slice(y, y + h), slice(x, x + w))
        own = labels[part] == k
        if area < 10 or letters_HW[part][own].max() < LETTER_PEAK:
            continue
        core = (own & ~(links[part] & ~letters[part])).astype(np.uint8)
        grow = int(np.sqrt(area * min(w, h) / (w * h)) * 2)
        grown = cv2.dilate(np.pad(core, grow), np.ones((1 + grow, 1 + grow), np.uint8))
        points = (np.argwhere(grown)[:, ::-1] + (x - grow, y - grow)).astype(np.float32)
        words.append(cv2.boxPoints(cv2.minAreaRect(points)).astype(np.float32))
    return words


@functools.cache
def _network(weights: str | None) -> Network:
    """The network as a function of float32 [1, 3, H, W]; both sides are multiples of 32."""
    if weights is None:
        from anisora.measures.onnx import session

        opened = session(locate("craft"))
        return lambda picture_BCHW: opened.run(["y"], {"image": picture_BCHW})[0][0]
    network = load_craft(weights)

    def run(picture_BCHW: NDArray[np.float32]) -> Maps:
        import torch

        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(np.ascontiguousarray(picture_BCHW)))[0])

    return run


def load_craft(path: str | Path) -> torch.nn.Module:
    """The network with the authors' weights (craft_mlt_25k.pth and its kin). Raises BadInput, BadCheckpoint."""
    import torch

    file = existing_file(path, BadCheckpoint, "the CRAFT weights")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as reason:
        raise BadCheckpoint("not a file of weights", got=file, expected="craft_mlt_25k.pth") from reason
    network = build_craft()
    named = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        network.load_state_dict(named)
    except RuntimeError as reason:
        raise BadCheckpoint("the weights are not those of CRAFT", got=file, expected="craft_mlt_25k.pth") from reason
    return network.eval()


def build_craft() -> torch.nn.Module:
    """The network with random weights: VGG16 with batch norm, and a U-shaped way back up to half size.

    Names and numbers of the layers are those of the authors' file. In: [B, 3, H, W]; out: [B, 2, H/2, W/2].
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    def slices() -> Any:
        """VGG16's 39 layers, cut where the way up branches off, and CRAFT's own dilated end."""
        parts: Any = nn.Module()
        cuts = {12: "slice2", 19: "slice3", 29: "slice4"}
        part, channels, layer = nn.Sequential(), 3, 0
        parts.add_module("slice1", part)
        for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512):
            kinds = (
                [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                if width
                else [nn.MaxPool2d(2)]
            )
            for kind in kinds:
                if layer in cuts:
                    part = nn.Sequential()
                    parts.add_module(cuts[layer], part)
                if layer < 39:
                    part.add_module(str(layer), kind)
                layer += 1
            channels = width or channels
        end = [nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)]
        parts.add_module("slice5", nn.Sequential(*end))
        return parts

    def up(channels: int, middle: int, out: int) -> Any:
        block: Any = nn.Module()
        block.conv = nn.Sequential(
            nn.Conv2d(channels + middle, middle, 1), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(),
        )  # fmt: skip
        return block

    class Craft(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.basenet: Any = slices()
            self.upconv1: Any = up(1024, 512, 256)
            self.upconv2: Any = up(512, 256, 128)
            self.upconv3: Any = up(256, 128, 64)
            self.upconv4: Any = up(128, 64, 32)
            self.conv_cls = nn.Sequential(
                nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
                nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1),
            )  # fmt: skip

        def forward(self, picture_BCHW: torch.Tensor) -> torch.Tensor:
            # The authors' code keeps what each slice ends in, and the next slice's first layer, a ReLU that works in
            # place, then changes it: so the first three are kept behind their ReLU. The fourth is followed by pooling.
            features: list[Any] = []
            y = picture_BCHW
            for name in ("slice1", "slice2", "slice3"):
                y = F.relu(getattr(self.basenet, name)(y))
                features.append(y)
            features.append(self.basenet.slice4(y))
            y = self.basenet.slice5(features[3])
            skips = features[::-1]
            for step, skip in zip((self.upconv1, self.upconv2, self.upconv3, self.upconv4), skips, strict=True):
                y = F.interpolate(y, size=skip.shape[2:], mode="bilinear", align_corners=False)
                y = step.conv(torch.cat([y, skip], dim=1))
            return self.conv_cls(y)

    return Craft().eval()
