"""Attaching to what is no sound ring is one clear line, in both implementations the same, and never a crash."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from ftnids import limits
from ftnids.core import layout
from ftnids.core.layout import Description, StorePlace
from ftnids.core.ring import Ring
from ftnids.errors import RingError
from tests.core.helpers import Core, batch_of

NAME: Final = f"foreign-{os.getpid()}"
PATH: Final = Path("/dev/shm") / f"ftnids-{NAME}"
SOUND: Final = Description(
    linktype=1,
    snaplen=1000,
    seed=7,
    captured=StorePlace(1024, 1 << 20),
    recovered=StorePlace(1024, 1 << 20),
    agreed_slots=1024,
).place()


@pytest.fixture
def lay() -> Iterator[Callable[[bytes, int], None]]:
    """Lays bytes where a ring would be, in a file of a given size."""

    def write(data: bytes, size: int) -> None:
        with PATH.open("wb") as file:
            file.write(data)
            file.truncate(size)

    yield write
    PATH.unlink(missing_ok=True)


def refusal(core: Core) -> str:
    """Why attaching is refused, in each way of attaching."""
    reasons = set()
    for readonly in (True, False):
        with pytest.raises(RingError) as caught:
            core.Ring.attach(NAME, readonly=readonly)
        reasons.add(str(caught.value))
    (reason,) = reasons
    assert reason.startswith(f"ring {NAME}: {PATH}")
    assert "\n" not in reason
    return reason


def test_no_segment(core: Core) -> None:
    assert "No such file" in refusal(core)


def test_sound_description(core: Core, lay: Callable[[bytes, int], None]) -> None:
    lay(SOUND.pack(), SOUND.total_bytes)
    ring = core.Ring.attach(NAME)
    assert (ring.slots, ring.snaplen, ring.seed, ring.head) == (1024, 1000, 7, 0)
    ring.close()


@pytest.mark.parametrize("size", [0, 1, layout.HEADER_BYTES - 1])
def test_too_short_for_a_header(core: Core, lay: Callable[[bytes, int], None], size: int) -> None:
    lay(SOUND.pack()[:size], size)
    assert "too short" in refusal(core)


@pytest.mark.parametrize("missing", [1, layout.PAGE, SOUND.total_bytes - layout.HEADER_BYTES])
def test_truncated(core: Core, lay: Callable[[bytes, int], None], missing: int) -> None:
    lay(SOUND.pack(), SOUND.total_bytes - missing)
    assert "truncated" in refusal(core)


def test_every_flipped_bit_is_found(core: Core, lay: Callable[[bytes, int], None], seed: int) -> None:
    packed, source = SOUND.pack(), random.Random(seed)
    for at in range(len(packed)):
        flipped = bytearray(packed)
        flipped[at] ^= 1 << source.randrange(8)
        lay(bytes(flipped), SOUND.total_bytes)
        assert refusal(core)


def test_foreign_files(core: Core, lay: Callable[[bytes, int], None], seed: int) -> None:
    for data in (b"", b"\xff" * 8192, b"\x7fELF", random.Random(seed).randbytes(8192)):
        lay(data, 1 << 16)
        assert "not an ftnids ring" in refusal(core)


def sealed(description: Description) -> bytes:
    """The description with a right checksum, however wrong the rest is."""
    return replace(description, checksum=layout.fnv1a(description.pack()[:-8])).pack()


HUGE: Final = (1 << 64) - 4096
WRONG: Final = {
    "another version": replace(SOUND, version=layout.VERSION + 1),
    "wrong header size": replace(SOUND, header_bytes=64),
    "snaplen out of range": replace(SOUND, snaplen=0),
    "snaplen out of range ": replace(SOUND, snaplen=limits.MAX_SNAPLEN + 1),
    "number of slots": replace(SOUND, agreed_slots=0),
    "number of slots ": replace(SOUND, agreed_slots=1000),
    "number of slots  ": replace(SOUND, captured=replace(SOUND.captured, slots=1 << 63)),
    "number of slots   ": replace(SOUND, recovered=replace(SOUND.recovered, slots=limits.MAX_RING_SLOTS * 2)),
    "arena size": replace(SOUND, captured=replace(SOUND.captured, arena=HUGE)),
    "arena size ": replace(SOUND, recovered=replace(SOUND.recovered, arena=(1 << 20) + 8)),
    "arena size  ": replace(SOUND, captured=replace(SOUND.captured, arena=0)),
    "offsets": replace(SOUND, captured=replace(SOUND.captured, hash=HUGE)),
    "offsets ": replace(SOUND, recovered=replace(SOUND.recovered, frames=0)),
    "offsets  ": replace(SOUND, agreed_ref=SOUND.agreed_ref + 8),
    "offsets   ": replace(SOUND, total_bytes=4096),
    "truncated": replace(SOUND, captured=replace(SOUND.captured, slots=limits.MAX_RING_SLOTS)).place(),
    "truncated ": replace(SOUND, captured=replace(SOUND.captured, arena=limits.MAX_ARENA_BYTES)).place(),
}


@pytest.mark.parametrize("reason", WRONG)
def test_wrong_on_purpose(core: Core, lay: Callable[[bytes, int], None], reason: str) -> None:
    """A right checksum over wrong sizes and offsets helps nobody."""
    lay(sealed(WRONG[reason]), SOUND.total_bytes)
    assert reason.strip() in refusal(core)


def test_a_link_is_not_followed(core: Core, ring: Ring) -> None:
    PATH.symlink_to(f"/dev/shm/ftnids-{ring.name}")
    try:
        refusal(core)
        with pytest.raises(RingError):
            core.ring(NAME)
    finally:
        PATH.unlink()


def test_damaged_entries_are_no_packets(ring: Ring, seed: int) -> None:
    """An index entry that points outside the arena is a missing packet, not a crash."""
    refs = ring.store_recovered(batch_of([(b"x" * 500, 500)] * 3))
    is_ = Description.unpack(ring._segment.memory[: layout.HEADER_BYTES]).recovered
    at = np.frombuffer(ring._segment.memory, np.uint64, is_.slots, is_.at)
    caplen = np.frombuffer(ring._segment.memory, np.uint32, is_.slots, is_.caplen)
    at[1], caplen[2] = is_.arena - 499, 0xFFFFFFFF
    assert ring.gather(refs[:1]).data == b"x" * 500
    ring.publish_agreed(0, refs, np.arange(3), np.zeros(3, np.uint8))
    ring.set_stable(3)
    for bad in (1, 2):
        with pytest.raises(RingError, match="no packet"):
            ring.gather(refs[bad : bad + 1])
        with (
            pytest.raises(RingError, match=f"seq {bad} names a packet that is not in the ring"),
            Path(os.devnull).open("wb") as out,
        ):
            ring.export_pcap(out.fileno(), bad, 3)
    del at, caplen


def test_a_lying_counter_ends_an_export(ring: Ring) -> None:
    """Void entries are left out; a damaged `stable` would make them endless."""
    slots = ring.agreed_slots
    ring.publish_agreed(0, np.full(slots, -1), np.zeros(slots, np.int64), np.full(slots, 8, np.uint8))
    ring.set_stable(slots)
    with Path(os.devnull).open("wb") as out:
        assert ring.export_pcap(out.fileno(), 0, slots) == slots
        ring._handle.stable = (1 << 63) - 1
        with pytest.raises(RingError, match="seq 0 names a packet that is not in the ring"):
            ring.export_pcap(out.fileno(), 0, (1 << 63) - 1)


def test_limits_are_those_of_the_header() -> None:
    """`ring.h` repeats three limits, because the DAQ module reads no Python."""
    text = (Path(layout.__file__).parent / "ring.h").read_text()
    assert f"FTN_MAX_SNAPLEN UINT32_C({limits.MAX_SNAPLEN})" in text
    assert f"FTN_MAX_SLOTS (UINT64_C(1) << {limits.MAX_RING_SLOTS.bit_length() - 1})" in text
    assert f"FTN_MAX_ARENA (UINT64_C(1) << {limits.MAX_ARENA_BYTES.bit_length() - 1})" in text
