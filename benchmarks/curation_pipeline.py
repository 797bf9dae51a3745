"""What curation costs: selection, raw videos to kept clips, and the engine, each against what people use today.
Whether clips are exact to the frame.

    python benchmarks/curation_pipeline.py select --clips 1000000 --json
    python benchmarks/curation_pipeline.py kept VIDEO... --share 0.25 --rounds 3 --json
    python benchmarks/curation_pipeline.py exact VIDEO... --json
    python benchmarks/curation_pipeline.py engine --rounds 3 --json

select  a table of that many clips is decided again with other thresholds, read and written back; the manifest hash is
        made too. No video exists, so none can be decoded
kept    raw videos to encoded clips, a share of which is kept. Ours: one `anisora curate` (the scan with every cheap column,
        shots, selection by flow, a file for each survivor, shards, report); the bound that keeps the share is looked
        up in an unmeasured run before. Theirs: `scenedetect detect-content split-video` with its defaults (every clip is
        encoded), then one pass over every clip for each of the scores of `curation_scan`, by its public tools; the ratios
        are given without the pass for the cut signal too, as the split has seen the cuts.
        `curate` copies survivors that can be cut out of the source as they are and encodes the others, so ours is run
        twice a round: as it is by default, and with every survivor encoded as PySceneDetect does it (x264, veryfast,
        crf 22). All is in the size of the source
exact   every clip of the videos, nothing filtered: has it the frames of its span, no fewer, no neighbour's, at their
        times? The same question to `scenedetect split-video`, by its own list of scenes
engine  start and memory of the default engine against Ray Data, for the same toy: a sleep and a small row a unit

CPU seconds of the process and its children, A and B in turn, one thread each; raw times are in the output.
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
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's programs are compiled anew in every process


def main() -> None:
    options = parse()
    result = {"benchmark": "curation_pipeline/1", **WHAT[options.what](options)}
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--clips", type=int, default=1_000_000, help="rows of the table (select)")
    parser.add_argument("--share", type=float, default=0.25, help="of the clips that are kept (kept)")
    parser.add_argument("--rounds", type=int, default=3, help="alternations")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """CPU and wall seconds of the block, children included."""
    figures: dict[str, float] = {}
    wall, cpu = time.perf_counter(), _cpu_s()
    yield figures
    figures["wall_s"], figures["cpu_s"] = time.perf_counter() - wall, _cpu_s() - cpu


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


# -------------------------------------------------------------------------------------------------------------- select


def select_figures(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to decide a large table again, and how many videos were opened for it."""
    import av
    import cv2

    from anisora.curation import table as clips
    from anisora.curation.pipeline import CLIPS
    from anisora.curation.reselect import reselect

    opened: list[Any] = []
    av.open = cv2.VideoCapture = lambda *words, **named: opened.append(words)  # type: ignore[assignment, misc]
    with tempfile.TemporaryDirectory() as folder:
        clips.write(random_table(options.clips), Path(folder) / CLIPS)
        size = (Path(folder) / CLIPS).stat().st_size
        rounds = []
        for number in range(options.rounds):
            with measured() as figures:
                result = reselect(folder, between={"flow": (0.5 + number / 10, None), "text_cover": (None, 0.02)})
            rounds.append({**figures, "kept": result.kept, "manifest_hash": result.manifest_hash[:16]})
    return {
        "clips": options.clips,
        "table_bytes": size,
        "videos_opened": len(opened),
        "cpu_s": _median(rounds, "cpu_s"),
        "rounds": rounds,
    }


