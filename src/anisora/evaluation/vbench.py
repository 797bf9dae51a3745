"""VBench's numbers: its formulas on stored features, its totals, its JSON in and out.

The dimensions that need a network are given as functions of that network's output, so that they can be computed and
checked without it: features [T, D] of frames, flows, scores of frames, point tracks. What they measure is VBench's
affair (raw frame differences reward blur and freezing, see docs/evaluation-statistics.md); here they are equal to 1e-6.

Two things differ on purpose. A dimension that was not run stays missing and the total says `complete: false`, where
VBench fills in 0, which its normalisation even makes negative. And a clip that a formula cannot answer is None, not NaN.
(VBench: Huang et al., CVPR 2024, arXiv 2311.17982; formulas of its package `vbench` 0.1.5, totals of its board.)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anisora.errors import BadInput
from anisora.files import existing_file, write_atomic

# -------------------------------------------------------------------------------------------------- formulas, per clip


def temporal_flickering(frames_THWC: np.ndarray) -> float | None:
    """(255 - mean |I_t - I_(t+1)|) / 255 of uint8 frames; None for a single frame. Meant for still scenes."""
    if len(frames_THWC) < 2:
        return None
    steps = [
        np.abs(a.astype(np.float32) - b.astype(np.float32)).mean(dtype=np.float64) for a, b in pairwise(frames_THWC)
    ]
    return float((255 - np.mean(steps)) / 255)


def motion_smoothness(frames_THWC: np.ndarray, predicted_THWC: np.ndarray) -> float | None:
    """(255 - mean |I - predicted|) / 255 over the odd frames: an interpolator's answer, uint8, for frames 1, 3, 5, ...

    `predicted_THWC` lies between the even frames: its k-th picture stands for frame 2k+1. None where there is none.
    """
    if not len(predicted_THWC):
        return None
    odd = frames_THWC[1::2][: len(predicted_THWC)]
    errors = [
        np.abs(a.astype(np.int16) - b.astype(np.int16)).mean(dtype=np.float64)
        for a, b in zip(odd, predicted_THWC, strict=True)
    ]
    return float((255 - np.mean(errors)) / 255)


def dynamic_pair_score(flow_HW2: np.ndarray) -> float:
    """The mean of the largest 5 % of flow magnitudes between two frames, in pixels."""
    magnitude = np.linalg.norm(flow_HW2.astype(np.float64), axis=-1).ravel()
    return float(np.sort(magnitude)[::-1][: max(1, int(magnitude.size * 0.05))].mean())


def dynamic_degree(pair_scores: Sequence[float], width_px: int, height_px: int) -> bool:
    """Whether a clip moves: enough of its pair scores lie above 6 pixels per 256 of the shorter side.

    `pair_scores` are those of neighbouring frames after thinning to about 8 a second (every max(1, round(fps / 8))-th);
    enough is round(4 n / 16) of n frames, halves to even, and at least one pair is looked at.
    """
    threshold = 6.0 * (min(width_px, height_px) / 256.0)
    wanted = round(4 * ((len(pair_scores) + 1) / 16.0))
    return bool(pair_scores) and sum(score > threshold for score in pair_scores) >= wanted


def feature_consistency(features_TD: np.ndarray) -> float | None:
    """Subject (DINO) and background (CLIP) consistency: the mean over t >= 1 of the similarity to the frame before and
    to the first, each cut off at 0, and halved. None for one frame."""
    if len(features_TD) < 2:
        return None
    before, first = _neighbour_similarity(features_TD), _similarity(features_TD[1:], features_TD[:1])
    return float(((before + first) / 2).mean())


def image_consistency(image_feature_D: np.ndarray, features_TD: np.ndarray) -> float | None:
    """I2V subject (DINO) and background (DreamSim): 0.4 of the largest similarity of a frame to the input picture, 0.3 of
    the mean and 0.3 of the least similarity between neighbours. None for one frame."""
    if len(features_TD) < 2:
        return None
    to_image, neighbours = _similarity(features_TD, image_feature_D[None]), _neighbour_similarity(features_TD)
    return float(0.4 * to_image.max() + 0.3 * neighbours.mean() + 0.3 * neighbours.min())


def aesthetic_quality(scores_T: Sequence[float]) -> float | None:
    """The mean of the LAION head's scores, 0 to 10, over 10. None without frames."""
    return float(np.mean(scores_T) / 10) if len(scores_T) else None


def imaging_quality(scores_T: Sequence[float]) -> float | None:
    """The mean of MUSIQ's scores, 0 to 100. VBench divides by 100 over a set only; `aggregate` does too."""
    return float(np.mean(scores_T)) if len(scores_T) else None


def overall_consistency(video_feature_D: np.ndarray, text_feature_D: np.ndarray) -> float:
    """The cosine of ViCLIP's features of clip and prompt."""
    return float(_unit(video_feature_D) @ _unit(text_feature_D))


