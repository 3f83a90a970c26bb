"""The DAQ modules: every packet once, in order, as a private copy; what is done with is told; ends and faults."""

from __future__ import annotations

import os
import random
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ftnids.core import RECOVERED, Ring, hash_frame
from ftnids.core.layout import fnv1a
from ftnids.core.packets import VOID, PacketBatch
from ftnids.core.reader import CHECKPOINT, FED, FORMAT, PID, SUFFIX, TAKEN, Mode, Reader, State
from ftnids.core.segment import path_of
from ftnids.errors import RingError

from .hosts import DAQ, HERE, Handed, Host, build, daq2_there, daq3_flags, running

START = 1_700_000_000_000_000


class Stream:
    """A ring with made-up packets, every seventh of them void, and its reader's segment."""

    def __init__(self, count: int, seed: int, *, start: int = 0, snaplen: int = 2000) -> None:
        rng = random.Random(seed)
        frames = [rng.randbytes(rng.randint(0, 300)) for _ in range(count)]
        self.ring = Ring.create(
            f"daq-{os.getpid()}",
            slots=1024,
            arena_bytes=1 << 20,
            recovered_slots=4096,
            recovered_bytes=2 << 20,
            agreed_slots=4096,
            linktype=1,
            snaplen=snaplen,
            seed=3,
        )
        caplen = np.array([len(frame) for frame in frames], np.uint32)
        wirelen = caplen + np.uint32(7)
        hashes = [hash_frame(frame, 3, len(frame) + 7) for frame in frames]
        refs = self.ring.store_recovered(PacketBatch(np.array(hashes, np.uint64), caplen, wirelen, b"".join(frames)))
        assert (refs >= RECOVERED).all()
        times = START + np.cumsum(np.array([rng.randint(0, 50) for _ in frames], np.int64))
        flags = np.zeros(count, np.uint8)
        flags[::7] = VOID
        refs[::7] = -1
        self.start = start
        self.packets = [
            None if flags[i] else Handed(int(times[i]), int(caplen[i]), int(wirelen[i]), f"{fnv1a(frames[i]):016x}")
            for i in range(count)
        ]
        self.ring.publish_agreed(start, refs, times, flags)
        self.reader = Reader.create(self.ring, start=start)

    def between(self, first: int, last: int) -> list[Handed]:
        """The packets of seqs [first, last) that are not void."""
        return [one for one in self.packets[first - self.start : last - self.start] if one is not None]

    def close(self) -> None:
        self.reader.close()
        self.ring.close(unlink=True)


@pytest.fixture
def stream(seed: int) -> Iterator[Stream]:
    stream = Stream(2000, seed)
    yield stream
    stream.close()


@pytest.fixture(scope="module")
def program3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [HERE / "host3.c", DAQ / "daq_ftnids.c", DAQ / "stream.c", DAQ / "checkpoint.c"]
    return build(tmp_path_factory.mktemp("daq3"), "host3", sources, *daq3_flags())


@pytest.fixture
def host3(program3: Path) -> Iterator[Host]:
    yield from running(program3)


@pytest.fixture(scope="module", params=["called", "loaded"])
def program2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module for libdaq 2, called itself or through libdaq's own loader."""
    daq2_there()
    folder = tmp_path_factory.mktemp("daq2")
    if request.param == "called":
        return build(folder, "host2", [HERE / "host2.c", DAQ / "daq2_ftnids.c", DAQ / "stream.c", DAQ / "checkpoint.c"])
    return build(folder, "loader2", [HERE / "host2.c"], "-DFTN_LOADER", "-ldaq", "-ldl")


@pytest.fixture
def host2(program2: Path) -> Iterator[Host]:
    if "loader" in program2.name and not (DAQ / "2/daq_ftnids.so").exists():
        pytest.skip("needs the module for libdaq 2 (make build)")
    yield from running(program2)


# -- libdaq 3 --------------------------------------------------------------------------------------


