"""The whole pipeline on small videos: the same again, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from anisora.curation import pipeline
from anisora.curation.config import CropSettings
from anisora.curation.ledger import Ledger
from anisora.curation.materialise import Encoding
from anisora.curation.parts import make_plan
from anisora.curation.pipeline import Curated, curate
from anisora.curation.plan import measuring, watch
from anisora.curation.reselect import reselect, rewrite_review
from anisora.curation.select import Rules
from anisora.curation.shards import damaged_shards, read_index
from anisora.curation.upkeep import purge, retry, verify
from anisora.errors import BadInput, Failed
from anisora.media.reader import read_video
from anisora.media.writer import write_video
from anisora.synthetic import render_clip

from . import units
from .runs import CONFIG, PATHS, RULES, YAML, attempts, check_whole, command, rows, units_run
from .videos import FPS, take, write_episode

# ---------------------------------------------------------------------------------------------------------- as promised


def test_every_shot_becomes_a_clip_of_exactly_its_frames(finished: tuple[Path, Curated]):
    out, result = finished
    assert (result.sources, result.clips, result.kept) == (2, 6, 6)
    for row in rows(out):
        assert row["n_frames"] == 30
        clip = read_video(out / row["path"])
        seed = 1 + row["start_frame"] // 30 + (3 if row["source_path"].endswith("b.mp4") else 0)
        assert np.abs(clip.frames_THWC.astype(int) - take(seed).astype(int)).mean() < 6
        assert clip.fps == FPS
    assert not damaged_shards(out)
    assert (out / "report.html").stat().st_size > 10_000


def test_a_second_run_makes_nothing_again(copied: Path, episodes: Path, finished: tuple[Path, Curated]):
    assert units_run(copied, lambda: curate([episodes], copied, CONFIG)) == {}
    assert json.loads((copied / "run.json").read_text())["result"]["manifest_hash"] == finished[1].manifest_hash


def test_the_hash_does_not_depend_on_workers_or_names(episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]):
    (tmp_path / "in").mkdir()
    shutil.copy(episodes / "a.mp4", tmp_path / "in/zz é\n.mp4")
    shutil.copy(episodes / "b.mp4", tmp_path / "in/b.mp4")
    result = curate([tmp_path / "in"], tmp_path / "out", CONFIG, workers=1)
    assert result.manifest_hash == finished[1].manifest_hash


def test_another_encoding_makes_files_again_and_nothing_else(copied: Path, episodes: Path):
    other = replace(CONFIG, encode=Encoding(quality=30))
    assert units_run(copied, lambda: curate([episodes], copied, other)) == {"encode": 2}
    assert len(list((copied / "clips").rglob("*.mp4"))) == 6  # the old files are gone


def test_a_changed_observer_is_scanned_alone(copied: Path, episodes: Path, monkeypatch: pytest.MonkeyPatch):
    from anisora.curation.observers.sharpness import Sharpness

    class Other(Sharpness):
        version = Sharpness.version + 1

    plan = make_plan(CONFIG)
    changed = tuple(replace(w, key="changed") if w.name == "sharpness" else w for w in plan.watches)
    cheap = tuple(replace(use, key="changed") if use.name == "quality" else use for use in plan.cheap)
    monkeypatch.setattr(pipeline, "make_plan", lambda config: replace(plan, watches=changed, cheap=cheap))
    scans = len(list((copied / "signals").rglob("*.npz")))
    done = units_run(copied, lambda: curate([episodes], copied, CONFIG))
    assert done == {"scan": 2, "measure": 2}
    new = sorted((copied / "signals").rglob("*.npz"), key=lambda path: path.stat().st_mtime_ns)[scans:]
    assert len(new) == 2
    for path in new:
        names = {key.partition("/")[0] for key in np.load(path).files} - {"head", "pts_T", "damage"}
        assert names == {"sharpness"}
    cells = pq.ParquetDataset(copied / "results/cells").read().to_pylist()
    assert {cell["name"] for cell in cells if cell["key"] == "changed"} == {"signal:sharpness", "quality"}


def test_other_thresholds_decode_nothing(copied: Path, episodes: Path, monkeypatch: pytest.MonkeyPatch):
    import av

    monkeypatch.setattr(av, "open", lambda *a, **k: pytest.fail("a video was opened"))
    result = reselect(copied, between={"duration_s": (2.6, None)})
    assert (result.kept, dict(result.funnel)["duration_s_low"]) == (0, 6)
    assert "duration_s 2.5 (rule: at least 2.6)" in str(result.nearest_miss)
    assert result.shards == {"behind": 6}
    packed = reselect(copied, between={"duration_s": (2.6, None)}, pack=True)
    assert packed.shards["clips"] == read_index(copied).num_rows == 0
    again = reselect(copied, between={"duration_s": (1.5, 8.0)}, pack=True)
    assert (again.kept, again.shards["clips"], len({*read_index(copied)["clip_id"].to_pylist()})) == (6, 6, 6)
    assert reselect(copied).shards == {"behind": 0}


def test_the_review_page_is_written_again_and_goes_on_from_labels(copied, tmp_path):
    kept = [row["clip_id"] for row in rows(copied) if row["path"]]
    page, shown = rewrite_review(copied, heads=["talking"])
    assert (page, shown) == (copied / "review.html", len(kept))
    (tmp_path / "labels.csv").write_text(f"clip_id,head,label\n{kept[0]},talking,yes\n")
    page, shown = rewrite_review(copied, labels=tmp_path / "labels.csv", heads=["talking"], limit=len(kept) - 1)
    html = page.read_text()
    assert shown == len(kept) - 1
    assert html.count("<article") == len(kept) - 1
    assert f'data-clip="{kept[0]}"' not in html
    assert kept[0] in html  # its label is exported again
    with pytest.raises(BadInput, match="no finished curation"):
        rewrite_review(tmp_path / "nowhere")


def test_sources_can_be_added_later(episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]):
    curate([episodes / "a.mp4"], tmp_path / "out", CONFIG)
    assert curate([episodes / "b.mp4"], tmp_path / "out", CONFIG).manifest_hash == finished[1].manifest_hash


def test_the_same_file_twice_is_one_source(episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]):
    shutil.copytree(episodes, tmp_path / "x/one")
    shutil.copytree(episodes, tmp_path / "x/two")
    (tmp_path / "x/two/again").symlink_to(tmp_path / "x")
    assert curate([tmp_path / "x"], tmp_path / "out", CONFIG).manifest_hash == finished[1].manifest_hash


def test_a_replaced_source_replaces_its_clips(episodes: Path, tmp_path: Path):
    shutil.copytree(episodes, tmp_path / "in")
    first = curate([tmp_path / "in"], tmp_path / "out", CONFIG)
    write_episode(tmp_path / "in/b.mp4", [7, 8])
    second = curate([tmp_path / "in"], tmp_path / "out", CONFIG)
    assert (first.clips, second.clips) == (6, 5)
    assert len(list((tmp_path / "out/clips").rglob("*.mp4"))) == 5


def test_two_runs_on_one_folder(copied: Path, episodes: Path):
    from anisora.curation.ledger import locked

    code = f"import time; from pathlib import Path; from anisora.curation.ledger import locked\n" \
           f"with locked(Path({str(copied)!r})):\n    print('held', flush=True); time.sleep(60)"  # fmt: skip
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=PATHS)
    assert holder.stdout
    holder.stdout.readline()
    with pytest.raises(Failed, match="another run"):
        curate([episodes], copied, CONFIG)
    holder.kill()
    holder.wait()
    with locked(copied) as dead:
        assert dead
    curate([episodes], copied, CONFIG)


# ------------------------------------------------------------------------------------------------------------ bad input


def broken_sources(folder: Path, good: Path) -> dict[str, str | None]:
    """name -> the fault that its row must have, None where clips must come out of it."""
    data = good.read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "random.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    (folder / "text.mp4").write_text("not a video")
    (folder / "no index.mp4").write_bytes(data[: data.index(b"moov") + 200])
    import av

    with av.open(str(folder / "audio only.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_video(folder / "one frame.mp4", take(1, 1), FPS)
    flipped = bytearray(data)
    start = data.index(b"mdat") + 3000
    for place in np.random.default_rng(1).integers(start, len(data) - 2000, 40):
        flipped[place] ^= 0xFF
    (folder / "bit flips.mp4").write_bytes(flipped)
    (folder / "truncated.mp4").write_bytes(data[: int(len(data) * 0.8)])  # the index lies in front
    write_video(folder / "odd size.mp4", take(11, 30)[:, :95, :159], FPS)
    shutil.copy(good, folder / "unicode ✓ 名前.mp4")
    os.mkfifo(folder / "pipe.mp4")
    return {
        "empty.mp4": "bad_video", "random.mp4": "bad_video", "text.mp4": "bad_video", "no index.mp4": "bad_video",
        "audio only.mp4": "bad_video", "pipe.mp4": "not_a_file", "one frame.mp4": None, "bit flips.mp4": None,
        "truncated.mp4": None, "odd size.mp4": None, "unicode ✓ 名前.mp4": None,
    }  # fmt: skip


def test_each_bad_video_fails_alone_with_a_reason(episodes: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    expected = broken_sources(tmp_path / "in", episodes / "a.mp4")
    config = replace(CONFIG, select=replace(RULES, repeats=False))  # most of them are copies of one video
    result = curate([tmp_path / "in", tmp_path / "in/pipe.mp4"], tmp_path / "out", config)
    found: dict[str, set[str | None]] = {}
    for row in rows(tmp_path / "out"):
        found.setdefault(Path(row["source_path"]).name, set()).add(row["fault"])
        assert (row["verdict"] == "drop") == (row["reason"] is not None)
    for name, fault in expected.items():
        assert (fault in found[name]) if fault else found[name] == {None}, f"{name}: {found[name]}"
    whole = [r for r in rows(tmp_path / "out") if "unicode" in r["source_path"]]
    assert [r["verdict"] for r in whole] == ["keep"] * 3
    assert result.faults == {"bad_video": 5, "not_a_file": 1}


def test_names_that_do_not_exist_are_one_clear_error(tmp_path: Path):
    with pytest.raises(BadInput, match="no such file or folder"):
        curate([tmp_path / "nowhere"], tmp_path / "out", CONFIG)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match="no videos"):
        curate([tmp_path], tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------- faults on the way


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Raising", "observer_failed"),
        ("Crashing", "crashed"),
        pytest.param("Hanging", "timed_out", marks=pytest.mark.slow),
        pytest.param("Growing", "memory", marks=pytest.mark.slow),
    ],
)
def test_a_bad_observer_loses_its_own_column(
    kind: str,
    reason: str,
    episodes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: tuple[Path, Curated],
):
    plan = make_plan(CONFIG)
    bad = replace(plan, watches=(*plan.watches, watch(getattr(units, kind))))
    monkeypatch.setattr(pipeline, "make_plan", lambda config: bad)
    monkeypatch.setattr(pipeline, "BASE_S", 40.0 if kind == "Hanging" else 120.0)
    config = replace(CONFIG, memory_gib=0.6, deadline_factor=0.1)
    result = curate([episodes / "a.mp4"], tmp_path / "out", config, workers=1)
    assert result.kept == 3
    cells = pq.ParquetDataset(tmp_path / "out/results/cells").read().to_pylist()
    signals = {cell["name"]: cell["reason"] for cell in cells if cell["name"].startswith("signal:")}
    assert signals.pop("signal:bad") == reason
    assert set(signals.values()) == {None}
    assert retry(tmp_path / "out") == 1


def test_a_measure_that_crashes_on_one_clip_costs_that_clip(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = make_plan(CONFIG)
    bad = measuring("text_cover", units.crash_on_first_frame, 1)
    monkeypatch.setattr(pipeline, "make_plan", lambda config: replace(plan, heavy=(bad,)))
    rules = Rules(between={"text_cover": (None, 0.1)}, without={})
    result = curate([episodes / "a.mp4"], tmp_path / "out", replace(CONFIG, select=rules), workers=1)
    assert result.kept == 2
    by_start = {row["start_frame"]: row for row in rows(tmp_path / "out")}
    assert by_start[0]["text_cover_reason"] == "crashed"
    assert by_start[0]["reason"] == "no_text_cover"
    assert by_start[30]["text_cover"] == 0.0


def test_when_the_best_copy_falls_the_next_one_is_looked_at_in_the_same_run(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "in").mkdir()
    shutil.copy(episodes / "a.mp4", tmp_path / "in")
    write_video(tmp_path / "in/copy.mp4", read_video(episodes / "a.mp4").frames_THWC, FPS, quality=30)
    plan = make_plan(CONFIG)
    text = measuring("text_cover", units.text_in_a, 1)
    monkeypatch.setattr(pipeline, "make_plan", lambda config: replace(plan, heavy=(text,)))
    rules = Rules(between={"duration_s": (1.5, 8.0), "text_cover": (None, 0.1)}, without={})
    config = replace(CONFIG, select=rules, crop=CropSettings(enabled=False))
    first = curate([tmp_path / "in"], tmp_path / "out", config)
    kept = {Path(row["source_path"]).name for row in rows(tmp_path / "out") if row["verdict"] == "keep"}
    assert (first.kept, kept) == (3, {"copy.mp4"})
    assert units_run(tmp_path / "out", lambda: curate([tmp_path / "in"], tmp_path / "out", config)) == {}


@pytest.mark.parametrize("most_text", [0.1, 0.6])
def test_a_sign_of_the_source_is_cropped_off(most_text: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether its text would drop the clip, or is little enough to be kept."""
    size = 160, 96
    pictures = [render_clip(4000 + k, 0, split="seen", n_frames=1, size_px=size).video_THWC[0] for k in range(8)]
    frames = np.stack([np.roll(picture, 2 * t, axis=1) for picture in pictures for t in range(20)])
    y, x = np.mgrid[:96, :160]
    ring = np.abs(np.hypot(x - 148, y - 11) - 6) < 1.6  # no letters: only the other shots tell that it was laid over
    frames[:, ring] = 240
    write_video(tmp_path / "signed.mp4", frames, FPS, quality=18)
    plan = make_plan(CONFIG)
    text = measuring("text_cover", units.text_unless_cropped, 1, follows_crop=True)
    monkeypatch.setattr(pipeline, "make_plan", lambda config: replace(plan, heavy=(text,)))
    rules = Rules(between={"duration_s": (1.5, 8.0), "text_cover": (None, most_text)}, without={})
    result = curate([tmp_path / "signed.mp4"], tmp_path / "out", replace(CONFIG, select=rules), workers=1)
    assert (result.clips, result.kept) == (8, 8)
    for row in rows(tmp_path / "out"):
        right, top = row["crop_x_px"] + row["crop_w_px"], row["crop_y_px"]
        assert right <= 141 or top >= 18
        assert row["crop_w_px"] * row["crop_h_px"] >= 0.6 * frames[0, :, :, 0].size


