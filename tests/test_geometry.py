"""Laws of frames, slots, positions and sizes, exhaustive over every legal length that the models know."""

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anisora import geometry
from anisora.errors import BadPosition, BadSize

LENGTHS = range(1, 130, 4)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_every_pixel_frame_has_one_place_and_every_place_its_frames(stride):
    for num_latent_frames in range(1, 34):
        num_frames = geometry.pixel_frames(num_latent_frames, stride)
        assert geometry.latent_frames(num_frames, stride) == num_latent_frames
        places = [(geometry.slot(p, stride), geometry.channel(p, stride)) for p in range(num_frames)]
        assert len(set(places)) == num_frames
        folded = [p for f in range(num_latent_frames) for p in geometry.slot_frames(f, stride)]
        assert folded == list(range(num_frames))
        for frame, (slot, channel) in enumerate(places):
            assert geometry.slot_frames(slot, stride)[channel] == frame


def test_landings_are_slot_and_channel():
    assert geometry.landings([0, 1, 4, 5, 16]) == [(0, 0, 0), (1, 1, 0), (4, 1, 3), (5, 2, 0), (16, 4, 3)]


@pytest.mark.parametrize("num_frames", [-3, 0, 2, 3, 4, 32, 80])
def test_illegal_lengths_name_legal_neighbours(num_frames):
    with pytest.raises(BadSize) as caught:
        geometry.check_num_frames(num_frames)
    named = [int(word) for word in caught.value.hint.split() if word.isdigit()]
    assert named
    for neighbour in named:
        geometry.check_num_frames(neighbour)
        assert abs(neighbour - max(num_frames, 1)) < 4


def test_last_frame_is_reached_by_index_percentage_and_time_for_every_length():
    for num_frames in LENGTHS:
        last_s = Fraction(num_frames - 1, 16)
        for at in (-1, "-1", num_frames - 1, "100%", f"{float(last_s)}s"):
            assert geometry.resolve_position(at, num_frames, 16) == num_frames - 1


def test_reference_formula_misses_the_last_frame_of_16_in_32_lengths():
    """A documented fault of the public code (`image2video_any.py`), not ours: T = 8k + 5 has no guide at its end."""

    def public(p: float, num_frames: int) -> int:
        return round(int((num_frames - 1) * p) / 8) * 8

    lengths = LENGTHS[1:]
    missed = [t for t in lengths if public(1.0, t) != t - 1]
    assert len(lengths) == 32
    assert missed == [t for t in lengths if t % 8 == 5]
    assert len(missed) == 16
    assert sum(public(1.0, t) >= t for t in lengths) == 8
    assert not [t for t in lengths if geometry.resolve_position("100%", t, 16) != t - 1]


def test_percentages_round_half_up_for_every_length():
    for num_frames in LENGTHS:
        for tenths in range(0, 1001, 5):
            percent = Decimal(tenths) / 10
            exact = (percent / 100 * (num_frames - 1)).quantize(Decimal(1), ROUND_HALF_UP)
            assert geometry.resolve_position(f"{percent}%", num_frames, 16) == exact


@given(st.integers(0, 4000), st.sampled_from([8, 12, 16, 24, Fraction(24000, 1001)]))
def test_seconds_round_half_up(milliseconds, fps):
    frame = geometry.resolve_position(f"{milliseconds / 1000}s", 129, fps)
    exact = Fraction(milliseconds, 1000) * fps
    assert Fraction(-1, 2) < frame - exact <= Fraction(1, 2)


@given(st.fractions(-1000, 1000, max_denominator=64))
def test_round_half_up_is_the_nearest_and_ties_go_up(value):
    assert Fraction(-1, 2) < geometry.round_half_up(value) - value <= Fraction(1, 2)


@pytest.mark.parametrize("at", [33, -34, "33", "100.1%", "2.1s", "7s"])
def test_positions_outside_the_shot_are_refused_with_its_range(at):
    with pytest.raises(BadPosition, match=r"outside the shot.*frames 0 to 32"):
        geometry.resolve_position(at, 33, 16)


@pytest.mark.parametrize("at", ["", "half", "-5%", "-1s", "1.5", 0.5, True, None, "1 s 2"])
def test_unreadable_positions_are_refused(at):
    with pytest.raises(BadPosition, match="unreadable"):
        geometry.resolve_position(at, 33, 16)


def test_is_position_agrees_with_resolve_position():
    for text in ("0", "-1", " 12 ", "37%", "37.5 %", "1.5s", "a.png", "1.5", "50%s", ""):
        try:
            geometry.resolve_position(text, 129, 16)
            readable = True
        except BadPosition:
            readable = False
        assert geometry.is_position(text) == readable, text


def test_snap_is_the_nearest_multiple_of_eight_in_the_shot():
    for num_frames in LENGTHS:
        for frame in range(num_frames):
            snapped = geometry.snap_to_eighth(frame, num_frames)
            assert snapped % 8 == 0
            assert 0 <= snapped < num_frames
            assert all(abs(frame - snapped) <= abs(frame - other) for other in range(0, num_frames, 8))
    assert geometry.snap_to_eighth(4, 9) == 8


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([8, 16, 32]))
def test_illegal_sizes_name_a_legal_one_nearby(width, height, multiple):
    try:
        geometry.check_size((width, height), multiple)
        assert width % multiple == height % multiple == 0
    except BadSize as refused:
        near = tuple(int(side) for side in refused.hint.split("x"))
        geometry.check_size(near, multiple)
        assert all(abs(a - b) <= max(multiple // 2, multiple - b) for a, b in zip(near, (width, height), strict=True))


@given(
    st.fractions(Fraction(1, 4), 4, max_denominator=99), st.sampled_from([96 * 96, 128 * 128, 480 * 832, 720 * 1280])
)
def test_default_size_is_legal_near_the_area_and_near_the_aspect(aspect, area_px):
    width, height = geometry.size_for_aspect(aspect, area_px, 16)
    geometry.check_size((width, height), 16)
    assert 1 / 1.25 <= width * height / area_px <= 1.25
    # one step of the grid in either side is the most that rounding may cost
    assert (width - 16) / (height + 16) <= aspect <= (width + 16) / max(height - 16, 1)
