"""Which frames a training clip gives away: the mask strategy.

AniSora, section 4.3 "Mask Strategy": first, last and uniformly sampled other frames are each unmasked with probability
1/2, so that one model learns continuation, in-betweening and arbitrary guidance.
"""

from __future__ import annotations

import numpy as np

from anisora import geometry


def sample_guides(
    num_frames: int, rng: np.random.Generator, k_max: int = 3, empty_prob: float = 0.1, slot_stride: int = 1
) -> list[int]:
    """The guide frames of one clip, in order of time.

    Frame 0 with probability 1/2, the last with 1/2, and each of k distinct inner frames (k uniform in 0..k_max, as many
    as there are) with 1/2, all independently. A draw without any is kept (a text-only sample) with probability
    `empty_prob` and drawn again otherwise. Where a latent frame can hold one guide only, `slot_stride` is how many frames
    it holds: of guides in one, the earliest stays (as AniSora V1 was trained).
    """
    while True:
        inner = np.arange(1, num_frames - 1)
        k = min(int(rng.integers(k_max + 1)), len(inner))
        candidates = [0, num_frames - 1, *rng.choice(inner, size=k, replace=False).tolist()]
        frames = sorted({frame for frame in candidates if rng.random() < 0.5})
        if frames or rng.random() < empty_prob:
            return list({geometry.slot(frame, slot_stride): frame for frame in reversed(frames)}.values())[::-1]
