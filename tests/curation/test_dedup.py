"""Repeats: the exact search against a slow truth, planted copies, distinct clips, openings, leaks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from anisora.curation import fingerprint as fingerprint_module
from anisora.curation.dedup import (
    DedupParams,
    Repeat,
    SourceTrack,
    benchmark_fingerprints,
    find_repeats,
    find_runs,
    groups,
    leaks,
    shared_in_step,
)
from anisora.curation.fingerprint import Fingerprint, alike, fingerprint, hash_frames
from anisora.errors import BadVideo
from anisora.measures.clip import ClipView
from anisora.media.writer import write_video
from anisora.synthetic import render_clip


def near_copies(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random hashes, and the same with 0 to 12 bits turned; a few values come several times."""
    a = rng.integers(0, 2**64, count, dtype=np.uint64)
    a[1::7] = a[0]
    b = a.copy()
    for k in range(count):
        for bit in rng.choice(64, rng.integers(0, 13), replace=False):
            b[k] ^= np.uint64(1) << np.uint64(bit)
    return a, b


@pytest.mark.parametrize("most_bits", [0, 2, 5, 8])
@pytest.mark.parametrize("outright", [True, False])
def test_all_pairs_within_the_bits_are_found(most_bits: int, outright: bool, monkeypatch: pytest.MonkeyPatch):
    if not outright:
        monkeypatch.setattr(fingerprint_module, "COMPARED_OUTRIGHT", 0)
    a, b = near_copies(np.random.default_rng(most_bits), 120)
    apart = np.bitwise_count(a[:, None] ^ b)
    rows, columns, bits = alike(a, b, most_bits)
    assert list(zip(rows, columns, strict=True)) == list(zip(*np.nonzero(apart <= most_bits), strict=True))
    assert (bits == apart[rows, columns]).all()


def test_nothing_is_like_nothing():
    empty = np.zeros(0, np.uint64)
    assert [len(part) for part in alike(empty, np.ones(3, np.uint64))] == [0, 0, 0]
    with pytest.raises(ValueError, match="0 to 8 bits"):
        alike(empty, empty, 9)


def frames_of(seed: int) -> np.ndarray:
    return render_clip(seed, 0, split="seen", n_frames=16, fps=8, size_px=(320, 180)).video_THWC


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    return [frames_of(3000 + k) for k in range(6)]


def printed(frames: np.ndarray, name: str) -> Fingerprint:
    return fingerprint(ClipView.of_frames(np.ascontiguousarray(frames), 8), name, name)


@pytest.fixture(scope="module")
def prints(films: list[np.ndarray]) -> list[Fingerprint]:
    return [printed(film, f"film{k}") for k, film in enumerate(films)]


def test_distinct_clips_are_no_repeats(prints: list[Fingerprint]):
    assert find_repeats(prints) == []


def test_copies_are_found_and_described(films: list[np.ndarray], prints: list[Fingerprint], tmp_path: Path):
    import cv2

    write_video(tmp_path / "small.mp4", np.stack([cv2.resize(f, (240, 134)) for f in films[0]]), 8, quality=32)
    from anisora.media.reader import read_video

    copies = [
        printed(read_video(tmp_path / "small.mp4").frames_THWC, "x-encoded"),
        printed(films[1][:, :, ::-1], "x-mirrored"),
        printed(films[2][:, 12:165, 30:302], "x-cropped"),
        printed(films[3][3:12], "x-shorter"),
    ]
    found = {frozenset((r.a, r.b)): r for r in find_repeats(prints + copies)}
    assert set(found) == {
        frozenset(pair)
        for pair in (("film0", "x-encoded"), ("film1", "x-mirrored"), ("film2", "x-cropped"), ("film3", "x-shorter"))
    }
    assert [r.is_mirrored for r in found.values()].count(True) == 1
    crop = found[frozenset(("film2", "x-cropped"))]
    assert crop.kind == "crop"
    assert (crop.a, crop.b) == ("x-cropped", "film2")
    assert np.allclose(crop.part, (30 / 320, 12 / 180, 302 / 320, 165 / 180), atol=0.03)


