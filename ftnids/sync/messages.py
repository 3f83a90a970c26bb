"""The messages of the synchronization protocol, as plain records.

Nothing here knows how a message travels: `ftnids.peers.wire` turns these records into bytes and
back, the simulation passes the records themselves.  All messages are cumulative and idempotent:
one that arrives twice, late or out of turn changes nothing that a later one did not change.

Conventions

* A *member* is a replica's index in the cluster's configured member list, 0 <= member < MAX_MEMBERS.
* A *position* is a 0-based index into one replica's capture stream (what survived its drops).
* A *seq* is a 0-based index into the agreed stream; it runs on through a lineage.
* Times named `*_ns` are int64 nanoseconds on the sender's capture clock, which does not step;
  times named `*_us` are int64 whole microseconds of agreed time.
* Ranges are half open: [first, first + count).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

PROTOCOL: Final = 2  # the newest version of the protocol that this code speaks; the one before it, too

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]


class Kind(enum.IntEnum):
    """The message kinds, by their number on the wire."""

    REPORT = 1
    DECISION = 2
    BYTES = 3
    ACK = 4
    NACK = 5
    FETCH = 6
    HEARTBEAT = 7
    PROPOSE = 8
    PROMISE = 9
    INSTALL = 10
    JOIN = 11
    HISTORY = 12
    ALERT = 13
    STATUS = 14
    LEAVE = 15
    ASK = 16
    OFFER = 17
    CHUNK = 18
    TAKEN = 19
    REFUSE = 20


class Flag(enum.IntFlag):
    """What is known of one agreed packet (bits of `Decision.flags`)."""

    NONE = 0
    AMBIGUOUS = 1  # byte-identical packets closer than the clocks can tell apart
    LATE = 2  # reported after its time was decided; exempt from the order promise
    CLAMPED = 4  # its time was raised so that agreed time never decreases
    VOID = 8  # no survivor has the bytes; decided only in a view change


class View(NamedTuple):
    """Names a view: the set of live replicas between two membership changes.

    `number` counts up within `lineage`; `coordinator` is the deciding member and `incarnation`
    the start count of its process.  Numbers of different lineages are not compared.
    """

    lineage: int = 0  # uint64, drawn by the founder
    number: int = 0  # uint32; 0 is "no view yet"
    coordinator: int = 0  # member
    incarnation: int = 0  # uint64


@dataclass(slots=True)
class Message:
    """What every message carries."""

    sender: int  # member
    incarnation: int  # uint64, drawn when the sender's process started
    view: View


@dataclass(slots=True)
class Report(Message):
    """A stretch of the sender's capture stream, packet by packet or as clusters (every 2 to 8 ms, or when full).

    Pushed: `hash` and `time_ns` have one element a packet and `cluster` is empty.
    Summarised: `cluster` has one hash for each `k` packets with the times of its first and last
    packet, and `hash` is empty.  A report may be empty: then only the watermark moves.
    """

    position: int = 0
    start: int = 0  # where the sender's stream begins in the view; its first report may be lost
    hash: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    time_ns: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    k: int = 0  # packets per cluster, 0 when pushed
    cluster: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    first_ns: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    last_ns: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    watermark_ns: int = 0  # all that the sender captured up to this time is reported
    end: bool = False  # the capture stream ends here
    sent_ns: int = 0  # the sender's capture clock when this was sent


@dataclass(slots=True)
class Decision(Message):
    """What the coordinator decided for seqs [first_seq, first_seq + len(time_us)).

    `holders[i]` is a bit mask over members.  `hash` has one element for every packet whose
    holders are not all members, in order.  `places[m]` lists the positions of the packets that
    member `m` holds, in agreed order; `skipped[m]` lists positions that were consumed
    without an agreed packet of their own (late duplicates).
    """

    number: int = 0  # 0, 1, 2, ... within the view
    first_seq: int = 0
    time_us: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    holders: U32 = field(default_factory=lambda: np.empty(0, np.uint32))
    flags: U8 = field(default_factory=lambda: np.empty(0, np.uint8))
    hash: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    members: int = 0  # bit mask of the view's members
    places: dict[int, I64] = field(default_factory=dict)
    skipped: dict[int, I64] = field(default_factory=dict)
    offset_ns: dict[int, int] = field(default_factory=dict)  # add to a member's capture clock for the coordinator's
    tolerance_ns: dict[int, int] = field(default_factory=dict)
    cut_ns: int = 0  # coordinator's capture clock: all before it is decided
    ends: bool = False  # the agreed stream is complete with this decision
    ambiguous: int = 0  # running totals within the lineage
    late: int = 0
    rounds: int = 0
    dirty_rounds: int = 0
    desync_level: int = 0
    max_desync: int = 0


@dataclass(slots=True)
class Bytes(Message):
    """Packets that the receiver lost, pushed by the first holder (may overtake its decision)."""

    seq: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    hash: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    caplen: U32 = field(default_factory=lambda: np.empty(0, np.uint32))
    wirelen: U32 = field(default_factory=lambda: np.empty(0, np.uint32))
    data: bytes = b""  # the frames, back to back


@dataclass(slots=True)
class Ack(Message):
    """To all: the sender has every decision and its bytes below `acked`; all below `stable` are stable."""

    acked: int = 0  # seq
    stable: int = 0  # seq
    decisions: int = 0  # decisions of this view received without a gap
    reported: dict[int, int] = field(default_factory=dict)  # from the coordinator: the position wanted next


@dataclass(slots=True)
class Nack(Message):
    """Repair: decisions [first, last) of this view are missing here."""

    first: int = 0
    last: int = 0


@dataclass(slots=True)
class Fetch(Message):
    """Asks for packet bytes by seq, or for the hashes of [position, position + count); of none: for the watermark."""

    seq: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    position: int = 0
    count: int = 0


@dataclass(slots=True)
class Heartbeat(Message):
    """Sent every 20 ms to all members, every 40 ms by an idle one."""

    members: int = 0  # bit mask of the sender's view
    hears: int = 0  # bit mask of the replicas that the sender hears: members in its view, others at all
    state: int = 0  # ftnids.sync.membership.State
    speaks: int = 1  # the newest protocol version that the sender speaks, of those that the receiver knows
    promised: int = 0  # highest view number promised
    late: int = 0  # bit mask of the members that, in the sender's eyes, cannot keep up
    fill: int = 0  # of 1000: how full the sender's ring of captured packets is
    pinned: int = 0  # of 1000: how much of it waits for other members
    load: int = 0  # of 1000: how much of its time the sender's main loop is busy
    watermark_ns: int = 0  # the highest number when the stream has ended
    sent_ns: int = 0  # sender's capture clock at sending
    echo_ns: int = 0  # the receiver's `sent_ns` heard last
    held_ns: int = 0  # how long the sender held that before this message


@dataclass(slots=True)
class Propose(Message):
    """A would-be coordinator asks for promises for view `proposed`, and tells what the receiver lacks."""

    proposed: View = field(default_factory=View)
    members: int = 0
    number: int = 0  # decisions that the sender has
    log: list[Decision] = field(default_factory=list)  # those that the receiver said it lacks


@dataclass(slots=True)
class Promise(Message):
    """Answer to PROPOSE: no more acknowledgements in older views."""

    proposed: View = field(default_factory=View)
    base: View = field(default_factory=View)
    number: int = 0  # decisions that the sender has
    log: list[Decision] = field(default_factory=list)  # those that the proposer said it lacks
    missing: I64 = field(default_factory=lambda: np.empty(0, np.int64))  # seqs not here, void ones too
    consumed: int = 0  # position: all below are consumed by decisions
    holes: I64 = field(default_factory=lambda: np.empty(0, np.int64))  # positions above that are consumed, too


@dataclass(slots=True)
class Install(Message):
    """The coordinator starts view `installed`: who is in it, and where each member's stream starts."""

    installed: View = field(default_factory=View)
    members: int = 0
    first_seq: int = 0
    number: int = 0  # of the view's first decision; decisions are numbered through a lineage
    start: dict[int, int] = field(default_factory=dict)  # member -> position of its first packet in the view
    void: I64 = field(default_factory=lambda: np.empty(0, np.int64))  # seqs below first_seq whose bytes nobody has
    incarnations: dict[int, int] = field(default_factory=dict)  # which process of each member is meant
    cut_ns: int = 0  # founder's clock: a joiner's stream starts after this
    time_us: int = -(1 << 62)  # agreed time does not go below this
    offset_ns: dict[int, int] = field(default_factory=dict)
    tolerance_ns: dict[int, int] = field(default_factory=dict)
    # The last decided packets, for those who come in: one of them may lead next, and must know late copies.
    hash: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    decided_us: I64 = field(default_factory=lambda: np.empty(0, np.int64))  # agreed times, never decreasing
    holders: U32 = field(default_factory=lambda: np.empty(0, np.uint32))
    protocol: int = 1  # the view's: the lowest of what its members speak; nothing newer may be decided in it


