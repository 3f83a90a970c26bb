"""Who may connect: ZeroMQ's authentication protocol (ZAP, RFC 27), answered from the list of members' keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import zmq
from zmq.utils import z85

_ENDPOINT: Final = "inproc://zeromq.zap.01"  # where libzmq asks; one per context
_REQUEST: Final = 7  # frames: version, request, domain, address, identity, mechanism, key


class Gatekeeper:
    """Lets members in by their public keys, and gives their messages the member's number as user id."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Sequence[bytes], me: int) -> None:
        """`keys[m]`: member m's public key in Z85; `me`, whose own key is no peer's."""
        self._members = {z85.decode(key): str(member) for member, key in enumerate(keys) if member != me}
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ENDPOINT)

    def answer(self, refused: Callable[[str, str], None]) -> None:
        """Answer the request that waits; `refused(address, key in Z85)` is told of those that may not come in."""
        frames = self.socket.recv_multipart(zmq.NOBLOCK)
        version, request, address = frames[0], frames[1], frames[3].decode("ascii", "replace")
        key = frames[6] if len(frames) == _REQUEST and frames[5] == b"CURVE" else b""
        member = self._members.get(key)
        if member is None:
            refused(address, z85.encode(key).decode() if len(key) == 32 else "")
            self.socket.send_multipart([version, request, b"400", b"no member's key", b"", b""])
        else:
            self.socket.send_multipart([version, request, b"200", b"OK", member.encode(), b""])
