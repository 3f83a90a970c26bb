"""`ftnids doctor`: looks at this host, changes nothing, and says what to do.

Each check is a function that returns findings; `examine` runs them all.  Nothing in here raises for the state of
the host: whatever is wrong becomes a finding.
"""

from __future__ import annotations

from ftnids.config import Capture, Config
from ftnids.doctor import host, interface, programs, running, setting
from ftnids.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]


def examine(config: Config | None, capture: str | None) -> list[Finding]:
    """All findings about this host, for `config` and capture interface `capture` where they are given."""
    wanted = config.feed.ids if config else "none"
    binary = config.feed.ids_binary if config else ""
    findings = [
        programs.python(),
        programs.libpcap(),
        programs.core(),
        *programs.ids("suricata", wanted=wanted == "suricata", binary=binary),
        *programs.ids("snort", wanted=wanted == "snort", binary=binary),
        programs.criu(),
        *host.capabilities(capturing=capture is not None),
        host.shared_memory(config),
        host.huge_pages(config),
        host.clock(),
        host.socket_buffers(),
    ]
    if capture is not None:
        findings += interface.examine(capture, config.capture if config else Capture())
    if config is not None:
        live, port = running.examine(config), setting.port(config)
        if isinstance(live, running.Running):
            port = live.port(port, config.cluster.member[config.me].parsed.port)
        findings += [port, *setting.peers(config), setting.secrets(config), setting.user(config)]
        findings += setting.receivers(config)
        if live is not None:
            findings += live.findings if isinstance(live, running.Running) else [live]
    return findings
