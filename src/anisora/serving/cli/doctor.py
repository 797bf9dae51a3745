"""`anisora doctor`: what this machine has, and which models would fit on it."""

from __future__ import annotations

import platform
import shutil
import sys
from typing import Annotated, Any

import typer

from anisora.serving.cli.console import print_json, show_pairs, show_table

#: what a report of a problem should name
_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "av", "numpy", "pillow")
#: encoder -> what it is for
_ENCODERS = {"libx264": "H.264", "libopenh264": "H.264", "libvpx-vp9": "VP9", "libsvtav1": "AV1", "libaom-av1": "AV1"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")] = False,
) -> None:
    """Environment, devices, video encoders, memory, and what would fit.

    Example: anisora doctor --json
    """
    facts: dict[str, Any] = {
        "environment": environment(),
        "devices": devices(),
        "encoders": encoders(),
        "models": models(),
    }
    if as_json:
        print_json(facts)
        return
    show_pairs(facts["environment"])
    show_table(
        ("device", "memory GB", "dtype"), [(d["name"], _gb(d["memory_bytes"]), d["dtype"]) for d in facts["devices"]]
    )
    found = [name for name, here in facts["encoders"].items() if here]
    sys.stdout.write(
        "video encoders   " + (", ".join(found) or "none: shots can be written as gif or png pictures only") + "\n"
    )
    _show_models(facts["models"])


def environment() -> dict[str, Any]:
    """Versions of what the work depends on, and room on the disk."""
    from importlib.metadata import PackageNotFoundError, version

    import anisora

    versions: dict[str, Any] = {"anisora": anisora.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    free = shutil.disk_usage(".").free
    return {**versions, "system": f"{platform.system()} {platform.machine()}", "disk_free_bytes": free}


def devices() -> list[dict[str, Any]]:
    """The processor with the machine's memory, and every accelerator torch reports with its own."""
    import psutil
    import torch

    from anisora.runtime import pick_dtype

    rows = [(torch.device("cpu"), psutil.virtual_memory().available, f"cpu ({torch.get_num_threads()} threads)")]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        for index in range(torch.accelerator.device_count()):
            device = torch.device(str(kind), index)
            free, _ = torch.accelerator.get_memory_info(device)
            rows.append((device, free, str(device)))
    return [
        {"name": name, "memory_bytes": free, "dtype": str(pick_dtype(device)).removeprefix("torch.")}
        for device, free, name in rows
    ]


def encoders() -> dict[str, bool]:
    """Whether the video library has each encoder."""
    import av

    return {name: name in av.codecs_available for name in _ENCODERS}


def models() -> list[dict[str, Any]]:
    """For each model the cost of its own kind of shot, and on which memory sizes (GB) it fits, and how."""
    from anisora.generation import planner
    from anisora.models import catalog

    rows = []
    for row in catalog.list_models():
        name = row["name"]
        if row["path"]:
            cost = planner.cost_of(catalog.resolve(name))
        elif name in planner.PUBLIC:
            cost = planner.cost_of_public(name, catalog.KNOWN[name].defaults)
        else:
            continue
        fits = {size: cost.fits(size * 10**9) for size in planner.PRESETS_GB}
        rows.append(
            {
                "name": name,
                "here": row["path"] is not None,
                "size": list(cost.size),
                "frames": cost.frames,
                "tokens": cost.tokens,
                "forwards": cost.forwards,
                "pflop": cost.flops / 1e15,
                "weights_bytes": cost.weights_bytes,
                "fits": {str(size): " ".join(choice) if choice else None for size, choice in fits.items()},
            }
        )
    return rows


def _show_models(rows: list[dict[str, Any]]) -> None:
    from anisora.generation.planner import PRESETS_GB

    show_table(
        ("model", "shot", "PFLOP", "bf16 GB", *(f"{size} GB" for size in PRESETS_GB)),
        [
            (
                row["name"],
                f"{row['size'][0]}x{row['size'][1]}x{row['frames']}",
                f"{row['pflop']:.3g}",
                _gb(row["weights_bytes"]["bfloat16"]),
                *(_short(row["fits"][str(size)]) for size in PRESETS_GB),
            )
            for row in rows
        ],
        title="What fits a card of that memory, estimated (fp8: --dtype float8, *: --offload parts, **: --offload blocks)",
    )


def _short(choice: str | None) -> str:
    words = {"bfloat16": "bf16", "float8": "fp8", "resident": "", "parts": "*", "blocks": "**"}
    return "".join(words[word] for word in choice.split()) if choice else "-"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g}"
