"""The wire format: one table for each kind of message, `encode` and `decode` over the tables.

Theory of operation

A message is a prefix that never changes (magic, the version that this message is written in, the newest version
that its sender speaks, the cluster's id, the kind), then what every message carries, then the parts of its kind.
The tables of a version stand in `VERSIONS`; a replica reads every version there and writes the newest one that
the peer is known to speak (`PROTOCOL` or the one before), so that a set can be upgraded one replica at a time.
A later version adds a table; the bytes of one that has been released never change (`tests/peers/golden/`).

A field that is new arrives over an older version as its default.  Where that is not good enough, because all members
must know the same, a `Rule` in the older table keeps the message from being written in it, and the coordinator gives
the field another value only in a view whose members all speak the newer version (`Install.protocol`).

`docs/wire.md` shows the tables byte by byte; a test compares it with `describe()`.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from ftnids import limits
from ftnids.errors import WireError
from ftnids.peers.packed import Reader, Writer
from ftnids.peers.parts import (
    MASK_LIMIT,
    Blob,
    Fixed,
    Hashes,
    Newest,
    Numbers,
    NumbersPerMember,
    Part,
    PerMember,
    Rule,
    Signed,
    Small,
    Spans,
    Switches,
    Text,
    Times,
    Unsigned,
    Values,
    ViewName,
)
from ftnids.sync.messages import KINDS, Decision, Flag, Kind, Message
from ftnids.sync.messages import PROTOCOL as NEWEST

MAGIC: Final = b"ftni"
PROTOCOL: int = NEWEST  # the version that this replica writes to those that read it; tests set another one
PREFIX: Final = 15  # bytes
VERSION_AT: Final = 4
NEWEST_AT: Final = 5
CLUSTER_AT: Final = 6
KIND_AT: Final = 14
SENDER_AT: Final = 15  # comes first in what every message carries, in every version
CLUSTER_ID: Final = 8  # bytes

Layout = tuple[Part, ...]


class ForeignClusterError(WireError):
    """The sender belongs to another cluster: another name or another secret."""


class ProtocolVersionError(WireError):
    """The sender writes a version that this replica does not read; `lasts`: not only until it has heard this one."""

    def __init__(self, version: int, newest: int, sender: int) -> None:
        self.version, self.newest, self.sender = version, newest, sender
        low, high = oldest(), PROTOCOL
        theirs, mine = _span(max(newest - 1, 1), newest), _span(low, high)
        self.lasts = newest < low or newest - 1 > high
        if newest < low:
            what = f"upgrade that member, first to a release that speaks {low}"
        elif newest - 1 > high:
            what = f"upgrade this replica, first to a release that speaks {newest - 1}"
        else:
            what = f"it has not heard that yet; until then it is not understood (it wrote {version})"
        super().__init__(f"speaks protocol {theirs}, this replica {mine}: {what}")


def _span(low: int, high: int) -> str:
    return str(high) if low >= high else f"{low}-{high}"


class Log(Part):
    """Decisions, one after the other, each with what every message carries."""

    def __init__(self, name: str, layout: Layout) -> None:
        self.names, self._layout = (name,), layout
        self.layout = f"varint count, at most {limits.MAX_LOG_DECISIONS:,}; for each: common fields, then DECISION"

    def write(self, out: Writer, values: Values) -> None:
        log: list[Decision] = values[self.names[0]]
        out.varint(len(log), limits.MAX_LOG_DECISIONS + 1)
        for decision in log:
            _write(out, self._layout, decision)

    def read(self, source: Reader, values: Values) -> None:
        count = source.varint(limits.MAX_LOG_DECISIONS + 1)
        source.spend(count * _DECISION_COST)
        values[self.names[0]] = [Decision(**_read(source, self._layout)) for _ in range(count)]


_DECISION_COST: Final = 256  # what the record of a decision weighs, in array elements


def _not_held_by_all(values: Values) -> int:
    return int(np.count_nonzero(values["holders"] != values["members"]))


def _held_by(values: Values, member: int) -> int:
    return int(np.count_nonzero(values["holders"] & np.uint32(1 << member)))


def _frame_bytes(values: Values) -> int:
    return int(values["caplen"].sum(dtype=np.int64))


def _says_nothing_new(values: Values) -> bool:
    """Of INSTALL in version 1: who reads it takes 1 for the view's protocol."""
    return bool(values.get("protocol", 1) == 1)


def _pushed_or_summarised(values: Values) -> bool:
    return len(values["cluster"]) == 0 or (len(values["hash"]) == 0 and values["k"] > 0)


COMMON: Final[Layout] = (Fixed("sender", 1, limits.MAX_MEMBERS), Fixed("incarnation", 8), ViewName("view"))

