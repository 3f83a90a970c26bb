"""Who may connect: ZeroMQ's authentication protocol (ZAP, RFC 27), answered from the list of members' keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import zmq
from zmq.utils import z85

from ftnids import limits

_ENDPOINT: Final = "inproc://zeromq.zap.01"  # where libzmq asks; one per context
_REQUEST: Final = 7  # frames: version, request, domain, address, identity, mechanism, key
_KEY: Final = 32  # bytes
_REFUSED: Final = b"300"  # the connection is closed without a word; after a 400, libzmq's client would never try again


class Gatekeeper:
    """Lets members in by their public keys; the user id of a connection is the key that it came with, in Z85."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Sequence[Sequence[bytes]], me: int) -> None:
        """`keys[m]`: the public keys (Z85) of member m, any of which will do; `me`, whose own keys are no peer's."""
        self._me = me
        self._shut_out: dict[int, float] = {}  # member -> until when
        self._members: dict[str, int] = {}
        self.admit(keys)
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ENDPOINT)

    def admit(self, keys: Sequence[Sequence[bytes]]) -> None:
        """From now on these keys are the members'; see `__init__`."""
        others = ((member, key) for member, own in enumerate(keys) if member != self._me for key in own)
        self._members = {key.decode(): member for member, key in others}

    def member(self, user: str, now_s: float) -> int | None:
        """The member whose connection has the user id `user`; None when it is shut out, or its key withdrawn."""
        member = self._members.get(user)
        return None if member is None or self._is_out(member, now_s) else member

    def shut_out(self, member: int, until_s: float) -> None:
        """Let `member` in again at `until_s` (monotonic) only."""
        self._shut_out[member] = until_s

    def answer(self, now_s: float, refused: Callable[[str, str], None]) -> None:
        """Answer the requests that wait; `refused(address, key in Z85)` is told of those with a key of nobody."""
        for _ in range(limits.PEER_EVENTS):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            version, request, address = frames[0], frames[1], frames[3].decode("ascii", "replace")
            curve = len(frames) == _REQUEST and frames[5] == b"CURVE" and len(frames[6]) == _KEY
            key = z85.encode(frames[6]).decode() if curve else ""
            member = self._members.get(key)
            if member is None:
                refused(address, key)
                answer = (_REFUSED, b"no member's key", b"")
            elif self._is_out(member, now_s):
                answer = (_REFUSED, b"shut out", b"")
            else:
                answer = (b"200", b"OK", key.encode())
            self.socket.send_multipart([version, request, *answer, b""])

    def _is_out(self, member: int, now_s: float) -> bool:
        return now_s < self._shut_out.get(member, 0.0)