def test_batches_hold_what_there_is(stream: Stream, host3: Host) -> None:
    assert stream.reader.report().state == State.NEW
    assert host3.say("open", stream.ring.name, 65535) == "open"
    assert stream.reader.report().state == State.ATTACHED
    assert host3.say("start") == "0"
    assert stream.reader.report().pid == host3.process.pid
    assert stream.reader.report().state == State.READS
    assert host3.packets("receive", 64) == ("would_block", [])
    stream.ring.set_stable(10)
    assert host3.packets("receive", 64) == ("ok", stream.between(0, 10))
    assert host3.packets("receive", 64) == ("would_block", [])
    stream.ring.set_stable(50)
    assert host3.packets("receive", 5) == ("ok", stream.between(10, 16))
    assert (stream.reader.report().taken, stream.reader.report().fed) == (16, 1), "seq 0 is void"
    assert host3.say("stats").startswith("received 13 outstanding 13 passed 0 blocked 0 pool 256 available 243 ")
    assert host3.say("close") == "0"


def test_done_is_what_all_before_is_done(stream: Stream, host3: Host, seed: int) -> None:
    """Messages come back in any order, over many receives; a double and a foreign one are refused."""
    rng = random.Random(seed)
    stream.ring.set_stable(1000)
    stream.ring.set_end()
    host3.say("pool", 32)
    host3.say("open", stream.ring.name, 65535)
    host3.say("start")
    seqs = [seq for seq, packet in enumerate(stream.packets[:1000]) if packet]
    got: list[Handed] = []
    out: list[int] = []
    while len(got) < len(seqs):
        status, packets = host3.packets("receive", rng.randint(1, 40))
        assert status == ("ok" if packets else "nobuf")
        out += range(len(got), len(got) + len(packets))
        got += packets
        for _ in range(rng.randint(0, len(out))):
            number = out.pop(rng.randrange(len(out)))
            assert host3.say(rng.choice(["finalize", "block"]), number) == "0"
            first = min((seqs[one] for one in out), default=stream.reader.report().taken)
            assert stream.reader.report().fed == first
    assert got == stream.between(0, 1000)
    if not out:
        assert host3.packets("receive", 1)[0] in ("would_block", "eof")
    for number in out:
        assert host3.say("foreign", number) == "-7"
        assert host3.say("finalize", number) == "0"
        assert host3.say("finalize", number) == "-7", "it is not out any more"
    assert host3.say("stats").split(" pool ")[1].startswith("32 available 32")
    host3.say("close")


def test_the_end_comes_when_all_is_consumed(stream: Stream, host3: Host) -> None:
    host3.say("pool", 4096)
    host3.say("open", stream.ring.name, 65535)
    host3.say("start")
    stream.ring.set_end()
    assert host3.packets("receive", 64) == ("would_block", []), "not all is stable"
    stream.ring.set_stable(2000)
    assert host3.packets("receive", 4000) == ("ok", stream.between(0, 2000))
    assert [host3.packets("receive", 64) for _ in range(2)] == [("eof", [])] * 2
    assert stream.reader.report().state == State.ENDED
    host3.say("close")


def test_a_reader_begins_where_it_is_told_and_cuts_frames(seed: int, host3: Host) -> None:
    stream = Stream(100, seed, start=(1 << 33) - 50)
    try:
        stream.ring.set_stable(stream.start + 100)
        host3.say("open", stream.ring.name, 100)
        host3.say("start")
        status, packets = host3.packets("receive", 200)
        whole = stream.between(stream.start, stream.start + 100)
        assert status == "ok"
        assert [p.caplen for p in packets] == [min(p.caplen, 100) for p in whole]
        assert [(p.time_us, p.wirelen) for p in packets] == [(p.time_us, p.wirelen) for p in whole]
        assert host3.say("stats").endswith(" snaplen 100 linktype 1")
        host3.say("close")
    finally:
        stream.close()


def test_a_ring_that_begins_in_mid_stream_is_followed_there(seed: int, host3: Host) -> None:
    """The IDS is up before the replica knows where it joins."""
    stream = Stream(100, seed, start=5_000)
    stream.reader.close()
    reader = Reader.create(stream.ring, start=0)
    try:
        host3.say("open", stream.ring.name, 65535)
        host3.say("start")
        stream.ring.set_stable(5_040)
        assert host3.packets("receive", 64) == ("ok", stream.between(5_000, 5_040))
        assert reader.report().fed == 5_001
        host3.say("close")
    finally:
        reader.close()
        stream.close()


def test_an_interrupt_ends_a_wait(stream: Stream, host3: Host) -> None:
    host3.say("timeout", 1000)
    host3.say("open", stream.ring.name, 65535)
    host3.say("start")
    assert "interrupted" in host3.say("interrupt", 100)
    stream.ring.set_stable(3)
    while (found := host3.packets("receive", 8))[0] == "interrupted":
        pass
    assert found == ("ok", stream.between(0, 3))
    host3.say("close")


