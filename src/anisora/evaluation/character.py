"""`anime.character` with networks and features given by path: detect, segment, track, encode, compare (equation 6).

    S = 1/N sum_i cos(E(M_i * I_i), f)

I_i are N moments of the clip, M_i the mask of a figure there (`measures.figures`), E the encoder, f the stored feature of
the character. f comes from a gallery, by the names that the sample gives or else by who stands there at the beginning; a
gallery without characters stands for the picture that the clip was made from, where f is the same figure's. One folder is
one reference: the two are never mixed in one score. A figure that nobody knows is not scored, nor is a clip without any.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from anisora.evaluation import gallery as galleries
from anisora.evaluation import identity
from anisora.evaluation.characters import GALLERY
from anisora.evaluation.metrics import Measured, picture
from anisora.evaluation.samples import Sample
from anisora.evaluation.scorer_card import Output
from anisora.evaluation.suite import one_thread
from anisora.files import sha256_file
from anisora.measures.figures import cut_out, find_figures
from anisora.measures.footage import LOOK_PX, Footage, resized
from anisora.measures.salience import Detector, salience
from anisora.records import Backend
from anisora.store import content_hash

#: Changes with what the scores mean.
VERSION = 1

Picture = NDArray[np.uint8]  # [H, W, 3]
Frames = NDArray[np.uint8]  # [T, H, W, 3]
Vectors = NDArray[np.float32]

#: Who a figure is, is decided on so many of its first moments; what becomes of it then, the score tells.
BEGINNING = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """A figure of a clip: its features [n, D] at some of the frames, in order."""

    frames: tuple[int, ...]
    features_nD: Vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reference:
    """What figures are held against: stored features [C, D] by name, how they are compared, and from where on somebody is
    known."""

    kind: str
    names: tuple[str, ...]
    stored_CD: Vectors
    alike: identity.Alike = identity.cosine
    threshold: float | None = None


#: The figures of frames at some of them, with their features.
_See = Callable[[Frames, Sequence[int]], list[_Seen]]


class CharacterScorer:
    """`anime.character` by the gallery of a folder; by one without characters, against the picture that each clip was made
    from."""

    backend: Backend = "full"
    in_flight = 0
    #: the paper's scale; a cosine below 0 is as unlike as can be, and scores 0
    outputs = (Output(dimension="character"),)

    def __init__(self, place: str | os.PathLike[str], device: str | None = None) -> None:
        """Opens a folder. Raises BadInput, BadCheckpoint, AssetMissing."""
        folder = Path(place)
        gallery = galleries.load(folder)
        encoder, network = galleries.networks(gallery, folder)
        self.alike = identity.alike_of(encoder)
        self.unit = "cosine" if gallery.facts.alike == galleries.COSINE else "1 - CCIP difference"
        self.stored = None
        if names := gallery.facts.names:
            self.stored = _Reference(
                kind="gallery", names=names, stored_CD=gallery.stored_CD, alike=self.alike,
                threshold=gallery.facts.threshold,
            )  # fmt: skip
        self.encoder = identity.load_encoder(encoder, device)
        self.detect = partial(salience, weights=network)
        self.weights_sha256 = gallery.facts.encoder_sha256
        #: the hash of everything but the clips that scores depend on
        self.run_id = content_hash([VERSION, sha256_file(folder / GALLERY)])[:12]

    def prepare(self, sample: Sample, footage: Footage) -> Callable[[], dict[str, Measured]]:
        """A job that says what equation 6 gives; null with a reason without a figure, or without one that is known. Raises
        BadImage for the input picture."""
        image = None if sample.image is None else resized(picture(sample.image), LOOK_PX)
        return lambda: {self.outputs[0].metric: self._measured(footage, image, sample.characters)}

    def _measured(self, footage: Footage, image: Picture | None, names: Sequence[str]) -> Measured:
        with one_thread():
            said = _measured(footage, image, names, self.stored, self._see, self.alike)
        score = None if said.raw is None else self.outputs[0].score(said.raw)
        beyond = {"beyond_range": True} if said.raw is not None and said.raw < 0 else {}
        params = {**said.params, **beyond}
        return replace(said, unit=self.unit, score=score, params=params, weights_sha256=self.weights_sha256)

    def _see(self, frames_THWC: Frames, moments: Sequence[int]) -> list[_Seen]:
        return _seen(frames_THWC, moments, self.detect, self.encoder)


def _measured(
    footage: Footage,
    image: Picture | None,
    names: Sequence[str],
    stored: _Reference | None,
    see: _See,
    alike: identity.Alike,
) -> Measured:
    if len(footage) < 2 or footage.is_blank:
        return Measured(unit="cosine", reason="too_short" if len(footage) < 2 else "blank")
    seen = see(footage.frames_THWC, footage.deep_moments)
    if not seen:
        return Measured(unit="cosine", reason="no_character")
    pictured = None if image is None else _of_picture(image, see, alike)
    reference = stored or (_first_features("first_frame", seen, alike) if image is None else pictured)
    if reference is None:
        return Measured(unit="cosine", reason="no_character", details={"problem": "no figure in the input image"})
    wanted = names if stored else ()
    if strange := [name for name in wanted if name not in reference.names]:
        return Measured(
            unit="cosine", reason="unknown_character", details={"problem": f"not in the gallery: {strange}"}
        )
    seen_share = float(np.mean([len(own.frames) for own in seen])) / len(footage.deep_moments)
    if reference.kind == "first_frame":  # it is like itself
        seen = [_Seen(frames=own.frames[1:], features_nD=own.features_nD[1:]) for own in seen]
    held = _held(seen, reference, _who(seen, reference, wanted))
    if held is None:
        return Measured(unit="cosine", reason="unknown_character", details={"nearest": _nearest(seen, reference)})
    raw, details = held
    if stored and pictured:
        beside = _held(seen, pictured, _who(seen, pictured))
        details |= {} if beside is None else {"image_cosine": beside[0]}
    details |= {"figures": len(seen), "seen_share": seen_share}
    params = {"reference": reference.kind, "threshold": reference.threshold if not wanted else None}
    return Measured(unit="cosine", raw=raw, params=params, details=details)


# -- who is seen -------------------------------------------------------------------------------------------------------


def _seen(frames_THWC: Frames, moments: Sequence[int], detect: Detector, encoder: nn.Module) -> list[_Seen]:
    """The figures of a clip and their features; none that is in the picture at fewer than two of the moments, of several."""
    found = [own for own in find_figures(frames_THWC, moments, detect) if len(own.mask_HW) >= min(2, len(moments))]
    cuts = [cut_out(frames_THWC[t], mask_HW) for own in found for t, mask_HW in own.mask_HW.items()]
    if not cuts:
        return []
    ends = np.cumsum([len(own.mask_HW) for own in found])[:-1]
    parts = np.split(identity.features(encoder, cuts), ends)
    return [_Seen(frames=tuple(own.mask_HW), features_nD=part) for own, part in zip(found, parts, strict=True)]


def _of_picture(image: Picture, see: _See, alike: identity.Alike) -> _Reference | None:
    """The figures of the picture that a clip was made from; None without any."""
    found = see(image[None], [0])
    return _first_features("image", found, alike) if found else None


def _first_features(kind: str, seen: Sequence[_Seen], alike: identity.Alike) -> _Reference:
    names = tuple(f"figure {number}" for number in range(1, len(seen) + 1))
    return _Reference(kind=kind, names=names, stored_CD=np.stack([own.features_nD[0] for own in seen]), alike=alike)


# -- who is who --------------------------------------------------------------------------------------------------------


def _beginnings(seen: Sequence[_Seen], reference: _Reference) -> NDArray[np.float64]:
    """How alike [figure, character] over the first moments, on average."""
    first = (reference.alike(own.features_nD[:BEGINNING], reference.stored_CD) for own in seen)
    return np.stack([cosines.mean(axis=0) for cosines in first]).astype(float)


def _who(seen: Sequence[_Seen], reference: _Reference, wanted: Sequence[str] = ()) -> dict[int, int]:
    """figure -> character, no character twice, so that they are as alike as can be at the beginning. Those that are named
    are there; else one that is less alike than the reference's threshold is somebody else."""
    if reference.kind == "first_frame":
        return {number: number for number in range(len(seen))}
    from scipy.optimize import linear_sum_assignment

    columns = [reference.names.index(name) for name in wanted] or list(range(len(reference.names)))
    cosines = _beginnings(seen, reference)[:, columns]
    least = -np.inf if wanted or reference.threshold is None else reference.threshold
    pairs = zip(*linear_sum_assignment(cosines, maximize=True), strict=True)
    return {int(f): columns[c] for f, c in pairs if cosines[f, c] >= least}


