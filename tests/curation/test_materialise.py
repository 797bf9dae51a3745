"""Every frame of the span and no other: each frame of the sources carries its number as bars, read back from the clip."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anisora.curation.materialise import Encoding, Job, Made, materialise
from anisora.errors import BadConfig, WriteFailed
from anisora.media.packets import decoding_times
from anisora.media.reader import read_video
from anisora.media.span import SpanReader, read_frames
from anisora.records import Span

BITS, HEIGHT, WIDTH = 10, 64, 160


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture that shows its number in binary bars, over a gradient."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[...] = np.linspace(40, 90, width, dtype=np.uint8)[None, :, None]
    for bit in range(BITS):
        left, right = width * bit // BITS, width * (bit + 1) // BITS
        picture[height // 4 : -height // 4, left + 2 : right - 2] = 230 if number >> bit & 1 else 20
    return picture


def number_of(picture_HWC: np.ndarray) -> int:
    height, width, _ = picture_HWC.shape
    row = picture_HWC[height // 2, :, 1].astype(int)
    return sum((row[width * (2 * bit + 1) // (2 * BITS)] > 128) << bit for bit in range(BITS))


def write_source(path: Path, times: list[int], time_base: Fraction, **options: Any) -> Path:
    """A video of numbered frames at those times, with B-frames and key frames every 25."""
    import av

    settings = {"g": "25", "bf": "3", "crf": "12", "preset": "ultrafast", **options.pop("options", {})}
    pixel_format = options.pop("pix_fmt", "yuv420p")
    height, width = options.pop("size", (HEIGHT, WIDTH))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(options.pop("codec", "libx264"), rate=24, options=settings)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = stream.time_base = time_base
        for number, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, height, width), "rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = pts, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def true_pts(path: Path) -> tuple[list[int], Fraction]:
    clip = read_video(path, threads=1)
    return list(clip.pts), clip.time_base


def span(pts: list[int], base: Fraction, start: int, end: int, end_pts: int | None = None) -> Span:
    last = pts[end] if end < len(pts) else end_pts or pts[-1] + (pts[-1] - pts[-2])
    return Span(start_frame=start, end_frame=end, start_pts=pts[start], end_pts=last, time_base=base)


def vfr(count: int) -> list[int]:
    steps = np.random.default_rng(3).integers(300, 2500, count)
    return [int(t) for t in np.cumsum(steps)]


SOURCES: dict[str, Callable[[Path], Path]] = {
    "cfr": lambda folder: write_source(folder / "a.mp4", [n * 512 for n in range(120)], Fraction(1, 12288)),
    "23.976": lambda folder: write_source(folder / "b.mp4", [n * 1001 for n in range(120)], Fraction(1, 24000)),
    "vfr": lambda folder: write_source(folder / "c.mp4", vfr(120), Fraction(1, 24000)),
    "matroska": lambda folder: write_source(folder / "d.mkv", [round(n * 1000 / 24) for n in range(120)], Fraction(1, 1000)),
    "transport stream": lambda folder: write_source(folder / "e.ts", [n * 3750 for n in range(120)], Fraction(1, 90000)),
    "open gop": lambda folder: write_source(
        folder / "f.mp4", [n * 512 for n in range(120)], Fraction(1, 12288), options={"x264-params": "open-gop=1:bframes=5"}
    ),
    "10 bit": lambda folder: write_source(
        folder / "g.mp4", [n * 512 for n in range(60)], Fraction(1, 12288), pix_fmt="yuv420p10le"
    ),
    "raw stream": lambda folder: write_source(folder / "h.h264", [n for n in range(60)], Fraction(1, 25)),
    "odd size": lambda folder: write_source(
        folder / "i.mp4", [n * 512 for n in range(60)], Fraction(1, 12288), pix_fmt="yuv444p", size=(63, 161)
    ),
    "rgb": lambda folder: write_source(
        folder / "j.mp4", [n * 512 for n in range(60)], Fraction(1, 12288), pix_fmt="rgb24", codec="libx264rgb"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_clips_have_their_frames_at_their_times_and_no_other(name: str, tmp_path: Path):
    source = SOURCES[name](tmp_path)
    pts, base = true_pts(source)
    count = len(pts)
    bounds = [(0, 7), (7, 31), (31, 32), (40, count - 10), (count - 10, count)]
    jobs = [
        Job(
            clip_id=f"{a}-{b}",
            span=span(pts, base, a, b),
            crop_xywh_px=None,
            path=tmp_path / f"out/{a}.mp4",
            fps=Fraction(24),
        )
        for a, b in bounds
    ]
    made = list(materialise(source, jobs, Encoding(quality=14), np.array(pts)))
    for (a, b), job, result in zip(bounds, jobs, made, strict=True):
        assert result.reason is None, result.message
        clip = read_video(job.path)
        assert [number_of(frame) for frame in clip.frames_THWC] == list(range(a, b))
        assert [t - clip.times_s[0] for t in clip.times_s] == [(pts[n] - pts[a]) * base for n in range(a, b)]
        assert result.num_frames == b - a
        assert result.sha256 == hashlib.sha256(job.path.read_bytes()).hexdigest()


def cut(
    source: Path, bounds: list[tuple[int, int]], encoding: Encoding, **options: Any
) -> tuple[list[Job], list[Made]]:
    """Those stretches of a source as clips: what was asked for, and what came of it."""
    pts, base = true_pts(source)
    jobs = [
        Job(
            clip_id=f"{a}-{b}", span=span(pts, base, a, b), crop_xywh_px=options.get("crop_xywh_px"), fps=Fraction(24),
            path=source.parent / f"out/{a}-{b}{encoding.suffix}",
        )
        for a, b in bounds
    ]  # fmt: skip
    made = {result.clip_id: result for result in materialise(source, jobs, encoding, np.array(pts))}
    return jobs, [made[job.clip_id] for job in jobs]


def assert_is_copy(source: Path, job: Job, result: Made) -> None:
    """The clip's file shows exactly what the source shows within the span, to the last bit and at the same times."""
    assert result.reason is None, result.message
    assert result.is_copied
    whole, clip = read_video(source), read_video(job.path)
    start, end = job.span.start_frame, job.span.end_frame
    assert (clip.frames_THWC == whole.frames_THWC[start:end]).all()
    assert [t - clip.times_s[0] for t in clip.times_s] == [t - whole.times_s[start] for t in whole.times_s[start:end]]
    assert result.num_frames == end - start


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("cfr", ".mp4"), ("23.976", ".mp4"), ("vfr", ".mp4"), ("matroska", ".mp4"), ("matroska", ".mkv")],
)
def test_a_clip_between_key_frames_is_copied(name: str, suffix: Any, tmp_path: Path):
    source = SOURCES[name](tmp_path)
    jobs, made = cut(source, [(0, 25), (25, 75), (100, 120)], Encoding(suffix=suffix, copy_bits_per_px=8))
    for job, result in zip(jobs, made, strict=True):
        assert_is_copy(source, job, result)


