"""transformers models from local folders, whole or not at all.

transformers fills what a file lacks with random numbers and warns, which no measure must survive. So what lacks or misfits
is named and refused here, for every model that measures or scores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anisora.errors import BadCheckpoint


def load_strict(model_class: Any, folder: Path, **options: Any) -> Any:
    """A transformers model with every tensor from the folder. Raises BadCheckpoint that names those that lack or misfit.

    Tensors that the file has beyond the model's are fine: a folder may hold more than the part that is opened.
    """
    try:
        with quiet():
            model, found = model_class.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except (OSError, ValueError, KeyError, RuntimeError) as reason:
        first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise BadCheckpoint("the model cannot be opened", got=f"{folder} ({first})") from reason
    lacking = sorted(found["missing_keys"])
    misfit = sorted(f"{name} {tuple(got)} for {tuple(want)}" for name, got, want in found["mismatched_keys"])
    if lacking or misfit:
        said = [f"without {', '.join(lacking[:4])}" + _more(lacking)] if lacking else []
        said += [f"with {', '.join(misfit[:4])}" + _more(misfit)] if misfit else []
        raise BadCheckpoint(
            "the weights do not fit the model",
            got=f"{folder} {'; '.join(said)}",
            expected=f"all of {type(model).__name__}",
        )
    return model


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 4} more" if len(names) > 4 else ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers without its bars and warnings: what matters of them is raised."""
    from transformers.utils import logging

    before, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if had_bars:
            logging.enable_progress_bar()


def load_clip_vision(folder: str | Path) -> Any:
    """The picture encoder with projection of a CLIP folder, of both towers or of this one. Raises BadCheckpoint."""
    from transformers import AutoConfig, CLIPVisionModelWithProjection

    if not (Path(folder) / "config.json").is_file():
        raise BadCheckpoint("no CLIP there", got=folder, expected="a folder with config.json and weights")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type == "clip":  # both towers: the width of the embedding is said above them
            config.vision_config.projection_dim = config.projection_dim
            config = config.vision_config
    except (OSError, ValueError, KeyError) as reason:
        raise BadCheckpoint("the CLIP cannot be opened", got=f"{folder} ({reason})") from reason
    return load_strict(CLIPVisionModelWithProjection, Path(folder), config=config).eval()
