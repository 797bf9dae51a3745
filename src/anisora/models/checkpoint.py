"""What a checkpoint folder says about itself: family, capabilities, and how it likes to be used.

Nothing in the code asks which checkpoint it holds. `anisora.json` beside model_index.json says what a checkpoint can do and its
recipe; a stock folder without that file gets both inferred from its configs, so that public weights work as they come.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from anisora.errors import BadCheckpoint
from anisora.geometry import Strides

INFO_FILE = "anisora.json"
FAMILIES = ("wan", "cogvideox", "cogvideox_mask", "vace")
CAPABILITIES = ("text", "guides", "motion_area", "keep_video")

#: stock pipeline class named in model_index.json -> family
_STOCK = {
    "WanImageToVideoPipeline": "wan",
    "CogVideoXImageToVideoPipeline": "cogvideox",
    "WanVACEPipeline": "vace",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a checkpoint likes to be sampled. None leaves a field to the checkpoint's own scheduler or configs.

    guidance 1 runs the network once a step; shift is the flow shift (section 3.1 of SD3); sampler is a key of
    `sampler.SAMPLERS`; boundary is the share of noise above which the first of two experts works, guidance_2 the
    guidance of the second (None: the same).
    """

    steps: int = 40
    guidance: float = 5.0
    guidance_2: float | None = None
    shift: float | None = None
    sampler: str | None = None
    boundary: float | None = None


