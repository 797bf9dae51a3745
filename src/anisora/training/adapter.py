"""Low-rank adapters on the denoising networks: put there to be trained, from nothing or from a file, and written in the
layout that diffusers loads.

The file is `pytorch_lora_weights.safetensors` with keys `transformer.MODULE.lora_A.weight`, which diffusers, ComfyUI and
`models.lora` read; the second of two experts has its own in `transformer_2/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anisora.errors import BadConfig
from anisora.models.lora import LoraReport, load_lora
from anisora.settings import setting

ADAPTER = "default"
#: the file that diffusers writes a LoRA into
FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The size and place of the adapters."""

    rank: int = setting(16, "rank of the added matrices")
    alpha: int | None = setting(None, "their scale is alpha / rank; default: the rank, for a scale of 1")
    targets: tuple[str, ...] = setting(
        ("to_q", "to_k", "to_v", "to_out.0"), "ends of the names of the linear layers that get one"
    )
    start: Path | None = setting(
        None, "LoRA to go on from, a file or a folder, in any spelling that `anisora generate --lora` reads"
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


@dataclass(frozen=True, kw_only=True)
class Start:
    """A LoRA to go on from: what came of reading it, and its matrices, network -> module -> (A, B times its scale).

    `biases` are modules whose file also adds a constant, which adapters in training do not have.
    """

    report: LoraReport
    layers: dict[str, dict[str, tuple[Tensor, Tensor]]]
    biases: tuple[str, ...]


def read_start(pipeline: Any, path: Path, networks: Sequence[str]) -> Start:
    """The LoRA at `path` as the loaders of generation read it; the pipeline is left without one.

    Raises what `models.lora.load_lora` does: BadCheckpoint for a file none of whose modules the networks have.
    """
    report = load_lora(pipeline, path, experts=networks)
    layers: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
    biases: list[str] = []
    for network in report.networks:
        layers[network] = {}
        for name, module in getattr(pipeline, network).named_modules():
            if report.name in getattr(module, "lora_A", {}):
                down, up = module.lora_A[report.name], module.lora_B[report.name]
                scaled = up.weight.detach().float() * module.scaling[report.name]
                layers[network][name] = (down.weight.detach().float().clone(), scaled)
                biases += [name] if up.bias is not None else []
    pipeline.unload_lora_weights()
    return Start(report=report, layers=layers, biases=tuple(biases))


def begin_with(networks: dict[str, nn.Module], start: Start, lora: LoraSettings) -> str:
    """Puts a LoRA's matrices into the fresh adapters of the networks, and returns a sentence on what came of it.

    An adapter of a higher rank than the file's keeps its own rows beside them, without effect yet. Raises BadConfig for
    a file of a higher rank than the adapters have, and for one of whose modules none has an adapter.
    """
    scale = (lora.alpha or lora.rank) / lora.rank
    taken: set[str] = set()
    left: set[str] = set(start.report.unmatched)
    for network, layers in start.layers.items():
        for name, (down, up) in layers.items():
            module: Any = networks[network].get_submodule(name)
            if ADAPTER not in getattr(module, "lora_A", {}):
                left.add(name)
                continue
            rank = len(down)
            if rank > lora.rank:
                raise BadConfig(
                    "lora.start has a higher rank than lora.rank", got=f"{rank} in {name}", expected=f"{lora.rank} or less",
                    hint=f"lora.rank={rank}",
                )  # fmt: skip
            with torch.no_grad():
                module.lora_A[ADAPTER].weight[:rank] = down.to(module.lora_A[ADAPTER].weight)
                module.lora_B[ADAPTER].weight[:, :rank] = up.to(module.lora_B[ADAPTER].weight) / scale
            taken.add(name)
    if not taken:
        raise BadConfig(
            "none of the modules of lora.start is trained",
            got=", ".join(sorted(left)[:3]),
            expected=f"some that end in {', '.join(lora.targets)}",
            hint="other lora.targets",
        )
    return _sentence(start, len(taken), sorted(left))


def _sentence(start: Start, num_taken: int, left: list[str]) -> str:
    said = f"{num_taken} of {num_taken + len(left)} modules begin with {start.report.path}"
    if left:
        said += f"; left out, as no adapter is there: {', '.join(left[:3])}" + (", ..." if len(left) > 3 else "")
    if start.biases:
        said += f"; without the biases that {len(start.biases)} of them have"
    return said


def save_lora(pipeline: Any, networks: Sequence[str], folder: Path, dtype: torch.dtype) -> Path:
    """Writes the adapters of the named networks under `folder`, which it returns, as `load_lora_weights` reads them."""
    from peft import get_peft_model_state_dict

    for name in networks:
        network = getattr(pipeline, name)
        layers = get_peft_model_state_dict(network, adapter_name=ADAPTER)
        described = network.peft_config[ADAPTER].to_dict()
        described["target_modules"] = sorted(described["target_modules"])  # a set: its order differs between processes
        place = folder if name == "transformer" else folder / name
        type(pipeline).save_lora_weights(
            place,
            {key: value.to(dtype).contiguous() for key, value in layers.items()},
            transformer_lora_adapter_metadata=described,
        )
        _order_header(place / FILE)
    return folder


def _order_header(path: Path) -> None:
    """Puts the header of a safetensors file in order: its writer's differs between processes, and so would the file's hash."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.dumps(json.loads(file.read(size)), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        ordered = header.encode().ljust(size)  # the format pads with spaces
        if len(ordered) == size:
            file.seek(8)
            file.write(ordered)