@pytest.mark.parametrize(("name", "starts"), [("cfr", {0, 25}), ("open gop", {0})])
def test_what_is_copied_is_exact_wherever_it_ends(name: str, starts: set[int], tmp_path: Path):
    source = SOURCES[name](tmp_path)
    bounds = [(a, a + length) for a in (0, 25, 26) for length in (1, 2, 3, 4, 5, 6, 7, 25)]
    jobs, made = cut(source, bounds, Encoding(copy_bits_per_px=8))
    copied = [(job, result) for job, result in zip(jobs, made, strict=True) if result.is_copied]
    for job, result in copied:
        assert_is_copy(source, job, result)
    assert {job.span.start_frame for job, _ in copied} == starts  # open key frames need what was before them
    assert len(copied) < len(starts) * 8  # some end between a picture and one that it is made of


@pytest.mark.parametrize("name", ["transport stream", "10 bit", "raw stream", "rgb"])
def test_what_is_stored_otherwise_is_encoded(name: str, tmp_path: Path):
    _, (result,) = cut(SOURCES[name](tmp_path), [(0, 25)], Encoding(copy_bits_per_px=100))
    assert result.reason is None, result.message
    assert not result.is_copied


@pytest.mark.parametrize(
    ("encoding", "options"),
    [
        (Encoding(copy_bits_per_px=0), {}),
        (Encoding(copy_bits_per_px=0.01), {}),
        (Encoding(copy_bits_per_px=8), {"crop_xywh_px": (0, 0, 80, 64)}),
        (Encoding(copy_bits_per_px=8, codec="libvpx-vp9"), {}),
    ],
)
def test_what_is_wanted_otherwise_is_encoded(encoding: Encoding, options: dict[str, Any], tmp_path: Path):
    _, (result,) = cut(SOURCES["cfr"](tmp_path), [(0, 25)], encoding, **options)
    assert result.reason is None, result.message
    assert not result.is_copied


