"""What a ring shows from outside: what is freed is left out, and frames that came in another form are told."""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftnids.core import Capture, PacketBatch, Ring, hash_frame
from ftnids.core.segment import path_of
from ftnids.doctor import stream
from ftnids.doctor.finding import Finding, Level
from ftnids.doctor.frames import Frame
from ftnids.doctor.stream import Followed, explain, follow
from tests.doctor.test_frames import CHANGES, FRAMES, START_NS, Change, ethernet, packet, routed, sample, tagged, write

NAME = f"doctor-test-{os.getpid()}"
SEED = 7
OWN, LOST = 200, 20  # captured, and recovered


# -- following a ring ---------------------------------------------------------------------------------


@contextlib.contextmanager
def made(folder: Path, name: str = NAME, *, ended: bool = True) -> Iterator[Ring]:
    """The ring of a replica that has captured OWN frames, recovered LOST, and agreed on all and one void seq.

    Its stream has `ended`, so that whoever follows it is not kept.
    """
    ring = Ring.create(
        name,
        slots=1_024,
        arena_bytes=1 << 20,
        recovered_slots=1_024,
        recovered_bytes=1 << 20,
        agreed_slots=1_024,
        linktype=1,
        snaplen=65_535,
        seed=SEED,
    )
    try:
        path = write(folder / "own.pcap", sample("a", FRAMES[:OWN]))
        with contextlib.closing(Capture.file(str(path), snaplen=65_535, bpf="", pace="topspeed")) as capture:
            while ring.head < OWN:
                capture.run(ring, OWN, 100)
        lost = FRAMES[OWN : OWN + LOST]
        lengths = np.array([len(one) for one in lost], np.uint32)
        hashes = np.array([hash_frame(one, SEED) for one in lost], np.uint64)
        recovered = ring.store_recovered(PacketBatch(hashes, lengths, lengths, b"".join(lost)))
        refs = np.concatenate([np.arange(OWN, dtype=np.int64), recovered, [np.int64(-1)]])
        times = np.arange(len(refs), dtype=np.int64) + START_NS // 1000
        ring.publish_agreed(0, refs, times, np.zeros(len(refs), np.uint8))
        if ended:
            ring.set_end()
        yield ring
    finally:
        ring.close(unlink=True)


@pytest.fixture
def rings(tmp_path: Path) -> Iterator[tuple[Ring, Ring]]:
    """The replica's ring, and the same for a reader."""
    with made(tmp_path) as ring, contextlib.closing(Ring.attach(NAME)) as reader:
        yield ring, reader


def data(frames: list[Frame]) -> list[bytes]:
    return [frame.data for frame in frames]


def test_all_that_is_agreed_is_copied(rings: tuple[Ring, Ring]) -> None:
    found = follow(rings[1], 60.0)
    assert data(found.own) == FRAMES[:OWN]
    assert data(found.recovered) == FRAMES[OWN : OWN + LOST]
    assert (found.missed, found.gone, found.linktype) == (0, False, 1)
    assert found.own[1].time_ns == START_NS + 1_000


def test_what_is_freed_is_left_out(rings: tuple[Ring, Ring]) -> None:
    ring, reader = rings
    ring.free_captured(30)
    ring.free_recovered(4)
    found = follow(reader, 60.0)
    assert (len(found.own), len(found.recovered), found.missed) == (OWN - 30, LOST - 4, 34)