@dataclass(frozen=True, kw_only=True)
class Native:
    """What a checkpoint was trained on: (width, height) in pixels, frames, frames per second."""

    size: tuple[int, int] = (832, 480)
    frames: int = 81
    fps: float = 16


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What is known of a checkpoint before anything is loaded.

    `capabilities` is a subset of text, guides, motion_area, keep_video; `motion_score_range` is what the prompt field
    takes, None where the checkpoint was not trained with it; `max_text_tokens` is the length prompts are padded to;
    `negative_prompt` is its default, None for the family's; `snap` is how guides are placed by default ("exact", or
    "anisora": multiples of 8).
    """

    name: str
    path: Path
    family: str
    capabilities: tuple[str, ...] = ("text", "guides")
    recipe: Recipe = field(default_factory=Recipe)
    native: Native = field(default_factory=Native)
    motion_score_range: tuple[float, float] | None = None
    max_text_tokens: int = 512
    negative_prompt: str | None = None
    snap: str = "exact"
    strides: Strides = field(default_factory=Strides)
    image_branch: bool = False
    experts: int = 1

    @property
    def frame_multiple(self) -> int:
        """Lengths are `frame_multiple * n + 1` frames."""
        return self.strides.temporal

    @property
    def pipeline_class(self) -> str:
        """The name of the class in `anisora` that runs this checkpoint."""
        return _PIPELINES[self.family]


_PIPELINES = {
    "wan": "AniSoraWanPipeline",
    "cogvideox": "AniSoraCogVideoXPipeline",
    "cogvideox_mask": "AniSoraCogVideoXPipeline",
    "vace": "AniSoraVACEPipeline",
}


def read_info(folder: Path, name: str | None = None, defaults: dict[str, Any] | None = None) -> CheckpointInfo:
    """The folder's `CheckpointInfo`: inferred from its configs, then `defaults`, then its own anisora.json.

    `defaults` has the fields of anisora.json. Raises BadCheckpoint for a folder without model_index.json, of an unknown
    family, or with an unreadable, unknown or mistyped field.
    """
    folder = Path(folder)
    index = read_json(folder / "model_index.json")
    inferred = _infer(folder, index)
    own = read_json(folder / INFO_FILE) if (folder / INFO_FILE).exists() else {}
    # The configs decide what the network is; the catalog and anisora.json how it is used.
    info = CheckpointInfo(name=name or folder.resolve().name, path=folder, **inferred)
    for source in (defaults or {}, own):
        info = _overlaid(info, source)
    return info


def info_json(info: CheckpointInfo) -> dict[str, Any]:
    """The content of anisora.json for `info`."""
    recipe = {entry.name: getattr(info.recipe, entry.name) for entry in fields(Recipe)}
    return {
        "family": info.family,
        "capabilities": list(info.capabilities),
        "recipe": {key: value for key, value in recipe.items() if value is not None},
        "native": {"size": list(info.native.size), "frames": info.native.frames, "fps": info.native.fps},
        "motion_score_range": list(info.motion_score_range) if info.motion_score_range else None,
        "max_text_tokens": info.max_text_tokens,
        "negative_prompt": info.negative_prompt,
        "snap": info.snap,
    }


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises BadCheckpoint where the file is missing or is not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCheckpoint("a checkpoint lacks a file", got=f"no {path.name} in {path.parent}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadCheckpoint("unreadable JSON in a checkpoint", got=f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(
            "unreadable JSON in a checkpoint", got=f"{path}: {type(value).__name__}", expected="an object"
        )
    return value


def _infer(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    configs = {name: read_json(folder / name / "config.json") for name in ("transformer", "vae") if _has(index, name)}
    if absent := {"transformer", "vae"} - set(configs):
        raise BadCheckpoint(
            "a checkpoint lacks a component", got=f"no {' or '.join(absent)} in {folder}/model_index.json"
        )
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    masked = (folder / "mask_projection").is_dir()
    return infer(index, configs["transformer"], configs["vae"], scheduler, masked)


def infer(index: dict, transformer: dict, vae: dict, scheduler: dict, masked: bool) -> dict[str, Any]:
    """The fields of a `CheckpointInfo` that the configs of a pipeline and its parts tell. Raises BadCheckpoint."""
    class_name = str(index.get("_class_name", ""))
    family = _STOCK.get(class_name)
    if family is None:
        raise BadCheckpoint(
            "a checkpoint of an unknown family", got=class_name or "no _class_name", expected=" or ".join(_STOCK)
        )
    if index.get("expand_timesteps") or transformer.get("pos_embed_seq_len"):
        kind = "Wan2.2-TI2V (a time per token)" if index.get("expand_timesteps") else "Wan-FLF2V (two CLIP images)"
        raise BadCheckpoint(
            "a checkpoint of another kind of Wan", got=kind, expected="an image-to-video checkpoint", hint="Wan2.1-I2V"
        )
    if family == "cogvideox":
        return _infer_cogvideox(transformer, vae, masked)
    return _infer_wan(family, index, transformer, vae, scheduler)


def _has(index: dict[str, Any], name: str) -> bool:
    return (index.get(name) or [None])[0] is not None


def _infer_wan(family: str, index: dict, transformer: dict, vae: dict, scheduler: dict) -> dict[str, Any]:
    patch = transformer.get("patch_size", (1, 2, 2))
    experts = 2 if _has(index, "transformer_2") else 1
    temporal = vae.get("scale_factor_temporal", 4)
    return {
        "family": family,
        "capabilities": CAPABILITIES,
        "recipe": Recipe(
            steps=40 if family == "wan" else 50,
            guidance=3.5 if experts == 2 else 5.0,
            shift=scheduler.get("flow_shift", scheduler.get("shift")),
            boundary=index.get("boundary_ratio"),
        ),
        "native": Native(),
        "max_text_tokens": 512,
        "strides": Strides(
            temporal=temporal,
            spatial=vae.get("scale_factor_spatial", 8),
            patch_temporal=patch[0],
            patch_spatial=patch[1],
        ),
        "image_branch": transformer.get("image_dim") is not None,
        "experts": experts,
    }


def _infer_cogvideox(transformer: dict, vae: dict, masked: bool) -> dict[str, Any]:
    spatial = 2 ** (len(vae.get("block_out_channels", (0, 0, 0, 0))) - 1)
    temporal = int(vae.get("temporal_compression_ratio", 4))
    packed = transformer.get("patch_size_t") is not None
    size = (transformer.get("sample_width", 90) * spatial, transformer.get("sample_height", 60) * spatial)
    return {
        "family": "cogvideox_mask" if masked else "cogvideox",
        "capabilities": ("text", "guides", "motion_area") if masked else ("text", "guides"),
        "recipe": Recipe(steps=50, guidance=6.0),
        # The 1.5 image-to-video weights name a 300 x 300 grid, the largest they allow; they were trained at 1360 x 768.
        "native": Native(size=(1360, 768), frames=81, fps=16) if packed else Native(size=size, frames=49, fps=8),
        "max_text_tokens": transformer.get("max_text_seq_length", 226),
        "strides": Strides(
            temporal=temporal,
            spatial=spatial,
            patch_temporal=transformer.get("patch_size_t") or 1,
            patch_spatial=transformer.get("patch_size", 2),
        ),
    }


def _overlaid(info: CheckpointInfo, source: dict[str, Any]) -> CheckpointInfo:
    """`info` with the fields of an anisora.json laid over it."""
    known = (
        "family",
        "capabilities",
        "recipe",
        "native",
        "motion_score_range",
        "max_text_tokens",
        "negative_prompt",
        "snap",
    )
    where = info.path / INFO_FILE
    _check_keys(source, known, where)
    changes: dict[str, Any] = {}
    try:
        if "recipe" in source:
            _check_keys(source["recipe"], [entry.name for entry in fields(Recipe)], where)
            changes["recipe"] = replace(info.recipe, **source["recipe"])
        if "native" in source:
            _check_keys(source["native"], [entry.name for entry in fields(Native)], where)
            native = replace(info.native, **source["native"])
            width, height = native.size
            changes["native"] = replace(native, size=(int(width), int(height)))
        if "capabilities" in source:
            changes["capabilities"] = tuple(source["capabilities"])
        if source.get("motion_score_range"):
            low, high = source["motion_score_range"]
            changes["motion_score_range"] = (float(low), float(high))
    except (TypeError, ValueError) as error:
        raise BadCheckpoint("a mistyped field in a checkpoint", got=f"{where}: {error}") from error
    changes |= {key: source[key] for key in ("family", "max_text_tokens", "negative_prompt", "snap") if key in source}
    info = replace(info, **changes)
    _check_values(info, where)
    return info


def _check_keys(source: Any, known: Any, where: Path) -> None:
    if not isinstance(source, dict):
        raise BadCheckpoint("a mistyped field in a checkpoint", got=f"{where}: {source!r}", expected="an object")
    if unknown := sorted(set(source) - set(known)):
        raise BadCheckpoint(
            "an unknown field in a checkpoint", got=f"{', '.join(unknown)} in {where}", expected=", ".join(known)
        )


def _check_values(info: CheckpointInfo, where: Path) -> None:
    checks = [
        (info.family in FAMILIES, "family", info.family, " or ".join(FAMILIES)),
        (set(info.capabilities) <= set(CAPABILITIES), "capabilities", info.capabilities, " and ".join(CAPABILITIES)),
        (info.snap in ("exact", "anisora"), "snap", info.snap, "exact or anisora"),
        (
            info.negative_prompt is None or isinstance(info.negative_prompt, str),
            "negative_prompt",
            info.negative_prompt,
            "text",
        ),
        (isinstance(info.max_text_tokens, int), "max_text_tokens", info.max_text_tokens, "a whole number"),
        (isinstance(info.recipe.steps, int) and info.recipe.steps >= 1, "recipe.steps", info.recipe.steps, "1 or more"),
    ]
    for good, key, got, expected in checks:
        if not good:
            raise BadCheckpoint(f"a bad {key} in a checkpoint", got=f"{got!r} in {where}", expected=expected)
