"""The pipelines: stock equality, defaults, landing, compositing, counting, saving, and the known traps."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from anisora.errors import BadCheckpoint, BadPosition, BadRequest, BadSize, OutOfMemory, UnknownModel
from anisora.generation.pipeline import AniSoraCogVideoXPipeline, AniSoraVACEPipeline, AniSoraWanPipeline
from anisora.models.tiny import TINY_FAMILIES
from anisora.records import Guide

FAMILIES = list(TINY_FAMILIES)


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def stock(pipeline):
    """The stock pipeline on the very same modules."""
    made = pipeline.stock_class(**pipeline.components, **_stock_config(pipeline))
    made.set_progress_bar_config(disable=True)
    return made


def _stock_config(pipeline):
    return {key: pipeline.config[key] for key in ("boundary_ratio",) if key in pipeline.config}


@pytest.mark.parametrize("family", FAMILIES)
def test_frame_0_alone_equals_stock(tiny_pipeline, picture, family):
    pipeline = tiny_pipeline(family)
    guide = picture(1)
    common = dict(height=32, width=48, num_frames=9, num_inference_steps=2, guidance_scale=3.0, prompt="she waves")
    common |= dict(negative_prompt="blur", max_sequence_length=pipeline.checkpoint.max_text_tokens, output_type="pt")
    if family == "vace":
        video, mask = np.full((9, 32, 48, 3), 0.5, np.float32), np.ones((9, 32, 48, 1), np.float32)
        video[0], mask[0] = guide / np.float32(255), 0
        given = {"video": [video], "mask": [mask]}
    else:
        given = {"image": Image.fromarray(guide)}
    truth = stock(pipeline)(**given, **common, generator=noise()).frames
    ours = pipeline(guides=[Guide(guide)], **common, generator=noise())
    if family == "wan-block":  # stock has no guide-aware decoder, so latents are compared
        common["output_type"] = "latent"
        truth = stock(pipeline)(**given, **common, generator=noise()).frames
        ours = pipeline(guides=[Guide(guide)], **common, generator=noise())
    assert truth.std() > 0.01
    assert torch.allclose(ours.frames, truth, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_makes_a_shot_with_the_recipe_of_its_checkpoint(tiny_pipeline, picture, family):
    pipeline = tiny_pipeline(family)
    out = pipeline("she waves", [Guide(picture(1)), Guide(picture(2), "100%")], generator=noise())
    assert out.frames.shape == (1, 9, 32, 48, 3)
    assert np.isfinite(out.frames).all()
    assert [(landing.frame, landing.slot) for landing in out.landings] == [(0, 0), (8, 2)]
    assert out.forwards == pipeline.checkpoint.recipe.steps == 2
    assert all(seconds > 0 for seconds in out.seconds.values())
    again = pipeline("she waves", [Guide(picture(1)), Guide(picture(2), -1)], generator=noise())
    assert np.array_equal(out.frames, again.frames)


@pytest.mark.parametrize("family", ["wan", "wan-clip", "wan-experts", "cogvideox", "vace"])
def test_guidance_1_runs_one_forward_a_step(tiny_pipeline, picture, family):
    pipeline = tiny_pipeline(family)
    calls = []
    hooks = [
        network.register_forward_pre_hook(
            lambda m, args, kwargs: calls.append(len(kwargs["hidden_states"])), with_kwargs=True
        )
        for network in pipeline._networks()
    ]
    try:
        for guidance, a_step in ((1.0, 1), (2.0, 2)):
            calls.clear()
            out = pipeline("she waves", [Guide(picture())], guidance_scale=guidance, num_inference_steps=3)
            assert sum(calls) == out.forwards == 3 * a_step
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("family", ["wan", "wan-clip", "cogvideox", "vace"])
def test_each_guide_changes_the_shot(tiny_pipeline, picture, family):
    pipeline = tiny_pipeline(family)
    made = [
        pipeline("she waves", guides, generator=noise(), output_type="latent").frames
        for guides in (
            [Guide(picture(1))],
            [Guide(picture(1)), Guide(picture(2), 4)],
            [Guide(picture(1)), Guide(picture(2), 8)],
        )
    ]
    for i in range(3):
        assert not torch.allclose(made[i], made[i - 1], atol=1e-4)


def test_the_experts_share_the_steps_at_the_boundary(tiny_pipeline, picture):
    """8 steps, shift 5, boundary 0.9: t = 1000, 972, 937 | 893, 833, 750, 625, 417 (AniSora V3.2)."""
    pipeline = tiny_pipeline("wan-experts")
    before = pipeline.scheduler
    from anisora.models.sampler import make_scheduler

    pipeline.scheduler = make_scheduler(before, "unipc")
    seen = {"transformer": [], "transformer_2": []}
    hooks = [
        getattr(pipeline, name).register_forward_pre_hook(
            lambda m, args, kwargs, times=times: times.append(float(kwargs["timestep"][0])), with_kwargs=True
        )
        for name, times in seen.items()
    ]
    try:
        pipeline("she waves", [Guide(picture())], num_inference_steps=8, shift=5.0)
    finally:
        pipeline.scheduler = before
        for hook in hooks:
            hook.remove()
    assert np.allclose(seen["transformer"], [1000, 972.2, 937.5], atol=2)
    assert np.allclose(seen["transformer_2"], [892.9, 833.3, 750, 625, 416.7], atol=3)


def test_shift_for_one_call_is_taken_back(tiny_pipeline, picture):
    pipeline = tiny_pipeline("wan")
    before = pipeline.scheduler
    plain, shifted = (
        pipeline("", [Guide(picture())], generator=noise(), shift=shift, output_type="latent").frames
        for shift in (None, 9.0)
    )
    assert pipeline.scheduler is before
    assert not torch.allclose(plain, shifted, atol=1e-4)


@pytest.mark.parametrize("family", ["wan", "wan-block", "vace", "cogvideox-mask"])
def test_outside_the_motion_area_the_shot_is_the_guide(tiny_pipeline, picture, family):
    pipeline, guide = tiny_pipeline(family), picture(3)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 16:40] = 255
    out = pipeline("she waves", [Guide(guide)], motion_mask=mask, generator=noise())
    shown = np.rint(out.frames[0] * 255).astype(np.uint8)
    assert np.array_equal(shown[:, mask == 0], np.broadcast_to(guide[mask == 0], (9, *guide[mask == 0].shape)))
    assert (shown[1:, 12:20, 20:36] != guide[12:20, 20:36]).mean() > 0.5
    bare = pipeline("she waves", [Guide(guide)], motion_mask=mask, generator=noise(), composite=False)
    assert not np.array_equal(np.rint(bare.frames[0] * 255)[:, mask == 0], shown[:, mask == 0])


@pytest.mark.parametrize("family", ["wan", "vace"])
def test_a_kept_video_stays_where_it_is_kept(tiny_pipeline, picture, family):
    pipeline = tiny_pipeline(family)
    video = np.stack([picture(seed) for seed in range(9)])
    keep = np.zeros((9, 32, 48), bool)
    keep[:, :, :24] = True
    out = pipeline("she waves", video=video, keep_mask=keep, generator=noise())
    shown = np.rint(out.frames[0] * 255).astype(np.uint8)
    assert np.array_equal(shown[keep], video[keep])
    assert (shown[~keep] != video[~keep]).mean() > 0.5


def test_plain_cogvideox_says_that_only_compositing_holds_the_area(tiny_pipeline, picture):
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 16:40] = 255
    pipeline = tiny_pipeline("cogvideox")
    assert "compositing" in pipeline("", [Guide(picture())], motion_mask=mask).warnings[0]
    with pytest.raises(BadRequest, match="would change nothing"):
        pipeline("", [Guide(picture())], motion_mask=mask, composite=False)


def test_images_of_stock_are_guides(tiny_pipeline, picture):
    pipeline = tiny_pipeline("wan")
    first, last = Image.fromarray(picture(1)), Image.fromarray(picture(2))
    sugar = pipeline("", image=first, last_image=last, generator=noise())
    guides = pipeline("", [Guide(first), Guide(last, -1)], generator=noise())
    assert np.array_equal(sugar.frames, guides.frames)
    with pytest.raises(BadPosition, match="two guides on one frame"):
        pipeline("", [Guide(first)], image=last)


def test_size_follows_the_first_guide(tiny_pipeline, picture):
    pipeline = tiny_pipeline("wan")
    assert pipeline("", [Guide(picture(width=200, height=400))]).frames.shape[2:4] == (48, 32)
    assert pipeline("").frames.shape[2:4] == (32, 48)
    assert pipeline("", [Guide(picture())], width=64, height=16, num_frames=5).frames.shape == (1, 5, 16, 64, 3)
    with pytest.raises(BadSize, match="try 64x32"):
        pipeline("", width=60, height=32)
    with pytest.raises(BadSize, match="half a size"):
        pipeline("", width=64)
    with pytest.raises(BadSize, match="5 or 9"):
        pipeline("", num_frames=8)


def test_seconds_use_the_rate_of_the_checkpoint(tiny_pipeline, picture):
    pipeline = tiny_pipeline("wan")  # 8 frames a second
    assert pipeline("", [Guide(picture(), "0.5s")]).landings[0].frame == 4
    assert pipeline("", [Guide(picture(), "0.5s")], fps=16).landings[0].frame == 8


def test_a_batch_of_prompts_shares_the_guides(tiny_pipeline, picture):
    out = tiny_pipeline("wan")(["she waves", "he runs"], [Guide(picture())], generator=noise())
    assert out.frames.shape == (2, 9, 32, 48, 3)
    assert out.forwards == 2
    assert not np.array_equal(out.frames[0], out.frames[1])


def test_latents_and_callbacks_go_to_stock(tiny_pipeline, picture):
    pipeline, steps = tiny_pipeline("wan"), []

    def look(pipe, step, timestep, tensors):
        steps.append((step, tensors["latents"].shape))
        return {}

    latents = torch.randn(1, 8, 3, 4, 6, generator=noise())
    first = pipeline("", [Guide(picture())], latents=latents, callback_on_step_end=look)
    second = pipeline("", [Guide(picture())], generator=noise())
    assert np.array_equal(first.frames, second.frames)
    assert steps == [(0, (1, 8, 3, 4, 6)), (1, (1, 8, 3, 4, 6))]
    with pytest.raises(BadRequest, match="latents"):
        pipeline("", [Guide(picture())], latents=latents[:, :4])


def test_vace_takes_references(tiny_pipeline, picture):
    pipeline = tiny_pipeline("vace")
    reference = Image.fromarray(picture(7))
    plain, referred = (
        pipeline("", [Guide(picture(1))], generator=noise(), output_type="latent", **more).frames
        for more in ({}, {"reference_images": [reference]})
    )
    assert referred.shape[2] == plain.shape[2] + 1  # "latent" is what the denoising left: the reference in front
    shown = pipeline("", [Guide(picture(1))], reference_images=[reference]).frames
    assert shown.shape == (1, 9, 32, 48, 3)


# Known traps of the stock pipelines.


def test_the_clip_branch_refuses_other_text_lengths(tiny_pipeline, picture):
    pipeline = tiny_pipeline("wan-clip")
    with pytest.raises(BadRequest, match="got 64 text tokens; expected 512"):
        pipeline("she waves", [Guide(picture())], max_sequence_length=64)
    with pytest.raises(BadRequest, match="got 100 text tokens"):
        pipeline(guides=[Guide(picture())], prompt_embeds=torch.zeros(1, 100, 32))


def test_why_the_clip_branch_refuses_them(tiny_pipeline):
    """Stock counts image tokens as all but 512: padding that changes nothing elsewhere changes the picture here."""
    network = tiny_pipeline("wan-clip").transformer
    text, image = torch.randn(1, 512, 32, generator=noise()), torch.randn(1, 17, 32, generator=noise(1))
    latent = torch.randn(1, 36, 3, 4, 6, generator=noise(2))

    def look(text):
        return network(latent, torch.tensor([500.0]), text, image, return_dict=False)[0]

    with torch.no_grad():
        right, wrong = look(text), look(torch.cat([text, text[:, :8]], dim=1))
    assert not torch.allclose(right, wrong, atol=1e-4)


def test_a_last_image_works_on_a_plain_clip_checkpoint(tiny_pipeline, picture):
    """Stock embeds both pictures and then fails on their number; ours embeds one and gives the other as a guide."""
    pipeline = tiny_pipeline("wan-clip")
    first, last = Image.fromarray(picture(1)), Image.fromarray(picture(2))
    with pytest.raises(RuntimeError):
        stock(pipeline)(first, "", last_image=last, height=32, width=48, num_frames=9, num_inference_steps=1)
    seen = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["encoder_hidden_states_image"].clone()), with_kwargs=True
    )
    try:
        both = pipeline("", image=first, last_image=last, generator=noise(), output_type="latent").frames
        alone = pipeline("", image=first, generator=noise(), output_type="latent").frames
    finally:
        hook.remove()
    assert seen[0].shape == (1, 17, 32)
    assert torch.equal(seen[0], seen[-1])  # the earliest guide is embedded, whatever else is given
    assert not torch.allclose(both, alone, atol=1e-4)
    with pytest.raises(BadRequest, match="looks at a picture"):
        pipeline("no guide at all")


def whole_number_tables(num_frames, rows, columns, dim, theta=10000.0):
    """Rotary tables as SAT makes them: positions count patches; a quarter of the channels for time, the rest halved."""
    tables = []
    for size, share in ((num_frames, dim // 4), (rows, dim // 8 * 3), (columns, dim // 8 * 3)):
        speed = theta ** (-torch.arange(0, share, 2, dtype=torch.float64) / share)
        tables.append((torch.arange(size, dtype=torch.float64)[:, None] * speed).repeat_interleave(2, dim=1))
    time, down, across = tables
    grid = (num_frames, rows, columns, -1)
    parts = [time[:, None, None].expand(grid), down[None, :, None].expand(grid), across[None, None].expand(grid)]
    angle = torch.cat(parts, dim=-1).flatten(0, 2)
    return angle.cos(), angle.sin()


@pytest.mark.parametrize("family", ["cogvideox", "cogvideox-packed"])
@pytest.mark.parametrize("size_px", [(48, 32), (96, 32), (32, 80), (1280, 720)])
def test_cogvideox_counts_patches_by_whole_numbers_at_every_size(tiny_pipeline, family, size_px):
    pipeline = tiny_pipeline(family)
    width, height = size_px
    ours = pipeline._prepare_rotary_positional_embeddings(height, width, 4, "cpu")
    slots = 4 if family == "cogvideox" else 2
    truth = whole_number_tables(slots, height // 16, width // 16, pipeline.transformer.config.attention_head_dim)
    for table, true in zip(ours, truth, strict=True):
        assert torch.allclose(table.double(), true, atol=1e-5)
    if size_px == (48, 32):  # the config's own size: stock is right here
        theirs = pipeline.stock_class._prepare_rotary_positional_embeddings(pipeline, height, width, 4, "cpu")
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_stock_cogvideox_tables_are_still_wrong_away_from_the_configs_size(tiny_pipeline):
    """When this fails diffusers has changed; look whether our own tables are still needed."""
    pipeline = tiny_pipeline("cogvideox")
    ours, theirs = (
        make(pipeline, 32, 96, 3, "cpu")[0]
        for make in (
            type(pipeline)._prepare_rotary_positional_embeddings,
            pipeline.stock_class._prepare_rotary_positional_embeddings,
        )
    )
    assert not torch.allclose(ours, theirs, atol=0.1)


def test_cogvideox_makes_other_sizes(tiny_pipeline, picture):
    for family in ("cogvideox", "cogvideox-packed"):
        out = tiny_pipeline(family)("", [Guide(picture())], width=64, height=48, num_frames=17)
        assert out.frames.shape == (1, 17, 48, 64, 3)
        # An even number of latent frames, of which stock's decoder makes 16 frames.
        assert tiny_pipeline(family)("", [Guide(picture())], num_frames=13).frames.shape[1] == 13


# Loading, saving, faults.


@pytest.mark.parametrize("family", ["wan-block", "wan-experts", "cogvideox-mask", "vace"])
def test_saved_and_loaded_again_it_is_the_same(tiny_pipeline, picture, tmp_path, family):
    pipeline = tiny_pipeline(family)
    pipeline.save_pretrained(tmp_path)
    again = type(pipeline).from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    first, second = (p("she waves", [Guide(picture())], generator=noise()).frames for p in (pipeline, again))
    assert np.array_equal(first, second)
    assert again.checkpoint.recipe == pipeline.checkpoint.recipe
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == pipeline.stock_class.__name__
    assert type(diffusers.DiffusionPipeline.from_pretrained(tmp_path)) is pipeline.stock_class


def test_the_guide_aware_decoder_is_applied(tiny_pipeline, picture):
    pipeline = tiny_pipeline("wan-block")
    assert "guide_decoder" not in pipeline.components
    with_it = pipeline("", [Guide(picture())], generator=noise()).frames
    decoder, pipeline.guide_decoder = pipeline.guide_decoder, None
    try:
        without = pipeline("", [Guide(picture())], generator=noise()).frames
    finally:
        pipeline.guide_decoder = decoder
    assert not np.allclose(with_it, without, atol=1e-4)


def test_a_pipeline_of_parts_knows_itself(tiny_pipeline, picture):
    parts = tiny_pipeline("wan")
    pipeline = AniSoraWanPipeline(**parts.components)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.checkpoint.family == "wan"
    assert pipeline.checkpoint.recipe.steps == 40
    out = pipeline("", [Guide(picture())], height=32, width=48, num_frames=5, num_inference_steps=1, guidance_scale=1)
    assert out.frames.shape == (1, 5, 32, 48, 3)


def test_half_precision(tiny, picture):
    pipeline = AniSoraWanPipeline.from_pretrained(tiny("wan-block"), torch_dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.guide_decoder.dtype == torch.bfloat16
    assert np.isfinite(pipeline("", [Guide(picture())]).frames).all()


def test_the_wrong_class_names_the_right_one(tiny):
    with pytest.raises(BadRequest, match="AniSoraVACEPipeline"):
        AniSoraWanPipeline.from_pretrained(tiny("vace"))
    with pytest.raises(UnknownModel):
        AniSoraCogVideoXPipeline.from_pretrained("somewhere/nothing")
    with pytest.raises(BadCheckpoint):
        AniSoraVACEPipeline.from_pretrained(tiny("wan").parent)


def test_no_prompt_is_refused(tiny_pipeline, picture):
    with pytest.raises(BadRequest, match="no prompt"):
        tiny_pipeline("wan")(guides=[Guide(picture())])


def test_out_of_memory_says_what_to_lower(tiny_pipeline):
    """13 PB of pixels: more than any machine can map, so torch's allocator really fails."""
    with pytest.raises(OutOfMemory, match=r"16384x16384, 4000001 frames.*fewer frames"):
        tiny_pipeline("wan")("", width=16384, height=16384, num_frames=4_000_001)
