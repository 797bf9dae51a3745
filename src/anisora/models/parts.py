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
    """Writes the parts and anisora.json into a folder that diffusers saved, and names the stock class in its index."""
    folder = Path(folder)
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = read_json(folder / "model_index.json") | {"_class_name": stock_class}
    for path, content in ((folder / "model_index.json", index), (folder / INFO_FILE, info_json(info))):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
