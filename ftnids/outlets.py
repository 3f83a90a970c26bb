"""What a replica's agreed stream goes into, and where the set's alerts come out, from its configuration."""

from __future__ import annotations

from collections.abc import Callable

from ftnids.alerts.dedup import Deduplicator
from ftnids.alerts.desk import Desk
from ftnids.alerts.outputs import JsonLines, Output, Stdout, Syslog
from ftnids.alerts.recent import Recent
from ftnids.config import Config
from ftnids.core import Ring
from ftnids.feed import Feed, Hashes, Ids, PcapFile, put_aside
from ftnids.sync.messages import View
from snort_adapter.launchers import launcher


def make_feed(config: Config, ring: Ring) -> tuple[Feed, Ids | None, Hashes | None]:
    """The feed with its sinks, of which the IDS and the file of hashes are named; what earlier runs wrote is put aside.

    FtnidsError when the IDS is not there or refuses its configuration.
    """
    feed = Feed(ring)
    ids = hashes = None
    if config.feed.ids != "none":
        program = launcher(config.feed.ids, config.feed.ids_binary, config.feed.ids_config, config.feed.rules)
        program.validate(config.replica.log_dir / "ids")
        ids = Ids(ring, program, config.replica.run_dir, config.replica.log_dir, config.feed.cpus)
        feed.add(ids)
    if path := config.in_log_dir(config.feed.agreed_pcap):
        put_aside(path)
        feed.add(PcapFile(ring, path))
    if path := config.in_log_dir(config.feed.hashes):
        put_aside(path)
        hashes = Hashes(ring, path)
        feed.add(hashes)
    return feed, ids, hashes


def make_desk(config: Config, header: Callable[[], tuple[int, int, View]], recent: Recent) -> Desk:
    """The desk with its outputs, `recent` among them; `header` tells what this replica's messages begin with."""
    settings = config.alerts
    outputs: list[Output] = [recent]
    ids_of_others: Callable[[], list[str]] = list
    if path := config.in_log_dir(settings.output):
        outputs.append(lines := JsonLines(path))
        ids_of_others = lines.ids_of_others
    outputs += [Stdout()] if settings.stdout else []
    outputs += [Syslog()] if settings.syslog else []
    eve = config.in_log_dir(settings.eve_output)
    return Desk(
        config.me,
        [member.name for member in config.cluster.member],
        header,
        Deduplicator(hold_ms=settings.hold_ms, known=ids_of_others()),
        outputs,
        [JsonLines(eve)] if eve else [],
        ids_of_others,
        stall_ms=config.sync.failure_ms,
    )
