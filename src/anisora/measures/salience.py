"""Where a picture has its foreground: a salient-object network gives every pixel a value in [0, 1].

The paper takes InSPyReNet (Kim et al. 2022) for it. Bundled is the small U²-Net (Qin et al. 2020), 4.6 MB; any other
salient-object network comes as an ONNX file with one picture in and its map, a share, as the first output: U²-Net, IS-Net,
BiRefNet and InSPyReNet are all exported so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.assets import ASSETS, locate
from anisora.errors import BadCheckpoint
from anisora.files import existing_file, sha256_file

#: from this value on, a pixel is foreground
FOREGROUND = 0.5

#: ImageNet's mean and spread, as all of these networks were trained with.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)

#: the side that networks are given which take any
_FREE_SIDE_PX = 320

Salience = NDArray[np.float32]  # [H, W] in [0, 1]
Detector = Callable[[NDArray[np.uint8]], Salience]


def salience(picture_HWC: NDArray[np.uint8], weights: str | Path | None = None) -> Salience:
    """How much each pixel of an RGB picture belongs to its foreground: float32 [H, W] in [0, 1].

    The picture is squeezed to the network's square, as these networks were trained. Nothing is stretched to fill [0, 1]
    afterwards, so a picture without a foreground has none. `weights` is an ONNX file, by default the bundled network.
    Raises AssetMissing, BadCheckpoint.
    """
    import cv2

    run, (height, width) = _network(str(weights) if weights else None)
    way = cv2.INTER_AREA if picture_HWC.shape[0] > height else cv2.INTER_LINEAR
    small = cv2.resize(picture_HWC, (width, height), interpolation=way).astype(np.float32) / 255
    found = run(np.asarray(((small - _MEAN) / _SPREAD).transpose(2, 0, 1)[None], np.float32))
    return np.asarray(cv2.resize(found, picture_HWC.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def weights_sha256(weights: str | Path | None = None) -> str:
    """Which network looked."""
    return sha256_file(weights) if weights else ASSETS["u2netp"].sha256


@functools.cache
def _network(weights: str | None) -> tuple[Callable[[NDArray[np.float32]], Salience], tuple[int, int]]:
    """The network as a function of float32 [1, 3, H, W], and the (H, W) that it is given."""
    opened = _open(Path(weights)) if weights else _open(locate("u2netp"))
    (given,) = opened.get_inputs()
    height, width = (side if isinstance(side, int) else _FREE_SIDE_PX for side in given.shape[-2:])
    output = opened.get_outputs()[0].name

    def run(picture_BCHW: NDArray[np.float32]) -> Salience:
        found = np.squeeze(opened.run([output], {given.name: picture_BCHW})[0])
        if found.shape != picture_BCHW.shape[2:] or found.min() < -0.01 or found.max() > 1.01:
            raise BadCheckpoint(
                "the first output of the network is no map of shares",
                got=f"{list(found.shape)}, {found.min():.2f} to {found.max():.2f}",
                expected=f"one value in [0, 1] for each of {height}x{width} pixels",
                hint="exporting it with its sigmoid, the finest map first",
            )
        return found.clip(0, 1).astype(np.float32)

    return run, (height, width)


def _open(path: Path) -> Any:
    from anisora.measures.onnx import session

    file = existing_file(path, BadCheckpoint, "the salient-object network")
    try:
        opened = session(file)
    except Exception as reason:  # onnxruntime raises a kind of its own for each fault
        raise BadCheckpoint(
            "not a network in ONNX", got=file, expected="an .onnx file", hint="torch.onnx.export of the network"
        ) from reason
    shapes = [entry.shape for entry in opened.get_inputs()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (3, "C"):
        raise BadCheckpoint("a network that does not take one picture", got=shapes, expected="[1, 3, H, W]")
    return opened
