"""How a checkpoint likes to be sampled: steps, guidance, shift, sampler and expert boundary under one name.

The default recipe is the checkpoint's own (`recipe` in its anisora.json). A named recipe is a function of that one
and states only what it changes; a field of the request beats both.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from anisora.errors import BadRequest
from anisora.models.checkpoint import Recipe
from anisora.records import Request

#: name -> (what it is for, the checkpoint's own recipe -> this one)
RECIPES: dict[str, tuple[str, Callable[[Recipe], Recipe]]] = {
    "default": ("what the checkpoint itself recommends", lambda own: own),
    "draft": (
        "a quarter of the steps, to judge layout and timing",
        lambda own: replace(own, steps=max(2, own.steps // 4)),
    ),
    "fine": ("twice the steps", lambda own: replace(own, steps=own.steps * 2)),
    "no-guidance": ("one forward a step; for distilled weights", lambda own: replace(own, guidance=1.0)),
    "anisora-fast": (
        "8 steps, guidance 1, shift 5: what AniSora V3 and later are published with",
        lambda own: replace(own, steps=8, guidance=1.0, shift=5.0),
    ),
    "wan": (
        "40 steps, guidance 5, shift 5: Wan 2.1 at 720p",
        lambda own: replace(own, steps=40, guidance=5.0, shift=5.0),
    ),
    "wan-480p": ("the same with shift 3", lambda own: replace(own, steps=40, guidance=5.0, shift=3.0)),
}


def choose(request: Request, own: Recipe) -> Recipe:
    """The recipe of a request on a checkpoint: its own, changed by the named one, changed by the request's fields.

    Raises BadRequest, naming the nearest, for an unknown name.
    """
    name = request.recipe or "default"
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        raise BadRequest("unknown recipe", got=repr(name), expected=", ".join(RECIPES), hint=near[0] if near else None)
    asked: dict[str, Any] = {
        field: value for field in ("steps", "guidance", "shift") if (value := getattr(request, field)) is not None
    }
    return replace(RECIPES[name][1](own), **asked)


def misfits(recipe: Recipe, own: Recipe) -> list[str]:
    """Sentences about settings far from what the checkpoint was made for; a request may still want them."""
    notes = []
    if own.guidance == 1 and recipe.guidance > 2:
        notes.append(f"guidance {recipe.guidance:g} on weights made for 1: expect harsh contrast")
    if own.guidance > 2 and recipe.guidance == 1:
        notes.append(f"guidance 1 on weights made for {own.guidance:g}: the prompt has little pull")
    if recipe.steps * 3 < own.steps:
        notes.append(f"{recipe.steps} steps on weights made for {own.steps}: expect a rough picture")
    return notes