@dataclass(slots=True)
class Join(Message):
    """A replica asks to be a member, or (with `ready`) says where its stream meets the history."""

    digest: bytes = b""  # of what all members must share: k, l, R, snaplen, filter, link type, protocol
    config: str = ""  # the same, readable, for the error message
    ready: bool = False
    position: int = -1  # of its first packet in the view, -1: not found, use time
    offset_ns: int = 0  # add to the joiner's capture clock for the coordinator's
    tolerance_ns: int = 0
    ids: str = ""  # IDS name, version and rules digest
    software: str = ""  # the joiner's version of ftnids; "" from those that speak protocol 1


@dataclass(slots=True)
class History(Message):
    """The coordinator's last m packets, for a joining replica to find in its own stream."""

    hash: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    time_ns: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    position: int = 0  # the coordinator's position of the first of them
    cut_ns: int = 0  # coordinator's capture clock: the view's stream starts after this
    digest: bytes = b""
    config: str = ""
    refused: str = ""  # why the joiner is not let in; empty when it is


@dataclass(slots=True)
class Alert(Message):
    """Alerts that the sender's IDS raised: a JSON array of output records (docs/alerts.md)."""

    number: int = 0  # 0, 1, 2, ... of this sender's incarnation; resent until acknowledged
    acked: int = 0  # alert messages of the receiver that the sender has
    fed: int = 0  # seq: the sender's IDS has been given all below it
    final: bool = False  # the sender's IDS has ended; no more alerts come
    mute: bool = False  # the sender's IDS cannot write its log: its silence says nothing
    records: bytes = b"[]"


