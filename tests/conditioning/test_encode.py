"""Condition tensors: equal to what stock diffusers makes of the same input, and lawful where stock has no equal."""

import pytest
import torch
from PIL import Image

from anisora import geometry
from anisora.conditioning import mask
from anisora.conditioning.encode import encode, static_target
from anisora.conditioning.plan import plan, plan_from_tensors
from anisora.models.codec import Codec
from anisora.records import Guide

from .conftest import cogvideox_vae, random_picture, to_chw

SIZE_PX = (48, 32)


def make(frames, num_frames=17, family="wan", strengths=None, **options):
    """A plan with a random picture at each frame."""
    strengths = strengths or [1.0] * len(frames)
    guides = [Guide(random_picture(p), p, strength) for p, strength in zip(frames, strengths, strict=True)]
    return plan(num_frames=num_frames, size_px=SIZE_PX, guides=guides, family=family, **options)


@pytest.fixture(scope="module")
def stock_wan(wan_codec):
    from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline

    return WanImageToVideoPipeline(
        tokenizer=None, text_encoder=None, vae=wan_codec.vae, scheduler=FlowMatchEulerDiscreteScheduler()
    )


@pytest.fixture(scope="module")
def stock_vace(wan_codec):
    from diffusers import FlowMatchEulerDiscreteScheduler, WanVACEPipeline, WanVACETransformer3DModel

    transformer = WanVACETransformer3DModel(
        num_attention_heads=1, attention_head_dim=12, ffn_dim=8, num_layers=1, vace_layers=[0], text_dim=8, freq_dim=8
    )
    return WanVACEPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=wan_codec.vae,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=transformer,
    )


def stock_cogvideox(vae):
    from diffusers import CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline, CogVideoXTransformer3DModel

    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=1, attention_head_dim=16, num_layers=1, time_embed_dim=4, text_embed_dim=4
    )
    return CogVideoXImageToVideoPipeline(
        tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=CogVideoXDPMScheduler()
    )


@pytest.mark.parametrize("num_frames", [1, 5, 17])
def test_first_frame_alone_is_stock_wan(wan_codec, stock_wan, num_frames):
    conditions = encode(make([0], num_frames), wan_codec, "wan")
    _, stock = stock_wan.prepare_latents(
        to_chw(random_picture(0))[None], 1, 4, 32, 48, num_frames, torch.float32, torch.device("cpu")
    )
    ours = torch.cat([conditions.mask_BMFYX, conditions.latent_BCFYX], dim=1)
    assert ours.shape == stock.shape == (1, 8, geometry.latent_frames(num_frames), 4, 6)
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_frames", [9, 13])
def test_first_and_last_frame_are_stock_wan_with_last_image(wan_codec, stock_wan, num_frames):
    last = num_frames - 1
    conditions = encode(make([0, last], num_frames), wan_codec, "wan")
    first_BCHW, last_BCHW = (to_chw(random_picture(p))[None] for p in (0, last))
    _, stock = stock_wan.prepare_latents(
        first_BCHW, 1, 4, 32, 48, num_frames, torch.float32, torch.device("cpu"), last_image=last_BCHW
    )
    torch.testing.assert_close(
        torch.cat([conditions.mask_BMFYX, conditions.latent_BCFYX], dim=1), stock, atol=1e-5, rtol=0
    )


def test_wan_encodes_all_guides_jointly_and_only_them(wan_codec):
    """Against the posterior's mode of a video put together by hand."""
    frames = [3, 8, 16]
    video_BCTHW = torch.zeros(1, 3, 17, 32, 48)
    for p in frames:
        video_BCTHW[0, :, p] = to_chw(random_picture(p))
    config = wan_codec.vae.config
    mean, std = (torch.tensor(x).view(1, 4, 1, 1, 1) for x in (config.latents_mean, config.latents_std))
    truth = (wan_codec.vae.encode(video_BCTHW).latent_dist.mode() - mean) / std
    conditions = encode(make(frames), wan_codec, "wan")
    torch.testing.assert_close(conditions.latent_BCFYX, truth, atol=1e-5, rtol=0)
    given_T = mask.unpack_T1YX(conditions.mask_BMFYX[0])[:, 0, 0, 0]
    assert given_T.nonzero().flatten().tolist() == frames


def test_a_guide_changes_no_latent_frame_before_its_own(wan_codec):
    """The codec is causal, so the guide's slot is also the first place where the condition shows it."""
    empty = encode(make([]), wan_codec, "wan").latent_BCFYX
    for p in (0, 1, 4, 5, 12, 16):
        changed_F = (encode(make([p]), wan_codec, "wan").latent_BCFYX - empty).abs().amax((0, 1, 3, 4)) > 1e-6
        assert changed_F.nonzero().min() == geometry.slot(p)


