"""The parts of a checkpoint that stock diffusers does not know: loaded beside a pipeline, and saved back with it.

    mask_projection/    the mask branch of CogVideoX (paper, equation 1)
    guide_decoder/      repairs the decoded video from the given pixels
    anisora.json        what the checkpoint can do and its recipe

None of them is listed in model_index.json, so stock diffusers opens the rest of the folder.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from anisora.models.checkpoint import INFO_FILE, CheckpointInfo, info_json, read_json
from anisora.models.verify import OWN_PARTS


def load_parts(folder: Path, dtype: Any = None) -> dict[str, Any]:
    """Name -> module, for each part of our own that the folder has; in evaluation mode."""
    anisora = importlib.import_module("anisora")
    kwargs = {"torch_dtype": dtype} if dtype is not None else {}
    return {
        name: getattr(anisora, class_name).from_pretrained(Path(folder) / name, **kwargs).eval()
        for name, class_name in OWN_PARTS.items()
        if (Path(folder) / name).is_dir()
    }


def save_parts(folder: Path, parts: dict[str, Any], info: CheckpointInfo, stock_class: str) -> None:
    """Writes the parts and anisora.json into a folder that diffusers saved, and mends its model_index.json."""
    for name, part in parts.items():
        part.save_pretrained(Path(folder) / name)
    mend_index(folder, stock_class)
    _write_json(Path(folder) / INFO_FILE, info_json(info))


def mend_index(folder: Path, stock_class: str) -> None:
    """Lets model_index.json name the stock pipeline, and classes of our own by the package instead of their module.

    diffusers writes the class that saved, which `DiffusionPipeline.from_pretrained` would not find, and ties a foreign
    class to the file it lives in today.
    """
    index = read_json(Path(folder) / "model_index.json") | {"_class_name": stock_class}
    for name, entry in index.items():
        if isinstance(entry, list) and str(entry[0]).startswith("anisora."):
            index[name] = ["anisora", entry[1]]
    _write_json(Path(folder) / "model_index.json", index)


def forget_origin(folder: Path) -> None:
    """Takes the path that each part was opened from, which diffusers notes down, out of the parts' configs: a checkpoint that
    others get says nothing of the machine that made it."""
    for path in Path(folder).glob("*/config.json"):
        _write_json(path, {key: value for key, value in read_json(path).items() if key != "_name_or_path"})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
