"""Small random VAEs of both kinds and pictures to condition on."""

import numpy as np
import pytest
import torch

from anisora.models.codec import Codec


@pytest.fixture(scope="session")
def wan_codec():
    """t4 f8, 4 channels whose means and deviations all differ."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        z_dim=4,
        latents_mean=[-0.75, 0.1, 0.5, 1.5],
        latents_std=[2.8, 1.4, 0.5, 1.9],
    )
    return Codec(vae.eval().requires_grad_(False))


def cogvideox_vae(**config):
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        scaling_factor=0.7,
        **config,
    )
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def cogvideox_codec():
    return Codec(cogvideox_vae())


@pytest.fixture(scope="session")
def cogvideox15_codec():
    """As CogVideoX 1.5's config has it."""
    return Codec(cogvideox_vae(invert_scale_latents=True))


def random_picture(seed, width=48, height=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def to_chw(picture_HWC):
    """The change to [-1, 1], in numpy."""
    return torch.from_numpy(picture_HWC.astype(np.float32) / np.float32(127.5) - np.float32(1)).permute(2, 0, 1)
