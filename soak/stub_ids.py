"""An IDS for the soak: says that it is Suricata, and raises an alert for one packet in ALERT_EVERY, on 64 flows.

It reads a FIFO of equal records (soak/traffic.py), so that it costs next to nothing.
"""

import json
import sys
import time
from pathlib import Path

ALERT_EVERY = 20
RECORD = 16 + 60
BLOCK = 4096


def alert(number: int, record: bytes) -> str:
    """The EVE line for packet `number` of the run."""
    seconds, us = int.from_bytes(record[:4], "little"), int.from_bytes(record[4:8], "little")
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    flow = {"src_ip": "192.0.2.1", "src_port": 1024 + number % 64, "dest_ip": "198.51.100.2", "dest_port": 80}
    signature = {"gid": 1, "signature_id": 1 + number % 7, "rev": 1, "signature": "soak", "severity": 3}
    fields = {"timestamp": f"{when}.{us:06d}+0000", "event_type": "alert", "pcap_cnt": number, "proto": "TCP"}
    return json.dumps({**fields, **flow, "alert": signature}) + "\n"


def main() -> None:
    """Behave as `suricata -V`, `-T`, or `-r FIFO -l DIRECTORY`."""
    arguments = sys.argv[1:]
    if "-V" in arguments:
        print("This is Suricata version 7.0.0 RELEASE")
        return
    if "-T" in arguments:
        return
    directory, source = (Path(arguments[arguments.index(option) + 1]) for option in ("-l", "-r"))
    number = 0
    with source.open("rb") as stream, (directory / "eve.json").open("a", 1) as log:
        stream.read(24)
        while data := stream.read(RECORD * BLOCK):
            first = -number % ALERT_EVERY
            for at in range(first, len(data) // RECORD, ALERT_EVERY):
                log.write(alert(number + at + 1, data[at * RECORD :]))
            number += len(data) // RECORD


if __name__ == "__main__":
    main()
