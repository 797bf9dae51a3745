"""Training the guide decoder: given a blurred frame and clean guides elsewhere in the clip, give back the frame.

What it will see in use is what the denoiser believes: sharp at the guides, smeared where it is unsure. So most of its
training clips are the denoiser's own predictions, made as shots are; the rest are true clips smeared in time by hand. The
corpus knows the exact flow between any two frames, so that is learnt too: how to match a smeared frame to a clean one is
hard to find out from colours alone.

Errors alone would have it show the smear wherever it is unsure of the flow. A guide that went a wrong way is better to look
at than a right mean of all ways, so what is shown besides the guides costs, and movement counts only where guides move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anisora.conditioning.encode import encode
from anisora.conditioning.plan import plan_from_tensors
from anisora.measures import lpips
from anisora.models.codec import Codec
from anisora.models.guide_decoder import GuideDecoder, Matched, Parts, neighbours, path_share, training_rows
from anisora.training.codec import pixels, sharpness_loss
from anisora.training.corpus import Bucket, Flows, cut, draw, jitter_colors, numpy_rng
from anisora.training.loop import Task
from anisora.training.objectives import OBJECTIVES, away_from, draw_t, like, own_path, predictor

Predict = Callable[[Tensor, list[list[int]], list[str], torch.Generator], Tensor]
"""(clips [B, 3, T, H, W], guide frames of each, captions, generator) -> latents [B, C, F, Y, X] as the denoiser sees them."""


@dataclass(frozen=True, kw_only=True)
class SharpenerSettings:
    """The guide decoder's size and what it is shown."""

    dims: tuple[int, int, int] = (96, 64, 40)
    features: int = 32
    batch: int = 4
    rows: int = 8
    """Target frames per clip."""
    predicted_prob: float = 0.7
    """Share of batches whose clips are the denoiser's predictions; 0 needs no denoiser."""
    sampled_prob: float = 0.85
    """Share of those that are made as a shot is, by all the recipe's steps and its guidance."""
    smear_frames: float = 2.0
    """Largest standard deviation, in frames, of the smear in time of the other batches, far from any guide."""
    fade_prob: float = 0.3
    """Share of those that are mixed with a cross-fade of their guides."""
    latent_noise: float = 0.3
    """Largest standard deviation of noise on their normalised latents."""
    frames: int = 17
    """Length of a clip."""
    flow_clips: int = 2000
    """Clips whose exact flow is known; see `corpus.open_flows`."""
    flow_frames: int = 6
    """Frames of each of them for which it is."""
    flow_prob: float = 0.7
    """Share of batches drawn from those clips, with the ends (or the first frame alone) given, that learn from the flow."""
    flow_weight: float = 0.05
    """Weight of a pixel of flow error, of the paths from guide to guide and at each of the three sizes."""
    match_steps: int = 1200
    """The first steps learn to match alone, on true clips blurred by hand."""
    match_weight: float = 0.1
    """Weight of `match_loss`."""
    jitter_prob: float = 0.35
    """Share of clips shown in other colours (corpus.jitter_colors)."""
    drift_prob: float = 0.3
    """Share of batches whose decoded frames drift in contrast and brightness away from the guides."""
    detail_weight: float = 0.5
    """Weight of `detail_loss`."""
    change_weight: float = 1.0
    """Weight of `change_loss`."""
    change_quantile: float = 0.5
    """Its `quantile`."""
    perceptual_weight: float = 1.0
    """Weight of the shift-tolerant LPIPS (measures.lpips) of every third frame; 0 needs no network for it."""
    alone_weight: float = 0.3
    """Weight of `sharpness_loss` in frames with one guide: what follows a picture need not be what followed in the clip."""
    own_weight: float = 1.0
    """Weight of what a frame has that its guides have not: how far it is from the warped guides."""
    own_alone_weight: float = 3.0
    """The same in frames with one guide."""
    bend_weight: float = 0.5
    """Weight of `bend` in frames with one guide."""


class Examples(NamedTuple):
    """One batch: what the decoder is given, the frames it should give back, and the true flow where that is known."""

    inputs: tuple[Tensor, Tensor, Tensor]
    target_B3HW: Tensor
    flow_B4HW: Tensor | None
    clip_B: Tensor
    """Which clip a row is of; rows of a clip stand together, in order of time."""


