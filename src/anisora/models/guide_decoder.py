"""Guide-aware decoding: what the codec blurred is taken from the guides, moved to where the decoded frame shows it.

A checkpoint may hold this part in `guide_decoder/`; those without it simply decode as they always did. For every frame
the nearest guide before and after is warped by a learned flow towards the decoded frame; a learned weight chooses per
pixel between the two warped guides and the decoded frame plus a small residual. The decoded frame says where things are,
so without a model that puts them there this part shows nothing new.

The flow comes from matching, coarse to fine, in two ways. Features of the decoded frame are compared with those of the
decoded guides around every place (a local cost volume, as in PWC-Net, Sun et al. 2018); where the decoded frame is too
blurred to be found again, the two guides are compared with each other along every straight path through the place
(a bilateral cost volume, as in BMBC, Park et al. 2020). What is learnt is how much of either to believe. Blending two
warped ends follows RIFE (Huang et al. 2022). A frame that is given whole comes out as it was given.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

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


def local_cost(a_BCHW: Tensor, b_BCHW: Tensor, radius: int) -> Tensor:
    """How like `a` at each place is `b` there and up to `radius` cells around, zero beyond the edge: the product of
    features, [B, (2 radius + 1)**2, H, W], row by row of the neighbourhood."""
    b, _, h, w = a_BCHW.shape
    across = 2 * radius + 1
    padded_BCHW = functional.pad(b_BCHW, (radius,) * 4)
    a_BHWC = a_BCHW.permute(0, 2, 3, 1).contiguous()
    at = torch.arange(w, device=a_BCHW.device)[:, None] + torch.arange(across, device=a_BCHW.device)
    at_BHWK = at.expand(b, h, w, across)
    # Whole rows against whole rows, then the diagonals: more products than needed, but matrix products, and a tenth of
    # the memory traffic of gathering every neighbourhood first.
    rows = [
        (a_BHWC @ padded_BCHW[:, :, down : down + h].permute(0, 2, 1, 3)).gather(3, at_BHWK) for down in range(across)
    ]
    return torch.cat(rows, dim=3).permute(0, 3, 1, 2)


def path_cost(before_BCHW: Tensor, after_BCHW: Tensor, share_B: Tensor, radius: int) -> Tensor:
    """How like `before` and `after` are at the two ends of every straight path of up to `radius` cells that passes each
    place when `share` of it is done: [B, (2 radius + 1)**2, H, W], ordered as in `local_cost`; zero beyond the edge."""
    b, _, h, w = before_BCHW.shape
    across = 2 * radius + 1
    reach = torch.arange(-radius, radius + 1, device=before_BCHW.device, dtype=before_BCHW.dtype)

    def ends(image_BCHW: Tensor, part_B: Tensor) -> Tensor:
        """[B, C, K H, K W]: the features at each place moved by `part` of each offset down and each across."""
        down, right = (_moved_along(side, part_B[:, None] * reach) for side in (h, w))
        return down[:, None] @ (image_BCHW @ right[:, None].transpose(2, 3))

    products = (ends(before_BCHW, -share_B) * ends(after_BCHW, 1 - share_B)).sum(dim=1)
    return products.view(b, across, h, across, w).transpose(2, 3).reshape(b, across**2, h, w)


def _moved_along(side: int, offset_BK: Tensor) -> Tensor:
    """Matrices that look a row up at each place plus an offset, linearly, zero beyond the edge: [B, K * side, side]."""
    place = torch.arange(side, device=offset_BK.device, dtype=offset_BK.dtype)
    away = place[:, None] + offset_BK[:, :, None, None] - place
    return (1 - away.abs()).clamp_min(0).flatten(1, 2)


def expected_offset(logits_BKYX: Tensor, radius: int) -> Tensor:
    """The mean offset (x, y) in cells, [B, 2, Y, X], under the softmax of logits over a neighbourhood, ordered as in
    `local_cost`."""
    reach = torch.arange(-radius, radius + 1, device=logits_BKYX.device, dtype=logits_BKYX.dtype)
    offsets_K2 = torch.stack([reach.repeat(len(reach)), reach.repeat_interleave(len(reach))], dim=1)
    return torch.einsum("bkyx,kc->bcyx", torch.softmax(logits_BKYX, dim=1), offsets_K2)


def path_share(distance_B2: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the way from the guide before to the one after is done [B], and 1 where there are two guides, else 0."""
    way = distance_B2[:, 1] - distance_B2[:, 0]
    is_pair = (way > 1e-6).to(distance_B2.dtype)
    return -distance_B2[:, 0] * is_pair / way.clamp_min(1e-6), is_pair


