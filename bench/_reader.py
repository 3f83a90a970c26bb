"""An IDS that is slow: says that it is Suricata, reads so many packets/s of its pcap stream, and finds nothing.

python -I -S _reader.py PACKETS, and then Suricata's arguments
"""

import sys
import time
from pathlib import Path

HEADER, RECORD = 24, 16  # bytes of a pcap file's header, and of each packet's
AHEAD_S = 0.001  # it sleeps no shorter


def read(source: Path, rate: float) -> None:
    """Read packets, none before its time; an idle reader saves nothing up."""
    with source.open("rb") as stream:
        stream.read(HEADER)
        due = time.monotonic()
        while record := stream.read(RECORD):
            stream.read(int.from_bytes(record[8:12], "little"))
            now = time.monotonic()
            due = max(due, now - AHEAD_S) + 1 / rate
            if due - now > AHEAD_S:
                time.sleep(due - now)


def main(arguments: list[str]) -> None:
    """Behave as `suricata -V`, `-T`, or `-r FIFO`."""
    if "-V" in arguments:
        print("This is Suricata version 7.0.0 RELEASE")
    elif "-T" not in arguments:
        read(Path(arguments[arguments.index("-r") + 1]), float(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
