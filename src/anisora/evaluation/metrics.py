"""The metrics by name: what each needs, how it is measured, and how that becomes a score. The bundled backend.

`METRICS` is the whole list. A metric sees the sample and its footage, which was decoded once for all of them, and says
one `Measured`; what cannot be measured is null with a reason, never 0 and never not-a-number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadInput
from anisora.evaluation.calibration import head_score, head_value, share_score, table
from anisora.evaluation.samples import Sample
from anisora.measures.footage import LOOK_PX, Footage

Features = Mapping[str, float] | str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a metric says of one clip; the fields are those of `MetricRecord`."""

    unit: str
    raw: float | None = None
    score: float | None = None
    reason: str | None = None
    weights_sha256: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    per_frame: Sequence[float | None] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric: `measure(sample, footage)`; `needs` are fields of the sample without which it is null."""

    measure: Callable[[Sample, Footage], Measured]
    unit: str
    version: int = 1
    higher_is_better: bool | None = True
    needs: tuple[str, ...] = ()


def measure(name: str, sample: Sample, footage: Footage) -> Measured:
    """What the metric `name` says of a sample. What the sample lacks or cannot be read is a reason, not an error."""
    metric = METRICS[name]
    if missing := [part for part in metric.needs if not getattr(sample, part)]:
        return Measured(unit=metric.unit, reason=f"no_{missing[0]}")
    try:
        return metric.measure(sample, footage)
    except BadInput as problem:
        return Measured(unit=metric.unit, reason="unreadable_input", details={"problem": str(problem)})


# ------------------------------------------------------------------------------------------------ the six dimensions


def _by_head(name: str, features: Features, **more: Any) -> Measured:
    """A score by the head of the table; its raw value are log-odds."""
    if isinstance(features, str):
        return Measured(unit="log-odds", reason=features, **more)
    shown = _shown(features)
    raw, score = calibrated(name, shown)
    params = {"calibration": table()["version"], **more.pop("params", {})}
    return Measured(unit="log-odds", raw=raw, score=score, details=shown, params=params, **more)


def _shown(features: Mapping[str, float]) -> dict[str, float]:
    """What stands in the details, and what scores are made from: so that they can be made again from there."""
    return {key: round(value, 6) for key, value in features.items() if math.isfinite(value)}


def calibrated(name: str, details: Mapping[str, float]) -> tuple[float, float]:
    """(raw, score) of one of the dimensions from its details, by the table in use."""
    entry = table()[name]
    if name == "anime.motion":
        return details["throughout"], share_score(details["throughout"], entry["half"])
    raw = head_value(entry, details)
    return raw, head_score(entry, raw)


def _smoothness(sample: Sample, footage: Footage) -> Measured:
    """Does it hang together in time: no flicker, boil, shake or disorder (`measures.smoothness`)."""
    from anisora.measures.smoothness import smoothness_features

    return _by_head("anime.smoothness", smoothness_features(footage))


def _motion(sample: Sample, footage: Footage) -> Measured:
    """How far the figures move by themselves (`measures.net_motion`); the camera's part stands in the details."""
    from anisora.measures.net_motion import motion_features

    features = motion_features(footage)
    if isinstance(features, str):
        return Measured(unit="% of diagonal", reason=features)
    shown = _shown(features)
    raw, score = calibrated("anime.motion", shown)
    params = {"calibration": table()["version"]}
    return Measured(unit="% of diagonal", raw=raw, score=score, params=params, details=shown)


def _appeal(sample: Sample, footage: Footage) -> Measured:
    """How well made the pictures are (`measures.appeal`)."""
    from anisora.measures.appeal import appeal_features
    from anisora.measures.faults import weights_sha256

    return _by_head("anime.appeal", appeal_features(footage), weights_sha256=weights_sha256("pictures"))


def _text_video(sample: Sample, footage: Footage) -> Measured:
    """Null: no network that pairs text and pictures comes inside a pip package, and nothing else deserves the name."""
    return Measured(unit="log-odds", reason="no_model")


def _image_video(sample: Sample, footage: Footage) -> Measured:
    """Is it still the picture it was made from (`measures.likeness`); without one, the first frame stands in."""
    from anisora.measures.likeness import likeness_features, weights_sha256

    reference = None if sample.image is None else picture(sample.image)
    params = {"reference": "first_frame" if reference is None else "image"}
    features = likeness_features(footage, reference)
    return _by_head("anime.image_video", features, params=params, weights_sha256=weights_sha256())


def _character(sample: Sample, footage: Footage) -> Measured:
    """Does the figure stay the same (`measures.likeness`)."""
    from anisora.measures.faults import weights_sha256 as faults_sha256
    from anisora.measures.likeness import figure_features, weights_sha256

    params = {"faults_sha256": faults_sha256("figures")}
    return _by_head("anime.character", figure_features(footage), params=params, weights_sha256=weights_sha256())


# ------------------------------------------------------------------------------------------------ control


def _mask_motion(part: str) -> Callable[[Sample, Footage], Measured]:
    """One of the figures of `measures.motion.mask_motion`, as a share."""

    def measured(sample: Sample, footage: Footage) -> Measured:
        from anisora.measures.motion import mask_motion

        if len(footage) < 2:
            return Measured(unit="share", reason="too_short")
        area_HW = _mask(sample, footage)
        if area_HW.all() or not area_HW.any():
            return Measured(unit="share", reason="mask_of_all" if area_HW.all() else "mask_of_nothing")
        value = getattr(mask_motion(footage.frames_THWC, area_HW), part)
        if not math.isfinite(value):
            return Measured(unit="share", reason="nothing_moves")
        score = 100 / (1 + value) if part == "leakage" else 100 * value
        return Measured(unit="share", raw=value, score=score, params={"short_side_px": LOOK_PX})

    return measured


