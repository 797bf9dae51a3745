"""A last stage that a recipe may have: denoiser and guide decoder learn together from the frames that users get.

Alone, a denoiser learns the mean of all that may happen, in which a limb that could be here or there is a smear at both
places; the guide decoder can sharpen that but not move it. Here the loss on finished frames (detail, change and the
perceptual distance among it) reaches through the decoders into the denoiser, which then settles for one place. Its own
loss goes on beside it, so that whatever the frames do not ask about (motion areas, guides anywhere, little noise) stays
learnt.

Only clips with a guide on either side teach the denoiser so. What follows a single guide can be anything: asked for as
much change as the one clip of the corpus had, a denoiser throws about what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from anisora.training.loop import Loss, Task
from anisora.training.sharpener import Predict


@dataclass(frozen=True, kw_only=True)
class JointSettings:
    """How the two losses are set beside each other; what they show is said by the two stages' own settings."""

    predicted_prob: float = 0.9
    """As in SharpenerSettings, higher: the denoiser learns from its own predictions alone."""
    sampled_prob: float = 0.7
    """Share of those that come as a shot's do, by the steps of the recipe: see predict_with."""
    change_weight: float = 3.0
    """As in SharpenerSettings, higher: what the mean prediction lacks most is movement."""
    denoiser_batch: int = 8
    """Clips of the denoiser's own loss in a step."""
    denoiser_weight: float = 1.0
    pure_noise_prob: float = 0.25
    """As in DenoiserSettings, lower: there the two losses contradict each other."""


def joint_task(sharpener: Task, denoiser: Task, settings: JointSettings) -> Task:
    """The modules and losses of both; `sharpener` must predict with the denoiser's own modules."""

    def loss(step: int, generator: torch.Generator) -> Iterator[Loss]:
        yield _whole(sharpener, step, generator)
        own, _ = _whole(denoiser, step, generator)
        yield settings.denoiser_weight * own, {"latent": round(own.item(), 4)}

    return Task(
        name="joint",
        modules={**denoiser.modules, **sharpener.modules},
        loss=loss,
        samples_per_step=sharpener.samples_per_step,
        matrices=denoiser.matrices,
    )


def between_only(predict: Predict) -> Predict:
    """The same predictions; those of clips with one guide have no gradient."""

    def predicted(video: Tensor, given: list[list[int]], captions: list[str], generator: torch.Generator) -> Tensor:
        latent = predict(video, given, captions, generator)
        return torch.stack([one if len(g) > 1 else one.detach() for one, g in zip(latent, given, strict=True)])

    return predicted


def _whole(task: Task, step: int, generator: torch.Generator) -> Loss:
    """The loss of a task that gives it in one part."""
    loss = task.loss(step, generator)
    assert isinstance(loss, tuple)
    return loss
