"""The judge of lives: what it must notice, and what it must not hold against anybody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ftnids.core import RandomDrop
from ftnids.lab import generate, lives, verify
from ftnids.lab.lives import NEVER, VOID, Life, Truth, View
from ftnids.lab.options import Options
from ftnids.lab.verify import Stream

FIRST = View(7, 1, "r0", ("r0", "r1"), 0)
ALONE = View(7, 2, "r0", ("r0",), 60)
OTHER = View(7, 2, "r1", ("r1",), 60)
AGAIN = View(7, 3, "r0", ("r0", "r1"), 80)


def stream(first: int, last: int) -> Stream:
    seqs = np.arange(first, last)
    return Stream((seqs + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), seqs * 100)


def life(replica: str, views: list[View], last: int, **more: Any) -> Life:
    return Life(replica, 0, 0, views, stream=stream(views[0].seq, last), **more)


def changed(one: Life, seq: int, *, packet_hash: int | None = None, time_us: int = 0) -> Life:
    hashes, times = one.stream.hash.copy(), one.stream.time_us.copy()
    if packet_hash is not None:
        hashes[seq - one.first] = packet_hash
    times[seq - one.first] += time_us
    return replace(one, stream=Stream(hashes, times))


KEPT = life("r0", [FIRST, ALONE, AGAIN], 100, in_order=True)


@pytest.mark.parametrize(
    "other",
    [
        life("r1", [FIRST], 55),  # killed, and a little behind
        life("r1", [AGAIN], 100),  # joined late
        changed(life("r1", [FIRST, OTHER], 90), 60, packet_hash=1),  # the other branch of a fork
        changed(life("r1", [FIRST, OTHER], 90), 58, packet_hash=VOID),  # which lacked what only the first branch had
        changed(life("r1", [View(8, 1, "r1", ("r1",), 0)], 90), 3, packet_hash=1),  # a lineage of its own
    ],
)
def test_lives_that_agree(other: Life) -> None:
    assert lives.disagreements([KEPT, other]) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (changed(life("r1", [FIRST], 55), 54, packet_hash=1), "differ in 1 packets, first at seq 54"),
        (changed(life("r1", [FIRST], 55), 3, time_us=1), "differ in 1 packets, first at seq 3"),
        (changed(life("r1", [FIRST], 55), 54, packet_hash=VOID), "first at seq 54"),  # it was stable there
        (changed(life("r1", [FIRST, OTHER], 90), 59, packet_hash=1), "first at seq 59"),
        (changed(life("r1", [AGAIN], 100), 99, packet_hash=1), "first at seq 99"),
        (life("r1", [replace(AGAIN, seq=81)], 100), "saw View"),
    ],
)
def test_lives_that_do_not(other: Life, words: str) -> None:
    (found,) = lives.disagreements([KEPT, other])
    assert words in found


def test_a_fork_is_told_from_a_death() -> None:
    reason = "member 0 is in view 2 without this replica, and that branch is the stronger one"
    assert lives.forked([KEPT, life("r1", [FIRST, OTHER], 90, reason=reason)])
    assert not lives.forked([KEPT, life("r1", [FIRST], 55, reason="member 0 is in view 2 without this replica")])
    assert not lives.forked([KEPT, life("r1", [FIRST], 55)])


def test_a_joiner_has_the_past_of_its_lineage() -> None:
    joined = life("r1", [AGAIN], 100)
    whole = lives.lineage(joined, [KEPT, life("r1", [FIRST], 55), joined])
    assert (whole.hash == KEPT.stream.hash).all()
    assert len(lives.lineage(joined, [joined])) == 20


def test_lives_are_read_from_log_and_files(tmp_path: Path) -> None:
    """Two lives, of which the first was killed in the middle of a line."""

    def line(event: str, **facts: object) -> str:
        return json.dumps({"event": event, "timestamp": "2026-01-01T00:00:01.000000Z", **facts})

    view: dict[str, object] = {"lineage": 7, "number": 1, "coordinator": "r0", "members": ["r0", "r1"], "seq": 0}
    log = [
        line("replica_up"),
        line("view", **view, captured_before=3),
        "suricata: words of another program",
        line("rejoining", reason="left behind"),
        line("replica_up"),
        line("view", **{**view, "number": 3, "seq": 40}, captured_before=5),
        line("stopping"),
        line("replica_down"),
    ]
    (tmp_path / "replica.log").write_text("\n".join(log) + "\n")
    (tmp_path / "hashes.17.txt").write_text("0 00000000000000aa 5\n1 00000000000000bb 6\n2 0000")
    (tmp_path / "hashes.txt").write_text("40 00000000000000cc 9\n")
    one, two = lives.read(tmp_path, "r1")
    assert (one.first, one.end, one.captured_before, one.in_order, one.stopped_us) == (0, 2, 3, False, NEVER)
    assert (two.first, two.end, two.captured_before, two.in_order) == (40, 41, 5, True)
    assert one.reason == "left behind"
    assert two.stopped_us < NEVER
    assert [view.number for view in (*one.views, *two.views)] == [1, 3]


def test_what_a_life_captured_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tap.pcap"
    generate.write(path, 3, connections=50, lookups=50, seconds=1.0)
    options = Options(out=tmp_path, loss=0.1)
    told = {"counters": {"captured": 0, "injected_drops": 0}}
    stage: Any = SimpleNamespace(tap_pcap=path, hash_seed=5, options=options, status=lambda name: told)
    truth = Truth(stage, 65_535)
    total = len(truth.link)
    kept = np.flatnonzero(~RandomDrop(0.1, 1.0, options.drop_seed(1)).decide(total))
    whole = Life("r1", 0, 0, [FIRST], captured_before=2, stopped_us=NEVER, in_order=True)
    captured = truth.captured(whole)
    assert captured is not None
    assert captured.tolist() == kept[2:].tolist()

    agreed = Stream(truth.link.hash[kept], truth.link.time_us[kept])
    assert not len(truth.missing(agreed, captured))
    assert not len(truth.foreign(agreed))
    lost = Stream(np.delete(agreed.hash, 7), np.delete(agreed.time_us, 7))
    assert truth.missing(lost, captured).tolist() == [kept[7]]
    alien = Stream(np.append(agreed.hash, np.uint64(1)), np.append(agreed.time_us, agreed.time_us[-1] + 10**6))
    assert truth.foreign(alien).tolist() == [len(kept)]
    # A frame whose two stamps are apart comes out twice; that its bytes are sent again later changes nothing.
    monkeypatch.setattr(lives, "STAMPS_US", 5_000)
    kind, first = np.unique(agreed.hash, return_index=True)
    apart = [agreed.time_us[agreed.hash == one][-1] - agreed.time_us[at] for one, at in zip(kind, first, strict=True)]
    again = first[int(np.argmax(apart))]
    assert max(apart) > lives.STAMPS_US
    twin = Stream(
        np.insert(agreed.hash, again, agreed.hash[again]), np.insert(agreed.time_us, again, agreed.time_us[again])
    )
    assert not len(truth.foreign(twin))

    half = Stream(agreed.hash[: len(kept) // 2], agreed.time_us[: len(kept) // 2])
    killed = truth.captured(replace(whole, in_order=False, stream=half))
    assert killed is not None
    assert 0 < len(killed) < len(kept) // 2
    late = replace(whole, started_us=int(truth.link.time_us[-1]))
    assert truth.captured(replace(late, in_order=False)) is None
    told["counters"] = {"captured": 70, "injected_drops": 20, "left_to_peers": 10}
    joined = truth.captured(late)
    assert joined is not None
    assert joined.min() >= total - 100
    assert verify.read_pcap(path, 65_535, 5).hash[joined].tolist() == truth.link.hash[joined].tolist()
