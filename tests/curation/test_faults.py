"""What can go wrong with a curation, and the test of each; those named without a module are below.

corrupt, truncated, empty: test_pipeline.test_each_bad_video_fails_alone_with_a_reason,
    test_scan.test_a_truncated_file_gives_its_good_frames_and_says_so, test_scan.test_flipped_bits_never_stop_a_scan,
    test_a_clip_with_damaged_frames_is_dropped_and_the_source_says_so
audio only, one frame: test_pipeline.test_each_bad_video_fails_alone_with_a_reason
VFR, rotation, odd size, 10 bit, interlaced: test_odd_sources_become_clips_of_exactly_their_frames,
    test_scan.test_odd_files_have_all_signals, test_scan.test_turned_pictures_are_shown_upright; test_materialise
exception in one scorer: test_pipeline.test_a_bad_observer_loses_its_own_column[Raising],
    test_scan.test_an_observer_that_raises_loses_its_own_column_only
native crash, OOM: test_pipeline.test_a_bad_observer_loses_its_own_column[Crashing], [Growing],
    test_pipeline.test_a_measure_that_crashes_on_one_clip_costs_that_clip; test_executors on both engines
hang: test_executors.test_a_hang_is_stopped_at_its_deadline on both engines,
    test_pipeline.test_a_bad_observer_loses_its_own_column[Hanging]; a fifo is among the bad videos
run killed: test_pipeline.test_killed_twice_then_finished, test_pipeline.test_killed_fifty_times_then_finished,
    test_executors.test_no_worker_outlives_a_killed_driver; benchmarks/kills.py: every stage, on real clips
a machine of the cluster lost: test_pipeline.test_two_ray_nodes_make_the_set_of_one_machine,
    test_pipeline.test_a_ray_node_that_is_lost_costs_nothing
disk full: test_a_file_system_that_runs_full_and_is_made_larger,
    test_pipeline.test_a_full_disk_stops_the_run_and_the_next_one_finishes; test_executors on both engines
torn shard or file: test_table.test_damage_is_found, test_scan.test_a_torn_or_foreign_scan_is_refused,
    test_pipeline.test_verify_finds_damage_and_repair_mends_it, test_pipeline.test_a_lost_ledger_loses_nothing
settings, code or weights changed: test_pipeline.test_another_encoding_makes_files_again_and_nothing_else,
    test_pipeline.test_a_changed_observer_is_scanned_alone, test_other_weights_make_their_own_column_again_and_no_other
source replaced: test_pipeline.test_a_replaced_source_replaces_its_clips, test_ledger.test_a_replaced_file_is_noticed,
    test_ledger.test_a_file_that_changes_while_it_is_hashed
mis-joined results: test_captions.test_shuffled_answers_find_their_clips,
    test_captions.test_an_answer_about_another_clip_is_never_kept,
    test_results_that_arrive_in_any_order_make_the_same_table
two runs on one output: test_pipeline.test_two_runs_on_one_folder, test_ledger.test_a_living_run_keeps_others_out
path and name trouble: test_same_names_and_loops_of_links,
    test_pipeline.test_the_hash_does_not_depend_on_workers_or_names
empty result: test_nothing_kept_is_said_with_the_nearest_miss, test_table.test_nothing_kept_names_the_nearest_miss
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anisora.curation import pipeline
from anisora.curation.assemble import assemble
from anisora.curation.cells import CellStore
from anisora.curation.config import CurateConfig
from anisora.curation.parts import make_plan
from anisora.curation.pipeline import Curated, curate
from anisora.curation.plan import measuring
from anisora.curation.repeats import MARKS
from anisora.curation.select import Rules
from anisora.curation.table import manifest_hash
from anisora.media.reader import read_video

from . import units
from .runs import CONFIG, PATHS, RULES, YAML, command, rows, units_run
from .videos import take

# ---------------------------------------------------------------------------------------------------------- odd sources


def odd_sources(folder: Path, encode: Callable[..., Path]) -> None:
    """Two shots each, of frames that h264 keeps well, in every odd way that a file may have."""
    frames = np.concatenate([take(1), take(2)])
    times = np.cumsum(np.random.default_rng(5).integers(1000, 2001, len(frames))).tolist()
    encode(folder / "vfr.mp4", frames, pts=times, time_base=Fraction(1, 24000))
    encode(folder / "film.mp4", frames, pts=[1001 * n for n in range(60)], time_base=Fraction(1, 24000))
    encode(folder / "turned.mp4", frames, rotation=(90, False, False))
    encode(folder / "odd.mkv", frames[:, :95, :159], pixel_format="yuv444p")
    encode(folder / "deep.mp4", frames, "libx265", "yuv420p10le", options={"x265-params": "log-level=none"})
    encode(folder / "interlaced.mp4", frames, options={"x264-params": "interlaced=1"})


def test_odd_sources_become_clips_of_exactly_their_frames(tmp_path: Path, encode: Callable[..., Path]):
    (tmp_path / "in").mkdir()
    odd_sources(tmp_path / "in", encode)
    rules = Rules(between={"duration_s": (0.5, 8.0)}, without={}, repeats=False, opening_ending=False)
    result = curate([tmp_path / "in"], tmp_path / "out", replace(CONFIG, select=rules), workers=2)
    assert (result.sources, result.kept, result.faults) == (6, 12, {})
    for row in rows(tmp_path / "out"):
        source = read_video(row["source_path"])
        clip = read_video(tmp_path / "out" / row["path"])
        span = slice(row["start_frame"], row["end_frame"])
        name = Path(row["source_path"]).name
        assert len(clip.frames_THWC) == row["n_frames"] == 30, name
        base = Fraction(row["time_base_num"], row["time_base_den"])
        steps = [time - source.times_s[span][0] for time in source.times_s[span]]
        slack = Fraction(1, 1000) if name.endswith(".mkv") else 0
        off = [abs(a - clip.times_s[0] - b) for a, b in zip(clip.times_s, steps, strict=True)]
        assert max(off) <= slack, name
        assert (row["end_pts"] - row["start_pts"]) * base > steps[-1]
        assert np.abs(clip.frames_THWC.astype(int) - source.frames_THWC[span]).mean() < 4, name


def test_a_clip_with_damaged_frames_is_dropped_and_the_source_says_so(tmp_path: Path, encode: Callable[..., Path]):
    """Bytes of one picture are overwritten: the pictures that lean on it go with it, the shots around stay."""
    import av

    (tmp_path / "in").mkdir()
    frames = np.concatenate([take(seed) for seed in (1, 2, 3)])
    path = encode(
        tmp_path / "in/a.mp4", frames, options={"g": "30", "keyint_min": "30", "sc_threshold": "0", "bf": "0"}
    )
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[35:38]:
        start = packet.pos + packet.size // 4
        data[start : packet.pos + packet.size] = np.random.default_rng(0).bytes(packet.pos + packet.size - start)
    path.write_bytes(data)
    result = curate([tmp_path / "in"], tmp_path / "out", replace(CONFIG, select=replace(RULES, between={})), workers=1)
    by_start = {row["start_frame"]: row for row in rows(tmp_path / "out")}
    whole = [by_start[0], max(by_start.values(), key=lambda row: row["start_frame"])]
    assert [row["verdict"] for row in whole] == ["keep", "keep"]
    assert whole[1]["start_frame"] == 60
    hurt = [row for row in by_start.values() if row not in whole]
    assert hurt
    assert {row["reason"] for row in hurt} == {"damaged"}
    assert dict(result.funnel)["damaged"] == len(hurt)
    source = pq.read_table(tmp_path / "out/sources.parquet").to_pylist()[0]
    assert source["read_errors"] >= 1
    assert 85 <= source["num_frames"] <= 90
    kept_all = replace(CONFIG, select=Rules(between={}, without={}, damaged=False))
    assert curate([tmp_path / "in"], tmp_path / "out", kept_all, workers=1).kept == len(by_start)


def test_same_names_and_loops_of_links(episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]):
    """One name in two folders is two sources; a folder that links to itself is walked once."""
    for folder, name in (("one", "a.mp4"), ("two", "b.mp4")):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(episodes / name, tmp_path / "in" / folder / "episode 01.mp4")
    (tmp_path / "in/one/again").symlink_to(tmp_path / "in")
    (tmp_path / "in/nowhere.mp4").symlink_to(tmp_path / "gone.mp4")
    result = curate([tmp_path / "in"], tmp_path / "out", CONFIG)
    kept = [row for row in rows(tmp_path / "out") if row["verdict"] == "keep"]
    assert result.kept == 6
    assert {Path(row["source_path"]).relative_to(tmp_path / "in").as_posix() for row in kept} == {
        "one/episode 01.mp4", "two/episode 01.mp4",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- results


def test_other_weights_make_their_own_column_again_and_no_other(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = make_plan(CONFIG)
    rules = Rules(between={"text_cover": (None, 0.1)}, without={})

    def run(weights: str) -> Curated:
        heavy = tuple(
            measuring(name, function, 1, weights_sha256=sha)
            for name, function, sha in (
                ("text_cover", units.text_in_a, weights), ("aesthetic", units.all_alike, "as they were"),
            )
        )  # fmt: skip
        monkeypatch.setattr(pipeline, "make_plan", lambda config: replace(plan, heavy=heavy))
        return curate([episodes / "b.mp4"], tmp_path / "out", replace(CONFIG, select=rules), workers=1)

    assert run("first").kept == 3
    before = {(c["name"], c["key"]) for c in CellStore(tmp_path / "out").read("cells").to_pylist()}
    assert units_run(tmp_path / "out", lambda: run("second")) == {"text_cover": 1}
    after = {(c["name"], c["key"]) for c in CellStore(tmp_path / "out").read("cells").to_pylist()}
    assert before < after
    assert {name for name, _ in after - before} == {"text_cover"}


def test_results_that_arrive_in_any_order_make_the_same_table(finished: tuple[Path, Curated]):
    """Every cell names its clip: rows, files and units in another order are the same set."""
    out, result = finished
    plan = make_plan(CONFIG)
    store = CellStore(out)
    sources = pq.read_table(out / "sources.parquet")

    def hash_of(seed: int) -> str:
        shuffled = [table.take(random.Random(seed).sample(range(table.num_rows), table.num_rows))
                    for table in (store.read("spans"), store.read("cells"))]  # fmt: skip
        table = assemble(
            sources, *shuffled, spans_key=plan.spans_key, measures=plan.measures, kinds=plan.kinds, crop=plan.crop,
            cropped=set(), file=plan.file, caption=plan.caption, marks=MARKS.empty_table(),
        )  # fmt: skip
        verdicts = pa.array(["keep"] * table.num_rows)
        return manifest_hash(table.set_column(table.column_names.index("verdict"), "verdict", verdicts))

    assert {hash_of(seed) for seed in range(5)} == {result.manifest_hash}


def test_nothing_kept_is_said_with_the_nearest_miss(episodes: Path, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(YAML.replace("[1.5, 8]", "[2.6, 8]"))
    done = subprocess.run(
        command(tmp_path / "out", episodes / "a.mp4", tmp_path / "config.yaml"),
        capture_output=True,
        text=True,
        env=PATHS,
    )
    assert done.returncode == 1
    assert "no clip was kept" in done.stderr
    assert "duration_s 2.5 (rule: at least 2.6" in done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert (told["kept"], dict(told["funnel"])["duration_s_low"]) == (0, 3)
    assert (tmp_path / "out/report.html").exists()
    words = [*done.args[:4], "select", str(tmp_path / "out"), "--keep", "duration_s=2.55:"]
    again = subprocess.run(words, capture_output=True, text=True, env=PATHS)
    assert again.returncode == 1
    assert "duration_s 2.5 (rule: at least 2.55)" in again.stderr


def test_without_the_text_measure_its_default_bound_drops_nothing():
    assert "text_cover" not in CurateConfig(text="none").select.between
    assert "text_cover" in CurateConfig().select.between
    asked = Rules(between={"text_cover": (None, 0.1)})
    assert CurateConfig(text="none", select=asked).select.between == {"text_cover": (None, 0.1)}


# ------------------------------------------------------------------------------------------------------------- no room

#: a file system of its own for the output: too small for the run, then larger
FILLED = """
mount -t tmpfs -o size=150k tmpfs "$1" || exit 77
shift
"$@" >/dev/null && exit 78
df --output=avail "$OUT" | tail -1 >&2
mount -o remount,size=64m "$OUT" && exec "$@"
"""


def test_a_file_system_that_runs_full_and_is_made_larger(
    episodes: Path, tmp_path: Path, finished: tuple[Path, Curated]
):
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    (tmp_path / "config.yaml").write_text(YAML)
    (tmp_path / "out").mkdir()
    words = command(tmp_path / "out", episodes, tmp_path / "config.yaml")
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", FILLED, "bash", str(tmp_path / "out"), *words],
        capture_output=True, text=True, env={**PATHS, "OUT": str(tmp_path / "out")},
    )  # fmt: skip
    if done.returncode in (1, 77) and not done.stdout and "tmpfs" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["manifest_hash"] == finished[1].manifest_hash
