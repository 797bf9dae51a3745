"""A last stage that a recipe may have: denoiser and guide decoder learn together from the frames that users get.

Alone, a denoiser learns the mean of all that may happen, in which a limb that could be here or there is a smear at both
places; the guide decoder can sharpen that but not move it. Here the loss on finished frames (detail, change and the
perceptual distance among it) reaches through the decoders into the denoiser, which then settles for one place. Its own
loss goes on beside it, so that whatever the frames do not ask about (motion areas, guides anywhere, little noise) stays
learnt.

Only frames with a guide on either side teach both so. What follows a single guide can be anything: asked for as much change
as the one clip of the corpus had, a denoiser throws about what it does not know, and the guide decoder tears it. There the
denoiser is held to what it was, on pictures unlike the corpus' too, and the guide decoder to what it made of such frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anisora.training.codec import pixels
from anisora.training.corpus import Bucket, draw, jitter_colors, numpy_rng
from anisora.training.loop import Loss, Task
from anisora.training.sharpener import Predict


@dataclass(frozen=True, kw_only=True)
class JointSettings:
    """How the losses are set beside each other; what the first two show is said by their stages' own settings."""

    predicted_prob: float = 0.9
    """As in SharpenerSettings, higher: the denoiser learns from its own predictions alone."""
    change_weight: float = 8.0
    """As in SharpenerSettings, higher: what the mean prediction lacks most is movement."""
    change_quantile: float = 0.7
    """As in SharpenerSettings, higher: the median of what may move is little."""
    denoiser_batch: int = 4
    """Clips of the denoiser's own loss in a step."""
    denoiser_weight: float = 1.0
    pure_noise_prob: float = 0.25
    """As in DenoiserSettings, lower: there the two losses contradict each other."""
    held_batch: int = 4
    """Pictures of `holding_loss` in a step."""
    held_weight: float = 2.0
    held_frames: int = 17
    """Length of the shots that are made of them."""


def joint_task(
    sharpener: Task, denoiser: Task, predict: Predict, before: Predict, buckets: list[Bucket], settings: JointSettings
) -> Task:
    """The modules and losses of both; `sharpener` and `predict` must use the denoiser's own modules, `before` frozen ones
    as they were."""

    def loss(step: int, generator: torch.Generator) -> Iterator[Loss]:
        yield _whole(sharpener, step, generator)
        own, _ = _whole(denoiser, step, generator)
        yield settings.denoiser_weight * own, {"latent": round(own.item(), 4)}
        held = holding_loss(predict, before, buckets, settings, generator)
        yield settings.held_weight * held, {"held": round(held.item(), 4)}

    return Task(
        name="joint",
        modules={**denoiser.modules, **sharpener.modules},
        loss=loss,
        samples_per_step=sharpener.samples_per_step,
        matrices=denoiser.matrices,
    )


def holding_loss(
    predict: Predict, before: Predict, buckets: list[Bucket], settings: JointSettings, generator: torch.Generator
) -> Tensor:
    """How far the shots that follow one picture are from those of the denoiser as it was; with and without a caption."""
    rng = numpy_rng(generator)
    video_NTHWC, captions = draw(buckets, 2 * settings.held_batch, rng)
    pictures_B3HW = unfamiliar(pixels(video_NTHWC[:, :1])[:, :, 0], rng)
    video = pictures_B3HW[:, :, None].expand(-1, -1, settings.held_frames, -1, -1)
    captions = ["" if rng.random() < 0.5 else caption for caption in captions[: settings.held_batch]]
    # Two generators of one seed: both start from the same noise.
    seed = int(rng.integers(2**62))
    arguments = video, [[0]] * settings.held_batch, captions
    with torch.no_grad():
        wanted = before(*arguments, torch.Generator().manual_seed(seed))
    return (predict(*arguments, torch.Generator().manual_seed(seed)) - wanted).square().mean()


def unfamiliar(pictures_N3HW: Tensor, rng: np.random.Generator) -> Tensor:
    """Half as many pictures as are given, in [-1, 1]: parts of them enlarged, in other colours, two over each other."""
    jittered = jitter_colors(pictures_N3HW[:, :, None], 0.8, rng)[:, :, 0]
    parts = torch.stack([_part(picture, rng) for picture in jittered])
    over, under = parts.chunk(2)
    share = torch.from_numpy(rng.uniform(0.3, 1, len(over))).to(over).view(-1, 1, 1, 1)
    return torch.lerp(under, over, share)


def _part(picture_3HW: Tensor, rng: np.random.Generator) -> Tensor:
    """A random part of a picture at the size of the whole, mirrored or not."""
    _, height, width = picture_3HW.shape
    zoom = float(rng.uniform(0.4, 1))
    h, w = round(height * zoom), round(width * zoom)
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    part = picture_3HW[:, y : y + h, x : x + w]
    part = part.flip(2) if rng.random() < 0.5 else part
    return functional.interpolate(part[None], size=(height, width), mode="bilinear", align_corners=False)[0]


def _whole(task: Task, step: int, generator: torch.Generator) -> Loss:
    """The loss of a task that gives it in one part."""
    loss = task.loss(step, generator)
    assert isinstance(loss, tuple)
    return loss
