"""Laws of the block autoencoder: invertible folding, causality, one code for a still wherever it stands."""

import pytest
import torch

from anisora.models.block_vae import AutoencoderKLBlock, from_blocks, to_blocks


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = AutoencoderKLBlock(z_dim=8, decoder_dims=(16, 8, 8), latents_std=[0.5] * 8)
    torch.nn.init.normal_(vae.decoder.conv_out.weight, std=0.1)
    return vae.eval()


@pytest.fixture(scope="module")
def video_BCTHW():
    return torch.rand(2, 3, 9, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_blocks_invert(video_BCTHW):
    torch.testing.assert_close(from_blocks(to_blocks(video_BCTHW, 4, 8), 4, 8), video_BCTHW, rtol=0, atol=1e-6)


def test_shapes_are_those_of_the_wan_vae(vae, video_BCTHW):
    latent = vae.encode(video_BCTHW).latent_dist.mode()
    assert latent.shape == (2, 8, 3, 2, 3)
    assert vae.decode(latent).sample.shape == video_BCTHW.shape
    assert vae.decode(latent, return_dict=False)[0].abs().max() <= 1


def test_encoding_and_decoding_are_causal(vae, video_BCTHW):
    later = video_BCTHW.clone()
    later[:, :, 5:] = 0
    with torch.no_grad():
        one, other = (vae.encode(v).latent_dist.mode() for v in (video_BCTHW, later))
        assert torch.equal(one[:, :, :2], other[:, :, :2])
        assert not torch.equal(one[:, :, 2], other[:, :, 2])
        assert torch.equal(vae.decode(one).sample[:, :, :5], vae.decode(other).sample[:, :, :5])


def test_a_still_has_one_code_at_every_place(vae, video_BCTHW):
    still = video_BCTHW[:, :, :1].expand(-1, -1, 9, -1, -1)
    latent = vae.encode(still).latent_dist.mode()
    torch.testing.assert_close(latent, latent[:, :, :1].expand_as(latent), rtol=0, atol=1e-6)


def test_mode_and_sample_agree(vae, video_BCTHW):
    posterior = vae.encode(video_BCTHW).latent_dist
    torch.testing.assert_close(posterior.sample(), posterior.mode(), rtol=0, atol=1e-5)


def test_saved_and_loaded_is_the_same(vae, video_BCTHW, tmp_path):
    vae.save_pretrained(tmp_path)
    again = AutoencoderKLBlock.from_pretrained(tmp_path)
    assert again.config.z_dim == 8
    assert torch.equal(again(video_BCTHW).sample, vae(video_BCTHW).sample)
