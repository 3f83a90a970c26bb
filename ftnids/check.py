"""What `ftnids run -T` checks: all that a start would refuse, as far as it can be seen without one.

Nothing stays and nothing is bound, so that it can be asked beside the running replica; whether a directory takes files
is tried with one that goes at once.  What depends on the moment is left out: free memory and a free port (`ftnids
doctor` looks at them), and the right to capture.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ftnids import affinity, outlets, privileges, rekey
from ftnids.capture import filter_fault
from ftnids.config import Config
from ftnids.core import Capture, segment
from ftnids.doctor import Level, interface
from ftnids.errors import CaptureError, ConfigError, FeedError, PeerError, RingError
from ftnids.feed.criu import Criu
from ftnids.peers import keys
from snort_adapter.launchers import launcher

OUTPUTS: Final = (("alerts", "output"), ("alerts", "eve_output"), ("feed", "agreed_pcap"), ("feed", "hashes"))


def faults(config: Config) -> Iterator[str]:
    """Everything that a start would refuse, one line each: what is wrong, and what to change.

    As the replica does, a process of root becomes `replica.user` half-way, because that user is to read and write the
    files; it never gets back.
    """
    known = True
    try:
        privileges.reachable(config)
    except ConfigError as error:
        known = False
        yield str(error)
    for key, cpus in config.cpus.items():
        try:
            affinity.check(key, cpus)
        except ConfigError as error:
            yield str(error)
    yield from _capture(config)
    directories = {"log_dir": config.replica.log_dir, "run_dir": config.replica.run_dir}
    absent = {key: path for key, path in directories.items() if not os.path.lexists(path)}
    for key, path in absent.items():
        yield from _cannot_be_made(key, path)
    if known:
        privileges.become(config)
    for key, path in directories.items():
        if key not in absent and not _takes_files(path):
            yield f"replica.{key} {path}: is no directory that {_who()} may write; name another, or change its owner"
    yield from _outputs(config, config.replica.log_dir in absent.values())
    yield from _keys(config)
    yield from _address(config)
    yield from _ring(config)
    yield from _ids(config)
    yield from _state(config)
    try:
        list(outlets.receivers(config))
    except ConfigError as error:
        yield str(error)


# -- as who starts it ---------------------------------------------------------------------------------


def _capture(config: Config) -> Iterator[str]:
    """The interface is there and up, or the file can be read; the filter is one."""
    capture = config.capture
    if capture.interface is not None:
        for finding in interface.examine(capture.interface, capture):
            if finding.level == Level.FAIL:
                yield f'capture.interface = "{capture.interface}": {finding.what}; {finding.do}'
        if reason := filter_fault(capture.interface, capture.bpf):
            yield f"capture.bpf: {reason}; try it with tcpdump -d"
    elif capture.file is not None and not _is_pipe(capture.file):  # whose end the replica is
        try:
            Capture.file(capture.file, snaplen=capture.snaplen, bpf=capture.bpf).close()
        except CaptureError as error:
            yield f"capture.file {error}"


def _is_pipe(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def _cannot_be_made(key: str, path: Path) -> Iterator[str]:
    """Why a directory that is not there cannot be made."""
    above = next(one for one in path.parents if os.path.lexists(one))
    if not above.is_dir():
        yield f"replica.{key} {path}: cannot be made: {above} is no directory; name another"
    elif not _takes_files(above):
        yield f"replica.{key} {path}: cannot be made: {above} may not be written by {_who()}; make it, or name another"


# -- as the replica's user ------------------------------------------------------------------------------


def _outputs(config: Config, fresh: bool) -> Iterator[str]:
    """Each output can be written, or made where it is to be; a `fresh` log directory takes all that lie in it."""
    for section, key in OUTPUTS:
        path = config.in_log_dir(getattr(getattr(config, section), key))
        if path is None or (fresh and path.parent == config.replica.log_dir):
            continue
        what = f"{section}.{key} {path}"
        if os.access(path, os.F_OK):
            if not os.access(path, os.W_OK) or path.is_dir():
                yield f"{what}: is no file that {_who()} may write; name another, or change its owner"
        elif path.parent != config.replica.log_dir and not _takes_files(path.parent):  # that one has been looked at
            yield f"{what}: {path.parent} is no directory that {_who()} may write; make it, or change its owner"


def _takes_files(directory: Path) -> bool:
    """Whether it is a directory, and this user can make files in it; permissions do not tell of /proc."""
    try:
        tempfile.TemporaryFile(dir=f"{directory}/").close()
    except OSError:
        return False
    return True


def _keys(config: Config) -> Iterator[str]:
    """The secret and the key are there, safe, and fit the members' public keys."""
    cluster = config.cluster
    found = []
    if not (config.secret_optional and keys.missing(cluster.secret_file)):
        try:
            keys.load_secret(cluster.secret_file)
        except PeerError as error:
            found.append(f"cluster.secret_file {error}")
    if cluster.key_file is not None:
        try:
            keys.load_keys(cluster.key_file, [member.public_keys for member in cluster.member], config.me)
        except PeerError as error:
            found.append(f"cluster.key_file {error}" if str(error).startswith(str(cluster.key_file)) else str(error))
    if not found:
        rekey.identity(config)  # warns where there is no secret
    yield from found


def _address(config: Config) -> Iterator[str]:
    """This replica's address is one of this host."""
    text = config.cluster.member[config.me].address
    try:
        address = config.cluster.member[config.me].parsed.resolved()
        with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
            probe.bind((address.host, 0))
    except PeerError as error:
        yield str(error)
    except OSError as error:
        yield f"{text}: {error.strerror}: correct replica.name, or the address in cluster.member"


def _ring(config: Config) -> Iterator[str]:
    """The ring can have its name and its group."""
    try:
        segment.check(config.ring_name)
    except RingError as error:
        yield str(error)
    group = config.ring.group
    if not group:
        return
    try:
        there = grp.getgrnam(group).gr_gid
    except KeyError:
        yield f'ring.group = "{group}": there is no such group; make it with groupadd --system'
        return
    if os.geteuid() and there not in (os.getegid(), *os.getgroups()):
        yield f'ring.group = "{group}": {_who()} is no member of it; add it with usermod -aG'


def _ids(config: Config) -> Iterator[str]:
    """The IDS is there, can be started, and takes its configuration and rules."""
    feed = config.feed
    if feed.ids == "none":
        return
    try:
        privileges.check_interpreter(config)
        program = launcher(feed.ids, feed.ids_binary, feed.ids_config, feed.rules)
        with tempfile.TemporaryDirectory(prefix="ftnids-check-") as folder:
            program.validate(Path(folder))
    except (ConfigError, FeedError) as error:
        yield str(error)


def _who() -> str:
    return f"user id {os.geteuid()}"


def _state(config: Config) -> Iterator[str]:
    """CRIU works here, if the state of an IDS is to travel; a start would go on without, and say so."""
    if config.feed.state == "transfer":
        try:
            Criu().check()
        except FeedError as error:
            yield f'feed.state = "transfer": {error}; or use "cold"'
