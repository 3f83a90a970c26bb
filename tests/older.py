"""ftnids as a release that speaks another protocol: `python -m tests.older VERSION ARGUMENT...`.

Version 1 is spoken byte for byte as the release that had no other did (`tests/peers/golden/`).  Of versions that
do not exist yet, every table is that of the newest one that does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ftnids import cli
from ftnids.peers import wire


def speak(version: int) -> None:
    """From now on this process speaks `version`, and the one before it."""
    tables = dict(wire.VERSIONS)
    last = tables[max(tables)]
    wire.PROTOCOL = version
    wire.VERSIONS.clear()
    wire.VERSIONS.update({one: tables.get(one, last) for one in (version - 1, version) if one > 0})


@contextmanager
def newest(version: int) -> Iterator[None]:
    """The same for a while."""
    protocol, tables = wire.PROTOCOL, dict(wire.VERSIONS)
    try:
        speak(version)
        yield
    finally:
        wire.PROTOCOL = protocol
        wire.VERSIONS.clear()
        wire.VERSIONS.update(tables)


if __name__ == "__main__":
    speak(int(sys.argv[1]))
    cli.main(sys.argv[2:])
