"""One decode feeds all observers: what they get, what is kept of it, and what becomes of files that are odd."""

from __future__ import annotations

import wave
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
import pytest

from anisora.curation.observers import Needs
from anisora.curation.observers.default import default_observers
from anisora.curation.observers.thumbnails import thumbnails
from anisora.curation.scan import Scan, scan
from anisora.errors import BadInput, BadVideo
from anisora.media.reader import read_video
from anisora.media.writer import write_video


@dataclass(frozen=True)
class NoParams:
    pass


class Witness:
    """Keeps all it is shown; raises at a frame when it is told to."""

    version, params = 1, NoParams()

    def __init__(self, name="witness", needs=Needs(), raises_at=None):  # noqa: B008
        self.name, self.needs, self.raises_at = name, needs, raises_at
        self.seen, self.frames = [], []

    def feed(self, index, pts, frame):
        if index == self.raises_at:
            raise RuntimeError("cannot look")
        self.seen.append((index, pts))
        self.frames.append(frame.copy())

    def finish(self):
        return {"index": np.array([index for index, _ in self.seen], np.int64), "shown": np.stack(self.frames)}


@pytest.fixture(scope="module")
def video(tmp_path_factory, numbered):
    return write_video(tmp_path_factory.mktemp("scan") / "a.mp4", numbered(40), 24)


def luma_numbers(frames, bits=6, block=8):
    """The number that the luma of each frame carries."""
    means = [frames[:, 2:6, bit * block + 2 : bit * block + 6].mean((1, 2)) for bit in range(bits)]
    return [int(n) for n in sum((mean > 127).astype(int) << bit for bit, mean in enumerate(means))]


def test_every_frame_is_shown_once_in_order_and_seconds_are_counted_in_pts(video):
    every, slow = Witness(), Witness("slow", Needs(fps=5))
    found = scan(video, [every, slow])
    assert luma_numbers(np.stack(every.frames)) == list(range(40))
    assert [pts for _, pts in every.seen] == found.pts_T.tolist()
    times = [float(pts * found.time_base) for _, pts in slow.seen]
    assert [index for index, _ in slow.seen] == [0, 5, 10, 15, 20, 24, 29, 34, 39]
    assert all(0 <= time - k / 5 < 1 / 24 for k, time in enumerate(times))
    assert found.num_frames == 40
    assert found.span(3, 40).duration_s == Fraction(37, 24)


def test_pictures_are_what_the_reader_shows_only_smaller(video):
    large, small = Witness("large", Needs(pixels="rgb")), Witness("small", Needs(width_px=16, pixels="rgb"))
    scan(video, [large, small])
    truth = read_video(video).frames_THWC.astype(int)
    assert np.abs(np.stack(large.frames) - truth).mean() < 4
    means = truth.reshape(40, 12, 4, 16, 4, 3).mean((2, 4))
    assert np.stack(small.frames).shape == (40, 12, 16, 3)
    assert np.abs(np.stack(small.frames) - means).mean() < 4


def test_what_one_observer_asks_for_changes_nothing_for_another(video):
    def shown(*needs):
        witnesses = [Witness(str(i), need) for i, need in enumerate(needs)]
        scan(video, witnesses)
        return np.stack(witnesses[0].frames)

    alone = shown(Needs(width_px=20))
    together = shown(Needs(width_px=20), Needs(width_px=24, pixels="rgb"), Needs(), Needs(width_px=40, fps=3))
    np.testing.assert_array_equal(alone, together)


def test_an_observer_that_raises_loses_its_own_column_only(video):
    found = scan(video, [Witness("first"), Witness("bad", raises_at=7), Witness("last")])
    assert found.errors == {"bad": "RuntimeError: cannot look"}
    assert set(found.signals) == {"first", "last", "damage"}
    np.testing.assert_array_equal(found.signals["first"]["shown"], found.signals["last"]["shown"])


def test_two_observers_of_one_name_are_an_own_slip(video):
    with pytest.raises(ValueError, match="witness"):
        scan(video, [Witness(), Witness()])