def _guide_landing(sample: Sample, footage: Footage) -> Measured:
    """How many frames off a guide is seen, the mean over guides: the frame most like it, the nearest of those as like."""
    from anisora.geometry import resolve_position

    frames = footage.frames_THWC.astype(np.float32)
    off, decibels = [], []
    for guide in sample.guides:
        asked = resolve_position(guide["at"], len(footage), footage.fps)
        errors = ((frames - _fitted(picture(guide["image"]), footage)) ** 2).mean(axis=(1, 2, 3))
        as_like = np.flatnonzero(errors <= errors.min() + 1)
        off.append(float(np.abs(as_like - asked).min()))
        decibels.append(float(10 * np.log10(255**2 / max(float(errors[asked]), 1 / 12))))
    raw = float(np.mean(off))
    details = {"frames_off": off, "psnr_db": [round(value, 3) for value in decibels]}
    return Measured(unit="frames", raw=raw, score=100 / (1 + raw), details=details)


# ------------------------------------------------------------------------------------------------ timing and light


def _held_share(sample: Sample, footage: Footage) -> Measured:
    """The share of frames that hold the drawing before: no fault, and no virtue."""
    from anisora.measures.smoothness import held_share

    if len(footage) < 2:
        return Measured(unit="share", reason="too_short")
    longest = int(np.diff([*footage.drawings, len(footage)]).max())
    details = {"drawings": len(footage.drawings), "longest_frames": longest}
    return Measured(unit="share", raw=held_share(footage), reason="descriptive", details=details)


def _slow_in_out(sample: Sample, footage: Footage) -> Measured:
    """Easing at both ends of the clip, the lesser of the two: a choice of timing, which a machine can see but not judge."""
    from anisora.measures.net_motion import slow_in_out

    found = slow_in_out(footage)
    if isinstance(found, str):
        return Measured(unit="log2", reason=found)
    return Measured(unit="log2", raw=min(found.values()), reason="descriptive", details=_shown(found))


def _brightness_drift(sample: Sample, footage: Footage) -> Measured:
    """The largest departure of a frame's mean luma from the first frame's, as a share of it."""
    from anisora.measures.similarity import brightness_drift

    if len(footage) < 2 or footage.is_blank:
        return Measured(unit="share", reason="too_short" if len(footage) < 2 else "blank")
    drift = brightness_drift(footage.frames_THWC, footage.frames_THWC[0])
    return Measured(unit="share", raw=drift, reason="descriptive")


METRICS: dict[str, Metric] = {
    "anime.smoothness": Metric(measure=_smoothness, unit="log-odds", version=4),
    "anime.motion": Metric(measure=_motion, unit="% of diagonal", version=8),
    "anime.appeal": Metric(measure=_appeal, unit="log-odds", version=9),
    "anime.text_video": Metric(measure=_text_video, unit="log-odds"),
    "anime.image_video": Metric(measure=_image_video, unit="log-odds", version=2),
    "anime.character": Metric(measure=_character, unit="log-odds", version=4),
    "anime.mask_precision": Metric(measure=_mask_motion("precision"), unit="share", needs=("mask",)),
    "anime.mask_precision_paper": Metric(measure=_mask_motion("precision_rectangles"), unit="share", needs=("mask",)),
    "anime.mask_recall": Metric(measure=_mask_motion("recall"), unit="share", needs=("mask",)),
    "anime.mask_leakage": Metric(
        measure=_mask_motion("leakage"), unit="share", higher_is_better=False, needs=("mask",)
    ),
    "anime.guide_landing": Metric(measure=_guide_landing, unit="frames", higher_is_better=False, needs=("guides",)),
    "anime.held_share": Metric(measure=_held_share, unit="share", higher_is_better=None),
    "anime.slow_in_out": Metric(measure=_slow_in_out, unit="log2", higher_is_better=None, version=3),
    "anime.brightness_drift": Metric(measure=_brightness_drift, unit="share", higher_is_better=None),
}

DIMENSIONS = tuple(list(METRICS)[:6])


def picture(path: Any) -> NDArray[np.uint8]:
    """A still, uint8 RGB [H, W, 3]. Raises BadImage."""
    from anisora.media.image import load_image

    return np.array(load_image(path))


def _fitted(picture_HWC: NDArray[np.uint8], footage: Footage) -> NDArray[np.float32]:
    """The picture as `generate` would bring it to the clip: scaled to cover it, the rest cropped evenly."""
    from anisora.media.frames import fit

    _, height, width, _ = footage.frames_THWC.shape
    return fit(picture_HWC[None], (width, height))[0][0].astype(np.float32)


def _mask(sample: Sample, footage: Footage) -> NDArray[np.bool_]:
    from anisora.media.frames import fit_mask, place
    from anisora.media.image import load_mask

    mask_HW = load_mask(sample.mask)
    _, height, width, _ = footage.frames_THWC.shape
    return fit_mask(mask_HW, place((mask_HW.shape[1], mask_HW.shape[0]), (width, height))) >= 0.5
