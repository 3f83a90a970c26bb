"""Random sequences of put, free and publish against a model that is a list."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnids.core import RECOVERED
from tests.core.helpers import ARENA, SLOTS, Core, Packet, batch_of, contents, frames_of, write_pcap

SIZES = (0, 1, 7, 8, 60, 1514, 9000, 65535)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("put", "put", "free", "publish", "feed")),
        st.sampled_from(SIZES),
        st.integers(1, 100),
        st.floats(0, 1),
    ),
    min_size=1,
    max_size=30,
)


def rounded(frame: bytes) -> int:
    return max(8, -(-len(frame) // 8) * 8)


@dataclass
class Model:
    """What a store must hold: all frames ever put, and how many of them are freed."""

    frames: list[bytes] = field(default_factory=list)
    tail: int = 0

    @property
    def held(self) -> list[bytes]:
        return self.frames[self.tail :]

    def must_fit(self, frame: bytes) -> bool:
        """There is room for certain: whatever the end of the arena wastes is less than a frame."""
        used = sum(map(rounded, self.held))
        return len(self.held) < SLOTS and used + rounded(frame) + max(SIZES) + 8 <= ARENA

    def cannot_fit(self, frame: bytes) -> bool:
        return len(self.held) >= SLOTS or sum(map(rounded, self.held)) + rounded(frame) > ARENA


@given(implementation=st.sampled_from(("c", "python")), steps=STEPS, seed=st.integers(0, 1 << 30))
@settings(max_examples=20)
def test_recovered_store(implementation: str, steps: list[tuple[str, int, int, float]], seed: int) -> None:
    ring, model, source = Core(implementation).ring(), Model(), random.Random(seed)
    agreed: list[int] = []
    try:
        for what, size, count, share in steps:
            if what == "put":
                frames = [source.randbytes(size) for _ in range(count)]
                refs = ring.store_recovered(batch_of([(frame, len(frame)) for frame in frames])).tolist()
                for frame, ref in zip(frames, refs, strict=True):
                    assert not (model.must_fit(frame) and ref == -2)
                    assert not (model.cannot_fit(frame) and ref != -2)
                    assert ref in (-2, RECOVERED | len(model.frames))
                    if ref != -2:
                        model.frames.append(frame)
            elif what == "free":
                model.tail += int(len(model.held) * share)
                ring.free_recovered(model.tail)
            elif what == "publish" and len(agreed) - ring.fed + count <= SLOTS:
                refs = [RECOVERED | n for n in source.choices(range(len(model.frames) + 1), k=count)]
                keep = ring.stable + int((len(agreed) - ring.stable) * share)
                agreed[keep:] = refs
                ring.publish_agreed(keep, np.array(refs), np.zeros(count, np.int64), np.zeros(count, np.uint8))
                ring.set_stable(keep + count // 2)
            elif what == "feed":
                ring.fed = ring.fed + int((ring.stable - ring.fed) * share)
            assert (ring.recovered_tail, ring.recovered_head) == (model.tail, len(model.frames))
            held = ring.gather(np.arange(model.tail, len(model.frames)) | RECOVERED)
            assert frames_of(held) == model.held
            assert ring.agreed_entries(ring.fed, ring.agreed)[0].tolist() == agreed[ring.fed :]
    finally:
        ring.close(unlink=True)


@given(
    implementation=st.sampled_from(("c", "python")),
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=6),
    turns=st.lists(st.tuples(st.integers(1, 700), st.floats(0, 1)), min_size=1, max_size=15),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=20)
def test_captured_store(implementation: str, sizes: list[int], turns: list[tuple[int, float]], seed: int) -> None:
    """What a file holds comes out of the ring whole and in order, whatever is freed when."""
    source, core = random.Random(seed), Core(implementation)
    packets = [Packet(n * 1000, source.randbytes(source.choice(sizes)), 70_000) for n in range(600)] * 2
    with tempfile.TemporaryDirectory() as directory:
        path = write_pcap(Path(directory) / "x.pcap", packets)
        capture, ring, got = core.file(path), core.ring(), 0
    try:
        for most, share in [*turns, *((SLOTS, 1.0) for _ in range(100))]:
            put = capture.run(ring, most, 0)
            assert -1 <= put <= most
            assert [one[1:] for one in contents(ring, ring.tail, ring.head)] == [
                (packet.data, 70_000) for packet in packets[ring.tail : ring.head]
            ]
            got += max(put, 0)
            assert (got, capture.captured) == (ring.head, ring.head)
            ring.free_captured(ring.tail + int((ring.head - ring.tail) * share))
        assert got == len(packets)
    finally:
        capture.close()
        ring.close(unlink=True)
