"""Fifty times killed, finished all the same: the pipeline under SIGKILL at random points, against a run left in peace.

    python benchmarks/kills.py VIDEO... --kills 50 --seed 11 --json

The driver runs `curate` in a process of its own with the defaults (every measure, captions, shards, report) and is killed
without warning. Half of the kills wait for a random stage and strike a random moment into it, the other half strike at a
random time of the whole run, start-up included. After `--a-set` kills the folder is finished undisturbed and looked
through: the manifest hash must be that of the undisturbed run, no clip may be there twice, no file may lie there that no
table names, no shard may differ from its index; a second run must find nothing to do. Then a fresh folder is begun, until
all kills are spent. One JSON object: where every kill landed, and what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")

#: the driver: `curate` as the command calls it, with its progress as lines "stage done total"
DRIVER = """
import json, sys
from pathlib import Path
from anisora.curation.config import CurateConfig
from anisora.curation.pipeline import curate
from anisora.settings import load, read
config = read(CurateConfig, load(Path(sys.argv[2])) if sys.argv[2] else {}, where="config")
tell = lambda stage, done, total: print(stage, done, total, flush=True)
result = curate([Path(name) for name in sys.argv[3:]], sys.argv[1], config, workers=2, progress=tell)
print("result", json.dumps([result.manifest_hash, result.clips, result.kept]), flush=True)
"""
#: what lies in a finished folder beside clips and shards
BESIDE = {
    ".lock", "clips.parquet", "features.parquet", "index.parquet", "ledger.sqlite", "purged.txt", "report.html",
    "review.html", "run.json", "sources.parquet",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--a-set", type=int, default=5, help="kills before a folder is finished")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--config", type=Path, help="settings; default: those of the command")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    result = measure(options)
    print(json.dumps(result, indent=1) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    sys.exit(0 if result["passed"] else 1)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Kills and finishes until all kills are spent."""
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        peace = Run(Path(scratch) / "peace", options)
        peace.follow()
        expected, timeline = peace.result, peace.timeline
        assert expected is not None, peace.stderr()
        findings, landed, sets = looked_through(peace.out), [], []
        assert not findings, findings
        while len(landed) < options.kills:
            out = Path(scratch) / f"set-{len(sets)}"
            for _ in range(min(options.a_set, options.kills - len(landed))):
                kill = one_kill(Run(out, options), timeline, rng)
                if kill is None:
                    break
                landed.append(kill)
                print(f"kill {len(landed)}: {kill}", file=sys.stderr, flush=True)
            last = Run(out, options)
            last.follow()
            again = Run(out, options)
            again.follow()
            sets.append(
                {
                    "same_hash": last.result == expected == again.result,
                    "findings": looked_through(out) or last.stderr(),
                    "made_by_a_second_run": {stage: n for stage, n in again.made.items() if n},
                }
            )
            print(f"set {len(sets)}: {sets[-1]}", file=sys.stderr, flush=True)
            shutil.rmtree(out)
    return {
        "benchmark": "kills/1",
        "videos": [path.name for path in options.videos],
        "seed": options.seed,
        "expected": expected,
        "undisturbed_s": timeline[-1][0],
        "kills": len(landed),
        "landed": landed,
        "landed_in": dict(Counter(str(kill["stage"]) for kill in landed)),
        "sets": sets,
        "passed": all(s["same_hash"] and not s["findings"] and not s["made_by_a_second_run"] for s in sets),
    }


class Run:
    """One driver process, and what it said until its end: `timeline` of (seconds, stage), `made` units a stage."""

    def __init__(self, out: Path, options: argparse.Namespace) -> None:
        self.out, self.timeline, self.made = out, [(0.0, "start")], Counter[str]()
        self.result: list[Any] | None = None
        self.last = ""
        self.started = time.monotonic()
        words = [sys.executable, "-c", DRIVER, str(out), str(options.config or ""), *map(str, options.videos)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            stage, _, rest = line.strip().partition(" ")
            if stage == "result":
                self.result = json.loads(rest)
                continue
            self.last = line.strip()
            if rest.split()[0] != "0" and stage not in ("shards", "report"):  # told of when they are kept, too
                self.made[stage] += 1
            if rest.split()[1] != "0":
                self.timeline.append((time.monotonic() - self.started, stage))

    def follow(self) -> None:
        """Waits for its end."""
        self.process.wait()
        self._reader.join()

    def stderr(self) -> str:
        """What it said on stderr, when it failed."""
        self._errors.seek(0)
        return "" if self.process.returncode == 0 else self._errors.read()[-2000:]


def one_kill(run: Run, timeline: list[tuple[float, str]], rng: np.random.Generator) -> dict[str, Any] | None:
    """Kills the run at a random point; where it landed, or None for a run that ended before."""
    stages = list(dict.fromkeys(stage for _, stage in timeline))
    if rng.random() < 0.5:
        wanted = str(rng.choice(stages[1:]))
        behind = set(stages[stages.index(wanted) :])  # what a killed run has made is not made again
        while run.process.poll() is None and not behind & {stage for _, stage in run.timeline}:
            time.sleep(0.002)
        times = [second for second, stage in timeline if stage == wanted]
        delay_s = float(rng.uniform(0, max(0.2, times[-1] - times[0])))
    else:
        wanted, delay_s = "", float(rng.uniform(0.2, timeline[-1][0]))
    end = time.monotonic() + delay_s
    while run.process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    was_running = run.process.poll() is None
    stage, _, said = run.last.partition(" ")
    run.process.send_signal(signal.SIGKILL)
    run.follow()
    if not was_running:
        return None
    partials = [path for path in run.out.rglob(".*.*") if path.is_file()] if run.out.is_dir() else []
    return {
        "aimed_at": wanted or "any time", "stage": stage or "start", "units": said,
        "after_s": round(time.monotonic() - run.started, 2), "files_under_way": len(partials),
    }  # fmt: skip


def looked_through(out: Path) -> list[str]:
    """What is wrong with a finished folder, in words; nothing when it is whole."""
    import pyarrow.parquet as pq

    from anisora.curation.upkeep import verify

    found = []
    table = pq.read_table(out / "clips.parquet").to_pylist()
    ids = Counter(row["clip_id"] for row in table)
    found += [f"{clip} is there {n} times" for clip, n in ids.items() if n > 1]
    named = {row["path"] for row in table if row["path"]}
    named |= {f"shards/{entry['shard']}" for entry in pq.read_table(out / "index.parquet").to_pylist()}
    cells = [row for path in (out / "results/cells").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    named |= {row["word"] for row in cells if row["name"].startswith("signal:") and row["word"]}
    here = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    here = {name for name in here - BESIDE if not name.startswith(("results/", "captions/"))}
    found += [f"{name} belongs to nothing" for name in sorted(here - named)]
    found += [f"{name} is missing" for name in sorted(named - here)]
    found += [f"{path} is a remainder" for path in out.rglob(".*") if path.name != ".lock"]
    cells_of = Counter((row["clip_id"], row["name"], row["key"], row["view"]) for row in cells)
    found += [f"{cell} was written {n} times" for cell, n in cells_of.items() if n > 1]
    checked = verify(out)
    found += [f"{name}: {why}" for name, why in {**checked.bad_clips, **checked.bad_shards}.items()]
    return found


if __name__ == "__main__":
    main()
