"""Who a figure is: the feature that an image encoder makes of a figure that was cut out of its picture.

Two figures are as alike as the cosine of their features (the paper's equation 6). The encoder is any that `encoders` opens,
as published or as `gallery --fine-tune` leaves it; without a folder it is EfficientNet-Lite0, which arrives in a pip
package. CCIP (`ccip`) brings a network of its own that says how different two features are, in place of the cosine.
Numbers of different encoders do not compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from anisora.errors import BadCheckpoint
from anisora.evaluation import ccip
from anisora.evaluation.encoders import load_vision, model_type
from anisora.files import sha256_file, write_atomic
from anisora.runtime import pick_device
from anisora.store import content_hash

#: The encoder that needs no folder, and the side that it is given.
EMBEDDED, EMBEDDED_PX = "efficientnet-lite0", 192

#: A pixel none of whose channels is above this, of 255, is what lies around a figure that was cut out.
BLACK = 8

#: Pictures that go through an encoder at once.
_BATCH = 16

Pictures = Sequence[NDArray[np.uint8]]  # RGB [H, W, 3], all of one size

#: How alike features [N, D] are to others [C, D], as [N, C]; 1 is the same.
Alike = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


def load_encoder(named: str | Path | None = None, device: str | None = None) -> nn.Module:
    """A module from RGB pictures to features [N, D], with a method `save(folder)`: of a local folder, or the embedded one.

    On `device`, by default the accelerator where there is one. Raises BadCheckpoint for another layout, and for weights that
    are missing or do not fit; AssetMissing.
    """
    if named is None or str(named) == EMBEDDED:
        from anisora.measures.perceptual import network

        return EmbeddedEncoder(network().state_dict()).to(pick_device(device))
    folder = Path(named)
    if ccip.is_ccip(folder):
        return ccip.Encoder(folder)
    encoder = _saved(folder) if model_type(folder, "an image encoder") == EMBEDDED else load_vision(folder)
    return encoder.to(pick_device(device))


def weights_sha256(named: str | Path | None = None) -> str:
    """Which weights an encoder has: the hash of the hashes of its files, or that of the embedded one's."""
    if named is None or str(named) == EMBEDDED:
        from anisora.measures.perceptual import weights_sha256

        return weights_sha256()
    if ccip.is_ccip(named):
        return ccip.weights_sha256(named)
    files = sorted(path for path in Path(named).iterdir() if path.suffix in (".safetensors", ".bin"))
    return content_hash([sha256_file(file) for file in files])


def cosine(one_ND: NDArray[np.float32], other_CD: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosines [N, C] of features of length 1."""
    return one_ND @ other_CD.T


def alike_of(named: str | Path | None = None) -> Alike:
    """How the features of an encoder are compared. Raises BadCheckpoint."""
    return ccip.alike(str(named)) if named is not None and ccip.is_ccip(named) else cosine


def features(encoder: nn.Module, pictures: Pictures) -> NDArray[np.float32]:
    """The features [N, D] of pictures, of length 1 where cosines are taken of them; in one thread, as scores must not
    depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            parts = [encoder(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]
            found = torch.cat(parts).float()
            return (
                (found if getattr(encoder, "keeps_length", False) else functional.normalize(found, dim=-1))
                .cpu()
                .numpy()
            )
    finally:
        torch.set_num_threads(threads)


class EmbeddedEncoder(nn.Module):
    """EfficientNet-Lite0: the feature maps at 1/2 to 1/32 of the side, each averaged over the places that are not black, and
    of equal weight. Of 24 drawn characters that knew 0.81 of the figures again, the last two maps over all places 0.71."""

    def __init__(self, weights: dict[str, Any]) -> None:
        from anisora.measures.perceptual import EfficientNetLite0

        super().__init__()
        self.model = EfficientNetLite0()
        self.model.load_state_dict(weights)
        self.eval()

    def train(self, mode: bool = True) -> EmbeddedEncoder:
        """Never in training mode: the statistics of its normalisation stay those of its weights."""
        return super().train(False)

    def forward(self, pictures: Pictures) -> Tensor:
        """Features [N, D] of RGB pictures."""
        weight = next(self.model.parameters())
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(weight.device, weight.dtype)
        pixels = functional.interpolate(pixels, (EMBEDDED_PX, EMBEDDED_PX), mode="bilinear", antialias=True)
        figure = (pixels.amax(dim=1, keepdim=True) > BLACK).to(weight.dtype)
        figure = figure.where(figure.any(dim=(2, 3), keepdim=True), torch.ones_like(figure))
        pooled = []
        for map_BCyx in self.model((pixels - 127) / 128):
            share = functional.adaptive_avg_pool2d(figure, map_BCyx.shape[-2:])
            pooled.append((map_BCyx * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3)))
        return torch.cat([functional.normalize(vector, dim=-1) for vector in pooled], dim=-1)

    def save(self, folder: Path) -> None:
        """Writes the folder that `load_encoder` opens."""
        from safetensors.torch import save

        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.model.state_dict().items()}
        write_atomic(folder / "model.safetensors", save(weights))
        write_atomic(folder / "config.json", json.dumps({"model_type": EMBEDDED}).encode() + b"\n")


def _saved(folder: Path) -> EmbeddedEncoder:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return EmbeddedEncoder(load_file(folder / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as reason:
        first = str(reason).strip().splitlines()[0]
        raise BadCheckpoint("the image encoder cannot be opened", got=f"{folder} ({first})") from reason
