"""Writing: what was given is what is read back, whole and with its request, or no file at all."""

import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from anisora.errors import BadSize, BadVideo, WriteFailed
from anisora.media.encoders import ENCODERS, ENCODERS_BY_SUFFIX, is_available, pick_encoder, pick_pixel_format
from anisora.media.metadata import read_metadata
from anisora.media.reader import probe, read_video
from anisora.media.writer import write_video

EVERY_PAIR = [(suffix, codec) for suffix, codecs in ENCODERS_BY_SUFFIX.items() for codec in codecs]
EVERY_TARGET = [*EVERY_PAIR, (".gif", None), ("", None)]


def _skip_unless_available(codec):
    if codec and not is_available(codec):
        pytest.skip(f"this build of FFmpeg has no {codec}")


@pytest.mark.parametrize(("suffix", "codec"), EVERY_TARGET)
@pytest.mark.parametrize("size_px", [(64, 48), (63, 47)])
def test_frames_come_back_in_order_and_number(tmp_path, numbered, numbers, suffix, codec, size_px):
    _skip_unless_available(codec)
    frames = numbered(33, *size_px)
    if codec and ENCODERS[codec].odd_pixel_format is None and size_px == (63, 47):
        with pytest.raises(BadSize):
            write_video(tmp_path / f"a{suffix}", frames, 24, codec=codec)
        return
    path = write_video(tmp_path / f"a{suffix}", frames, "24000/1001", codec=codec)
    clip = read_video(path)
    assert numbers(clip.frames_THWC) == list(range(33))
    assert clip.frames_THWC.shape == frames.shape
    assert not clip.is_vfr
    if suffix not in (".gif", ".mkv", ".webm"):  # these round times, see below
        assert [time * 24000 for time in clip.times_s] == [1001 * i for i in range(33)]
    if suffix != ".gif":
        assert clip.fps == probe(path).fps == Fraction(24000, 1001)
        assert np.abs(clip.frames_THWC.astype(int) - frames).mean() < 6
    if (codec and ENCODERS[codec].is_lossless) or not suffix:
        assert np.array_equal(clip.frames_THWC, frames)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux alone tells what runs before what")
@pytest.mark.parametrize(("suffix", "codec"), [pair for pair in EVERY_PAIR if is_available(pair[1])])
def test_no_thread_runs_before_others_for_having_written(tmp_path, numbered, suffix, codec):
    def policies() -> list[int]:
        threads = [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
        return [os.sched_getscheduler(thread) for thread in threads]

    before, meanwhile = os.sched_getscheduler(0), []
    frames = (meanwhile.append(policies()) or frame for frame in numbered(5, 64, 48))
    write_video(tmp_path / f"a{suffix}", frames, 24, codec=codec)
    assert {one for seen in [*meanwhile[1:], policies()] for one in seen} == {before}


@pytest.mark.parametrize("fps", ["24000/1001", "30000/1001", 24, 12, 8.5, Fraction(7, 3)])
@pytest.mark.parametrize(("suffix", "tick_s"), [(".webm", Fraction(1, 1000)), (".gif", Fraction(1, 100))])
def test_coarse_times_never_drift(tmp_path, numbered, suffix, tick_s, fps):
    clip = read_video(write_video(tmp_path / f"a{suffix}", numbered(40, 48, 16), fps))
    exact = [i / Fraction(fps) for i in range(40)]
    assert all(abs(time - truth) <= tick_s / 2 for time, truth in zip(clip.times_s, exact, strict=True))


@pytest.mark.parametrize(("suffix", "codec"), [pair for pair in EVERY_PAIR if pair[0] != ".mov"])
def test_colours_keep_their_mean(tmp_path, suffix, codec):
    """Flat colours survive within a level on the mean of a frame, bright or dark, and carry their tags."""
    _skip_unless_available(codec)
    colours = np.random.default_rng(0).integers(0, 256, (24, 1, 1, 3), dtype=np.uint8)
    frames = np.broadcast_to(colours, (24, 64, 64, 3))
    path = write_video(tmp_path / f"a{suffix}", frames, 24, codec=codec, **_best(codec))
    found = read_video(path).frames_THWC
    off = found.astype(float).mean((1, 2)) - colours[:, 0, 0]
    assert np.abs(off).max() <= 2  # 8-bit YUV alone costs up to two levels of a channel
    assert np.abs(off.mean(0)).max() < 0.5  # and darkens or brightens nothing
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        if not ENCODERS[codec].is_lossless:
            assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)