def test_a_full_disk_stops_the_run_and_the_next_one_finishes(
    episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]
):
    (tmp_path / "config.yaml").write_text(YAML)
    words = command(tmp_path / "out", episodes, tmp_path / "config.yaml")
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", *words]
    full = subprocess.run(limited, capture_output=True, text=True, env=PATHS)
    assert full.returncode == 1, full.stderr
    assert "could not be written" in full.stderr or "disk is full" in full.stderr
    assert "Traceback" not in full.stderr
    assert not [p for p in (tmp_path / "out").rglob(".*.npz")]
    again = subprocess.run(words, capture_output=True, text=True, env=PATHS, check=True)
    assert json.loads(again.stdout)["manifest_hash"] == finished[1].manifest_hash


def killed_and_finished(kills: int, episodes: Path, tmp_path: Path, seed: int, longest_s: float) -> str:
    """The manifest hash after so many SIGKILLs at random moments, then an undisturbed run."""
    (tmp_path / "config.yaml").write_text(YAML)
    out = tmp_path / "out"
    words = command(out, episodes, tmp_path / "config.yaml")
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=PATHS)
        time.sleep(float(rng.uniform(0.3, longest_s)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(words, capture_output=True, text=True, env=PATHS)
    assert done.returncode == 0, done.stderr
    check_whole(out)
    return json.loads(done.stdout)["manifest_hash"]


def test_killed_twice_then_finished(episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]):
    assert killed_and_finished(2, episodes, tmp_path, seed=3, longest_s=5.0) == finished[1].manifest_hash


@pytest.mark.slow
def test_killed_fifty_times_then_finished(episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]):
    for round_ in range(5):
        folder = tmp_path / str(round_)
        folder.mkdir()
        found = killed_and_finished(10, episodes, folder, seed=round_, longest_s=6.0)
        assert found == finished[1].manifest_hash


