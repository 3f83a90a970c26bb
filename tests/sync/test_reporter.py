"""Reports cover the stream in order, pushed or summarised, and the watermark never promises too much."""

import numpy as np
import xxhash

from ftnids import limits
from ftnids.sync.messages import Report, View
from ftnids.sync.reporter import Reporter, cluster_hashes
from ftnids.sync.settings import MS, Settings
from tests.sync.streams import MemoryStream

VIEW = View(1, 1, 0, 1)
SETTINGS = Settings(me=1, members=2, incarnation=9, k=56)
LOWEST = np.iinfo(np.int64).min


def covered(reports: list[Report]) -> list[tuple[int, int]]:
    return [(r.position, r.position + len(r.hash) + r.k * len(r.cluster)) for r in reports]


def feed(stream: MemoryStream, count: int, gap_ns: int = 10_000, seed: int = 1) -> None:
    rng = np.random.default_rng([seed, stream.head])
    first = stream.watermark_ns
    stream.put(rng.integers(1, 1 << 63, count, dtype=np.uint64), first + gap_ns * np.arange(1, count + 1))


def test_cluster_hash_is_xxh3_of_the_packet_hashes() -> None:
    hashes = np.arange(112, dtype=np.uint64)
    expected = [xxhash.xxh3_64_intdigest(hashes[i : i + 56].astype("<u8").tobytes()) for i in (0, 56)]
    assert cluster_hashes(hashes, 56).tolist() == expected


def test_pushed_reports_cover_everything_once_and_carry_the_watermark() -> None:
    stream = MemoryStream()
    reporter = Reporter(SETTINGS, stream, 0)
    now, spans = 10 * MS, []
    for _ in range(5):
        feed(stream, 100)
        now += 2 * MS
        made = reporter.reports(VIEW, now, 2 * MS, 0)
        assert [r.watermark_ns for r in made] == [stream.watermark_ns]
        assert not len(made[0].cluster)
        spans += covered(made)
        reporter.acknowledged(reporter.sent, now)
    assert spans == [(i, i + 100) for i in range(0, 500, 100)]


def test_a_quiet_stream_still_moves_its_watermark() -> None:
    stream = MemoryStream()
    reporter = Reporter(SETTINGS, stream, 0)
    stream.watermark_ns = 77
    (report,) = reporter.reports(VIEW, 100 * MS, 2 * MS, 0)
    assert (report.position, len(report.hash), report.watermark_ns) == (0, 0, 77)
    assert reporter.reports(VIEW, 101 * MS, 2 * MS, 0) == []
    assert len(reporter.reports(VIEW, 102 * MS, 2 * MS, 0)) == 1


def test_one_with_nothing_to_report_is_silent_until_it_is_asked() -> None:
    stream = MemoryStream()
    reporter = Reporter(SETTINGS, stream, 0)
    assert reporter.silent()
    feed(stream, 10)
    assert not reporter.silent(), "packets"
    reporter.reports(VIEW, 100 * MS, 8 * MS, 0)
    assert not reporter.silent(), "the coordinator may not have them"
    reporter.acknowledged(10, 101 * MS)
    assert reporter.silent()
    reporter.asked = True
    assert not reporter.silent()
    (answer,) = reporter.reports(VIEW, 102 * MS, 8 * MS, 0)
    assert (len(answer.hash), answer.watermark_ns) == (0, stream.watermark_ns)
    assert reporter.silent()
    feed(stream, 1)
    assert len(reporter.reports(VIEW, 108 * MS, 8 * MS, 0)) == 1, "an answer does not hold up what comes next"
    reporter.acknowledged(11, 109 * MS)
    reporter.end()
    assert not reporter.silent(), "the last word may be lost"


def test_what_is_not_acknowledged_is_reported_again() -> None:
    stream = MemoryStream()
    reporter = Reporter(SETTINGS, stream, 0)
    feed(stream, 300)
    reporter.reports(VIEW, 10 * MS, 2 * MS, 0)
    reporter.acknowledged(100, 12 * MS)
    reporter.acknowledged(100, 30 * MS)
    assert covered(reporter.reports(VIEW, 40 * MS, 2 * MS, 0)) == [(300, 300)]
    assert covered(reporter.reports(VIEW, 70 * MS, 2 * MS, 0)) == [(300, 300)], "a silent coordinator is busy"
    reporter.acknowledged(100, 72 * MS)
    assert covered(reporter.reports(VIEW, 80 * MS, 2 * MS, 0)) == [(100, 300)]


