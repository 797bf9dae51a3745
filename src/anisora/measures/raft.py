"""RAFT (Teed and Deng 2020, arXiv 2003.12039), the optical flow of the paper, for those who have its weights.

The large network in plain torch under the names of the published checkpoints (`raft-things.pth` and its kin), which are
in no package and so are given by path. B pairs, C channels, H W pixels, Y X at an eighth of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anisora.errors import BadCheckpoint
from anisora.files import existing_file, sha256_file
from anisora.measures.clip import ClipView
from anisora.records import Score

#: of the correlation volume, and the radius looked up in each
LEVELS, RADIUS = 4, 4

#: refinements of the flow, as the paper's pipeline runs it
ITERATIONS = 20


class _Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int, planes: int, norm: Any, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, padding=1, stride=stride)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.norm1, self.norm2 = norm(planes), norm(planes)
        self.downsample = None
        if stride != 1:
            self.norm3 = norm(planes)  # kept under both names, as in the published files
            self.downsample = nn.Sequential(nn.Conv2d(channels, planes, 1, stride=stride), self.norm3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu((x if self.downsample is None else self.downsample(x)) + y)


class _Encoder(nn.Module):
    """Pictures to features at an eighth of the size."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(64), nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.layer1 = nn.Sequential(_Residual(64, 64, norm, 1), _Residual(64, 64, norm, 1))
        self.layer2 = nn.Sequential(_Residual(64, 96, norm, 2), _Residual(96, 96, norm, 1))
        self.layer3 = nn.Sequential(_Residual(96, 128, norm, 2), _Residual(128, 128, norm, 1))
        self.conv2 = nn.Conv2d(128, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class _MotionEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(64 + 192, 128 - 2, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        seen = F.relu(self.convc2(F.relu(self.convc1(correlation))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat([F.relu(self.conv(torch.cat([seen, moved], dim=1))), flow], dim=1)


class _Gru(nn.Module):
    """A convolutional GRU, first along rows, then along columns."""

    def __init__(self) -> None:
        super().__init__()
        for half, size, padding in ((1, (1, 5), (0, 2)), (2, (5, 1), (2, 0))):
            for gate in "zrq":
                setattr(self, f"conv{gate}{half}", nn.Conv2d(128 + 256, 128, size, padding=padding))

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        for half in (1, 2):
            z, r, q = (getattr(self, f"conv{gate}{half}") for gate in "zrq")
            both = torch.cat([h, x], dim=1)
            update, reset = torch.sigmoid(z(both)), torch.sigmoid(r(both))
            h = (1 - update) * h + update * torch.tanh(q(torch.cat([reset * h, x], dim=1)))
        return h


class _FlowHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(128, 256, 3, padding=1), nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x)))


class _Update(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.gru, self.flow_head = _MotionEncoder(), _Gru(), _FlowHead()
        self.mask = nn.Sequential(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 64 * 9, 1))

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.gru(hidden, torch.cat([context, self.encoder(flow, correlation)], dim=1))
        return hidden, self.flow_head(hidden)


class Raft(nn.Module):
    """Two pictures [B, 3, H, W] in 0..255, sides multiples of 8 -> the flow [B, 2, H, W] in pixels, x before y."""

    def __init__(self) -> None:
        super().__init__()
        self.fnet, self.cnet = _Encoder(nn.InstanceNorm2d), _Encoder(nn.BatchNorm2d)
        self.update_block = _Update()

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor, iterations: int = ITERATIONS) -> Tensor:
        first, second = (2 * picture / 255 - 1 for picture in (first_BCHW, second_BCHW))
        pyramid = correlation_pyramid(self.fnet(first), self.fnet(second))
        hidden, context = self.cnet(first).split(128, dim=1)
        hidden, context = torch.tanh(hidden), F.relu(context)
        start = positions(*hidden.shape[-2:]).to(hidden.device).expand(len(first), -1, -1, -1)
        at = start
        for _ in range(iterations):
            hidden, step = self.update_block(hidden, context, look_up(pyramid, at), at - start)
            at = at + step
        return upsample(at - start, 0.25 * self.update_block.mask(hidden))


