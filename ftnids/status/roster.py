"""What a replica knows of the whole set: its own snapshot and the last that came from each peer.

The main loop stores what comes and nothing more.  The records are taken apart when somebody asks, on that one's
thread: a replica that nobody watches does not pay for it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ftnids import limits
from ftnids.status.snapshot import Snapshot

FORMAT: Final = 1  # of a line of the status socket
OVER: Final = ("ended", "failed")  # states in which a replica says nothing more
ABSENT: Final = "absent"  # never heard of
DEAD: Final = "dead"  # silent for longer than STATUS_DEAD_S


@dataclass(frozen=True)
class Member:
    """One member as another, or a viewer, knows it."""

    name: str
    age_s: float | None = None  # since it was heard last; None: never
    snapshot: Snapshot | None = None  # the last one

    @property
    def state(self) -> str:
        """What it says of itself (starting, waiting, running, ended, failed), `dead`, or `absent`."""
        if self.age_s is None or self.snapshot is None:
            return ABSENT
        if self.snapshot.state in OVER:
            return self.snapshot.state
        return DEAD if self.age_s > limits.STATUS_DEAD_S else self.snapshot.state

    @property
    def alive(self) -> bool:
        """Whether it was heard lately, and has not ended."""
        return self.state not in (ABSENT, DEAD, *OVER)


@dataclass(frozen=True)
class SetView:
    """The whole set, as one replica knows it at one moment."""

    cluster: str
    source: str  # the member who tells
    time: float  # when, by its clock: seconds since the epoch
    members: Sequence[Member] = field(default_factory=tuple)

    def json(self) -> bytes:
        """One line of JSON, without its end."""
        tree = {
            "format": FORMAT,
            "cluster": self.cluster,
            "from": self.source,
            "time": self.time,
            "members": [
                {
                    "name": one.name,
                    "state": one.state,
                    "age_s": None if one.age_s is None else round(one.age_s, 3),
                    "snapshot": None if one.snapshot is None else one.snapshot.tree(),
                }
                for one in self.members
            ],
        }
        return json.dumps(tree, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, line: bytes) -> SetView:
        """The view in a line of the status socket.  ValueError where it is none, or of another format."""
        try:
            tree = json.loads(line)
            if tree["format"] != FORMAT:
                raise ValueError(f"format {tree['format']!r} of the status socket is not known here; this is {FORMAT}")
            members = tuple(
                Member(
                    str(one["name"]),
                    None if one["age_s"] is None else float(one["age_s"]),
                    None if one["snapshot"] is None else Snapshot.of(one["snapshot"]),
                )
                for one in tree["members"]
            )
            return cls(str(tree["cluster"]), str(tree["from"]), float(tree["time"]), members)
        except (KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError("no view of a set") from None

    def later(self, seconds: float, gone: str = "") -> SetView:
        """The same `seconds` later without news; member `gone` is known to answer no more."""
        return replace(
            self,
            time=self.time + seconds,
            members=tuple(
                replace(
                    one,
                    age_s=max(one.age_s + seconds, limits.STATUS_DEAD_S + 0.001 if one.name == gone else 0.0),
                )
                if one.age_s is not None
                else one
                for one in self.members
            ),
        )


class Roster:
    """The members' last snapshots.  `names` are the configured members', of which `me` is this replica."""

    def __init__(self, cluster: str, names: Sequence[str], me: int) -> None:
        self._cluster, self._names, self._me = cluster, list(names), me
        self._own: tuple[Snapshot, float] | None = None
        self._raw: dict[int, tuple[bytes, float]] = {}  # by member: the record as it came, and when
        self._lock = threading.Lock()
        self._parsed: dict[int, tuple[bytes, Snapshot | None]] = {}
        self.malformed = 0  # records of peers that were none

    def own(self, snapshot: Snapshot) -> None:
        """This replica's newest snapshot; it is not changed any more."""
        self._own = snapshot, time.monotonic()

    def heard(self, member: int, record: bytes) -> None:
        """A peer's newest snapshot as JSON.  Costs nothing until somebody looks."""
        self._raw[member] = record, time.monotonic()

    def mine(self) -> tuple[Snapshot, float] | None:
        """This replica's newest snapshot and its age in s; None before the first."""
        return None if self._own is None else (self._own[0], time.monotonic() - self._own[1])

    def view(self) -> SetView:
        """The whole set now; may be called from any thread."""
        with self._lock:
            members = tuple(self._member(number) for number in range(len(self._names)))
        return SetView(self._cluster, self._names[self._me], time.time(), members)

    def _member(self, number: int) -> Member:
        name, now = self._names[number], time.monotonic()
        if number == self._me:
            return Member(name) if self._own is None else Member(name, now - self._own[1], self._own[0])
        if number not in self._raw:
            return Member(name)
        record, at = self._raw[number]
        snapshot = self._snapshot(number, record)
        return Member(name) if snapshot is None else Member(name, now - at, snapshot)

    def _snapshot(self, number: int, record: bytes) -> Snapshot | None:
        known = self._parsed.get(number)
        if known is not None and known[0] is record:
            return known[1]
        try:
            snapshot: Snapshot | None = Snapshot.parse(record)
            if snapshot is not None and snapshot.name != self._names[number]:
                raise ValueError(f"{snapshot.name} is another one's name")
        except ValueError:
            self.malformed += 1
            snapshot = known[1] if known is not None else None
        self._parsed[number] = record, snapshot
        return snapshot
