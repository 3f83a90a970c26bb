"""The ring: made, attached to, filled, read, freed; limits and misuse end in one line."""

from __future__ import annotations

import fcntl
import grp
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftnids import limits
from ftnids.core import RECOVERED, PacketBatch
from ftnids.core.ring import Ring
from ftnids.errors import RingError
from tests.core.helpers import ARENA, SLOTS, Core, batch_of, contents, frames_of, some_packets, write_pcap

NewRing = Callable[..., Ring]


def segment(ring: Ring) -> Path:
    return Path("/dev/shm") / f"ftnids-{ring.name}"


def indices(*numbers: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def publish(ring: Ring, first: int, refs: list[int], flags: int = 0) -> None:
    """Agreed entries; seq n has the time n us."""
    times = np.arange(first, first + len(refs), dtype=np.int64)
    ring.publish_agreed(first, indices(*refs), times, np.full(len(refs), flags, np.uint8))


@pytest.fixture
def filled(core: Core, new_ring: NewRing, tmp_path: Path, seed: int) -> Ring:
    """A ring with 500 captured packets."""
    path = write_pcap(tmp_path / "filled.pcap", some_packets(500, seed, 400), nano=True)
    source, ring = core.file(path), new_ring()
    assert source.run(ring, SLOTS, 0) == 500
    source.close()
    return ring


# -- the segment ---------------------------------------------------------------------------------------
def test_new_ring_is_empty(ring: Ring) -> None:
    assert (ring.head, ring.tail, ring.recovered_head, ring.agreed, ring.stable, ring.fed) == (0,) * 6
    assert not ring.ended
    assert ring.watermark_ns == -(2**63)
    assert ring.hashes(0, 0).dtype == np.uint64
    assert ring.times(0, 0).dtype == np.int64
    assert len(ring.gather(indices()).data) == 0
    assert (ring.slots, ring.linktype, ring.snaplen) == (SLOTS, 1, 65535)


def test_sizes_are_rounded_up(new_ring: NewRing) -> None:
    ring = new_ring(slots=1500, recovered_slots=1025, agreed_slots=2048, arena_bytes=ARENA + 1)
    assert (ring.slots, ring.recovered_slots, ring.agreed_slots) == (2048, 2048, 2048)


@pytest.mark.parametrize(
    "bad",
    [
        {"slots": limits.MIN_RING_SLOTS - 1},
        {"recovered_slots": limits.MAX_RING_SLOTS + 1},
        {"agreed_slots": 0},
        {"arena_bytes": limits.MIN_ARENA_BYTES - 1},
        {"recovered_bytes": limits.MAX_ARENA_BYTES + 1},
        {"snaplen": 0},
        {"snaplen": limits.MAX_SNAPLEN + 1},
        {"group": "no-such-group"},
        {"name": "a/b"},
        {"name": "x" * 65},
    ],
    ids=str,
)
def test_refused(core: Core, bad: dict[str, Any]) -> None:
    with pytest.raises(RingError) as caught:
        core.ring(**bad)
    assert "\n" not in str(caught.value)
    assert str(next(iter(bad.values()))) in str(caught.value)


def test_more_than_the_memory_there_is(core: Core) -> None:
    with pytest.raises(RingError, match="not enough room in /dev/shm"):
        core.ring(arena_bytes=limits.MAX_ARENA_BYTES)


def test_mode_and_group(new_ring: NewRing) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    status = segment(new_ring(mode=0o640, group=group)).stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_gid == os.getegid()


def test_a_name_in_use(core: Core, ring: Ring) -> None:
    with pytest.raises(RingError, match="in use by a running replica"):
        core.ring(ring.name)


def test_what_a_killed_process_left_is_replaced(core: Core, new_ring: NewRing) -> None:
    name = f"killed-{os.getpid()}"
    code = "from tests.core.helpers import Core; import os; Core('c').ring(os.sys.argv[1]); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, name], check=True, cwd=Path(__file__).parents[2])
    old = core.Ring.attach(name)
    assert new_ring(name).name == name
    assert old.head == 0  # its reader keeps the old segment
    old.close()


@pytest.mark.parametrize("data", [b"thesis", bytes(8) + b"x", b"thesis" * 1000], ids=["short", "no magic", "long"])
def test_a_file_of_somebody_else_is_not_replaced(core: Core, data: bytes) -> None:
    path = Path("/dev/shm") / f"ftnids-foreign-{os.getpid()}"
    path.write_bytes(data)
    try:
        with pytest.raises(RingError, match=f"{path} is there and no ring of ftnids; .* move it away"):
            core.ring(f"foreign-{os.getpid()}")
        assert path.read_bytes() == data
    finally:
        path.unlink()


@pytest.mark.parametrize("size", [0, 4095, 1 << 20])
def test_what_a_process_left_that_was_killed_while_it_made_it_is_replaced(new_ring: NewRing, size: int) -> None:
    path = Path("/dev/shm") / f"ftnids-half-{os.getpid()}"
    path.write_bytes(bytes(size))
    assert new_ring(f"half-{os.getpid()}").head == 0


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced(core: Core, make: Callable[[Path], None]) -> None:
    path = Path("/dev/shm") / f"ftnids-odd-{os.getpid()}"
    make(path)
    try:
        with pytest.raises(RingError, match=f"{path} is there and no"):
            core.ring(f"odd-{os.getpid()}")
    finally:
        path.rmdir() if path.is_dir() else path.unlink()


def test_owner_keeps_its_lock(ring: Ring) -> None:
    with segment(ring).open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_closed_ring_says_so(new_ring: NewRing) -> None:
    ring = new_ring()
    ring.close(unlink=True)
    ring.close(unlink=True)
    for use in (lambda: ring.head, lambda: ring.set_end(), lambda: ring.wait_stable(0, 1), lambda: ring.hashes(0, 0)):
        with pytest.raises(RingError, match="is closed"):
            use()
    with pytest.raises(RingError, match="is closed"):
        ring.fed = 1


def test_views_outlive_the_ring(filled: Ring) -> None:
    hashes, times = filled.hashes(0, 100), filled.times(0, 100)
    before = hashes.tolist(), times.tolist()
    filled.close(unlink=True)
    assert (hashes.tolist(), times.tolist()) == before


def test_views_are_read_only_and_not_copied(filled: Ring) -> None:
    hashes = filled.hashes(10, 20)
    assert np.shares_memory(hashes, filled.hashes(0, 500))
    with pytest.raises(ValueError, match="read-only"):
        hashes[0] = 1


# -- captured --------------------------------------------------------------------------------------------
def test_reading_outside(filled: Ring) -> None:
    filled.free_captured(100)
    filled.free_captured(50)
    assert filled.tail == 100
    for first, last in ((99, 101), (400, 501), (300, 200), (-1, 5)):
        with pytest.raises(RingError, match="100 to 500"):
            filled.hashes(first, last)
        with pytest.raises(RingError, match="100 to 500"):
            filled.times(first, last)
    for ref in (99, 500, -1, RECOVERED, RECOVERED | 5, 2**63 - 1):
        with pytest.raises(RingError, match=f"slot reference {ref}$"):
            filled.gather(indices(200, ref))
    with pytest.raises(RingError, match="only 500 packets"):
        filled.free_captured(501)


def test_gather_takes_any_order(filled: Ring) -> None:
    packets = contents(filled, 0, 500)
    refs = [7, 3, 3, 499, 0]
    assert frames_of(filled.gather(indices(*refs))) == [packets[n][1] for n in refs]


def test_full_ring_makes_a_file_wait(core: Core, new_ring: NewRing, tmp_path: Path, seed: int) -> None:
    packets = some_packets(3 * SLOTS, seed, 60)
    source, ring = core.file(write_pcap(tmp_path / "x.pcap", packets, nano=True)), new_ring()
    assert source.run(ring, 10 * SLOTS, 1) == SLOTS
    assert source.run(ring, 10 * SLOTS, 1) == 0
    assert ring.watermark_ns == packets[SLOTS].time_ns - 1  # the next one is known
    ring.free_captured(10)
    assert source.run(ring, 10 * SLOTS, 1) == 10
    assert [one[0] for one in contents(ring, 10, SLOTS + 10)] == [p.time_ns for p in packets[10 : SLOTS + 10]]
    assert (source.ring_drops, ring.stats()["ring_drops"]) == (0, 0)
    source.close()


def test_fill_counts_slots_or_bytes(core: Core, new_ring: NewRing, tmp_path: Path, seed: int) -> None:
    """Whichever is fuller: small packets use up the slots, large ones the arena."""
    for size, least in ((60, SLOTS), (6_000, ARENA // 8_000)):
        packets = [replace(packet, data=packet.data.ljust(size, b".")) for packet in some_packets(2 * SLOTS, seed, 60)]
        source, ring = core.file(write_pcap(tmp_path / "x.pcap", packets, nano=True)), new_ring()
        assert ring.fill == 0.0
        source.run(ring, 10 * SLOTS, 1)
        assert ring.head >= least
        assert ring.fill > 0.99
        ring.free_captured(ring.head // 2)
        assert 0.45 < ring.fill < 0.55
        source.run(ring, 10 * SLOTS, 1)
        assert ring.fill > 0.99, "the arena has wrapped"
        ring.free_captured(ring.head)
        assert ring.fill == 0.0
        source.close()


def test_wrapped_arrays_are_whole(core: Core, new_ring: NewRing, tmp_path: Path, seed: int) -> None:
    packets = some_packets(SLOTS + 500, seed, 60)
    source, ring = core.file(write_pcap(tmp_path / "x.pcap", packets, nano=True)), new_ring()
    source.run(ring, SLOTS, 0)
    ring.free_captured(600)
    source.run(ring, SLOTS, 0)
    assert ring.times(600, SLOTS + 500).tolist() == [packet.time_ns for packet in packets[600:]]
    assert [one[1] for one in contents(ring, 600, SLOTS + 500)] == [packet.data for packet in packets[600:]]
    source.close()


# -- recovered -------------------------------------------------------------------------------------------
def test_recovered_packets_come_back(ring: Ring) -> None:
    packets = [(b"one", 3), (b"two cut", 700), (b"", 60), (b"x" * 65535, 65535)]
    refs = ring.store_recovered(batch_of(packets))
    assert refs.tolist() == [RECOVERED | n for n in range(4)]
    back = ring.gather(refs[::-1])
    assert list(zip(frames_of(back), back.wirelen.tolist(), strict=True)) == packets[::-1]


def test_recovered_packets_are_checked(ring: Ring) -> None:
    good = batch_of([(b"first", 5), (b"second", 6), (b"third", 5)])
    wrong_hash = PacketBatch(good.hash ^ np.array([0, 1, 0], np.uint64), good.caplen, good.wirelen, good.data)
    assert ring.store_recovered(wrong_hash).tolist() == [RECOVERED, -1, RECOVERED | 1]
    wrong_byte = PacketBatch(good.hash, good.caplen, good.wirelen, b"F" + good.data[1:])
    assert ring.store_recovered(wrong_byte).tolist() == [-1, RECOVERED | 2, RECOVERED | 3]
    wrong_wire = PacketBatch(good.hash, good.caplen, good.wirelen + np.uint32(1), good.data)
    assert ring.store_recovered(wrong_wire).tolist() == [-1, -1, -1]
    for data in (good.data[:-1], good.data + b"!", b""):
        assert ring.store_recovered(PacketBatch(good.hash, good.caplen, good.wirelen, data)).tolist() == [-1, -1, -1]
    assert ring.stats()["recovered_rejected"] == 14
    assert ring.recovered_head == 4


def test_recovered_lengths_are_bounded(new_ring: NewRing) -> None:
    ring = new_ring(snaplen=100)
    assert ring.store_recovered(batch_of([(b"x" * 100, 100), (b"x" * 101, 101), (b"y" * 10, 9)])).tolist() == [
        RECOVERED,
        -1,
        -1,
    ]
    huge = np.full(3, 0xFFFFFFFF, np.uint32)
    assert ring.store_recovered(PacketBatch(np.zeros(3, np.uint64), huge, huge, b"abc")).tolist() == [-1, -1, -1]
    with pytest.raises(RingError, match="differ in length"):
        ring.store_recovered(PacketBatch(np.zeros(2, np.uint64), huge, huge, b""))


def test_recovered_limits(ring: Ring) -> None:
    """Slots run out, or bytes do; what is freed can be used again."""
    small = batch_of([(bytes([n % 256]) * 10, 10) for n in range(SLOTS + 5)])
    assert ring.store_recovered(small).tolist()[-6:] == [RECOVERED | SLOTS - 1, -2, -2, -2, -2, -2]
    ring.free_recovered(SLOTS)
    large = batch_of([(bytes([n]) * 65535, 65535) for n in range(20)])
    refs = ring.store_recovered(large).tolist()
    stored = refs.index(-2)
    assert stored in (15, 16)  # of 16 in a MiB: one may not fit where the arena ends
    assert set(refs[stored:]) == {-2}
    assert ring.stats()["recovered_no_room"] == 5 + 20 - stored
    ring.free_recovered(SLOTS + 1)
    assert ring.store_recovered(batch_of([(b"z" * 65535, 65535)])).tolist() == [RECOVERED | SLOTS + stored]
    with pytest.raises(RingError, match="cannot free"):
        ring.free_recovered(ring.recovered_head + 1)
    with pytest.raises(RingError, match="slot reference"):
        ring.gather(indices(RECOVERED | SLOTS))


# -- agreed -----------------------------------------------------------------------------------------------
def test_agreed_entries(filled: Ring) -> None:
    publish(filled, 0, [3, 1, 2])
    publish(filled, 3, [RECOVERED | 9], flags=2)
    assert (filled.agreed, filled.stable) == (4, 0)
    refs, times, flags = filled.agreed_entries(1, 4)
    assert (refs.tolist(), times.tolist(), flags.tolist()) == ([1, 2, RECOVERED | 9], [1, 2, 3], [0, 0, 2])
    for first, last in ((-1, 2), (2, 5), (3, 1)):
        with pytest.raises(RingError, match="not in the agreed index"):
            filled.agreed_entries(first, last)


def test_what_is_not_stable_may_change(filled: Ring) -> None:
    publish(filled, 0, [0, 1, 2, 3])
    filled.set_stable(2)
    publish(filled, 2, [7, 8, 9])
    assert filled.agreed_entries(0, 5)[0].tolist() == [0, 1, 7, 8, 9]
    for first in (1, 6):
        with pytest.raises(RingError, match="does not follow"):
            publish(filled, first, [1])


def test_stable_only_grows(filled: Ring) -> None:
    publish(filled, 0, [0, 1, 2])
    filled.set_stable(2)
    filled.set_stable(1)
    assert filled.stable == 2
    with pytest.raises(RingError, match="only 3 are agreed"):
        filled.set_stable(4)
    with pytest.raises(RingError, match="only 2 are stable"):
        filled.fed = 3


def test_a_ring_may_start_at_any_seq(filled: Ring) -> None:
    publish(filled, 1_000_000, [0, 1])
    assert (filled.fed, filled.stable, filled.agreed) == (1_000_000, 1_000_000, 1_000_002)


def test_agreed_index_wraps_and_fills(filled: Ring) -> None:
    entries = [n % 500 for n in range(3 * SLOTS)]
    first = 0
    while first < len(entries):
        publish(filled, first, entries[first : first + 700])
        filled.set_stable(filled.agreed)
        assert filled.agreed_entries(first, filled.agreed)[0].tolist() == entries[first : first + 700]
        first = filled.fed = filled.agreed
    publish(filled, first, [0] * SLOTS)
    with pytest.raises(RingError, match=r"agreed index full.*ring\.slots"):
        publish(filled, first + SLOTS, [0])
    filled.set_stable(first + SLOTS)
    filled.fed = first + 1
    publish(filled, first + SLOTS, [0])


def test_wait_stable(filled: Ring) -> None:
    publish(filled, 0, [0, 1, 2])
    assert filled.wait_stable(0, 0.001) == 0
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.append(filled.wait_stable(1, 60)))
    reader.start()
    filled.set_stable(1)
    filled.set_stable(2)
    reader.join()
    assert seen == [2]


def test_the_end_wakes_a_reader(filled: Ring) -> None:
    publish(filled, 0, [0, 1, 2])
    filled.set_stable(1)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.append(filled.wait_stable(3, 60)))
    reader.start()
    filled.set_end()  # not yet: two packets are not stable
    assert filled.ended
    assert filled.wait_stable(1, 0.01) == 1
    filled.set_stable(3)
    reader.join()
    assert seen == [3]


# -- readers ----------------------------------------------------------------------------------------------
def test_a_reader_changes_nothing(core: Core, filled: Ring) -> None:
    publish(filled, 0, [0, 1])
    filled.set_stable(2)
    reader = core.Ring.attach(filled.name)
    assert contents(reader, 0, 500) == contents(filled, 0, 500)
    assert reader.agreed_entries(0, 2)[0].tolist() == [0, 1]
    assert reader.wait_stable(1, 1) == 2
    writes: list[Callable[[], object]] = [
        lambda: reader.free_captured(1),
        lambda: reader.store_recovered(batch_of([(b"x", 1)])),
        lambda: reader.set_end(),
        lambda: setattr(reader, "fed", 1),
        lambda: publish(reader, 2, [1]),
    ]
    for write in writes:
        with pytest.raises((RingError, ValueError), match="read-only"):
            write()
    reader.close()


@pytest.mark.parametrize("writer", ["c", "python"])
def test_either_reads_what_the_other_wrote(core: Core, writer: str, tmp_path: Path, seed: int) -> None:
    other = Core(writer)
    packets = some_packets(300, seed)
    source = other.file(write_pcap(tmp_path / "x.pcap", packets, nano=True))
    ring = other.ring()
    source.run(ring, SLOTS, 0)
    refs = ring.store_recovered(batch_of([(b"recovered", 9)]))
    publish(ring, 0, [*range(300), int(refs[0])])
    ring.set_stable(301)
    reader = core.Ring.attach(ring.name, readonly=False)
    try:
        assert contents(reader, 0, 300) == contents(ring, 0, 300)
        assert frames_of(reader.gather(reader.agreed_entries(300, 301)[0])) == [b"recovered"]
        reader.fed = 17
        assert (ring.fed, reader.stats()) == (17, ring.stats())
        stored = sum(-(-len(packet.data) // 8) * 8 for packet in packets)
        assert (ring.stats()["arena_used"], ring.stats()["arena_bytes"]) == (stored, ARENA)
        ring.free_captured(300)
        assert ring.stats()["arena_used"] == 0
    finally:
        source.close()
        reader.close()
        ring.close(unlink=True)
