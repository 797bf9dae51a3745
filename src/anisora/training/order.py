"""Which samples a step shows, as arithmetic: nothing is remembered, so a resumed run goes on at any step at once.

Every pass over a bucket's samples has an order of its own, made by a keyed permutation that is computed for one place at a
time. Batches of all buckets are shuffled among each other the same way, each bucket having its exact share of a cycle.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_ROUNDS = 4


def permuted(place: int, num: int, key: str) -> int:
    """Where `place` goes in the permutation of range(num) that `key` names, in constant time and memory.

    A Feistel network over the next even number of bits, walked until it lands inside the range (Black and Rogaway 2002,
    "Ciphers with arbitrary finite domains").
    """
    half_bits = max(1, ((num - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = place >> half_bits, place & mask
        for turn in range(_ROUNDS):
            digest = hashlib.blake2b(f"{key}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest) & mask)
        place = left << half_bits | right
        if place < num:
            return place


@dataclass(frozen=True, kw_only=True)
class Share:
    """One bucket of the schedule: how many samples it has, how many a batch takes, how many batches a cycle holds."""

    num_samples: int
    batch: int
    num_batches: int


@dataclass(frozen=True)
class Schedule:
    """Batches of several buckets, in a shuffled cycle that repeats with another order each time."""

    shares: tuple[Share, ...]
    seed: int

    @property
    def cycle_steps(self) -> int:
        """Steps until every bucket has had its batches: one epoch."""
        return sum(share.num_batches for share in self.shares)

    def batch(self, step: int) -> tuple[int, list[int]]:
        """The bucket of a step, and the samples of it that are shown."""
        cycle, place = divmod(step, self.cycle_steps)
        number = permuted(place, self.cycle_steps, f"{self.seed}/cycle/{cycle}")
        for bucket, share in enumerate(self.shares):
            if number < share.num_batches:
                first = (cycle * share.num_batches + number) * share.batch
                return bucket, [self._sample(bucket, first + offset) for offset in range(share.batch)]
            number -= share.num_batches
        raise AssertionError("a permutation leads nowhere outside")

    def _sample(self, bucket: int, place: int) -> int:
        visit, place = divmod(place, self.shares[bucket].num_samples)
        return permuted(place, self.shares[bucket].num_samples, f"{self.seed}/{bucket}/{visit}")