def test_a_fast_shot_is_found_by_the_order_of_its_drawings():
    """Of two showings other moments are kept as small pictures, and none of one fits one of the other."""
    rng = np.random.default_rng(4)
    drawings = [cv2.resize(rng.integers(0, 256, (5, 8, 3), np.uint8), (160, 90)) for _ in range(26)]
    film = np.stack(drawings)
    first, second = printed(film, "first"), printed(film[3:, :, ::-1], "second")
    assert not {*first.small_frame_K.tolist()} & {*(second.small_frame_K + 3).tolist()}
    (repeat,) = find_repeats([first, second])
    assert (repeat.kind, repeat.is_mirrored, repeat.likeness) == ("copy", True, 1.0)
    backwards = printed(film[::-1], "backwards")
    assert shared_in_step(first, backwards, False, DedupParams()) == 0  # the drawings, but not by one shift in time
    held = printed(np.repeat(film[:3], 8, axis=0), "held")
    assert shared_in_step(held, held, False, DedupParams()) == 0  # three drawings say too little


def test_blank_clips_are_repeats_of_nothing(prints: list[Fingerprint]):
    blank = [printed(np.full((8, 90, 160, 3), level, np.uint8), f"blank{level}") for level in (0, 0, 255)]
    assert find_repeats(prints + blank) == []


def test_repeats_of_repeats_are_one_group():
    repeats = [Repeat(a=a, b=b, kind="copy") for a, b in (("a", "b"), ("c", "b"), ("y", "x"))]
    assert groups(repeats) == [["a", "b", "c"], ["x", "y"]]


def test_an_opening_is_found_in_two_episodes():
    rng = np.random.default_rng(4)
    opening, rest = rng.integers(0, 2**64, 100, dtype=np.uint64), rng.integers(0, 2**64, (2, 300), dtype=np.uint64)
    first = np.concatenate([rest[0, :40], opening, rest[0, 40:]])
    second = np.concatenate([rest[1, :120], opening ^ np.uint64(0b101), rest[1, 120:]])
    tracks = [
        SourceTrack(source_id=n, time_s=np.arange(400) / 4, hash_N=h) for n, h in (("one", first), ("two", second))
    ]
    (run,) = find_runs(tracks)
    assert (run.a, run.b) == ("one", "two")
    assert np.allclose((run.a_start_s, run.a_end_s, run.b_start_s, run.b_end_s), (10, 35, 30, 55), atol=0.6)
    assert find_runs(tracks, DedupParams(run_s=30.0)) == []


def test_a_benchmark_clip_in_the_training_set_is_named(
    films: list[np.ndarray], prints: list[Fingerprint], tmp_path: Path
):
    (tmp_path / "bench/inner").mkdir(parents=True)
    write_video(tmp_path / "bench/inner/case.mp4", films[4][:, 9:171, 16:304], Fraction(8), quality=28)
    from PIL import Image

    Image.fromarray(films[5][8]).save(tmp_path / "bench/still.png")
    (tmp_path / "bench/notes.txt").write_text("not a video")
    benchmark = benchmark_fingerprints(tmp_path / "bench")
    assert leaks(prints, benchmark) == {"film4": "inner/case.mp4", "film5": "still.png"}


def test_an_unreadable_benchmark_is_no_guard(tmp_path: Path):
    (tmp_path / "case.mp4").write_bytes(b"no video")
    with pytest.raises(BadVideo):
        benchmark_fingerprints(tmp_path)


def test_the_stored_signals_give_the_hashes_of_the_frames(films: list[np.ndarray]):
    index, hashes, mirrored = hash_frames(films[0])
    turned = hash_frames(films[0][:, :, ::-1])[1]
    assert (index == np.arange(len(films[0]))).all()
    assert np.bitwise_count(mirrored ^ turned).max() <= 4
    assert len(printed(np.repeat(films[0][:2], 4, axis=0), "held").hash_N) <= 2
    assert (hashes != mirrored).any()