def test_one_reader_and_one_thread(stream: Stream, host3: Host, program3: Path) -> None:
    host3.say("open", stream.ring.name, 65535)
    second = Host(program3)
    said = second.say("open", stream.ring.name, 65535)
    assert f"process {host3.process.pid} reads this ring already" in said
    assert second.end() == 0
    host3.say("close")
    host3.say("instances", 2)
    assert "one packet thread" in host3.say("open", stream.ring.name, 65535)


def test_a_reader_whose_replica_is_gone_is_told(stream: Stream, host3: Host) -> None:
    host3.say("open", stream.ring.name, 65535)
    host3.say("start")
    stream.ring.set_stable(3)
    assert host3.packets("receive", 8)[0] == "ok"
    stream.ring.close(unlink=True)  # lets go of the lock, as a kill does
    assert host3.say("receive", 8) == "ftnids: the replica that made the ring is gone"
    host3.say("close")


def test_what_is_no_ring_is_one_clear_line(stream: Stream, host3: Host, seed: int) -> None:
    name, ring, reader = stream.ring.name, path_of(stream.ring.name), path_of(stream.ring.name, SUFFIX)
    assert "No such file or directory; is the replica running?" in host3.say("open", "missing", 100)
    assert "must be 1 to 64 bytes without a slash" in host3.say("open", "../" + name, 100)
    rng = random.Random(seed)
    whole = {path: path.read_bytes()[:4096] for path in (ring, reader)}
    for path, header in whole.items():
        for _ in range(60):
            at = rng.randrange(FORMAT.size if path == reader else 200)
            damaged = bytearray(header)
            damaged[at] ^= 1 << rng.randrange(8)
            with path.open("r+b") as file:
                file.write(damaged[:256])
            said = host3.say("open", name, 100)
            assert said.startswith(f"ftnids: {path}: "), (at, said)
        with path.open("r+b") as file:
            file.write(header[:256])
    os.truncate(reader, 100)
    assert "too short" in host3.say("open", name, 100)
    reader.unlink()
    assert "No such file" in host3.say("open", name, 100)


def test_a_segment_of_another_ring_is_refused(stream: Stream, host3: Host) -> None:
    path = path_of(stream.ring.name, SUFFIX)
    fields = list(FORMAT.unpack_from(path.read_bytes()))
    fields[4] += 1  # the ring's inode
    body = FORMAT.pack(*fields)[:-8]
    with path.open("r+b") as file:
        file.write(body + struct.pack("<Q", fnv1a(body)))
    assert "goes with another ring" in host3.say("open", stream.ring.name, 100)


# -- reading ahead ---------------------------------------------------------------------------------


@pytest.fixture
def forking(stream: Stream, host3: Host) -> Reader:
    """The host reads ahead, at most 50 packets beyond a checkpoint; 10 packets are stable, 1,000 may be read."""
    stream.reader.close()
    stream.reader = Reader.create(stream.ring, start=0, mode=Mode.FORK, span=50)
    host3.say("open", stream.ring.name, 65535)
    host3.say("start")
    stream.ring.set_stable(10)
    stream.ring._handle.speculative = 1_000
    return stream.reader


def give_back(host: Host, first: int, count: int) -> None:
    assert {host.say("finalize", number) for number in range(first, first + count)} == {"0"}


def test_ahead_of_what_is_stable_there_is_a_checkpoint(stream: Stream, host3: Host, forking: Reader) -> None:
    stable, ahead = stream.between(0, 10), stream.between(10, 60)
    assert host3.packets("receive", 64) == ("ok", stable)
    assert host3.packets("receive", 64) == ("would_block", []), "messages are out: this is no moment for a checkpoint"
    give_back(host3, 0, len(stable))
    assert host3.packets("receive", 64) == ("ok", ahead)
    report = forking.report()
    assert (report.checkpoint, report.fed, report.taken, report.checkpoints) == (10, 10, 60, 1)
    give_back(host3, len(stable), len(ahead))
    assert host3.packets("receive", 64) == ("would_block", []), "so far and no further"
    assert forking.report().fed == 10
    stream.ring.set_stable(60)
    assert host3.packets("receive", 64)[0] in ("ok", "would_block")
    assert forking.report().checkpoint in (60, None)
    assert forking.report().fed == 60
    host3.say("close")