def test_text_only_has_an_empty_mask_and_no_picture(wan_codec):
    conditions = encode(make([]), wan_codec, "wan")
    assert not conditions.mask_BMFYX.any()
    assert conditions.reference_image is None
    grey = wan_codec.encode(torch.zeros(1, 3, 17, 32, 48))
    torch.testing.assert_close(conditions.latent_BCFYX, grey)


def test_strength_scales_the_pixels_and_the_mask_of_its_own_frame(wan_codec):
    conditions = encode(make([0, 9], strengths=[1.0, 0.25]), wan_codec, "wan")
    video_BCTHW = torch.zeros(1, 3, 17, 32, 48)
    video_BCTHW[0, :, 0], video_BCTHW[0, :, 9] = to_chw(random_picture(0)), 0.25 * to_chw(random_picture(9))
    torch.testing.assert_close(conditions.latent_BCFYX, wan_codec.encode(video_BCTHW), atol=1e-5, rtol=0)
    given_T = mask.unpack_T1YX(conditions.mask_BMFYX[0])[:, 0, 0, 0]
    assert given_T.nonzero().flatten().tolist() == [0, 9]
    assert given_T[[0, 9]].tolist() == [1, 0.25]


def test_the_motion_area_reaches_the_mask_pooled(wan_codec):
    motion = torch.zeros(32, 48)
    motion[8:24, 4:24] = 1  # columns 4 to 8 are half a cell: not given there
    conditions = encode(make([0], motion_mask=motion.numpy()), wan_codec, "wan")
    keep_TYX = mask.unpack_T1YX(conditions.mask_BMFYX[0])[:, 0]
    assert keep_TYX[0].all()
    expected = torch.ones(4, 6)
    expected[1:3, 0:3] = 0
    assert all(torch.equal(keep_YX, expected) for keep_YX in keep_TYX[1:])
    anisora = encode(make([0], motion_mask=motion.numpy(), snap="anisora"), wan_codec, "wan")
    expected[1:3, 0] = 1  # the nearest pixel of the half cell is given
    assert torch.equal(mask.unpack_T1YX(anisora.mask_BMFYX[0])[1, 0], expected)


def test_several_plans_are_encoded_as_each_alone(wan_codec):
    plans = [make([0]), make([4, 16]), make([])]
    for family in ("wan", "vace"):
        together = encode(plans, wan_codec, family)
        for index, alone in enumerate(encode(one, wan_codec, family) for one in plans):
            torch.testing.assert_close(together.latent_BCFYX[index], alone.latent_BCFYX[0], atol=1e-5, rtol=0)
            assert torch.equal(together.mask_BMFYX[index], alone.mask_BMFYX[0])


def any_mask_plan():
    generator = torch.Generator().manual_seed(3)
    video_TCHW = torch.rand(9, 3, 32, 48, generator=generator) * 2 - 1
    keep_T1HW = (torch.rand(9, 1, 32, 48, generator=generator) < 0.6).float()
    return plan_from_tensors(video_TCHW, keep_T1HW=keep_T1HW), keep_T1HW


def test_vace_is_stock_on_one_minus_keep(wan_codec, stock_vace):
    made, keep_T1HW = any_mask_plan()
    conditions = encode(made, wan_codec, "vace")
    video_BCTHW = made.video_TCHW.transpose(0, 1)[None]
    mask_BCTHW = (1 - keep_T1HW).transpose(0, 1)[None].expand(-1, 3, -1, -1, -1)
    latents = stock_vace.prepare_video_latents(video_BCTHW, mask_BCTHW, [[]], device=torch.device("cpu"))
    masks = stock_vace.prepare_masks(mask_BCTHW, [[]])
    torch.testing.assert_close(conditions.latent_BCFYX, latents, atol=1e-6, rtol=0)
    assert torch.equal(conditions.mask_BMFYX, masks)
    assert conditions.mask_BMFYX.shape == (1, 64, 3, 4, 6)


