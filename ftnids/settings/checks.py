"""The configuration's values against each other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from ftnids.errors import PeerError
from ftnids.peers.addresses import Address, parse
from ftnids.settings.words import dotted, toml
from ftnids.toml_lines import Key

if TYPE_CHECKING:
    from ftnids.config import Config, Feed, Member


def crosschecked(config: Config) -> Iterator[tuple[Key, str]]:
    """Every conflict between values that are right by themselves: the key to blame, and the reason."""
    yield from _check_members(config)
    yield from _check_outputs(config)
    yield from _check_receivers(config)
    capture, sync, feed = config.capture, config.sync, config.feed
    if (capture.interface is None) == (capture.file is None):
        both = "both are set" if capture.file else "neither is set"
        yield ("capture",), f": set exactly one of interface and file ({both})"
    if capture.interface is not None:
        for name in ("pps", "from_start"):
            if getattr(capture, name):
                yield ("capture", name), " is for a file: remove it, or set capture.file in place of interface"
    try:
        _ = config.metrics.address
    except PeerError:
        wrong = f' = "{config.metrics.listen}": is no address: write HOST:PORT, an IPv6 host in brackets'
        yield ("metrics", "listen"), wrong
    if sync.l > sync.k:
        yield ("sync", "l"), f" = {sync.l}: an anchor is no longer than a cluster; at most sync.k = {sync.k}"
    if sync.report_ms * 2 > sync.delay_ms:
        yield ("sync", "report_ms"), f" = {sync.report_ms}: at most half of sync.delay_ms = {sync.delay_ms}"
    yield from _check_mode(feed, config.replica.user)
    yield from _check_state(feed, config.replica.user)
    if config.alerts.provisional and feed.mode != "optimistic":
        why = "only an IDS that is fed early raises such"
        yield ("alerts", "provisional"), f': goes with feed.mode = "optimistic": {why}; use false'


def _check_mode(feed: Feed, user: str) -> Iterator[tuple[Key, str]]:
    """An IDS that is fed early can be set back."""
    if feed.mode == "optimistic" and feed.checkpoint == "none":
        why = "an IDS that is fed early must be set back where the guess was wrong"
        yield ("feed", "mode"), f' = "optimistic": needs feed.checkpoint, because {why}; set it, or use "pessimistic"'
    elif feed.mode == "optimistic":
        why = ""
        if feed.checkpoint == "fork" and feed.ids != "snort":
            why = 'goes with feed.ids = "snort": only Snort forks by itself, in the DAQ module'
        elif feed.ids == "none":
            why = "there is no IDS to set back"
        elif feed.checkpoint == "criu" and user not in ("", "root"):
            why = f'CRIU needs root, and the replica becomes replica.user = "{user}"'
        if why:
            yield ("feed", "checkpoint"), f' = "{feed.checkpoint}": {why}; use "pessimistic"'


def _check_state(feed: Feed, user: str) -> Iterator[tuple[Key, str]]:
    """An IDS whose state travels is one that CRIU can take an image of."""
    why = ""
    if feed.state == "cold":
        return
    if feed.ids == "none":
        why = "there is no IDS whose state could travel"
    elif user not in ("", "root"):
        why = f'CRIU needs root, and the replica becomes replica.user = "{user}"'
    elif feed.mode == "optimistic" and feed.checkpoint == "fork":
        why = 'goes with feed.checkpoint = "criu": a Snort that reads the ring cannot be given away'
    if why:
        yield ("feed", "state"), f' = "transfer": {why}; use "cold"'


def _check_members(config: Config) -> Iterator[tuple[Key, str]]:
    """Names and addresses differ, this replica is one of them, and CURVE is set where it must be."""
    members = config.cluster.member
    names = [member.name for member in members]
    if config.replica.name not in names:
        yield ("replica", "name"), f' = "{config.replica.name}": is no cluster.member; those are {", ".join(names)}'
    addresses: dict[str, Address] = {}
    for place, member in enumerate(members):
        key: Key = ("cluster", "member", place)
        if member.name in names[:place]:
            yield (*key, "name"), f' = "{member.name}": is there twice'
        if member.address in addresses:
            yield (*key, "address"), f' = "{member.address}": is there twice'
        try:
            addresses[member.address] = parse(member.address)
        except PeerError as error:
            yield (*key, "address"), f": {error}"
    exposed = [text for text, address in addresses.items() if not address.loopback]
    if not exposed and config.cluster.key_file is None:
        for place, member in enumerate(members):
            if member.public_keys:
                why = "goes with cluster.key_file, which is missing; set both or neither"
                yield ("cluster", "member", place, "public_key" if member.public_key else "old_public_key"), f": {why}"
        return
    why = f"CURVE is required, because {exposed[0]} is not loopback" if exposed else "cluster.key_file asks for CURVE"
    if config.cluster.key_file is None:
        yield ("cluster", "key_file"), f" is missing: {why}; make keys with ftnids keygen"
    for place, member in enumerate(members):
        if member.public_key is None:
            yield ("cluster", "member", place, "public_key"), f" is missing: {why}; make keys with ftnids keygen"
    yield from _check_keys(members)


def _check_keys(members: list[Member]) -> Iterator[tuple[Key, str]]:
    """No two members have one key, and none has it twice."""
    owners: dict[str, str] = {}
    for place, member in enumerate(members):
        for name in ("public_key", "old_public_key"):
            if (key := getattr(member, name)) is None:
                continue
            if key in owners:
                twice = f"{owners[key]} and {member.name}" if owners[key] != member.name else f"{member.name} twice"
                why = f": is that of {twice}; every replica needs a pair of its own (ftnids keygen)"
                yield ("cluster", "member", place, name), why
            owners.setdefault(key, member.name)


def _check_outputs(config: Config) -> Iterator[tuple[Key, str]]:
    """No two outputs write one file, and none writes what is read."""
    cluster, feed = config.cluster, config.feed
    taken: dict[object, str] = {}
    read = [config.capture.file, cluster.secret_file, cluster.key_file, *map(Path, filter(None, [feed.ids_config]))]
    for path in (config.source, *filter(None, read), *feed.rules):
        taken[_file(path)] = "is a file that is read"
    taken[_file(config.replica.log_dir / "status.json")] = "is where the status is written"
    for key in (("alerts", "output"), ("alerts", "eve_output"), ("feed", "agreed_pcap"), ("feed", "hashes")):
        name = getattr(getattr(config, key[0]), key[1])
        output = config.in_log_dir(name)
        if output is None or (file := _file(output)) is None:
            continue
        if why := taken.get(file):
            yield key, f" = {toml(name)}: {why}; name another file"
        taken.setdefault(file, f"is what {dotted(key)} writes, too")


def _check_receivers(config: Config) -> Iterator[tuple[Key, str]]:
    """The address of Redis is one, and holds no password."""
    url = config.alerts.redis.url
    key: Key = ("alerts", "redis", "url")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        yield key, f": {error}"
        return
    if parts.password or "password" in parse_qs(parts.query):
        yield key, ": has a password in it, which others may read here; set alerts.redis.password_file"
    elif url and (parts.scheme not in ("redis", "rediss", "unix") or not (parts.hostname or parts.scheme == "unix")):
        yield key, f" = {toml(url)}: must be redis://HOST:6379/0, rediss://HOST:6379/0 or unix:///PATH"


def _file(path: Path) -> object:
    """What tells a file from others, however links lead to it; None for what is no file, as /dev/null."""
    try:
        found = path.stat()
    except OSError:  # not there yet
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
