"""What the replicas of a `Stage` left, life by life, against the truth.

A *life* is what one replica did from its start to its end, or to the moment from which it began anew.  Its log
says in which views it was, `hashes.txt` what it agreed on; of earlier lives these are put aside.  Lives of one
lineage must agree as far as their views go together: where one is a fork's other branch, up to the fork.

What a life captured is known without asking it: a replica's losses depend on its seed and the packet's number
alone, and the tap has all packets.  All that it captured as a member must be in its agreed stream; where it did not
end in order, up to what it agreed on last.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ftnids import limits
from ftnids.core import RandomDrop
from ftnids.lab import causes, verify
from ftnids.lab.stage import Stage
from ftnids.lab.verify import Stream

SLACK_US: Final = 50_000  # before the end of a life that was cut short: what may have been on its way
STAMPS_US: Final = limits.MAX_TOLERANCE_NS // 1_000  # as `reference.excuse` has it
NEVER: Final = 1 << 62
VOID: Final = 0  # the hash of a seq whose bytes nobody has

Key = tuple[int, int, str]


@dataclass(frozen=True)
class View:
    """A view as the log tells it."""

    lineage: int
    number: int
    coordinator: str
    members: tuple[str, ...]
    seq: int  # of the first packet that is decided in it

    @property
    def key(self) -> Key:
        """What tells it from all other views of a run."""
        return self.lineage, self.number, self.coordinator


@dataclass
class Life:
    """One life of one replica."""

    replica: str
    number: int
    started_us: int
    views: list[View] = field(default_factory=list)
    captured_before: int = 0  # packets of its stream before it was a member
    reason: str = ""  # why it failed, or began anew
    stopped_us: int = NEVER  # when it was told to end: it captured no more
    in_order: bool = False  # it ended with the stream
    hashes: Path = Path()
    pcap: Path = Path()
    stream: Stream = field(default_factory=lambda: Stream(np.empty(0, np.uint64), np.empty(0, np.int64)))

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.replica} (life {self.number})"

    @property
    def first(self) -> int:
        """The seq at which its agreed stream begins."""
        return self.views[0].seq if self.views else NEVER

    @property
    def end(self) -> int:
        """The seq behind its last packet."""
        return self.first + len(self.stream)

    def left(self, number: int) -> int:
        """The seq at which it left its view with this place in `views`."""
        return self.views[number + 1].seq if number + 1 < len(self.views) else NEVER


# -- reading ---------------------------------------------------------------------------------------


def events(log: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log in JSON; lines of other programs are left out."""
    for line in log.read_text(errors="replace").splitlines():
        with_brace = line.startswith("{")
        try:
            yield json.loads(line) if with_brace else {}
        except ValueError:
            continue


def read(folder: Path, replica: str) -> list[Life]:
    """The lives of a replica, oldest first.  FtnidsError when one of its files is something else."""
    lives: list[Life] = []
    for event in events(folder / "replica.log"):
        match event.get("event"):
            case "replica_up":
                lives.append(Life(replica, len(lives), _when_us(event)))
            case "stopping":
                lives[-1].stopped_us = _when_us(event)
            case "view" | "view_changed":
                life = lives[-1]
                life.captured_before = event.get("captured_before", life.captured_before)
                life.views.append(_view(event))
            case "replica_failed" | "rejoining" if lives and not lives[-1].in_order:
                lives[-1].reason = event["reason"]
            case "replica_down":
                lives[-1].in_order = True
    pcaps = files(folder, "agreed", "pcap") if (folder / "agreed.pcap").exists() else [Path()] * len(lives)
    for life, life.hashes, life.pcap in zip(lives, files(folder, "hashes", "txt"), pcaps, strict=True):
        if life.views:
            life.stream = read_hashes(life.hashes, life.first)
    return lives


def files(folder: Path, stem: str, kind: str) -> list[Path]:
    """The files of one kind that a replica's lives wrote, oldest first: those put aside, then the last one's."""
    return [*sorted(folder.glob(f"{stem}.*.{kind}")), folder / f"{stem}.{kind}"]


