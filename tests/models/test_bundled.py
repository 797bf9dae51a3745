"""The weights in the package: small, whole, opened by stock diffusers, and they do what the model card says they can."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anisora import AniSoraWanPipeline, Guide
from anisora.models import catalog
from anisora.synthetic import TRAINED_VERSION, render_clip

NATIVE = {"width": 96, "height": 96, "num_frames": 17, "output_type": "np"}


@pytest.fixture(scope="module")
def folder():
    return Path(catalog.resolve("bundled").path)


@pytest.fixture(scope="module")
def pipeline(folder):
    return AniSoraWanPipeline.from_pretrained(folder, torch_dtype=torch.float32)


@pytest.fixture(scope="module")
def clip():
    return render_clip(50_000, 0, split="seen", version=TRAINED_VERSION)


def shot(pipeline, prompt, guides, **more):
    generator = torch.Generator().manual_seed(0)
    made = pipeline(prompt, guides=guides, generator=generator, **NATIVE, **more)
    return np.asarray(made.frames[0])


def psnr_db(frame_HWC, truth_HWC):
    return -10 * np.log10(np.mean((frame_HWC - truth_HWC / 255.0) ** 2))


def test_it_fits_into_the_package(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40e6


def test_stock_diffusers_opens_it(folder):
    from diffusers import WanImageToVideoPipeline

    stock = WanImageToVideoPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    assert stock.transformer.config.in_channels == 2 * stock.vae.config.z_dim + 4


def test_first_and_last_guide_land(pipeline, clip):
    frames = shot(pipeline, clip.caption, [Guide(clip.video_THWC[0], 0), Guide(clip.video_THWC[-1], -1)])
    assert psnr_db(frames[0], clip.video_THWC[0]) > 30
    assert psnr_db(frames[-1], clip.video_THWC[-1]) > 20
    assert psnr_db(frames[8], clip.video_THWC[0]) < 30, "a frozen shot lands its first guide everywhere"


def test_outside_the_motion_mask_nothing_changes_and_inside_something_does(pipeline, clip):
    mask_HW = np.zeros((96, 96), np.uint8)
    mask_HW[16:80, 24:72] = 255
    frames = shot(pipeline, clip.caption, [Guide(clip.video_THWC[0], 0)], motion_mask=mask_HW)
    levels_THWC = np.round(frames * 255)
    outside = mask_HW == 0
    assert np.array_equal(levels_THWC[12][outside], clip.video_THWC[0][outside])
    assert np.abs(levels_THWC[12] - clip.video_THWC[0])[~outside].mean() > 2