def random_table(count: int) -> Any:
    """A table as a run leaves it, of random clips."""
    import pyarrow as pa

    from anisora.curation import table as clips

    rng = np.random.default_rng(0)
    kind = clips.schema()
    plain: dict[str, Any] = {
        "clip_id": [f"{n:08x}-{n * 2654435761 % 2**32:08x}-0000-000000000000" for n in range(count)],
        "source_id": [f"{n // 300:016x}" for n in range(count)],
        "source_path": [f"/videos/series {n // 7200}/episode {n // 300 % 24}.mkv" for n in range(count)],
        "source_sha256": [f"{n // 300:064x}" for n in range(count)],
        "caption": [f"Animation in colours, number {n}, with a static camera and some motion." for n in range(count)],
        "verdict": ["drop"] * count,
        "tags": [
            [("camera.kind", kind), ("camera.shift_x", "0.5"), ("caption_kind", "measured")]
            for kind in rng.choice(["moving", "panned_still", "slideshow", "still"], count, p=[0.85, 0.05, 0.05, 0.05])
        ],
        "camera": rng.choice(["static", "pan", "tilt", "zoom_in", "shake"], count),
        "talking": rng.choice(["yes", "no"], count),
        "motion_grade": rng.choice(["still", "small", "medium", "large"], count),
        "dimension": rng.choice(["2d", "3d"], count),
        "flow": rng.gamma(2, 1, count),
        "text_cover": rng.gamma(0.3, 0.01, count),
        "quality": rng.uniform(0, 1, count),
        "aesthetic": rng.uniform(0, 10, count),
        "quality_filter": rng.uniform(0, 1, count),
        "duration_s": rng.uniform(0.5, 9, count),
        "drawing_fps": rng.choice([6.0, 8.0, 12.0, 24.0], count),
        "repeat_group": [f"group {n % 97}" if n % 40 == 0 else None for n in range(count)],
    }
    whole = {"crop_w_px": 1280, "crop_h_px": 720, "width_px": 1280, "height_px": 720, "fps_num": 24, "fps_den": 1}
    columns = []
    for field in kind:
        if field.name in plain:
            values = plain[field.name]
            columns.append(
                pa.array(values, field.type) if isinstance(values, list) else pa.array(values).cast(field.type)
            )
        elif pa.types.is_integer(field.type):
            columns.append(pa.array(np.full(count, whole.get(field.name, 1)), field.type))
        elif field.name.endswith("_backend"):
            columns.append(pa.array(["bundled"] * count, field.type))
        else:
            columns.append(pa.nulls(count, field.type))
    return pa.table(columns, schema=kind)


# ---------------------------------------------------------------------------------------------------------------- kept


CUTS = "cut signal"

#: PySceneDetect's own function, which takes clip after clip in one process as its command does not
DETECT = """
import sys, cv2
from scenedetect import ContentDetector, detect
cv2.setNumThreads(1)
for name in sys.argv[1:]:
    detect(name, ContentDetector())
"""


def kept_figures(options: argparse.Namespace) -> dict[str, Any]:
    """Raw videos to kept clips: ours and the usual chain, in turn."""
    from anisora.curation.materialise import Encoding

    if not options.videos:
        raise SystemExit("kept needs videos")
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        least = _least_flow(options.videos, Path(folder) / "all", options.share)
    as_theirs = Encoding(copy_bits_per_px=0, quality=22, preset="veryfast")
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            one = {
                "ours": _ours(options.videos, Path(folder) / "ours", least, Encoding()),
                "ours, encoded as theirs": _ours(options.videos, Path(folder) / "encoded", least, as_theirs),
                "theirs": _theirs(options.videos, Path(folder) / "theirs", options.share),
            }
        rounds.append(one)
        print(one, file=sys.stderr)
    ratios = {
        who: [one["theirs"]["cpu_s"] / one[who]["cpu_s"] for one in rounds]
        for who in ("ours", "ours, encoded as theirs")
    }
    seen = [1 - one["theirs"]["passes"][CUTS] / one["theirs"]["cpu_s"] for one in rounds]
    for who in list(ratios):
        ratios[f"{who}, no pass for cuts"] = [r * s for r, s in zip(ratios[who], seen, strict=True)]
    return {
        "videos": [path.name for path in options.videos],
        "share": options.share,
        "ours": " ".join(curate_command([Path("VIDEO")], Path("OUT"), Path("CONFIG"))),
        "theirs": " ".join(split_command(Path("VIDEO"), Path("OUT"))),
        "passes": {name: " ".join(commands[0]) for name, commands in passes([Path("CLIP")]).items()},
        "ratio": {who: statistics.median(each) for who, each in ratios.items()},
        "ratios": ratios,
        "rounds": rounds,
    }


def _config(encoding: Any = None, **select: Any) -> Any:
    """Every cheap column and nothing else."""
    from anisora.curation.config import CaptionChoice, CurateConfig
    from anisora.curation.materialise import Encoding
    from anisora.curation.select import Rules

    return CurateConfig(
        text="none", heads="none", aesthetic=None, caption=CaptionChoice(backend="none"), longest_s=1e6,
        encode=encoding or Encoding(),
        select=Rules(without={}, repeats=False, opening_ending=False, **select),
    )  # fmt: skip


def _least_flow(videos: list[Path], out: Path, share: float) -> float:
    """The bound that keeps that share of the clips."""
    from anisora.curation.pipeline import curate
    from anisora.curation.table import read

    curate(videos, out, _config(between={"flow": (1e9, None)}), workers=1)
    flows = sorted((f for f in read(out / "clips.parquet")["flow"].to_pylist() if f is not None), reverse=True)
    return flows[max(0, round(share * len(flows)) - 1)]