_DECISION: Final[Layout] = (
    Unsigned("number", 1 << 32),
    Unsigned("first_seq"),
    Unsigned("members", MASK_LIMIT),
    Times("time_us", limits.MAX_DECISION_PACKETS),
    Small("holders", "time_us", np.uint32, MASK_LIMIT, usual="members"),
    Small("flags", "time_us", np.uint8, 2 * max(Flag)),
    Hashes("hash", _not_held_by_all, "n: holders that are not `members`"),
    NumbersPerMember("places", _held_by, "n: holders with this member"),
    NumbersPerMember("skipped", limits.MAX_PENDING),
    PerMember("offset_ns", signed=True),
    PerMember("tolerance_ns"),
    Signed("cut_ns"),
    Switches("ends"),
    Unsigned("ambiguous"),
    Unsigned("late"),
    Unsigned("rounds"),
    Unsigned("dirty_rounds"),
    Unsigned("desync_level", 1 << 16),
    Unsigned("max_desync", 1 << 16),
)

_INSTALL: Final[Layout] = (
    ViewName("installed"),
    Unsigned("members", MASK_LIMIT),
    Unsigned("first_seq"),
    Unsigned("number", 1 << 32),
    PerMember("start"),
    Numbers("void", limits.MAX_UNSTABLE),
    PerMember("incarnations"),
    Signed("cut_ns"),
    Signed("time_us"),
    PerMember("offset_ns", signed=True),
    PerMember("tolerance_ns"),
    Hashes("hash", limits.HISTORY_PACKETS),
    Times("decided_us", "hash"),
    Small("holders", "hash", np.uint32, MASK_LIMIT, usual="members"),
)

_VERSION_1: Final[dict[Kind, Layout]] = {
    Kind.REPORT: (
        Unsigned("position"),
        Unsigned("start"),
        Hashes("hash", limits.MAX_REPORT_PACKETS),
        Times("time_ns", "hash", thousands=True),
        Unsigned("k", limits.MAX_CLUSTER + 1),
        Hashes("cluster", limits.MAX_REPORT_PACKETS),
        Spans("first_ns", "last_ns", "cluster"),
        Signed("watermark_ns"),
        Switches("end"),
        Signed("sent_ns"),
        Rule("a report is pushed (`cluster` empty) or summarised (`hash` empty, k > 0)", _pushed_or_summarised),
    ),
    Kind.DECISION: _DECISION,
    Kind.BYTES: (
        Numbers("seq", limits.MAX_BYTES_PACKETS),
        Hashes("hash", "seq"),
        Small("caplen", "seq", np.uint32, limits.MAX_SNAPLEN + 1),
        Small("wirelen", "seq", np.uint32, 1 << 32, usual="caplen"),
        Blob("data", limits.MAX_BYTES_DATA + limits.MAX_SNAPLEN, _frame_bytes, "sum of `caplen`"),
    ),
    Kind.ACK: (Unsigned("acked"), Unsigned("stable"), Unsigned("decisions"), PerMember("reported")),
    Kind.NACK: (Unsigned("first"), Unsigned("last")),
    Kind.FETCH: (Numbers("seq", limits.MAX_FETCH), Unsigned("position"), Unsigned("count", limits.MAX_PENDING + 1)),
    Kind.HEARTBEAT: (
        Unsigned("members", MASK_LIMIT),
        Unsigned("hears", MASK_LIMIT),
        Unsigned("state", 256),
        Newest("speaks"),
        Unsigned("promised", 1 << 32),
        Unsigned("late", MASK_LIMIT),
        Unsigned("fill", 1001),
        Unsigned("pinned", 1001),
        Unsigned("load", 1001),
        Signed("watermark_ns"),
        Signed("sent_ns"),
        Signed("echo_ns"),
        Signed("held_ns"),
    ),
    Kind.PROPOSE: (
        ViewName("proposed"),
        Unsigned("members", MASK_LIMIT),
        Unsigned("number", 1 << 32),
        Log("log", COMMON + _DECISION),
    ),
    Kind.PROMISE: (
        ViewName("proposed"),
        ViewName("base"),
        Unsigned("number", 1 << 32),
        Log("log", COMMON + _DECISION),
        Numbers("missing", limits.MAX_UNSTABLE),
        Unsigned("consumed"),
        Numbers("holes", limits.MAX_UNSTABLE),
    ),
    Kind.INSTALL: (*_INSTALL, Rule("the view's protocol is 1", _says_nothing_new)),
    Kind.JOIN: (
        Blob("digest", limits.MAX_DIGEST),
        Text("config", limits.MAX_SHARED_TEXT),
        Switches("ready"),
        Signed("position", low=-1),
        Signed("offset_ns"),
        Unsigned("tolerance_ns"),
        Text("ids", limits.MAX_TEXT),
    ),
    Kind.HISTORY: (
        Hashes("hash", limits.HISTORY_PACKETS),
        Times("time_ns", "hash", thousands=True),
        Unsigned("position"),
        Signed("cut_ns"),
        Blob("digest", limits.MAX_DIGEST),
        Text("config", limits.MAX_SHARED_TEXT),
        Text("refused", limits.MAX_SHARED_TEXT),
    ),
    Kind.ALERT: (
        Unsigned("number"),
        Unsigned("acked"),
        Unsigned("fed"),
        Switches("final", "mute"),
        Blob("records", limits.MAX_ALERT_BATCH),
    ),
    Kind.STATUS: (Blob("snapshot", limits.MAX_STATUS_BYTES),),
    Kind.LEAVE: (Text("reason", limits.MAX_TEXT),),
}