def test_after_a_change_nothing_is_handed_out_before_the_word(stream: Stream, host3: Host, forking: Reader) -> None:
    give_back(host3, 0, len(host3.packets("receive", 64)[1]))
    assert host3.packets("receive", 5)[0] == "ok"
    stream.ring._handle.retract(500)
    stream.ring._handle.speculative = 1_000
    assert host3.packets("receive", 64) == ("would_block", [])
    forking.good(stream.ring.epoch)
    assert host3.packets("receive", 5)[0] == "ok"
    host3.say("close")


def test_a_checkpoint_goes_on_where_it_was_taken(stream: Stream, host3: Host, forking: Reader) -> None:
    give_back(host3, 0, len(host3.packets("receive", 64)[1]))
    assert host3.packets("receive", 64)[0] == "ok"
    taken = forking.report()
    host3.process.kill()
    host3.process.wait()
    stream.ring._handle.retract(20)
    stream.ring._handle.speculative = 30
    forking.good(stream.ring.epoch)
    forking.go_on()
    assert host3.answer() == ("ok", stream.between(10, 30)), "what the fork interrupted is answered anew"
    report = forking.report()
    assert (report.pid, report.taken, report.fed) == (taken.checkpoint_pid, 30, 10)
    assert (report.checkpoint, report.checkpoints) == (10, 2)
    for pid in (report.pid, report.checkpoint_pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    host3.killed = True


# -- the replica's side ----------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "value"), [(FED, 11), (TAKEN, 21), (FED, 2**64 - 1), (TAKEN, 4), (324, 9)], ids=str)
def test_a_report_that_cannot_be_is_refused(stream: Stream, offset: int, value: int) -> None:
    stream.ring.set_stable(20)
    longs, words = stream.reader._longs, stream.reader._words
    longs[TAKEN // 8], longs[FED // 8] = 10, 5
    assert (stream.reader.report().taken, stream.reader.report().fed) == (10, 5)
    if offset % 8:
        words[offset // 4] = value
    else:
        longs[offset // 8] = value
    with pytest.raises(RingError, match="its reader reports nonsense"):
        stream.reader.report()


def test_a_report_never_goes_back(stream: Stream) -> None:
    stream.ring.set_stable(20)
    stream.reader._longs[TAKEN // 8] = stream.reader._longs[FED // 8] = 10
    assert stream.reader.report().fed == 10
    stream.reader._longs[FED // 8] = 9
    with pytest.raises(RingError, match="reports nonsense"):
        stream.reader.report()


def test_a_new_run_gets_a_new_segment(stream: Stream) -> None:
    stream.ring.set_stable(20)
    stream.reader._words[PID // 4] = 7
    second = Reader.create(stream.ring, start=5)
    assert (second.report().pid, second.report().fed, second.report().checkpoint) == (0, 5, None)
    assert second._longs[CHECKPOINT // 8] == 2**64 - 1
    assert path_of(stream.ring.name, SUFFIX).stat().st_mode & 0o777 == 0o660
    second.close()
    second.close()
    assert not path_of(stream.ring.name, SUFFIX).exists()


# -- libdaq 2 --------------------------------------------------------------------------------------


def test_libdaq_2_hands_out_the_same(stream: Stream, host2: Host) -> None:
    assert host2.say("load", DAQ / "2") == "0 ftnids"
    assert "is the replica running?" in host2.say("open", "missing", 100)
    assert host2.say("open", stream.ring.name, 65535) == "open"
    assert host2.say("start") == "0"
    assert host2.packets("acquire", 10) == ("ok", []), "the time is over"
    stream.ring.set_stable(30)
    assert host2.packets("acquire", 10) == ("ok", stream.between(0, 12))
    assert (stream.reader.report().taken, stream.reader.report().fed) == (12, 12)
    assert host2.packets("acquire", 100) == ("ok", stream.between(12, 30))
    assert host2.say("break") == "0"
    assert host2.packets("acquire", 10) == ("ok", [])
    stream.ring.set_stable(2000)
    stream.ring.set_end()
    assert host2.packets("acquire", 0) == ("eof", stream.between(30, 2000))
    assert (stream.reader.report().state, stream.reader.report().fed) == (State.ENDED, 2000)
    passed = len(stream.between(0, 2000))
    assert host2.say("stats") == f"received {passed} passed {passed} snaplen 2000 linktype 1"
    assert host2.say("close") == "0"
