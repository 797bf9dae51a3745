"""Shots of drawn characters, in places and actions that no gallery of the tests has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from anisora.synthetic import plan_clip
from anisora.synthetic.clip import render_plan
from anisora.synthetic.parts import Character


def character(name: str) -> Character:
    """The character that `draw_characters` calls so."""
    return Character(*(part.replace("_", " ") for part in name.split("-")))


def shot(name: str, index: int, frames: int = 4, side_px: int = 128) -> np.ndarray:
    """Four frames a quarter of a second apart of one character alone, seen whole."""
    plans = (plan_clip(1000 + index, n, "seen") for n in range(200))
    plan = next(p for p in plans if len(p.people) == 1 and p.framing == "full" and not p.item and not p.effect)
    plan = replace(plan, people=(plan.people[0]._replace(character=character(name)),))
    return render_plan(plan, frames, 4, (side_px, side_px)).video_THWC
