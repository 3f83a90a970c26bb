"""Small C hosts that drive the DAQ modules, built with sanitizers, and spoken to line by line."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import ftnids.core
import snort_adapter

HERE: Final = Path(__file__).parent
CORE: Final = Path(ftnids.core.__file__).parent
DAQ: Final = Path(snort_adapter.__file__).parent / "daq"
ROOT: Final = DAQ.parent.parent
FLAGS: Final = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{CORE}", f"-I{DAQ}"]
CHECKS: Final = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiler() -> str:
    """A C compiler with sanitizers, or the test skips."""
    found = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if found is None:
        pytest.skip("needs a C compiler")
    probe = [found, *CHECKS, "-x", "c", "-", "-o", os.devnull]
    if subprocess.run(probe, input="int main(void){return 0;}", text=True, capture_output=True, check=False).returncode:
        pytest.skip(f"{found} has no sanitizers")
    return found


def daq3_flags() -> list[str]:
    """How to find libdaq 3's headers, or the test skips."""
    snort = shutil.which(os.environ.get("FTNIDS_SNORT", "snort"))
    folders = [str(Path(snort).resolve().parent.parent / "lib/pkgconfig")] if snort else []
    path = os.pathsep.join([*folders, os.environ.get("PKG_CONFIG_PATH", "")])
    try:
        asked = ["pkg-config", "--cflags", "libdaq >= 3"]
        done = subprocess.run(
            asked, capture_output=True, text=True, check=False, env={**os.environ, "PKG_CONFIG_PATH": path}
        )
    except OSError:
        pytest.skip("needs pkg-config")
    if done.returncode:
        pytest.skip("needs the headers of libdaq 3")
    return done.stdout.split()


def daq2_there() -> None:
    """The test skips without libdaq 2."""
    done = subprocess.run(["gcc", "-E", "-"], input="#include <daq_api.h>", text=True, capture_output=True, check=False)
    if done.returncode or "DAQ_Meta_Func_t" not in done.stdout:
        pytest.skip("needs libdaq-dev, version 2")


def build(folder: Path, name: str, sources: list[Path], *flags: str) -> Path:
    """The host `name`, built from `sources`."""
    program = folder / name
    command = [compiler(), *FLAGS, *CHECKS, *map(str, sources), *flags, "-lpthread", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


@dataclass(frozen=True)
class Handed:
    """One packet as a host printed it."""

    time_us: int
    caplen: int
    wirelen: int
    checksum: str


class Host:
    """A running host."""

    def __init__(self, program: Path) -> None:
        self.killed = False
        self.process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, *words: object) -> str:
        """One command, and the line that answers it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def packets(self, *words: object) -> tuple[str, list[Handed]]:
        """One command whose answer lists packets: the rest of the answer, and these."""
        return self._parse(self.say(*words))

    def answer(self) -> tuple[str, list[Handed]]:
        """The next answer, without a command."""
        assert self.process.stdout is not None
        return self._parse(self.process.stdout.readline().rstrip("\n"))

    @staticmethod
    def _parse(line: str) -> tuple[str, list[Handed]]:
        said = line.split(" ")
        found = [part.split(":") for part in said if part.count(":") == 3]
        rest = " ".join(part for part in said if part.count(":") != 3).strip()
        return rest, [Handed(int(time), int(caplen), int(wire), check) for time, caplen, wire, check in found]

    def end(self) -> int:
        """Close its input; its exit status, not 0 where a sanitizer complained."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(30)
        self.process.stdout.close()
        return status


def running(program: Path) -> Iterator[Host]:
    """A fixture's life of a host: it must end well."""
    host = Host(program)
    try:
        yield host
        status = host.end()
        assert host.killed or status == 0
    finally:
        if host.process.poll() is None:
            host.process.kill()
            host.process.wait()
            for pipe in (host.process.stdin, host.process.stdout):
                if pipe is not None:
                    pipe.close()
