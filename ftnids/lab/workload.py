"""What the lab's traffic asks for: ordinary requests, attacks that the shipped rules catch, DNS names.

The programs on the hub and the generated capture file draw from the same lists, by seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

PAGES: Final = ("/", "/index.html", "/news.html", "/style.css", "/data/report.csv", "/img/logo.png", "/missing.html")
AGENTS: Final = ("Mozilla/5.0 (X11; Linux x86_64)", "curl/8.5.0", "python-requests/2.31", "Wget/1.21.4")
HOSTS: Final = ("www", "mail", "cdn", "login", "static", "api")
CANARY: Final = "canary.ftnids.test"  # nobody asks for this name but the lab
ZONE: Final = "lab.ftnids.test"


@dataclass(frozen=True)
class Request:
    """One HTTP GET, and whether a shipped rule must raise an alert on it."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)
    attack: bool = False


ATTACKS: Final = (
    Request("/cgi-bin/view?file=../../../../etc/passwd", attack=True),
    Request("/cgi-bin/status", {"User-Agent": "() { :; }; /bin/sh -c id"}, attack=True),
    Request("/items?id=1%20UNION%20SELECT%20name,password%20FROM%20users", attack=True),
    Request("/scripts/..%255c../winnt/system32/cmd.exe?/c+dir", attack=True),
)


def page(path: str) -> bytes:
    """The body behind an ordinary path, the same on every run: 0.3 to 20 kB, so that some take many packets."""
    rng = random.Random(path)
    line = " ".join(rng.choices(("replica", "anchor", "window", "packet", "horizon", "view"), k=12)).encode() + b"\n"
    return line * rng.randint(4, 250)


def requests(seed: int, count: int, attack_share: float) -> list[Request]:
    """`count` GET requests by `seed`; a share of `attack_share` are attacks, each numbered so that no two are alike."""
    rng = random.Random(f"requests {seed}")
    chosen = []
    for number in range(count):
        base = rng.choice(ATTACKS) if rng.random() < attack_share else Request(rng.choice(PAGES))
        mark = "&" if "?" in base.path else "?"
        headers = {"User-Agent": rng.choice(AGENTS), **base.headers}
        chosen.append(Request(f"{base.path}{mark}n={number}", headers, base.attack))
    return chosen


def names(seed: int, count: int) -> list[str]:
    """`count` DNS names by `seed`; about one in ten is the canary that a shipped rule catches."""
    rng = random.Random(f"names {seed}")
    ordinary = [f"{rng.choice(HOSTS)}{number}.{ZONE}" for number in range(count)]
    return [f"x{number}.{CANARY}" if rng.random() < 0.1 else name for number, name in enumerate(ordinary)]
