"""A stand-in for an IDS that reads the ring itself: it takes packets one by one and logs an EVE alert for each.

Orders, as of `fake_ids`: `die_at S` (SIGKILL itself with packet S in hand, in its first `runs` runs), `exit S`,
`deaf` (never attach), `nonsense` (report what cannot be).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import ftnids

from .fake_ids import FakeIds

ROOT: Final = Path(ftnids.__file__).parent.parent
PROGRAM: Final = """
import json, mmap, os, signal, sys, time
root, config, name, log_dir = sys.argv[1:]
sys.path.insert(0, root)
from ftnids.core import Ring
from ftnids.core import reader as layout
orders = dict(line.split() for line in open(config) if line.strip())
print("fake reader starts", file=sys.stderr, flush=True)
if "exit" in orders:
    sys.exit(int(orders["exit"]))
while "deaf" in orders:
    time.sleep(1)
ring = Ring.attach(name)
file = open(f"/dev/shm/ftnids-{name}{layout.SUFFIX}", "r+b")
words = memoryview(mmap.mmap(file.fileno(), layout.BYTES)).cast("I")
longs = words.cast("B").cast("Q")
position = layout.FORMAT.unpack_from(words)[5]
words[layout.PID // 4] = os.getpid()
words[layout.STATE // 4] = layout.State.READS
number = int(log_dir.rsplit("-", 1)[1])
die_at = int(orders.get("die_at", -1)) if number < int(orders.get("runs", 1)) else -1
count = 0
log = open(log_dir + "/eve.json", "a", buffering=1)
while True:
    stable = ring.wait_stable(position, 10)
    if "nonsense" in orders and stable > position and number == 0:
        longs[layout.FED // 8] = 1 << 50
        time.sleep(60)
    while position < stable:
        refs, times, _ = ring.agreed_entries(position, position + 1)
        longs[layout.TAKEN // 8] = position + 1
        if position == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if refs[0] >= 0:
            count += 1
            seconds, micros = divmod(int(times[0]), 1_000_000)
            when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros:06d}+0000"
            alert = {"gid": 1, "signature_id": 1, "rev": 1}
            record = {"timestamp": when, "event_type": "alert", "pcap_cnt": count, "alert": alert}
            log.write(json.dumps(record) + chr(10))
        position += 1
        longs[layout.FED // 8] = position
    if ring.ended and position == ring.agreed:
        words[layout.STATE // 4] = layout.State.ENDED
        break
"""


class FakeReader(FakeIds):
    """The stand-in, started by the interpreter that runs the tests."""

    def __init__(self, directory: Path, **orders: float) -> None:
        super().__init__(directory, **orders)
        self.program = directory / "fake_daq.py"
        self.program.write_text(PROGRAM)

    def ring_fault(self) -> str:
        return ""

    def ring_command(self, ring: str, log_dir: Path) -> list[str]:
        return [sys.executable, str(self.program), str(ROOT), str(self.config), ring, str(log_dir)]
