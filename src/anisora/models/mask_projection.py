"""The paper's mask re-projection (AniSora, equation 1) for CogVideoX: a mask branch beside the patch embedding.

Equation 1 concatenates a re-projected mask with noise and guide on the channel axis. A patch embedding is linear, so extra
input channels equal a second patch embedding whose result is added; that is what stands here, so that the public weights,
which have no such channels, load unchanged. Only the last projection starts at zero: the output then equals the public
model's exactly, while its gradient, fed by the two convolutions, is not dead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class MaskProjection(ModelMixin, ConfigMixin):
    """mask_BMFYX in {0, 1}, packed as for Wan (design: `[B, 4, F, Y, X]`) -> tokens to add, `[B, F/pt * Y/p * X/p, D]`.

    Two 3x3x3 convolutions with SiLU, `mask_channels -> hidden_channels -> out_channels`, then a patch projection to
    `inner_dim` in the token order of CogVideoX's own patch embedding. `patch_size_t` is None for CogVideoX 1.0.
    """

    @register_to_config
    def __init__(
        self,
        mask_channels: int = 4,
        hidden_channels: int = 64,
        out_channels: int = 16,
        inner_dim: int = 3072,
        patch_size: int = 2,
        patch_size_t: int | None = None,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv3d(mask_channels, hidden_channels, 3, padding=1)
        self.conv_out = nn.Conv3d(hidden_channels, out_channels, 3, padding=1)
        patch = (patch_size_t or 1, patch_size, patch_size)
        self.proj = nn.Conv3d(out_channels, inner_dim, patch, stride=patch)
        nn.init.zeros_(self.proj.weight)
        if self.proj.bias is not None:
            nn.init.zeros_(self.proj.bias)

    @classmethod
    def matching(cls, transformer: Any, mask_channels: int = 4) -> MaskProjection:
        """A new, untrained projection that fits a CogVideoX transformer."""
        config = transformer.config
        return cls(
            mask_channels=mask_channels,
            inner_dim=config.num_attention_heads * config.attention_head_dim,
            patch_size=config.patch_size,
            patch_size_t=config.patch_size_t,
        )

    def forward(self, mask_BMFYX: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.silu(self.conv_in(mask_BMFYX))
        hidden = nn.functional.silu(self.conv_out(hidden))
        return self.proj(hidden).flatten(2).transpose(1, 2)


@contextmanager
def mask_added(transformer: Any, projection: MaskProjection, mask_BMFYX: torch.Tensor) -> Iterator[None]:
    """Inside, every forward of the transformer sees the projected mask in its video tokens; outside it is stock again.

    The batch of a forward is a multiple of the mask's (guidance stacks both branches; both see the same mask). Gradients
    reach the projection. The transformer's own modules and weights are not touched.
    """

    def add(module: nn.Module, args: tuple[Any, ...], embeds_BND: torch.Tensor) -> torch.Tensor:
        parameter = projection.proj.weight
        tokens_BND = projection(mask_BMFYX.to(parameter.device, parameter.dtype)).to(embeds_BND)
        repeats = embeds_BND.shape[0] // tokens_BND.shape[0]
        num_text = embeds_BND.shape[1] - tokens_BND.shape[1]
        text_BND, video_BND = embeds_BND.split([num_text, tokens_BND.shape[1]], dim=1)
        return torch.cat([text_BND, video_BND + tokens_BND.repeat(repeats, 1, 1)], dim=1)

    handle = transformer.patch_embed.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
