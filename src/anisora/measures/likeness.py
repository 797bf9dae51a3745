"""Is it still the same picture, and the same figure? Deep features of a clip against those of a reference.

The network is EfficientNet-Lite0 (`perceptual`), whose weights arrive in a pip package. For the picture as a whole its
features are pooled; for the figure they are compared place by place, each with the best match anywhere, so that a figure
may move, and after the colours of the scene have been matched, so that nightfall is no change of identity.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anisora.measures.footage import DEEP_MOMENTS, Footage, resized

if TYPE_CHECKING:
    from torch import Tensor

#: The pictures' short side for the network, and which of its stages are read: at 1/16 and at 1/32 of it.
DEEP_PX, STAGES = 192, (3, 4)

#: The share of places taken for the figure.
FIGURE_SHARE = 0.25

#: Keeps the logarithm of a perfect likeness finite.
LEAST = 1e-3

#: Figures nearer to each other than this, as 1 - cosine, differ in nothing: what is added to both sides of a ratio.
SAME = 0.03

#: Added to both sides of a ratio of changes, in grey levels.
LEAST_LEVELS = 0.5

#: Added to the distance of hues, in units of a* and b*: less is seen by nobody.
LEAST_HUE = 0.3


def likeness_features(footage: Footage, reference_HWC: NDArray[np.uint8] | None = None) -> dict[str, float] | str:
    """How unlike its reference picture a clip is, by name, larger for worse; or the reason why it cannot be said.

    `mean`, `worst`: the log of 1 - cosine of pooled features, over moments; `color`: the log of the distance of colour
    means and spreads; `hues`: the log of how far hues would have to be moved to be the reference's; `drift`: how much
    farther the last third of the clip is than the first. Without a reference the first frame stands in. Raises AssetMissing.
    """
    if problem := _unusable(footage):
        return problem
    moments = footage.deep_moments if reference_HWC is not None else footage.deep_moments[1:]
    reference = footage.frames_THWC[0] if reference_HWC is None else reference_HWC
    frames = [footage.frames_THWC[i] for i in moments]
    pooled = np.concatenate([_pooled([reference]), _pooled(frames)])
    cosines = pooled[1:] @ pooled[0]
    colors = np.array([np.abs(_color(frame) - _color(reference)).mean() for frame in frames])
    own = _hues(reference)
    hues = [np.abs(_hues(frame) - own).mean() for frame in frames]
    third = max(1, len(cosines) // 3)
    return {
        "mean": _log_rest(cosines.mean()),
        "worst": _log_rest(cosines.min()),
        "color": float(np.log(colors.mean() + 0.5)),
        "hues": float(np.log(np.mean(hues) + LEAST_HUE)),
        "drift": float(cosines[:third].mean() - cosines[-third:].mean()),
    }


def figure_features(footage: Footage) -> dict[str, float] | str:
    """How unlike its beginning the figure of a clip becomes, by name, larger for worse; or the reason.

    The figure is where things move by themselves and the middle of the picture. `mean`, `worst`: the log of 1 - the
    mean best-match cosine, over moments, of the figure's places among those of the first two moments, both ways.
    `switch`: how much less alike two drawings before a moment are to two from it on than each two are among themselves,
    as log, where the picture changes most beside the drawings next to it; `at_jump`: the same where it changes most of
    all. A figure that moves is as unlike before as behind, one that is exchanged is not; and drawing by drawing that does
    not depend on how long the clip is. `bent`: how much surer a network is that what is seen is bent out of shape
    (`faults`) in the second half of the clip than at its beginning. Raises AssetMissing.
    """
    if problem := _unusable(footage):
        return problem
    moments = figure_moments(footage)
    if len(moments) < 4:
        return "too_short"
    places_TCN, figure_TN = _places(footage, moments)
    values = np.array([_best_matches(places_TCN, figure_TN, t) for t in range(2, len(moments))])
    return {
        "mean": _log_rest(values.mean()),
        "worst": _log_rest(values.min()),
        **_switches(footage),
        "bent": _bent(footage),
    }


def figure_moments(footage: Footage) -> list[int]:
    """Up to `DEEP_MOMENTS` frames, each so many drawings after the one before, so that drawings held for two frames are seen
    no other than once. Evenly spread over the frames where fewer than four drawings are."""
    drawings = footage.drawings
    stride = math.ceil((len(drawings) - 1) / (DEEP_MOMENTS - 1))
    return drawings[::stride] if len(drawings) >= 4 else footage.deep_moments


def weights_sha256() -> str:
    """The hash of the network that the features are of."""
    from anisora.measures import perceptual

    return perceptual.weights_sha256()


def _unusable(footage: Footage) -> str | None:
    if len(footage) < 2:
        return "too_short"
    return "blank" if footage.is_blank else None


def _log_rest(cosine: float) -> float:
    return float(np.log(max(0.0, 1 - float(cosine)) + LEAST))


def _maps(pictures: list[NDArray[np.uint8]]) -> list[Tensor]:
    """Unit-length feature maps [T, C, y, x] of the stages read, of pictures of one size."""
    import torch

    from anisora.measures import perceptual

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums, hence scores, must not depend on how the work is shared out
    try:
        maps = perceptual.features(np.stack([resized(picture, DEEP_PX) for picture in pictures]))
    finally:
        torch.set_num_threads(threads)
    return [maps[stage] / maps[stage].norm(dim=1, keepdim=True).clamp_min(1e-6) for stage in STAGES]


def _pooled(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """One unit vector a picture: the mean over places of all stages read, each stage of equal weight."""
    vectors = [stage.mean(dim=(2, 3)) for stage in _maps(pictures)]
    unit = [(vector / vector.norm(dim=1, keepdim=True)).numpy() for vector in vectors]
    return np.concatenate(unit, axis=1) / np.sqrt(len(unit))


def _color(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean and the spread of the channels of L*a*b*."""
    lab = _lab(picture).reshape(-1, 3)
    return np.concatenate([lab.mean(axis=0), lab.std(axis=0)])


