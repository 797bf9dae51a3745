"""What a character can be made of, and which of it is kept back for measuring.

Every table is a plain tuple or dict; names double as caption words. RESERVED parts never occur in training clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "black": (52, 46, 66),
    "brown": (126, 82, 58),
    "blonde": (238, 184, 74),
    "red": (222, 76, 70),
    "orange": (244, 148, 66),
    "pink": (246, 146, 172),
    "purple": (144, 102, 196),
    "blue": (76, 124, 210),
    "navy": (52, 66, 122),
    "teal": (58, 168, 166),
    "green": (94, 172, 96),
    "mint": (156, 220, 190),
    "yellow": (250, 214, 84),
    "white": (246, 244, 240),
    "silver": (196, 204, 220),
    "gray": (138, 142, 158),
    "cream": (248, 232, 206),
    "crimson": (170, 44, 70),
    "olive": (142, 142, 74),
    "sky blue": (128, 196, 240),
}

SKINS: dict[str, tuple[int, int, int]] = {
    "fair": (255, 226, 204),
    "peach": (252, 208, 176),
    "tan": (226, 172, 128),
    "brown": (168, 112, 80),
    "dark": (122, 80, 62),
}

# name: (hair, top, bottom, accent), colour words
PALETTES: dict[str, tuple[str, str, str, str]] = {
    "sunflower": ("brown", "yellow", "blue", "red"),
    "berry": ("purple", "pink", "navy", "yellow"),
    "forest": ("brown", "green", "olive", "orange"),
    "ocean": ("blue", "white", "navy", "red"),
    "cherry": ("black", "red", "white", "yellow"),
    "candy": ("pink", "mint", "purple", "yellow"),
    "autumn": ("orange", "cream", "brown", "teal"),
    "school": ("black", "white", "navy", "crimson"),
    "lemon": ("blonde", "sky blue", "white", "pink"),
    "ember": ("red", "black", "gray", "orange"),
    "frost": ("silver", "sky blue", "blue", "white"),
    "moss": ("green", "brown", "cream", "yellow"),
    "dusk": ("navy", "purple", "black", "pink"),
    "honey": ("blonde", "orange", "brown", "white"),
    "lagoon": ("teal", "yellow", "navy", "white"),
    "rose": ("brown", "pink", "cream", "crimson"),
    "steel": ("white", "gray", "black", "red"),
    "lilac": ("silver", "purple", "white", "teal"),
}

HAIRS = ("short", "bob", "long", "ponytail", "twin-tail", "spiky", "bun", "curly", "braided", "swept")
OUTFITS = ("shirt", "hoodie", "dress", "school uniform", "overalls", "coat", "robe")
# Animal kinds have fur instead of hair and skin.
KINDS = ("girl", "boy", "cat", "bear", "rabbit", "fox", "dog")
ANIMALS = ("cat", "bear", "rabbit", "fox", "dog")
EXTRAS = ("none", "cape", "scarf", "hat", "cat ears", "ribbon", "glasses", "backpack")
EYES = ("big", "round", "dot", "sleepy")
BUILDS = {"tiny": 0.255, "small": 0.24, "slim": 0.215, "tall": 0.165}
"""Head radius as a part of the character's height."""
LEGS = {"tall": 0.36}
"""Length of a leg in character heights where it is not the usual one (`pose.LEG`); arms are longer by the square root."""

RESERVED: dict[str, tuple[str, ...]] = {
    "palette": ("lagoon", "rose", "dusk"),
    "hair": ("braided", "swept"),
    "outfit": ("robe", "overalls"),
    "kind": ("fox", "dog"),
    "extra": ("backpack", "ribbon"),
}


class Character(NamedTuple):
    """One identity: which parts it is made of."""

    kind: str
    hair: str
    outfit: str
    extra: str
    eyes: str
    build: str
    palette: str
    skin: str
    eye_color: str

    @property
    def id(self) -> str:
        """The identity as one string."""
        return "/".join(self).replace(" ", "_")

    @property
    def is_animal(self) -> bool:
        return self.kind in ANIMALS

    def has_reserved_part(self) -> bool:
        return any(getattr(self, table) in names for table, names in RESERVED.items())


def choose(rng: np.random.Generator, names: Iterable[str], weights: Sequence[float] | None = None) -> str:
    """One of the names; twenty times as fast as `rng.choice`."""
    names = tuple(names)
    if weights is None:
        return names[int(rng.random() * len(names))]
    left = rng.random() * sum(weights)
    for name, weight in zip(names, weights, strict=True):
        left -= weight
        if left < 0:
            return name
    return names[-1]


Pick = Callable[[tuple[str, ...]], str]


def picker(rng: np.random.Generator) -> Pick:
    """What chooses one of several wordings with the next draw."""
    return lambda options: options[int(rng.integers(len(options)))]


def draw_character(
    rng: np.random.Generator, with_reserved: bool, builds: Sequence[str] = ("tiny", "small", "slim")
) -> Character:
    """A character; reserved parts only if `with_reserved`, and then as often as others."""

    def part(table: str, names: Iterable[str], weights: Sequence[float] | None = None) -> str:
        while True:
            name = choose(rng, names, weights)
            if with_reserved or name not in RESERVED[table]:
                return name

    kind = part("kind", KINDS, (0.36, 0.3, 0.09, 0.06, 0.07, 0.06, 0.06))
    hairs = {"girl": HAIRS, "boy": ("short", "spiky", "curly", "swept", "bob")}.get(kind, ("fur",))
    outfits = {"boy": ("shirt", "hoodie", "overalls", "coat", "school uniform")}.get(kind, OUTFITS)
    extra = part("extra", EXTRAS, (0.3, 0.14, 0.12, 0.12, 0.1, 0.08, 0.08, 0.06))
    return Character(
        kind=kind,
        hair=part("hair", hairs),
        outfit=part("outfit", outfits),
        extra="none" if kind in ANIMALS and extra == "cat ears" else extra,
        eyes=choose(rng, EYES, (0.45, 0.25, 0.18, 0.12)),
        build=choose(rng, builds),
        palette=part("palette", PALETTES),
        skin=choose(rng, SKINS),
        eye_color=choose(rng, ("brown", "blue", "green", "purple", "crimson", "teal", "orange")),
    )