def sharpener_task(
    decoder: GuideDecoder,
    codec: Codec,
    buckets: list[Bucket],
    flows: Flows,
    settings: SharpenerSettings,
    predict: Predict | None,
    *,
    before: GuideDecoder | None = None,
) -> Task:
    """Random guides, random target frames; L1 on pixels, on their gradients, on the amount of detail around a place, and
    on flow.

    `predict` is asked for `predicted_prob` of the batches; without one all are smeared by hand. With `before`, frames that
    have one guide are to be as that decoder makes them, and teach nothing to who predicts.
    """

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = numpy_rng(generator)
        if step < settings.match_steps:
            return matching_loss(decoder, *draw_pairs(buckets[0], flows, settings, rng), settings)
        inputs, target, flow, clip_B = draw_examples(codec, buckets, flows, settings, predict, rng, generator)
        if before is not None:
            target, inputs = held_target(before, inputs, target), between_only(inputs)
        parts = decoder.parts(*inputs)
        out = parts.frame(inputs[0])
        total, about_frames = frames_loss(parts, out, inputs, target, clip_B, settings)
        if settings.perceptual_weight:
            some = slice(int(rng.integers(3)), None, 3)
            total = total + settings.perceptual_weight * lpips.network()(out[some], target[some]).mean()
        gain = 10 * torch.log10((inputs[0] - target).square().mean() / (out.detach() - target).square().mean())
        seen = {"gain_db": round(gain.item(), 3), "detail": round(detail_ratio(out.detach(), target), 3)}
        seen |= about_frames | {"change": round(change_ratio(out.detach(), target, inputs[1], clip_B), 3)}
        if flow is not None:
            known, about = flow_loss(parts.matched, inputs[2], flow, settings)
            total = total + known + settings.flow_weight * flow_error(parts.flow_B4HW, flow)
            seen |= about | {"flow_px": round(flow_error(parts.flow_B4HW.detach(), flow).item(), 3)}
        return total, seen

    return Task(
        name="sharpener",
        modules={"guide_decoder": decoder},
        loss=loss,
        samples_per_step=settings.batch * settings.rows,
    )


def frames_loss(
    parts: Parts,
    out: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    target_B3HW: Tensor,
    clip_B: Tensor,
    settings: SharpenerSettings,
) -> tuple[Tensor, dict[str, float]]:
    """How far the frames `out` of these parts are from the truth in pixels, in detail and in the amount of movement, what they
    have of their own, and how bent the flow is where it is guessed; for the log, how much they have of their own."""
    is_between = _is_between(inputs).view(-1, 1, 1, 1)
    warped = parts.warped()
    own = (out - warped).abs()
    counts = torch.where(is_between, 1.0, settings.alone_weight)
    total = sharpness_loss(counts * (out - target_B3HW)) + settings.detail_weight * detail_loss(out, target_B3HW)
    costs = torch.where(is_between, settings.own_weight, settings.own_alone_weight)
    total = total + (costs * own).mean()
    total = total + settings.bend_weight * bend(torch.where(is_between, 0.0, parts.flow_B4HW))
    # After one picture a smear that grows would do for movement: there the picture itself has to move.
    moves = torch.where(is_between, out, warped)
    change = change_loss(moves, target_B3HW, inputs[1], clip_B, settings.change_quantile)
    return total + settings.change_weight * change, {"own": round(own.mean().item(), 4)}


def bend(flow_B4HW: Tensor) -> Tensor:
    """The mean second difference of flow across and down, in px: 0 where everything moves, turns, grows and shears as one."""
    across = flow_B4HW[..., 2:] - 2 * flow_B4HW[..., 1:-1] + flow_B4HW[..., :-2]
    down = flow_B4HW[..., 2:, :] - 2 * flow_B4HW[..., 1:-1, :] + flow_B4HW[..., :-2, :]
    return across.abs().mean() + down.abs().mean()


