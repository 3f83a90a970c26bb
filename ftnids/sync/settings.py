"""What an engine is told at its start: the cluster, the protocol's parameters, the timers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ftnids import limits
from ftnids.sync.messages import I64, PROTOCOL, U64

MS = 1_000_000  # ns


@dataclass(frozen=True, slots=True)
class Timers:
    """The protocol's times, in ns."""

    delay: int = 20 * MS  # promised, from capture to stable
    report: int = 2 * MS  # between reports, at least; how long, says `ftnids.sync.pace`
    heartbeat: int = 20 * MS  # of an idle member: twice as long
    look: int = 5 * MS  # between looks at the members, while nothing is heard of them
    resend: int = 50 * MS  # without progress
    overtaken: int = 10 * MS  # a decision that others have overtaken, before it is asked for; then `fetch`
    fetch: int = 30 * MS  # bytes of a decided packet that do not come
    failure: int = 300 * MS  # silence after which a member counts as lost
    join: int = 5_000 * MS  # the first replica waits this long for its peers
    ask: int = 100 * MS  # between JOIN, HISTORY and INSTALL resends
    promise: int = 40 * MS  # between PROPOSE resends
    match: int = 1_000 * MS  # a joiner looks this long for the history in its own stream, then trusts the clocks


@dataclass(frozen=True, slots=True)
class Settings:
    """One replica's place in the cluster and the parameters that all members share."""

    me: int
    members: int  # how many are configured; ids are 0 .. members - 1
    incarnation: int  # the start time of the process in ns; the lowest founds the lineage
    k: int = 56
    l: int = 8  # noqa: E741 - the paper's name
    max_desync: int = 16
    reorder_ns: int = limits.REORDER_NS
    reorder_places: int = limits.REORDER_PLACES
    aligner: str = "default"
    wait_for_all: bool = False
    live: bool = True  # packets come from a link as they happen; else from a file, which waits when the ring is full
    from_start: bool = False  # every stream starts at packet 0 of the same capture: no history is exchanged
    digest: bytes = b""  # of what all members must share
    config: str = ""  # the same, readable
    protocol: int = PROTOCOL  # the newest version that this replica speaks
    software: str = ""  # its version of ftnids
    agreed_slots: int = 1 << 18  # capacity of the local agreed index
    timers: Timers = field(default_factory=Timers)


class Stream(Protocol):
    """The local capture stream, as the ring offers it.  Positions below the freed ones are gone."""

    @property
    def head(self) -> int:
        """Positions published."""

    @property
    def tail(self) -> int:
        """The lowest position that is not freed."""

    @property
    def watermark_ns(self) -> int:
        """All captured up to this time is published."""

    def hashes(self, first: int, last: int) -> U64:
        """Packet hashes of positions [first, last), uint64."""

    def times(self, first: int, last: int) -> I64:
        """Capture times of positions [first, last), int64 ns."""
