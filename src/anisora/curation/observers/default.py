"""The observers of the cheap scan."""

from __future__ import annotations

from anisora.curation.observers import Observer
from anisora.curation.observers.borders import Borders
from anisora.curation.observers.cut import Cut
from anisora.curation.observers.flow import Flow
from anisora.curation.observers.held import Held
from anisora.curation.observers.phash import Phash
from anisora.curation.observers.sharpness import Sharpness
from anisora.curation.observers.text_edges import TextEdges
from anisora.curation.observers.thumbnails import Thumbnails


def default_observers() -> list[Observer]:
    """Fresh ones, for one video."""
    return [Cut(), Held(), Borders(), Phash(), Flow(), TextEdges(), Sharpness(), Thumbnails()]
