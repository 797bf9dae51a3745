"""Reading: every frame once, in order, at its time, upright, in the right colours; or one plain refusal."""

import csv
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from anisora.errors import BadVideo
from anisora.media.reader import iter_frames, load_mask_video, probe, read_video
from anisora.media.writer import write_video

# ---- time


def test_variable_rate_keeps_times_and_resamples_by_them(tmp_path, numbered, numbers, encode):
    ticks = [0, 1, 3, 4, 8, 9, 12]  # of 1/24 s
    path = encode(tmp_path / "vfr.mp4", numbered(len(ticks)), pts=ticks)
    clip = read_video(path)
    assert numbers(clip.frames_THWC) == list(range(7))
    assert [time * 24 for time in clip.times_s] == ticks
    assert clip.is_vfr
    even = read_video(path, at_fps=24)
    assert not even.is_vfr
    assert even.fps == 24
    assert [time * 24 for time in even.times_s] == list(range(len(even)))
    held = [max(i for i, tick in enumerate(ticks) if tick <= t) for t in range(13)]
    assert numbers(even.frames_THWC)[:13] == held
    assert numbers(read_video(path, at_fps=12).frames_THWC)[:7] == held[::2]


@pytest.mark.parametrize("fps", ["24", "24000/1001", "30000/1001", "12", "25", "60"])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_resampling_to_the_own_rate_changes_nothing(tmp_path, numbered, numbers, fps, suffix):
    """Also in webm, whose rounded milliseconds fall on either side of the true times."""
    path = write_video(tmp_path / f"a{suffix}", numbered(40), fps)
    assert numbers(read_video(path, at_fps=fps).frames_THWC) == list(range(40))


