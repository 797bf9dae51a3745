"""Shots from signals: what is a transition is found where it is, what only looks like one is not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from anisora.curation.observers.cut import Cut, CutParams
from anisora.curation.scan import Scan
from anisora.curation.shots import Boundary, ShotParams, boundaries, find_shots, rules
from anisora.errors import AssetMissing, BadInput
from anisora.media.video import VideoInfo
from anisora.synthetic import render_clip

HEIGHT, WIDTH = 54, 96


def scene(seed, frames, speed=0.3):
    """A textured picture that drifts, [frames, 54, 96, 3]."""
    return panned(seed, [t * speed for t in range(frames)])


def panned(seed, way_px):
    """A textured picture under a camera that is at these places, [frames, 54, 96, 3]."""
    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(0, 256, (6, 28, 3), np.uint8), (WIDTH * 4, HEIGHT), interpolation=cv2.INTER_CUBIC)
    shifts = [np.float32([[1, 0, -x], [0, 1, 0]]) for x in way_px]
    return np.stack([cv2.warpAffine(wide, m, (WIDTH, HEIGHT)) for m in shifts])


def mixed(a, b, weights):
    return np.stack([cv2.addWeighted(x, 1 - w, y, w, 0) for x, y, w in zip(a, b, weights, strict=True)])


def signal(frames, keep="near"):
    watcher = Cut(CutParams(keep=keep))
    for index, frame in enumerate(frames):
        watcher.feed(index, index, frame)
    return watcher.finish()


def as_scan(frames, keep="near"):
    rate = Fraction(24)
    info = VideoInfo(
        path=Path("a.mp4"), container="mp4", codec="h264", pixel_format="yuv420p", width_px=WIDTH, height_px=HEIGHT,
        fps=rate, num_frames=len(frames), duration_s=None, time_base=1 / rate,
    )  # fmt: skip
    pts = np.arange(len(frames))
    return Scan(info=info, pts_T=pts, end_pts=len(frames), time_base=1 / rate, signals={"cut": signal(frames, keep)})


def alike():
    """A cut at frame 40 between two pictures that differ little."""
    first = scene(1, 80)
    return np.concatenate([first[:40], mixed(first[40:], scene(2, 40), [0.2] * 40)])


def no_network(_tiny):
    raise AssertionError("plain things are not asked")


def test_cuts_are_found_to_the_frame_without_the_network():
    lengths = [30, 24, 41, 12, 36]
    frames = np.concatenate([scene(seed, length) for seed, length in enumerate(lengths)])
    found = boundaries(signal(frames), network=no_network)
    assert [(b.start, b.end, b.kind) for b in found] == [(t, t, "cut") for t in np.cumsum(lengths)[:-1]]


def test_one_scene_is_one_shot_at_any_speed():
    for speed in (0.0, 0.5, 3.0):
        assert rules(signal(scene(3, 60, speed)), ShotParams()) == ([], [])


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("value", [0, 255])
def test_flashes_are_no_cuts(length, value):
    frames = scene(1, 60)
    frames[30 : 30 + length] = value
    assert boundaries(signal(frames), network=no_network) == []


@pytest.mark.parametrize("colour", [0, 255])
def test_fades_are_one_transition_that_spans_both_slopes(colour):
    before, after = scene(1, 40), scene(2, 40)
    plain = np.full_like(before[:5], colour)
    slope = np.arange(1, 9) / 9
    before[-8:] = mixed(before[-8:], np.full_like(before[-8:], colour), slope)
    after[:8] = mixed(after[:8], np.full_like(after[:8], colour), slope[::-1])
    (found,) = boundaries(signal(np.concatenate([before, plain, after])), network=no_network)
    assert found.kind == "fade"
    assert abs(found.start - 32) <= 2
    assert abs(found.end - 53) <= 2


@pytest.mark.parametrize("length", [6, 10, 14])
def test_dissolves_are_found_with_their_extent(length):
    before, after = scene(1, 50), scene(2, 50)
    mix = mixed(before[-length:], after[:length], np.arange(1, length + 1) / (length + 1))
    frames = np.concatenate([before[:-length], mix, after[length:]])
    (found,) = boundaries(signal(frames), network=no_network)
    assert found.kind == "dissolve"
    assert abs(found.start - (50 - length)) <= 3
    assert abs(found.end - 50) <= 3


def test_a_dissolve_that_is_calmer_than_what_it_joins_is_left_to_the_network():
    way = np.concatenate([np.arange(40) * 7, 39 * 7 + np.arange(1, 11) * 0.3])
    before, after = panned(1, way), panned(2, way[::-1])
    mix = mixed(before[-10:], after[:10], np.arange(1, 11) / 11)
    sure, doubts = rules(signal(np.concatenate([before[:-10], mix, after[10:]])), ShotParams())
    assert not sure
    ((start, end),) = doubts
    assert 38 <= start < 45 < end <= 52


def test_shots_tile_the_video_but_for_the_transitions():
    before, after = scene(1, 50), scene(2, 50)
    mix = mixed(before[-10:], after[:10], np.arange(1, 11) / 11)
    frames = np.concatenate([scene(5, 30), before[:-10], mix, after[10:]])
    shots = find_shots(as_scan(frames), network=no_network)
    assert [shot.transition_in for shot in shots] == ["start", "cut", "dissolve"]
    assert [shot.transition_out for shot in shots] == ["cut", "dissolve", "end"]
    assert shots[0].span.end_frame == shots[1].span.start_frame == 30
    assert shots[0].span.start_frame == 0
    assert shots[-1].span.end_frame == len(frames)
    assert shots[-1].span.end_pts == len(frames)
    assert all(0 <= shot.confidence <= 1 for shot in shots)


def test_doubt_is_settled_by_the_network_and_by_nothing_else():
    """Two like scenes: the step between them is small."""
    frames = alike()
    found, doubts = rules(signal(frames), ShotParams())
    assert not found
    assert any(start <= 40 <= end for start, end in doubts)
    asked = []

    def network(tiny):
        asked.append(len(tiny))
        return np.where(np.arange(len(tiny)) == 25, 0.9, 0.1).astype(np.float32)  # the last frame before the place

    assert [b.start for b in boundaries(signal(frames), network=network)] == [40]
    assert sum(asked) < len(frames)
    assert boundaries(signal(frames), ShotParams(network="never"), network=network) == []


@pytest.mark.parametrize("apart", [1, 3])
def test_two_cuts_near_each_other_do_not_hide_one_another(apart):
    frames = np.concatenate([scene(1, 40), scene(2, apart), scene(3, 40)])
    cut = signal(frames)
    found, doubts = rules(cut, ShotParams())
    assert not found
    assert [place for place in doubts if place[0] <= 40 and 40 + apart < place[1]]
    tiny_index = cut["tiny_index"]  # what the network is to be shown is kept
    assert {*range(15, 65)} <= set(tiny_index.tolist())


def test_a_dark_picture_behind_a_bright_one_need_not_be_the_one_before():
    """A cut from one dark picture to a bright one that soon falls as dark, though it shows another."""
    before, dark = ((scene(seed, 40) / 2.5).astype(np.uint8) for seed in (1, 4))
    found, doubts = rules(signal(np.concatenate([before, scene(2, 5), dark])), ShotParams())
    assert not found
    assert [place for place in doubts if place[0] <= 40 and place[1] >= 45]


def test_where_the_network_cannot_be_had_doubt_is_left_uncut(caplog):
    def network(_tiny):
        raise AssetMissing("no weights")

    assert boundaries(signal(alike()), network=network) == []
    assert "left uncut" in caplog.text


def test_everywhere_takes_the_word_of_the_network():
    def network(tiny):
        out = np.zeros(len(tiny), np.float32)
        out[[19]], out[40:46] = 0.8, 0.7
        return out

    params = ShotParams(network="everywhere")
    assert boundaries(signal(scene(1, 60), "all"), params, network) == [
        Boundary(20, 20, "cut", pytest.approx(0.8)),
        Boundary(40, 46, "dissolve", pytest.approx(0.7)),
    ]
    with pytest.raises(BadInput, match="small frames"):
        boundaries(signal(scene(1, 60, 0.0)), params, network)


def test_no_signal_no_shots():
    scan = as_scan(scene(1, 3))
    bare = Scan(
        info=scan.info, pts_T=scan.pts_T, end_pts=3, time_base=scan.time_base, signals={}, errors={"cut": "x: y"}
    )
    with pytest.raises(BadInput, match="x: y"):
        find_shots(bare)


def test_one_frame_is_one_shot():
    (shot,) = find_shots(as_scan(scene(1, 1)))
    assert (shot.span.start_frame, shot.span.end_frame, shot.transition_in, shot.transition_out) == (
        0,
        1,
        "start",
        "end",
    )


def test_the_network_finds_a_cut_between_drawn_clips():
    """The published weights, where they can be had."""
    from anisora.measures.transnet import transitions

    clips = [render_clip(5, number, n_frames=length, fps=24, size_px=(96, 54)) for number, length in ((1, 40), (2, 30))]
    frames = np.concatenate([clip.video_THWC for clip in clips])
    tiny = np.stack([cv2.resize(frame, (48, 27), interpolation=cv2.INTER_AREA) for frame in frames])
    try:
        probability = transitions(tiny)
    except AssetMissing as reason:
        pytest.skip(str(reason))
    assert probability.shape == (70,)
    assert np.argmax(probability) == 39
    assert (probability > 0.5).sum() <= 2