# --------------------------------------------------------------------------------------------------------- afterwards


def test_verify_finds_damage_and_repair_mends_it(copied: Path, episodes: Path, finished: tuple[Path, Curated]):
    assert verify(copied).is_whole
    victim = next((copied / "clips").rglob("*.mp4"))
    victim.write_bytes(victim.read_bytes()[:-10])
    shard = next((copied / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-2000])
    found = verify(copied, repair=True)
    assert (list(found.bad_clips.values()), list(found.bad_shards)) == (["other size"], [shard.name])
    done = units_run(copied, lambda: curate([episodes], copied, CONFIG))
    assert done == {"encode": 1}
    assert verify(copied).is_whole
    assert json.loads((copied / "run.json").read_text())["result"]["manifest_hash"] == finished[1].manifest_hash


def test_a_lost_ledger_loses_nothing(copied: Path, episodes: Path, finished: tuple[Path, Curated]):
    for path in copied.glob("ledger.sqlite*"):
        path.unlink()
    result = curate([episodes], copied, CONFIG)
    assert result.manifest_hash == finished[1].manifest_hash
    assert set(attempts(copied)) == {"hash"}


def test_purging_a_source_leaves_no_trace_and_keeps_it_out(copied: Path, episodes: Path):
    taken = {row["source_sha256"] for row in rows(copied) if row["source_path"].endswith("a.mp4")}
    assert purge(copied, sources=["*/a.mp4"])["clips"] == 3
    result = curate([episodes], copied, CONFIG)
    assert (result.sources, result.clips) == (1, 3)
    for path in copied.rglob("*.parquet"):
        text = str(pq.read_table(path).to_pylist())
        assert not [sha for sha in taken if sha in text], path
    with pytest.raises(BadInput, match="no source fits"):
        purge(copied, sources=["*/a.mp4"])