def _best(codec):
    return {"quality": 4} if ENCODERS[codec].quality_option else {}


def test_a_gif_of_few_colours_keeps_them(tmp_path):
    """Within a level, which the palette's colour space costs. Held drawings, frames that are equal, stay frames."""
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (40, 3), dtype=np.uint8)
    frames = palette[rng.integers(0, 40, (5, 12, 16))].repeat(2, 0)
    clip = read_video(write_video(tmp_path / "a.gif", frames, 24))
    assert np.abs(clip.frames_THWC.astype(int) - frames).max() <= 1
    assert len(clip) == 10


def test_an_iterable_is_written_as_it_comes(tmp_path, numbered):
    frames = numbered(7)
    for suffix in (".mp4", ".gif", ""):
        # lossless: this x264 gives other bytes for the same frames once in some forty writes
        lossless = suffix == ".mp4"
        listed = write_video(tmp_path / f"listed{suffix}", frames, 24, lossless=lossless)
        streamed = write_video(tmp_path / f"streamed{suffix}", (frame for frame in frames), 24, lossless=lossless)
        assert np.array_equal(read_video(listed).frames_THWC, read_video(streamed).frames_THWC)


def test_the_same_frames_give_the_same_bytes(tmp_path, numbered):
    # webm and mkv carry a random id; x264 gives other bytes for the same frames once in some forty writes
    first, second = (write_video(tmp_path / f"{name}.gif", numbered(9), 24) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_one_frame_is_a_video(tmp_path, numbered):
    for suffix in (".mp4", ".webm", ".mkv", ".mov", ".gif", ""):
        path = write_video(tmp_path / f"one{suffix}", numbered(1), 24)
        assert len(read_video(path)) == probe(path).num_frames == 1


def test_quality_changes_the_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3), np.uint8)
    best, worst = (write_video(tmp_path / f"{q}.mp4", noise, 24, quality=q) for q in (5, 45))
    assert best.stat().st_size > 2 * worst.stat().st_size


# ---- the request inside


@pytest.mark.parametrize("suffix", [*ENCODERS_BY_SUFFIX, ".gif", ""])
def test_metadata_comes_back(tmp_path, numbered, suffix):
    metadata = {
        "prompt": '彼女は振り返る; <b>"quotes"</b> \\ = # \n\t 🎬 é',
        "guides": [{"image": "a.png", "at": 0}, {"image": "b.png", "at": "37%"}],
        "long": "x" * 100_000,
        "seed": 2**53,
        "scale": 1.1,
        "none": None,
    }
    assert read_metadata(write_video(tmp_path / f"a{suffix}", numbered(2), 24, metadata=metadata)) == metadata
    assert read_metadata(write_video(tmp_path / f"b{suffix}", numbered(2), 24)) == {}
    assert len(read_video(tmp_path / f"a{suffix}")) == 2


def test_metadata_that_is_not_ours(tmp_path, numbered):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        container.metadata["comment"] = "made on a Tuesday"
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(1)[0], "rgb24")))
        container.mux(stream.encode(None))
    assert read_metadata(tmp_path / "a.mp4") == {}
    with pytest.raises(BadVideo, match="does not exist"):
        read_metadata(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="JSON"):
        write_video(tmp_path / "b.mp4", numbered(1), 24, metadata={"seed": float("nan")})
    assert os.listdir(tmp_path) == ["a.mp4"]


