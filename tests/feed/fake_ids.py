"""A stand-in for an IDS: a program that reads a pcap stream and writes one EVE alert for each packet.

Its configuration file tells how it behaves: `die_at N` (SIGKILL itself at its N-th packet, in its first `runs` runs),
`exit S` (exit at once with status S), `deaf` (never open the input), `stubborn` (ignore SIGTERM and the end of
the stream), `awaits` (ignore the end of the stream before the first packet), `slow S` (sleep S seconds a packet).
"""

from __future__ import annotations

import sys
from pathlib import Path

from ftnids.alerts.readers import AlertReader, EveReader
from snort_adapter.launchers import IdsLauncher

PROGRAM = """
import json, os, signal, struct, sys, time
config, source, log_dir = sys.argv[1:]
orders = dict(line.split() for line in open(config) if line.strip())
print("fake ids starts", file=sys.stderr, flush=True)
if "exit" in orders:
    print("E: fake: bad rule", file=sys.stderr, flush=True)
    sys.exit(int(orders["exit"]))
while "deaf" in orders:
    time.sleep(1)
if "stubborn" in orders:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(config + ".lives", "a+") as lives:
    lives.write("life\\n")
    lives.seek(0)
    number = len(lives.readlines()) - 1
if "/run-" in log_dir:
    number = int(log_dir.rsplit("-", 1)[1])
die_at = int(orders.get("die_at", 0)) if number < int(orders.get("runs", 1)) else 0
stream = open(source, "rb")
assert len(stream.read(24)) == 24
log = open(log_dir + "/eve.json", "a", buffering=1)
count = 0
while head := stream.read(16):
    seconds, micros, size, _ = struct.unpack("<IIII", head)
    stream.read(size)
    count += 1
    if count == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros:06d}+0000"
    alert = {"gid": 1, "signature_id": 1, "rev": 1}
    log.write(json.dumps({"timestamp": when, "event_type": "alert", "pcap_cnt": count, "alert": alert}) + "\\n")
    time.sleep(float(orders.get("slow", 0)))
while "stubborn" in orders or ("awaits" in orders and not count):
    time.sleep(1)
"""


class FakeIds(IdsLauncher):
    """The stand-in, started by the interpreter that runs the tests."""

    name = "fake"
    alert_file = "eve.json"
    cure = "there is none"

    def __init__(self, directory: Path, **orders: float) -> None:
        program, config, rules = directory / "fake_ids.py", directory / "fake.conf", directory / "fake.rules"
        program.write_text(PROGRAM)
        config.write_text("".join(f"{key} {value}\n" for key, value in orders.items()))
        rules.write_text("# none\n")
        self.program = program
        super().__init__(sys.executable, str(config), [rules])

    def command(self, source: Path, log_dir: Path) -> list[str]:
        return [str(self.binary), "-I", "-S", str(self.program), str(self.config), str(source), str(log_dir)]

    def check_command(self, log_dir: Path) -> list[str]:
        return [str(self.binary), "-V"]

    def reader(self, log_dir: Path) -> AlertReader:
        return EveReader(log_dir / self.alert_file)

    def _candidates(self) -> list[str]:
        return [sys.executable]

    def _default_rules(self) -> list[Path]:
        return []

    def _parse_version(self, output: str) -> str | None:
        return output.strip()
