"""What a configuration asks of the host: a free port, secrets that are there and safe, a user who may use them."""

from __future__ import annotations

import errno
import os
import pwd
import socket
from typing import Final
from urllib.parse import urlsplit

from ftnids import privileges, rekey
from ftnids.config import Config
from ftnids.doctor.finding import Finding, fail, ok, warn
from ftnids.errors import ConfigError, FtnidsError, PeerError
from ftnids.peers import keys

PEER_S: Final = 1.0  # for a peer to answer


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
        if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
            do = "this host has no such address: correct replica.name, or the address in cluster.member"
        return fail("port", f"{text}: {reason}", why, do)
    return ok("port", f"{text} is free", why)


def peers(config: Config) -> list[Finding]:
    """Whether the other members' addresses can be reached from here."""
    why = "replicas that do not reach each other each lose what only the other one captured"
    findings = []
    for member in config.cluster.member:
        if member.name == config.replica.name:
            continue
        try:
            address = member.parsed.resolved()
            with socket.create_connection((address.host, address.port), PEER_S):
                findings.append(ok("peers", f"{member.name} answers at {member.address}", why))
        except PeerError as error:
            do = "correct the address in cluster.member, or the name service"
            findings.append(fail("peers", f"{member.name}: {error}", why, do))
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            do = f"start {member.name}, if it is not running; else see firewalls between here and {member.address}"
            findings.append(warn("peers", f"{member.name} at {member.address}: {reason}", why, do))
    return findings


def receivers(config: Config) -> list[Finding]:
    """Whether what alerts are handed to answers, and is reached without being overheard."""
    why = "alerts wait on disk until it takes them, up to alerts.spool_mb"
    findings = []
    try:
        from ftnids.alerts.sinks import ForgetfulError, SinkError
        from ftnids.outlets import receivers as configured  # needs the core, whose absence is a finding of its own

        for name, sink in configured(config):
            try:
                sink.put([])
                findings.append(ok("outputs", f"{name} answers", why))
            except ForgetfulError:  # it answers, and would be given what is kept
                findings.append(ok("outputs", f"{name} answers", why))
            except SinkError as error:
                findings.append(warn("outputs", f"{name}: {error}", why, error.hint or f"see {name}"))
            sink.close()
    except FtnidsError as error:
        do = "correct [alerts] in the configuration; ftnids run -T tells whether it is right"
        findings.append(fail("outputs", str(error), why, do))
    url = urlsplit(config.alerts.redis.url)
    if url.scheme == "redis" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        what = f"alerts go to {url.hostname} as plain text"
        clear = "who listens on the way reads which attacks are seen, and the password"
        findings.append(warn("outputs", what, clear, "use rediss:// in alerts.redis.url"))
    return findings


def secrets(config: Config) -> Finding:
    """Whether the secret and the keys are there, safe, and fit each other."""
    cluster = config.cluster
    why = "the secret seeds the packet hash; the keys let members in, and nobody else"
    if config.secret_optional and keys.missing(cluster.secret_file):
        do = f"ftnids keygen {cluster.secret_file.parent}"
        return warn("keys", f"{cluster.secret_file} is not there; a public value stands in for it", why, do)
    try:
        ids = privileges.account(config)
        found = rekey.identity(config, owner=ids[0] if ids else None)
    except (ConfigError, PeerError) as error:
        what, _, do = str(error).rpartition(": ")
        return fail("keys", what, why, do)
    fits = ", the keys come from it" if found.keys.derived else ", the key pair fits"
    return ok("keys", f"the secret is there and safe{fits}", why)


def user(config: Config) -> Finding:
    """Who the replica will be once it captures, and which capabilities it keeps."""
    why = "what reads hostile traffic, the replica and its IDS, should be nobody who could do more"
    try:
        ids = privileges.account(config)
    except ConfigError as error:
        what, _, do = str(error).partition("; ")
        return fail("user", what, why, do)
    if ids is None and os.geteuid() == 0:
        do = "useradd --system ftnids, give it the keys and the directories (chown), and set replica.user"
        return warn("user", "replica.user is empty: started as root it stays root", why, do)
    uid = os.geteuid() if ids is None else ids[0]
    name = pwd.getpwuid(uid).pw_name
    cluster, replica = config.cluster, config.replica
    paths = [replica.log_dir, replica.run_dir, cluster.secret_file, *([cluster.key_file] if cluster.key_file else [])]
    foreign = [str(path) for path in paths if path.exists() and path.stat().st_uid != uid]
    if foreign:
        do = f"chown -R {name} {' '.join(foreign)}"
        return fail("user", f"{foreign[0]} does not belong to {name}, as whom the replica goes on", why, do)
    try:
        privileges.check_users_interpreter(config)
    except ConfigError as error:
        what, _, do = str(error).partition("; ")
        return fail("user", what, why, do)
    kept = [f"{capability} ({reason})" for capability, reason in privileges.needed(config).items()]
    keeps = "keeps " + ", ".join(kept) if kept else "keeps no capability"
    return ok("user", f"once it captures, the replica goes on as {name} and {keeps}", why)