def test_a_turned_source_is_not_copied(tmp_path: Path):
    source = turn(SOURCES["cfr"](tmp_path), tmp_path / "turned.mp4")
    _, (result,) = cut(source, [(0, 25)], Encoding(copy_bits_per_px=8))
    assert result.reason is None, result.message
    assert not result.is_copied


def test_packets_are_decoded_before_they_are_shown():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shown = np.cumsum(rng.integers(1, 50, 30))
        order = np.argsort(np.arange(30) + rng.uniform(0, 6, 30))
        pts = [int(stamp) for stamp in shown[order]]
        dts = decoding_times(pts)
        assert all(early <= late for early, late in zip(dts, pts, strict=True))
        assert all(a < b for a, b in pairwise(dts))
    assert decoding_times([3, 5, 9]) == [3, 5, 9]
    assert decoding_times([0, 8, 4]) == [-4, 0, 4]


def test_a_limit_below_nothing_is_refused():
    with pytest.raises(BadConfig, match="copy_bits_per_px"):
        Encoding(copy_bits_per_px=-1)


@pytest.mark.parametrize("codec", ["libsvtav1", "libvpx-vp9"])
def test_other_encoders(codec: str, tmp_path: Path):
    from anisora.media.encoders import is_available

    if not is_available(codec):
        pytest.skip(f"this FFmpeg has no {codec}")
    source = SOURCES["cfr"](tmp_path)
    pts, base = true_pts(source)
    job = Job(clip_id="x", span=span(pts, base, 20, 40), crop_xywh_px=None, path=tmp_path / "x.mp4", fps=Fraction(24))
    before = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    (made,) = materialise(source, [job], Encoding(codec=codec, quality=30), None)
    assert made.reason is None, made.message
    assert [number_of(frame) for frame in read_video(job.path).frames_THWC] == list(range(20, 40))
    assert before is None or os.sched_getscheduler(0) == before  # SVT-AV1 makes root's thread real-time


def test_a_crop_shows_the_same_pixels(tmp_path: Path, picture: Callable[..., np.ndarray]):
    from anisora.media.writer import write_video

    frames = np.stack([picture(seed, 96, 64) for seed in range(6)])
    source = write_video(tmp_path / "source.mp4", frames, 24, quality=4)
    pts, base = true_pts(source)
    crop = (16, 8, 64, 40)
    job = Job(clip_id="x", span=span(pts, base, 1, 5), crop_xywh_px=crop, path=tmp_path / "x.mp4", fps=Fraction(24))
    (made,) = materialise(source, [job], Encoding(quality=4), None)
    assert made.reason is None, made.message
    clip = read_video(job.path).frames_THWC.astype(float)
    whole = read_video(source).frames_THWC[1:5, 8:48, 16:80].astype(float)
    assert clip.shape == whole.shape
    assert np.abs(clip - whole).mean() < 1.5


