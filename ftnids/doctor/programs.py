"""What is installed: Python, libpcap, the core, Suricata, Snort and its DAQ, CRIU."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from typing import Final

from ftnids.doctor.finding import Finding, fail, grade, ok, warn
from ftnids.errors import FtnidsError
from ftnids.limits import IDS_CHECK_S
from snort_adapter.launchers import launcher

OLDEST_PYTHON: Final = (3, 11)
_WHY_IDS: Final = {
    "suricata": "a replica with feed.ids = suricata feeds it the agreed stream",
    "snort": "a replica with feed.ids = snort feeds it the agreed stream",
}
_WHY_CRIU: Final = "checkpoints of the IDS for the optimistic mode, and its state for a replica that joins"


def python() -> Finding:
    """The interpreter."""
    why = f"ftnids needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer"
    what = f"Python {platform.python_version()} ({sys.executable})"
    if sys.version_info < OLDEST_PYTHON:
        return fail("python", what, why, "install a newer Python and make the environment anew (make setup)")
    return ok("python", what, why)


def libpcap() -> Finding:
    """The capture library."""
    why = "captures packets and reads capture files"
    try:
        version = ctypes.CDLL("libpcap.so.0.8").pcap_lib_version
    except (OSError, AttributeError):
        return fail("libpcap", "libpcap is missing", why, "apt install libpcap0.8")
    version.restype = ctypes.c_char_p
    return ok("libpcap", str(version().decode(errors="replace")), why)


def core() -> Finding:
    """Which implementation of the core is in use."""
    why = "the ring, capture and hashing; the one in C is several times faster"
    try:
        from ftnids.core import IMPL
    except (ImportError, FtnidsError) as error:
        return fail("core", f"the core cannot be loaded: {error}", why, "make build")
    if IMPL != "c":
        forced = os.environ.get("FTNIDS_IMPL")
        return warn("core", f"core in {IMPL}", why, "unset FTNIDS_IMPL" if forced else "make build")
    return ok("core", "core in C", why)


def ids(name: str, *, wanted: bool, binary: str = "") -> list[Finding]:
    """An IDS, and for Snort the DAQ that it is linked with."""
    try:
        found = launcher(name, binary if wanted else "")
    except FtnidsError as error:
        what, _, do = str(error).partition("; ")
        return [grade(name, needed=wanted, what=what, why=_WHY_IDS[name], do=do or f"install {name}")]
    findings = [ok(name, f"{name} {found.version} ({found.binary})", _WHY_IDS[name])]
    if name == "snort":
        _, output = _output([str(found.binary), "-V"], dict(found.environment()))
        match = re.search(r"DAQ version (\S+)", output)
        if match is None:
            findings.append(warn("daq", "snort -V names no DAQ", "it brings packets to Snort", "rebuild with libdaq 3"))
        else:
            findings.append(ok("daq", f"libdaq {match[1]}", "it brings packets to Snort"))
    return findings


def criu() -> Finding:
    """CRIU, and what it says of this kernel."""
    try:
        from ftnids.feed.criu import Criu
    except (ImportError, FtnidsError):
        return warn("criu", "CRIU is not looked for without a core", _WHY_CRIU, "make build")
    try:
        found = Criu()
        found.check()
    except FtnidsError as error:
        what, _, do = str(error).partition("; ")
        return warn("criu", what, _WHY_CRIU, do or "run as root")
    return ok("criu", f"criu {found.version} ({found.binary}), its check passes", _WHY_CRIU)


def _output(command: list[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and all that a program printed; -1 and the reason if it cannot be run."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=IDS_CHECK_S,
            check=False,
        )
    except OSError as error:
        return -1, f"cannot be run: {error.strerror}"
    except subprocess.TimeoutExpired:
        return -1, f"did not end within {IDS_CHECK_S:.0f} s"
    return done.returncode, done.stdout.decode(errors="replace")
