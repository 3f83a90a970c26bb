"""The packet hash: one number for the same bytes and wire length, whoever computes it."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ftnids.core import splitmix64
from tests.core.helpers import IMPLEMENTATIONS, Core, reference_hash

SEEDS = st.integers(0, 2**64 - 1)


def test_all_lengths_equal_xxhash(core: Core, seed: int) -> None:
    source = random.Random(seed)
    data = source.randbytes(2100)
    for length in [*range(300), *range(300, 2100, 37)]:
        for key in (0, 1, source.getrandbits(64)):
            assert core.hash_frame(data[:length], key) == reference_hash(data[:length], length, key)


@given(data=st.binary(max_size=1024), seed=SEEDS, more=st.integers(1, 1 << 20))
def test_a_cut_frame_is_another_packet(data: bytes, seed: int, more: int) -> None:
    for name in IMPLEMENTATIONS:
        core = Core(name)
        whole, cut = core.hash_frame(data, seed, len(data)), core.hash_frame(data, seed, len(data) + more)
        assert whole == core.hash_frame(data, seed) == reference_hash(data, len(data), seed)
        assert cut == whole ^ splitmix64(len(data) + more) != whole


def test_splitmix64_is_the_published_generator() -> None:
    """The first outputs of the generator seeded with 1234567, as published with other implementations of it."""
    gamma = 0x9E3779B97F4A7C15
    drawn = [splitmix64(1234567 + n * gamma) for n in range(3)]
    assert drawn == [6457827717110365317, 3203168211198807973, 9817491932198370423]
