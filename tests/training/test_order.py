"""The order of samples: permutations, exact shares, and no memory of what came before."""

from collections import Counter

import pytest

from anisora.training.order import Schedule, Share, permuted


@pytest.mark.parametrize("num", [1, 2, 3, 7, 64, 65, 100])
def test_every_place_is_taken_once(num):
    assert sorted(permuted(place, num, "a") for place in range(num)) == list(range(num))


def test_keys_give_other_orders_and_one_key_the_same():
    orders = {key: [permuted(place, 50, key) for place in range(50)] for key in ("a", "b")}
    assert orders["a"] != orders["b"] != list(range(50))
    assert orders["a"] == [permuted(place, 50, "a") for place in range(50)]


def test_a_place_far_out_costs_what_a_near_one_does():
    assert 0 <= permuted(10**12, 10**15, "a") < 10**15


SHARES = (Share(num_samples=10, batch=3, num_batches=4), Share(num_samples=5, batch=2, num_batches=3))


def test_a_cycle_holds_exactly_the_batches_of_each_bucket():
    schedule = Schedule(SHARES, seed=1)
    for cycle in range(3):
        steps = range(cycle * 7, (cycle + 1) * 7)
        assert Counter(schedule.batch(step)[0] for step in steps) == {0: 4, 1: 3}


def test_every_clip_is_shown_as_often_as_the_others():
    """Over five cycles the first bucket shows 60 samples, six passes of its 10 clips, in whatever order."""
    schedule = Schedule(SHARES, seed=1)
    shown = Counter(
        index for step in range(35) for bucket, samples in [schedule.batch(step)] if bucket == 0 for index in samples
    )
    assert shown == dict.fromkeys(range(10), 6)


def test_orders_differ_between_cycles_and_seeds():
    def buckets(seed, cycle):
        return [Schedule(SHARES, seed=seed).batch(step) for step in range(cycle * 7, (cycle + 1) * 7)]

    assert buckets(1, 0) != buckets(1, 1)
    assert buckets(1, 0) != buckets(2, 0)
