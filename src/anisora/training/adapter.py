"""Low-rank adapters on the denoising networks: put there to be trained, and written in the layout that diffusers loads.

The file is `pytorch_lora_weights.safetensors` with keys `transformer.MODULE.lora_A.weight`, which diffusers, ComfyUI and
`models.lora` read; the second of two experts has its own in `transformer_2/`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anisora.errors import BadConfig
from anisora.settings import setting

ADAPTER = "default"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The size and place of the adapters."""

    rank: int = setting(16, "rank of the added matrices")
    alpha: int | None = setting(None, "their scale is alpha / rank; default: the rank, for a scale of 1")
    targets: tuple[str, ...] = setting(
        ("to_q", "to_k", "to_v", "to_out.0"), "ends of the names of the linear layers that get one"
    )


def add_lora(networks: dict[str, nn.Module], lora: LoraSettings, *, seed: int) -> None:
    """Puts fresh adapters on the networks, the same for the same seed; they alone train, in float32.

    The second matrix of each starts at zero, so the networks compute what they did. Raises BadConfig for targets that
    match nothing.
    """
    from peft import LoraConfig

    for network in networks.values():
        network.requires_grad_(False)
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha or lora.rank, target_modules=matching_linears(network, lora.targets)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.add_adapter(config, adapter_name=ADAPTER)  # type: ignore[operator]  # diffusers' mixin
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def matching_linears(network: nn.Module, ends: Sequence[str]) -> list[str]:
    """Full names of the linear layers meant. Raises BadConfig for an ending that fits none, where peft would not mind
    as long as another one fits."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in linear if any(name == end or name.endswith(f".{end}") for end in ends)]
    for end in ends:
        if not any(name == end or name.endswith(f".{end}") for name in linear):
            known = sorted({re.sub(r"^.*\.\d+\.(?=\D)", "", name) for name in linear})
            raise BadConfig("lora.targets matches no layer", got=end, expected=f"ends of {', '.join(known[:12])}")
    return chosen


def save_lora(pipeline: Any, networks: Sequence[str], folder: Path, dtype: torch.dtype) -> Path:
    """Writes the adapters of the named networks under `folder`, which it returns, as `load_lora_weights` reads them."""
    from peft import get_peft_model_state_dict

    for name in networks:
        network = getattr(pipeline, name)
        layers = get_peft_model_state_dict(network, adapter_name=ADAPTER)
        type(pipeline).save_lora_weights(
            folder if name == "transformer" else folder / name,
            {key: value.to(dtype).contiguous() for key, value in layers.items()},
            transformer_lora_adapter_metadata=network.peft_config[ADAPTER].to_dict(),
        )
    return folder
