"""In-betweeners without learning: what a generator has to beat.

Both take the guides uncompressed and return them untouched at their frames. Before the first guide and after the last
one the nearest is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from anisora.measures.flow import dis_flow, pull
from anisora.measures.similarity import Frames

Picture = NDArray[np.uint8]  # [H, W, 3]


def cross_fade(guides: Mapping[int, Picture], num_frames: int) -> Frames:
    """Frames [T, H, W, 3] that fade linearly from each guide to the next; `guides` maps a frame to its picture."""
    return _between(guides, num_frames, lambda a, b: lambda u: (1 - u) * a + u * b)


def flow_warp(guides: Mapping[int, Picture], num_frames: int) -> Frames:
    """Frames that move both guides along DIS flow to the moment wanted, and fade between the two.

    At share u of the way, pixel p is taken from a at p + u F_ba(p) and from b at p + (1 - u) F_ab(p): motion is taken
    to be straight and even.
    """

    def pair(a: Picture, b: Picture) -> Callable[[float], NDArray[np.floating]]:
        a_to_b, b_to_a = dis_flow(a, b), dis_flow(b, a)
        start, end = a.astype(np.float32), b.astype(np.float32)
        return lambda u: (1 - u) * pull(start, u * b_to_a) + u * pull(end, (1 - u) * a_to_b)

    return _between(guides, num_frames, pair)


def _between(
    guides: Mapping[int, Picture],
    num_frames: int,
    pair: Callable[[Picture, Picture], Callable[[float], NDArray[np.floating]]],
) -> Frames:
    at = sorted(guides)
    frames: list[Picture] = [guides[at[0]]] * (at[0] + 1)
    for left, right in itertools.pairwise(at):
        mix = pair(guides[left], guides[right])
        for frame in range(left + 1, right):
            frames.append(np.rint(mix((frame - left) / (right - left))).clip(0, 255).astype(np.uint8))
        frames.append(guides[right])
    frames += [guides[at[-1]]] * (num_frames - len(frames))
    return np.stack(frames)
