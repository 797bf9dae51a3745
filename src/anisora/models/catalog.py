"""Checkpoints by name or path: what is known, what is here, and what each can do.

Big weights are never downloaded by a name: they are put in a folder and given by path, or under `$ANISORA_MODELS/NAME` to be
found by name. A name of the table then also brings the recipe that its makers recommend, where the folder has no
anisora.json of its own.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from anisora.errors import BadCheckpoint, UnknownModel
from anisora.models.checkpoint import CheckpointInfo, Native, Recipe, info_json, read_info
from anisora.models.verify import tensor_files, verify, weights_sha256

__all__ = [
    "KNOWN", "CheckpointInfo", "KnownModel", "Native", "Recipe", "list_models", "models_folder", "resolve", "show",
    "verify", "weights_sha256",
]  # fmt: skip

BUNDLED = Path(__file__).parent.parent / "weights" / "bundled"


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A public checkpoint: where it comes from, how large its network is, under which licence, and how it is used.

    `params` counts the denoising network (each expert once). `defaults` has the fields of anisora.json.
    """

    family: str
    source: str
    params: str
    licence: str
    note: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)


_UPSTREAM_480 = {"size": [832, 480], "frames": 81, "fps": 16}
#: what a checkpoint was trained with, where its network could read more
_GUIDES = ["text", "guides"]
_CONVERT = "original layout: run `anisora models convert` first"


def _few_steps(**more: Any) -> dict[str, Any]:
    """The 8-step, guidance 1, shift 5 recipe of the distilled V3 releases."""
    recipe = {"steps": 8, "guidance": 1.0, "shift": 5.0, "sampler": "unipc", **more}
    native_and_range = {"native": _UPSTREAM_480, "motion_score_range": [2.0, 4.0]}
    return {"capabilities": _GUIDES, "recipe": recipe, **native_and_range, "snap": "anisora"}


#: name -> what is known of it. Weights come by path (or $ANISORA_MODELS/NAME); only `bundled` is part of the package.
KNOWN: dict[str, KnownModel] = {
    "bundled": KnownModel(
        family="wan", source="this package", params="see its config", licence="Apache-2.0", note="always here"
    ),
    "anisora-v1": KnownModel(
        family="cogvideox",
        source="IndexTeam/AniSora-v1-i2v-diffusers",
        params="5.6 B",
        licence="CogVideoX licence",
        defaults={
            "recipe": {"steps": 50, "guidance": 6.0},
            "native": {"size": [1280, 720], "frames": 49, "fps": 16},
            "motion_score_range": [0.5, 1.5],
        },
    ),
    "anisora-v2": KnownModel(
        family="wan",
        source="IndexTeam/Index-anisora (V2)",
        params="16.4 B",
        licence="Apache-2.0",
        note=_CONVERT,
        defaults={
            "capabilities": _GUIDES,
            "recipe": {"steps": 40, "guidance": 5.0, "shift": 5.0, "sampler": "unipc"},
            "native": _UPSTREAM_480,
            "motion_score_range": [1.0, 2.0],
        },
    ),
    "anisora-v3": KnownModel(
        family="wan",
        source="IndexTeam/Index-anisora (V3.1)",
        params="16.4 B",
        licence="Apache-2.0",
        note=_CONVERT,
        defaults=_few_steps(),
    ),
    "anisora-v3.2": KnownModel(
        family="wan",
        source="IndexTeam/Index-anisora (V3.2)",
        params="2 x 14.3 B",
        licence="Apache-2.0",
        note=_CONVERT,
        defaults=_few_steps(boundary=0.9),
    ),
    "anisora-anymask": KnownModel(
        family="wan",
        source="IndexTeam/Index-anisora (anymask)",
        params="16.4 B",
        licence="Apache-2.0",
        note=_CONVERT,
        defaults=_few_steps() | {"capabilities": ["text", "guides", "motion_area", "keep_video"], "snap": "exact"},
    ),
    "wan2.1-i2v-14b-480p": KnownModel(
        family="wan",
        source="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        params="16.4 B",
        licence="Apache-2.0",
        defaults={
            "capabilities": _GUIDES,
            "recipe": {"steps": 40, "guidance": 5.0, "shift": 3.0, "sampler": "unipc"},
            "native": _UPSTREAM_480,
        },
    ),
    "wan2.1-i2v-14b-720p": KnownModel(
        family="wan",
        source="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        params="16.4 B",
        licence="Apache-2.0",
        defaults={
            "capabilities": _GUIDES,
            "recipe": {"steps": 40, "guidance": 5.0, "shift": 5.0, "sampler": "unipc"},
            "native": {"size": [1280, 720], "frames": 81, "fps": 16},
        },
    ),
    "wan2.2-i2v-a14b": KnownModel(
        family="wan",
        source="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        params="2 x 14.3 B",
        licence="Apache-2.0",
        defaults={
            "capabilities": _GUIDES,
            "recipe": {"steps": 40, "guidance": 3.5, "shift": 5.0, "sampler": "unipc", "boundary": 0.9},
            "native": _UPSTREAM_480,
        },
    ),
    "cogvideox-5b-i2v": KnownModel(
        family="cogvideox", source="zai-org/CogVideoX-5b-I2V", params="5.6 B", licence="CogVideoX licence"
    ),
    "cogvideox1.5-5b-i2v": KnownModel(
        family="cogvideox", source="zai-org/CogVideoX1.5-5B-I2V", params="5.6 B", licence="CogVideoX licence"
    ),
    "wan2.1-vace-1.3b": KnownModel(
        family="vace", source="Wan-AI/Wan2.1-VACE-1.3B-diffusers", params="2.2 B", licence="Apache-2.0"
    ),
    "wan2.1-vace-14b": KnownModel(
        family="vace", source="Wan-AI/Wan2.1-VACE-14B-diffusers", params="17.3 B", licence="Apache-2.0"
    ),
}


