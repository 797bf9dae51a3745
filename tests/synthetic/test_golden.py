"""What a version of the corpus draws, compared with what it drew when weights were trained on it.

The pixels of a version never change. What is compared to the last digit is the display list, from which both backends
draw, and the caption; of the pixels some values, which other processors may round otherwise by one. A version is added
when weights are trained on it: `python tests/synthetic/test_golden.py 3` writes the file anew with that version too.
"""

from __future__ import annotations

import hashlib
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from anisora.synthetic import caption, plan_clip, render_plan
from anisora.synthetic.scene import Scene

GOLDEN = Path(__file__).with_name("golden.json")
KNOWN = json.loads(GOLDEN.read_text())
CLIPS = [
    (split, seed, index) for split, seed in (("train", 0), ("seen", 1000), ("reserved", 1001)) for index in range(14)
]

#: Values kept of the pixels of a clip, spread over it.
KEPT = 12


def drawn(version: int, split: str, seed: int, index: int) -> str:
    """Digest of the captions and of the display lists of three instants, numbers rounded to a millionth."""
    plan = plan_clip(seed, index, split, version)
    digest = hashlib.sha256(" ".join(caption(plan, variant) for variant in range(3)).encode())
    scene = Scene(plan, 64, 64)
    for k, time_s in ((0, Fraction(0)), (5, Fraction(5, 8)), (14, Fraction(14, 8))):
        for layer in scene.moment(k, time_s).frame:
            digest.update(repr(_rounded((layer.matrix, layer.period, *layer.prims))).encode())
    return digest.hexdigest()[:24]


def _rounded(values):
    if isinstance(values, tuple):
        return tuple(_rounded(value) for value in values)
    return round(values, 6) + 0.0 if isinstance(values, float) else values  # + 0.0: there is one zero


def pixels(version: int, split: str, seed: int, index: int) -> list[int]:
    """Some values of two frames."""
    video = render_plan(plan_clip(seed, index, split, version), 2, Fraction(1), (48, 48), backend="skia").video_THWC
    return video.ravel()[np.linspace(1000, video.size - 1000, KEPT).astype(int)].tolist()


def golden(version: int) -> dict:
    return {"/".join(map(str, clip)): [drawn(version, *clip), pixels(version, *clip)] for clip in CLIPS}


@pytest.mark.parametrize("version", KNOWN)
def test_a_version_draws_what_it_always_drew(version):
    now = {"/".join(map(str, clip)): drawn(int(version), *clip) for clip in CLIPS}
    assert now == {clip: digest for clip, (digest, _) in KNOWN[version].items()}


@pytest.mark.parametrize("version", KNOWN)
def test_the_pixels_of_a_version_stay(version):
    pytest.importorskip("skia")
    for clip in CLIPS[::3]:
        _, expected = KNOWN[version]["/".join(map(str, clip))]
        assert np.abs(np.subtract(pixels(int(version), *clip), expected)).max() <= 1, clip


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({version: golden(int(version)) for version in sorted({*KNOWN, *sys.argv[1:]})}) + "\n")
