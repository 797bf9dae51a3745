"""AniSora: stills, keyframes and motion masks in; a finished animation shot out.

Importing this package imports nothing heavy: the names below load their module when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: public name -> module that defines it
_HOMES: dict[str, str] = {
    "AniSoraCogVideoXPipeline": "anisora.generation.pipeline",
    "AniSoraVACEPipeline": "anisora.generation.pipeline",
    "AniSoraWanPipeline": "anisora.generation.pipeline",
    "AutoencoderKLBlock": "anisora.models.block_vae",
    "AnisoraError": "anisora.errors",
    "Guide": "anisora.records",
    "GuideDecoder": "anisora.models.guide_decoder",
    "MaskProjection": "anisora.models.mask_projection",
    "Request": "anisora.records",
}

# diffusers finds out how to load a class of a foreign library by looking for this base class in that library.
_HOMES_FOREIGN = {"ModelMixin": "diffusers"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name) or _HOMES_FOREIGN.get(name)
    if home is None:
        raise AttributeError(f"module 'anisora' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