def test_a_scan_is_kept_whole_and_equal_scans_give_equal_bytes(video, tmp_path):
    first, again = (scan(video) for _ in range(2))
    assert not first.errors
    assert set(first.signals) == {observer.name for observer in default_observers()} | {"damage"}
    first.save(tmp_path / "1.npz")
    again.save(tmp_path / "2.npz")
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    kept = Scan.load(tmp_path / "1.npz")
    assert (kept.info, kept.end_pts, kept.time_base, kept.fps) == (
        first.info,
        first.end_pts,
        first.time_base,
        first.fps,
    )
    for name, arrays in first.signals.items():
        for key, values in arrays.items():
            assert kept.signals[name][key].dtype == values.dtype
            np.testing.assert_array_equal(kept.signals[name][key], values)


def test_a_torn_or_foreign_scan_is_refused(video, tmp_path):
    path = scan(video, [Witness()]).save(tmp_path / "a.npz")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(BadInput):
            Scan.load(path)


def test_a_clip_has_its_part_of_the_signals_and_its_own_frames(video, numbers):
    found = scan(video)
    clip = found.clip(found.span(10, 30))
    for name, arrays in clip.signals.items():
        assert all(10 <= index < 30 for index in arrays["index"]), name
    assert clip.signals["held"]["residual"].shape == (20,)
    assert numbers(clip.frames_at([11, 29])) == [11, 29]
    assert numbers(clip.frames_THWC) == list(range(10, 30))
    assert clip.spread(4) == [12, 17, 22, 27]
    pictures = thumbnails(clip.signals["thumbnails"])
    truth = read_video(video).frames_THWC
    for index, picture in pictures.items():
        assert np.abs(picture.astype(int) - truth[index]).mean() < 12
    assert pictures


def test_a_crop_is_taken_from_the_pixels(video):
    found = scan(video, [])
    clip = found.clip(found.span(0, 5), crop_xywh_px=(8, 4, 20, 12))
    np.testing.assert_array_equal(clip.frames_THWC, read_video(video).frames_THWC[:5, 4:16, 8:28])


# --------------------------------------------------------------------------------------------------------------------
# Files that are not as they should be


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "random.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").touch()
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0" * 16000)
    for name in ("random.mp4", "empty.mp4", "sound.wav", "absent.mp4"):
        with pytest.raises(BadVideo):
            scan(tmp_path / name)