_VERSION_2: Final[dict[Kind, Layout]] = {
    **_VERSION_1,
    Kind.INSTALL: (
        *_INSTALL,
        Unsigned("protocol", 3),
        Rule("the view's `protocol` is 1 or 2", lambda values: bool(values["protocol"] > 0)),
    ),
    Kind.JOIN: (*_VERSION_1[Kind.JOIN], Text("software", limits.MAX_TEXT)),
    Kind.ASK: (Fixed("transfer", 8), Unsigned("seq"), Blob("facts", limits.MAX_TEXT)),
    Kind.OFFER: (Fixed("transfer", 8), Blob("manifest", limits.MAX_MANIFEST)),
    Kind.CHUNK: (Fixed("transfer", 8), Unsigned("number", 1 << 32), Blob("data", limits.MAX_STATE_CHUNK)),
    Kind.TAKEN: (Fixed("transfer", 8), Unsigned("chunks", 1 << 32)),
    Kind.REFUSE: (Fixed("transfer", 8), Switches("again"), Text("reason", limits.MAX_TEXT)),
}

VERSIONS: Final[dict[int, dict[Kind, Layout]]] = {1: _VERSION_1, 2: _VERSION_2}
_KIND_OF: Final = {record: kind for kind, record in KINDS.items()}


def oldest() -> int:
    """The oldest protocol version that this replica speaks."""
    return min(VERSIONS)


def encode(message: Message, cluster_id: bytes, version: int = PROTOCOL) -> bytes:
    """`message` as bytes, in protocol `version`.  WireError if it breaks a limit or a rule of its table."""
    kind = _KIND_OF[type(message)]
    if kind not in VERSIONS[version]:
        raise WireError(f"protocol {version} has no {kind.name}")
    out = Writer()
    out.raw(MAGIC + bytes((version, PROTOCOL)) + cluster_id + kind.to_bytes())
    _write(out, COMMON + VERSIONS[version][kind], message)
    data = out.take()
    if len(data) > limits.MAX_MESSAGE_BYTES:
        raise WireError(f"{kind.name} of {len(data)} bytes is over the limit of {limits.MAX_MESSAGE_BYTES}")
    return data


def decode(data: bytes | memoryview, cluster_id: bytes) -> Message:
    """The message in `data`.

    WireError if anything is malformed; ForeignClusterError and ProtocolVersionError, which are
    WireErrors too, if it comes from another cluster or from a replica of another age.
    """
    if len(data) > limits.MAX_MESSAGE_BYTES:
        raise WireError(f"{len(data)} bytes are over the limit of {limits.MAX_MESSAGE_BYTES}")
    kind, version = _read_prefix(bytes(data[: SENDER_AT + 1]), cluster_id)
    source = Reader(data[PREFIX:], newest_of(data))
    values = _read(source, COMMON + VERSIONS[version][kind])
    source.finish()
    return KINDS[kind](**values)


def newest_of(data: bytes | memoryview) -> int:
    """The newest protocol version that the sender of the decoded message `data` shares with this replica."""
    return min(data[NEWEST_AT], PROTOCOL)


def describe() -> str:
    """The tables of the newest version, as Markdown."""
    lines = ["### What every message carries, after the prefix", "", *_rows(COMMON)]
    for kind, layout in VERSIONS[PROTOCOL].items():
        lines += ["", f"### {kind.name} ({kind.value})", "", *_rows(layout)]
    return "\n".join(lines) + "\n"


def _read_prefix(prefix: bytes, cluster_id: bytes) -> tuple[Kind, int]:
    """Kind and version of a message that this replica can read."""
    if len(prefix) <= SENDER_AT or prefix[:VERSION_AT] != MAGIC:
        raise WireError("no ftnids message")
    if prefix[CLUSTER_AT:KIND_AT] != cluster_id:
        raise ForeignClusterError("belongs to another cluster")
    version, newest = prefix[VERSION_AT], prefix[NEWEST_AT]
    if newest < version:
        raise WireError(f"is in protocol {version}, and says that its sender speaks {newest} at most")
    if version not in VERSIONS:
        raise ProtocolVersionError(version, newest, prefix[SENDER_AT])
    try:
        kind = Kind(prefix[KIND_AT])
    except ValueError:
        raise WireError(f"unknown kind {prefix[KIND_AT]}") from None
    if kind not in VERSIONS[version]:
        raise WireError(f"protocol {version} has no such message")
    return kind, version


def _write(out: Writer, layout: Layout, message: Message) -> None:
    values = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    for part in layout:
        part.write(out, values)


def _read(source: Reader, layout: Layout) -> Values:
    values: Values = {}
    for part in layout:
        part.read(source, values)
    return values


def _rows(layout: Layout) -> list[str]:
    rows = [f"| {', '.join(f'`{name}`' for name in part.names) or '(rule)'} | {part.layout} |" for part in layout]
    return ["| field | on the wire |", "| --- | --- |", *rows]


if __name__ == "__main__":  # for docs/wire.md
    print(describe(), end="")
