"""What each version of the corpus draws from: the one place where versions differ.

A version's pixels never change, for weights were trained on it: what is new belongs into a new version, and a table that
an older one draws from is never reordered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Version:
    """The tables of one version."""

    actions: Mapping[str, float]
    """How often each action comes, in parts of their sum."""
    framings: Mapping[str, tuple[str, ...]]
    """The framings in which an action still reads, those that are not seen as a whole body only."""
    builds: tuple[str, ...]
    """Proportions of the characters, each as often as the others."""
    languages: Mapping[str, float]
    """Shares of the captions."""
    papers: Mapping[str, float]
    """Shares of what the clips are drawn on (`finish`)."""
    light: tuple[float, float] = (0.0, 0.0)
    """Least and most of `Finish.light`; below 0 counts as 0."""
    ink_log: tuple[float, float] = (0.0, 0.0)
    """Least and most natural logarithm of the line width."""
    aside: float = 0.0
    """How far from the middle of the picture somebody alone may stand, in heights of the picture."""


# The second version's, in its order.
_SECOND = {
    "walk": 3, "run": 2.5, "skip": 1.5, "jump": 2, "wave": 1.5, "turn": 1.5, "spin": 1.0, "sit": 1.0, "fall": 1.0,
    "talk": 1.5, "nod": 1.0, "shake_head": 1.0, "dance": 2, "cheer": 1.5, "clap": 1.0, "bow": 1.0, "bounce_ball": 1.0,
    "look_around": 1.0, "laugh": 1.0,
}  # fmt: skip

# The third's. Over three fifths of the clips are lively: in half or more the foreground must move a pixel a frame beyond the
# camera (benchmarks/synthetic.py).
_LIVELY = {
    "walk": 5, "run": 4.5, "jump": 4, "dance": 3.5, "fight": 3, "skip": 2.5, "fall": 2.5, "throw": 2.5, "pick_up": 2.5,
    "push": 2.5, "hug": 2.5, "cheer": 2, "spin": 1.5, "high_five": 1.5, "crawl": 1.5,
}  # fmt: skip
_QUIET = {
    "wave": 1.9, "turn": 1.9, "sit": 1.6, "clap": 1.6, "bow": 1.6, "look_around": 1.5, "talk": 1.5, "eat": 1.3, "point": 1.3,
    "cry": 1.2, "laugh": 0.9, "drink": 0.8, "sleep": 0.8, "bounce_ball": 0.8, "yawn": 0.8, "surprise": 0.7, "brighten": 0.7,
    "sadden": 0.7, "anger": 0.7, "blink": 0.6, "nod": 0.6, "shake_head": 0.6,
}  # fmt: skip

_UPPER_BODY = ("half", "full")
_NEAR = {name: ("half", "close") for name in ("talk", "nod", "shake_head", "laugh")}
_NEAR |= {name: _UPPER_BODY for name in ("wave", "clap", "look_around", "turn", "cheer", "bow", "dance", "spin")}

_FEELINGS = ("surprise", "brighten", "sadden", "anger")

VERSIONS: dict[int, Version] = {
    2: Version(
        actions=_SECOND,
        framings=_NEAR,
        builds=("tiny", "small", "slim"),
        languages={"en": 1.0},
        papers={"none": 1.0},
    ),
    3: Version(
        actions=_LIVELY | _QUIET,
        framings=_NEAR
        | {name: ("half", "close", "face") for name in ("talk", "laugh")}
        | {name: ("close", "face") for name in ("blink", *_FEELINGS)}
        | {name: _UPPER_BODY for name in ("point", "eat", "drink", "yawn")}
        | {"cry": ("half", "close", "full")},
        builds=("tiny", "small", "slim", "tall"),
        languages={"en": 0.75, "zh": 0.25},
        papers={"none": 0.64, "rough": 0.16, "canvas": 0.08, "hatching": 0.12},
        light=(-0.5, 0.7),
        ink_log=(-0.45, 0.45),
        aside=0.08,
    ),
}
"""Every version by number."""

TRAINED_VERSION = 3
"""What the weights in the package were trained on: what the demo shows, and the benchmarks measure unless told otherwise."""

CORPUS_VERSION = 2
"""What is drawn unless a version is asked for. The evaluation's suite, heads and figures rest on it."""
