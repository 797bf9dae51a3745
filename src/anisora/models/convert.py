"""Published weights in their makers' layout, converted to a diffusers checkpoint: cast, sharded, never whole in memory.

    wan    AniSora V2, V3, V3.1, V3.2, any-mask, and Wan itself: renamed by diffusers' own mapper
    sat    AniSora V1 (CogVideoX in SwissArmyTransformer): fused projections split, the 12 modulations regrouped

Only the denoising networks are converted. VAE, text encoder, tokenizer, scheduler and image encoder are unchanged upstream and
taken from the base model's diffusers folder. What is written is checked against the stock class tensor by tensor.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anisora import files
from anisora.errors import BadCheckpoint, BadRequest
from anisora.models.catalog import KNOWN
from anisora.models.checkpoint import INFO_FILE, read_info, read_json
from anisora.models.verify import Shapes, verify

DTYPES = {"bfloat16": 2, "float16": 2, "float32": 4}
SHARD_BYTES = 4 * 2**30
_WEIGHTS = "diffusion_pytorch_model"


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What was written: tensors and parameters by network, files, bytes, and names of the source that have no place."""

    path: str
    layout: str
    tensors: dict[str, int]
    params: dict[str, int]
    num_files: int
    num_bytes: int
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the target: its shape, and how to make it from the source when its turn comes."""

    shape: tuple[int, ...]
    make: Callable[[], Any]


def convert_checkpoint(
    networks: dict[str, str | Path],
    base: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    dtype: str = "bfloat16",
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Writes a diffusers checkpoint `out` from upstream `networks`, with all else from the diffusers folder `base`.

    `networks` has "transformer" and, for two experts, "transformer_2" (the low-noise one): a file, or a folder with one
    checkpoint in any number of files. `name`, a name of the catalog, brings its recipe. `progress(done, total)` counts
    tensors. Memory: one shard. Raises BadRequest for a wrong argument; BadCheckpoint, naming them, for tensors that the
    stock class lacks or wants; WriteFailed; then nothing is left behind.
    """
    _check_arguments(networks, dtype, name)
    base, index = Path(base), read_json(Path(base) / "model_index.json")
    plans, configs, layouts, dropped = {}, {}, set(), []
    for network, source in networks.items():
        tensors, config, layout, lost = _plan(Path(source), base)
        _check_coverage(network, {key: tensor.shape for key, tensor in tensors.items()}, config)
        plans[network], configs[network] = tensors, config
        layouts.add(layout)
        dropped += lost
    total = sum(map(len, plans.values()))
    done = 0
    with files.atomic_folder(out, members=r"(?!)") as folder:
        for network, tensors in plans.items():
            for written in _write_network(folder / network, tensors, configs[network], dtype, shard_bytes):
                done += written
                if progress:
                    progress(done, total)
        _take_over(base, index, folder, networks, configs, name)
        verify(folder)
        weights = [path for network in networks for path in (folder / network).glob("*.safetensors")]
        num_bytes = sum(path.stat().st_size for path in weights)
    return ConversionReport(
        path=str(out),
        layout=" and ".join(sorted(layouts)),
        tensors={network: len(tensors) for network, tensors in plans.items()},
        params={network: sum(math.prod(t.shape) for t in tensors.values()) for network, tensors in plans.items()},
        num_files=len(weights),
        num_bytes=num_bytes,
        dropped=tuple(sorted(set(dropped))),
    )


def _check_arguments(networks: dict[str, str | Path], dtype: str, name: str | None) -> None:
    if dtype not in DTYPES:
        raise BadRequest("unknown dtype", got=repr(dtype), expected=", ".join(DTYPES))
    if "transformer" not in networks or set(networks) - {"transformer", "transformer_2"}:
        raise BadRequest(
            "unknown networks", got=list(networks), expected="transformer, and transformer_2 for two experts"
        )
    if name is not None and name not in KNOWN:
        raise BadRequest("unknown name", got=repr(name), expected=", ".join(KNOWN))


# Reading


