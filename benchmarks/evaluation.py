"""What scoring a clip costs: CPU seconds for all dimensions together, and for each with a decode of its own.

    python benchmarks/evaluation.py --clip shot.mp4 --json

Without `--clip`, a drawn clip of 5 s, 1280x720 at 30 frames a second is written and scored. CPU time of this process, one
thread, after a small clip has loaded libraries and weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from anisora.evaluation.samples import Sample
from anisora.evaluation.suite import score_sample
from anisora.evaluation.validation import SCORED
from anisora.media.writer import write_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = options.clip or drawn(Path(folder) / "clip.mp4", 150, (1280, 720))
        cpu_s(drawn(Path(folder) / "small.mp4", 8, (128, 96)), list(SCORED))
        together = cpu_s(clip, list(SCORED))
        apart = {name: cpu_s(clip, [name]) for name in SCORED}
    result = {"together_cpu_s": together, "apart_cpu_s": apart, "apart_over_together": sum(apart.values()) / together}
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


def drawn(path: Path, num_frames: int, size_px: tuple[int, int]) -> Path:
    from anisora.synthetic import render_clip

    frames = render_clip(700, 0, n_frames=num_frames, fps=30, size_px=size_px).video_THWC
    return write_video(path, frames, 30)


def cpu_s(clip: Path, metrics: list[str]) -> float:
    started = time.process_time()
    for record in score_sample(Sample(id="clip", video=clip), metrics):
        assert record.score is not None, record
    return round(time.process_time() - started, 3)


if __name__ == "__main__":
    main()
