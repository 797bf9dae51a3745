"""Named beginnings of a config: `preset: NAME` fills in what the config does not say itself.

motion   the paper's motion-area LoRA (section 4.2.2): rank 256 on q, k, v and out of every attention, which on CogVideoX-5B
         is 264 million numbers, the paper's 0.27 B; nearly all samples with the area of their pair (`data.pairs`)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anisora import settings

if TYPE_CHECKING:
    from torch import nn

PRESETS: dict[str, dict[str, Any]] = {
    "motion": {"method": "lora", "lora": {"rank": 256}, "conditions": {"motion_area_prob": 0.9}},
}


def expanded(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A config's plain data laid over the preset that it names. Raises BadConfig for an unknown one, naming the nearest."""
    named = data.get("preset")
    if named is None:
        return {key: value for key, value in data.items() if key != "preset"}
    settings.check_keys({named: None}, PRESETS, where=f"{where}: preset")
    return _laid_over(PRESETS[named], {key: value for key, value in data.items() if key != "preset"})


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        merged[key] = _laid_over(below[key], value) if both else value
    return merged


def say_size(trained: Mapping[str, nn.Module], rank: int) -> None:
    """Says how many numbers the adapters have."""
    from rich.console import Console

    count = sum(p.numel() for network in trained.values() for p in network.parameters() if p.requires_grad)
    text = f"LoRA of rank {rank} on {', '.join(trained)}: {count:,} numbers ({count / 1e9:.2g} B)"
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)
