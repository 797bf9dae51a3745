"""What a captioner is shown and what it answers: the contract between `run` and every captioner.

An answer carries the id of its clip and the digest of the frames it is about, and is joined by them, never by position:
batches come back shuffled, short or mixed up sooner or later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from anisora.curation.captions.schema import JSON_SCHEMA
from anisora.records import Backend

PROMPT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One clip to describe. `frames_THWC` uint8 RGB are those at `times_s` of the clip; `attempt` counts from 0."""

    clip_id: str
    frame_digest: str
    frames_THWC: NDArray[np.uint8] = field(repr=False)
    times_s: tuple[float, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0

    @property
    def code(self) -> str:
        """What the captioner is to copy into its answer: says which clip and which frames in eight letters."""
        return hashlib.sha256(f"{self.clip_id}/{self.frame_digest}".encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back for one clip: `text`, or a `reason` code with a `detail` for the reader of the store.

    A transient failure (no answer, an overloaded server) is asked again at the next run; any other counts as an attempt.
    """

    clip_id: str
    frame_digest: str
    text: str | None = None
    reason: str | None = None
    detail: str = ""
    is_transient: bool = False


class Captioner(Protocol):
    """Answers asks, in any order. `answers` says how its text is read; what differs in `key` is captioned anew."""

    backend: Backend
    answers: Literal["json", "prose"]

    @property
    def key(self) -> Mapping[str, Any]:
        """What the answer depends on: name, version, parameters, sha256 of the weights. Canonical JSON can hold it."""
        ...

    def caption(self, asks: Iterable[Ask]) -> Iterator[Reply]:
        """One reply an ask. Asks are drawn when there is room for them, so that few frames are in memory at a time."""
        ...


def frame_digest(frames_THWC: NDArray[np.uint8]) -> str:
    """The sha256 of frames, shape included."""
    frames = np.ascontiguousarray(frames_THWC)
    return hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest()


def question(ask: Ask) -> str:
    """What a captioner that answers in JSON is asked, in words."""
    times = ", ".join(f"{time_s:.1f} s" for time_s in ask.times_s)
    return (
        f"These pictures are {len(ask.frames_THWC)} frames of one animated clip, in order"
        + (f" (at {times})" if times else "")
        + ". Describe what is visible, and what changes from frame to frame. Do not guess names, titles or plots."
        " Answer with one JSON object and nothing else. Its keys: "
        + "; ".join(
            f'"{key}" ({rule["type"]}: {rule["description"]})' for key, rule in JSON_SCHEMA["properties"].items()
        )
        + f'. The code of this clip is "{ask.code}".'
    )


#: What a captioner that answers in prose is asked; training asks the same.
PROSE_QUESTION = "Describe this animated clip: characters, action, scene, camera, style and effects."