def turn(plain: Path, turned: Path) -> Path:
    """The video with a note that it is to be shown turned by a quarter."""
    import av

    with av.open(str(plain)) as source, av.open(str(turned), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = bytearray(turned.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # version 0: the matrix lies 40 bytes behind the box's flags
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    turned.write_bytes(data)
    return turned


def test_a_turned_source_comes_out_upright(tmp_path: Path, picture: Callable[..., np.ndarray]):
    from anisora.media.writer import write_video

    frames = np.stack([picture(seed, 96, 64) for seed in range(4)])
    plain = write_video(tmp_path / "plain.mp4", frames, 24, quality=4)
    turned = turn(plain, tmp_path / "turned.mp4")
    whole = read_video(turned).frames_THWC
    assert whole.shape[1:3] == (96, 64)
    pts, base = true_pts(turned)
    job = Job(
        clip_id="x", span=span(pts, base, 0, 4), crop_xywh_px=(0, 16, 64, 64), path=tmp_path / "x.mp4", fps=Fraction(24)
    )
    (made,) = materialise(turned, [job], Encoding(quality=4), None)
    assert made.reason is None, made.message
    assert np.abs(read_video(job.path).frames_THWC.astype(float) - whole[:, 16:80].astype(float)).mean() < 6


def test_pictures_that_move_are_sources_too(tmp_path: Path):
    from anisora.media.writer import write_video

    source = write_video(tmp_path / "a.gif", np.stack([numbered(n) for n in range(12)]), 10)
    pts, base = true_pts(source)
    job = Job(clip_id="x", span=span(pts, base, 3, 9), crop_xywh_px=None, path=tmp_path / "x.mp4", fps=Fraction(10))
    (made,) = materialise(source, [job], Encoding(), np.array(pts))
    assert made.reason is None, made.message
    assert [number_of(frame) for frame in read_video(job.path).frames_THWC] == list(range(3, 9))


def test_a_span_that_is_not_there_fails_alone(tmp_path: Path):
    source = SOURCES["cfr"](tmp_path)
    pts, base = true_pts(source)
    good = Job(clip_id="good", span=span(pts, base, 5, 9), crop_xywh_px=None, path=tmp_path / "g.mp4", fps=Fraction(24))
    beyond = Span(start_frame=115, end_frame=140, start_pts=115 * 512, end_pts=140 * 512, time_base=base)
    bad = Job(clip_id="bad", span=beyond, crop_xywh_px=None, path=tmp_path / "b.mp4", fps=Fraction(24))
    outside = Job(
        clip_id="outside", span=good.span, crop_xywh_px=(100, 0, 100, 64), path=tmp_path / "o.mp4", fps=Fraction(24)
    )
    made = {m.clip_id: m for m in materialise(source, [good, bad, outside], Encoding(), None)}
    assert made["good"].reason is None
    assert made["bad"].reason == made["outside"].reason == "encode_failed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "g.mp4"]


def test_frames_read_by_seeking_are_those_read_from_the_start(tmp_path: Path):
    source = SOURCES["vfr"](tmp_path)
    pts, base = true_pts(source)
    whole = read_video(source).frames_THWC
    for start, end in ((90, 99), (3, 60), (60, 61)):
        wanted = list(range(start, end, 3))
        assert (read_frames(source, span(pts, base, start, end), wanted) == whole[wanted]).all()
    with SpanReader(source) as reader:  # backwards too
        for start in (100, 50, 0):
            numbers = [number_of(d.rgb_HWC()) for d in reader.iter(span(pts, base, start, start + 5))]
            assert numbers == list(range(start, start + 5))


def test_a_full_disk_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = SOURCES["cfr"](tmp_path)
    pts, base = true_pts(source)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    job = Job(clip_id="x", span=span(pts, base, 0, 9), crop_xywh_px=None, path=tmp_path / "sub/x.mp4", fps=Fraction(24))
    (tmp_path / "sub").touch()  # a file where the folder should be
    with pytest.raises(WriteFailed):
        list(materialise(source, [job], Encoding(), None))