@pytest.mark.parametrize("late", [False, True], ids=["before it is copied", "while it is copied"])
def test_what_is_freed_meanwhile_is_left_out(
    rings: tuple[Ring, Ring], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    ring, reader = rings
    gather = reader.gather

    def slow(refs: Any) -> PacketBatch:
        if not late:
            ring.free_captured(50)
        batch = gather(refs)
        ring.free_captured(50)
        return batch

    monkeypatch.setattr(reader, "gather", slow)
    found = follow(reader, 60.0)
    assert (len(found.own), len(found.recovered), found.missed) == (OWN - 50, LOST, 50)
    assert data(found.own) == FRAMES[50:OWN]


def test_one_that_is_overtaken_again_and_again_gives_up(
    rings: tuple[Ring, Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, reader = rings
    gather = reader.gather

    def slow(refs: Any) -> PacketBatch:
        ring.free_captured(ring.tail + 10)
        return gather(refs)

    monkeypatch.setattr(reader, "gather", slow)
    found = follow(reader, 60.0)
    assert (found.seen, found.missed) == (0, OWN + LOST)


def test_entries_that_may_be_written_over_are_left_out(rings: tuple[Ring, Ring]) -> None:
    """The index has 1,024 entries; `fed` is past those of the first seqs."""
    ring, reader = rings
    ring.set_stable(ring.agreed)
    ring.fed = ring.agreed
    refs = np.zeros(1_000, np.int64)
    ring.publish_agreed(ring.agreed, refs, refs, np.zeros(1_000, np.uint8))
    found = follow(reader, 60.0)
    assert len(found.own) == 1_000  # nothing of them is fed
    ring.set_stable(OWN)  # going back changes nothing
    ring.set_stable(OWN + LOST + 1 + 100)
    assert len(follow(reader, 60.0).own) == 900


def test_a_sample_is_bounded(rings: tuple[Ring, Ring], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BATCH", 16)
    monkeypatch.setattr(stream, "SAMPLE_PACKETS", 30)
    assert follow(rings[1], 60.0).seen == 32
    monkeypatch.setattr(stream, "SAMPLE_BYTES", 16 * len(FRAMES[0]))
    assert follow(rings[1], 60.0).seen == 16


def test_a_ring_that_is_taken_away_is_followed_to_its_end(tmp_path: Path) -> None:
    with made(tmp_path, ended=False), contextlib.closing(Ring.attach(NAME)) as reader:
        path_of(NAME).unlink()
        found = follow(reader, 60.0)
    assert (found.seen, found.gone) == (OWN + LOST, True)


def test_an_idle_ring_is_waited_for(tmp_path: Path) -> None:
    with made(tmp_path, ended=False), contextlib.closing(Ring.attach(NAME)) as reader:
        found = follow(reader, 0.02)
    assert (found.seen, found.gone) == (OWN + LOST, False)
    assert found.seconds >= 0.02


def only(findings: list[Finding], level: Level) -> Finding:
    for one in findings:
        assert one.why
        assert (one.do != "") == (one.level != Level.OK)
    (found,) = findings
    assert (found.level, found.name) == (level, "same_frames")
    return found


def test_a_ring_that_cannot_be_read_is_one_finding(tmp_path: Path) -> None:
    told = only(stream.examine(NAME, "a", "b", 0.01), Level.WARN)
    assert "is the replica running, and may you read it?" in told.what
    path = path_of(NAME)
    for spoil in (lambda: path.write_bytes(b"no ring" * 1_000), lambda: os.mkfifo(path)):
        spoil()
        try:
            told = only(stream.examine(NAME, "a", "b", 0.01), Level.WARN)
        finally:
            path.unlink()
        assert str(path) in told.what
    with made(tmp_path) as ring:
        assert only(stream.examine(NAME, "a", "b", 60.0), Level.OK).what.startswith(f"a captured {OWN} frames in ")
        ring.set_stable(ring.agreed)
        assert "no frame was agreed" in only(stream.examine(NAME, "a", "b", 60.0), Level.WARN).what


def test_a_ring_that_goes_while_it_is_followed_is_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(tmp_path):
        monkeypatch.setattr(stream, "follow", lambda ring, seconds: Followed(1, 0.5, gone=True))
        told = only(stream.examine(NAME, "a", "b", 60.0), Level.WARN)
    assert "was taken away 0.5 s after it was opened" in told.what


# -- what the frames say --------------------------------------------------------------------------------


def told(own: list[bytes], recovered: list[bytes], *, snaplens: tuple[int, int] = (65_535, 65_535)) -> list[Finding]:
    a, b = sample("a", own, snaplen=snaplens[0]), sample("b", recovered, snaplen=snaplens[1])
    return explain(Followed(1, 2.0, a.frames, b.frames), "a", "b")


def halves(frames: list[bytes], loss: float = 0.05) -> tuple[list[bytes], list[bytes]]:
    """What a port brings of `frames`, and what another one brings of them; each loses some."""
    draw = random.Random(1)
    return [one for one in frames if draw.random() >= loss], [one for one in frames if draw.random() >= loss]


def test_loss_is_no_fault() -> None:
    own, _ = halves(FRAMES)
    found = only(told(own, [one for one in FRAMES if one not in own]), Level.OK)
    assert f"captured {len(own)} frames in 2.0 s and recovered {300 - len(own)}" in found.what
    assert "lost, or too late" in found.what


def test_loss_of_frames_that_repeat_is_no_fault() -> None:
    assert only(told(FRAMES[:10] * 30, FRAMES[:10] * 3), Level.OK).level == Level.OK


@pytest.mark.parametrize("loss", [0.02, 0.1, 0.3])
def test_loss_on_a_mirror_of_both_sides_of_a_router_is_no_fault(loss: float) -> None:
    """Each packet comes twice, in two forms, on every port."""
    both = [form for frame in FRAMES for form in (frame, routed(frame))]
    own, _ = halves(both, loss)
    only(told(own, [one for one in both if one not in own]), Level.OK)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("change", "causes"), CHANGES, ids=[f"{n}" for n in range(len(CHANGES))])
def test_each_cause_is_named_and_no_other(change: Change, causes: list[str], swap: bool) -> None:
    own, others = halves(FRAMES)
    others = [change(one) for one in others]
    findings = told(others, own) if swap else told(own, others)
    assert [one.level for one in findings] == [Level.FAIL] * len(causes)
    for cause, one in zip(causes, findings, strict=True):
        assert cause in one.what
        assert "are loss" in one.what


@pytest.mark.parametrize(
    ("swap", "words"), [(False, "of b have VLAN tags that those of a"), (True, "of a have VLAN tags that those of b")]
)
def test_the_side_is_named(swap: bool, words: str) -> None:
    own, others = FRAMES, [tagged(one) for one in FRAMES]
    found = only(told(others, own) if swap else told(own, others), Level.FAIL)
    assert f"the frames {words} lack: 300 of 300 frames that a recovered" in found.what


def test_a_cause_that_changes_few_of_the_frames_is_named() -> None:
    """One network in ten is tagged; the other frames are lost at times."""
    own, others = halves([one for number, one in enumerate(FRAMES) if number % 10], 0.1)
    tens = FRAMES[::10]
    recovered = [tagged(one) for one in tens] + [one for one in others if one not in own]
    found = only(told(own + tens, recovered), Level.FAIL)
    assert "VLAN tags" in found.what
    assert f"30 of {len(recovered)} frames that a recovered; the other {len(recovered) - 30} are loss" in found.what


def test_a_flood_of_one_frame_is_explained_too() -> None:
    found = only(told([FRAMES[0]] * 500, [tagged(FRAMES[0])] * 480), Level.FAIL)
    assert "the frames of one have VLAN tags" in found.what


def test_frames_that_are_cut_shorter_are_named() -> None:
    found = only(told(FRAMES, FRAMES, snaplens=(65_535, 96)), Level.FAIL)
    assert "the frames of b are cut shorter (200" not in found.what
    assert "the frames of b are cut shorter" in found.what
    assert "96 in b" in found.what


def test_merged_segments_and_fragments_are_named() -> None:
    merged, pieces = [], []
    for number in range(100):
        whole = packet(number, size=4_380)
        merged.append(ethernet(whole))
        for place in range(0, 4_340, 1_460):
            begins = (int.from_bytes(whole[24:28], "big") + place).to_bytes(4, "big")
            pieces.append(ethernet(whole[:24] + begins + whole[28:40] + whole[40 + place : 40 + place + 1_460]))
    a, b = sample("a", merged, step=3), sample("b", pieces)
    found = only(explain(Followed(1, 2.0, a.frames, b.frames), "a", "b"), Level.FAIL)
    assert re.search(r"a has segments merged into frames of up to 4394 bytes: (99|100) frames", found.what)
    datagrams = [ethernet(packet(n, size=1_200, protocol=17)) for n in range(100)]
    parts = [ethernet(packet(n, size=800, protocol=17, fragment=0x2000)) for n in range(100)]
    found = only(told(datagrams, parts), Level.FAIL)
    assert "b has datagrams in fragments that are whole in a" in found.what


def test_a_port_that_brings_nothing() -> None:
    found = only(told([], FRAMES), Level.FAIL)
    assert "a captured none of 300 frames in 2.0 s: all came from b" in found.what
    found = only(told(FRAMES, []), Level.OK)
    assert "a sees what b sees" in found.what


def test_what_could_not_be_looked_at_is_said() -> None:
    found = Followed(1, 2.0, sample("a", FRAMES).frames, sample("a", FRAMES[:1]).frames, missed=12)
    assert "(12 more were freed too soon to be looked at)" in only(explain(found, "a", "b"), Level.OK).what


def test_hostile_frames_are_compared_too() -> None:
    draw = random.Random(7)
    junk = [draw.randbytes(draw.randrange(60)) for _ in range(300)]
    junk += [
        ethernet(draw.randbytes(draw.randrange(50)), kind) for kind in (b"\x08\x00", b"\x86\xdd", b"\x81\x00")
    ] * 20
    told(junk, [one[::-1] for one in junk])
    only(explain(Followed(101, 2.0, sample("a", junk).frames, sample("b", junk).frames), "a", "b"), Level.OK)


def test_tags_are_named_on_a_mirror_of_both_sides_of_a_router() -> None:
    both = [form for frame in FRAMES for form in (frame, routed(frame))]
    own, others = halves(both)
    found = only(told(own, [tagged(one) for one in others]), Level.FAIL)
    assert "the frames of b have VLAN tags" in found.what
