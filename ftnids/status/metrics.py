"""The page of metrics: this replica's newest snapshot, and what it knows of the others, for Prometheus.

One place says which metric shows which counter (`COUNTERS`, `GAUGES`); docs/operations.md explains what to do when
one moves.  Counters begin anew with each life of a replica, as Prometheus expects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ftnids import counters
from ftnids.status.delay import RECORDED_PER_OCTAVE
from ftnids.status.roster import Roster
from ftnids.status.snapshot import Snapshot
from ftnids.status.text import plain

LABELS: Final = ("cluster", "replica")
STATES: Final = ("starting", "waiting", "running", "ended", "failed")
WHERE: Final = {"kernel": "kernel_drops", "ring": "ring_drops", "injected": "injected_drops"}
COUNTERS: Final = {  # metric: counter of the replica, what it counts
    "ftnids_capture_packets": ("captured", "Packets in this replica's capture stream."),
    "ftnids_capture_bytes": ("captured_bytes", "Bytes of these packets, as they were on the link."),
    "ftnids_left_to_peers_packets": ("left_to_peers", "Packets not kept while the ring fills, because a peer does."),
    "ftnids_recovered_packets": ("recovered", "Agreed packets whose bytes came from a peer."),
    "ftnids_lost_packets": ("lost", "Agreed packets that no live replica had the bytes of."),
    "ftnids_agreed_packets": ("agreed", "Packets of the agreed stream that are stable here."),
    "ftnids_ambiguous_packets": ("ambiguous", "Agreed packets that nothing tells from an identical neighbour."),
    "ftnids_late_packets": ("late", "Packets reported after their time was decided."),
    "ftnids_clamped_timestamps": ("clamped", "Agreed timestamps raised so that time does not run backwards."),
    "ftnids_checkpoints": ("checkpoints", "Checkpoints taken of this replica's IDS."),
    "ftnids_rollbacks": ("rollbacks", "Times this replica's IDS was set back to a checkpoint."),
    "ftnids_states_received": ("states_received", "Times that this replica's IDS began with another one's state."),
    "ftnids_states_sent": ("states_sent", "Images of this replica's IDS that another replica got."),
    "ftnids_states_failed": ("states_failed", "Transfers of an IDS's state that came to nothing."),
    "ftnids_ids_alerts": ("alerts", "Alerts that this replica's IDS raised."),
}
IDS_COUNTERS: Final = {
    "ftnids_ids_restarts": ("deaths", "Times this replica's IDS died and was started again."),
    "ftnids_ids_log_failures": ("log_failures", "Looks, one a second, at which the IDS's log could not be written."),
}


class Exporter(Collector):
    """Makes the page; each call looks at the roster anew.  It may be called from any thread."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def page(self) -> bytes:
        """The metrics in the text format 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        mine = self._roster.mine()
        if mine is None:
            return
        snapshot, age_s = mine
        labels = [plain(snapshot.cluster), plain(snapshot.name)]
        yield from _counts(snapshot, labels)
        yield from _ids(snapshot, labels)
        yield from _outputs(snapshot, labels)
        yield from _gauges(snapshot, labels, age_s)
        yield _histogram(snapshot, labels)
        yield from self._set(snapshot, labels)

    def _set(self, snapshot: Snapshot, labels: list[str]) -> Iterator[Metric]:
        up = GaugeMetricFamily("ftnids_member_up", "Whether this replica hears the member.", labels=[*LABELS, "member"])
        for member in self._roster.view().members:
            up.add_metric([*labels, plain(member.name)], float(member.alive))
        yield up
        if snapshot.set:
            alerts = CounterMetricFamily(
                "ftnids_alerts", "Alerts of the set, as the coordinator counts them.", labels=[*LABELS, "outcome"]
            )
            for name in counters.SET:
                alerts.add_metric([*labels, name.removeprefix("alerts_")], snapshot.set.get(name, 0))
            yield alerts


def _outputs(snapshot: Snapshot, labels: list[str]) -> Iterator[Metric]:
    """Nothing where there are none."""
    if not snapshot.outputs:
        return
    names = [*LABELS, "output"]
    records = CounterMetricFamily(
        "ftnids_output_alerts", "Of each output, what became of them.", labels=[*names, "what"]
    )
    failures = CounterMetricFamily("ftnids_output_failures", "Tries that an output did not take.", labels=names)
    waiting = GaugeMetricFamily("ftnids_output_waiting_bytes", "Bytes of alerts that wait for an output.", labels=names)
    for output, counted in snapshot.outputs.items():
        for what in ("delivered", "suppressed", "lost"):
            records.add_metric([*labels, plain(output), what], counted.get(what, 0))
        failures.add_metric([*labels, plain(output)], counted.get("failures", 0))
        waiting.add_metric([*labels, plain(output)], counted.get("waiting_bytes", 0))
    yield from (records, failures, waiting)


def _counts(snapshot: Snapshot, labels: list[str]) -> Iterator[Metric]:
    for metric, (counter, text) in COUNTERS.items():
        yield _counter(metric, text, labels, snapshot.counters.get(counter, 0))
    drops = CounterMetricFamily(
        "ftnids_capture_drops", "Packets that this replica did not capture, by where.", labels=[*LABELS, "where"]
    )
    for where, counter in WHERE.items():
        drops.add_metric([*labels, where], snapshot.counters.get(counter, 0))
    yield drops


def _ids(snapshot: Snapshot, labels: list[str]) -> Iterator[Metric]:
    """Nothing where there is no IDS."""
    ids = snapshot.ids
    if not ids.get("name"):
        return
    yield _gauge("ftnids_ids_up", "Whether the IDS runs.", labels, float(ids.get("state") == "reads"))
    yield _gauge(
        "ftnids_ids_lag_packets", "Stable packets that the IDS has not read.", labels, snapshot.ids_number("lag")
    )
    for metric, (counter, text) in IDS_COUNTERS.items():
        yield _counter(metric, text, labels, snapshot.ids_number(counter))


def _gauges(snapshot: Snapshot, labels: list[str], age_s: float) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "ftnids_info", "Always 1.", labels=[*LABELS, "version", "implementation", "ids", "mode", "host"]
    )
    ids = snapshot.ids
    facts = (snapshot.version, snapshot.implementation, str(ids.get("name", "")), str(ids.get("mode", "")))
    info.add_metric([*labels, *map(plain, facts), plain(snapshot.host)], 1)
    yield info
    state = GaugeMetricFamily("ftnids_state", "1 for the state that the replica is in.", labels=[*LABELS, "state"])
    for name in STATES:
        state.add_metric([*labels, name], float(name == snapshot.state))
    yield state
    yield _gauge("ftnids_start_time_seconds", "When this life of the replica began.", labels, snapshot.started)
    yield _gauge("ftnids_status_age_seconds", "Since the main loop made the last status.", labels, age_s)
    yield _gauge("ftnids_warnings", "Warnings in force, which ftnids status shows.", labels, len(snapshot.warnings))
    leads = snapshot.coordinator == snapshot.name
    yield _gauge("ftnids_coordinator", "Whether this replica coordinates.", labels, float(leads))
    yield _gauge("ftnids_view_number", "The number of its view.", labels, snapshot.view.get("number", 0))
    yield _gauge("ftnids_view_members", "Members of its view.", labels, len(snapshot.members))
    yield _gauge(
        "ftnids_desync_level", "Clusters by which its window has grown.", labels, _count(snapshot, "desync_level")
    )
    ring = snapshot.ring
    yield _gauge(
        "ftnids_ring_bytes", "Size of the ring's arena of captured frames.", labels, ring.get("arena_bytes", 0)
    )
    yield _gauge("ftnids_ring_used_bytes", "Bytes of it that are taken.", labels, ring.get("arena_used", 0))
    yield _gauge("ftnids_ring_slots", "Packets that the ring can hold.", labels, ring.get("slots", 0))
    yield _gauge("ftnids_ring_used_slots", "Packets in it.", labels, ring.get("slots_used", 0))


def _histogram(snapshot: Snapshot, labels: list[str]) -> Metric:
    delay = HistogramMetricFamily("ftnids_delay_seconds", "From capture to stable.", labels=LABELS)
    bounds, counts = snapshot.delay.get("le_ms", []), snapshot.delay.get("counts", [])
    if len(counts) == len(bounds) + 1:  # one in a factor of two serves there
        buckets = [(f"{bounds[n] / 1e3:g}", counts[n]) for n in range(0, len(bounds), RECORDED_PER_OCTAVE)]
        buckets.append(("+Inf", counts[-1]))
        delay.add_metric(labels, buckets, sum(snapshot.delay.get("sum_ms", [])) / 1e3)
    return delay


def _count(snapshot: Snapshot, counter: str) -> float:
    return snapshot.counters.get(counter, 0)


def _counter(name: str, text: str, labels: list[str], value: float) -> Metric:
    family = CounterMetricFamily(name, text, labels=LABELS)
    family.add_metric(labels, value)
    return family


def _gauge(name: str, text: str, labels: list[str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=LABELS)
    family.add_metric(labels, value)
    return family
