"""What the scan costs: all cheap scores in one decode against one tool per score, and against a shot detector alone.

    python benchmarks/curation_scan.py EPISODE.mp4 --alternations 3 --json

Needs `scenedetect`, `imagehash` and `imageio-ffmpeg` (for ffmpeg's command line), none of which the package itself
needs. Each baseline is a public tool with its defaults, in a process of its own on one thread, at the rate at which the
scan takes that score. CPU seconds, children included, start-up included on both sides; alternating; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCENEDETECT = [sys.executable, "-m", "scenedetect", "-q", "-i", "{video}", "detect-content", "list-scenes", "-n"]
FFMPEG = ["{ffmpeg}", "-hide_banner", "-nostats", "-loglevel", "error", "-threads", "1", "-i", "{video}", "-an"]

#: The usual loop over a video with OpenCV, which hands out whole frames in colour.
LOOP = """
import sys, cv2
cv2.setNumThreads(1)
video = cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
step = round(video.get(cv2.CAP_PROP_FPS) / {fps})
last, number = None, 0
{before}
while True:
    ok, frame = video.read()
    if not ok:
        break
    if number % step == 0:
        {each}
    number += 1
"""
PHASH = LOOP.format(
    fps=2,
    before="import imagehash; from PIL import Image",
    each="imagehash.phash(Image.fromarray(frame[..., ::-1]))",
)
FLOW = LOOP.format(
    fps=8,
    before="dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)",
    each="""grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (320, 180))
        if last is not None:
            dis.calc(last, grey, None)
        last = grey""",
)
TEXT = LOOP.format(
    fps=2,
    before="kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (15, 3))",
    each="cv2.morphologyEx(cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 100, 200), cv2.MORPH_CLOSE, kernel)",
)

#: score -> the tool that gives it
TOOLS: dict[str, list[str]] = {
    "cut signal": SCENEDETECT,
    "held frames": [*FFMPEG, "-vf", "freezedetect", "-f", "null", "-"],
    "borders": [*FFMPEG, "-vf", "cropdetect", "-f", "null", "-"],
    "pHash": [sys.executable, "-c", PHASH, "{video}"],
    "DIS flow 8/s": [sys.executable, "-c", FLOW, "{video}"],
    "text-edge proxy": [sys.executable, "-c", TEXT, "{video}"],
    "sharpness": [*FFMPEG, "-vf", "fps=2,blurdetect", "-f", "null", "-"],
}
SCAN = "import sys; from anisora.curation.scan import scan; scan(sys.argv[1]).save(sys.argv[2])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    result = measure(options.video, options.alternations)
    print(json.dumps(result, indent=2) if options.json else result)


def measure(video: Path, alternations: int) -> dict[str, Any]:
    """Raw CPU seconds of every run, and the two ratios."""
    import imageio_ffmpeg

    words = {"video": str(video.resolve()), "ffmpeg": imageio_ffmpeg.get_ffmpeg_exe()}
    tools = {name: [word.format(**words) if word.startswith("{") else word for word in t] for name, t in TOOLS.items()}
    with tempfile.TemporaryDirectory() as folder:
        tools["scan"] = [sys.executable, "-c", SCAN, words["video"], f"{folder}/scan.npz"]
        runs = [{name: cpu_s(command, folder) for name, command in tools.items()} for _ in range(alternations)]
        size = Path(folder, "scan.npz").stat().st_size
    apart = [sum(run[name] for name in TOOLS) / run["scan"] for run in runs]
    alone = [run["scan"] / run["cut signal"] for run in runs]
    return {
        "benchmark": "curation_scan/1",
        "video": video.name,
        "commands": {name: " ".join(command) for name, command in TOOLS.items()},
        "cpu_s": runs,
        "one_tool_per_score_over_scan": round(statistics.median(apart), 2),
        "scan_over_scenedetect": round(statistics.median(alone), 3),
        "scan_bytes": size,
    }


def cpu_s(command: list[str], folder: str) -> float:
    """CPU seconds of a command and its children. Raises CalledProcessError when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command, check=True, cwd=folder, env=os.environ | threads, **quiet)  # type: ignore[call-overload]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3)


if __name__ == "__main__":
    main()
