"""Laws of the joint stage: what teaches the denoiser, and what holds it to what it was."""

import numpy as np
import pytest
import torch

from anisora.training.corpus import Bucket
from anisora.training.joint import JointSettings, holding_loss, unfamiliar


def test_a_denoiser_that_has_not_changed_is_held_by_nothing():
    video_NTHWC = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 24, 3), np.uint8)
    bucket = Bucket(video_NTHWC=video_NTHWC, captions=list("abcde"), share=1.0)
    settings = JointSettings(held_batch=2, held_frames=5)
    shown = []

    def before(video, given, captions, generator):
        shown.append((video, given, captions))
        return video + torch.randn(video.shape, generator=generator)

    def changed(video, given, captions, generator):
        return before(video, given, captions, generator) + 0.5

    def held(predict):
        return holding_loss(predict, before, [bucket], settings, torch.Generator().manual_seed(1))

    assert held(before) == 0
    assert held(changed).item() == pytest.approx(0.25)
    video, given, captions = shown[0]
    assert video.shape == (2, 3, 5, 16, 24)
    assert torch.equal(video[:, :, 0], video[:, :, 4])
    assert (given, len(captions)) == ([[0], [0]], 2)


def test_unfamiliar_pictures_are_pictures():
    pictures = torch.rand(6, 3, 12, 20, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = unfamiliar(pictures, np.random.default_rng(3))
    assert found.shape == (3, 3, 12, 20)
    assert found.abs().max() <= 1
    assert not any(torch.allclose(one, other, atol=0.1) for one in found for other in pictures)