def _hues(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Quantiles of the colours of a* and b* along eight directions, [200, 8]: the mean distance of two pictures' is the sliced
    Wasserstein distance (Bonneel et al. 2015) of their hues. A turn of all hues may keep their mean and spread, not these."""
    angles = np.arange(8) * np.pi / 8
    colors = _lab(picture)[::3, ::3, 1:].reshape(-1, 2)
    return np.asarray(np.quantile(colors @ np.stack([np.cos(angles), np.sin(angles)]), np.linspace(0, 1, 200), axis=0))


def _lab(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture, np.float32) / 255, cv2.COLOR_RGB2LAB))


def _matched(picture: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with the colour means and spreads of the target (Reinhard et al. 2001, in L*a*b*)."""
    import cv2

    lab, goal = _lab(picture), _lab(target)
    spread = np.maximum(lab.std(axis=(0, 1)), 1.0)
    moved = (lab - lab.mean(axis=(0, 1))) * (np.maximum(goal.std(axis=(0, 1)), 1.0) / spread) + goal.mean(axis=(0, 1))
    return np.rint(np.clip(cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1) * 255).astype(np.uint8)


def _bent(footage: Footage) -> float:
    """The log-odds above 0 that pictures are bent out of shape, the mean of the second half less that of the first two."""
    from anisora.measures.faults import fault_odds

    moments = footage.deep_moments
    odds = fault_odds("figures", footage.frames_THWC[[*moments[:2], *moments[len(moments) // 2 :]]])
    sure = np.logaddexp(0, odds)
    return float(sure[2:].mean() - sure[:2].mean())


def _figure(footage: Footage, t: int, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """The places [y, x] of the figure at a frame: the `FIGURE_SHARE` with the most motion of its own, nearest the middle
    where nothing moves."""
    import cv2

    luma = footage.luma_THW
    change = np.abs(luma[footage.moments] - luma[t]).mean(axis=0)
    moving = cv2.resize(change, grid[::-1], interpolation=cv2.INTER_AREA)
    weight = _middle(*grid) * (moving + 2)
    return weight >= np.quantile(weight, 1 - FIGURE_SHARE)


def _places(footage: Footage, moments: list[int]) -> tuple[Tensor, NDArray[np.bool_]]:
    """Of some frames, in the colours of the first of the clip: the unit features of all places, [T, C, N], and which of the
    places are the figure's, [T, N]."""
    first = footage.frames_THWC[0]
    maps = _maps([_matched(footage.frames_THWC[i], first) for i in moments])[0]
    grid = (maps.shape[2], maps.shape[3])
    return maps.flatten(2), np.stack([_figure(footage, i, grid).ravel() for i in moments])


def _middle(height: int, width: int) -> NDArray[np.float64]:
    """How much places [height, width] count for being near the middle of the picture."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.asarray(np.exp(-(x**2 + y**2)))


def _best_matches(places_TCN: Tensor, figure_TN: NDArray[np.bool_], t: int) -> float:
    """The mean cosine of the figure's places at t with the best of all places at the first two moments, and the other
    way round, averaged."""
    return _alike(places_TCN, figure_TN, [0, 1], [t])


def _switches(footage: Footage) -> dict[str, float]:
    """`switch` and `at_jump` of `figure_features`, each of the two drawings on either side of one moment."""
    drawings = footage.drawings if len(footage.drawings) >= 4 else footage.deep_moments
    change = np.array([_change(footage, a, b) for a, b in itertools.pairwise(drawings)])
    inner = change[1:-1]  # two drawings on either side
    beside = (inner + LEAST_LEVELS) / ((change[:-2] + change[2:]) / 2 + LEAST_LEVELS)
    at = {"switch": int(beside.argmax()), "at_jump": int(inner.argmax())}
    found = {t: _switch(*_places(footage, drawings[t : t + 4])) for t in set(at.values())}  # often one and the same
    return {name: found[t] for name, t in at.items()}


def _change(footage: Footage, a: int, b: int) -> float:
    """How far the picture differs from one frame to another, in grey levels, most of all in its middle."""
    luma = footage.luma_THW
    weight = _middle(*luma.shape[1:])
    return float((np.abs(luma[b] - luma[a]) * weight).sum() / weight.sum())


def _switch(places_TCN: Tensor, figure_TN: NDArray[np.bool_]) -> float:
    """Of four moments, how much farther the first two are from the last two than each two are from one another, as log."""
    off = {(a, b): _unlike(places_TCN, figure_TN, a, b) for a, b in itertools.combinations(range(4), 2)}
    between = np.mean([off[a, b] for a in (0, 1) for b in (2, 3)])
    return float(np.log((between + SAME) / ((off[0, 1] + off[2, 3]) / 2 + SAME)))


def _unlike(places_TCN: Tensor, figure_TN: NDArray[np.bool_], a: int, b: int) -> float:
    """How unlike the figures of two moments are, 0 for equal ones."""
    return 1 - _alike(places_TCN, figure_TN, [a], [b])


def _alike(places_TCN: Tensor, figure_TN: NDArray[np.bool_], some: list[int], others: list[int]) -> float:
    """The mean best-match cosine of the figure's places at some moments among all places at others, and back."""
    return (_found(places_TCN, figure_TN, some, others) + _found(places_TCN, figure_TN, others, some)) / 2


def _found(places_TCN: Tensor, figure_TN: NDArray[np.bool_], some: list[int], others: list[int]) -> float:
    import torch

    figure = torch.cat([places_TCN[t][:, torch.from_numpy(figure_TN[t])] for t in some], dim=1)
    everything = torch.cat([places_TCN[t] for t in others], dim=1)
    return float((figure.T @ everything).amax(dim=1).mean())