def _when_us(event: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(event["timestamp"]).timestamp() * 1e6)


def _view(event: dict[str, Any]) -> View:
    return View(event["lineage"], event["number"], event["coordinator"], tuple(event["members"]), event["seq"])


def read_hashes(path: Path, first: int) -> Stream:
    """A `hashes.txt` that counts from `first`; a last line that a killed process left unfinished is left out."""
    lines = path.read_text(encoding="ascii").split("\n")[:-1]
    fields = [line.split() for line in lines]
    assert [int(seq) for seq, _, _ in fields] == list(range(first, first + len(lines))), f"{path}: gaps in seq"
    return Stream(
        np.array([int(packet_hash, 16) for _, packet_hash, _ in fields], np.uint64),
        np.array([int(time_us) for _, _, time_us in fields], np.int64),
    )


def read_all(stage: Stage) -> list[Life]:
    """The lives of all replicas."""
    return [life for name in stage.options.names for life in read(stage.places.replica(name), name)]


def forked(lives: Sequence[Life]) -> bool:
    """Whether some replica went on in a view of its own while the others went on without it."""
    return any(
        life.views and not life.in_order and "without this replica" in life.reason and not _shared(life, lives)
        for life in lives
    )


def _shared(life: Life, lives: Sequence[Life]) -> bool:
    """Whether another life was in a life's last view, too."""
    last = life.views[-1].key
    return any(last in {view.key for view in other.views} for other in lives if other is not life)


# -- agreement ---------------------------------------------------------------------------------------


def disagreements(lives: Sequence[Life]) -> list[str]:
    """Where two lives differ that may not, in words."""
    return [words for one, other in itertools.combinations(lives, 2) if (words := disagreement(one, other))]


def disagreement(one: Life, other: Life) -> str:
    """Where two lives differ that may not, in words; "" when nowhere, or when they never were in one view."""
    keys = [view.key for view in other.views]
    common = [(i, keys.index(view.key)) for i, view in enumerate(one.views) if view.key in keys]
    if not common:
        return ""
    for i, j in common:
        if one.views[i] != other.views[j]:
            return f"{one.name} saw {one.views[i]}, {other.name} {other.views[j]}"
    i, j = common[-1]
    first, last = max(one.first, other.first), min(one.left(i), other.left(j), one.end, other.end)
    if last <= first:
        return ""
    here, there = slice(first - one.first, last - one.first), slice(first - other.first, last - other.first)
    mine, theirs = one.stream.hash[here], other.stream.hash[there]
    differ = (mine != theirs) | (one.stream.time_us[here] != other.stream.time_us[there])
    if one.left(i) != NEVER and other.left(j) != NEVER:
        # Each branch of a fork has void what was decided, not stable yet, and known to the other branch alone.
        differ &= (mine != VOID) & (theirs != VOID)
    if not differ.any():
        return ""
    return f"{one.name} and {other.name} differ in {differ.sum()} packets, first at seq {first + int(differ.argmax())}"


def lineage(life: Life, lives: Sequence[Life]) -> Stream:
    """A life's agreed stream with what its lineage had agreed on before it joined, as far as somebody was there."""
    before = [other for other in lives if other.first < life.first < NEVER and not disagreement(life, other)]
    keys = {view.key for view in life.views}
    for other in sorted(before, key=lambda one: one.first):
        if keys & {view.key for view in other.views}:
            ahead = slice(0, life.first - other.first)
            return Stream(
                np.concatenate([other.stream.hash[ahead], life.stream.hash]),
                np.concatenate([other.stream.time_us[ahead], life.stream.time_us]),
            )
    return life.stream


def pcap_faults(life: Life, snaplen: int, hash_seed: int) -> list[str]:
    """How a life's `agreed.pcap` differs from its `hashes.txt`; of one that was killed either may be ahead."""
    path, fed = life.pcap, life.stream.hash != VOID
    stated = Stream(life.stream.hash[fed], life.stream.time_us[fed])
    found = verify.read_pcap(path, snaplen, hash_seed)
    both = min(len(found), len(stated))
    if life.in_order and len(found) != len(stated):
        return [f"{path} holds {len(found)} packets, hashes.txt {len(stated)}"]
    differ = (found.hash[:both] != stated.hash[:both]) | (found.time_us[:both] != stated.time_us[:both])
    return [f"{path} differs from hashes.txt, first in packet {int(differ.argmax())}"] if differ.any() else []


