"""What the engine asks of its surroundings.

The engine performs nothing itself.  `Engine.actions()` hands out these records in the order in
which they must be carried out; `ftnids.replica` carries them out on a ring and a transport, the
simulation on arrays and a queue.
"""

from __future__ import annotations

from dataclasses import dataclass

from ftnids.sync.messages import I64, U8, Bytes, Message, View


@dataclass(slots=True)
class Send:
    """Send `message` to `member`; it may be lost."""

    member: int
    message: Message


@dataclass(slots=True)
class Push:
    """Send the packets behind `refs` (slot references) to `member` as BYTES for `seq`."""

    member: int
    view: View
    seq: I64
    refs: I64


@dataclass(slots=True)
class Store:
    """Put the packets of `message` that `mask` marks into the ring, then call `Engine.stored`."""

    message: Bytes
    mask: U8


@dataclass(slots=True)
class Publish:
    """Enter seqs [first_seq, first_seq + len(refs)) into the agreed index; their bytes are here."""

    view: View
    first_seq: int
    refs: I64
    time_us: I64
    flags: U8


@dataclass(slots=True)
class Stable:
    """All seqs below `seq` are stable: the IDS may have them."""

    seq: int


@dataclass(slots=True)
class Free:
    """Captured slots below `position` and recovered slots below number `recovered` are needed no more."""

    position: int
    recovered: int


@dataclass(slots=True)
class Start:
    """The replica is in view `view`; its stream counts from `position` on, the agreed stream from `seq` on."""

    view: View
    members: tuple[int, ...]
    position: int
    seq: int
    protocol: int = 1  # the view's


@dataclass(slots=True)
class End:
    """The agreed stream ends at `seq`, and all of it is stable."""

    seq: int


@dataclass(slots=True)
class Note:
    """Something that an operator wants to read: an event name, a level, and its facts."""

    level: str  # "info", "warning" or "error"
    event: str
    facts: dict[str, object]


@dataclass(slots=True)
class Fail:
    """The replica cannot go on; `reason` is one line."""

    reason: str


@dataclass(slots=True)
class Change:
    """The view has changed: `view` with `members` goes on from seq `seq`; `left` took their leave."""

    view: View
    members: tuple[int, ...]
    seq: int
    left: tuple[int, ...] = ()
    protocol: int = 1  # the view's


@dataclass(slots=True)
class Rejoin:
    """The others have gone on without this replica: it must start anew and join them; `reason` is one line."""

    reason: str


Action = Send | Push | Store | Publish | Stable | Free | Start | Change | Rejoin | End | Note | Fail
