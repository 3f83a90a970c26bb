"""What others learn of a replica: the status file, the peers' copies, the status socket, the metrics.

All four show the same record (`ftnids.status.snapshot`), once a second.  The main loop makes it and hands it in; files
and sockets are written on threads of their own.
"""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ftnids import log
from ftnids.alerts.recent import Recent
from ftnids.config import Config
from ftnids.core import Ring
from ftnids.errors import ConfigError
from ftnids.feed import Ids
from ftnids.peers.transport import Transport
from ftnids.status import server, snapshot
from ftnids.status.roster import Roster
from ftnids.sync.membership import State
from ftnids.sync.messages import Status, View

STATES: Final = {
    State.SEEKING: "waiting",
    State.FOUNDING: "waiting",
    State.RUNNING: "running",
    State.ENDED: "running",
    State.FAILED: "failed",
}
Header = Callable[[], tuple[int, int, View]]


def prepare(config: Config) -> None:
    """Load what only some replicas need, before privileges go: the replica's user may not be able to read it."""
    if config.metrics.listen:
        for module in ("ftnids.status.metrics", "encodings.idna"):  # the second to look a name up
            importlib.import_module(module)


class Monitor:
    """One replica's.  ConfigError when the address of the metrics cannot be listened at.

    A replica goes on without a status socket where it cannot be made, which is said.
    """

    def __init__(self, config: Config, transport: Transport, header: Header, recent: Recent) -> None:
        self._config, self._transport, self._header, self._recent = config, transport, header, recent
        self._log, self._limiter = log.get("status", replica=config.replica.name), log.Limiter()
        self._started = time.time()
        self._host = socket.gethostname()
        self._writer = snapshot.Writer(config.replica.log_dir / snapshot.STATUS, self._not_written)
        self.roster = Roster(config.cluster.name, [member.name for member in config.cluster.member], config.me)
        self._server = self._serve()

    def _serve(self) -> server.Server | None:
        config, address = self._config, self._config.metrics.address
        path = server.socket_path(config.replica.run_dir, config.replica.name)
        if address is None:
            try:
                return server.Server(self.roster, path)
            except ConfigError as error:
                hint = "ftnids top and status see this replica through its peers alone"
                self._log.warning("no_status_socket", reason=str(error), hint=hint)
                return None
        from ftnids.status import metrics  # its library is not needed without

        exporter = metrics.Exporter(self.roster)
        made = server.Server(self.roster, path, (address.host, address.port), exporter.page)
        self._log.info("metrics", address=f"http://{self._config.metrics.listen}/metrics")
        return made

    def heard(self, message: Status) -> None:
        """A peer's status has come."""
        self.roster.heard(message.sender, message.snapshot)

    def put(self, record: snapshot.Snapshot) -> None:
        """Tell everybody, soon; returns at once."""
        self._complete(record)
        self._writer.put(record)
        self.roster.own(record)
        if self._server is not None:
            self._server.news()
        self._to_peers(record)

    def close(self, last: snapshot.Snapshot) -> None:
        """Tell the last one, and end; returns when it is in the file."""
        self._complete(last)
        self.roster.own(last)
        self._to_peers(last)
        self.abandon()
        self._writer.close(last)

    def abandon(self) -> None:
        """End without a last word."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _complete(self, record: snapshot.Snapshot) -> None:
        config = self._config
        record.host, record.cluster, record.started = self._host, config.cluster.name, self._started
        record.source = config.capture.interface or str(config.capture.file)
        record.snaplen = config.capture.snaplen
        record.alerts = list(self._recent.alerts())
        record.peers["malformed_statuses"] = self.roster.malformed
        record.viewers = self._server.counters if self._server is not None else {}

    def _to_peers(self, record: snapshot.Snapshot) -> None:
        there = [m for m in range(len(self._config.cluster.member)) if m != self._config.me]
        there = [m for m in there if self._transport.connected(m)]
        if there:
            self._transport.send_to(there, Status(*self._header(), record.json()))

    def _not_written(self, error: OSError) -> None:
        file, reason = str(self._config.replica.log_dir / snapshot.STATUS), error.strerror
        self._limiter.log(self._log, "error", "status", "status_not_written", file=file, reason=reason)


def ids_facts(config: Config, ids: Ids | None, ring: Ring) -> dict[str, str | int]:
    """What the status says of the IDS: its name, whether it reads, how far it is, and its counters."""
    if ids is None:
        return {"name": "", "mode": config.feed.mode}
    running = [run for run in list(ids.runs) if not run.ended and run.process.poll() is None]
    state = "ended" if ids.ended else "reads" if running else "down"
    return {
        "name": config.feed.ids,
        "version": ids.launcher.version,
        "rules": ids.launcher.digest[:16],
        "mode": config.feed.mode,
        "state": state,
        "pid": running[-1].process.pid if running else 0,
        "lag": max(0, ring.stable - ids.position),
        **ids.counters(),
    }


def clocks(
    offset_ns: Mapping[int, int], tolerance_ns: Mapping[int, int], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """What the status says of the members' capture clocks: what to add for the set's reference clock, and how sure."""
    return {
        names[m]: {"offset_us": offset // 1000, "tolerance_us": tolerance_ns.get(m, 0) // 1000}
        for m, offset in offset_ns.items()
    }
