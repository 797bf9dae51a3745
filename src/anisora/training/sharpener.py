"""Training the guide decoder: given a blurred frame and clean guides elsewhere in the clip, give back the frame.

What it will see in use is what the denoiser believes: sharp at the guides, smeared where it is unsure. So most of its
training clips are the denoiser's own predictions; the rest are true clips smeared in time by hand. The corpus knows the
exact flow between any two frames, so that is learnt too: how to match a smeared frame to a clean one is hard to find out
from colours alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anisora.conditioning.encode import encode
from anisora.conditioning.plan import plan_from_tensors
from anisora.models.codec import Codec
from anisora.models.guide_decoder import GuideDecoder, neighbours, training_rows
from anisora.training.codec import pixels, sharpness_loss
from anisora.training.corpus import Bucket, Flows, cut, draw, jitter_colors, numpy_rng
from anisora.training.loop import Task
from anisora.training.objectives import NUM_TRAIN_TIMESTEPS, OBJECTIVES, draw_t, like

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
    """Weight of a pixel of flow error at each of the three sizes."""
    jitter_prob: float = 0.35
    """Share of clips shown in other colours (corpus.jitter_colors)."""
    drift_prob: float = 0.3
    """Share of batches whose decoded frames drift in contrast and brightness away from the guides."""
    detail_weight: float = 0.5
    """Weight of `detail_loss`."""


class Examples(NamedTuple):
    """One batch: what the decoder is given, the frames it should give back, and the true flow where that is known."""

    inputs: tuple[Tensor, Tensor, Tensor]
    target_B3HW: Tensor
    flow_B4HW: Tensor | None


def sharpener_task(
    decoder: GuideDecoder,
    codec: Codec,
    buckets: list[Bucket],
    flows: Flows,
    settings: SharpenerSettings,
    predict: Predict | None,
) -> Task:
    """Random guides, random target frames; L1 on pixels, on their gradients, on the amount of detail around a place, and
    on flow.

    `predict` is asked for `predicted_prob` of the batches; without one all are smeared by hand.
    """

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = numpy_rng(generator)
        with torch.no_grad():
            inputs, target, flow = draw_examples(codec, buckets, flows, settings, predict, rng, generator)
        parts = decoder.parts(*inputs)
        out = parts.frame(inputs[0])
        total = sharpness_loss(out - target) + settings.detail_weight * detail_loss(out, target)
        gain = 10 * torch.log10((inputs[0] - target).square().mean() / (out.detach() - target).square().mean())
        seen = {"gain_db": round(gain.item(), 3), "detail": round(detail_ratio(out.detach(), target), 3)}
        if flow is not None:
            total = total + settings.flow_weight * sum(flow_error(known, flow) for known in parts.flows)
            seen["flow_px"] = round(flow_error(parts.flows[-1].detach(), flow).item(), 3)
            seen["still_px"] = round(flow_error(torch.zeros_like(flow), flow).item(), 3)
        return total, seen

    return Task(
        name="sharpener",
        modules={"guide_decoder": decoder},
        loss=loss,
        samples_per_step=settings.batch * settings.rows,
    )


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
        both = torch.from_numpy(flows.flow_NK4HW[chosen].astype(np.float32))
        only_first = both[:, :, [0, 1, 0, 1]]
        flow = torch.cat([b if g[-1] else f for b, f, g in zip(both, only_first, given, strict=True)])
    else:
        frames, flow = [_free(last + 1, g, settings.rows, rng) for g in given], None
    rows = [
        training_rows(d, v, neighbours([t in g for t in range(last + 1)]), f)
        for d, v, g, f in zip(decoded, video, given, frames, strict=True)
    ]
    columns = [torch.cat(column) for column in zip(*rows, strict=True)]
    target = torch.cat([v.transpose(0, 1)[f] for v, f in zip(video, frames, strict=True)])
    return Examples((columns[0], columns[1], columns[2]), target, flow)


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


def predict_with(transformer: torch.nn.Module, embed_texts: Callable, codec: Codec, objective_name: str) -> Predict:
    """Predictions of a denoiser: the clean latent that it sees in noise, from pure noise half of the time and otherwise
    from the true clip under a random amount of it. `embed_texts(captions)` gives text states [B, L, D]."""
    objective = OBJECTIVES[objective_name]

    def predict(video: Tensor, given: list[list[int]], captions: list[str], generator: torch.Generator) -> Tensor:
        plans = [plan_from_tensors(v, guide_frames=g) for v, g in zip(video.transpose(1, 2), given, strict=True)]
        conditions = encode(plans, codec, "wan")
        condition = torch.cat([conditions.mask_BMFYX, conditions.latent_BCFYX], dim=1)  # type: ignore[list-item]  # wan has a mask
        clean = codec.encode(video)
        t = draw_t(len(video), 2.0, generator)
        t[torch.rand(len(video), generator=generator) < 0.5] = 1.0
        noise = torch.randn(clean.shape, generator=generator)
        alpha, sigma = objective.mix(like(t, clean))
        noisy = alpha * clean + sigma * noise
        text = embed_texts(captions)
        predicted = transformer(torch.cat([noisy, condition], 1), t * NUM_TRAIN_TIMESTEPS, text, return_dict=False)[0]
        return objective.to_clean(noisy, predicted, alpha, sigma)

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
