"""Frames out of the middle of a file are those that counting from its start finds."""

from __future__ import annotations

from fractions import Fraction

import pytest

from anisora.errors import BadVideo
from anisora.media.reader import read_video
from anisora.media.span import read_frames
from anisora.media.writer import write_video
from anisora.records import Span


def span_of(clip, start, end):
    pts = [*clip.pts, clip.pts[-1] + 1]
    return Span(start_frame=start, end_frame=end, start_pts=pts[start], end_pts=pts[end], time_base=clip.time_base)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".gif"])
def test_every_start_is_exact(tmp_path, numbered, numbers, suffix):
    path = write_video(tmp_path / f"a{suffix}", numbered(40), "24000/1001" if suffix != ".gif" else 25)
    clip = read_video(path)
    for start in (0, 1, 17, 38):
        assert numbers(read_frames(path, span_of(clip, start, 40), range(start, 40))) == list(range(start, 40))
    assert numbers(read_frames(path, span_of(clip, 10, 30), [12, 29])) == [12, 29]


@pytest.mark.parametrize(
    "options", [{"g": "7", "bf": "3"}, {"g": "10", "x264-params": "open-gop=1:bframes=3:b-pyramid=normal"}]
)
def test_short_groups_open_and_closed_and_a_variable_rate(tmp_path, numbered, numbers, encode, options):
    pts = [t + t // 3 for t in range(48)]
    path = encode(tmp_path / "a.mp4", numbered(48), pts=pts, time_base=Fraction(1, 24), options=options)
    clip = read_video(path)
    for start in range(0, 46, 5):
        assert numbers(read_frames(path, span_of(clip, start, start + 2), [start, start + 1])) == [start, start + 1]


def test_a_file_that_is_too_short_for_its_span_is_refused(tmp_path, numbered):
    path = write_video(tmp_path / "a.mp4", numbered(10), 24)
    clip = read_video(path)
    too_long = Span(start_frame=4, end_frame=20, start_pts=clip.pts[4], end_pts=10**6, time_base=clip.time_base)
    with pytest.raises(BadVideo, match="fewer frames"):
        read_frames(path, too_long, range(4, 20))