def _ours(videos: list[Path], out: Path, least: float, encoding: Any) -> dict[str, Any]:
    """One run: scan, shots, cheap measures, the clips with so much flow, a file of each. CPU seconds, also by stage."""
    from anisora.curation.cells import CellStore
    from anisora.curation.ledger import Ledger
    from anisora.curation.pipeline import LEDGER
    from anisora.settings import plain

    config = out.with_suffix(".json")
    config.write_text(json.dumps(plain(_config(encoding, between={"flow": (least, None)}))))
    with measured() as figures:
        said = subprocess.run(curate_command(videos, out, config), check=True, capture_output=True).stdout
    result = json.loads(said)
    files = [row for row in CellStore(out).read("cells").to_pylist() if row["name"] == "file" and row["word"]]
    with Ledger(out / LEDGER) as ledger:
        stages = {row["stage"]: round(row["cpu_s"], 2) for row in ledger.costs()}
    return {
        **figures,
        "stages": stages,
        "kept": f"{result['kept']} of {result['clips']}",
        "copied": sum(json.loads(row["details"])["is_copied"] for row in files),
        "kept_bytes": sum(json.loads(row["details"])["num_bytes"] for row in files),
    }


def curate_command(videos: list[Path], out: Path, config: Path) -> list[str]:
    """The command of ours, in a process of its own as those of the others are."""
    words = [sys.executable, "-m", "anisora", "curate", *map(str, videos), "--out", str(out), "--config", str(config)]
    return [*words, "--workers", "1", "--json"]


def split_command(video: Path, out: Path) -> list[str]:
    """PySceneDetect as its pages show it, with the scenes as a table beside the clips."""
    return [
        sys.executable, "-m", "scenedetect", "-i", str(video), "-o", str(out), "detect-content", "list-scenes",
        "split-video",
    ]  # fmt: skip


def _theirs(videos: list[Path], out: Path, share: float) -> dict[str, Any]:
    """PySceneDetect splits and encodes everything; then every clip is read again for every score; a share is kept."""
    out.mkdir(parents=True)
    costs: dict[str, float] = {}
    with measured() as whole:
        with measured() as split:
            for video in videos:
                subprocess.run(split_command(video, out), check=True, capture_output=True)
        clips = sorted(out.glob("*.mp4"))
        costs["split"] = split["cpu_s"]
        for name, commands in passes(clips).items():
            with measured() as one:
                for command in commands:
                    subprocess.run(command, check=True, capture_output=True)
            costs[name] = one["cpu_s"]
        kept = max(1, round(share * len(clips)))
        for clip in clips[kept:]:  # which ones costs nothing either way
            clip.unlink()
    size = sum(clip.stat().st_size for clip in clips[:kept])
    return {**whole, "passes": costs, "kept": f"{kept} of {len(clips)}", "kept_bytes": size}


def passes(clips: list[Path]) -> dict[str, list[list[str]]]:
    """score -> the commands that give it for all clips: a process a clip for ffmpeg, one for all where it is Python."""
    import imageio_ffmpeg
    from curation_scan import TOOLS

    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    found: dict[str, list[list[str]]] = {}
    for name, tool in TOOLS.items():
        if name == CUTS:
            found[name] = [[sys.executable, "-c", DETECT, *map(str, clips)]]
        elif tool[1] == "-c":
            code = textwrap.indent(tool[2].replace("sys.argv[1]", "name"), "    ")
            found[name] = [[tool[0], "-c", f"import sys\nfor name in sys.argv[1:]:\n{code}", *map(str, clips)]]
        else:
            found[name] = [[word.format(ffmpeg=ffmpeg, video=clip) for word in tool] for clip in clips]
    return found


# --------------------------------------------------------------------------------------------------------------- exact


def exact_figures(options: argparse.Namespace) -> dict[str, Any]:
    """How many clips have exactly their frames, ours and PySceneDetect's."""
    if not options.videos:
        raise SystemExit("exact needs videos")
    by_video = {}
    for video in options.videos:
        with tempfile.TemporaryDirectory() as folder:
            by_video[video.name] = {
                "ours": _exact_ours(video, Path(folder) / "ours"),
                "scenedetect": _exact_theirs(video, Path(folder) / "theirs"),
            }
        print(video.name, by_video[video.name], file=sys.stderr)
    summary = {
        who: f"{sum(one[who]['exact'] for one in by_video.values())}/{sum(one[who]['clips'] for one in by_video.values())}"
        for who in ("ours", "scenedetect")
    }
    return {"command": " ".join(split_command(Path("VIDEO"), Path("OUT"))), **summary, "videos": by_video}


def _exact_ours(video: Path, out: Path) -> dict[str, Any]:
    """Frames and times of every clip against the source's, decoded whole."""
    from anisora.curation.pipeline import curate
    from anisora.curation.table import read
    from anisora.media.reader import iter_frames

    curate([video], out, _config(between={}), workers=1)
    rows = read(out / "clips.parquet").to_pylist()
    source = [(frame.rgb_HWC[::4, ::4].astype(np.int16), frame.time_s) for frame in iter_frames(video, threads=1)]
    wrong = {}
    for row in rows:
        if not row["path"]:
            wrong[row["clip_id"]] = row["fault"] or row["reason"]
            continue
        clip = [(f.rgb_HWC[::4, ::4].astype(np.int16), f.time_s) for f in iter_frames(out / row["path"], threads=1)]
        if problem := _inexact(clip, source, row["start_frame"], row["end_frame"]):
            wrong[row["clip_id"]] = problem
    return {"clips": len(rows), "exact": len(rows) - len(wrong), "wrong": wrong}


