"""Known bugs to plant: a simulation that does not find them proves nothing.

Each plant replaces methods of the production classes for as long as `planted` lasts, so that no line of
production code knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from ftnids.sync.actions import Stable
from ftnids.sync.history import History
from ftnids.sync.member import Member
from ftnids.sync.merge import Merger
from ftnids.sync.messages import I64, U64, Install
from ftnids.sync.pending import FOREVER, NEVER, Stream
from ftnids.sync.views import Views
from ftnids.sync.watch import Watch

Method = Callable[..., Any]
DECIDED_NS: Final = 5_000_000  # from a packet's capture until it is decided
Patch = tuple[type, str, Callable[[Method], Method]]


def _feed_before_ack(advance: Method) -> Method:
    """What is acknowledged here alone is called stable."""

    def planted(self: Member, now_ns: int) -> None:
        advance(self, now_ns)
        if self.acked > self.stable and not self.frozen:
            self.stable = self.acked
            self.out.append(Stable(self.acked))

    return planted


def _ack_before_bytes(ack: Method) -> Method:
    """A decision is acknowledged whether its bytes are here or not."""

    def planted(self: Member, *args: object, **options: object) -> None:
        acked, self.acked = self.acked, self.window.end
        ack(self, *args, **options)
        self.acked = acked

    return planted


def _forget_last_decision(complete: Method) -> Method:
    """Who leads the next view begins it before the last decision of the one before."""

    def planted(self: Views, *args: object) -> Install | None:
        install: Install | None = complete(self, *args)
        if install is not None and self._member.log:
            last = self._member.log[-1].decision
            install.number, install.first_seq = last.number, last.first_seq
        return install

    return planted


def _reused_view_id(begin: Method) -> Method:
    """The next view is named like the one before."""

    def planted(self: Views, *args: object) -> Any:
        attempt = begin(self, *args)
        attempt.view = attempt.view._replace(number=self._member.view.number)
        self.promised = attempt.view
        return attempt

    return planted


def _heartbeat_from_any_view(_: Method) -> Method:
    """Whoever is heard at all is alive, in whatever view and incarnation."""

    def planted(self: Watch, member: int, now_ns: int) -> str:
        silent = now_ns - self._membership.peers[member].heard_ns > self._settings.timers.failure
        return "it is not heard" if silent else ""

    return planted


def _duplicate_after_rejoin(_: Method) -> Method:
    """What comes again after it was decided, from one who came back or was cut off, counts as new."""

    def planted(self: History, hashes: U64, *args: object) -> list[int]:
        return [-1] * len(hashes)

    return planted


def _cut_at_watermark(horizon: Method) -> Method:
    """The horizon leaves no room for the clocks' error and for reordering."""

    def planted(self: Merger, streams: list[Stream], counts: list[int]) -> int:
        sound = int(horizon(self, streams, counts))
        room = max(*self._tolerances(streams, counts), self._settings.reorder_ns)
        return sound if sound in (NEVER, FOREVER) else sound + room

    return planted


def _late_history_clamped(append: Method) -> Method:
    """The history keeps when a packet was decided, not when it was captured."""

    def planted(self: History, hashes: U64, time_ns: I64, *args: object) -> None:
        append(self, hashes, time_ns + DECIDED_NS, *args)

    return planted


def _self_trained_clock(train: Method) -> Method:
    """Packets that one replica alone has train its clock, each with its neighbour on the reference."""

    def planted(self: Merger, streams: Any, pairs: Mapping[int, tuple[I64, I64]]) -> None:
        reference = self._streams[self.reference]
        everything = {}
        for stream in streams:
            count = min(len(stream.position), len(reference.position))
            everything[id(stream)] = np.arange(count), np.arange(count)
        train(self, streams, everything)

    return planted


PLANTS: Final[dict[str, Patch]] = {
    "feed-before-ack": (Member, "advance", _feed_before_ack),
    "ack-before-bytes": (Member, "ack", _ack_before_bytes),
    "forget-last-decision": (Views, "_complete", _forget_last_decision),
    "reused-view-id": (Views, "_begin", _reused_view_id),
    "heartbeat-from-any-view": (Watch, "_unheard_because", _heartbeat_from_any_view),
    "duplicate-after-rejoin": (History, "claim", _duplicate_after_rejoin),
    "cut-at-watermark": (Merger, "_horizon", _cut_at_watermark),
    "late-history-clamped": (History, "append", _late_history_clamped),
    "self-trained-clock": (Merger, "_train", _self_trained_clock),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Run with the bug `name`; without one when that is None."""
    if name is None:
        yield
        return
    owner, method, make = PLANTS[name]
    sound = getattr(owner, method)
    setattr(owner, method, make(sound))
    try:
        yield
    finally:
        setattr(owner, method, sound)