@dataclass(slots=True)
class Status(Message):
    """The sender's status snapshot as JSON (ftnids.status.snapshot), once a second."""

    snapshot: bytes = b"{}"


@dataclass(slots=True)
class Leave(Message):
    """The sender ends cleanly and will not come back under this incarnation."""

    reason: str = ""


@dataclass(slots=True)
class Ask(Message):
    """A replica that joins asks for the state of the receiver's IDS, at `seq` or later (version 2)."""

    transfer: int = 0  # uint64, drawn by the joiner; the other messages of the transfer repeat it
    seq: int = 0  # its first
    facts: bytes = b""  # what its own IDS is, as JSON (ftnids.feed.transfer.Facts)


@dataclass(slots=True)
class Offer(Message):
    """The donor describes the image that it has taken; empty: it is being taken (version 2)."""

    transfer: int = 0
    manifest: bytes = b""  # JSON (ftnids.feed.transfer.Manifest)


@dataclass(slots=True)
class Chunk(Message):
    """A piece of an image (version 2)."""

    transfer: int = 0
    number: int = 0  # from 0, in the manifest's order
    data: bytes = b""


@dataclass(slots=True)
class Taken(Message):
    """The joiner wants the image, and has its first `chunks` pieces (version 2)."""

    transfer: int = 0
    chunks: int = 0


@dataclass(slots=True)
class Refuse(Message):
    """The sender, donor or joiner, does not begin this transfer, or ends it (version 2)."""

    transfer: int = 0
    again: bool = False  # it is busy with another joiner: the same may be asked later
    reason: str = ""


KINDS: dict[Kind, type[Message]] = {
    Kind.REPORT: Report,
    Kind.DECISION: Decision,
    Kind.BYTES: Bytes,
    Kind.ACK: Ack,
    Kind.NACK: Nack,
    Kind.FETCH: Fetch,
    Kind.HEARTBEAT: Heartbeat,
    Kind.PROPOSE: Propose,
    Kind.PROMISE: Promise,
    Kind.INSTALL: Install,
    Kind.JOIN: Join,
    Kind.HISTORY: History,
    Kind.ALERT: Alert,
    Kind.STATUS: Status,
    Kind.LEAVE: Leave,
    Kind.ASK: Ask,
    Kind.OFFER: Offer,
    Kind.CHUNK: Chunk,
    Kind.TAKEN: Taken,
    Kind.REFUSE: Refuse,
}