def _inexact(clip: list[Any], source: list[Any], start: int, end: int) -> str:
    """What is wrong with a clip that should be the source's frames [start, end); nothing when it is."""
    if len(clip) != end - start:
        return f"{len(clip)} frames of {end - start}"
    for number, (picture, time_s) in enumerate(clip):
        if time_s - clip[0][1] != source[start + number][1] - source[start][1]:
            return f"frame {number} at another time"
        near = range(max(0, start + number - 1), min(len(source), start + number + 2))
        own = source[start + number][0]
        far = {index: np.abs(picture - source[index][0]).mean() for index in near}
        apart = {index: np.abs(own - source[index][0]).mean() for index in near}
        # held drawings differ by the codec's noise alone; where the drawing changes, a shift by one frame shows
        if any(apart[index] > 1 and far[start + number] - far[index] > 0.5 * apart[index] for index in near):
            return f"frame {number} is another one"
    return ""


def _exact_theirs(video: Path, out: Path) -> dict[str, Any]:
    """The number of frames of every file against the list of scenes."""
    import csv

    from anisora.media.container import count_packets

    out.mkdir(parents=True)
    subprocess.run(split_command(video, out), check=True, capture_output=True)
    lines = next(out.glob("*.csv")).read_text().splitlines()
    scenes = list(csv.DictReader(lines[next(n for n, line in enumerate(lines) if line.startswith("Scene Number")) :]))
    found = [count_packets(path) for path in sorted(out.glob("*.mp4"))]
    expected = [int(scene["Length (frames)"]) for scene in scenes]
    wrong = {str(n): f"{a} frames of {b}" for n, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b}
    return {"clips": len(expected), "exact": len(expected) - len(wrong), "wrong": wrong}


# -------------------------------------------------------------------------------------------------------------- engine

_LOCAL = """
import sys, time, resource, tempfile, psutil
start = time.perf_counter()
from anisora.curation.executors import Unit, open_executor
with open_executor("local", workers=2, notes=tempfile.mkdtemp()) as executor:
    left = [Unit(key=str(n), task="benchmarks.curation_pipeline:toy", arguments={"number": n}) for n in range(20)]
    first = None
    peak = 0
    while left or executor.in_flight:
        while left and executor.in_flight < executor.capacity:
            executor.submit(left.pop())
        executor.wait()
        first = first or time.perf_counter() - start
        tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
        peak = max(peak, sum(p.memory_full_info().pss for p in tree))
print(first, peak)
"""

_RAY_DATA = """
import time, psutil
start = time.perf_counter()
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
from ray.data import DataContext, from_items
DataContext.get_current().enable_progress_bars = False
class Toy:
    def __call__(self, row):
        time.sleep(0.02)
        return {"number": row["item"]}
first, peak = None, 0
for row in from_items(list(range(20)), override_num_blocks=20).map(Toy, concurrency=2).iter_rows():
    first = first or time.perf_counter() - start
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    peak = max(peak, sum(p.memory_full_info().pss for p in tree))
print(first, peak)
"""


def toy(number: int, *, note: Any, skip: Any) -> int:
    """The unit of work of `engine`."""
    time.sleep(0.02)
    return number


def engine_figures(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the start of Python to the first result, and the most memory of all processes, shared pages once."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    rounds: list[dict[str, Any]] = []
    for _ in range(options.rounds):
        entry = {}
        for name, code in (("local", _LOCAL), ("ray_data", _RAY_DATA)):
            with measured() as figures:
                done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            if done.returncode:
                entry[name] = {"error": done.stderr.strip().splitlines()[-1]}
                continue
            first_s, peak = done.stdout.split()[-2:]
            entry[name] = {"first_result_s": float(first_s), "pss_bytes": int(peak), **figures}
        rounds.append(entry)
    both = [r for r in rounds if "error" not in r["local"] and "error" not in r["ray_data"]]
    summary = {
        f"{key}_ratio": statistics.median(r["ray_data"][key] / r["local"][key] for r in both)
        for key in ("first_result_s", "pss_bytes", "cpu_s")
        if both
    }
    return {**summary, "rounds": rounds}


def _median(rounds: list[dict[str, Any]], key: str) -> float:
    return statistics.median(r[key] for r in rounds)


WHAT = {"select": select_figures, "kept": kept_figures, "exact": exact_figures, "engine": engine_figures}

if __name__ == "__main__":
    main()