def between_only(inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The same rows; those that have one guide have no gradient."""
    is_between = _is_between(inputs).view(-1, 1, 1, 1)
    decoded, guides = (torch.where(is_between, each, each.detach()) for each in inputs[:2])
    return decoded, guides, inputs[2]


def _is_between(inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Which rows have a guide before and another after them."""
    return path_share(inputs[2])[1] > 0


def held_target(before: GuideDecoder, inputs: tuple[Tensor, Tensor, Tensor], target_B3HW: Tensor) -> Tensor:
    """The target, where a row has two guides; what `before` makes of the row, where it has one."""
    with torch.no_grad():
        return torch.where(_is_between(inputs).view(-1, 1, 1, 1), target_B3HW, before(*inputs))


def matching_loss(
    decoder: GuideDecoder, inputs: tuple[Tensor, Tensor, Tensor], flow_B4HW: Tensor, settings: SharpenerSettings
) -> tuple[Tensor, dict[str, float]]:
    """What the first steps learn from: the matches and the flow, without anything being put together."""
    decoded, guides, distance = inputs
    return flow_loss(decoder.matched(decoded, guides[:, 6:], distance), distance, flow_B4HW, settings)


def flow_loss(
    matched: Matched, distance_B2: Tensor, flow_B4HW: Tensor, settings: SharpenerSettings
) -> tuple[Tensor, dict[str, float]]:
    """The loss of what was matched against the exact flow, and for the log its errors in px."""
    errors = [flow_error(known, flow_B4HW) for known in matched.flows_B4YX]
    choice = match_loss(matched, distance_B2, flow_B4HW)
    still = flow_error(torch.zeros_like(matched.flows_B4YX[0]), flow_B4HW)
    values = {"match": choice, "path_px": errors[0], "matched_px": errors[-1], "still_px": still}
    total = settings.flow_weight * torch.stack(errors).sum() + settings.match_weight * choice
    return total, {name: round(value.item(), 3) for name, value in values.items()}


def draw_pairs(
    bucket: Bucket, flows: Flows, settings: SharpenerSettings, rng: np.random.Generator
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Rows as `draw_examples` gives them, of frames smeared in time and blurred in place of coded ones: no codec and no
    denoiser runs, so many more of them are seen in the same time."""
    chosen = rng.integers(len(flows.frames_NK), size=2 * settings.batch)
    video = jitter_colors(pixels(bucket.video_NTHWC[chosen, : settings.frames]), settings.jitter_prob, rng)
    last = video.shape[2] - 1
    rows, wanted = [], []
    for clip, index in zip(video, chosen, strict=True):
        given, frames = _ends(last, rng), flows.frames_NK[index].tolist()
        seen = _blurred(smear(clip, given, settings, rng) if rng.random() < 0.7 else clip, rng)
        rows.append(training_rows(seen, clip, neighbours([t in given for t in range(last + 1)]), frames))
        wanted.append(_flow_to(given, flows.flow_NK4HW[index]))
    columns = [torch.cat(column) for column in zip(*rows, strict=True)]
    return (columns[0], columns[1], columns[2]), torch.cat(wanted)


def _blurred(video_CTHW: Tensor, rng: np.random.Generator) -> Tensor:
    """The clip at a random share of its resolution, as a codec blurs."""
    share = float(rng.uniform(0.4, 1))
    small = functional.interpolate(video_CTHW, scale_factor=share, mode="bilinear", antialias=False)
    return functional.interpolate(small, size=video_CTHW.shape[-2:], mode="bilinear")


def _flow_to(given: list[int], flow_K4HW: np.ndarray) -> Tensor:
    """Exact flow to the guides of a clip: to both ends, or twice to the first where it alone is given."""
    flow = torch.from_numpy(flow_K4HW.astype(np.float32))
    return flow if given[-1] else flow[:, [0, 1, 0, 1]]


def draw_examples(
    codec: Codec,
    buckets: list[Bucket],
    flows: Flows,
    settings: SharpenerSettings,
    predict: Predict | None,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Examples:
    """A batch of `batch` clips, `rows` frames of each (as many as have a known flow, where that is used)."""
    with_flow = rng.random() < settings.flow_prob
    if with_flow:
        chosen = rng.integers(len(flows.frames_NK), size=settings.batch)
        video_NTHWC, captions = (
            buckets[0].video_NTHWC[chosen, : settings.frames],
            [buckets[0].captions[i] for i in chosen],
        )
    else:
        video_NTHWC, captions = draw(buckets, settings.batch, rng)
        video_NTHWC = cut(video_NTHWC, settings.frames, 1, rng)
    video = jitter_colors(pixels(video_NTHWC), settings.jitter_prob, rng)
    last = video.shape[2] - 1
    given = [_ends(last, rng) if with_flow else draw_guides(last + 1, rng) for _ in video]
    decoded = _decoded(video, given, captions, codec, settings, predict, rng, generator)
    if with_flow:
        frames = [flows.frames_NK[i].tolist() for i in chosen]
        flow = torch.cat([_flow_to(g, flows.flow_NK4HW[i]) for g, i in zip(given, chosen, strict=True)])
    else:
        frames, flow = [_free(last + 1, g, settings.rows, rng) for g in given], None
    rows = [
        training_rows(d, v, neighbours([t in g for t in range(last + 1)]), f)
        for d, v, g, f in zip(decoded, video, given, frames, strict=True)
    ]
    columns = [torch.cat(column) for column in zip(*rows, strict=True)]
    target = torch.cat([v.transpose(0, 1)[f] for v, f in zip(video, frames, strict=True)])
    clip_B = torch.repeat_interleave(torch.tensor([len(f) for f in frames]))
    return Examples((columns[0], columns[1], columns[2]), target, flow, clip_B)


def _ends(last: int, rng: np.random.Generator) -> list[int]:
    return [0, last] if rng.random() < 0.65 else [0]


def _free(num_frames: int, given: list[int], num: int, rng: np.random.Generator) -> list[int]:
    free = [t for t in range(num_frames) if t not in given]
    return sorted(rng.choice(free, size=min(num, len(free)), replace=False).tolist())


def _decoded(
    video: Tensor,
    given: list[list[int]],
    captions: list[str],
    codec: Codec,
    settings: SharpenerSettings,
    predict: Predict | None,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Tensor:
    """The clips as the codec decodes what the denoiser, or a stand-in for it, makes of them."""
    if predict is not None and rng.random() < settings.predicted_prob:
        latent = predict(video, given, captions, generator)
    else:
        smeared = torch.stack([smear(v, g, settings, rng) for v, g in zip(video, given, strict=True)])
        latent = codec.encode(smeared)
        level = settings.latent_noise * torch.rand(len(video), 1, 1, 1, 1, generator=generator) ** 2
        latent = latent + level * torch.randn(latent.shape, generator=generator)
    decoded = codec.decode(latent)
    if rng.random() < settings.drift_prob:
        decoded = torch.stack([drift(d, g, rng) for d, g in zip(decoded, given, strict=True)])
    return decoded


def flow_error(known_B4YX: Tensor, flow_B4HW: Tensor) -> Tensor:
    """The mean error of two flows in px, at the size of the one that is known."""
    flow_B4YX = functional.avg_pool2d(flow_B4HW, flow_B4HW.shape[-1] // known_B4YX.shape[-1])
    return (known_B4YX - flow_B4YX).unflatten(1, (2, 2)).norm(dim=2).mean()


def match_loss(matched: Matched, distance_B2: Tensor, flow_B4HW: Tensor) -> Tensor:
    """Cross-entropy of the matches against the exact flow, over the cells whose match lies within reach: choosing among
    places is learnt many times sooner than the mean of a choice."""
    coarse_B4YX = functional.avg_pool2d(flow_B4HW, 8) / 8
    # What is left to find at a quarter of the size; where it starts from is not to be moved for it.
    middle_B4YX = functional.avg_pool2d(flow_B4HW, 4) / 4 - matched.flows_B4YX[1].detach() / 4
    _, is_pair_B = path_share(distance_B2)
    ones_B = torch.ones_like(is_pair_B)
    before, after = coarse_B4YX.chunk(2, dim=1)
    nearer = middle_B4YX.chunk(2, dim=1)
    offsets = (before, after, after - before, *nearer)
    counts = (ones_B, ones_B, is_pair_B, ones_B, ones_B)
    badly = [_chosen_badly(*each) for each in zip(matched.logits_BKYX, offsets, counts, strict=True)]
    return torch.stack(badly).sum()


def _chosen_badly(logits_BKYX: Tensor, offset_B2YX: Tensor, counts_B: Tensor) -> Tensor:
    """Mean cross-entropy against an offset in cells, shared out over its four neighbours on the grid of offsets."""
    across = math.isqrt(logits_BKYX.shape[1])
    radius = (across - 1) // 2
    within = (offset_B2YX.abs().amax(dim=1, keepdim=True) <= radius) * counts_B.view(-1, 1, 1, 1)
    log_share = torch.log_softmax(logits_BKYX, dim=1)
    low = (offset_B2YX.clamp(-radius, radius) + radius).floor().clamp_max(across - 2)
    part = offset_B2YX.clamp(-radius, radius) + radius - low
    total = torch.zeros_like(within)
    for down in (0, 1):
        for right in (0, 1):
            at = (low[:, 1:] + down) * across + low[:, :1] + right
            weight = (part[:, 1:] - (1 - down)).abs() * (part[:, :1] - (1 - right)).abs()
            total = total - weight * log_share.gather(1, at.long())
    return (total * within).sum() / within.sum().clamp_min(1)


def predict_with(
    transformer: torch.nn.Module,
    embed_texts: Callable,
    codec: Codec,
    objective_name: str,
    *,
    times: tuple[float, ...] = (),
    sampled_prob: float = 0.0,
    guidance: float = 1.0,
) -> Predict:
    """Predictions of a denoiser: the clean latent that it sees in noise, from pure noise half of the time and otherwise
    from the true clip under a random amount of it. `embed_texts(captions)` gives text states [B, L, D].

    `sampled_prob` of the batches are made as a shot is, from noise alone by steps at `times` (which fall from 1) and with
    `guidance` away from no prompt; only the last of them has a gradient. A denoiser that is learning learns there from its
    own mistakes.
    """
    objective = OBJECTIVES[objective_name]

    def predict(video: Tensor, given: list[list[int]], captions: list[str], generator: torch.Generator) -> Tensor:
        plans = [plan_from_tensors(v, guide_frames=g) for v, g in zip(video.transpose(1, 2), given, strict=True)]
        conditions = encode(plans, codec, "wan")
        condition = torch.cat([conditions.mask_BMFYX, conditions.latent_BCFYX], dim=1)  # type: ignore[list-item]  # wan has a mask
        predict_at = predictor(transformer, condition, embed_texts(captions))

        def clean_in(noisy: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
            return objective.to_clean(noisy, predicted, *objective.mix(like(t, noisy)))

        clean = codec.encode(video)
        noise = torch.randn(clean.shape, generator=generator)
        if torch.rand((), generator=generator) < sampled_prob:
            levels = [clean.new_full((len(video),), t) for t in times]
            guided = predict_at
            if guidance != 1:
                guided = away_from(
                    predictor(transformer, condition, embed_texts([""] * len(video))), predict_at, guidance
                )
            with torch.no_grad():
                noisy = own_path(guided, noise, levels, objective)
            return clean_in(noisy, levels[-1], guided(noisy, levels[-1]))
        t = draw_t(len(video), 2.0, generator)
        t[torch.rand(len(video), generator=generator) < 0.5] = 1.0
        alpha, sigma = objective.mix(like(t, clean))
        noisy = alpha * clean + sigma * noise
        return clean_in(noisy, t, predict_at(noisy, t))

    return predict


def draw_guides(num_frames: int, rng: np.random.Generator) -> list[int]:
    """Guide frames of one clip: usually the first, half of the time the last, now and then others; never all."""
    given = rng.random(num_frames) < rng.choice([0.0, 0.1])
    given[0] |= rng.random() < 0.9
    given[-1] |= rng.random() < 0.6
    given[0] |= not given.any()
    return np.flatnonzero(given).tolist()


def smear(video_CTHW: Tensor, given: list[int], settings: SharpenerSettings, rng: np.random.Generator) -> Tensor:
    """The clip as somebody unsure of the moment would see it: each frame a mean over moments around it, the wider the
    farther from a guide, now and then mixed with a cross-fade. Guide frames stay."""
    t = video_CTHW.shape[1]
    times = torch.arange(t, dtype=torch.float32)
    away = torch.tensor([min(abs(i - g) for g in given) for i in range(t)], dtype=torch.float32)
    width = settings.smear_frames * float(rng.random()) * (away / away.max().clamp_min(1)).sqrt()
    share = torch.softmax(-((times[:, None] - times) ** 2) / (2 * width[:, None] ** 2).clamp_min(1e-3), dim=1)
    if rng.random() < settings.fade_prob:
        share = torch.lerp(share, _fade(given, t), float(rng.uniform(0, 0.6)))
    return torch.einsum("st,cthw->cshw", share, video_CTHW)


def drift(decoded_CTHW: Tensor, given: list[int], rng: np.random.Generator) -> Tensor:
    """The decoded clip with contrast and brightness off by more and more away from its guides: in pictures unlike any
    that it has seen the denoiser drifts so, and colours are then to be taken from the guides."""
    t = decoded_CTHW.shape[1]
    away = decoded_CTHW.new_tensor([min(abs(i - g) for g in given) for i in range(t)]).view(1, t, 1, 1)
    amount = away / away.max().clamp_min(1)
    offset = decoded_CTHW.new_tensor(rng.normal(0, 0.15, size=(3, 1, 1, 1)))
    return (decoded_CTHW * (1 + float(rng.normal(0, 0.15)) * amount) + offset * amount).clamp(-1, 1)


def _fade(given: list[int], num_frames: int) -> Tensor:
    """How much of each frame [T, T] a cross-fade between neighbouring guides takes from each other frame."""
    share = torch.zeros(num_frames, num_frames)
    for i, (before, after) in enumerate(neighbours([i in given for i in range(num_frames)])):
        u = 0.0 if before == after else (i - before) / (after - before)
        share[i, before] += 1 - u
        share[i, after] += u
    return share


def detail_loss(out: Tensor, target: Tensor) -> Tensor:
    """How far the mean strength of gradients in each neighbourhood is off: asks for as much drawing as there is, without
    saying where to the pixel, so a frame that is unsure of a place does not pay for staying sharp."""
    return torch.stack([(a - b).abs().mean() for a, b in zip(_detail(out), _detail(target), strict=True)]).sum()


def detail_ratio(out: Tensor, target: Tensor) -> float:
    """Strength of gradients beside the target's: 1 is as sharp."""
    return float(sum(a.mean() for a in _detail(out)) / sum(b.mean() for b in _detail(target)))


def _detail(image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    across = (image_B3HW[..., 1:] - image_B3HW[..., :-1]).abs()
    down = (image_B3HW[..., 1:, :] - image_B3HW[..., :-1, :]).abs()
    return functional.avg_pool2d(across, 8, 4), functional.avg_pool2d(down, 8, 4)


def change_loss(out: Tensor, target: Tensor, guides_B12HW: Tensor, clip_B: Tensor, quantile: float = 0.5) -> Tensor:
    """How far the mean amount of change in each neighbourhood is off, between the rows of a clip and to its guides: asks
    for as much movement as there is, without saying where to the pixel, as `detail_loss` does for drawing.

    Who does not know how much there is answers best with the `quantile` of what it may be (the pinball loss); 0.5 is the
    median, and counts plain differences.
    """
    pairs = zip(_changes(out, guides_B12HW, clip_B), _changes(target, guides_B12HW, clip_B), strict=True)
    lacks = [wanted - found for found, wanted in pairs if len(found)]
    return 2 * torch.stack([torch.maximum(quantile * lack, (quantile - 1) * lack).mean() for lack in lacks]).sum()


def change_ratio(out: Tensor, target: Tensor, guides_B12HW: Tensor, clip_B: Tensor) -> float:
    """Change from row to row beside the target's: 1 moves as much. NaN without two rows of one clip."""
    between, wanted = (_changes(each, guides_B12HW, clip_B)[0].mean() for each in (out, target))
    return float(between / wanted)


def _changes(rows_B3HW: Tensor, guides_B12HW: Tensor, clip_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean absolute change by neighbourhood: to the next row of the same clip, from the guide before, to the one after."""
    is_next = clip_B[1:] == clip_B[:-1]
    steps = (rows_B3HW[1:] - rows_B3HW[:-1])[is_next], rows_B3HW - guides_B12HW[:, :3], rows_B3HW - guides_B12HW[:, 3:6]
    between, before, after = (functional.avg_pool2d(step.abs(), 8, 4) for step in steps)
    return between, before, after