def test_a_truncated_file_gives_its_good_frames_and_says_so(video, tmp_path):
    short = tmp_path / "short.mp4"
    data = video.read_bytes()
    short.write_bytes(data[: len(data) * 2 // 3])
    witness = Witness()
    found = scan(short, [witness])
    assert 3 < found.num_frames < 40
    assert luma_numbers(np.stack(witness.frames))[:-1] == list(range(found.num_frames - 1))
    assert any("early" in reason for reason in found.read_errors)


def test_flipped_bits_never_stop_a_scan(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    data = write_video(tmp_path / "a.mp4", noise, 24).read_bytes()
    damaged = 0
    for offset in np.linspace(data.index(b"mdat") + 1000, len(data) - 100, 8, dtype=int):
        (tmp_path / "b.mp4").write_bytes(data[:offset] + bytes([data[offset] ^ 0x55]) + data[offset + 1 :])
        found = scan(tmp_path / "b.mp4", [Witness()])
        assert found.num_frames
        assert bool(found.read_errors) == bool(len(found.signals["damage"]["index"]))
        damaged += bool(found.read_errors)
    assert damaged >= 2


def test_one_frame_has_all_signals(tmp_path, numbered):
    found = scan(write_video(tmp_path / "a.mp4", numbered(1), 24))
    assert not found.errors
    assert found.num_frames == 1
    assert found.span(0, 1).duration_s == Fraction(1, 24)


def test_a_variable_rate_keeps_its_time_stamps(tmp_path, numbered, encode):
    pts = [0, 1, 2, 6, 7, 20, 21, 22, 23, 40]
    path = encode(tmp_path / "a.mkv", numbered(10), pts=pts, time_base=Fraction(1, 24), options={"bf": "0"})
    found = scan(path)
    assert not found.errors
    times = (found.pts_T - found.pts_T[0]) * float(found.time_base) * 24
    np.testing.assert_allclose(times, pts, atol=0.02)
    assert found.fps < 8  # what the frames make, whatever the header says


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_turned_pictures_are_shown_upright(tmp_path, numbered, quarter_turns):
    upright = write_video(tmp_path / "a.mp4", numbered(4), 24)
    turned = tmp_path / "turned.mp4"
    with av.open(str(upright)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90 * quarter_turns)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    info_witnesses = [Witness("rgb", Needs(pixels="rgb")), Witness("small", Needs(width_px=24))]
    found = scan(turned, [*info_witnesses, *default_observers()])
    truth = read_video(turned).frames_THWC.astype(int)
    assert not found.errors
    assert np.abs(info_witnesses[0].frames[0] - truth[0]).mean() < 4
    assert info_witnesses[1].frames[0].shape == (round(24 * truth.shape[1] / truth.shape[2]), 24)


@pytest.mark.parametrize(
    ("size", "pixel_format", "codec", "options"),
    [
        ((65, 49), "yuv444p", "libx264", {}),
        ((64, 48), "yuv420p10le", "libx265", {"x265-params": "log-level=none"}),
        ((64, 48), "yuvj420p", "mjpeg", {}),
        ((64, 48), "yuv420p", "libx264", {"x264-params": "interlaced=1"}),
        ((8, 64), "yuv420p", "libx264", {}),
        ((64, 8), "yuv420p", "libx264", {}),
    ],
    ids=["odd", "ten_bit", "full_range", "interlaced", "narrow", "flat"],
)
def test_odd_files_have_all_signals(tmp_path, numbered, encode, size, pixel_format, codec, options):
    frames = numbered(10, *size) if min(size) >= 48 else numbered(10, 64, 64)[:, : size[1], : size[0]]
    path = encode(tmp_path / "a.mkv", frames, codec, pixel_format, options=options)
    witness = Witness("rgb", Needs(pixels="rgb"))
    found = scan(path, [witness, *default_observers()])
    assert not found.errors
    assert found.num_frames == 10
    assert np.abs(np.stack(witness.frames) - read_video(path).frames_THWC.astype(int)).mean() < 5
    assert any("interlaced" in note for note in found.notes) == ("interlaced=1" in str(options))


def test_time_stamps_that_run_backwards_are_moved_on_and_said(tmp_path, numbered, monkeypatch):
    """As some avi and ts files have them; writers refuse to make such a file, so the decoder's answer is bent here."""
    from anisora.media import stream

    path = write_video(tmp_path / "a.mp4", numbered(6), 24)
    real = stream._from_container

    def bent(*args):
        for number, frame in enumerate(real(*args)):
            yield replace(frame, pts=[0, 512, 512, 100, 2048, 2560][number])

    monkeypatch.setattr(stream, "_from_container", bent)
    found = scan(path, [])
    assert (np.diff(found.pts_T) > 0).all()
    assert any("backwards" in note for note in found.notes)


def test_animated_pictures_are_scanned_too(tmp_path, numbered):
    found = scan(write_video(tmp_path / "a.gif", numbered(12), 10))
    assert not found.errors
    assert found.num_frames == 12
    assert found.fps == 10


def test_the_length_of_flow_does_not_depend_on_where_it_lies_in_memory():
    from anisora.curation.observers.flow import lengths

    flow = np.random.default_rng(0).normal(size=(45, 80, 2)).astype(np.float32)
    wanted = np.hypot(flow[..., 0].astype(np.float64), flow[..., 1])
    assert np.allclose(lengths(flow), wanted, rtol=1e-6)
    rng, first = np.random.default_rng(1), lengths(flow)
    for offset in range(0, 240, 4):
        memory = np.empty(flow.nbytes + 240, np.uint8)[offset : offset + flow.nbytes]
        elsewhere = memory.view(np.float32).reshape(flow.shape)
        elsewhere[...] = flow
        clutter = [
            np.ones(rng.integers(1, 200_000), np.uint8) for _ in range(5)
        ]  # what is made next lies elsewhere too
        del clutter
        assert np.array_equal(lengths(elsewhere), first)
