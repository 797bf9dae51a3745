"""DreamSim, the ensemble (Fu et al. 2023, arXiv 2306.09344): one feature of three ViTs that people's judgements have tuned.

DINO's first token as the last block leaves it, beside the projected features of OpenAI's and LAION's CLIP, all with small
matrices added to their attention (LoRA). The files are those of its release: the CLIPs lie there under a ViT's names, as
timm has them, with a norm where dropout would be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anisora.errors import BadCheckpoint
from anisora.evaluation.published import vit_of
from anisora.evaluation.weight_files import fill, read_tensors
from anisora.files import existing_file

CLIP, OPEN_CLIP = "clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar"
ADAPTER = "ensemble_lora"

#: The side of the square that pictures are squeezed to.
SIDE_PX = 224

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

_LORA = re.compile(r".*extractor_list\.(\d)\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")


class _Part(nn.Module):
    """One of the three: pictures in [0, 1] to its feature."""

    projection: Tensor | None
    mean: Tensor
    spread: Tensor

    def __init__(self, vit: Any, projection: Tensor | None, shown: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        super().__init__()
        self.vit = vit
        self.register_buffer("projection", projection)
        for name, values in zip(("mean", "spread"), shown, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        found = self.vit(pixel_values=(pixels_NCHW - self.mean) / self.spread).last_hidden_state[:, 0]
        return found if self.projection is None else found @ self.projection


class DreamSim(nn.Module):
    """Squares of 224 pixels in [0, 1] -> features [N, D], their mean taken out, of length 1."""

    def __init__(self, parts: list[_Part]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        found = torch.cat([part(pixels_NCHW) for part in self.parts], dim=1)
        return nn.functional.normalize(found - found.mean(dim=1, keepdim=True), dim=1)


def load(dino: str | Path, folder: str | Path) -> DreamSim:
    """The network of DINO's file (`dino_vitbase16_pretrain.pth`) and a folder with what DreamSim's ensemble unpacks to.

    Raises BadCheckpoint.
    """
    folder = Path(folder)
    deltas = _deltas(folder / ADAPTER)
    plain = _part(Path(dino), deltas.pop(0, {}), eps=1e-6)
    plain.vit.layernorm = nn.Identity()  # its feature is what the last block leaves
    openai = _part(folder / CLIP, deltas.pop(1, {}), eps=1e-5, hidden_act="quick_gelu")
    laion = _part(folder / OPEN_CLIP, deltas.pop(2, {}), eps=1e-5)
    if deltas:
        raise BadCheckpoint("an adapter of more networks", got=folder / ADAPTER, expected="the ensemble of three")
    return DreamSim([plain, openai, laion]).float().eval().requires_grad_(False)


def _part(path: Path, deltas: Mapping[str, Tensor], **options: Any) -> _Part:
    state = {name: tensor.float() for name, tensor in read_tensors(path, "DreamSim's weights").items()}
    projection = state.pop("proj", None)
    for name, delta in deltas.items():
        if name not in state or state[name].shape != delta.shape:
            got = f"{tuple(delta.shape)} for {name} of {path.name}"
            raise BadCheckpoint("DreamSim's adapter does not fit", got=got, expected="a tensor of that name and shape")
        state[name] = state[name] + delta
    vit, named = vit_of(state, path, **options)
    fill(vit, named, path)
    is_clip = "pos_drop.weight" in state
    if is_clip != (projection is not None):
        raise BadCheckpoint("half of a CLIP", got=path, expected="proj and pos_drop, or neither")
    return _Part(vit, projection, _OPENAI if is_clip else _IMAGENET)


def _deltas(folder: Path) -> dict[int, dict[str, Tensor]]:
    """network -> tensor -> what the adapter adds to it: alpha / r times B A."""
    config = existing_file(folder / "adapter_config.json", BadCheckpoint, "DreamSim's adapter")
    weights = next((folder / f"adapter_model{kind}" for kind in (".safetensors", ".bin") if
                    (folder / f"adapter_model{kind}").is_file()), folder / "adapter_model.safetensors")  # fmt: skip
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
        scale = float(said["lora_alpha"]) / float(said["r"])
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as reason:
        raise BadCheckpoint("no LoRA", got=f"{config} ({reason!r})", expected="lora_alpha and r") from reason
    if said.get("use_rslora") or said.get("use_dora") or said.get("fan_in_fan_out"):
        raise BadCheckpoint("another kind of LoRA", got=config, expected="the plain one of DreamSim")
    halves: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, tensor in read_tensors(weights, "DreamSim's adapter").items():
        if not (found := _LORA.fullmatch(name)):
            raise BadCheckpoint(
                "a tensor of no LoRA", got=f"{weights}: {name}", expected="...lora_A.weight, lora_B.weight"
            )
        halves.setdefault((int(found[1]), found[2]), {})[found[3]] = tensor.float()
    deltas: dict[int, dict[str, Tensor]] = {}
    for (number, name), half in halves.items():
        if half.keys() != {"A", "B"} or half["A"].ndim != 2 or half["B"].shape[1:] != half["A"].shape[:1]:
            raise BadCheckpoint("half of a LoRA", got=f"{weights}: {name}", expected="lora_A and lora_B that fit")
        deltas.setdefault(number, {})[f"{name}.weight"] = scale * half["B"] @ half["A"]
    return deltas
