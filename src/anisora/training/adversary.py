"""A judge of what a denoiser predicts: it learns to tell predictions from clips, and the denoiser to be taken for a clip.

Errors alone, however they count, are smallest in the middle of all that may happen: a figure that could step to either side
hardly moves. A judge does not know which clip is meant, only what clips are like, and in clips things move. It looks through a
frozen copy of the denoiser as it was begun with, whose features know guides and prompts, at several depths and under noise,
and learns small heads on them alone: few clips are enough. No shot needs it, so nothing of it is exported.

Sources: adversarial losses on the features of a frozen denoiser, Sauer et al. 2024 (latent adversarial diffusion
distillation); truths and predictions judged in pairs, Jolicoeur-Martineau 2018; gradients weighed by their lengths, Esser et
al. 2021 (equation 7).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import UMT5EncoderModel

from anisora.training.objectives import Objective, like, predictor
from anisora.training.text import embed

#: Width of the heads.
_WIDTH = 48

#: Times of the noise that judged latents are seen through; 0.5 to 0.9 brought no more in a trial of fewer steps (lab notes).
_SEEN_THROUGH = (0.05, 0.65)


class Judge(nn.Module):
    """Heads on every second block of a frozen copy of a denoiser; only the heads are its parameters."""

    def __init__(
        self, transformer: WanTransformer3DModel, text_encoder: UMT5EncoderModel, objective: Objective
    ) -> None:
        super().__init__()
        self._objective = objective
        # In a tuple they are no parts of this module: neither trained nor saved with it.
        self._frozen = tuple(deepcopy(part).requires_grad_(False).eval() for part in (transformer, text_encoder))
        self._seen: dict[int, Tensor] = {}
        depths = range(len(transformer.blocks) - 1, -1, -2)
        for depth in depths:
            self._frozen[0].blocks[depth].register_forward_hook(
                lambda _, __, out, at=depth: self._seen.update({at: out})
            )
        dim = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        self.heads = nn.ModuleDict({str(depth): _Head(dim) for depth in depths})

    def features(
        self, latent_BCFYX: Tensor, t_B: Tensor, noise: Tensor, condition_BCFYX: Tensor, text_BLD: Tensor
    ) -> list[Tensor]:
        """What the frozen blocks make of the latents under noise, tokens [B, L, D] for every head."""
        alpha, sigma = self._objective.mix(like(t_B, latent_BCFYX))
        predictor(self._frozen[0], condition_BCFYX, text_BLD)(alpha * latent_BCFYX + sigma * noise, t_B)
        return [self._seen.pop(int(depth)) for depth in self.heads]

    def forward(self, features: list[Tensor], size_FYX: torch.Size) -> Tensor:
        """How true each place of latents of that size looks, by every head: [B, places]."""
        patch = self._frozen[0].config.patch_size
        grid = [length // size for length, size in zip(size_FYX, patch, strict=True)]
        heads = zip(self.heads.values(), features, strict=True)
        return torch.cat([head(token_BLD, grid) for head, token_BLD in heads], dim=1)

    def compare(
        self, made: Tensor, clean: Tensor, condition: Tensor, tokens: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The heads' loss on predictions and clips [B, C, F, Y, X] under the same conditions, and the gradient by which
        predictions would be judged truer; each is without effect on the other."""
        low, high = _SEEN_THROUGH
        t_B = low + (high - low) * torch.rand(1, generator=generator).expand(len(made))
        noise = torch.randn(made.shape, generator=generator)
        with torch.no_grad():
            text = embed(self._frozen[1], *tokens)
            of_clean = self.features(clean, t_B, noise, condition, text)
        made = made.detach().requires_grad_()
        of_made = self.features(made, t_B, noise, condition, text)
        # The heads' loss ends at these, so that its gradient does not go through the frozen network for nothing.
        cut_off = [feature.detach().requires_grad_() for feature in of_made]
        size_FYX = made.shape[2:]
        truer = self(of_clean, size_FYX) - self(cut_off, size_FYX)
        slopes = torch.autograd.grad(functional.softplus(truer).mean(), cut_off, retain_graph=True)
        (downhill,) = torch.autograd.grad(of_made, made, slopes)
        return functional.softplus(-truer).mean(), downhill


class _Head(nn.Module):
    """Tokens to a number each, seeing their neighbours in space and time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.enter = nn.Linear(dim, _WIDTH)
        self.around = nn.ModuleList([nn.Conv3d(_WIDTH, _WIDTH, 3, padding=1) for _ in range(2)])
        self.answer = nn.Conv3d(_WIDTH, 1, 1)

    def forward(self, token_BLD: Tensor, grid: list[int]) -> Tensor:
        x = functional.gelu(self.enter(self.norm(token_BLD))).transpose(1, 2).unflatten(2, grid)
        for conv in self.around:
            x = x + functional.gelu(conv(x))
        return self.answer(x).flatten(1)


def judged(
    error: Tensor,
    predicted: Tensor,
    made: Tensor,
    judge: Judge,
    weight: float,
    clean: Tensor,
    condition: Tensor,
    tokens: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """`error` and the judge's own loss, with a gradient on `predicted` beside the error's that is `weight` times as long;
    `made` are the clean latents [B, C, F, Y, X] that follow from the prediction.

    The judge sees the first half of a batch: seeing all of it would about double the time of a step on a CPU.
    """
    half = slice((len(made) + 1) // 2)
    seen = made[half], clean[half], condition[half], (tokens[0][half], tokens[1][half])
    judge_loss, downhill = judge.compare(*seen, generator)
    pull = (made[half] * downhill).sum()
    of_error, of_pull = (torch.autograd.grad(loss, predicted, retain_graph=True)[0] for loss in (error, pull))
    pull = pull * weight * of_error[half].norm() / of_pull.norm().clamp_min(1e-12)
    return error + judge_loss + (pull - pull.detach()), {"judge": round(judge_loss.item(), 4)}