def _plan(source: Path, base: Path) -> tuple[dict[str, _Tensor], dict[str, Any], str, list[str]]:
    """(target tensors, config, layout, names without a place) of a network in its makers' layout."""
    found = {_bare(name): tensor for name, tensor in _source_tensors(source).items()}
    if "blocks.0.self_attn.q.weight" in found:
        return _wan_tensors(found), _wan_config(found, source), "wan", []
    if "transformer.layers.0.attention.query_key_value.weight" in found:
        tensors, dropped = _sat_tensors(found)
        return tensors, _sat_config(found, base), "sat", dropped
    raise BadCheckpoint(
        "weights in an unknown layout",
        got=f"names like {', '.join(sorted(found)[:2])} in {source}",
        expected="the original layout of Wan (blocks.0.self_attn.q) or CogVideoX (transformer.layers.0.attention)",
    )


def _bare(name: str) -> str:
    for prefix in ("module.", "model.diffusion_model."):
        name = name.removeprefix(prefix)
    return name


def _source_tensors(source: Path) -> dict[str, _Tensor]:
    """Every tensor of a file or of the weight files in a folder; nothing is read yet."""
    paths = sorted(p for p in source.iterdir() if p.suffix in _READERS) if source.is_dir() else [source]
    if not paths or not all(path.is_file() and path.suffix in _READERS for path in paths):
        raise BadRequest("no weights there", got=source, expected=f"a file or folder of {', '.join(_READERS)}")
    tensors: dict[str, _Tensor] = {}
    for path in paths:
        tensors |= _READERS[path.suffix](path)
    return tensors


def _from_safetensors(path: Path) -> dict[str, _Tensor]:
    from safetensors import safe_open

    from anisora.models.verify import safetensors_shapes

    shapes = safetensors_shapes(path)
    file = safe_open(path, framework="pt")
    return {name: _Tensor(shape, partial(file.get_tensor, name)) for name, shape in shapes.items()}


def _from_torch(path: Path) -> dict[str, _Tensor]:
    """A torch file, mapped into memory: only what is looked at is read. Code in it is not run."""
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise BadCheckpoint("an unreadable torch file", got=f"{path}: {error}") from error
    for wrapper in ("model", "module", "state_dict"):
        state = state[wrapper] if isinstance(state, dict) and wrapper in state else state
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {name: _Tensor(tuple(value.shape), partial(tensors.__getitem__, name)) for name, value in tensors.items()}


_READERS: dict[str, Callable[[Path], dict[str, _Tensor]]] = {
    ".safetensors": _from_safetensors,
    ".pt": _from_torch,
    ".pth": _from_torch,
    ".bin": _from_torch,
}


# Wan


def _wan_tensors(found: dict[str, _Tensor]) -> dict[str, _Tensor]:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    # The mapper only moves keys, so it can be handed descriptions in place of tensors.
    return convert_wan_transformer_to_diffusers(dict(found))