# -- completeness ------------------------------------------------------------------------------------


class Truth:
    """All that went over the link, and what each life captured of it."""

    def __init__(self, stage: Stage, snaplen: int) -> None:
        self.link = verify.read_pcap(stage.tap_pcap, snaplen, stage.hash_seed)
        self._stage = stage

    def captured(self, life: Life) -> NDArray[np.int64] | None:
        """The places in `link` of what a life captured as a member and must have agreed on (int64[n], rising).

        None where it cannot be told: of a life that neither began before the traffic nor ended after it.
        """
        total, times = len(self.link), self.link.time_us
        last = times[-1]
        if life.started_us < times[0]:
            begun = 0
        elif life.in_order and life.stopped_us > last:
            counters = self._stage.status(life.replica)["counters"]
            begun = total - sum(counters[of] for of in ("captured", "injected_drops", "left_to_peers"))
        else:
            return None
        options = self._stage.options
        drop = RandomDrop(options.loss, 1.0, options.drop_seed(options.names.index(life.replica)))
        kept = begun + np.flatnonzero(~np.asarray(drop.decide(total - begun), bool))[life.captured_before :]
        if life.in_order and life.stopped_us > last:
            return kept
        ended = life.stopped_us if life.in_order else life.stream.time_us[-1] if len(life.stream) else 0
        return kept[times[kept] < ended - SLACK_US]

    def missing(self, agreed: Stream, captured: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places in `link` of captured packets that are not as often in an agreed stream."""
        places: NDArray[np.int64] = captured[surplus(self.link.hash[captured], agreed.hash)]
        return places

    def foreign(self, agreed: Stream) -> NDArray[np.int64]:
        """The places in an agreed stream of packets that were not as often on the link.

        Where the machine is preempted between two ports of the hub, their two stamps of one frame are further apart
        than any clock fit can know, and it comes out twice, as docs/lab.md says: such twins are left out.
        """
        too_many = agreed.hash[surplus(agreed.hash, self.link.hash)]
        here, there = (np.flatnonzero(np.isin(hashes, too_many)) for hashes in (agreed.hash, self.link.hash))
        # Of equals on the link, each is the agreed one nearest in time: a repeat seconds later is not the one too many.
        matched = causes.matched(
            Stream(self.link.hash[there], self.link.time_us[there]), Stream(agreed.hash[here], agreed.time_us[here])
        )
        found = here[matched < 0]
        return np.array([x for x in found if agreed.hash[x] != VOID and not self._twin(agreed, x)], np.int64)

    def traced(self, agreed: Stream, place: int) -> str:
        """Where and when a packet was agreed on, and when its bytes were on the link, for messages."""
        equals = [f"{seq} at {agreed.time_us[seq]}" for seq in np.flatnonzero(agreed.hash == agreed.hash[place])]
        sent = self.link.time_us[self.link.hash == agreed.hash[place]].tolist()
        return f"the first is seq {place}: its bytes are agreed as {', '.join(equals)}, and were on the link at {sent}"

    @staticmethod
    def _twin(agreed: Stream, place: int) -> bool:
        first, last = np.searchsorted(agreed.time_us, agreed.time_us[place] + np.array([-STAMPS_US, STAMPS_US + 1]))
        return bool(np.count_nonzero(agreed.hash[first:last] == agreed.hash[place]) > 1)


def surplus(many: NDArray[np.uint64], few: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The places in `many` of what is not as often in `few`."""
    left = Counter(few.tolist())
    found = []
    for place, packet_hash in enumerate(many.tolist()):
        if left[packet_hash] > 0:
            left[packet_hash] -= 1
        else:
            found.append(place)
    return np.array(found, np.int64)
