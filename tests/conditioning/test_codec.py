"""The codec's one interface over two kinds of VAE."""

import pytest
import torch

from anisora.geometry import Strides
from anisora.models.codec import Codec, vae_strides

VIDEO_BCTHW = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", ["wan_codec", "cogvideox_codec", "cogvideox15_codec"])
def test_facts_are_read_from_the_config_and_hold_of_its_output(name, request):
    codec = request.getfixturevalue(name)
    assert codec.strides == Strides(temporal=4, spatial=8, patch_spatial=1)
    assert codec.encode(VIDEO_BCTHW).shape == (1, codec.channels, 2, 2, 2)
    assert codec.decode(codec.encode(VIDEO_BCTHW)).shape == VIDEO_BCTHW.shape


def test_cogvideox_decodes_even_numbers_of_latent_frames_too(cogvideox_codec):
    """The stock class returns 4F frames of them; every second legal length has such an F."""
    for num_latent_frames in (1, 2, 3, 4):
        latent_BCFYX = torch.randn(1, 4, num_latent_frames, 2, 2)
        stock = cogvideox_codec.vae.decode(latent_BCFYX / 0.7).sample
        assert cogvideox_codec.decode(latent_BCFYX).shape[2] == 4 * num_latent_frames - 3
        if num_latent_frames % 2:
            torch.testing.assert_close(cogvideox_codec.decode(latent_BCFYX), stock, atol=1e-5, rtol=0)
        else:
            assert stock.shape[2] == 4 * num_latent_frames


@pytest.mark.parametrize("name", ["wan_codec", "cogvideox_codec"])
def test_denormalise_undoes_normalise(name, request):
    codec = request.getfixturevalue(name)
    latent_BCFYX = torch.randn(2, 4, 3, 2, 2)
    torch.testing.assert_close(codec.denormalise(codec.normalise(latent_BCFYX)), latent_BCFYX)


def test_decoding_is_the_vae_on_denormalised_latents(wan_codec):
    latent_BCFYX = torch.randn(1, 4, 2, 2, 2)
    config = wan_codec.vae.config
    mean, std = (torch.tensor(x).view(1, 4, 1, 1, 1) for x in (config.latents_mean, config.latents_std))
    torch.testing.assert_close(
        wan_codec.decode(latent_BCFYX), wan_codec.vae.decode(latent_BCFYX * std + mean).sample, atol=1e-5, rtol=0
    )


def test_encoding_is_the_mode_unless_a_generator_asks_for_a_sample(cogvideox_codec):
    assert torch.equal(cogvideox_codec.encode(VIDEO_BCTHW), cogvideox_codec.encode(VIDEO_BCTHW))
    one, same, other = (cogvideox_codec.encode(VIDEO_BCTHW, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_condition_scale_differs_from_latent_scale_for_inverted_configs_only(cogvideox_codec, cogvideox15_codec):
    plain, inverted = (c.encode_condition(VIDEO_BCTHW) for c in (cogvideox_codec, cogvideox15_codec))
    assert torch.equal(plain, cogvideox_codec.encode(VIDEO_BCTHW))
    torch.testing.assert_close(inverted, plain / 0.7**2)


def test_strides_follow_the_config():
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=8,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        z_dim=4,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=8,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    codec = Codec(vae.eval())
    assert vae_strides(vae.config).spatial == 8
    assert codec.encode(VIDEO_BCTHW).shape == (1, 4, 2, 2, 2)
