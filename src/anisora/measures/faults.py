"""Two small networks that have seen many sound pictures beside the same ones spoiled: does a picture look spoiled, and is
what it shows bent out of shape?

Rules see the one fault that each was made for. These have learned many at once (`evaluation.fault_training`), from the first
stages of EfficientNet-Lite0 on, whose weights they began with. What they say is a feature beside others; 0.7 million
parameters each, and they come with the package.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from anisora.errors import BadCheckpoint
from anisora.files import existing_file, sha256_file
from anisora.measures.perceptual import EfficientNetLite0, pad_same

#: What is looked for: faults of the picture, or a figure bent out of shape.
Subject = Literal["pictures", "figures"]

WEIGHTS = Path(__file__).parents[1] / "weights" / "faults"

#: The blocks of EfficientNet-Lite0 that are kept, and behind which of them its channels are read: at 1/4, 1/8 and 1/16.
BLOCKS, READ = 11, {2: 24, 4: 40, 10: 112}

#: Channels that each of those is narrowed to, and of the hidden layer behind their summaries.
NARROW, HIDDEN = 32, 96


class FaultNetwork(nn.Module):
    """The log-odds [N] that RGB pictures [N, 3, H, W] from 0 to 255 are spoiled."""

    def __init__(self) -> None:
        super().__init__()
        whole = EfficientNetLite0()
        self.stem, self.stem_norm, self.blocks = whole._conv_stem, whole._bn0, whole._blocks[:BLOCKS]
        self.narrow = nn.ModuleDict({str(at): nn.Conv2d(channels, NARROW, 1) for at, channels in READ.items()})
        width = 3 * NARROW * len(READ)
        self.hidden = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.GELU())
        self.odds = nn.Linear(HIDDEN, 1)

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        return self.odds(self.summary(pictures_NCHW))[:, 0]

    def summary(self, pictures_NCHW: Tensor) -> Tensor:
        """What the odds are read from, [N, HIDDEN]: mean, largest and spread over places of what is read."""
        x = functional.relu6(self.stem_norm(self.stem(pad_same((pictures_NCHW - 127) / 128, 3, 2))))
        said = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in READ:
                places = functional.gelu(self.narrow[str(index)](x)).flatten(2)
                said += [places.mean(-1), places.amax(-1), places.std(-1)]
        return self.hidden(torch.cat(said, dim=1))


@torch.inference_mode()
def fault_odds(subject: Subject, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The log-odds of each picture, [T], at the size at which looks are judged."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums, hence scores, must not depend on how the work is shared out
    try:
        pictures = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2).float()
        return torch.cat([network(subject)(one) for one in pictures.split(1)]).numpy()
    finally:
        torch.set_num_threads(threads)


@cache
def network(subject: Subject) -> FaultNetwork:
    """The network of the package, loaded once."""
    made = FaultNetwork().eval()
    made.load_state_dict(load_weights(weights_file(subject)))
    return made.requires_grad_(False)


def load_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of such weights, in single precision. Raises BadCheckpoint for a file of anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = existing_file(file, BadCheckpoint, "the weights of a network for faults")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as reason:
        raise BadCheckpoint("no weights of a network for faults", got=f"{path} ({reason})") from reason
    wanted = {name: tensor.shape for name, tensor in FaultNetwork().state_dict().items() if tensor.is_floating_point()}
    if {name: tensor.shape for name, tensor in tensors.items()} != wanted:
        raise BadCheckpoint("no weights of a network for faults", got=f"{path} (other tensors)")
    return {name: tensor.float() for name, tensor in tensors.items()}


def weights_file(subject: Subject) -> Path:
    """Where the network's weights lie."""
    return WEIGHTS / f"{subject}.safetensors"


@cache
def weights_sha256(subject: Subject) -> str:
    """The hash of them."""
    return sha256_file(weights_file(subject))