def _nearest(seen: Sequence[_Seen], reference: _Reference) -> dict[str, float]:
    """The nearest character of each figure, and how near it is."""
    cosines = _beginnings(seen, reference)
    return {reference.names[row.argmax()]: round(float(row.max()), 4) for row in cosines}


def _held(seen: Sequence[_Seen], reference: _Reference, who: Mapping[int, int]) -> tuple[float, dict[str, Any]] | None:
    """Equation 6, the mean over the figures that are somebody, and what it is made of; None where nobody is."""
    if not who:
        return None
    cosines = {f: reference.alike(seen[f].features_nD, reference.stored_CD).astype(np.float64) for f in who}
    own = {f: cosines[f][:, c] for f, c in who.items()}
    means = {f: float(values.mean()) for f, values in own.items()}
    details: dict[str, Any] = {
        "characters": {reference.names[c]: round(means[f], 6) for f, c in who.items()},
        "worst": float(min(values.min() for values in own.values())),
        "cosines": [
            {"frames": list(seen[f].frames), "cosines": [round(float(value), 6) for value in own[f]]} for f in who
        ],
    }
    if reference.kind == "gallery" and len(reference.names) > 1:
        others = {f: np.delete(cosines[f], c, axis=1).max(axis=1) for f, c in who.items()}
        margins = np.concatenate([own[f] - others[f] for f in who])
        details |= {"margin": float(margins.mean()), "identified": float((margins > 0).mean())}
    return float(np.mean(list(means.values()))), details
