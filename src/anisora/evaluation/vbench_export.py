"""Clips to the file that VBench's own tools read: what needs no network is computed, the rest comes from features.

Features are what the networks say whose weights are given (`vbench_networks`), or what is stored: one `ID.npz` a clip, ID
being the clip's path in its folder without suffix; arrays of any of the names in `FORMULAS`. Whoever runs other networks
stores what they said. On the same features the numbers are VBench's to 1e-6.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anisora.errors import AnisoraError, BadInput
from anisora.evaluation import vbench
from anisora.evaluation.samples import Sample
from anisora.files import write_atomic

Arrays = Mapping[str, np.ndarray]
Progress = Callable[[str, int, int], None]

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
    "i2v_subject": (("image_dino_D", "i2v_dino_TD"), vbench.image_consistency),
    "i2v_background": (("image_dreamsim_D", "dreamsim_TD"), vbench.image_consistency),
    "overall_consistency": (("viclip_video_D", "viclip_text_D"), vbench.overall_consistency),
}


def export(
    samples: Sequence[Sample],
    out: str | os.PathLike[str],
    features: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the file and returns `{path, values, clips, t2v, i2v, unreadable, without, weights}`.

    `values` are aggregates, `clips` of how many clips each is, `t2v` and `i2v` the totals of both boards. `weights` is a
    folder of VBench's networks; what they said is kept in `features`, where that is named, and not asked again while clip
    and weights are the same. `without` says of dimensions why they were not computed. A clip that cannot be read is left
    out and named. Raises BadCheckpoint for the weights; BadInput for features that cannot be read, or of a shape that no
    formula takes, and where no clip has a value.
    """
    networks = None if weights is None else _networks(weights, device)
    results: dict[str, list[vbench.ClipResult]] = {}
    unreadable: dict[str, str] = {}
    for number, sample in enumerate(samples):
        if progress:
            progress("clips", number, len(samples))
        try:
            clip = _decoded(sample)
        except AnisoraError as problem:
            unreadable[sample.id] = str(problem)
            continue
        arrays = {"frames_THWC": clip.frames_THWC}
        stored = None if features is None else Path(features) / f"{sample.id}.npz"
        arrays |= _stored(stored, len(clip.frames_THWC)) if stored else {}
        if networks is not None:
            if problem_of_image := _unusable(sample.image):
                unreadable[f"{sample.id}, its input picture"] = problem_of_image
                sample = replace(sample, image=None)
            arrays = _asked(networks, sample, clip, arrays, stored)
        for dimension, value in values_of(arrays, sample.id).items():
            result = vbench.ClipResult(path=str(sample.video), value=value, n_frames=len(clip.frames_THWC))
            results.setdefault(dimension, []).append(result)
    if not results:
        raise BadInput("no clip has a value", got=next(iter(unreadable.values()), "clips of one frame"))
    path = vbench.write_results(out, results)
    values, _ = vbench.read_results(path)
    return {
        "path": str(path),
        "values": values,
        "clips": {dimension: len(found) for dimension, found in results.items()},
        "t2v": vbench.totals(values, "t2v"),
        "i2v": vbench.totals(values, "i2v"),
        "unreadable": unreadable,
        "without": {d: why for d, why in _without(networks).items() if d not in values},
        "weights": {} if networks is None else networks.weights,
    }


def _unusable(image: Path | None) -> str | None:
    """What is wrong with an input picture; None for a good one, and where there is none."""
    from anisora.media.image import load_image

    try:
        if image is not None:
            load_image(image)
    except AnisoraError as problem:
        return str(problem)
    return None


def _networks(folder: str | os.PathLike[str], device: str | None) -> Any:
    from anisora.evaluation.vbench_networks import Networks

    return Networks(Path(folder), device)


def _without(networks: Any) -> dict[str, str]:
    if networks is None:
        return {}
    asked = {
        "overall_consistency": "no clip has a prompt: a manifest, or names as PROMPT-0.mp4",
        "i2v_subject": "no clip has an input picture: a manifest with `image`",
        "i2v_background": "no clip has an input picture: a manifest with `image`",
    }
    return {
        name: asked.get(name, "clips of one frame, or values that are no numbers") for name in networks.dimensions
    } | networks.missing()


#: The name under which a file of features says what those of the networks were made of.
_MADE_OF = "made_of"


def _asked(networks: Any, sample: Sample, clip: Any, arrays: dict[str, np.ndarray], stored: Path | None) -> Any:
    """The arrays with those of the networks, which are also stored; those that are stored already are not made again."""
    from anisora.evaluation.vbench_networks import fingerprint, seen_of

    seen = seen_of(sample, clip)
    made_of = fingerprint(networks, sample, seen)
    if str(arrays.get(_MADE_OF)) == made_of:
        return arrays
    arrays = arrays | networks.arrays(seen)
    if stored is not None:
        kept = {name: array for name, array in arrays.items() if name not in ("frames_THWC", _MADE_OF)}
        packed = io.BytesIO()
        np.savez_compressed(packed, **kept, **{_MADE_OF: np.array(made_of)})  # type: ignore[arg-type]
        write_atomic(stored, packed.getvalue())
    return arrays


def values_of(arrays: Arrays, name: str = "clip") -> dict[str, float]:
    """The dimensions whose arrays are there; one whose formula has no answer, or none that is a number, is left out. Raises
    BadInput by shape."""
    found = {}
    for dimension, (needed, formula) in FORMULAS.items():
        if not all(array in arrays for array in needed):
            continue
        try:
            value = formula(*(arrays[array] for array in needed))
        except (ValueError, TypeError, IndexError) as problem:
            shapes = ", ".join(f"{array} {arrays[array].shape}" for array in needed)
            raise BadInput(f"{name}: arrays that do not fit {dimension}", got=f"{shapes} ({problem})") from problem
        if value is not None and math.isfinite(value):
            found[dimension] = float(value)
    return found


def _decoded(sample: Sample) -> Any:
    from anisora.media.reader import read_video

    return read_video(sample.video)


#: arrays with one row for each frame of the clip
_PER_FRAME = ("dino_TD", "i2v_dino_TD", "clip_TD", "dreamsim_TD", "laion_T", "musiq_T")


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
    known = {name for needed, _ in FORMULAS.values() for name in needed} - {"frames_THWC"} | {_MADE_OF}
    if strange := sorted(arrays.keys() - known):
        raise BadInput(f"unknown features in {path.name}", got=", ".join(strange), expected=", ".join(sorted(known)))
    for name in _PER_FRAME:
        if name in arrays and len(arrays[name]) != num_frames:
            raise BadInput(f"{path.name}: {name} of other frames", got=len(arrays[name]), expected=num_frames)
    return arrays
