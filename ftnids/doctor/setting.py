"""What a configuration asks of the host: its port is free, its secrets are there and safe."""

from __future__ import annotations

import socket

from ftnids.config import Config
from ftnids.doctor.finding import Finding, fail, ok, warn
from ftnids.errors import PeerError
from ftnids.peers import keys


def port(config: Config) -> Finding:
    """Whether this replica's address can be bound."""
    why = "the peers send here"
    text = config.cluster.member[config.me].address
    try:
        address = config.cluster.member[config.me].parsed.resolved()
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except (OSError, PeerError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        do = f"stop what listens there (ss -ltnp), or change the address of {config.replica.name} in cluster.member"
        return fail("port", f"{text}: {reason}", why, do)
    return ok("port", f"{text} is free", why)


def secrets(config: Config) -> Finding:
    """Whether the secret and the keys are there, safe, and fit each other."""
    cluster = config.cluster
    why = "the secret seeds the packet hash; the keys let members in, and nobody else"
    if config.loopback and not cluster.secret_file.exists():
        do = f"ftnids keygen {cluster.secret_file.parent}"
        return warn("keys", f"{cluster.secret_file} is not there; a public value stands in for it", why, do)
    try:
        public = [member.public_key for member in cluster.member]
        found = keys.identify(
            cluster.name, cluster.secret_file, cluster.key_file, public, config.me, loopback=config.loopback
        )
    except PeerError as error:
        what, _, do = str(error).rpartition(": ")
        return fail("keys", what, why, do)
    return ok("keys", "the secret is there and safe" + (", the key pair fits" if found.keys else ""), why)
