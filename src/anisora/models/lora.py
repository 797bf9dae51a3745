"""Low-rank weights laid over a pipeline, through diffusers' loaders, with an account of what was matched.

The loaders drop keys that fit nothing with a warning at best: a LoRA of another model then loads, and does nothing. Here
the keys are compared with the network first; none matching is an error, some not matching is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anisora.errors import BadCheckpoint, BadRequest


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """What came of loading a LoRA: its name on the pipeline, the networks it went into, and its modules by fate."""

    name: str
    path: str
    scale: float
    networks: tuple[str, ...]
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]


def load_lora(pipeline: Any, path: str | Path, scale: float = 1.0, experts: Sequence[str] | None = None) -> LoraReport:
    """Lays the LoRA at `path` (a .safetensors file, or a folder with one) over the pipeline at `scale`; adds to those there.

    diffusers', the original Wan and musubi's spellings are read. It goes into every expert, or into those named (of
    "transformer", "transformer_2"); where a folder holds `transformer_2/`, each expert gets its own. Raises BadRequest for
    a missing file or an unknown expert; BadCheckpoint for a file that is no LoRA, whose shapes do not fit, or none of
    whose modules the network has.
    """
    files = _files(Path(path), _networks(pipeline, experts))
    modules_by_file = {file: _modules(pipeline, file) for file in dict.fromkeys(files.values())}
    matched: dict[str, None] = {}
    for target, file in files.items():
        network, modules = getattr(pipeline, target), modules_by_file[file]
        found = [name for name in modules if _submodule(network, name) is not None]
        _check_matched(file, network, modules, found)
        matched |= dict.fromkeys(found)
    name = _free_name(pipeline, next(iter(files.values())).stem)
    for target, file in files.items():
        more = {"load_into_transformer_2": True} if target == "transformer_2" else {}
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name, **more)
    _set_scales(pipeline, name, scale)
    return LoraReport(
        name=name,
        path=str(path),
        scale=scale,
        networks=tuple(files),
        matched=tuple(matched),
        unmatched=tuple(sorted({name for modules in modules_by_file.values() for name in modules} - set(matched))),
    )


def _files(path: Path, networks: list[str]) -> dict[str, Path]:
    """network -> its file: the one there is, or for the second of two experts that of its own folder."""
    second = path / "transformer_2"
    if not second.is_dir():
        return dict.fromkeys(networks, _lora_file(path))
    files = {"transformer_2": _lora_file(second)} if "transformer_2" in networks else {}
    if "transformer" in networks and list(path.glob("*.safetensors")):
        files = {"transformer": _lora_file(path), **files}
    if not files:
        raise BadRequest("a LoRA for another expert", got=str(second), expected=f"one for {' or '.join(networks)}")
    return files


def _lora_file(path: Path) -> Path:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file():
        got = f"{len(files)} .safetensors files in {path}" if path.is_dir() else f"no file {path}"
        raise BadRequest("no LoRA there", got=got, expected="one .safetensors file")
    return files[0]


def _networks(pipeline: Any, experts: Sequence[str] | None) -> list[str]:
    present = [name for name in ("transformer", "transformer_2") if getattr(pipeline, name, None) is not None]
    if unknown := set(experts or ()) - set(present):
        raise BadRequest("a LoRA for an expert that is not there", got=sorted(unknown), expected=" or ".join(present))
    return [name for name in present if experts is None or name in experts]


def _modules(pipeline: Any, file: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """Module -> {"lora_A": shape, "lora_B": shape}, in the names of the diffusers network."""
    from safetensors import SafetensorError

    try:
        state = pipeline.lora_state_dict(str(file.parent), weight_name=file.name)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise BadCheckpoint("an unreadable LoRA", got=f"{file}: {error}") from error
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, tensor in state.items():
        if ".lora_" in key:
            module, _, rest = key.removeprefix("transformer.").partition(".lora_")
            modules.setdefault(module, {})[f"lora_{rest.split('.')[0]}"] = tuple(tensor.shape)
    if not modules:
        raise BadCheckpoint(
            "not a LoRA", got=f"{file}: keys like {sorted(state)[:1]}", expected="keys with lora_A and lora_B"
        )
    return modules


def _submodule(network: Any, name: str) -> Any:
    try:
        return network.get_submodule(name)
    except AttributeError:
        return None


def _check_matched(
    file: Path, network: Any, modules: dict[str, dict[str, tuple[int, ...]]], matched: list[str]
) -> None:
    if not matched:
        raise BadCheckpoint(
            "a LoRA of another model: none of its modules is in this network",
            got=f"{len(modules)} modules like {min(modules)} in {file}",
            expected=f"modules like {_example(network)}",
        )
    for name in matched:
        shapes, base = modules[name], _submodule(network, name)
        base = getattr(base, "base_layer", base)
        wanted = {"lora_A": base.weight.shape[1], "lora_B": base.weight.shape[0]}
        got = {"lora_A": shapes.get("lora_A", (0, 0))[1], "lora_B": shapes.get("lora_B", (0,))[0]}
        if got != wanted:
            raise BadCheckpoint(
                "a LoRA whose shapes do not fit this network",
                got=f"{name}: {got['lora_A']} in, {got['lora_B']} out",
                expected=f"{wanted['lora_A']} in, {wanted['lora_B']} out",
                hint="a LoRA made for a model of this size",
            )


def _example(network: Any) -> str:
    import torch

    return next((name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)), "none")


def _free_name(pipeline: Any, stem: str) -> str:
    taken = {name for names in pipeline.get_list_adapters().values() for name in names}
    stem = stem.replace(".", "_")  # peft keeps adapters as submodules, whose names have no dots
    return next(name for name in (stem, *(f"{stem}_{n}" for n in range(2, 1000))) if name not in taken)


def _set_scales(pipeline: Any, name: str, scale: float) -> None:
    """Makes every LoRA of the pipeline active at its own scale, the new one too."""
    present = {adapter for names in pipeline.get_list_adapters().values() for adapter in names}
    scales = getattr(pipeline, "lora_scales", {}) | {name: scale}
    pipeline.lora_scales = {adapter: value for adapter, value in scales.items() if adapter in present}
    pipeline.set_adapters(list(pipeline.lora_scales), list(pipeline.lora_scales.values()))