def test_doubling_and_halving_the_rate(tmp_path, numbered, numbers):
    path = write_video(tmp_path / "a.mp4", numbered(12), 24)
    assert numbers(read_video(path, at_fps=48).frames_THWC) == [i // 2 for i in range(24)]
    assert numbers(read_video(path, at_fps=8).frames_THWC) == [0, 3, 6, 9]


def test_a_raw_stream_without_times_is_counted(tmp_path, numbered, numbers, encode):
    path = encode(tmp_path / "a.h264", numbered(6), options={"bf": "0"})
    clip = read_video(path)
    assert numbers(clip.frames_THWC) == list(range(6))
    assert len(set(clip.times_s)) == 6


def test_streaming_and_the_first_frames_only(tmp_path, numbered, numbers):
    path = write_video(tmp_path / "a.mp4", numbered(20), 24)
    frames = list(iter_frames(path))
    assert numbers(np.stack([frame.rgb_HWC for frame in frames])) == list(range(20))
    assert frames[-1].end_s == Fraction(20, 24)
    assert numbers(read_video(path, num_frames=3).frames_THWC) == [0, 1, 2]
    with pytest.raises(BadVideo, match="num_frames=0"):
        read_video(path, num_frames=0)


# ---- pictures


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_and_mirroring_are_applied(tmp_path, numbered, encode, quarter_turns, mirrored):
    frames = numbered(2)
    path = encode(tmp_path / "a.mp4", frames, options={"crf": "4"}, rotation=(90 * quarter_turns, mirrored))
    expected = np.rot90(frames[0], quarter_turns)  # counter-clockwise, then mirrored
    expected = expected[:, ::-1] if mirrored else expected
    found = read_video(path).frames_THWC[0]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 4
    info = probe(path)
    assert (info.width_px, info.height_px) == (found.shape[1], found.shape[0])


@pytest.mark.parametrize(
    ("pixel_format", "is_full", "matrix"),
    [
        ("yuv420p", False, 1),
        ("yuv420p", False, 5),
        ("yuvj420p", True, 5),
        ("yuv444p", False, 1),
        ("yuv420p10le", False, 1),
        ("yuv422p10le", False, 9),
        ("yuv444p10le", False, 1),
        ("yuv420p", False, 2),
    ],
)
def test_colours_follow_the_matrix_and_range(tmp_path, encode, pixel_format, is_full, matrix):
    """Planes are computed here by the definition (ITU-R BT.601, 709, 2020), so no converter checks itself.

    Matrix 2 is "unspecified", which in a small picture means BT.601.
    """
    kr, kb = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}.get(matrix, (0.299, 0.114))
    rgb = np.array([[200, 40, 90], [30, 180, 220], [128, 128, 128], [250, 240, 20]])
    red, green, blue = rgb.T / 255
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = np.stack([(blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
    scale = 4 if "10" in pixel_format else 1
    y = (255 * luma if is_full else 16 + 219 * luma) * scale
    uv = (128 + (255 if is_full else 224) * chroma) * scale
    frames = []
    for index in range(4):
        frame = av.VideoFrame(32, 32, pixel_format)
        for plane, value in zip(frame.planes, (y[index], uv[0, index], uv[1, index]), strict=True):
            num_bytes = 2 if scale == 4 else 1
            plane.update(np.full(plane.buffer_size // num_bytes, round(value), f"<u{num_bytes}"))
        frames.append(frame)
    tags = {"colorspace": matrix, "color_range": 2 if is_full else 1}
    path = encode(tmp_path / "a.mp4", frames, pixel_format=pixel_format, options={"qp": "0"}, **tags)
    found = read_video(path).frames_THWC
    assert np.abs(found.astype(int) - rgb[:, None, None]).max() <= 2
    assert probe(path).bit_depth == (10 if scale == 4 else 8)


def test_interlaced_and_unsquare_pixels_are_said(tmp_path, numbered, encode):
    path = encode(tmp_path / "a.mp4", numbered(3), options={"x264-params": "tff=1"}, sample_aspect_ratio=Fraction(4, 3))
    clip = read_video(path)
    assert any("interlaced" in note for note in clip.notes)
    assert any("4/3" in note for note in clip.notes)
    assert probe(path).is_interlaced
    assert probe(path).sample_aspect == Fraction(4, 3)
    assert read_video(encode(tmp_path / "b.mp4", numbered(3))).notes == ()


def test_transparent_webm_shows_the_background(tmp_path, encode):
    frames = []
    for alpha in (0, 255):
        rgba = np.zeros((32, 32, 4), np.uint8)
        rgba[..., 1], rgba[..., 3] = 255, alpha
        frames.append(av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format="yuva420p"))
    path = encode(
        tmp_path / "a.webm", frames, codec="libvpx-vp9", pixel_format="yuva420p", options={"auto-alt-ref": "0"}
    )
    found = read_video(path, background=(200, 0, 0)).frames_THWC[:, 16, 16].astype(int)
    assert np.abs(found - [[200, 0, 0], [0, 255, 0]]).max() <= 4


# ---- animated pictures


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animated_pictures(tmp_path, suffix):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [Image.new("RGB", (20, 10), colour) for colour in colours]
    pictures[0].save(
        tmp_path / f"a{suffix}", save_all=True, append_images=pictures[1:], duration=[40, 80, 120], lossless=True
    )
    clip = read_video(tmp_path / f"a{suffix}")
    assert clip.frames_THWC[:, 5, 5].tolist() == [list(colour) for colour in colours]
    assert clip.times_s == (0, Fraction(40, 1000), Fraction(120, 1000))
    assert clip.duration_s == Fraction(240, 1000)
    assert clip.is_vfr
    assert probe(tmp_path / f"a{suffix}").fps == clip.fps == Fraction(25, 2)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_transparent_animations_show_the_background(tmp_path, suffix):
    pictures = [Image.new("RGBA", (16, 16)) for _ in range(3)]
    for index, picture in enumerate(pictures):
        picture.paste((255, 0, 0, 255), (index * 4, 4, index * 4 + 4, 12))
        picture.putpixel((15, 15), (0, 0, 0, 128))  # WebP's encoder drops an alpha plane without partial values
    pictures[0].save(
        tmp_path / f"a{suffix}", save_all=True, append_images=pictures[1:], duration=50, disposal=2, lossless=True
    )
    found = read_video(tmp_path / f"a{suffix}", background=(0, 0, 9)).frames_THWC
    for index in range(3):
        found[index, 15, 15] = (0, 0, 9)
        is_red = (found[index] == [255, 0, 0]).all(-1)
        assert is_red.sum() == 4 * 8
        assert is_red[4:12, index * 4 : index * 4 + 4].all()
        assert (found[index][~is_red] == [0, 0, 9]).all()


def test_hasty_gifs_play_as_browsers_play_them(tmp_path):
    pictures = [Image.new("L", (4, 4), level) for level in (0, 99, 200)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=0)
    assert read_video(tmp_path / "a.gif").times_s == (0, Fraction(1, 10), Fraction(2, 10))


def test_a_still_is_a_video_of_one_frame(tmp_path):
    Image.new("RGB", (6, 4), "red").save(tmp_path / "a.jpg")
    assert read_video(tmp_path / "a.jpg").frames_THWC.shape == (1, 4, 6, 3)


# ---- sequences


def test_sequences_sort_by_number_and_take_any_name(tmp_path):
    for number in (10, 2, 1, 9):
        Image.new("L", (6, 4), number).save(tmp_path / f"cut_{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    for source in (tmp_path, tmp_path / "cut_*.png", tmp_path / "cut_%d.png"):
        clip = read_video(source, fps=12)
        assert clip.frames_THWC[:, 0, 0, 0].tolist() == [1, 2, 9, 10]
        assert clip.fps == 12
        assert clip.notes == ("the numbering leaves out 3 to 8",)
    assert read_video(tmp_path).fps == 24


def test_bad_sequences_name_the_still(tmp_path):
    _refused(tmp_path, "no stills")
    _refused(tmp_path / "*.png", "no stills")
    Image.new("L", (6, 4)).save(tmp_path / "a1.png")
    Image.new("L", (6, 5)).save(tmp_path / "a2.png")
    _refused(tmp_path, "differ in size", "a2.png", "6x5", "6x4")
    (tmp_path / "a2.png").write_bytes((tmp_path / "a1.png").read_bytes()[:40])
    _refused(tmp_path, "a2.png")


# ---- masks


def test_mask_videos(tmp_path):
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[1, :8], frames[2] = 255, 51
    path = write_video(tmp_path / "m.mkv", frames, 24, lossless=True)
    mask_THW = load_mask_video(path)
    assert mask_THW.dtype == np.float32
    assert mask_THW.mean((1, 2)).tolist() == pytest.approx([0, 0.5, 0.2])
    Image.new("RGBA", (4, 4)).save(tmp_path / "clear.png")
    assert not load_mask_video(tmp_path / "clear.png").any()


# ---- bad input


def _refused(path, *words, **options):
    with pytest.raises(BadVideo) as error:
        read_video(path, **options)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_files_that_are_no_video(tmp_path, numbered):
    write_video(tmp_path / "shot.mp4", numbered(3), 24)
    _refused(tmp_path / "shto.mp4", "does not exist", "shot.mp4")
    (tmp_path / "empty.mp4").touch()
    _refused(tmp_path / "empty.mp4", "empty")
    playlist, script = "#EXTM3U\nshot.mp4\n", "ffconcat version 1.0\nfile shot.mp4\n"
    for name in ("a.mp4", "a.txt", "a.m3u8", "a.ffconcat", "a.srt"):
        (tmp_path / name).write_text(playlist if name == "a.m3u8" else script)
        _refused(tmp_path / name, "not a video", "text")
    for name in ("r.mp4", "r.webm", "r.gif", "r.webp"):
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
        _refused(tmp_path / name, name)


def test_sound_without_pictures(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0" * 16000)
    _refused(tmp_path / "a.wav", "no video", "audio only")
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _refused(tmp_path / "a.m4a", "no video", "audio only")


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_truncated_files_say_how_many_frames_came(tmp_path, numbered, numbers, suffix):
    path = write_video(tmp_path / f"a{suffix}", numbered(48), 24)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    _refused(path, "cut short", "frames decoded", path.name)
    clip = read_video(path, keep_damaged=True)
    assert 3 < len(clip) < 48
    assert numbers(clip.frames_THWC[:-1]) == list(range(len(clip) - 1))
    assert clip.notes[0].startswith(f"damaged: {len(clip)} ")


def test_a_recording_that_was_not_finished(tmp_path, numbered, encode):
    data = encode(tmp_path / "a.mp4", numbered(10)).read_bytes()  # without faststart: the index comes last
    (tmp_path / "a.mp4").write_bytes(data[: data.index(b"moov") - 4])
    _refused(tmp_path / "a.mp4", "without its index")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_truncated_animations(tmp_path, numbered, numbers, suffix):
    pictures = [Image.fromarray(frame) for frame in numbered(10)]
    path = tmp_path / f"a{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=50)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    _refused(path, path.name)
    path.write_bytes(whole[: len(whole) * 3 // 4])
    if suffix != ".webp":  # Pillow opens no WebP that is cut short
        clip = read_video(path, keep_damaged=True)
        assert 1 < len(clip) < 10
        assert clip.notes[0].startswith("damaged")
        assert numbers(clip.frames_THWC) == list(range(len(clip)))


def test_damage_in_the_middle_is_refused_or_noted(tmp_path, numbered):
    path = write_video(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8), 24)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + len(data) // 3] = b"\xa5" * (len(data) // 3)
    path.write_bytes(data)
    _refused(path, "damaged", "frames decoded")
    assert read_video(path, keep_damaged=True).notes[0].startswith("damaged")


def test_a_lost_transport_packet_is_noticed(tmp_path, encode):
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    path = encode(tmp_path / "a.ts", noise, options={"g": "1", "bf": "0"})
    assert len(read_video(path)) == 12
    data = path.read_bytes()
    middle = len(data) // 2 // 188 * 188
    path.write_bytes(data[:middle] + data[middle + 188 :])
    _refused(path, "damaged", "frames decoded")


def test_damage_that_h264_conceals_is_noticed_where_the_decoder_does(tmp_path):
    """Single bytes, which no video codec has checksums for: the decoder's own word is what there is."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", noise, 24)
    data, refused = path.read_bytes(), 0
    for offset in np.linspace(data.index(b"mdat") + 1000, len(data) - 100, 20, dtype=int):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 0x55]) + data[offset + 1 :])
        try:
            read_video(path)
        except BadVideo:
            refused += 1
    assert refused >= 3


def test_limits_are_stated(tmp_path, numbered):
    path = write_video(tmp_path / "a.mp4", numbered(9), 24)
    _refused(path, "too large", "64x48", max_px=64 * 48 - 1)
    _refused(path, "does not fit in memory", max_bytes=64 * 48 * 3 * 8)
    assert len(read_video(path, max_bytes=64 * 48 * 3 * 9)) == 9
    _refused(write_video(tmp_path / "a.gif", numbered(2), 24), "too large", max_px=100)


def test_probing_does_not_decode_the_rest(tmp_path, numbered, encode):
    path = encode(tmp_path / "a.mp4", numbered(30), options={"g": "1"})
    whole = probe(path)
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat"), data.index(b"moov")
    data[(start + end) // 2 : end - 8] = bytes(end - 8 - (start + end) // 2)
    path.write_bytes(data)
    assert probe(path) == whole
    assert whole.num_frames == 30


# ---- real files


@pytest.mark.parametrize(
    "codec",
    ["gif", "WEBP RGBA", *(pytest.param(name, marks=pytest.mark.slow) for name in ("h264", "mpeg4"))],
)
def test_real_clips_have_the_frames_their_manifest_lists(real_clips, codec):
    """The smallest clip of each codec: count and size against the manifest, which another program wrote."""
    rows = [row for row in csv.DictReader((real_clips / "manifest.csv").open()) if row["codec"] == codec]
    row = min(rows, key=lambda row: int(row["bytes"]))
    shapes = [frame.rgb_HWC.shape for frame in iter_frames(real_clips / row["file"])]
    assert len(shapes) == probe(real_clips / row["file"]).num_frames == int(row["frames"])
    assert set(shapes) == {(int(row["height"]), int(row["width"]), 3)}


def test_gifs_decode_as_ffmpeg_decodes_them(real_clips):
    """Two decoders that share no code agree on every pixel of a real GIF with partial frames."""
    path = min((real_clips / "sakuga").glob("*.gif"), key=lambda path: path.stat().st_size)
    with av.open(str(path)) as container:
        theirs = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(read_video(path).frames_THWC, np.stack(theirs))
