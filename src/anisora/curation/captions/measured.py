"""The captioner without a model: says what was measured of a clip, and nothing else.

It cannot see who does what and does not pretend to. Its captions are marked (`caption_kind` "measured" against "seen"),
so that a mixture can leave them out; they hold what a text encoder can use of tags: medium, colours, light, camera,
amount of motion, timing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anisora.curation.captions.ask import Ask, Reply
from anisora.curation.captions.schema import AnimeCaption
from anisora.records import Backend

#: Hue in degrees at which each colour word begins; the circle closes with red.
_HUES = ((0, "red"), (18, "orange"), (45, "yellow"), (70, "green"), (165, "cyan"), (190, "blue"), (260, "purple"),
         (295, "pink"), (340, "red"))  # fmt: skip

#: Below this saturation a pixel has no hue to speak of; below this mean the clip has none.
_GREY_SATURATION, _MONOCHROME_SATURATION = 0.15, 0.05


class MeasuredCaptioner:
    """Composes a caption from an ask's tags and the colours of its frames."""

    backend: Backend = "bundled"
    answers: Literal["json"] = "json"

    @property
    def key(self) -> Mapping[str, Any]:
        return {"name": "measured", "version": 1}

    def caption(self, asks: Iterable[Ask]) -> Iterator[Reply]:
        """One caption an ask; never fails."""
        for ask in asks:
            text = compose(dict(ask.tags) | color_tags(ask.frames_THWC)).to_json(ask.code)
            yield Reply(clip_id=ask.clip_id, frame_digest=ask.frame_digest, text=text)


def color_tags(frames_THWC: NDArray[np.uint8]) -> dict[str, str]:
    """`colors` (up to three words, largest area first), `light` (dark, dim, even, bright), `color` (black and white,
    muted, colorful) of uint8 RGB frames."""
    import cv2

    hsv = cv2.cvtColor(np.concatenate(list(frames_THWC[:, ::4, ::4])), cv2.COLOR_RGB2HSV).reshape(-1, 3).astype(float)
    hue, saturation, value = hsv[:, 0] * 2, hsv[:, 1] / 255, hsv[:, 2] / 255
    begins = np.array([hue_deg for hue_deg, _ in _HUES])
    named = np.array([name for _, name in _HUES])[np.searchsorted(begins, hue, side="right") - 1].astype("<U10")
    named[saturation < _GREY_SATURATION] = "gray"
    named[(saturation < _GREY_SATURATION) & (value > 0.85)] = "white"
    named[value < 0.15] = "black"
    names, counts = np.unique(named, return_counts=True)
    shares = sorted(zip(counts / len(named), names, strict=True), reverse=True)
    chroma = float((saturation * value).mean())
    light = float(value.mean())
    return {
        "colors": ", ".join(str(name) for share, name in shares[:3] if share >= 0.1),
        "light": "dark" if light < 0.25 else "dim" if light < 0.45 else "even" if light < 0.75 else "bright",
        "color": "black and white" if chroma < _MONOCHROME_SATURATION else "muted" if chroma < 0.25 else "colorful",
    }


def compose(tags: Mapping[str, str]) -> AnimeCaption:
    """The caption of measured tags; those that are missing are left out. Nothing is said that was not measured."""
    kind = {"2d": "2D animation", "3d": "3D animation"}.get(tags.get("dimension", "").lower(), "Animation")
    style = ", ".join([kind, *filter(None, (_colors(tags), _LIGHT.get(tags.get("light", ""), "")))])
    camera = _CAMERA.get(tags.get("camera", ""), tags.get("camera", "").replace("_", " "))
    action = ", ".join(
        filter(None, (_MOTION.get(tags.get("motion_grade", ""), ""), _TALKING.get(tags.get("talking", ""), "")))
    )
    timing = _timing(tags.get("drawing_fps"))
    sentences = [style, *filter(None, (action, camera, timing))]
    prose = ". ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences) + "."
    return AnimeCaption(prose=prose, action=action, camera=camera, style=style)


def _colors(tags: Mapping[str, str]) -> str:
    if tags.get("color") == "black and white":
        return "black and white"
    named = tags.get("colors", "")
    return " ".join(filter(None, (tags.get("color", ""), f"in {named}" if named else "")))


def _timing(drawing_fps: str | None) -> str:
    return f"about {float(drawing_fps):.0f} drawings a second" if drawing_fps and float(drawing_fps) > 0 else ""


_LIGHT = {"dark": "dark picture", "dim": "dim light", "bright": "bright picture"}
_CAMERA = {
    "static": "static camera", "pan": "the camera pans", "pan_left": "the camera pans left",
    "pan_right": "the camera pans right", "tilt": "the camera tilts", "tilt_up": "the camera tilts up",
    "tilt_down": "the camera tilts down", "zoom_in": "the camera zooms in", "zoom_out": "the camera zooms out",
    "shake": "the camera shakes", "still": "a still picture", "panned_still": "the camera moves over a still picture",
    "slideshow": "a row of still pictures",
}  # fmt: skip
_MOTION = {
    "still": "nothing moves", "small": "little motion", "medium": "moderate motion", "large": "strong motion",
}  # fmt: skip
_TALKING = {"yes": "somebody talks"}
