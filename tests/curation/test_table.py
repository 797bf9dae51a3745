"""The table: its schema, its hash, selection, mixtures and shards."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anisora.curation import table as clips
from anisora.curation.mixture import PRESETS, Stage, largest_remainder, mix
from anisora.curation.select import Rules, select
from anisora.curation.shards import (
    ShardSettings,
    bucket_of,
    damaged_shards,
    read_index,
    read_member,
    write_parallel,
    write_shards,
)
from anisora.errors import BadConfig, BadInput, Failed
from anisora.measures.camera import KINDS

from .runs import PATHS

RULES = Rules(
    between={"duration_s": (2.0, 8.0), "flow": (0.5, None), "text_cover": (None, 0.02)}, without={"camera": ("still",)}
)


def row(number: int, **fields: Any) -> dict[str, Any]:
    """A clip that every rule keeps, with some of its fields changed; None takes a score away (`gone`)."""
    plain = {
        "clip_id": f"{number:08d}-0000-0000-0000-000000000000", "source_id": f"s{number % 3}",
        "source_path": "episode.mp4", "source_sha256": f"{number % 3}" * 64, "start_pts": number * 1000,
        "end_pts": number * 1000 + 3000, "time_base_num": 1, "time_base_den": 1000, "start_frame": number * 24,
        "end_frame": number * 24 + 72, "n_frames": 72, "fps_num": 24, "fps_den": 1, "width_px": 1280, "height_px": 720,
        "crop_x_px": 0, "crop_y_px": 0, "crop_w_px": 1280, "crop_h_px": 720, "tags": [],
        "text_cover": 0.0, "flow": 1.0, "quality": 0.5, "aesthetic": 5.0, "duration_s": 3.0, "camera": "static",
    }  # fmt: skip
    plain |= fields
    for name in clips.MEASURES:
        if name in fields and fields[name] is None:
            plain[f"{name}_reason"] = "gone"
    return plain


def decided(rows: list[dict[str, Any]], rules: Rules = RULES) -> dict[int, str | None]:
    table = select(clips.build(rows), rules).table
    return {int(i[:8]): r for i, r in zip(table["clip_id"].to_pylist(), table["reason"].to_pylist(), strict=True)}


# --------------------------------------------------------------------------------------------------------------- table


def test_the_schema_is_the_one_of_the_files_page():
    page = (Path(__file__).parents[2] / "docs/files.md").read_text().split("## Curation\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| (.+?) \|", page, re.MULTILINE))
    names = {name for cell in listed for name in re.findall(r"`(\w+)`", cell)}
    assert names >= set(clips.BASE) | set(clips.MEASURES) | set(clips.EXTRA)


def test_a_measure_is_null_exactly_when_it_has_a_reason():
    table = clips.build([row(0, flow=None), row(1)])
    assert table["flow"].to_pylist() == [None, 1.0]
    assert table["flow_reason"].to_pylist() == ["gone", None]
    assert table["talking_reason"].to_pylist() == [clips.NOT_MEASURED] * 2
    broken = table.set_column(table.column_names.index("flow_reason"), "flow_reason", pa.array(["x", "x"]))
    with pytest.raises(BadInput, match="disorder"):
        clips.check(broken)


def test_a_clip_is_listed_once_and_columns_are_known():
    with pytest.raises(BadInput, match="twice"):
        clips.build([row(0), row(0)])
    with pytest.raises(BadInput, match="unknown columns"):
        clips.build([row(0, colour="red")])


def slow_hash(table: pa.Table) -> str:
    """The definition, row by row."""
    digest = hashlib.sha256()
    span = ["start_pts", "end_pts", "time_base_num", "time_base_den", "start_frame", "end_frame"]
    crop = ["crop_x_px", "crop_y_px", "crop_w_px", "crop_h_px"]
    for entry in sorted(table.to_pylist(), key=lambda r: r["clip_id"]):
        parts = [entry["clip_id"], *(entry[n] for n in span + crop), entry["verdict"], entry["reason"]]
        for name in sorted(clips.measures_of(table)):
            value = entry[name]
            parts += [f"{name}=", struct.pack(">f", value).hex() if isinstance(value, float) else value]
        digest.update("".join(f"{'-' if part is None else part}|" for part in parts).encode())
    return digest.hexdigest()


def test_the_manifest_hash_is_its_definition_and_knows_no_order():
    table = select(clips.build([row(n, flow=n / 3, camera=None if n % 2 else "pan") for n in range(20)]), RULES).table
    assert clips.manifest_hash(table) == slow_hash(table)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(20)))
    assert clips.manifest_hash(shuffled) == clips.manifest_hash(table)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("flow", True),
        ("crop_x_px", True),
        ("end_pts", True),
        ("path", False),
        ("source_path", False),
        ("caption", False),
    ],
)
def test_the_manifest_hash_covers_what_was_chosen_and_nothing_else(name: str, changes: bool):
    value = {"flow": 2.0, "crop_x_px": 2, "end_pts": 7}.get(name, "elsewhere")
    hashes = {clips.manifest_hash(select(clips.build([row(0, **f)]), RULES).table) for f in ({}, {name: value})}
    assert len(hashes) == (2 if changes else 1)


# -------------------------------------------------------------------------------------------------------------- select


def test_the_first_broken_rule_is_the_reason():
    rows = [
        row(0), row(1, duration_s=1.0), row(2, duration_s=9.0, flow=0.1), row(3, flow=0.1), row(4, text_cover=0.5),
        row(5, flow=None), row(6, camera="still"), row(7, fault="crashed"),
    ]  # fmt: skip
    assert decided(rows) == {
        0: None, 1: "duration_s_low", 2: "duration_s_high", 3: "flow_low", 4: "text_cover_high", 5: "no_flow",
        6: "camera=still", 7: "crashed",
    }  # fmt: skip


def test_by_default_stills_and_slideshows_go_and_panned_stills_stay():
    rows = [row(n, tags=[("camera.kind", kind)]) for n, kind in enumerate(KINDS)]
    gone = {kind: f"camera.kind={kind}" for kind in ("still", "slideshow")}
    assert decided(rows, Rules()) == {n: gone.get(kind) for n, kind in enumerate(KINDS)}


def test_bounds_are_inclusive_in_the_precision_of_the_table():
    assert decided([row(0, text_cover=0.02), row(1, duration_s=2.0), row(2, duration_s=8.0)]) == {
        0: None,
        1: None,
        2: None,
    }


def test_tags_are_words_too():
    rules = Rules(between={}, without={"caption_kind": ("measured",)})
    assert decided([row(0, tags=[("caption_kind", "measured")]), row(1, tags=[("caption_kind", "seen")])], rules) == {
        0: "caption_kind=measured",
        1: None,
    }


def test_of_repeats_the_best_is_kept_whatever_the_order():
    rows = [
        row(0, repeat_group="a", crop_w_px=640), row(1, repeat_group="a", quality=0.4),
        row(2, repeat_group="a", quality=0.9), row(3, repeat_group="b"), row(4),
        row(5, repeat_group="a", quality=1.0, flow=0.0), row(6, repeat_kind="opening_ending"), row(7, repeat_kind="leak"),
    ]  # fmt: skip
    expected = {
        0: "repeat", 1: "repeat", 2: None, 3: None, 4: None, 5: "flow_low", 6: "opening_ending", 7: "benchmark_leak",
    }  # fmt: skip
    assert decided(rows) == decided(rows[::-1]) == expected


def test_the_funnel_adds_up():
    selection = select(clips.build([row(n, flow=n / 10, duration_s=n / 2) for n in range(30)]), RULES)
    assert sum(count for _, count in selection.funnel) + selection.num_kept == 30


def test_what_is_not_measured_waits_while_a_run_is_under_way():
    waiting = {k: v for k, v in row(0).items() if k != "text_cover"}
    table = clips.build([waiting, row(1)])
    assert select(table, RULES).unmeasured == 1
    assert select(table, RULES).table["reason"].to_pylist() == ["text_cover_not_measured", None]
    assert select(table, RULES, so_far=True).num_kept == 2


def test_nothing_kept_names_the_nearest_miss():
    selection = select(clips.build([row(0, flow=0.4), row(1, flow=0.1), row(2, flow=0.45, duration_s=1)]), RULES)
    assert selection.num_kept == 0
    assert "frames 0 to 72" in str(selection.nearest_miss)
    assert "flow 0.4 (rule: at least 0.5)" in str(selection.nearest_miss)


def test_rules_about_what_is_not_there_are_refused():
    with pytest.raises(BadConfig, match="unknown measure"):
        select(clips.build([row(0)]), Rules(between={"flo": (0, 1)}))
    with pytest.raises(BadConfig, match="rule of words about a number"):
        select(clips.build([row(0)]), Rules(between={}, without={"flow": ("low",)}))
    with pytest.raises(BadConfig, match="no clip can have"):
        Rules(between={"flow": (2, 1)})


def test_selecting_twice_changes_nothing():
    once = select(clips.build([row(n, flow=n / 10) for n in range(9)]), RULES).table
    assert select(once, RULES).table.equals(once)


# ------------------------------------------------------------------------------------------------------------- mixture


def tagged(count: int) -> pa.Table:
    rng = np.random.default_rng(1)
    rows = [
        row(
            n, talking=str(rng.choice(["yes", "no"], p=[0.2, 0.8])), dimension=str(rng.choice(["2d", "3d"], p=[0.85, 0.15])),
            motion_grade=str(rng.choice(["small", "medium", "large"])), aesthetic=float(rng.uniform(0, 10)),
        )
        for n in range(count)
    ]  # fmt: skip
    return select(clips.build(rows), RULES).table


@given(
    shares=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(lambda x: sum(x) > 0), total=st.integers(0, 1000)
)
@settings(max_examples=60, deadline=None)
def test_largest_remainder_adds_up_and_errs_by_less_than_one(shares: list[int], total: int):
    counts = largest_remainder(np.array(shares, float), total)
    exact = np.array(shares) / sum(shares) * total
    assert counts.sum() == total
    assert (np.abs(counts - exact) < 1).all()


def test_proportions_are_met_exactly_and_together():
    wanted = {"talking": {"yes": 0.4, "no": 0.6}, "motion_grade": {"small": 1, "medium": 2, "large": 2}}
    table = tagged(500)
    mixture = mix(table, Stage(name="x", proportions=wanted, num_clips=120))
    assert mixture.counts == {
        "talking": {"yes": 48, "no": 72},
        "motion_grade": {"small": 24, "medium": 48, "large": 48},
    }
    words = {r["clip_id"]: r for r in table.to_pylist()}
    drawn = [words[r["clip_id"]] for r in mixture.table.to_pylist() for _ in range(r["draws"])]
    assert Counter(r["talking"] for r in drawn) == {"yes": 48, "no": 72}
    assert max(mixture.table["draws"].to_pylist()) == 1


def test_as_many_as_the_proportions_allow():
    table = tagged(300)
    talking = sum(word == "yes" for word in table["talking"].to_pylist())
    mixture = mix(table, Stage(name="x", proportions={"talking": {"yes": 1, "no": 1}}))
    assert mixture.num_draws == 2 * talking
    assert mix(table, Stage(name="x")).num_draws == 300
    more = mix(table, Stage(name="x", proportions={"talking": {"yes": 1, "no": 1}}, repeats=2, num_clips=3 * talking))
    assert more.counts["talking"]["yes"] == -(-3 * talking // 2) or more.counts["talking"]["no"] == -(-3 * talking // 2)


def test_a_mixture_is_the_same_again_and_grows_by_adding():
    table = tagged(300)
    small, again, large = (mix(table, Stage(name="x", num_clips=n)) for n in (50, 50, 90))
    assert small.table.equals(again.table)
    assert set(small.table["clip_id"].to_pylist()) < set(large.table["clip_id"].to_pylist())
    other = mix(table, Stage(name="x", num_clips=50, seed=1))
    assert not other.table.equals(small.table)


def test_what_cannot_be_mixed_is_refused():
    table = tagged(60)
    with pytest.raises(BadConfig, match="no clip has talking=loudly"):
        mix(table, Stage(name="x", proportions={"talking": {"loudly": 1}}))
    with pytest.raises(BadConfig, match="at most"):
        mix(table, Stage(name="x", proportions={"talking": {"yes": 1}}, num_clips=10_000))
    with pytest.raises(BadConfig, match="no kept clip fits"):
        mix(table, Stage(name="x", height_px=2160))
    with pytest.raises(BadConfig, match="ratios"):
        Stage(name="x", proportions={"talking": {"yes": -1}})


def test_the_best_share_is_the_best():
    table = tagged(200)
    best = mix(table, Stage(name="x", best=0.1, rank_by=("aesthetic",)))
    ids = set(best.table["clip_id"].to_pylist())
    scores = sorted(((r["aesthetic"], r["clip_id"]) for r in table.to_pylist()), reverse=True)
    assert ids == {clip for _, clip in scores[:20]}


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("best-10-percent", "high-quality")])
def test_presets_of_the_paper_draw(name: str):
    assert mix(tagged(50), PRESETS[name]).num_draws == 50


# -------------------------------------------------------------------------------------------------------------- shards


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, pa.Table]:
    """A folder with eight small "clips" and their table; half of them are of another bucket."""
    rows = []
    for n in range(8):
        data = np.random.default_rng(n).bytes(3000)
        path = f"clips/{n}.mp4"
        (tmp_path / "clips").mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
        size = {"crop_w_px": 640, "crop_h_px": 480} if n % 2 else {}
        digest = hashlib.sha256(data).hexdigest()
        more = {"tags": [("caption_kind", "measured"), *([("shot", "wide")] if n > 5 else [])]}
        more |= {"licence": "CC0" if n > 5 else None, "aesthetic": 5.0 if n > 5 else None}
        rows.append(row(n, path=path, sha256=digest, num_bytes=len(data), caption=f"clip {n}", **size, **more))
    return tmp_path, select(clips.build(rows), RULES).table


def test_shards_hold_every_kept_clip_once_by_bucket(made: tuple[Path, pa.Table]):
    out, table = made
    assert write_shards(out, table, ShardSettings(max_clips=3)) == {"written": 4, "kept": 0, "clips": 8}
    index = read_index(out).to_pylist()
    assert Counter(Path(e["member"]).suffix for e in index) == {".mp4": 8, ".json": 8, ".txt": 8}
    for entry in index:
        data = read_member(out, entry)
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    by_shard: dict[str, set[str]] = {}
    for entry in index:
        by_shard.setdefault(entry["shard"], set()).add(entry["bucket"])
    assert all(len(buckets) == 1 for buckets in by_shard.values())
    assert {bucket_of(r) for r in table.to_pylist()} == {"720p-16x9-3s-24fps", "480p-4x3-3s-24fps"}
    assert not damaged_shards(out)


def test_shards_read_with_plain_webdataset(made: tuple[Path, pa.Table]):
    webdataset = pytest.importorskip("webdataset")
    out, table = made
    write_shards(out, table, ShardSettings(max_clips=3))
    paths = [str(path) for path in sorted((out / "shards").glob("*.tar"))]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False).decode())
    assert {s["__key__"] for s in samples} == set(table["clip_id"].to_pylist())
    for sample in samples:
        number = int(sample["__key__"][:8])
        assert sample["txt"] == f"clip {number}"
        assert sample["json"]["flow"] == 1.0
        assert dict(sample["json"]["tags"])["caption_kind"] == "measured"
        assert "aesthetic" not in sample["json"]  # which only some of them have
        assert sample["mp4"] == (out / f"clips/{number}.mp4").read_bytes()


@pytest.mark.parametrize("streaming", [True, False])
def test_shards_read_with_plain_datasets(made: tuple[Path, pa.Table], tmp_path: Path, streaming: bool):
    """Its columns are learned from the first samples: later ones have other tags, a licence and an aesthetic score."""
    datasets = pytest.importorskip("datasets")
    out, table = made
    write_shards(out, table, ShardSettings())
    files = [str(path) for path in sorted((out / "shards").glob("*.tar"))]
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": files}, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    loaded = loaded.cast_column("mp4", datasets.Video(decode=False))  # decoding would want torchcodec
    samples = {sample["txt"]: sample["json"] for sample in loaded}
    assert samples.keys() == {f"clip {n}" for n in range(8)}
    assert [samples[f"clip {n}"]["licence"] for n in (0, 7)] == ["", "CC0"]
    assert dict(samples["clip 7"]["tags"])["shot"] == "wide"


def test_unchanged_shards_are_left_alone_and_changed_ones_get_new_numbers(made: tuple[Path, pa.Table]):
    out, table = made
    write_shards(out, table, ShardSettings())
    before = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert write_shards(out, table, ShardSettings())["written"] == 0
    assert {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == before
    fewer = table.filter(pc.not_equal(table["clip_id"], table["clip_id"][0]))
    assert write_shards(out, fewer, ShardSettings()) == {"written": 1, "kept": 1, "clips": 7}
    after = {path.name for path in (out / "shards").iterdir()}
    assert len(after & before.keys()) == 1
    assert {entry["shard"] for entry in read_index(out).to_pylist()} == after


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_damage_is_found(made: tuple[Path, pa.Table], harm: str):
    out, table = made
    write_shards(out, table, ShardSettings())
    victim = sorted((out / "shards").iterdir())[0]
    data = bytearray(victim.read_bytes())
    if harm == "truncate":
        victim.write_bytes(data[:-700])
    elif harm == "flip":
        data[1000] ^= 1
        victim.write_bytes(data)
    else:
        victim.unlink()
    assert list(damaged_shards(out)) == [victim.name]


def test_a_clip_that_lost_its_file_stops_the_shards_and_nothing_is_half_written(made: tuple[Path, pa.Table]):
    out, table = made
    (out / "clips/3.mp4").write_bytes(b"other")
    with pytest.raises(Failed, match="other bytes"):
        write_shards(out, table, ShardSettings())
    assert not (out / "index.parquet").exists()
    assert not [p for p in (out / "shards").iterdir() if p.name.startswith(".")]


def test_parallel_tars_have_the_same_numbers_and_ids(made: tuple[Path, pa.Table]):
    out, table = made
    write_shards(out, table, ShardSettings(max_clips=3))
    asked = []

    def encode(parts: dict[str, bytes]) -> np.ndarray:
        asked.append(json.loads(parts["json"])["clip_id"])
        return np.frombuffer(parts["mp4"][:16], np.uint8).astype(np.float16)

    assert write_parallel(out, "latents", "a" * 64, encode) == {"written": 4, "kept": 0}
    assert len(asked) == 8
    for name in sorted(path.name for path in (out / "shards").iterdir()):
        with tarfile.open(out / "shards" / name) as video, tarfile.open(out / "latents" / name) as latent:
            ids = [member.split(".")[0] for member in video.getnames() if member.endswith(".mp4")]
            assert [member.split(".")[0] for member in latent.getnames()] == ids
    index = pq.read_table(out / "latents/index.parquet").to_pylist()
    assert {entry["codec_sha256"] for entry in index} == {"a" * 64}
    assert not damaged_shards(out, "latents")
    assert write_parallel(out, "latents", "a" * 64, encode) == {"written": 0, "kept": 4}
    assert write_parallel(out, "latents", "b" * 64, encode) == {"written": 4, "kept": 0}


def test_rows_are_written_without_pandas_which_can_be_asked_for_later(tmp_path: Path):
    if importlib.util.find_spec("pandas") is None:
        pytest.skip("no pandas here")
    code = """
import sys
from anisora.curation.cells import CellStore, word_cell
store = CellStore(sys.argv[1])
store.write("cells", "key", [word_cell("clip", "name", "key", "word")])
print("pandas" in sys.modules, store.read("cells").to_pandas()["word"][0])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=PATHS)
    assert done.stdout.split() == ["False", "word"], done.stderr