def test_licences_travel_with_sources_and_can_be_purged(episodes: Path, tmp_path: Path):
    (tmp_path / "licences.csv").write_text(
        f"path,licence,provenance,split\n{episodes}/a.mp4,CC-BY-4.0,ours,validation\n{episodes}/*.mp4,,archive,\n"
    )
    config = replace(CONFIG, licence="unknown", licences=str(tmp_path / "licences.csv"))
    curate([episodes], tmp_path / "out", config)
    found = {(Path(r["source_path"]).name, r["licence"], r["provenance"], r["split"]) for r in rows(tmp_path / "out")}
    assert found == {("a.mp4", "CC-BY-4.0", "archive", "validation"), ("b.mp4", "unknown", "archive", "train")}
    assert purge(tmp_path / "out", licences=["CC-*"])["sources"] == 1


# --------------------------------------------------------------------------------------------------------------- ray


HUNT = """
import json, sys, threading, time, psutil
from pathlib import Path
from anisora.curation.config import CurateConfig
from anisora.curation.pipeline import curate
from anisora.settings import load, read
out, source, config, address = sys.argv[1:]
killed = []
def kill():
    while not killed:
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [""])[0] == "ray::_Actor.run":
                process.kill()
                killed.append(process.pid)
                return
def hunt(phase, done, total):
    if phase == "scan" and total and not killed:
        threading.Thread(target=kill, daemon=True).start()
config = read(CurateConfig, load(Path(config)), where="config")
result = curate([source], out, config, engine="ray", workers=2, address=address, progress=hunt)
print(json.dumps([result.manifest_hash, len(killed)]))
"""