def _wan_config(found: dict[str, _Tensor], source: Path) -> dict[str, Any]:
    """The diffusers config that the shapes tell; the number of heads from a config.json beside them, else of 128 each."""
    folder = source if source.is_dir() else source.parent
    told = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    dim, in_channels, *patch = found["patch_embedding.weight"].shape
    num_heads = told.get("num_heads", dim // 128)
    image = found.get("img_emb.proj.1.weight")
    config = {
        "_class_name": "WanTransformer3DModel",
        "patch_size": patch,
        "num_attention_heads": num_heads,
        "attention_head_dim": dim // num_heads,
        "in_channels": in_channels,
        "out_channels": found["head.head.weight"].shape[0] // math.prod(patch),
        "text_dim": found["text_embedding.0.weight"].shape[1],
        "freq_dim": found["time_embedding.0.weight"].shape[1],
        "ffn_dim": found["blocks.0.ffn.0.weight"].shape[0],
        "num_layers": _count(found, r"blocks\.(\d+)\."),
        "image_dim": image.shape[1] if image else None,
        "added_kv_proj_dim": dim if "blocks.0.cross_attn.k_img.weight" in found else None,
    }
    if num_vace := _count(found, r"vace_blocks\.(\d+)\."):
        layers = list(range(0, config["num_layers"], config["num_layers"] // num_vace))
        vace = {
            "vace_layers": told.get("vace_layers", layers),
            "vace_in_channels": found["vace_patch_embedding.weight"].shape[1],
        }
        config |= {"_class_name": "WanVACETransformer3DModel", **vace}
    return config


def _count(found: dict[str, _Tensor], pattern: str) -> int:
    return len({match[1] for name in found if (match := re.match(pattern, name))})


# CogVideoX in SwissArmyTransformer

_SAT_NAMES = {
    r"transformer\.final_layernorm": "norm_final",
    r"transformer\.layers\.(\d+)\.attention\.dense": r"transformer_blocks.\1.attn1.to_out.0",
    r"transformer\.layers\.(\d+)\.mlp\.dense_h_to_4h": r"transformer_blocks.\1.ff.net.0.proj",
    r"transformer\.layers\.(\d+)\.mlp\.dense_4h_to_h": r"transformer_blocks.\1.ff.net.2",
    r"transformer\.layers\.(\d+)\.input_layernorm": r"transformer_blocks.\1.norm1.norm",
    r"transformer\.layers\.(\d+)\.post_attention_layernorm": r"transformer_blocks.\1.norm2.norm",
    r"transformer\.layers\.(\d+)\.post_attn1_layernorm": r"transformer_blocks.\1.norm2.norm",
    r"mixins\.adaln_layer\.query_layernorm_list\.(\d+)": r"transformer_blocks.\1.attn1.norm_q",
    r"mixins\.adaln_layer\.key_layernorm_list\.(\d+)": r"transformer_blocks.\1.attn1.norm_k",
    r"time_embed\.0": "time_embedding.linear_1",
    r"time_embed\.2": "time_embedding.linear_2",
    r"ofs_embed\.0": "ofs_embedding.linear_1",
    r"ofs_embed\.2": "ofs_embedding.linear_2",
    r"mixins\.patch_embed": "patch_embed",
    r"mixins\.final_layer\.norm_final": "norm_out.norm",
    r"mixins\.final_layer\.linear": "proj_out",
    r"mixins\.final_layer\.adaLN_modulation\.1": "norm_out.linear",
    r"mixins\.pos_embed\.pos_embedding": "patch_embed.pos_embedding",
}
#: tables that are computed, and an embedding that the video model never uses
_SAT_UNUSED = ("embed_tokens", "freqs_sin", "freqs_cos", "position_embedding")
_QKV = re.compile(r"transformer\.layers\.(\d+)\.attention\.query_key_value\.(\w+)")
_ADALN = re.compile(r"mixins\.adaln_layer\.adaLN_modulations\.(\d+)\.1\.(\w+)")


def _sat_tensors(found: dict[str, _Tensor]) -> tuple[dict[str, _Tensor], list[str]]:
    tensors: dict[str, _Tensor] = {}
    dropped = []
    for name, tensor in found.items():
        if any(part in name for part in _SAT_UNUSED):
            dropped.append(name)
        elif match := _QKV.fullmatch(name):
            block = f"transformer_blocks.{match[1]}.attn1"
            for place, side in enumerate(("to_q", "to_k", "to_v")):
                tensors[f"{block}.{side}.{match[2]}"] = _rows(tensor, 3, [place])
        elif match := _ADALN.fullmatch(name):
            block = f"transformer_blocks.{match[1]}"
            # 12 chunks: shift, scale, gate for attention and for the MLP of the video, then the same of the text.
            tensors[f"{block}.norm1.linear.{match[2]}"] = _rows(tensor, 12, [0, 1, 2, 6, 7, 8])
            tensors[f"{block}.norm2.linear.{match[2]}"] = _rows(tensor, 12, [3, 4, 5, 9, 10, 11])
        else:
            tensors[_sat_name(name)] = tensor
    return tensors, dropped


def _sat_name(name: str) -> str:
    for pattern, replacement in _SAT_NAMES.items():
        if match := re.match(pattern + r"(?=\.|$)", name):
            return match.expand(replacement) + name[match.end() :]
    return name


def _rows(tensor: _Tensor, num_chunks: int, places: list[int]) -> _Tensor:
    """Some of the equal chunks of a tensor's rows, joined."""
    import torch

    def make() -> Any:
        chunks = tensor.make().chunk(num_chunks)
        return torch.cat([chunks[place] for place in places])

    return _Tensor((tensor.shape[0] // num_chunks * len(places), *tensor.shape[1:]), make)


def _sat_config(found: dict[str, _Tensor], base: Path) -> dict[str, Any]:
    """The base model's config; a learned position table only where the weights have one (AniSora V1 has none)."""
    config = read_json(base / "transformer" / "config.json")
    return config | {"use_learned_positional_embeddings": "mixins.pos_embed.pos_embedding" in found}


# Writing


def _check_coverage(network: str, found: Shapes, config: dict[str, Any]) -> None:
    """Raises BadCheckpoint unless the converted tensors are exactly those of the stock class."""
    import diffusers
    import torch

    with torch.device("meta"):
        model = getattr(diffusers, config["_class_name"]).from_config(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = [f"missing {name}" for name in sorted(set(wanted) - set(found))]
    problems += [f"unexpected {name}" for name in sorted(set(found) - set(wanted))]
    common = sorted(set(found) & set(wanted))
    problems += [f"{n} is {list(found[n])}, not {list(wanted[n])}" for n in common if found[n] != wanted[n]]
    if problems:
        raise BadCheckpoint(
            f"these weights do not make a whole {config['_class_name']} ({network})",
            got="; ".join(problems[:12]) + (f"; and {len(problems) - 12} more" if len(problems) > 12 else ""),
            expected=f"{len(wanted)} tensors",
            hint="the complete set of files",
        )


def _write_network(
    folder: Path, tensors: dict[str, _Tensor], config: dict[str, Any], dtype: str, shard_bytes: int
) -> Iterator[int]:
    """Writes shards with their index; yields the number of tensors of each shard as it is written."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shards = _shards(tensors, DTYPES[dtype], shard_bytes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = (
            f"{_WEIGHTS}-{number:05d}-of-{len(shards):05d}.safetensors"
            if len(shards) > 1
            else f"{_WEIGHTS}.safetensors"
        )
        save_file({name: _cast(name, tensors[name], dtype) for name in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
        yield len(names)
    if len(shards) > 1:
        size = sum(math.prod(tensor.shape) for tensor in tensors.values()) * DTYPES[dtype]
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / f"{_WEIGHTS}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: dict[str, _Tensor], itemsize: int, shard_bytes: int) -> list[list[str]]:
    """Names in order, cut where a shard would grow beyond the limit; a tensor above it has a shard of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * itemsize
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _cast(name: str, tensor: _Tensor, dtype: str) -> Any:
    import torch

    source = tensor.make()
    cast = source.to(getattr(torch, dtype)).contiguous().clone()
    if torch.isfinite(source).all() and not torch.isfinite(cast).all():
        raise BadRequest(
            f"{name} does not fit {dtype}",
            got=f"values up to {float(source.abs().max()):.3g}",
            hint="bfloat16 or float32",
        )
    return cast


def _take_over(
    base: Path, index: dict[str, Any], out: Path, networks: Any, configs: dict[str, Any], name: str | None
) -> None:
    """All else of the base folder (hard links where they are possible), its index, and the recipe of `name`."""
    index = {key: value for key, value in index.items() if key != "transformer_2" or "transformer_2" in networks}
    index |= {network: ["diffusers", configs[network]["_class_name"]] for network in networks}
    for key, value in index.items():
        if isinstance(value, list) and value[0] is not None and key not in networks:
            shutil.copytree(base / key, out / key, copy_function=_link_or_copy)
    defaults = KNOWN[name].defaults if name else {}
    if "transformer_2" in networks:
        index.setdefault("boundary_ratio", defaults.get("recipe", {}).get("boundary", 0.9))
    else:
        index.pop("boundary_ratio", None)
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    if defaults:
        (out / INFO_FILE).write_text(json.dumps(defaults, indent=2) + "\n", encoding="utf-8")
    read_info(out)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