#: how the top and bottom (or left and right) of a picture move -> what the camera does
_MOVES = {("left", "left"): "pan_right", ("right", "right"): "pan_left", ("down", "down"): "tilt_up",
          ("up", "up"): "tilt_down", ("static", "static"): "static"}  # fmt: skip
_TOP_DOWN = _MOVES | {("up", "down"): "zoom_in", ("down", "up"): "zoom_out"}
_LEFT_RIGHT = _MOVES | {("left", "right"): "zoom_in", ("right", "left"): "zoom_out"}


def camera_moves(first_GG2: np.ndarray, last_GG2: np.ndarray, width_px: int, height_px: int) -> set[str]:
    """What the camera does, from a square grid of tracked points (x, y) in the first and last frame.

    The middle points of the four edges are looked at, in whole pixels; what moves no more than 0.005 of the shorter side
    is static. The names are pan_left, pan_right, tilt_up, tilt_down, zoom_in, zoom_out, static; or None alone.
    """
    first_GG2, last_GG2 = (np.trunc(np.asarray(points, np.float64)) for points in (first_GG2, last_GG2))
    middle = math.ceil(len(first_GG2) // 2 - 0.5)
    last = len(first_GG2) - 1
    edges = ((0, middle), (last, middle), (middle, 0), (middle, last))
    least = 0.005 * min(width_px, height_px)
    top, down, left, right = (_directions(last_GG2[e] - first_GG2[e], least) for e in edges)
    found = set(_named(top, down, _TOP_DOWN)) | set(_named(left, right, _LEFT_RIGHT))
    for weak in ("static", "None"):  # in this order: static beside an edge pair that fits nothing is nothing
        if len(found) > 1:
            found.discard(weak)
    return found


def _named(one: Sequence[str], other: Sequence[str], names: Mapping[tuple[str, str], str]) -> list[str]:
    return [names[a, b] for a in one for b in other if (a, b) in names] or ["None"]


def _directions(step: np.ndarray, least: float) -> list[str]:
    x, y = step
    across = "right" if x > least else "left" if x < -least else None
    along = "down" if y > least else "up" if y < -least else None
    return [way for way in (across, along) if way] or ["static"]


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def _similarity(a_TD: np.ndarray, b_TD: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, (_unit(a_TD) * _unit(b_TD)).sum(axis=-1))


def _neighbour_similarity(features_TD: np.ndarray) -> np.ndarray:
    return _similarity(features_TD[1:], features_TD[:-1])


# ------------------------------------------------------------------------------------------------------- over many clips


#: dimensions that VBench averages over frames, not over clips
_FRAME_WEIGHTED = ("subject_consistency", "background_consistency")


def aggregate(dimension: str, values: Sequence[float | None], n_frames: Sequence[int] | None = None) -> float | None:
    """A dimension's value over clips, as VBench aggregates it: the mean; imaging quality over 100.

    Subject and background consistency weigh a clip by its steps: `n_frames` must be given, or all clips taken as
    equally long. Clips without a value are left out; None without any.
    """
    known = [index for index, value in enumerate(values) if value is not None]
    if not known:
        return None
    data = np.array([values[index] for index in known], np.float64)
    weights = None
    if dimension in _FRAME_WEIGHTED and n_frames is not None:
        weights = np.array([n_frames[index] - 1 for index in known], np.float64)
    return float(np.average(data, weights=weights) / (100 if dimension == "imaging_quality" else 1))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One dimension in a total: its range on the board and its weight."""

    low: float
    high: float
    weight: float = 1.0


_PLAIN = _Part(low=0.0, high=1.0)
_QUALITY = {
    "subject_consistency": _Part(low=0.1462, high=1.0),
    "background_consistency": _Part(low=0.2615, high=1.0),
    "temporal_flickering": _Part(low=0.6293, high=1.0),
    "motion_smoothness": _Part(low=0.706, high=0.9975),
    "aesthetic_quality": _PLAIN,
    "imaging_quality": _PLAIN,
    "dynamic_degree": _Part(low=0.0, high=1.0, weight=0.5),
}
_SEMANTIC = {
    "object_class": _PLAIN,
    "multiple_objects": _PLAIN,
    "human_action": _PLAIN,
    "color": _PLAIN,
    "spatial_relationship": _PLAIN,
    "scene": _Part(low=0.0, high=0.8222),
    "appearance_style": _Part(low=0.0009, high=0.2855),
    "temporal_style": _Part(low=0.0, high=0.364),
    "overall_consistency": _Part(low=0.0, high=0.364),
}
_I2V = {
    "camera_motion": _Part(low=0.0, high=1.0, weight=0.1),
    "i2v_subject": _Part(low=0.1462, high=1.0),
    "i2v_background": _Part(low=0.2615, high=1.0),
}

Board = Literal["t2v", "i2v"]

#: board -> {part of the total: (its weight, its dimensions)}
BOARDS: dict[str, dict[str, tuple[float, dict[str, _Part]]]] = {
    "t2v": {"quality": (4.0, _QUALITY), "semantic": (1.0, _SEMANTIC)},
    "i2v": {
        "quality": (1.0, {name: part for name, part in _QUALITY.items() if name != "temporal_flickering"}),
        "i2v": (1.0, _I2V),
    },
}


def totals(values: Mapping[str, float | None], board: Board = "t2v") -> dict[str, Any]:
    """`{normalised, quality, semantic | i2v, total, complete, missing}` of aggregated dimensions.

    (value - low) / (high - low), the weighted mean of each part, the weighted mean of the parts. A part is None where one
    of its dimensions is missing, and so is the total; `missing` names them. Raises BadInput for an unknown dimension.
    """
    parts = BOARDS[board]
    known = {name: part for _, dimensions in parts.values() for name, part in dimensions.items()}
    every = _QUALITY.keys() | _SEMANTIC.keys() | _I2V.keys()
    if strange := sorted(set(values) - every):
        raise BadInput("unknown VBench dimensions", got=", ".join(strange), expected=f"of {', '.join(sorted(every))}")
    normalised = {
        name: (value - known[name].low) / (known[name].high - known[name].low)
        for name, value in values.items()
        if value is not None and name in known
    }
    missing = sorted(known.keys() - normalised.keys())
    found = {name: _weighted(normalised, dimensions) for name, (_, dimensions) in parts.items()}
    total = None
    if not missing:
        total = sum(weight * (found[name] or 0.0) for name, (weight, _) in parts.items())
        total /= sum(weight for weight, _ in parts.values())
    return {"normalised": normalised, **found, "total": total, "complete": not missing, "missing": missing}


def _weighted(normalised: Mapping[str, float], dimensions: Mapping[str, _Part]) -> float | None:
    if not dimensions.keys() <= normalised.keys():
        return None
    weighed = sum(normalised[name] * part.weight for name, part in dimensions.items())
    return weighed / sum(part.weight for part in dimensions.values())


# --------------------------------------------------------------------------------------------------------- its JSON files


@dataclass(frozen=True, kw_only=True)
class ClipResult:
    """One clip of a dimension: its path and value; `n_frames` where it is known."""

    path: str
    value: float
    n_frames: int | None = None


def write_results(path: str | os.PathLike[str], results: Mapping[str, Sequence[ClipResult]]) -> Path:
    """Writes `NAME_eval_results.json` as VBench does: {dimension: [aggregate, [{video_path, video_results}, ...]]}.

    Dimensions without clips are left out: an absent key is what VBench's own tools see for a dimension not run.
    """
    content = {}
    for dimension, clips in results.items():
        lengths = [clip.n_frames for clip in clips]
        value = aggregate(dimension, [clip.value for clip in clips], None if None in lengths else lengths)  # type: ignore[arg-type]
        if value is not None:
            content[dimension] = [value, [{"video_path": clip.path, "video_results": clip.value} for clip in clips]]
    return write_atomic(path, json.dumps(content, indent=4, allow_nan=False).encode())


def read_results(path: str | os.PathLike[str]) -> tuple[dict[str, float], dict[str, list[ClipResult]]]:
    """(aggregate of each dimension, its clips) of a VBench results file. Raises BadInput for a file of another kind.

    Camera motion has its results by type between the two; booleans (dynamic degree) become 0 and 1; NaN, which VBench
    writes where nothing was found, is left out.
    """
    text = existing_file(path, BadInput, "the VBench results").read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        clips = {
            name: [
                ClipResult(path=str(clip["video_path"]), value=float(clip["video_results"]))
                for clip in entry[-1]
                if not math.isnan(float(clip["video_results"]))
            ]
            for name, entry in content.items()
        }
        values = {name: float(entry[0]) for name, entry in content.items() if not math.isnan(float(entry[0]))}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as reason:
        raise BadInput(
            "not a VBench results file",
            got=f"{path} ({type(reason).__name__}: {reason})",
            expected="{dimension: [value, [{video_path, video_results}, ...]]}",
        ) from reason
    return values, clips


def standard_name(prompt: str, index: int, suffix: str = ".mp4") -> str:
    """The file name that VBench expects of clip `index` (0 to 4, for flickering to 24) of a prompt."""
    return f"{prompt}-{index}{suffix}"


def prompt_of(name: str) -> str:
    """The prompt in a file name of VBench: without suffix and without a number behind the last hyphen."""
    stem = Path(name).stem
    head, hyphen, tail = stem.rpartition("-")
    return head if hyphen and tail.isdecimal() and tail.isascii() else stem
