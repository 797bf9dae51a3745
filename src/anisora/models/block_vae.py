"""A small causal video autoencoder that starts from a linear block transform, with AutoencoderKLWan's interface.

Why it is here: the stock Wan VAE does not learn in CPU time (docs/decisions/bundled-vae.md has the measurements). This
one encodes each causal block of 4 x 8 x 8 pixels by a fixed linear code (its principal components) and decodes by the
transposed code plus a learned residual. It folds pixels as Wan does: frame 0 alone, then four frames to a latent frame.
Frame 0 is repeated to fill its block, so a still encodes to the same latent at every place in a shot.

Shapes: B batch, C latent channels, F latent frames, T pixel frames, H W pixels, Y X latents, K numbers in a pixel block.
"""

from __future__ import annotations

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn import functional

# The linear code has no noise of its own; this log-variance makes a sample equal the mode to within float32.
_LOG_VARIANCE = -30.0


def to_blocks(video_BCTHW: Tensor, temporal: int, spatial: int) -> Tensor:
    """Causal pixel blocks [B, F, Y, X, K], K = C * temporal * spatial**2; frame 0 is repeated to fill its block."""
    first = video_BCTHW[:, :, :1].expand(-1, -1, temporal - 1, -1, -1)
    padded = torch.cat([first, video_BCTHW], dim=2)
    b, c, t, h, w = padded.shape
    cut = padded.reshape(b, c, t // temporal, temporal, h // spatial, spatial, w // spatial, spatial)
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def from_blocks(block_BFYXK: Tensor, temporal: int, spatial: int) -> Tensor:
    """The video [B, 3, T, H, W] of blocks; the inverse of `to_blocks`, with frame 0 as the mean of its repeats."""
    b, f, y, x, _ = block_BFYXK.shape
    cut = block_BFYXK.reshape(b, f, y, x, -1, temporal, spatial, spatial).permute(0, 4, 1, 5, 2, 6, 3, 7)
    frames = cut.reshape(b, -1, f * temporal, y * spatial, x * spatial)
    return torch.cat([frames[:, :, :temporal].mean(2, keepdim=True), frames[:, :, temporal:]], dim=2)


class _Residual(nn.Module):
    """Two 3x3 convolutions over frames, the first also seeing the frame before (causal in time)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(2 * dim, dim, 3, padding=1)
        self.conv_out = nn.Conv2d(dim, dim, 3, padding=1)
        # Variance-preserving start without norms: default init shrinks the signal threefold a layer.
        nn.init.normal_(self.conv_in.weight, std=(1.6 / (18 * dim)) ** 0.5)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, hidden_BTCHW: Tensor) -> Tensor:
        b, t, c, h, w = hidden_BTCHW.shape
        before = torch.cat([hidden_BTCHW[:, :1], hidden_BTCHW[:, :-1]], dim=1)
        both = torch.cat([before, hidden_BTCHW], dim=2).reshape(b * t, 2 * c, h, w)
        update = self.conv_out(functional.silu(self.conv_in(functional.silu(both))))
        return hidden_BTCHW + update.reshape(b, t, c, h, w)


class _ResidualDecoder(nn.Module):
    """What the linear code leaves out, from the latents: per latent frame, then per pixel frame at 1/4 and 1/2 size."""

    def __init__(self, z_dim: int, dims: tuple[int, int, int], temporal: int, spatial: int) -> None:
        super().__init__()
        coarse, middle, fine = dims
        self.temporal, self.last_scale = temporal, spatial // 4
        self.conv_in = nn.Conv2d(z_dim, coarse, 3, padding=1)
        self.coarse = nn.Sequential(_Residual(coarse), _Residual(coarse))
        self.to_frames = nn.Conv2d(coarse, temporal * middle * 4, 1)
        self.middle = nn.Sequential(_Residual(middle), _Residual(middle))
        self.to_fine = nn.Conv2d(middle, fine * 4, 1)
        self.fine = nn.Sequential(_Residual(fine))
        self.conv_out = nn.Conv2d(fine, 3 * self.last_scale**2, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent_BCFYX: Tensor) -> Tensor:
        b, _, f, y, x = latent_BCFYX.shape
        frames = latent_BCFYX.transpose(1, 2).flatten(0, 1)
        hidden = self.coarse(self.conv_in(frames).unflatten(0, (b, f)))
        hidden = functional.pixel_shuffle(self.to_frames(hidden.flatten(0, 1)), 2)
        # Latent frame 0 holds one pixel frame: its last place, so that time stays in order.
        hidden = hidden.reshape(b, f * self.temporal, -1, 2 * y, 2 * x)[:, self.temporal - 1 :]
        hidden = self.middle(hidden)
        t = hidden.shape[1]
        hidden = self.fine(functional.pixel_shuffle(self.to_fine(hidden.flatten(0, 1)), 2).unflatten(0, (b, t)))
        pixels = functional.pixel_shuffle(self.conv_out(functional.silu(hidden.flatten(0, 1))), self.last_scale)
        return pixels.unflatten(0, (b, t)).transpose(1, 2)


class AutoencoderKLBlock(ModelMixin, ConfigMixin):
    """Causal block-transform autoencoder; `encode`, `decode` and config fields as `diffusers.AutoencoderKLWan` has them.

    Stride 4 in time and 8 in space. `encode` is exact and deterministic: mode and sample agree.
    """

    @register_to_config
    def __init__(
        self,
        z_dim: int = 48,
        in_channels: int = 3,
        out_channels: int = 3,
        decoder_dims: tuple[int, int, int] = (128, 48, 24),
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
        scale_factor_temporal: int = 4,
        scale_factor_spatial: int = 8,
    ) -> None:
        super().__init__()
        block = in_channels * scale_factor_temporal * scale_factor_spatial**2
        self.register_to_config(latents_mean=latents_mean or [0.0] * z_dim, latents_std=latents_std or [1.0] * z_dim)
        self.code = nn.Parameter(torch.zeros(z_dim, block))
        self.code_mean = nn.Parameter(torch.zeros(block))
        coarse, middle, fine = decoder_dims  # a list where the config came from a file
        self.decoder = _ResidualDecoder(z_dim, (coarse, middle, fine), scale_factor_temporal, scale_factor_spatial)
        nn.init.orthogonal_(self.code)

    @property
    def _strides(self) -> tuple[int, int]:
        return self.config.scale_factor_temporal, self.config.scale_factor_spatial

    def encode_mode(self, x: Tensor) -> Tensor:
        """The latents [B, C, F, Y, X] themselves."""
        return ((to_blocks(x, *self._strides) - self.code_mean) @ self.code.T).movedim(-1, 1)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """The latent distribution of a video [B, 3, T, H, W] in [-1, 1]; `.latent_dist.mode()` is [B, C, F, Y, X]."""
        mode = self.encode_mode(x)
        posterior = DiagonalGaussianDistribution(torch.cat([mode, torch.full_like(mode, _LOG_VARIANCE)], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode_linear(self, z: Tensor) -> Tensor:
        """The linear code's own reconstruction [B, 3, T, H, W], without the learned residual."""
        return from_blocks(z.movedim(1, -1) @ self.code + self.code_mean, *self._strides)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """The video [B, 3, T, H, W] of latents [B, C, F, Y, X], clamped to [-1, 1] as the stock VAE does."""
        std = torch.tensor(self.config.latents_std, dtype=z.dtype, device=z.device).view(1, -1, 1, 1, 1)
        mean = torch.tensor(self.config.latents_mean, dtype=z.dtype, device=z.device).view(1, -1, 1, 1, 1)
        video = (self.decode_linear(z) + self.decoder((z - mean) / std)).clamp(-1, 1)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def forward(self, sample: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """The reconstruction of a video: encode, then decode."""
        return self.decode(self.encode_mode(sample), return_dict=return_dict)
