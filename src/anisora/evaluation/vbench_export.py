"""Clips to the file that VBench's own tools read: what needs no network is computed, the rest comes from stored features.

Features are one `ID.npz` a clip, ID being the clip's path in its folder without suffix; arrays of any of the names in
`FORMULAS`. Whoever runs the networks (DINO, CLIP, ...) stores what they said, and the numbers are VBench's to 1e-6.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anisora.errors import AnisoraError, BadInput
from anisora.evaluation import vbench
from anisora.evaluation.samples import Sample

Arrays = Mapping[str, np.ndarray]

#: dimension -> (the arrays that it needs, its formula on them); `frames_THWC` is the clip itself
FORMULAS: dict[str, tuple[tuple[str, ...], Callable[..., float | bool | None]]] = {
    "temporal_flickering": (("frames_THWC",), vbench.temporal_flickering),
    "motion_smoothness": (("frames_THWC", "amt_THWC"), vbench.motion_smoothness),
    "dynamic_degree": (
        ("frames_THWC", "raft_top5_T"),
        lambda frames, scores: vbench.dynamic_degree(scores.tolist(), frames.shape[2], frames.shape[1]),
    ),
    "aesthetic_quality": (("laion_T",), vbench.aesthetic_quality),
    "imaging_quality": (("musiq_T",), vbench.imaging_quality),
    "subject_consistency": (("dino_TD",), vbench.feature_consistency),
    "background_consistency": (("clip_TD",), vbench.feature_consistency),
    "i2v_subject": (("image_dino_D", "dino_TD"), vbench.image_consistency),
    "i2v_background": (("image_dreamsim_D", "dreamsim_TD"), vbench.image_consistency),
    "overall_consistency": (("viclip_video_D", "viclip_text_D"), vbench.overall_consistency),
}


def export(
    samples: Sequence[Sample], out: str | os.PathLike[str], features: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Writes the file and returns `{path, values, t2v, i2v, unreadable}`: aggregates, the totals of both boards.

    A clip that cannot be read is left out and named. Raises BadInput for features that cannot be read, or of a shape
    that no formula takes, and where no clip has a value.
    """
    results: dict[str, list[vbench.ClipResult]] = {}
    unreadable: dict[str, str] = {}
    for sample in samples:
        try:
            arrays = {"frames_THWC": _frames(sample)}
        except AnisoraError as problem:
            unreadable[sample.id] = str(problem)
            continue
        if features is not None:
            arrays |= _stored(Path(features) / f"{sample.id}.npz", len(arrays["frames_THWC"]))
        for dimension, value in values_of(arrays, sample.id).items():
            clip = vbench.ClipResult(path=str(sample.video), value=value, n_frames=len(arrays["frames_THWC"]))
            results.setdefault(dimension, []).append(clip)
    if not results:
        raise BadInput("no clip has a value", got=next(iter(unreadable.values()), "clips of one frame"))
    path = vbench.write_results(out, results)
    values, _ = vbench.read_results(path)
    return {
        "path": str(path),
        "values": values,
        "t2v": vbench.totals(values, "t2v"),
        "i2v": vbench.totals(values, "i2v"),
        "unreadable": unreadable,
    }


def values_of(arrays: Arrays, name: str = "clip") -> dict[str, float]:
    """The dimensions whose arrays are there; one whose formula has no answer is left out. Raises BadInput by shape."""
    found = {}
    for dimension, (needed, formula) in FORMULAS.items():
        if not all(array in arrays for array in needed):
            continue
        try:
            value = formula(*(arrays[array] for array in needed))
        except (ValueError, TypeError, IndexError) as problem:
            shapes = ", ".join(f"{array} {arrays[array].shape}" for array in needed)
            raise BadInput(f"{name}: arrays that do not fit {dimension}", got=f"{shapes} ({problem})") from problem
        if value is not None:
            found[dimension] = float(value)
    return found


def _frames(sample: Sample) -> np.ndarray:
    from anisora.media.reader import read_video

    return read_video(sample.video).frames_THWC


#: arrays with one row for each frame of the clip
_PER_FRAME = ("dino_TD", "clip_TD", "dreamsim_TD", "laion_T", "musiq_T")


def _stored(path: Path, num_frames: int) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile) as problem:
        raise BadInput(
            "unreadable features", got=f"{path} ({problem})", expected="an .npz of plain arrays"
        ) from problem
    known = {name for needed, _ in FORMULAS.values() for name in needed} - {"frames_THWC"}
    if strange := sorted(arrays.keys() - known):
        raise BadInput(f"unknown features in {path.name}", got=", ".join(strange), expected=", ".join(sorted(known)))
    for name in _PER_FRAME:
        if name in arrays and len(arrays[name]) != num_frames:
            raise BadInput(f"{path.name}: {name} of other frames", got=len(arrays[name]), expected=num_frames)
    return arrays
