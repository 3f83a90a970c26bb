"""Batches of packets: picked from, and cut into parts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnids.core import PacketBatch

frames = st.lists(st.binary(min_size=0, max_size=40), max_size=30)


def batch_of(contents: list[bytes]) -> PacketBatch:
    lengths = np.array([len(c) for c in contents], np.uint32)
    return PacketBatch(np.arange(len(contents), dtype=np.uint64), lengths, lengths + 1, b"".join(contents))


def contents_of(batch: PacketBatch) -> list[bytes]:
    ends = np.cumsum(batch.caplen.astype(int))
    return [batch.data[e - n : e] for e, n in zip(ends.tolist(), batch.caplen.tolist(), strict=True)]


@settings(max_examples=60)
@given(frames, st.data())
def test_select_is_a_list_comprehension(contents: list[bytes], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.booleans(), min_size=len(contents), max_size=len(contents)))
    picked = batch_of(contents).select(np.array(wanted, bool))
    assert contents_of(picked) == [c for c, w in zip(contents, wanted, strict=True) if w]
    assert picked.hash.tolist() == [i for i, w in enumerate(wanted) if w]
    assert (picked.wirelen == picked.caplen + 1).all()


@settings(max_examples=60)
@given(frames, st.integers(1, 100))
def test_parts_are_the_whole_and_keep_to_the_limit(contents: list[bytes], most: int) -> None:
    batch = batch_of(contents)
    parts = list(batch.parts(most))
    assert [c for _, part in parts for c in contents_of(part)] == contents
    assert [i for where, _ in parts for i in range(where.start, where.stop)] == list(range(len(contents)))
    assert all(len(part.data) <= most or len(part.hash) == 1 for _, part in parts)
