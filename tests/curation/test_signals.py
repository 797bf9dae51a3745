"""What observers store, compared with what the same version of them stored before.

A result is kept under the name and version of what made it, so a value that changes under an old version would be mixed
with the old ones. The rule: whoever changes what an observer stores, or the pictures it is shown, by more than the last
digit raises its `version` and runs this file, which then writes the new values: `python tests/curation/test_signals.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from anisora.curation.observers.default import default_observers
from anisora.curation.observers.thumbnails import thumbnails
from anisora.media.pyramid import Pyramid

GOLDEN = Path(__file__).with_name("signals.json")

SIZE_PX, NUM_FRAMES, FPS = (640, 360), 40, 24

#: Values kept of each array, spread over it; and how far they may be off, also in shares of the largest: SIMD code of
#: other processors rounds otherwise.
KEPT, OFF = 24, 0.01


def frames():
    """Two shots on twos under a camera that pans, with a caption and a letterbox: no codec, so equal everywhere."""
    import cv2

    width, height = SIZE_PX
    rng = np.random.default_rng(7)
    grounds = [cv2.resize(rng.integers(30, 220, (12, 24, 3), np.uint8), (2 * width, height)) for _ in range(2)]
    for t in range(NUM_FRAMES):
        picture = np.ascontiguousarray(grounds[t >= 24][:, 4 * t : 4 * t + width])
        x = 100 + 14 * (t // 2)
        cv2.ellipse(picture, (x, 180), (60, 90 + 2 * (t // 2 % 5)), 0, 0, 360, (240, 200, 180), -1)
        cv2.ellipse(picture, (x, 180), (60, 90 + 2 * (t // 2 % 5)), 0, 0, 360, (10, 10, 10), 3)
        cv2.putText(picture, "A CAPTION", (220, 300), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 255), 3)
        picture[:30] = picture[-30:] = 0
        yield picture


def signals():
    """name@version -> array -> values."""
    pyramid, observers = Pyramid(), default_observers()
    for index, rgb_HWC in enumerate(frames()):
        picture = av.VideoFrame.from_ndarray(rgb_HWC, "rgb24").reformat(format="yuv420p", threads=1)
        pyramid.show(picture)
        for observer in observers:
            if index % round(FPS / (observer.needs.fps or FPS)) == 0:
                make = pyramid.luma if observer.needs.pixels == "luma" else pyramid.rgb
                observer.feed(index, index, make(observer.needs.width_px))
    return {f"{o.name}@{o.version}": kept(o.name, o.finish()) for o in observers}


def kept(name, arrays):
    if name == "thumbnails":  # JPEG files differ from library to library, what they show does not
        arrays = {"index": arrays["index"], "shown": np.stack(list(thumbnails(arrays).values()))[:, 4::32, 4::32]}
    return {key: some(values) for key, values in arrays.items()}


def some(values):
    """Type, shape, and values spread over the array; hashes as single bits."""
    if values.dtype == np.uint64:
        values = np.unpackbits(values.view(np.uint8)).reshape(len(values), 64)
    flat = values.ravel().astype(float)
    at = np.linspace(0, flat.size - 1, min(KEPT, flat.size)).astype(int)
    return {"shape": list(values.shape), "mean": round(float(flat.mean()), 5), "values": flat[at].round(5).tolist()}


@pytest.fixture(scope="module")
def now():
    return signals()


@pytest.mark.parametrize("name", [f"{o.name}@{o.version}" for o in default_observers()])
def test_a_version_always_stores_the_same(now, name):
    golden = json.loads(GOLDEN.read_text())
    assert name in golden, f"{name} is new: `python {Path(__file__).name}` writes down what it stores"
    assert now[name].keys() == golden[name].keys()
    for key, was in golden[name].items():
        found = now[name][key]
        assert found["shape"] == was["shape"], f"{name} stores another {key}: raise its version"
        off = OFF * max(map(abs, was["values"]), default=0.0)
        for value in ("mean", "values"):
            np.testing.assert_allclose(
                found[value], was[value], OFF, off, err_msg=f"{name} stores another {key}: raise its version"
            )


def test_nothing_is_kept_of_versions_that_are_gone(now):
    assert json.loads(GOLDEN.read_text()).keys() == now.keys()


def write():
    """Adds what is new and takes out what is gone; what stands under a version that there is stays as it was."""
    old = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    rows = {name: old.get(name, found) for name, found in signals().items()}
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    GOLDEN.write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    write()
