"""The nouns that persist, in the order in which data goes round. Frozen, keyword-only, self-checking.

`Video -> Clip -> Score -> Sample -> Shard -> Checkpoint -> Guide/Request -> Generation (is a Video) -> Vote -> Pair`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anisora.errors import BadRequest
from anisora.settings import setting

if TYPE_CHECKING:
    import numpy as np

#: `bundled`: classical, or small weights that pip brings; `full`: weights the user names; `service`: an endpoint.
Backend = Literal["bundled", "full", "service"]

#: What lies between two shots; `start` and `end` are those of the file.
Transition = Literal["start", "cut", "fade", "dissolve", "end"]


@dataclass(frozen=True, kw_only=True, order=True)
class Span:
    """A stretch of a video: frames [start_frame, end_frame), shown over [start_pts, end_pts) times `time_base` seconds.

    Both are half-open. Frames are counted in the order in which they are shown, from 0. The pts are those of the
    stream, so that a span stays exact where the frame rate varies.
    """

    start_frame: int
    end_frame: int
    start_pts: int
    end_pts: int
    time_base: Fraction

    def __post_init__(self) -> None:
        if not 0 <= self.start_frame < self.end_frame or self.start_pts >= self.end_pts or self.time_base <= 0:
            raise ValueError(f"not a span: {self}")

    @property
    def num_frames(self) -> int:
        return self.end_frame - self.start_frame

    @property
    def start_s(self) -> Fraction:
        return self.start_pts * self.time_base

    @property
    def end_s(self) -> Fraction:
        return self.end_pts * self.time_base

    @property
    def duration_s(self) -> Fraction:
        return (self.end_pts - self.start_pts) * self.time_base

    def __contains__(self, frame: int) -> bool:
        return self.start_frame <= frame < self.end_frame


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One take between two transitions. The frames of a fade or a dissolve belong to neither of its neighbours.

    `confidence` in [0, 1] is that of the less certain of its two ends.
    """

    span: Span
    transition_in: Transition
    transition_out: Transition
    confidence: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one measure says of one clip. It has no threshold for good or bad: those are applied to the store.

    `raw` is a finite number in `unit`, or a word where `unit` is "class"; None exactly when `reason` says, as a short
    code, why there is none: no score is not a low score. `per_frame` has one value per frame or step looked at,
    `details` what else was found. `weights_sha256` is that of the network that measured, None for a classical measure.
    """

    name: str
    version: int
    unit: str
    raw: float | str | None
    backend: Backend = "bundled"
    weights_sha256: str | None = None
    reason: str | None = None
    per_frame: np.ndarray | None = field(default=None, compare=False, repr=False)
    details: Mapping[str, float | int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.raw is None) != (self.reason is not None):
            raise ValueError(f"{self.name}: a score has either a value or a reason, not {self.raw!r}, {self.reason!r}")
        if isinstance(self.raw, float | int) and not math.isfinite(self.raw):
            raise ValueError(f"{self.name}: {self.raw} is no score; give a reason")
        if isinstance(self.raw, str) != (self.unit == "class") and self.raw is not None:
            raise ValueError(f"{self.name}: a word needs the unit 'class', and a number another, not {self.unit!r}")


@dataclass(frozen=True)
class Guide:
    """A picture that the shot must show at one place in time.

    `image` is a path, a PIL image or a uint8 array [H, W, 3]; `frame` is an index (negative from the end), "37%" or
    "1.5s" (see `geometry.resolve_position`), written `at` in files; `strength` in (0, 1] weakens the guide: its pixels
    fade to mid-grey and its mask value falls by that factor, 1 being given exactly.
    """

    image: Any
    frame: int | str = setting(0, "where in time: an index, a percentage or a time", key="at")
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise BadRequest(
                "guide strength out of range", got=self.strength, expected="above 0, at most 1", hint="1.0"
            )


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank weights laid over a checkpoint: a file or folder, and how much of it."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """One shot as it is asked for. Flags, request files, the metadata of a finished mp4 and services share these fields.

    A field that is None is left to the recipe and the checkpoint; `generation.request.resolve` fills them all in.
    Raises BadRequest for what no checkpoint could make. Paths are text; relative ones are relative to the file that
    holds the request, or to the working folder on the command line.
    """

    prompt: str = setting(
        "", "what happens in the shot; may be left out where guides or a video say it", metavar="TEXT"
    )
    negative_prompt: str | None = setting(None, "what the shot should not show (without effect at guidance 1)")
    guides: tuple[Guide, ...] = setting(
        (),
        "a picture the shot must show at a frame (0, 12, -1), percentage or time; repeatable",
        flag="--guide",
        metavar="IMG@POS",
    )
    motion_mask: str | None = setting(
        None, "picture or video: white may move, outside it the shot equals the first guide", metavar="IMG_OR_VIDEO"
    )
    video: str | None = setting(None, "a clip to restore or fill in; needs --keep-mask", metavar="FILE")
    keep_mask: str | None = setting(None, "picture or video: white keeps the clip's pixels", metavar="IMG_OR_VIDEO")
    model: str = setting("bundled", "a name from `anisora models list` or a checkpoint folder", metavar="NAME_OR_PATH")
    size: tuple[int, int] | None = setting(
        None, "width x height in pixels; default: the checkpoint's area at the first guide's aspect", metavar="WxH"
    )
    frames: int | None = setting(None, "length in frames, 4n+1 for most checkpoints")
    fps: Fraction | None = setting(None, "frames per second", metavar="F")
    steps: int | None = setting(None, "denoising steps")
    guidance: float | None = setting(None, "how strongly the prompt pulls; 1 runs the network once a step")
    shift: float | None = setting(None, "flow shift: above 1 spends more steps on the coarse layout")
    motion_score: float | None = setting(None, "how much moves; the useful range is shown by `anisora models show`")
    aesthetic_score: float | None = setting(None, "how finished it looks, 0 to 10; 5 to 6 is usual")
    no_text: bool = setting(True, "ask for a picture without writing in it", flag="--no-text/--allow-text")
    seed: int = setting(0, "the same seed gives the same shot", metavar="S")
    recipe: str | None = setting(None, "a named set of steps, guidance and shift; default: the checkpoint's own")
    window: int | None = setting(
        None, "frames made at once; longer shots are made in overlapping windows; default: the checkpoint's length"
    )
    snap: Literal["exact", "anisora"] | None = setting(
        None, "exact: guides land where asked; anisora: on multiples of 8, for checkpoints trained so"
    )
    fit: Literal["cover", "contain"] = setting("cover", "how pictures of another aspect are fitted: cropped or padded")
    composite: bool = setting(
        True, "put the guide's own pixels back outside the motion mask", flag="--composite/--no-composite"
    )
    lora: tuple[Lora, ...] = setting((), "low-rank weights; repeatable", metavar="PATH[:SCALE]")
    out: str | None = setting(None, "the file to write: .mp4, .webm, .gif or a folder of pictures", metavar="FILE")

    def __post_init__(self) -> None:
        for guide in self.guides:
            if not isinstance(guide.image, str | Path):
                raise BadRequest("a guide in a request names a file", got=type(guide.image).__name__, expected="a path")
        if not self.prompt.strip() and not self.guides and not self.video:
            raise BadRequest(
                "an empty prompt and no pictures",
                expected="a prompt, a guide or a video",
                hint='--prompt "a girl waves"',
            )
        if bool(self.video) != bool(self.keep_mask):
            given, lacking = ("video", "keep_mask") if self.video else ("keep_mask", "video")
            raise BadRequest(
                f"{given} without {lacking}", expected="both or neither", hint=f"--{lacking.replace('_', '-')} FILE"
            )
        if self.motion_mask and not self.guides:
            raise BadRequest(
                "a motion mask without a guide", expected="a guide whose still area stays", hint="--guide picture.png"
            )
        for name, least in (("frames", 1), ("fps", 0), ("steps", 1), ("shift", 0), ("window", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and (value < least or (value == 0 and name in ("fps", "shift"))):
                raise BadRequest(
                    f"{name} out of range",
                    got=value,
                    expected=f"at least {least}" if least else "above 0" if name != "seed" else "0 or more",
                )
        for name in ("guidance", "motion_score", "aesthetic_score"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise BadRequest(f"{name} out of range", got=value, expected="0 or more")


@dataclass(frozen=True, kw_only=True)
class GuideResult:
    """Where a guide landed: the position asked for, its pixel frame, latent frame (`slot`) and place in it (`channel`).

    `psnr_db` compares the finished frame, before video encoding, with the fitted guide; None means equal (infinite).
    """

    image_sha256: str
    asked: int | str
    frame: int
    slot: int
    channel: int | None
    psnr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A finished shot and how it was made: what `generate --json` prints and FILE.json beside the shot holds.

    seconds: load, text, encode, denoise, decode, write (wall time); forwards: passes of the denoising network;
    tokens: video tokens a pass; seams: brightness and motion at the joins of windows, empty for one window.
    """

    out: str
    request: Request
    request_hash: str
    model: str
    weights_sha256: str
    guides: tuple[GuideResult, ...]
    frames: int
    fps: Fraction
    size: tuple[int, int]
    forwards: int
    tokens: int
    seconds: dict[str, float]
    peak_rss_bytes: int
    composite: bool
    seams: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
