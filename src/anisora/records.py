"""The nouns that persist, in the order in which data goes round. Frozen, keyword-only, self-checking.

`Video -> Clip -> Score -> Sample -> Shard -> Checkpoint -> Guide/Request -> Generation (is a Video) -> Vote -> Pair`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anisora.errors import BadRequest


@dataclass(frozen=True)
class Guide:
    """A picture that the shot must show at one place in time.

    `image` is a path, a PIL image or a uint8 array [H, W, 3]; `frame` is an index (negative from the end), "37%" or
    "1.5s" (see `geometry.resolve_position`), written `at` in files; `strength` in (0, 1] weakens the guide: its pixels
    fade to mid-grey and its mask value falls by that factor, 1 being given exactly.
    """

    image: Any
    frame: int | str = 0
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise BadRequest(
                "guide strength out of range", got=self.strength, expected="above 0, at most 1", hint="1.0"
            )