def test_the_watermark_stays_below_what_is_not_reported() -> None:
    stream = MemoryStream()
    reporter = Reporter(SETTINGS, stream, 0)
    feed(stream, limits.MAX_REPORT_PACKETS + 10)
    (report,) = reporter.reports(VIEW, 10 * MS, 2 * MS, 0)
    assert len(report.hash) == limits.MAX_REPORT_PACKETS
    assert report.time_ns[-1] <= report.watermark_ns < stream.times(len(report.hash), len(report.hash) + 1)[0]


def test_reporting_stops_at_its_limit_until_decisions_come() -> None:
    stream = MemoryStream()
    reporter = Reporter(SETTINGS, stream, 0)
    feed(stream, limits.MAX_REPORTED + 1000, gap_ns=10)
    now = 0
    for _ in range(10):
        now += 2 * MS
        reporter.reports(VIEW, now, 2 * MS, 0)
        reporter.acknowledged(reporter.sent, now)
    assert reporter.sent == limits.MAX_REPORTED
    reporter.reports(VIEW, now + 2 * MS, 2 * MS, 600)
    assert reporter.sent == limits.MAX_REPORTED + 600


def summarising() -> tuple[MemoryStream, Reporter, int]:
    stream = MemoryStream()
    reporter = Reporter(SETTINGS, stream, 0)
    now = 0
    for _ in range(60):
        feed(stream, 200)
        now += 2 * MS
        reporter.reports(VIEW, now, 2 * MS, reporter.sent)
        reporter.acknowledged(reporter.sent, now)
        reporter.rate.decided(5000, 0)
    assert reporter.summarising
    while reporter.sent < stream.head:
        now += 2 * MS
        reporter.reports(VIEW, now, 2 * MS, reporter.sent)
        reporter.acknowledged(reporter.sent, now)
    return stream, reporter, now


def test_fast_and_clean_is_summarised() -> None:
    stream, reporter, now = summarising()
    first = stream.head
    feed(stream, 130)
    (report,) = reporter.reports(VIEW, now + 2 * MS, 2 * MS, first)
    assert (report.position, report.k, len(report.cluster), len(report.hash)) == (first, 56, 2, 0)
    assert report.cluster.tolist() == cluster_hashes(stream.hashes(first, first + 112), 56).tolist()
    times = stream.times(first, first + 112)
    assert report.first_ns.tolist() == [times[0], times[56]]
    assert report.last_ns.tolist() == [times[55], times[111]]
    assert report.watermark_ns == stream.times(first + 112, first + 113)[0] - 1


def test_a_cluster_with_a_repeat_is_pushed_in_detail() -> None:
    stream, reporter, now = summarising()
    first = stream.head
    hashes = np.arange(1, 3 * 56 + 1, dtype=np.uint64)
    hashes[60] = hashes[70]
    stream.put(hashes, stream.watermark_ns + np.arange(1, 169))
    made = reporter.reports(VIEW, now + 2 * MS, 2 * MS, first)
    assert [(len(r.cluster), len(r.hash)) for r in made] == [(1, 0), (0, 56), (1, 0)]
    assert [r.watermark_ns for r in made] == [LOWEST, LOWEST, stream.watermark_ns]


def test_detail_on_demand_says_nothing_of_the_watermark() -> None:
    stream, reporter, now = summarising()
    detail = reporter.detail(VIEW, 56, 112, now)
    assert detail is not None
    assert (detail.position, len(detail.hash), detail.watermark_ns) == (56, 112, LOWEST)
    stream.tail = 100
    assert reporter.detail(VIEW, 56, 112, now) is None


def test_dirty_streams_are_pushed() -> None:
    _, reporter, _ = summarising()
    reporter.rate.decided(5000, 500)
    assert not reporter.summarising


def test_who_is_behind_asks_for_nothing() -> None:
    """One packet in a thousand differs: clusters save bytes while there is time to ask, and cost time else."""
    stream, reporter, now = summarising()
    for _ in range(20):
        reporter.rate.decided(1_000, 1)
    assert reporter.summarising
    consumed = stream.head
    feed(stream, 2 * limits.MAX_REPORTED, gap_ns=1_000)
    for _ in range(2):
        made = reporter.reports(VIEW, now + 2 * MS, 2 * MS, consumed)
        reporter.acknowledged(reporter.sent, now)
    assert not reporter.summarising
    assert [len(report.cluster) for report in made] == [0]
    for _ in range(5):
        reporter.rate.decided(5_000, 0)
    assert reporter.summarising


def test_the_last_report_says_that_the_stream_ends() -> None:
    stream = MemoryStream()
    reporter = Reporter(SETTINGS, stream, 0)
    feed(stream, 10)
    reporter.end()
    (report,) = reporter.reports(VIEW, 10 * MS, 2 * MS, 0)
    assert report.end