def models_folder() -> Path | None:
    """`$ANISORA_MODELS`, the folder in which checkpoints are found by name, if it is set."""
    return Path(os.environ["ANISORA_MODELS"]) if os.environ.get("ANISORA_MODELS") else None


def resolve(name_or_path: str | Path) -> CheckpointInfo:
    """What is known of a checkpoint, by name or folder; nothing is loaded.

    A folder of that name wins over a name of the table. Raises UnknownModel, with the nearest names, for neither; UnknownModel
    for a known name whose weights are not here; BadCheckpoint for a folder that is no checkpoint.
    """
    name = str(name_or_path)
    if Path(name).is_dir():
        return read_info(Path(name))
    if name not in KNOWN:
        raise _unknown(name)
    folder = location(name)
    if folder is None:
        raise _not_here(name)
    return read_info(folder, name, KNOWN[name].defaults)


def location(name: str) -> Path | None:
    """The folder of a known name, if its weights are on this machine."""
    if name == "bundled":
        return BUNDLED if BUNDLED.is_dir() else None
    root = models_folder()
    return root / name if root and (root / name).is_dir() else None


def list_models() -> list[dict[str, Any]]:
    """One row per known model: name, family, source, params, licence, note, and its path, None where it is not here."""
    return [
        {
            "name": name,
            "family": known.family,
            "params": known.params,
            "licence": known.licence,
            "source": known.source,
            "note": known.note or "weights by path",
            "path": str(location(name)) if location(name) else None,
        }
        for name, known in KNOWN.items()
    ]


def show(name_or_path: str | Path) -> dict[str, Any]:
    """All that is known of a model: the fields of anisora.json, and where its weights are here, size and hash.

    Raises as `resolve` does, but for a known name without weights returns what the table has, `path` being None.
    """
    name = str(name_or_path)
    known = KNOWN.get(name) if not Path(name).is_dir() else None
    table = {key: value for key, value in asdict(known).items() if key != "defaults"} if known else {}
    if known and location(name) is None:
        return {"name": name, **table, **known.defaults, "path": None}
    info = resolve(name)
    return {
        "name": info.name,
        **table,
        **info_json(info),
        "path": str(info.path),
        "pipeline": info.pipeline_class,
        "experts": info.experts,
        "image_branch": info.image_branch,
        "size_multiple_px": info.strides.size_multiple_px,
        "bytes": sum(path.stat().st_size for path in tensor_files(info.path)),
        "weights_sha256": weights_sha256(info.path),
    }


def _unknown(name: str) -> UnknownModel:
    near = difflib.get_close_matches(name, KNOWN, n=3, cutoff=0.4)
    return UnknownModel(
        "unknown model",
        got=repr(name),
        expected="a checkpoint folder or a name from `anisora models list`",
        hint=" or ".join(near) if near else "bundled",
    )


def _not_here(name: str) -> UnknownModel | BadCheckpoint:
    if name == "bundled":
        return BadCheckpoint("the bundled weights are missing", got=f"no folder {BUNDLED}", hint="installing again")
    known = KNOWN[name]
    root = models_folder()
    looked = f"no folder {root / name}" if root else "no ANISORA_MODELS folder to look in"
    return UnknownModel(
        f"the weights of {name} are not here",
        got=looked,
        expected=f"{known.source} ({known.params}) in a folder of this machine",
        hint=f"the folder's path instead of the name{', after conversion' if known.note == _CONVERT else ''}",
    )
