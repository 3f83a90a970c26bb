"""Runs the steps of the Dockerfile where no container engine is: `python -m tests.image DIR`.

`DIR/base` is the Debian 13 that debootstrap makes, `DIR/STAGE` a copy of it for each stage, in which its RUN, COPY
and ENV lines are carried out, in namespaces of their own.  Needs root, debootstrap and the network; takes some minutes
and 3 GB.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BASE: Final = "debian:13-slim"
SUITE: Final = "trixie"
IGNORED: Final = {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """One stage: its name, the image that it begins with, and its steps."""

    name: str
    image: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile.  ValueError for a line that is not understood."""
    found: list[Stage] = []
    arguments: dict[str, str] = {}
    for word, rest in _instructions(text):
        if word == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            image, _, name = rest.partition(" AS ")
            image = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], image)
            found.append(Stage(name or "final", image))
        elif word in {"RUN", "COPY", "ENV"} | IGNORED:
            found[-1].steps.append((word, rest))
        else:
            raise ValueError(f"{word}: no instruction that is known here")
    return found


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        yield word, rest.strip()


def build(directory: Path, mirror: str) -> Path:
    """Carry all stages out; the root directory of the last one.  CalledProcessError when a step fails."""
    base = directory / "base"
    if not (base / "etc/debian_version").exists():
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        _run(["debootstrap", "--variant=minbase", f"--keyring={keyring}", SUITE, str(base), mirror])
    done: dict[str, Path] = {}
    for stage in stages((ROOT / "Dockerfile").read_text()):
        if stage.image != BASE:
            raise ValueError(f"{stage.image}: only {BASE} can be made without a container engine")
        root = done[stage.name] = directory / stage.name
        _run(["cp", "-a", "--reflink=auto", str(base), str(root)])
        environment = {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive", **_network(root)}
        for word, rest in stage.steps:
            if word not in IGNORED:
                print(f"image: {stage.name}: {word} {rest}", flush=True)
            if word == "RUN":
                inside(root, rest, environment)
            elif word == "COPY":
                _copy(rest, root, done)
            elif word == "ENV":
                for one in shlex.split(rest):
                    name, _, value = one.partition("=")
                    environment[name] = value.replace("$PATH", environment["PATH"])
    return done["final"]


def inside(root: Path, command: str, environment: dict[str, str]) -> str:
    """Run a shell command in a root directory, with /proc, /sys and /dev; what it printed."""
    script = (
        'mount --make-rprivate / && mount -t proc proc "$1/proc" && mount -t sysfs sysfs "$1/sys" && '
        'mount --rbind /dev "$1/dev" && '
        'exec chroot "$1" /bin/sh -c "$2"'
    )
    asked = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", str(root), command]
    return _run(asked, {**environment, "PATH": environment["PATH"]})


def _network(root: Path) -> dict[str, str]:
    """Names are resolved and packages found as on this host; what pip is told here it is told there."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    names = ("PIP_", "http_proxy", "https_proxy", "no_proxy")
    told = {name: value for name, value in os.environ.items() if name.startswith(names)}
    if "PIP_CERT" in told:  # beside the root's own, which its packages write
        shutil.copy(told["PIP_CERT"], root / "run/host.crt")
        told["PIP_CERT"] = "/run/host.crt"
    return told


def _copy(rest: str, root: Path, done: dict[str, Path]) -> None:
    words = rest.split()
    source = ROOT
    if words[0].startswith("--from="):
        source = done[words.pop(0).removeprefix("--from=")]
    what, target = words
    place = root / target.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if source == ROOT:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, listed.decode().split("\0")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    else:
        _run(["cp", "-a", str(source / what.lstrip("/")), str(place)])


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout[-4_000:], file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout


def mirror() -> str:
    """The mirror that this host takes Debian from; empty where it is none."""
    form = "$(ORIGIN) $(COMPONENT) $(REPO_URI)"
    asked = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return next((line.split()[2] for line in listed.splitlines() if line.startswith("Debian main ")), "")


def main(directory: Path) -> None:
    """Build, and let the image say what it is."""
    root = build(directory, mirror())
    environment = {"PATH": f"/opt/ftnids/bin:{PATH}"}
    print(inside(root, "ftnids -V && suricata -V && criu -V", environment))
    found = json.loads(inside(root, "ftnids doctor --json || true", environment))
    for finding in found["findings"]:
        print(finding["level"], finding["what"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
