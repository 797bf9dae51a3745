"""CCIP, which tells drawn characters apart: two networks in ONNX, as deepghs publishes them in `ccip_onnx`.

FOLDER/model_feat.onnx       a figure, 384 x 384 -> its feature
FOLDER/model_metrics.onnx    features -> how different every two of them are
FOLDER/metrics.json          `threshold`: two pictures that differ by less show one character

`cluster.json`, which lies there too, is for grouping pictures without names and is not read. Alike is 1 less the difference.
(Contrastive Anime Character Image Pre-Training; features of several pictures are merged as the authors of `imgutils` do.)
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anisora.errors import BadCheckpoint
from anisora.files import existing_file, sha256_file
from anisora.store import content_hash

FEATURES, DIFFERENCES, METRICS = "model_feat.onnx", "model_metrics.onnx", "metrics.json"

#: The side that the published networks are given.
_SIDE_PX = 384

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_SPREAD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

#: Features that are held against others at once: differences come as a square of all given.
_ROWS = 256


def is_ccip(place: str | Path) -> bool:
    """Whether a folder is one of CCIP."""
    return (Path(place) / FEATURES).is_file()


class Encoder(nn.Module):
    """RGB pictures -> features [N, D]. Their lengths are kept: the network of differences was trained with them."""

    keeps_length = True

    def __init__(self, folder: str | Path) -> None:
        """Raises BadCheckpoint."""
        super().__init__()
        self._session = _session(Path(folder) / FEATURES, axes=4)
        side = self._session.get_inputs()[0].shape[-1]
        self.side_px = side if isinstance(side, int) else _SIDE_PX

    def forward(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Features of pictures of any sizes, squeezed to the network's square as in training."""
        from PIL import Image

        side = (self.side_px, self.side_px)
        small = [np.asarray(Image.fromarray(p).resize(side, Image.Resampling.BILINEAR), np.float32) for p in pictures]
        pixels = ((np.stack(small) / 255 - _MEAN) / _SPREAD).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.asarray(_run(self._session, np.ascontiguousarray(pixels, np.float32))))


class Alike:
    """How alike features are: 1 less what the network of differences says; from `threshold` on they show one character."""

    def __init__(self, folder: str | Path) -> None:
        """Raises BadCheckpoint."""
        self._session = _session(Path(folder) / DIFFERENCES, axes=2)
        self.threshold = 1 - _threshold(Path(folder) / METRICS)

    def __call__(self, one_ND: NDArray[np.float32], other_CD: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, C]. Raises BadCheckpoint where the network gives no square of differences."""
        parts = [self._block(one_ND[at : at + _ROWS], other_CD) for at in range(0, len(one_ND), _ROWS)]
        return np.concatenate(parts) if parts else np.zeros((0, len(other_CD)), np.float32)

    def _block(self, one_ND: NDArray[np.float32], other_CD: NDArray[np.float32]) -> NDArray[np.float32]:
        every = np.concatenate([one_ND, other_CD]).astype(np.float32)
        differences = _run(self._session, every)
        if differences.shape != (len(every), len(every)) or not np.isfinite(differences).all():
            raise BadCheckpoint("no differences of features", got=differences.shape, expected=(len(every), len(every)))
        return np.asarray(1 - differences[: len(one_ND), len(one_ND) :], np.float32)


@functools.cache
def alike(folder: str) -> Alike:
    """The comparison of a folder, opened once. Raises BadCheckpoint."""
    return Alike(folder)


def weights_sha256(folder: str | Path) -> str:
    """Which networks they are, and from where on two figures are one. Raises BadCheckpoint."""
    names = (FEATURES, DIFFERENCES, METRICS)
    return content_hash([sha256_file(existing_file(Path(folder) / name, BadCheckpoint, "CCIP")) for name in names])


def _session(path: Path, axes: int) -> Any:
    from anisora.measures.onnx import session

    file = existing_file(path, BadCheckpoint, "CCIP's network")
    try:
        opened = session(file)
    except Exception as reason:  # onnxruntime raises a kind of its own for each fault
        raise BadCheckpoint("not a network in ONNX", got=file, expected="an .onnx file") from reason
    shapes = [entry.shape for entry in opened.get_inputs()]
    if len(shapes) != 1 or len(shapes[0]) != axes or len(opened.get_outputs()) != 1:
        raise BadCheckpoint("not CCIP's network", got=f"{file}: {shapes}", expected=f"one input of {axes} axes")
    return opened


def _run(opened: Any, given: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        (found,) = opened.run(None, {opened.get_inputs()[0].name: given})
    except Exception as reason:
        first = str(reason).strip().splitlines()[0]
        raise BadCheckpoint("CCIP's networks do not fit each other", got=f"{given.shape}: {first}") from reason
    return found


def _threshold(path: Path) -> float:
    file = existing_file(path, BadCheckpoint, "CCIP's threshold")
    try:
        found = float(json.loads(file.read_text(encoding="utf-8"))["threshold"])
    except (ValueError, KeyError, TypeError) as reason:
        raise BadCheckpoint("no threshold", got=f"{file} ({reason!r})", expected='{"threshold": 0.18}') from reason
    if not 0 < found < 1:
        raise BadCheckpoint("no threshold", got=f"{file}: {found}", expected="a difference between 0 and 1")
    return found