def along_path(path_B2YX: Tensor, share_B: Tensor) -> Tensor:
    """The offsets to both ends [B, 4, Y, X] of a straight path of which `share` is done."""
    share = share_B.view(-1, 1, 1, 1)
    return torch.cat([-share * path_B2YX, (1 - share) * path_B2YX], dim=1)


def _conv(dim_in: int, dim_out: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dim_in, dim_out, 3, stride, 1), nn.LeakyReLU(0.1))


def _convs(*dims: int) -> nn.Module:
    return nn.Sequential(*[_conv(a, b) for a, b in itertools.pairwise(dims)])


def _zero_out(dim_in: int, dim_out: int) -> nn.Conv2d:
    """A last convolution that starts as nothing, so that training starts from no flow and no correction."""
    conv = nn.Conv2d(dim_in, dim_out, 3, padding=1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def _larger(flow_B4HW: Tensor) -> Tensor:
    """Two flows on a grid of twice the size; they count in pixels of the full frame, so values stay."""
    return functional.interpolate(flow_B4HW, scale_factor=2, mode="bilinear", align_corners=False)


class Matched(NamedTuple):
    """Where things are in the guides."""

    flows_B4YX: tuple[Tensor, Tensor, Tensor]
    """Flow to before and after (x, y each, in px of the full frame): by straight paths between the guides alone (where there
    are two), then as known at a quarter and at half of the size."""
    logits_BKYX: tuple[Tensor, ...]
    """Logits over offsets: to before, to after and of the path between the two, 9 x 9 of up to 4 cells of 8 px; then to
    before and after, 5 x 5 of up to 2 cells of 4 px, from where the coarse flow leads."""
    on_BCYX: Tensor
    """What else was seen, at half of the size."""


class Parts(NamedTuple):
    """What frames are put together from."""

    moved_B12HW: Tensor
    """The guides, warped: true before, true after, decoded before, decoded after."""
    weight_B3HW: Tensor
    """How much of before, after and the decoded frame; sums to 1."""
    residual_B3HW: Tensor
    flow_B4HW: Tensor
    """Flow to before and after (x, y each, in px)."""
    matched: Matched

    def warped(self) -> Tensor:
        """The warped guides alone, [B, 3, H, W], by each other's share of the frame."""
        # What is added keeps the quotient finite where a frame is all its own.
        of_guides = self.weight_B3HW[:, :2] + 1e-4
        share = of_guides / of_guides.sum(dim=1, keepdim=True)
        return share[:, :1] * self.moved_B12HW[:, :3] + share[:, 1:] * self.moved_B12HW[:, 3:6]

    def frame(self, decoded_B3HW: Tensor) -> Tensor:
        """The sharpened frame."""
        moved, weight = self.moved_B12HW, self.weight_B3HW
        blended = weight[:, :1] * moved[:, :3] + weight[:, 1:2] * moved[:, 3:6] + weight[:, 2:] * decoded_B3HW
        return (blended + self.residual_B3HW).clamp(-1, 1)


def _planes(distance_B2: Tensor, like: Tensor) -> Tensor:
    return distance_B2[:, :, None, None].expand(-1, -1, *like.shape[2:])


class GuideDecoder(ModelMixin, ConfigMixin):
    """Sharpens a decoded video with its own guides; see the module's text. Frame sides must be multiples of 8 px."""

    @register_to_config
    def __init__(self, dims: tuple[int, int, int] = (96, 64, 40), features: int = 32) -> None:
        super().__init__()
        coarse, middle, fine = dims
        self.to_quarter = nn.Sequential(_conv(3 * 16, features), _conv(features, features))
        self.to_eighth = nn.Sequential(_conv(features, 2 * features, 2), _conv(2 * features, 2 * features))
        self.to_path = nn.Conv2d(2 * features, features, 1)
        # How much likeness counts, in eighths: target to guides twice, guide to guide.
        self.trust = nn.Parameter(torch.ones(3))
        # Costs towards both guides and between them, the target's features, the two distances.
        self.coarse = _convs(3 * 81 + 2 * features + 2, coarse + 32, coarse, coarse)
        self.coarse_logits = _zero_out(coarse, 3 * 81)
        self.coarse_belief = _zero_out(coarse, 2)
        self.coarse_on = nn.Conv2d(coarse, middle, 1)
        # Costs towards both guides and between them, where they now lie; as above, and the flow so far.
        self.middle = _convs(3 * 25 + features + 2 + 4 + middle // 4, middle, middle, middle)
        self.middle_logits = _zero_out(middle, 2 * 25)
        self.middle_on = nn.Conv2d(middle, fine * 2, 1)
        # Target, both guides as given and as decoded (5 x 3 channels), 2 x 2 pixels each; flow; distances.
        self.fine = _convs(15 * 4 + 4 + 2 + fine // 2, fine, fine, fine)
        self.fine_flow = _zero_out(fine, 4)
        # Per pixel: three blend logits and a residual in three colours. It starts from the guides, nearly alone.
        self.out = _zero_out(fine, 6 * 4)
        nn.init.constant_(self.out.bias[2 * 4 : 3 * 4], -4.0)  # type: ignore[index]  # it has a bias

    def forward(self, decoded_B3HW: Tensor, guides_B12HW: Tensor, distance_B2: Tensor) -> Tensor:
        """One sharpened frame per row. `guides`: true before, true after, decoded before, decoded after (3 channels each);
        `distance`: frames from the target to each guide, in tenths of a frame."""
        return self.parts(decoded_B3HW, guides_B12HW, distance_B2).frame(decoded_B3HW)

    def parts(self, decoded_B3HW: Tensor, guides_B12HW: Tensor, distance_B2: Tensor) -> Parts:
        """As `forward`, before the pieces are put together."""
        matched = self.matched(decoded_B3HW, guides_B12HW[:, 6:], distance_B2)
        flow = matched.flows_B4YX[-1]
        moved = self._moved(guides_B12HW, _larger(flow))
        seen = functional.pixel_unshuffle(torch.cat([decoded_B3HW, moved], dim=1), 2)
        hidden = self.fine(torch.cat([seen, flow / 8, _planes(distance_B2, seen), matched.on_BCYX], dim=1))
        flow = _larger(flow + self.fine_flow(hidden) * 2)
        out = functional.pixel_shuffle(self.out(hidden), 2)
        return Parts(self._moved(guides_B12HW, flow), torch.softmax(out[:, :3], dim=1), out[:, 3:], flow, matched)

    def matched(self, decoded_B3HW: Tensor, guides_B6HW: Tensor, distance_B2: Tensor) -> Matched:
        """Where the decoded frame's parts are in the decoded guides, down to a quarter of the size."""
        quarter, eighth = self._features(decoded_B3HW)
        before, after = self._features(guides_B6HW[:, :3]), self._features(guides_B6HW[:, 3:])
        share_B, is_pair_B = path_share(distance_B2)
        costs = [local_cost(eighth, guide[1], 4) for guide in (before, after)]
        # Unit features of their own: what tells two sharp guides apart need not be what survives in a blurred frame.
        ends = [functional.normalize(self.to_path(guide[1]), dim=1) for guide in (before, after)]
        path = path_cost(ends[0], ends[1], share_B, 4) * is_pair_B.view(-1, 1, 1, 1)
        hidden = self.coarse(torch.cat([*costs, path, eighth, _planes(distance_B2, eighth)], dim=1))
        logits = self.coarse_logits(hidden)
        matches = self._believed(costs, logits[:, : 2 * 81], 0)
        matches.append(path * (8 * self.trust[2]) + logits[:, 2 * 81 :])
        direct = 8 * torch.cat([expected_offset(match, 4) for match in matches[:2]], dim=1)
        along = 8 * along_path(expected_offset(matches[2], 4), share_B)
        along = torch.where(is_pair_B.view(-1, 1, 1, 1) > 0, along, direct)
        belief = torch.sigmoid(self.coarse_belief(hidden)).repeat_interleave(2, dim=1)
        flow = coarse = _larger(torch.lerp(direct, along, belief))
        on = functional.pixel_shuffle(self.coarse_on(hidden), 2)
        moved_features = warp(before[0], flow[:, :2] / 4), warp(after[0], flow[:, 2:] / 4)
        costs = [local_cost(quarter, guide, 2) for guide in moved_features]
        between = local_cost(*moved_features, 2)
        hidden = self.middle(torch.cat([*costs, between, quarter, _planes(distance_B2, quarter), flow / 8, on], dim=1))
        nearer = self._believed(costs, self.middle_logits(hidden), 1)
        flow = _larger(flow + 4 * torch.cat([expected_offset(match, 2) for match in nearer], dim=1))
        on = functional.pixel_shuffle(self.middle_on(hidden), 2)
        return Matched((_larger(along), coarse, flow), (*matches, *nearer), on)

    def _believed(self, costs: list[Tensor], logits: Tensor, level: int) -> list[Tensor]:
        """Logits over the neighbourhood for both guides: where the features are alike, corrected by what was learnt."""
        return [cost * (8 * self.trust[level]) + more for cost, more in zip(costs, logits.chunk(2, dim=1), strict=True)]

    def _features(self, frame_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.to_quarter(functional.pixel_unshuffle(frame_B3HW, 4))
        eighth = self.to_eighth(quarter)
        return functional.normalize(quarter, dim=1), functional.normalize(eighth, dim=1)

    @staticmethod
    def _moved(guides_B12HW: Tensor, flow_B4HW: Tensor) -> Tensor:
        before = warp(guides_B12HW.unflatten(1, (2, 6))[:, :, :3].flatten(1, 2), flow_B4HW[:, :2])
        after = warp(guides_B12HW.unflatten(1, (2, 6))[:, :, 3:].flatten(1, 2), flow_B4HW[:, 2:])
        return torch.cat([before[:, :3], after[:, :3], before[:, 3:], after[:, 3:]], dim=1)

    def refine(self, video_BCTHW: Tensor, reference_BCTHW: Tensor, keep_BTHW: Tensor) -> Tensor:
        """The decoded video with detail from its guides, [B, 3, T, H, W] in [-1, 1].

        `reference` holds the given pixels, `keep` is 1 where they are given; only frames given whole serve as guides, and
        come back as they were given. Without such a frame the video comes back as it is.
        """
        rows = []
        for video_CTHW, reference_CTHW, keep_THW in zip(video_BCTHW, reference_BCTHW, keep_BTHW, strict=True):
            pairs = neighbours((keep_THW.flatten(1).amin(1) > 0.5).tolist())
            rows.append(self._refine_one(video_CTHW, reference_CTHW, pairs) if pairs else video_CTHW)
        return torch.stack(rows)

    def _refine_one(self, video_CTHW: Tensor, reference_CTHW: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
        between = [t for t, pair in enumerate(pairs) if t not in pair]
        refined_CTHW = reference_CTHW.clone()
        frames, guides, distance = training_rows(video_CTHW, reference_CTHW, pairs, between)
        # A few frames at a time: memory stays flat however long the shot is.
        for at in range(0, len(between), 8):
            some = slice(at, at + 8)
            refined_CTHW[:, between[some]] = self(frames[some], guides[some], distance[some]).transpose(0, 1)
        return refined_CTHW


def training_rows(
    video_CTHW: Tensor, reference_CTHW: Tensor, pairs: list[tuple[int, int]], frames: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """What `GuideDecoder.forward` takes for some frames of one video: decoded [N,3,H,W], guides [N,12,H,W], distance [N,2]."""
    video_TCHW, reference_TCHW = video_CTHW.transpose(0, 1), reference_CTHW.transpose(0, 1)
    before, after = [pairs[t][0] for t in frames], [pairs[t][1] for t in frames]
    guides = torch.cat([reference_TCHW[before], reference_TCHW[after], video_TCHW[before], video_TCHW[after]], dim=1)
    steps = [[(pairs[t][0] - t) / 10, (pairs[t][1] - t) / 10] for t in frames]
    return video_TCHW[frames], guides, video_CTHW.new_tensor(steps)
