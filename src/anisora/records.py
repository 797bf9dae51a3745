"""The nouns that persist, in the order in which data goes round. Frozen, keyword-only, self-checking.

`Video -> Clip -> Score -> Sample -> Shard -> Checkpoint -> Guide/Request -> Generation (is a Video) -> Vote -> Pair`
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from anisora.errors import BadRequest
from anisora.settings import setting


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
