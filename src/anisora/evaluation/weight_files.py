"""Tensors out of the files that others publish, and into a network, whole or not at all.

Such files come from anywhere: `.pth` and `.pt` are opened as tensors only, and a TorchScript archive, which is a program
with its weights (OpenAI's CLIP), is read for the weights alone; its code is neither compiled nor run.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anisora.errors import BadCheckpoint
from anisora.files import existing_file

#: Under these names training leaves the weights among other things, and before these their names.
_WRAPPERS, _PREFIXES = ("state_dict", "model_state_dict", "model", "module", "teacher"), ("module.",)


def read_tensors(path: str | Path, what: str = "the weights") -> dict[str, Tensor]:
    """name -> tensor of a .safetensors, .pth, .pt or .bin file, on the CPU.

    Where the file holds a training state the weights in it are taken, and `module.`, which parallel training leaves, is
    dropped. Raises BadCheckpoint for what is not a file of tensors.
    """
    file = existing_file(path, BadCheckpoint, what)
    if file.suffix == ".safetensors":
        return _safetensors(file, what)
    archive = zipfile.is_zipfile(file)
    try:
        if archive and (script := _script_root(file)) is not None:
            return _script_tensors(file, script)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as reason:  # whatever damaged bytes make of a pickle
        first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise BadCheckpoint(
            f"{what} cannot be read", got=f"{file} ({first})", expected="a file of tensors and nothing else"
        ) from reason
    return _plain(_unwrapped(found), file, what)


def _safetensors(file: Path, what: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as reason:
        raise BadCheckpoint(f"{what} cannot be read", got=f"{file} ({reason})") from reason


def _unwrapped(found: Any) -> Any:
    if isinstance(found, Mapping) and isinstance(fused := found.get("fusion_model_state_dict"), Mapping):
        # ActionCLIP keeps its transformer over frames beside the model
        return {**found["model_state_dict"], **{f"fusion_model.{name}": value for name, value in fused.items()}}
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            return _unwrapped(found[name])
    return found


def _plain(found: Any, file: Path, what: str) -> dict[str, Tensor]:
    named = found.items() if isinstance(found, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(value, Tensor)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise BadCheckpoint(f"{what} cannot be read", got=f"{file} ({type(found).__name__})", expected="named tensors")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def problems(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What keeps tensors from being a network's: names `missing`, `unexpected`, `misfit` with both shapes, `not finite`."""
    wanted = network.state_dict()
    return {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "misfit": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}"
            for name in sorted(wanted.keys() & tensors.keys())
            if tensors[name].shape != wanted[name].shape
        ],
        "not finite": sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor.float()).all()),
    }


def fill(network: nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Puts the tensors into a network. Raises BadCheckpoint that names every one that does not fit."""
    found = {kind: names for kind, names in problems(network, tensors).items() if names}
    if found:
        said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items())
        raise BadCheckpoint(
            "the weights do not fit the network", got=f"{where} ({said})", expected=f"all of {type(network).__name__}"
        )
    network.load_state_dict(tensors)


# ------------------------------------------------------------------------------------------------- TorchScript archives

#: The storages of an archive, by the name that its pickle gives them.
_DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


def _script_root(file: Path) -> str | None:
    """The folder within a zip file that holds a TorchScript module; None for any other zip file."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    roots = {name.partition("/")[0] for name in names if name.endswith("/data.pkl")}
    return next((root for root in sorted(roots) if f"{root}/constants.pkl" in names), None)


class _Module:
    """Stands for any class of the archive's program: a place for its attributes."""


class _Reader(pickle.Unpickler):
    """Reads a module's attributes; knows nothing but storages, tensors and empty classes."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle":  # lists of numbers, which are no weights
            return lambda value, *_: value
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a module's weights")

    def persistent_load(self, pid: Any) -> Tensor:
        _, storage, key, _, _ = pid
        data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        return torch.frombuffer(data, dtype=_DTYPES[storage]) if data else torch.empty(0, dtype=_DTYPES[storage])


def _tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else 0
    if min(offset, last, *size, *stride, 0) < 0 or last > max(0, len(storage) - 1):
        raise pickle.UnpicklingError("a tensor beyond its storage")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _script_tensors(file: Path, root: str) -> dict[str, Tensor]:
    with zipfile.ZipFile(file) as archive:
        module = _Reader(archive, root).load()
    return dict(_named(module, ""))


def _named(value: Any, name: str) -> Sequence[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    if not isinstance(value, _Module):
        return []
    return [pair for key, own in vars(value).items() for pair in _named(own, f"{name}.{key}" if name else key)]