def test_keep_and_vace_are_dual(wan_codec):
    made, keep_T1HW = any_mask_plan()
    vace, wan = encode(made, wan_codec, "vace"), encode(made, wan_codec, "wan")
    inactive, reactive = vace.latent_BCFYX.chunk(2, dim=1)
    torch.testing.assert_close(inactive, wan.latent_BCFYX, atol=1e-6, rtol=0)
    # ungiven pixels are mid-grey, so nothing is left to react
    torch.testing.assert_close(reactive, wan_codec.encode(torch.zeros(1, 3, 9, 32, 48)), atol=1e-6, rtol=0)
    # before VACE's resize in time, its mask and the plan's say the same pixel by pixel, and Wan's is its least
    folded_MTYX = mask.unshuffle_MTYX(1 - keep_T1HW, 8)
    assert torch.equal(1 - torch.pixel_shuffle(folded_MTYX.transpose(0, 1), 8), keep_T1HW)
    assert torch.equal(1 - folded_MTYX.amax(0), mask.unpack_T1YX(wan.mask_BMFYX[0])[:, 0])


@pytest.mark.parametrize("invert", [False, True])
def test_cogvideox_first_frame_is_stock(invert):
    codec = Codec(cogvideox_vae(invert_scale_latents=invert))
    stock = stock_cogvideox(codec.vae)
    conditions = encode(make([0], 9, "cogvideox"), codec, "cogvideox", torch.Generator().manual_seed(5))
    _, image_latents_BFCYX = stock.prepare_latents(
        to_chw(random_picture(0))[None],
        num_channels_latents=4,
        num_frames=9,
        height=32,
        width=48,
        dtype=torch.float32,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(5),
    )
    assert conditions.mask_BMFYX is None
    torch.testing.assert_close(conditions.latent_BCFYX, image_latents_BFCYX.transpose(1, 2), atol=1e-5, rtol=0)


def test_cogvideox_guides_are_one_frame_clips_at_their_slots_and_zeros_elsewhere(cogvideox_codec):
    frames = [2, 5, 12]
    conditions = encode(make(frames, 13, "cogvideox"), cogvideox_codec, "cogvideox")
    for slot in range(4):
        latent_CYX = conditions.latent_BCFYX[0, :, slot]
        if slot == 0:
            assert not latent_CYX.any()
            continue
        clip_BCTHW = to_chw(random_picture(frames[slot - 1]))[None, :, None]
        mode = cogvideox_codec.vae.encode(clip_BCTHW).latent_dist.mode()
        torch.testing.assert_close(latent_CYX, 0.7 * mode[0, :, 0], atol=1e-5, rtol=0)


def test_cogvideox_mask_adds_the_mask_packed_as_for_wan(cogvideox_codec):
    made = make([0, 6], 13, "cogvideox_mask", strengths=[1.0, 0.5])
    conditions = encode(made, cogvideox_codec, "cogvideox_mask")
    plain = encode(made, cogvideox_codec, "cogvideox")
    assert torch.equal(conditions.latent_BCFYX, plain.latent_BCFYX)
    mask_MF = conditions.mask_BMFYX[0, :, :, 0, 0]
    assert mask_MF[:, 0].tolist() == [1, 1, 1, 1]
    assert mask_MF[:, 1:].nonzero().tolist() == [[1, 1]]  # frame 6: slot 2, channel 1
    assert mask_MF[1, 2] == 0.5


def test_the_static_target_is_the_stills_video_where_nothing_moves(wan_codec):
    generator = torch.Generator().manual_seed(1)
    video_TCHW = torch.rand(9, 3, 32, 48, generator=generator) * 2 - 1
    motion_T1HW = torch.zeros(1, 1, 32, 48)
    motion_T1HW[..., 8:16, 16:32] = 1
    moving = plan_from_tensors(video_TCHW, [4], motion_T1HW=motion_T1HW)
    free = plan_from_tensors(video_TCHW, [0])
    latent_BCFYX = wan_codec.encode(video_TCHW.transpose(0, 1)[None]).expand(2, -1, -1, -1, -1)
    target_BCFYX = static_target(latent_BCFYX, [moving, free], wan_codec)
    still_CFYX = wan_codec.encode(video_TCHW[4].expand(9, -1, -1, -1).transpose(0, 1)[None])[0]
    inside_YX = torch.zeros(4, 6, dtype=torch.bool)
    inside_YX[1, 2:4] = True
    assert torch.equal(target_BCFYX[0][..., inside_YX], latent_BCFYX[0][..., inside_YX])
    assert torch.equal(target_BCFYX[0][..., ~inside_YX], still_CFYX[..., ~inside_YX])
    assert torch.equal(target_BCFYX[1], latent_BCFYX[1])


def test_reference_image_is_the_earliest_guide_or_the_first_listed(wan_codec):
    exact = encode(make([16, 8]), wan_codec, "wan").reference_image
    anisora = encode(make([16, 8], snap="anisora"), wan_codec, "wan").reference_image
    assert exact.tobytes() == Image.fromarray(random_picture(8)).tobytes()
    assert anisora.tobytes() == Image.fromarray(random_picture(16)).tobytes()