def positions(height: int, width: int) -> Tensor:
    """The x and y of every place, [1, 2, Y, X]."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y])[None].float()


def correlation_pyramid(first: Tensor, second: Tensor) -> list[Tensor]:
    """Inner products of all pairs of features, over the root of their length (section 3.2): [B Y X, 1, Y', X']."""
    B, C, Y, X = first.shape
    products = torch.einsum("bcn,bcm->bnm", first.flatten(2), second.flatten(2)) / C**0.5
    level = products.reshape(B * Y * X, 1, Y, X)
    pyramid = [level]
    for _ in range(LEVELS - 1):
        level = F.avg_pool2d(level, 2)
        pyramid.append(level)
    return pyramid


def look_up(pyramid: list[Tensor], at_B2YX: Tensor) -> Tensor:
    """The correlations around a place in the second picture, x before y: [B, levels * 81, Y, X]; 0 outside."""
    B, _, Y, X = at_B2YX.shape
    offset = torch.arange(-RADIUS, RADIUS + 1, device=at_B2YX.device).float()
    window = torch.stack(torch.meshgrid(offset, offset, indexing="ij"), dim=-1)  # the first axis moves x
    centre = at_B2YX.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    found = []
    for number, level in enumerate(pyramid):
        height, width = level.shape[-2:]
        place = centre / 2**number + window
        grid = 2 * place / place.new_tensor([max(width - 1, 1), max(height - 1, 1)]) - 1
        found.append(F.grid_sample(level, grid, align_corners=True).reshape(B, Y, X, -1))
    return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


def upsample(flow_B2YX: Tensor, mask: Tensor) -> Tensor:
    """Eight times the size, each pixel a convex mix of its nine coarse neighbours (section 3.3)."""
    B, _, Y, X = flow_B2YX.shape
    weight = mask.view(B, 1, 9, 8, 8, Y, X).softmax(dim=2)
    near = F.unfold(8 * flow_B2YX, 3, padding=1).view(B, 2, 9, 1, 1, Y, X)
    return (weight * near).sum(dim=2).permute(0, 1, 4, 2, 5, 3).reshape(B, 2, 8 * Y, 8 * X)


def load(path: str | Path) -> Raft:
    """The network with the weights of a file, with or without the `module.` that parallel training leaves.

    Raises BadCheckpoint where tensors are missing or of another shape.
    """
    file = existing_file(path, BadCheckpoint, "RAFT's weights")
    network = Raft()
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    except Exception as reason:  # damaged files end in whatever their bytes make of a pickle
        said = (str(reason).strip() or type(reason).__name__).splitlines()[-1].strip()
        raise BadCheckpoint(
            "not the weights of the large RAFT", got=f"{path} ({said})",
            expected="raft-things.pth or its like",
        ) from reason  # fmt: skip
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def raft_flow(network: Raft, first_HWC: NDArray[np.uint8], second_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The flow [H, W, 2] from one RGB picture to another of the same size; any size, the edges repeated to eights."""
    height, width = first_HWC.shape[:2]
    pad = -width % 8, -height % 8
    around = (pad[0] // 2, pad[0] - pad[0] // 2, pad[1] // 2, pad[1] - pad[1] // 2)
    device = next(network.parameters()).device
    pair = [torch.from_numpy(np.ascontiguousarray(p)).movedim(-1, 0)[None].float() for p in (first_HWC, second_HWC)]
    flow = network(*(F.pad(picture.to(device), around, mode="replicate") for picture in pair))[0].movedim(0, -1).cpu()
    return np.asarray(flow[around[2] : around[2] + height, around[0] : around[0] + width])


def flow_by_raft(clip: ClipView, weights: str | Path, *, pairs: int = 8, height_px: int = 480) -> Score:
    """The flow score as `measures.flow_score.flow` has it, with RAFT on `pairs` of the pairs of distinct drawings.

    The paper's pipeline takes every pair and the largest component of each; the mean of lengths is comparable with the
    embedded score and not decided by one pixel. Null where the scan has no signal `flow`. Raises BadCheckpoint.
    """
    import cv2

    signal = clip.signals.get("flow")
    own = np.zeros(0, int) if signal is None else np.flatnonzero(
        (signal["since"] >= clip.span.start_frame) & (signal["since"] < signal["index"])
    )  # fmt: skip
    made: dict[str, Any] = {"name": "flow", "version": 1, "unit": "% of width / s", "backend": "full"}
    made["weights_sha256"] = sha256_file(existing_file(weights, BadCheckpoint, "RAFT's weights"))
    if signal is None or len(signal["index"]) < 2:
        return Score(**made, raw=None, reason="no_signal" if signal is None else "too_short")
    if not len(own):
        return Score(**made, raw=0.0)
    network = load(weights)
    speeds = []
    for number in own[np.linspace(0, len(own) - 1, min(pairs, len(own))).astype(int)]:
        since, index = int(signal["since"][number]), int(signal["index"][number])
        frames = clip.frames_at([since, index])
        scale = min(1.0, height_px / frames.shape[1])
        size = round(frames.shape[2] * scale), round(frames.shape[1] * scale)
        first, second = (np.asarray(cv2.resize(f, size, interpolation=cv2.INTER_AREA), np.uint8) for f in frames)
        length = np.linalg.norm(raft_flow(network, first, second), axis=-1).mean() / size[0]
        speeds.append(float(length) * float(clip.fps) / (index - since))
    return Score(**made, raw=100 * float(np.mean(speeds)), per_frame=100 * np.array(speeds, np.float32))
