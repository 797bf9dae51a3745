"""The perceptual distance: its order on known damage, its network beside the library it restates."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from anisora import assets
from anisora.errors import AssetMissing

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def perceptual():
    """The module, where its weights are to be had."""
    from anisora.measures import perceptual

    try:
        perceptual.network()
    except AssetMissing as missing:
        pytest.skip(str(missing))
    return perceptual


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    canvas = np.full((96, 96, 3), 220, np.uint8)
    for _ in range(12):
        centre, colour = rng.integers(10, 86, 2).tolist(), rng.integers(0, 255, 3).tolist()
        cv2.circle(canvas, centre, int(rng.integers(4, 16)), colour, -1, cv2.LINE_AA)
        cv2.circle(canvas, centre, int(rng.integers(4, 16)), (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def test_equal_frames_have_distance_zero_and_damage_grows_it(perceptual, picture):
    blurs = [cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (0.7, 1.5, 3)]
    distances = perceptual.perceptual_distance(np.stack([picture, *blurs]), np.stack([picture] * 4))
    assert distances[0] < 1e-6
    assert (np.diff(distances) > 0).all()


def test_it_prefers_a_small_shift_to_a_blur_of_the_same_pixel_error(perceptual, picture):
    """What makes it worth its cost: pixel errors say the opposite."""
    shifted = np.roll(picture, 1, axis=1)
    error = ((shifted.astype(float) - picture) ** 2).mean()
    blurred = min(
        (cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in np.linspace(0.5, 6, 40)),
        key=lambda b: abs(((b.astype(float) - picture) ** 2).mean() - error),
    )
    assert ((blurred.astype(float) - picture) ** 2).mean() <= 1.05 * error
    shift, blur = perceptual.perceptual_distance(np.stack([shifted, blurred]), np.stack([picture] * 2))
    assert shift < blur


def test_it_is_symmetric_and_frames_do_not_touch_each_other(perceptual, picture):
    other = picture[::-1].copy()
    a, b = np.stack([picture, other]), np.stack([other, picture])
    both = perceptual.perceptual_distance(a, b)
    assert both[0] == pytest.approx(both[1], rel=1e-5)
    assert perceptual.perceptual_distance(a[:1], b[:1])[0] == pytest.approx(both[0], rel=1e-5)


@pytest.mark.slow
def test_the_network_equals_the_library_it_restates(perceptual, tmp_path: Path, monkeypatch):
    """`efficientnet-lite-pytorch` (Apache-2.0), the classes the weights were published for; used here only."""
    import torch

    library = assets.Asset(
        package="efficientnet-lite-pytorch",
        version="0.1.0",
        member="efficientnet_lite_pytorch/model.py",
        sha256="",
        size_bytes=0,
        licence="Apache-2.0",
    )
    try:
        wheel = assets._download(library, tmp_path)
    except AssetMissing as missing:
        pytest.skip(str(missing))
    zipfile.ZipFile(wheel).extractall(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "efficientnet_lite_pytorch", raising=False)
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(torch.load(assets.locate(perceptual.ASSET), weights_only=True))
    outputs: dict[int, torch.Tensor] = {}
    for index, block in enumerate(theirs.eval()._blocks):
        block.register_forward_hook(lambda _, __, out, index=index: outputs.__setitem__(index, out))
    pixels = torch.rand(1, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        theirs.extract_features(pixels)
        ours = perceptual.network()(pixels)
    for index, ours_maps in zip((0, 2, 4, 10, 15), ours, strict=True):
        torch.testing.assert_close(ours_maps, outputs[index])
