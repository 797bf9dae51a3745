"""Writes spoiled copies of clips as files, for eyes and for any metric that reads videos."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from anisora.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from anisora.evaluation.samples import Sample
from anisora.media.reader import read_video
from anisora.media.writer import write_video


def write_corrupted(
    samples: Sequence[Sample],
    out: str | os.PathLike[str],
    *,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[str]:
    """The paths written, below `out`: `KIND-SEVERITY/ID.mp4`, and the clean clips in the same codec as `clean-0/ID.mp4`.

    Where a corruption needs another clip it gets the next one of the samples. Raises BadVideo for a clip that cannot be
    read, BadRequest for an unknown kind.
    """
    jobs = [("clean", 0)] + [(kind, level) for kind in kinds or CORRUPTIONS for level in severities or SEVERITIES]
    written = []
    for index, sample in enumerate(samples):
        clip = read_video(sample.video)
        following = samples[(index + 1) % len(samples)]
        other = read_video(following.video).frames_THWC if following is not sample else None
        for done, (kind, level) in enumerate(jobs):
            if progress:
                progress("clips", index * len(jobs) + done, len(samples) * len(jobs))
            frames = clip.frames_THWC
            if level:
                frames = corrupt(frames, kind, level, seed=seed, other_THWC=other)
            name = f"{kind}-{level}/{sample.id}.mp4"
            target = Path(out) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_video(target, frames, clip.fps, lossless=True)
            written.append(name)
    return written