# ---- bad input


def _refused(error, tmp_path, name, frames, fps=24, *words, **options):
    with pytest.raises(error) as caught:
        write_video(tmp_path / name, frames, fps, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert os.listdir(tmp_path) == []


def test_frames_and_settings_that_cannot_be_written(tmp_path, numbered):
    frames = numbered(2)
    _refused(BadVideo, tmp_path, "a.mp4", frames[:0], 24, "no frames")
    _refused(BadVideo, tmp_path, "a.mp4", iter([]), 24, "no frames")
    _refused(BadVideo, tmp_path, "a.gif", [], 24, "no frames")
    _refused(BadVideo, tmp_path, "folder", [], 24, "no frames")
    _refused(BadVideo, tmp_path, "a.mp4", frames / np.float32(255), 24, "float32", "uint8", "to_uint8_THWC")
    _refused(BadVideo, tmp_path, "a.mp4", frames[..., :1], 24, "[48, 64, 1]")
    _refused(BadVideo, tmp_path, "a.mp4", [frames[0], frames[1][:-2]], 24, "differ in size", "frame 1")
    for fps in (0, -24, "fast", float("nan"), float("inf"), None, 10**6):
        _refused(BadVideo, tmp_path, "a.mp4", frames, fps, "frame rate", "24000/1001")
    _refused(BadVideo, tmp_path, "a.gif", frames, 60, "GIF", "at most 50")
    _refused(BadVideo, tmp_path, "a.avi", frames, 24, ".mp4", ".webm", ".gif")
    _refused(BadVideo, tmp_path, "a.mp4", frames, 24, "libfancy", "libx264", codec="libfancy")
    _refused(BadVideo, tmp_path, "a.webm", frames, 24, "libx264", "libvpx-vp9", codec="libx264")
    _refused(BadVideo, tmp_path, "a.mp4", frames, 24, "lossless", "libx264rgb", codec="libx264", lossless=True)
    _refused(BadVideo, tmp_path, "a.gif", frames, 24, ".gif", lossless=True)
    _refused(BadVideo, tmp_path, "a.mkv", frames, 24, "quality", codec="ffv1", quality=3)
    _refused(BadVideo, tmp_path, "a.mp4", np.zeros((1, 2, 70000, 3), np.uint8), 24, "libx264")


def test_odd_sizes_are_kept_or_refused(numbered):
    assert pick_pixel_format(ENCODERS["libx264"], 63, 48) == "yuv444p"
    assert pick_pixel_format(ENCODERS["libx264"], 64, 48) == "yuv420p"
    with pytest.raises(BadSize, match="64x48"):
        pick_pixel_format(ENCODERS["libopenh264"], 63, 47)


def test_the_default_encoder_is_the_best_there_is(monkeypatch):
    """An FFmpeg without the first choices, as distributions ship it, takes the next."""
    import anisora.media.encoders as encoders

    assert pick_encoder(Path("a.mp4"), None, lossless=True).is_lossless
    monkeypatch.setattr(encoders, "is_available", lambda key: key in ("libaom-av1", "libopenh264"))
    assert pick_encoder(Path("a.mp4"), None, lossless=False).name == "libopenh264"
    assert pick_encoder(Path("a.webm"), None, lossless=False).name == "libaom-av1"
    with pytest.raises(BadVideo, match="not in this build"):
        pick_encoder(Path("a.mp4"), "libx264", lossless=False)
    with pytest.raises(BadVideo, match="lossless"):
        pick_encoder(Path("a.webm"), None, lossless=True)


# ---- nothing half-written


def test_missing_folders_are_made_and_older_files_replaced(tmp_path, numbered):
    for suffix in (".mp4", ".gif", ""):
        path = tmp_path / "new" / "folder" / f"a{suffix}"
        write_video(path, numbered(9), 24)
        write_video(path, numbered(3), 24)
        assert len(read_video(path)) == 3


def test_places_that_cannot_be_written(tmp_path, numbered):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    before = sorted(tmp_path.rglob("*"))
    for name in ("file/a.mp4", "file/a", "folder.mp4", "file", "mine"):
        with pytest.raises(WriteFailed) as error:
            write_video(tmp_path / name, numbered(2), 24)
        assert name.split("/")[0] in str(error.value)
        assert "try" in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_no_right_to_write(tmp_path, numbered):
    """As an ordinary user, also when the tests run as root."""
    tmp_path.chmod(0o555)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        for name in ("a.mp4", "a.gif", "a"):
            with pytest.raises(WriteFailed, match="you may write to"):
                write_video(tmp_path / name, numbered(2), 24)
    finally:
        if is_root:
            os.seteuid(0)
        tmp_path.chmod(0o755)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ""])
