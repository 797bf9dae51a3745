"""What a network is shown of a clip: which frames, how large, and with which words and picture beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadConfig, BadVideo
from anisora.measures.footage import LOOK_PX, Footage, resized, spread
from anisora.settings import setting

Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Look:
    """Which frames of a clip are looked at, and how large; a clip with fewer is looked at whole."""

    num_frames: int = setting(24, "how many frames; the published scorers take 24")
    first_frames: int | None = setting(None, "only of so many frames at the beginning; the published scorers: 144")
    pick: Literal["spread", "key"] = setting(
        "spread", "evenly spread, or drawings that stand for equal shares of change"
    )
    short_px: int = setting(LOOK_PX, "the frames' short side; above that of the other metrics the clip is read again")

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.short_px < 8 or (self.first_frames or 1) < 1:
            raise BadConfig("frames to look at", got=self, expected="at least one, of 8 pixels or more")

    def frames(self, footage: Footage, path: Path) -> list[Picture]:
        """The frames, uint8 RGB [H, W, 3]; `path` is read where they must be larger than the footage. Raises BadVideo."""
        total = min(len(footage), self.first_frames or len(footage))
        indices = key_frames(footage, self.num_frames, total) if self.pick == "key" else spread(total, self.num_frames)
        shown = [footage.frames_THWC[i] for i in indices] if self.short_px <= LOOK_PX else _read(path, indices)
        return [resized(frame, self.short_px) for frame in shown]


def key_frames(footage: Footage, count: int, total: int | None = None) -> list[int]:
    """Up to `count` frames of the first `total` that stand for equal shares of all change; fewer where little changes.

    The paper extracts key frames before it judges looks (section 5.3, equation 3) and does not say how. Here the change
    from drawing to drawing is added up, the sum is cut into equal parts, and the drawing in the middle of each is taken:
    a picture held for long counts once, a fast movement as often as it shows something new.
    """
    drawings = [t for t in footage.drawings if t < (total or len(footage))]
    luma = footage.luma_THW[drawings]
    travelled = np.concatenate([[0.0], np.abs(np.diff(luma, axis=0)).mean(axis=(1, 2)).cumsum()])
    wanted = (np.arange(count) + 0.5) / count * travelled[-1]
    return sorted({drawings[int(np.abs(travelled - place).argmin())] for place in wanted})


def _read(path: Path, indices: Sequence[int]) -> list[Picture]:
    """Those frames at the size of the file."""
    from anisora.media.reader import iter_frames

    wanted, found = set(indices), []
    for number, frame in enumerate(iter_frames(path, threads=1)):
        if number in wanted:
            found.append(np.asarray(frame.rgb_HWC))
        if number >= max(wanted):
            return found
    raise BadVideo("the video has become shorter", got=path, expected=f"{max(wanted) + 1} frames")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One clip as a network sees it: frames, the words and the picture that it was made from."""

    frames: list[Picture]
    prompt: str = ""
    image: Picture | None = None

    @property
    def reference(self) -> Picture:
        """The picture it was made from; without one, the first frame stands in."""
        return self.frames[0] if self.image is None else self.image

    def asked(self, question: str) -> tuple[list[Picture], str]:
        """The pictures and the words of a question: {prompt} becomes the clip's prompt, {image} a word for the picture that
        the clip was made from, which then goes before the frames."""
        words = question.replace("{image}", "the first picture").replace("{prompt}", self.prompt)
        return ([self.reference, *self.frames] if "{image}" in question else self.frames), words
