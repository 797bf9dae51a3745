"""The plan: what is given, what it shows, where guides land, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anisora import geometry
from anisora.conditioning.composite import composite
from anisora.conditioning.plan import plan, plan_from_tensors
from anisora.errors import AnisoraError, BadImage, BadMask, BadPosition, BadRequest, BadSize, BadVideo
from anisora.geometry import Strides
from anisora.media.frames import to_uint8_THWC
from anisora.records import Guide

from .conftest import random_picture, to_chw

SIZE_PX = (48, 32)
RED, BLUE = np.full((32, 48, 3), (255, 0, 0), np.uint8), np.full((32, 48, 3), (0, 0, 255), np.uint8)


def make(guides, num_frames=9, size_px=SIZE_PX, **options):
    guides = [guide if isinstance(guide, Guide) else Guide(*guide) for guide in guides]
    return plan(num_frames=num_frames, size_px=size_px, guides=guides, **options)


def box(x0, y0, x1, y1, width=48, height=32):
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 255
    return mask


def test_guides_alone_are_given_whole_and_everything_else_is_exactly_zero():
    for num_frames in (1, 5, 9, 17):
        for frame in range(num_frames):
            made = make([(random_picture(frame), frame)], num_frames)
            assert made.keep_T1HW.flatten(1).amin(1).nonzero().flatten().tolist() == [frame]
            assert made.keep_T1HW.sum() == 32 * 48
            assert torch.equal(made.video_TCHW[frame], to_chw(random_picture(frame)))
            ungiven = made.video_TCHW[torch.arange(num_frames) != frame]
            assert not ungiven.any()
            assert not torch.signbit(ungiven).any()
            (landing,) = made.landings
            assert (landing.frame, landing.slot, landing.channel) == geometry.landings([frame])[0]


def test_positions_are_resolved_and_what_was_asked_is_reported_in_order():
    made = make([(RED, -1), (BLUE, "50%"), (RED, "0.25s")], 17, fps=8)
    assert [(at.asked, at.frame) for at in made.landings] == [(-1, 16), ("50%", 8), ("0.25s", 2)]
    assert made.num_frames == 17
    assert made.size_px == SIZE_PX


def test_anisora_snap_moves_guides_to_multiples_of_eight_and_says_so():
    made = make([(RED, 0), (BLUE, 11), (RED, -1)], 29, snap="anisora")
    assert [(at.asked, at.frame, at.slot, at.channel) for at in made.landings] == [
        (0, 0, 0, 0),
        (11, 8, 2, 3),
        (-1, 24, 6, 3),
    ]


def test_motion_area_keeps_the_earliest_guide_around_it_in_every_frame():
    first, last = random_picture(1), random_picture(2)
    made = make([(last, 8), (first, 3)], motion_mask=box(10, 5, 30, 20))
    area = torch.from_numpy(box(10, 5, 30, 20) > 0)
    for frame in range(9):
        keep_HW, shown = made.keep_T1HW[frame, 0], made.video_TCHW[frame]
        assert torch.equal(shown[:, ~area], to_chw(first)[:, ~area])
        if frame in (3, 8):
            assert keep_HW.all()
            assert torch.equal(shown[:, area], to_chw({3: first, 8: last}[frame])[:, area])
        else:
            assert torch.equal(keep_HW, (~area).float())
            assert not shown[:, area].any()


def test_a_guide_that_disagrees_outside_the_area_is_reported_in_levels():
    moved = RED.copy()
    moved[:, 24:] = (235, 40, 0)  # mean of 20, 40 and 0 levels: 20
    made = make([(RED, 0), (moved, 4), (RED, 8)], motion_mask=box(0, 0, 24, 32))
    assert [at.static_difference_levels for at in made.landings] == pytest.approx([0, 20, 0], abs=1e-3)
    assert [at.static_difference_levels for at in make([(RED, 0)]).landings] == [None]


def test_half_is_inside_the_motion_area_and_below_is_not():
    motion = np.full((32, 48), 0.49, np.float32)
    motion[:, :24] = 0.5
    made = make([(RED, 0)], motion_mask=motion)
    assert made.keep_T1HW[1, 0, 0].tolist() == [0.0] * 24 + [1.0] * 24


def test_a_mask_video_moves_the_area_from_frame_to_frame():
    video = np.stack([box(frame, 4, frame + 8, 12) for frame in range(9)])
    made = make([(RED, 0)], motion_mask=video)
    assert torch.equal(1 - made.keep_T1HW[1:, 0], torch.from_numpy(video[1:] > 0).float())


@pytest.mark.parametrize(
    "form",
    [
        lambda mask: mask,
        lambda mask: mask > 0,
        lambda mask: (mask / 255).astype(np.float64),
        Image.fromarray,
        lambda mask: Image.fromarray(mask).convert("RGB"),
        lambda mask: [Image.fromarray(mask)] * 9,
    ],
)
def test_every_form_of_a_mask_means_the_same(form):
    mask = box(3, 4, 20, 25)
    truth = make([(RED, 0)], motion_mask=mask)
    assert torch.equal(make([(RED, 0)], motion_mask=form(mask)).keep_T1HW, truth.keep_T1HW)


def test_pictures_and_masks_are_read_from_files(tmp_path):
    picture, mask = random_picture(5), box(8, 8, 24, 24)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    made = make([(tmp_path / "picture.png", 0)], motion_mask=str(tmp_path / "mask.png"))
    truth = make([(picture, 0)], motion_mask=mask)
    assert torch.equal(made.video_TCHW, truth.video_TCHW)
    assert torch.equal(made.keep_T1HW, truth.keep_T1HW)


def test_a_kept_video_shows_where_it_is_kept_and_a_guide_wins_on_its_frame():
    video = np.stack([random_picture(frame) for frame in range(9)])
    keep = np.stack([box(frame, 0, frame + 20, 32) for frame in range(9)])
    made = make([(RED, 4)], video=video, keep_mask=keep)
    for frame in range(9):
        if frame == 4:
            assert made.keep_T1HW[4].all()
            assert torch.equal(made.video_TCHW[4], to_chw(RED))
        else:
            kept = torch.from_numpy(keep[frame] > 0)
            assert torch.equal(made.keep_T1HW[frame, 0], kept.float())
            assert torch.equal(made.video_TCHW[frame], to_chw(video[frame]) * kept)
    assert made.landings[0].static_difference_levels is None
    assert made.reference_frame == 4
    assert make([], video=video, keep_mask=keep).reference_frame == 0


def test_the_reference_of_a_kept_video_is_the_frame_that_keeps_most():
    video = np.stack([random_picture(frame) for frame in range(9)])
    keep = np.zeros((9, 32, 48), bool)
    keep[2, :20], keep[5], keep[7] = True, True, True
    made = make([], video=video, keep_mask=keep)
    assert made.reference_frame == 5
    assert made.reference_image.tobytes() == video[5].tobytes()


def test_text_only_gives_nothing():
    made = make([])
    assert not made.video_TCHW.any()
    assert not made.keep_T1HW.any()
    assert made.reference_image is None
    assert made.blend_T1HW is None
    assert made.landings == ()


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 200), st.integers(8, 200), st.sampled_from(["cover", "contain"]))
def test_masks_are_moved_as_their_pictures_are(width, height, fit):
    """A picture that draws the mask lands where the mask lands."""
    mask = box(width // 4, height // 4, width - width // 4, height - height // 5, width, height)
    drawn = np.repeat(mask[..., None], 3, axis=2)
    made = make([(drawn, 0)], motion_mask=mask, fit=fit)
    shown = made.video_TCHW[0, 0] > 0
    assert made.motion_T1HW is not None
    area = made.motion_T1HW[0, 0] >= 0.5
    # they were resampled with different kernels, so a pixel next to an edge (or to the frame's) may fall either way
    around = torch.nn.functional.pad(area, (1, 1, 1, 1)).unfold(0, 3, 1).unfold(1, 3, 1)
    assert (shown | ~around.all(-1).all(-1)).all()
    assert (~shown | around.any(-1).any(-1)).all()


@pytest.mark.parametrize("fit", ["cover", "contain"])
def test_a_mask_of_another_resolution_lands_where_the_full_one_does(fit):
    picture = random_picture(0, 200, 100)
    full, half = box(40, 20, 120, 60, 200, 100), box(20, 10, 60, 30, 100, 50)
    areas = [make([(picture, 0)], motion_mask=mask, fit=fit).keep_T1HW for mask in (full, half)]
    assert (areas[0] != areas[1]).float().mean() < 0.02


def test_cover_fills_the_frame_and_contain_shows_all_with_static_black_bars():
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, :24], wide[:, 24:72], wide[:, 72:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    everything = np.full((32, 96), 255, np.uint8)
    cover = make([(wide, 0)], motion_mask=everything, fit="cover")
    assert (cover.video_TCHW[0, 1] == 1).all()
    assert not cover.keep_T1HW[1:].any()
    contain = make([(wide, 0)], motion_mask=everything, fit="contain")
    assert (contain.video_TCHW[0, :, :8] == -1).all()
    assert contain.video_TCHW[0, :, 16, 0].tolist() == [1, -1, -1]
    assert contain.keep_T1HW[1, 0, :, 0].tolist() == [1.0] * 8 + [0.0] * 16 + [1.0] * 8


def test_strengths_are_carried_for_their_frames():
    made = make([Guide(RED, 0), Guide(BLUE, 4, strength=0.5)])
    assert made.strength_T.tolist() == [1, 1, 1, 1, 0.5, 1, 1, 1, 1]
    assert made.keep_T1HW[4].all()
    assert [at.strength for at in made.landings] == [1, 0.5]


def test_a_clip_at_size_gives_the_plan_that_its_pictures_give():
    video = np.stack([random_picture(frame) for frame in range(9)])
    clip_TCHW = torch.stack([to_chw(picture) for picture in video])
    area = box(10, 5, 30, 20)
    motion_T1HW = torch.from_numpy(area > 0).expand(1, 1, -1, -1)
    cases = [
        (make([(video[p], p) for p in (0, 6)]), plan_from_tensors(clip_TCHW, [0, 6])),
        (
            make([(video[p], p) for p in (6, 2)], motion_mask=area),
            plan_from_tensors(clip_TCHW, [6, 2], motion_T1HW=motion_T1HW),
        ),
        (
            make([(video[3], 3)], video=video, keep_mask=area),
            plan_from_tensors(clip_TCHW, [3], keep_T1HW=motion_T1HW),
        ),
    ]
    for slow, fast in cases:
        for name in ("video_TCHW", "keep_T1HW", "strength_T", "motion_T1HW", "still_TCHW", "blend_T1HW"):
            one, other = getattr(slow, name), getattr(fast, name)
            assert (one is None and other is None) or torch.equal(one.expand_as(other), other), name
        assert slow.landings == fast.landings
        assert slow.reference_frame == fast.reference_frame


def test_the_cogvideox_families_report_slots_and_channels_as_far_as_they_have_them():
    assert make([(RED, 6)], family="cogvideox").landings[0].channel is None
    assert make([(RED, 6)], family="cogvideox_mask").landings[0].channel == 1
    assert make([(RED, 6)], family="cogvideox").landings[0].slot == 2


def test_composite_is_the_guide_outside_the_area_to_the_last_bit_and_generated_inside():
    first = random_picture(1)
    made = make([(first, 2), (random_picture(2), 8)], motion_mask=box(10, 5, 40, 28), feather_px=3)
    generated = torch.rand(9, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 3 - 1.5
    out = composite(generated, made)
    area = box(10, 5, 40, 28) > 0
    for frame in to_uint8_THWC(out.transpose(0, 1)):
        assert np.array_equal(frame[~area], first[~area])
    deep = box(14, 9, 36, 24) > 0  # further in than the feather
    assert torch.equal(out[:, :, torch.from_numpy(deep)], generated[:, :, torch.from_numpy(deep)])
    between = (out - made.still_TCHW) * (out - generated)
    assert (between <= 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_composite_is_exact_for_half_precision_too(dtype):
    first = random_picture(1)
    made = make([(first, 0)], motion_mask=box(10, 5, 40, 28))
    out = composite(torch.full((9, 3, 32, 48), float("nan"), dtype=dtype), made)
    outside = ~torch.from_numpy(box(10, 5, 40, 28) > 0)
    levels = ((out[:, :, outside].float() + 1) * 127.5).round()
    assert torch.equal(levels[0], ((to_chw(first)[:, outside] + 1) * 127.5).round())


def test_composite_puts_kept_pixels_of_a_video_back_without_a_feather():
    video = np.stack([random_picture(frame) for frame in range(9)])
    keep = np.stack([box(frame, 0, frame + 20, 32) for frame in range(9)])
    made = make([(RED, 4)], video=video, keep_mask=keep)
    generated = torch.rand(9, 3, 32, 48)
    out = composite(generated, made)
    kept_TCHW = torch.from_numpy(keep > 0)[:, None].expand_as(out)
    assert torch.equal(out[~kept_TCHW], generated[~kept_TCHW])
    truth = torch.stack([to_chw(picture) for picture in [*video[:4], RED, *video[5:]]])
    assert torch.equal(out[kept_TCHW], truth[kept_TCHW])


def test_composite_without_an_area_changes_nothing():
    generated = torch.rand(9, 3, 32, 48)
    assert composite(generated, make([(RED, 0)])) is generated


WHITE, BLACK = np.full((32, 48), 255, np.uint8), np.zeros((32, 48), np.uint8)
VIDEO = np.zeros((9, 32, 48, 3), np.uint8)

REFUSED = {
    "two on one frame": (BadPosition, r"guide 1 at 8 .frame 8. and guide 2 at -1", dict(guides=[(RED, 8), (BLUE, -1)])),
    "two snapped together": (
        BadPosition,
        "guide 1 at 7 .frame 8. and guide 2 at 8",
        dict(guides=[(RED, 7), (BLUE, 8)], snap="anisora"),
    ),
    "two in one slot": (
        BadPosition,
        r"guide 1 at 5 .frame 5. and guide 2 at 8.*among frames 5 to 8",
        dict(guides=[(RED, 5), (BLUE, 8)], family="cogvideox"),
    ),
    "two in one slot, masked": (
        BadPosition,
        "one latent frame",
        dict(guides=[(RED, 1), (BLUE, 2)], family="cogvideox_mask"),
    ),
    "outside": (BadPosition, "frames 0 to 8", dict(guides=[(RED, 9)])),
    "mask aspect": (BadMask, "got 32x48; expected the aspect of 48x32; try", dict(motion_mask=WHITE.T)),
    "mask length": (BadMask, "got 5; expected 1 or 9", dict(motion_mask=np.stack([WHITE] * 5))),
    "empty motion mask": (BadMask, "nothing may move", dict(motion_mask=BLACK)),
    "mask range": (BadMask, "motion mask.*0 to 255.*expected 0 to 1", dict(motion_mask=box(0, 0, 9, 9) * 1.0)),
    "mask type": (BadMask, "motion mask", dict(motion_mask=WHITE.astype(np.int64))),
    "mask of uneven frames": (
        BadMask,
        "different sizes",
        dict(motion_mask=[Image.new("L", (48, 32))] * 8 + [Image.new("L", (3, 2))]),
    ),
    "mask of no frames": (BadMask, "motion mask", dict(motion_mask=[])),
    "mask file missing": (BadMask, "motion mask.*nowhere.png", dict(motion_mask="nowhere.png")),
    "mask without guide": (BadRequest, "without a guide", dict(guides=[], motion_mask=WHITE)),
    "video without mask": (BadRequest, "a video alone", dict(video=VIDEO)),
    "mask without video": (BadRequest, "a keep mask alone", dict(keep_mask=box(0, 0, 9, 9))),
    "both masks": (BadRequest, "both", dict(motion_mask=WHITE, video=VIDEO, keep_mask=box(0, 0, 9, 9))),
    "video for cogvideox": (
        BadRequest,
        "wan or vace",
        dict(video=VIDEO, keep_mask=box(0, 0, 9, 9), family="cogvideox"),
    ),
    "video length": (BadVideo, "5 frames; expected 9", dict(video=VIDEO[:5], keep_mask=box(0, 0, 9, 9))),
    "video type": (BadVideo, "float64", dict(video=VIDEO * 1.0, keep_mask=box(0, 0, 9, 9))),
    "keep mask aspect": (BadMask, "than the video", dict(video=VIDEO, keep_mask=box(0, 0, 9, 9).T)),
    "keep everything": (BadMask, "keeps everything", dict(video=VIDEO, keep_mask=WHITE)),
    "keep nothing": (BadMask, "keeps nothing", dict(video=VIDEO, keep_mask=BLACK)),
    "length": (BadSize, "try 5 or 9", dict(num_frames=8)),
    "size": (BadSize, "multiples of 16.*try 48x32", dict(size_px=(50, 32))),
    "family": (BadRequest, "unknown family", dict(family="sora")),
    "snap": (BadRequest, "unknown snap", dict(snap="8")),
    "fit": (BadRequest, "unknown fit", dict(fit="stretch")),
    "no picture": (BadImage, "int", dict(guides=[(7, 0)])),
    "missing picture": (BadImage, "nowhere.png", dict(guides=[("nowhere.png", 0)])),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_plain_words(case):
    error, words, options = REFUSED[case]
    with pytest.raises(error, match=f"(?s){words}") as caught:
        make(**{"guides": [(RED, 0)], **options})
    assert isinstance(caught.value, AnisoraError)
    assert caught.value.exit_code == 2


def test_strides_decide_what_is_legal():
    fine = Strides(temporal=2, spatial=4, patch_spatial=1)
    made = plan(num_frames=7, size_px=(20, 12), guides=[Guide(RED, 6)], strides=fine)
    assert (made.landings[0].slot, made.landings[0].channel) == (3, 1)
    with pytest.raises(BadSize):
        plan(num_frames=8, size_px=(20, 12), strides=fine)


def test_training_is_guarded_against_what_it_would_not_notice():
    clip = torch.zeros(9, 3, 16, 16)
    with pytest.raises(ValueError, match="give one"):
        plan_from_tensors(clip, keep_T1HW=torch.ones(9, 1, 16, 16), motion_T1HW=torch.ones(9, 1, 16, 16))
    with pytest.raises(BadPosition):
        plan_from_tensors(clip, [5, 8], family="cogvideox")
