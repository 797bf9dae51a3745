"""Guide-aware decoding: what the codec blurred is taken from the guides, moved to where the decoded frame shows it.

A checkpoint may hold this part in `guide_decoder/`; those without it simply decode as they always did. For every frame
the nearest guide before and after is warped by a learned flow towards the decoded frame; a learned weight chooses per
pixel between the two warped guides and the decoded frame plus a small residual. The decoded frame says where things are,
so without a model that puts them there this part shows nothing new. RIFE (Huang et al., 2022) showed the coarse-to-fine
flow-and-blend form for interpolation; here the target frame is known, only blurred.
"""

from __future__ import annotations

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn
from torch.nn import functional


def warp(image_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """`image` looked up at each pixel plus its flow (x, y in px), bilinear, edges repeated."""
    _, _, h, w = image_BCHW.shape
    y, x = torch.meshgrid(
        torch.arange(h, device=image_BCHW.device, dtype=image_BCHW.dtype),
        torch.arange(w, device=image_BCHW.device, dtype=image_BCHW.dtype),
        indexing="ij",
    )
    grid_x = (x + flow_B2HW[:, 0]) * (2 / max(w - 1, 1)) - 1
    grid_y = (y + flow_B2HW[:, 1]) * (2 / max(h - 1, 1)) - 1
    return functional.grid_sample(
        image_BCHW, torch.stack([grid_x, grid_y], dim=-1), padding_mode="border", align_corners=True
    )


def neighbours(given_T: list[bool]) -> list[tuple[int, int]]:
    """For every frame the nearest given frame at or before it and at or after it; one stands in where the other lacks."""
    frames = [t for t, is_given in enumerate(given_T) if is_given]
    if not frames:
        return []
    pairs = []
    for t in range(len(given_T)):
        before = max((g for g in frames if g <= t), default=frames[0])
        after = min((g for g in frames if g >= t), default=frames[-1])
        pairs.append((before, after))
    return pairs


def _conv(dim_in: int, dim_out: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dim_in, dim_out, 3, stride, 1), nn.LeakyReLU(0.1))


class _Matcher(nn.Module):
    """Flow to both guides, blend logits and a residual, predicted at 1/`scale` size from what is known so far."""

    def __init__(self, channels_in: int, dim: int, scale: int, depth: int) -> None:
        super().__init__()
        self.scale = scale
        self.enter = nn.Sequential(_conv(channels_in * scale**2, dim), _conv(dim, 2 * dim, 2))
        self.body = nn.Sequential(*[_conv(2 * dim, 2 * dim) for _ in range(depth)])
        self.leave = nn.Sequential(nn.Conv2d(2 * dim, 4 * dim, 3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU(0.1))
        self.out = nn.Conv2d(2 * dim, 10, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, known_BCHW: Tensor) -> Tensor:
        small = functional.pixel_unshuffle(known_BCHW, self.scale)
        entered = self.enter[0](small)
        hidden = self.enter[1](entered)
        hidden = self.leave(hidden + self.body(hidden))
        out = self.out(torch.cat([entered, hidden], dim=1))
        out = functional.interpolate(out, scale_factor=self.scale, mode="bilinear", align_corners=False)
        # Flow counts in pixels of the full frame: one unit of the small map is `scale` of them.
        return torch.cat([out[:, :4] * self.scale, out[:, 4:]], dim=1)


class GuideDecoder(ModelMixin, ConfigMixin):
    """Sharpens a decoded video with its own guides; see the module's text."""

    @register_to_config
    def __init__(self, dims: tuple[int, int] = (64, 32), scales: tuple[int, int] = (4, 2), depth: int = 4) -> None:
        super().__init__()
        # decoded target, decoded and true guides (5 x 3 channels) and the two distances in time
        self.coarse = _Matcher(17, dims[0], scales[0], depth)
        # as above, guides already warped, plus the estimate so far (flow 4, logits 3, residual 3)
        self.fine = _Matcher(27, dims[1], scales[1], depth)

    def forward(self, decoded_B3HW: Tensor, guides_B12HW: Tensor, distance_B2: Tensor) -> Tensor:
        """One sharpened frame per row. `guides`: true before, true after, decoded before, decoded after (3 channels each);
        `distance`: frames from the target to each guide, in tenths of a frame."""
        b, _, h, w = decoded_B3HW.shape
        planes = distance_B2[:, :, None, None].expand(b, 2, h, w)
        estimate = self.coarse(torch.cat([decoded_B3HW, guides_B12HW, planes], dim=1))
        estimate = estimate + self.fine(
            torch.cat([decoded_B3HW, self._moved(guides_B12HW, estimate), planes, estimate], dim=1)
        )
        moved = self._moved(guides_B12HW, estimate)
        weight = torch.softmax(estimate[:, 4:7], dim=1)
        blended = weight[:, :1] * moved[:, :3] + weight[:, 1:2] * moved[:, 3:6] + weight[:, 2:] * decoded_B3HW
        return (blended + estimate[:, 7:10]).clamp(-1, 1)

    @staticmethod
    def _moved(guides_B12HW: Tensor, estimate_B10HW: Tensor) -> Tensor:
        before = warp(guides_B12HW.unflatten(1, (2, 6))[:, :, :3].flatten(1, 2), estimate_B10HW[:, :2])
        after = warp(guides_B12HW.unflatten(1, (2, 6))[:, :, 3:].flatten(1, 2), estimate_B10HW[:, 2:4])
        return torch.cat([before[:, :3], after[:, :3], before[:, 3:], after[:, 3:]], dim=1)

    def refine(self, video_BCTHW: Tensor, reference_BCTHW: Tensor, keep_BTHW: Tensor) -> Tensor:
        """The decoded video with detail from its guides, [B, 3, T, H, W] in [-1, 1].

        `reference` holds the given pixels, `keep` is 1 where they are given; only frames given whole serve as guides.
        Without such a frame the video comes back as it is.
        """
        rows = []
        for video_CTHW, reference_CTHW, keep_THW in zip(video_BCTHW, reference_BCTHW, keep_BTHW, strict=True):
            pairs = neighbours((keep_THW.flatten(1).amin(1) > 0.5).tolist())
            rows.append(self._refine_one(video_CTHW, reference_CTHW, pairs) if pairs else video_CTHW)
        return torch.stack(rows)

    def _refine_one(self, video_CTHW: Tensor, reference_CTHW: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
        frames, guides, distance = training_rows(video_CTHW, reference_CTHW, pairs, range(len(pairs)))
        # A few frames at a time: memory stays flat however long the shot is.
        chunks = zip(frames.split(8), guides.split(8), distance.split(8), strict=True)
        return torch.cat([self(*chunk) for chunk in chunks]).transpose(0, 1)


def training_rows(
    video_CTHW: Tensor, reference_CTHW: Tensor, pairs: list[tuple[int, int]], frames: range | list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """What `GuideDecoder.forward` takes for some frames of one video: decoded [N,3,H,W], guides [N,12,H,W], distance [N,2]."""
    video_TCHW, reference_TCHW = video_CTHW.transpose(0, 1), reference_CTHW.transpose(0, 1)
    before, after = [pairs[t][0] for t in frames], [pairs[t][1] for t in frames]
    guides = torch.cat([reference_TCHW[before], reference_TCHW[after], video_TCHW[before], video_TCHW[after]], dim=1)
    steps = [[(pairs[t][0] - t) / 10, (pairs[t][1] - t) / 10] for t in frames]
    return video_TCHW[list(frames)], guides, video_CTHW.new_tensor(steps)
