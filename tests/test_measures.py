"""Each measure against videos whose answer is known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from anisora.measures import baselines, flow, linear_code, motion, similarity


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """OpenCV's threads wait for each other on a busy machine; these pictures are small."""
    import cv2

    cv2.setNumThreads(1)


def texture(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    """A picture with detail at all scales, smooth enough to be moved by parts of a pixel."""
    import cv2

    rng = np.random.default_rng(seed)
    octaves = [rng.normal(size=(height // size, width // size, 3)) * size for size in (2, 4, 8, 16)]
    picture = sum(cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC) for octave in octaves)
    return np.clip(128 + 4 * picture, 0, 255).astype(np.uint8)


def sliding_square(num_frames: int = 9, step_px: int = 3, background: np.ndarray | None = None) -> tuple:
    """A textured square that slides over a still background; the frames and its mask."""
    background = texture() if background is None else background
    square = texture(24, 24, seed=5)[..., ::-1] // 2 + 100
    frames = np.repeat(background[None], num_frames, axis=0)
    masks = np.zeros(frames.shape[:3], bool)
    for t in range(num_frames):
        x = 20 + step_px * t
        frames[t, 30:54, x : x + 24] = square
        masks[t, 30:54, x : x + 24] = True
    return frames, masks


def test_psnr_follows_its_definition_and_stops_at_the_rounding_error():
    truth = np.full((2, 8, 8, 3), 100, np.uint8)
    assert similarity.psnr_db(truth + np.uint8(10), truth) == pytest.approx(10 * np.log10(255**2 / 100))
    assert similarity.psnr_db(truth, truth) == pytest.approx(58.92, abs=0.01)
    half = np.zeros((2, 8, 8), bool)
    half[:, :4] = True
    off = truth.copy()
    off[:, 4:] = 0
    assert similarity.psnr_db(off, truth, half) > 58
    assert np.isnan(similarity.psnr_db(off, truth, half & ~half))


def test_ssim_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = texture(seed=1)[None], texture(seed=2)[None] // 2 + texture(seed=1)[None] // 2
    theirs = metrics.structural_similarity(
        a[0], b[0], channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    # scikit-image reflects the border where OpenCV does the same but for the edge pixel; both leave out 5 pixels.
    assert similarity.ssim(a, b) == pytest.approx(theirs, abs=1e-4)
    assert similarity.ssim(a, a) == pytest.approx(1)


def test_fine_detail_falls_with_blur_and_rises_with_noise():
    import cv2

    sharp = texture()[None]
    blurred = cv2.GaussianBlur(sharp[0], (0, 0), 1.5)[None]
    noisy = np.clip(sharp + np.random.default_rng(0).normal(0, 8, sharp.shape), 0, 255).astype(np.uint8)
    energy = similarity.hf_energy
    assert energy(blurred) < 0.5 * energy(sharp) < 0.5 * energy(noisy)


def test_brightness_drift_is_the_worst_frame():
    guide = np.full((8, 8, 3), 100, np.uint8)
    frames = np.stack([guide, guide + np.uint8(2), guide - np.uint8(6), guide])
    assert similarity.brightness_drift(frames, guide) == pytest.approx(0.06)


def test_flow_finds_a_shift_and_the_camera_fit_ignores_what_moves_on_its_own():
    frames, masks = sliding_square(num_frames=2, step_px=4)
    found = flow.dis_flow(*frames)
    assert found[masks[0]].mean(axis=0) == pytest.approx([4, 0], abs=0.6)
    panned = np.stack([frames[0], np.roll(frames[0], 3, axis=1)])
    camera = flow.fit_camera(flow.dis_flow(*panned))
    assert camera == pytest.approx(np.array([[1, 0, 3], [0, 1, 0]]), abs=0.15)


@pytest.mark.parametrize("fine", [True, False])
def test_a_flow_is_the_same_whatever_was_looked_at_before(fine):
    frames, _ = sliding_square(num_frames=2, step_px=4)
    before = flow.dis_flow(*frames, fine=fine)
    small = np.random.default_rng(0).integers(0, 255, (2, 24, 24, 3), np.uint8)
    flow.dis_flow(*small, fine=fine)  # OpenCV lowers its finest scale for these
    assert np.array_equal(flow.dis_flow(*frames, fine=fine), before)


def test_pull_undoes_what_an_affine_flow_says():
    picture = texture().astype(np.float32)
    shifted = flow.pull(picture, flow.affine_flow(np.array([[1, 0, 5.0], [0, 1, -2.0]]), 96, 96))
    assert np.allclose(shifted[10:-10, 10:-10], picture[8:-12, 15:-5])


def test_foreground_motion_is_counted_beyond_the_camera():
    frames, masks = sliding_square(step_px=3)
    assert motion.foreground_motion_px(frames, masks) == pytest.approx(2.4, abs=0.6)  # the uncovered rim stands still
    still = np.repeat(frames[:1], 9, axis=0)
    assert motion.foreground_motion_px(still, masks) < 0.05
    panned = np.stack([np.roll(frames[0], 2 * t, axis=1) for t in range(9)])
    pan_masks = np.stack([np.roll(masks[0], 2 * t, axis=1) for t in range(9)])
    assert motion.foreground_motion_px(panned, pan_masks) < 0.3
    assert np.isnan(motion.foreground_motion_px(frames, masks & ~masks))


def test_motion_counts_along_the_truth():
    frames, masks = sliding_square(step_px=3)
    noise = np.random.default_rng(0).integers(0, 255, frames.shape, dtype=np.uint8)
    shots = {"truth": frames, "still": np.repeat(frames[:1], 9, axis=0), "back": frames[::-1], "noise": noise}
    steps = {name: motion.own_motion(shot, masks) for name, shot in shots.items()}
    along = {name: motion.motion_along(made, steps["truth"]) for name, made in steps.items()}
    assert along["truth"] == pytest.approx(1)
    assert along["still"] == pytest.approx(0, abs=0.02)
    assert along["back"] < -0.2  # it moves the other way, in other places
    assert abs(along["noise"]) < 0.1
    assert np.isnan(motion.motion_along([], motion.own_motion(frames, masks & ~masks)))


def test_noise_is_no_motion():
    frames, masks = sliding_square(step_px=3)
    noise = np.random.default_rng(0).integers(0, 255, frames.shape, dtype=np.uint8)
    assert motion.foreground_motion_px(noise, masks) < 0.35 * motion.foreground_motion_px(frames, masks)


def test_a_cross_fade_is_a_blend_and_true_motion_is_not():
    frames, _ = sliding_square()
    guides = {0: frames[0], 8: frames[8]}
    at, pictures = [0, 8], frames[[0, 8]]
    true = motion.blend_residual(frames, pictures, at)
    assert true > 5
    assert motion.blend_residual(baselines.cross_fade(guides, 9), pictures, at) < 0.1 * true
    # A fade between guides that a camera moved apart is still a blend.
    panned = np.stack([np.roll(frames[0], t, axis=1) for t in range(9)])
    assert motion.blend_residual(panned, panned[[0, 8]], at) < 0.6 * true


def test_a_flashed_guide_pops_and_even_motion_does_not():
    frames, _ = sliding_square(num_frames=13)
    assert motion.guide_pop(frames, 6) < 1.5
    assert motion.guide_pop(frames, 0) < 1.5
    popped = frames.copy()
    popped[6] = texture(seed=9)
    assert motion.guide_pop(popped, 6) > 5
    frozen = np.repeat(frames[:1], 13, axis=0)
    assert motion.guide_pop(frozen, 6) == 0


def test_mask_motion_counts_what_moved_inside_and_outside():
    frames, masks = sliding_square()
    area = masks.any(axis=0)
    perfect = motion.mask_motion(frames, area)
    assert perfect.precision == 1
    assert perfect.recall > 0.7
    assert perfect.leakage == 0
    left = area.copy()
    left[:, 48:] = False
    halved = motion.mask_motion(frames, left)
    assert 0.3 < halved.precision < 0.8
    frozen = motion.mask_motion(np.repeat(frames[:1], 9, axis=0), area)
    assert np.isnan(frozen.precision)
    assert frozen.recall == 0


def test_flow_explains_motion_but_neither_noise_nor_flicker():
    frames, masks = sliding_square()
    area = masks.any(axis=0)
    rng = np.random.default_rng(0)
    noise = np.clip(frames[:1] + rng.normal(0, 20, frames.shape), 0, 255).astype(np.uint8)
    flicker = np.stack([np.clip(frames[0] * (1 + 0.05 * (-1) ** t), 0, 255) for t in range(9)]).astype(np.uint8)
    assert motion.explained_by_flow(frames, area) > 0.6
    assert motion.explained_by_flow(noise, area) < 0.35
    assert not motion.explained_by_flow(flicker, area) > 0.5


def test_baselines_keep_the_guides_and_hold_beyond_them():
    frames, _ = sliding_square()
    for make in (baselines.cross_fade, baselines.flow_warp):
        video = make({2: frames[2], 6: frames[6]}, 9)
        assert video.shape == frames.shape
        assert (video[:3] == frames[2]).all()
        assert (video[6:] == frames[6]).all()
    middle = baselines.cross_fade({0: frames[0], 8: frames[8]}, 9)[4]
    assert np.abs(middle - (frames[0].astype(float) + frames[8]) / 2).max() <= 0.5


def test_flow_warp_follows_a_shift_better_than_a_fade():
    picture = texture(96, 128)
    truth = np.stack([picture[:, 2 * t : 2 * t + 96] for t in range(9)])
    guides = {0: truth[0], 8: truth[8]}
    warped, faded = baselines.flow_warp(guides, 9), baselines.cross_fade(guides, 9)
    assert similarity.psnr_db(warped, truth) > similarity.psnr_db(faded, truth) + 3


def test_linear_code_blocks_round_trip_and_more_channels_err_less():
    frames, _ = sliding_square()
    assert (linear_code.from_blocks(linear_code.to_blocks(frames), frames.shape) == frames).all()
    errors = [similarity.psnr_db(linear_code.fit([frames], k, 4, 4).reconstruct(frames), frames) for k in (4, 16, 64)]
    assert errors[0] < errors[1] < errors[2]


def test_linear_code_equals_a_singular_value_decomposition():
    frames, _ = sliding_square()
    videos = [frames[:5], frames]
    blocks = np.concatenate([linear_code.to_blocks(video, 4, 4) for video in videos]).astype(np.float64)
    _, _, rows = np.linalg.svd(blocks - blocks.mean(axis=0), full_matrices=False)
    ours = linear_code.fit(videos, 8, 4, 4).basis
    assert ours.T @ ours == pytest.approx(np.eye(8), abs=1e-5)
    assert ours @ ours.T == pytest.approx(rows[:8].T @ rows[:8], abs=1e-3)