def test_an_interruption_leaves_the_older_file(tmp_path, numbered, suffix):
    path = write_video(tmp_path / f"a{suffix}", numbered(3), 24)

    def interrupted():
        yield from numbered(9)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted(), 24)
    assert os.listdir(tmp_path) == [path.name]
    assert len(read_video(path)) == 3


def _run(script: str, *arguments: object, **options) -> subprocess.Popen:
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        text=True,
        # A suite started in the background hands down a SIGINT that is ignored; a user's shell does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def test_a_full_disk_leaves_nothing(tmp_path):
    """The system refuses to write past a limit, at every stage: first bytes, middle, the index at the very end."""
    script = """
        import os, resource, sys
        from pathlib import Path
        import numpy as np
        from anisora.errors import WriteFailed
        from anisora.media.writer import write_video

        folder = Path(sys.argv[1])
        frames = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
        for name in ("a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif", "a"):
            path = write_video(folder / name, frames, 24, metadata={"note": "x" * 5000})
            size = max(entry.stat().st_size for entry in [path, *folder.glob("a/*")] if entry.is_file())
            before = sorted((str(p), p.read_bytes()) for p in folder.rglob("*") if p.is_file())
            for limit in (0, 100, size // 2, size - 3000, size - 1):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    write_video(path, frames, 24, metadata={"note": "x" * 5000})
                    print(name, limit, "of", size, "written")
                except WriteFailed as error:
                    assert "could not be written" in str(error) or "incomplete" in str(error), error
                except BaseException as error:
                    print(name, limit, "of", size, repr(error))
            after = sorted((str(p), p.read_bytes()) for p in folder.rglob("*") if p.is_file())
            if before != after:
                print(name, "changed", [p for p, _ in after])
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    """
    process = _run(script, tmp_path)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")


def test_a_real_full_file_system_says_so(tmp_path):
    """On a file system of 64 kB, where mounting one is allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
        for suffix in (".mp4", ".webm", ".gif", ""):
            with pytest.raises(WriteFailed, match="disk space"):
                write_video(tmp_path / f"a{suffix}", frames, 24)
            assert os.listdir(tmp_path) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_no_file_of_that_name(tmp_path, ending):
    """Ctrl-C cleans up; after a kill, which nothing survives, only a hidden part is left."""
    script = """
        import itertools, sys
        import numpy as np
        from anisora.media.writer import write_video

        def frames():
            for index in itertools.count():
                if index == 300:
                    print("under way", flush=True)
                yield np.full((64, 64, 3), index % 256, np.uint8)

        write_video(sys.argv[1], frames(), 24)
    """
    process = _run(script, tmp_path / "a.mp4", stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == "under way\n"
    process.send_signal(ending)
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()  # frames() never ends by itself
    left = os.listdir(tmp_path)
    assert "a.mp4" not in left
    assert left == [] if ending == signal.SIGINT else all(name.startswith(".a.") for name in left)
