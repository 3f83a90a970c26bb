"""The wire decoder: any bytes are a WireError, or a message that encodes to bytes that read the same."""

from __future__ import annotations

from ftnids.errors import WireError
from ftnids.peers import wire

CLUSTER: bytes = bytes(range(8))


def check(data: bytes) -> None:
    """Decode `data` as a message of the cluster CLUSTER."""
    try:
        message = wire.decode(data, CLUSTER)
    except WireError:
        return
    coded = wire.encode(message, CLUSTER)
    assert wire.encode(wire.decode(memoryview(coded), CLUSTER), CLUSTER) == coded, "reads differently the second time"
