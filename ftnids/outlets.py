"""What a replica's agreed stream goes into, and where the set's alerts come out, from its configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from typing import Final

from ftnids import log
from ftnids.alerts import sinks
from ftnids.alerts.dedup import Deduplicator
from ftnids.alerts.desk import Desk
from ftnids.alerts.kafka_sink import Kafka
from ftnids.alerts.outputs import JsonLines, Output
from ftnids.alerts.provisional import JOURNAL, Provisional
from ftnids.alerts.recent import Recent
from ftnids.alerts.redis_sink import Redis, password
from ftnids.alerts.spooled import Spooled
from ftnids.config import Config
from ftnids.core import Ring
from ftnids.feed import DaqIds, Feed, FifoIds, Hashes, Ids, PcapFile, put_aside
from ftnids.feed.criu_checkpoints import CriuCheckpoints, remove_left
from ftnids.feed.kept import KeptIds
from ftnids.feed.optimistic import OptimisticIds
from ftnids.feed.policy import Policy
from ftnids.sync.messages import View
from snort_adapter.launchers import IdsLauncher, launcher

SPOOL: Final = "spool"  # in the log directory: what the receivers of alerts have not taken


def make_feed(config: Config, ring: Ring) -> tuple[Feed, Ids | None, Hashes | None]:
    """The feed with its sinks, of which the IDS and the file of hashes are named; what earlier runs wrote is put aside.

    FtnidsError when the IDS is not there or refuses its configuration.
    """
    feed = Feed(ring)
    ids = hashes = None
    if config.feed.ids != "none":
        program = launcher(config.feed.ids, config.feed.ids_binary, config.feed.ids_config, config.feed.rules)
        program.validate(config.replica.log_dir / "ids")
        ids = _make_ids(config, ring, program)
        feed.add(ids)
    if path := config.in_log_dir(config.feed.agreed_pcap):
        put_aside(path)
        feed.add(PcapFile(ring, path))
    if path := config.in_log_dir(config.feed.hashes):
        put_aside(path)
        hashes = Hashes(ring, path)
        feed.add(hashes)
    return feed, ids, hashes


def say_what_waits(ids: Ids | None) -> None:
    """Rules and configuration of an IDS are read at its replica's start; name those that are others by now."""
    if ids is not None and (files := ids.launcher.changed()):
        log.get("feed").warning(
            "rules_wait_for_a_restart",
            files=[str(path) for path in files],
            reason="read now, they would take effect at another packet on each replica",
            hint="restart the replicas, one after the other",
        )


def _make_ids(config: Config, ring: Ring, program: IdsLauncher) -> Ids:
    """The IDS on the ring itself where it can read it, else on a pcap stream; with CRIU on a pcap stream."""
    place = config.replica
    remove_left(place.run_dir)
    ahead = config.feed.mode == "optimistic"
    transfer = config.feed.state == "transfer"
    if transfer or (ahead and config.feed.checkpoint == "criu"):
        made = _make_criu_ids(config, ring, program, ahead=ahead)
        if made is not None:
            return made
        ahead = False
    reason = program.ring_fault()
    if not reason:
        group, policy = config.ring.group or None, Policy(always=config.feed.speculate == "always")
        return DaqIds(ring, program, place.log_dir, config.feed.cpus, group=group, ahead=ahead, policy=policy)
    if ahead:
        log.get("feed").error("optimistic_mode_off", reason=reason, hint="only what is stable is fed")
    if program.name == "snort":
        log.get("feed").info("snort_reads_a_pcap_stream", reason=reason)
    return FifoIds(ring, program, place.run_dir, place.log_dir, config.feed.cpus)


def _make_criu_ids(config: Config, ring: Ring, program: IdsLauncher, *, ahead: bool) -> Ids | None:
    """The IDS that CRIU sets back, or gives away; None where its self-test shows that it cannot."""
    place = config.replica
    checkpoints = CriuCheckpoints(place.run_dir)
    if reason := checkpoints.self_test():
        if ahead:
            log.get("feed").error("optimistic_mode_off", reason=reason, hint="only what is stable is fed")
        if config.feed.state == "transfer":
            hint = "a replica that joins starts its IDS cold, and gets none from this one"
            log.get("feed").error("state_transfer_off", reason=reason, hint=hint)
        return None
    folders = place.run_dir, place.log_dir
    if not ahead:
        return KeptIds(ring, program, *folders, config.feed.cpus, checkpoints=checkpoints)
    policy = Policy(always=config.feed.speculate == "always")
    return OptimisticIds(ring, program, *folders, config.feed.cpus, checkpoints=checkpoints, policy=policy)


def make_desk(config: Config, header: Callable[[], tuple[int, int, View]], recent: Recent) -> Desk:
    """The desk with its outputs, `recent` among them; `header` tells what this replica's messages begin with.

    The file comes last: an alert is not put out again after a restart when it is in there, so the others have it then.
    """
    settings = config.alerts
    with ExitStack() as undo:
        outputs: list[Output] = [recent]
        for setting, sink in receivers(config):
            folder = config.replica.log_dir / SPOOL / setting.rpartition(".")[2]
            outputs.append(output := Spooled(setting, sink, folder, settings.spool_mb << 20))
            undo.callback(output.close)
        ids_of_others: Callable[[], list[str]] = list
        lines_of = functools.partial(JsonLines, rotate_bytes=settings.rotate_mb << 20, rotate_keep=settings.rotate_keep)
        if path := config.in_log_dir(settings.output):
            outputs.append(lines := lines_of(path))
            ids_of_others = lines.ids_of_others
        eve = config.in_log_dir(settings.eve_output)
        eve_outputs = [lines_of(eve, "alerts.eve_output")] if eve else []
        known = ids_of_others()
        provisional = _provisional(config, outputs, known)
        undo.pop_all()
    return Desk(
        config.me,
        [member.name for member in config.cluster.member],
        header,
        Deduplicator(hold_ms=settings.hold_ms, known=known),
        outputs,
        eve_outputs,
        ids_of_others,
        stall_ms=config.sync.failure_ms,
        provisional=provisional,
    )


def _provisional(config: Config, outputs: list[Output], known: Collection[str]) -> Provisional | None:
    """The table of provisional alerts, where there are to be any; what an earlier life left open is retracted.

    A journal that is there is read also where they are off now.
    """
    journal = config.replica.log_dir / JOURNAL
    if not (config.alerts.provisional or journal.exists()):
        return None
    table = Provisional(journal, hold_ms=config.alerts.hold_ms)
    if left := table.left(set(known)):
        for output in outputs:
            output.write(left)
        log.get("alerts").info("provisional_alerts_retracted", count=len(left), why="restart")
    table.forget_left()
    if not config.alerts.provisional:
        table.close()
        journal.unlink()
        return None
    return table


def receivers(config: Config) -> Iterator[tuple[str, sinks.Sink]]:
    """The receivers that the configuration names: the setting, and what alerts are handed to.

    ConfigError for one that cannot be had, whether or not it answers.
    """
    settings = config.alerts
    if settings.stdout:
        yield "alerts.stdout", sinks.Stdout()
    if settings.syslog:
        yield "alerts.syslog", sinks.Syslog()
    if (redis := settings.redis).url:
        secret = password(redis.password_file, "alerts.redis.password_file") if redis.password_file else ""
        target = Redis(redis.url, key=redis.key, mode=redis.mode, maxlen=redis.maxlen, secret=secret)
        yield "alerts.redis", target
    if settings.kafka.servers:
        yield "alerts.kafka", Kafka(settings.kafka.servers, settings.kafka.topic)
