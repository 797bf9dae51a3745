"""Whether a checkpoint folder holds what its configs promise, told from file headers before any weight is read.

A missing tensor is left random by the loading libraries, with a warning at best, and the shot is noise; a cut-off
download fails minutes into loading. Both are found here in well under a second: safetensors headers name every tensor
with its shape, and the stock class built on the meta device says what it wants.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anisora import files
from anisora.errors import BadCheckpoint
from anisora.models.checkpoint import read_json

Shapes = dict[str, tuple[int, ...]]

#: components of our own: folder -> class in `anisora`; not listed in model_index.json
OWN_PARTS = {"mask_projection": "MaskProjection", "guide_decoder": "GuideDecoder"}


def verify(folder: Path) -> dict[str, int]:
    """Number of tensors by component, all of them present and of the right shape.

    Raises one BadCheckpoint that names every missing file and every missing, mismatching or unexpected tensor.
    """
    folder = Path(folder)
    problems: list[str] = []
    counts: dict[str, int] = {}
    for name, library, class_name in _components(folder):
        if not (folder / name).is_dir():
            problems.append(f"{name}: no such folder")
        elif (component := _class(library, class_name)) is None:
            problems.append(f"{name}: {library} has no class {class_name}")
        elif _has_weights(component):
            found, wrong = _check_component(folder / name, component)
            counts[name] = found
            problems += [f"{name}: {problem}" for problem in wrong]
    if problems:
        raise BadCheckpoint(
            f"the checkpoint {folder} is not whole",
            got="; ".join(_shortened(problems, 12)),
            expected="the tensors that its configs describe",
            hint="copying or downloading it again",
        )
    return counts


def tensor_files(folder: Path) -> list[Path]:
    """Every file of weights in a checkpoint folder, sorted by path."""
    return sorted(path for path in Path(folder).rglob("*.safetensors") if path.is_file())


def safetensors_shapes(path: Path) -> Shapes:
    """Shape of every tensor in a safetensors file, from its header. Raises BadCheckpoint if the file is cut off or not one."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes where its header promises {8 + length + end}")
        return {name: tuple(entry["shape"]) for name, entry in tensors.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(
            "a truncated or damaged safetensors file", got=f"{path}: {error}", hint="copying or downloading it again"
        ) from error


def meta_shapes(component: Any, config_folder: Path) -> tuple[Shapes, set[str]]:
    """(shapes, tied): what the class wants to load for the config in a folder, built without memory; tied names may lack."""
    import torch

    with torch.device("meta"):
        if hasattr(component, "load_config"):
            model = component.from_config(component.load_config(config_folder))
        else:
            model = component(component.config_class.from_pretrained(config_folder))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = getattr(model, "_tied_weights_keys", None) or {}
    return shapes, set(tied) | (set(tied.values()) if isinstance(tied, dict) else set())


def _components(folder: Path) -> Iterator[tuple[str, str, str]]:
    for name, entry in read_json(folder / "model_index.json").items():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] is not None:
            yield name, entry[0], entry[1]
    for name, class_name in OWN_PARTS.items():
        if (folder / name).is_dir():
            yield name, "anisora", class_name


def _class(library: str, class_name: str) -> Any:
    import importlib

    try:
        return getattr(importlib.import_module(library), class_name, None)
    except ImportError:
        return None


def _has_weights(component: Any) -> bool:
    import torch

    return isinstance(component, type) and issubclass(component, torch.nn.Module)


def _check_component(folder: Path, component: Any) -> tuple[int, list[str]]:
    read_json(folder / "config.json")
    try:
        wanted, tied = meta_shapes(component, folder)
    except (TypeError, ValueError, KeyError) as error:
        return 0, [f"its config.json does not build a {component.__name__} ({error})"]
    found = _stored_shapes(folder)
    if component.__module__.startswith("transformers"):
        found = _renamed(found, wanted, getattr(component, "base_model_prefix", ""))
    missing = sorted(set(wanted) - set(found) - tied)
    if tied and not tied & set(found):
        missing += sorted(tied)
    differing = [name for name in wanted if name in found and found[name] != wanted[name]]
    problems = [f"missing {name}" for name in missing]
    problems += [f"{name} is {list(found[name])}, not {list(wanted[name])}" for name in differing]
    ignored = tuple(getattr(component, "_keys_to_ignore_on_load_unexpected", None) or ())
    unexpected = (name for name in sorted(set(found) - set(wanted)) if not any(part in name for part in ignored))
    return len(found), problems + [f"unexpected {name}" for name in unexpected]


def _stored_shapes(folder: Path) -> Shapes:
    """The tensors of one component: of its one file, or of the shards that its index names."""
    shards = sorted(folder.glob("*.safetensors"))
    if index := next(iter(sorted(folder.glob("*.safetensors.index.json"))), None):
        named = set(read_json(index).get("weight_map", {}).values())
        if absent := sorted(named - {shard.name for shard in shards}):
            raise BadCheckpoint("a checkpoint lacks a file", got=f"no {', '.join(absent)} in {folder}")
        shards = [folder / name for name in sorted(named)]
    if not shards:
        raise BadCheckpoint(
            "a checkpoint lacks a file", got=f"no .safetensors file in {folder}", expected="weights as safetensors"
        )
    return {name: shape for shard in shards for name, shape in safetensors_shapes(shard).items()}


def _renamed(found: Shapes, wanted: Shapes, prefix: str) -> Shapes:
    """transformers moves a base-model prefix when it loads and skips what it does not know; so does this."""
    names = {name: name for name in wanted}
    for name in wanted:
        for spelling in (f"{prefix}.{name}", f"vision_model.{name}", name.removeprefix("vision_model.")):
            names.setdefault(spelling, name)
    return {names[name]: shape for name, shape in found.items() if name in names}


def _shortened(lines: list[str], limit: int) -> list[str]:
    return lines if len(lines) <= limit else [*lines[:limit], f"and {len(lines) - limit} more"]


_HASHES: dict[tuple[str, int, int], str] = {}


def weights_sha256(folder: Path) -> str:
    """sha256 over the content of all tensor files of a checkpoint, in the order of their paths within it.

    Equal for copies of a checkpoint, different when a byte of a weight or a file's name differs. Files are read once a process
    and again only if their size or time of change differs.
    """
    total = hashlib.sha256()
    for path in tensor_files(folder):
        total.update(f"{path.relative_to(folder).as_posix()}\0{_file_sha256(path)}\n".encode())
    return total.hexdigest()


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _HASHES:
        _HASHES[key] = files.sha256_file(path)
    return _HASHES[key]