@pytest.fixture
def ray_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores and two nodes of one core each: `cluster.address`, `cluster.remove_node`."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # Ray guards what it starts by a token once any process of this user has; drivers then need to be told.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
    room = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **room})
    cluster.nodes_with_cores = [cluster.add_node(num_cpus=1, **room) for _ in range(2)]
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_two_ray_nodes_make_the_set_of_one_machine(
    ray_nodes: Any, episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]
):
    """The real pipeline on two nodes; a worker process is killed in the middle of the scan."""
    (tmp_path / "config.yaml").write_text(YAML)
    out = tmp_path / "out"
    words = [sys.executable, "-c", HUNT, str(out), str(episodes), str(tmp_path / "config.yaml"), ray_nodes.address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [finished[1].manifest_hash, 1]
    with Ledger(out / "ledger.sqlite") as ledger:
        assert {row["stage"]: row["retries"] for row in ledger.costs()}["scan"] == 1
    check_whole(out)


@pytest.mark.slow
def test_a_ray_node_that_is_lost_costs_nothing(
    ray_nodes: Any, episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]
):
    """One of the two nodes goes in the middle of the scan, and with it half of the workers: the other one goes on."""
    (tmp_path / "config.yaml").write_text(YAML)
    out = tmp_path / "out"
    words = [*command(out, episodes, tmp_path / "config.yaml"), "--engine", "ray", "--address", ray_nodes.address]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while run.poll() is None and not [p for p in (out / ".workers").glob("ray-*") if b"decode" in p.read_bytes()]:
        time.sleep(0.02)
    ray_nodes.remove_node(ray_nodes.nodes_with_cores[0], allow_graceful=False)
    told, errors = run.communicate(timeout=500)
    assert run.returncode == 0, errors
    assert json.loads(told)["manifest_hash"] == finished[1].manifest_hash
    with Ledger(out / "ledger.sqlite") as ledger:
        assert not ledger.problems()
    check_whole(out)
