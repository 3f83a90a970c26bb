"""Provisional alerts: whatever an IDS raises and takes back, each has one last word, and the set's are as without."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftnids.alerts import history, provisional
from ftnids.alerts.dedup import MS, Deduplicator
from ftnids.alerts.desk import Desk
from ftnids.alerts.identity import Identifier
from ftnids.alerts.outputs import JsonLines, Output
from ftnids.alerts.provisional import Provisional
from ftnids.alerts.readers import EveReader, Record
from ftnids.alerts.scout import Scout
from ftnids.errors import ConfigError
from ftnids.feed.cuts import Cuts
from ftnids.sync.messages import View
from tests.alerts.records import alert, identified

WALL = 1_800_000_000 * 10**9


class Kept(Output):
    """An output that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, records: Sequence[Record]) -> None:
        self.records += records

    def close(self) -> None:
        """Nothing to close."""


def words(records: Sequence[Record]) -> list[tuple[str, str]]:
    return [(record["ftnids"]["id"], record["ftnids"]["status"]) for record in records]


def table(folder: Path, **options: int) -> Provisional:
    return Provisional(folder / "provisional.jsonl", wall_ns=lambda: WALL, **options)


def desk(kept: Output, provisional: Provisional, *, hold_ms: int = 100, members: int = 1) -> Desk:
    names = ["a", "b"][:members]
    made = Desk(
        0, names, lambda: (0, 1, View(1, 1, 0, 1)), Deduplicator(hold_ms=hold_ms), [kept], [], provisional=provisional
    )
    made.start(0, range(members), 0)
    return made


# -- the table ----------------------------------------------------------------------------------------


def test_a_guess_that_was_right_is_provisional_and_then_confirmed(tmp_path: Path) -> None:
    kept = Kept()
    one = desk(kept, table(tmp_path), members=2)
    one.guessed([identified("1")], [], 0)
    assert words(kept.records) == [("1", "provisional")]
    assert kept.records[0]["ftnids"]["replicas"] == ["a"]
    assert kept.records[0]["ftnids"]["until"] == "2027-01-15T08:00:30.000000+0000"
    one.raised([identified("1")], MS)
    one.tick(200 * MS)
    assert words(kept.records) == [("1", "provisional"), ("1", "confirmed")]
    assert (tmp_path / "provisional.jsonl").stat().st_size == 0
    counters = one.counters()
    assert [counters[f"alerts_{key}"] for key in ("out", "provisional", "retracted")] == [1, 1, 0]


def test_a_guess_that_was_wrong_is_retracted_once_and_not_made_again(tmp_path: Path) -> None:
    kept = Kept()
    one = desk(kept, table(tmp_path))
    one.guessed([identified("1"), identified("2")], [], 0)
    one.guessed([identified("1")], ["1", "3"], 0)
    one.guessed([], ["1"], 0)
    assert words(kept.records) == [("1", "provisional"), ("2", "provisional"), ("1", "retracted")]
    assert kept.records[-1]["ftnids"]["why"] == "rollback"
    assert "until" not in kept.records[-1]["ftnids"]
    one.raised([identified("1")], 0)  # it comes after all
    assert words(kept.records)[-1] == ("1", "confirmed")


def test_another_replica_has_raised_what_this_one_takes_back(tmp_path: Path) -> None:
    """It is an alert of the set: another word comes."""
    kept = Kept()
    one = desk(kept, table(tmp_path), members=2)
    one.guessed([identified("1")], [], 0)
    one._dedup.add("b", [identified("1")], 0)
    one.guessed([], ["1"], 0)
    assert words(kept.records) == [("1", "provisional")]
    one.tick(200 * MS)
    assert words(kept.records)[1:] == [("1", "confirmed")]


def test_what_is_out_or_comes_of_a_cold_ids_is_not_provisional(tmp_path: Path) -> None:
    kept = Kept()
    one = desk(kept, table(tmp_path))
    one.raised([identified("1")], 0)
    one.guessed([identified("1"), identified("2", cold=True)], [], 0)
    assert words(kept.records) == [("1", "confirmed")]


def test_who_loses_the_lead_or_ends_leaves_nothing_open(tmp_path: Path) -> None:
    kept = Kept()
    one = desk(kept, table(tmp_path), members=2)
    one.guessed([identified("1")], [], 0)
    one.start(1, (0, 1), 0)
    one.guessed([identified("2")], [], 0)
    assert not one.guesses
    one.start(0, (0, 1), 0)
    one.guessed([identified("3")], [], 0)
    one.close()
    told = [
        (*word, record["ftnids"].get("why")) for word, record in zip(words(kept.records), kept.records, strict=True)
    ]
    assert told[1::2] == [("1", "retracted", "lead"), ("3", "retracted", "end")]
    assert Provisional(tmp_path / "provisional.jsonl").left(()) == []


def test_an_alert_that_nobody_decides_is_retracted_in_time(tmp_path: Path) -> None:
    kept = Kept()
    one = desk(kept, table(tmp_path))
    one.guessed([identified("1")], [], 0)
    for second in range(1, 30):
        one.tick(second * 1000 * MS)
    assert len(kept.records) == 1
    for second in range(30, 32):
        one._seen_ns = second * 1000 * MS
        one.tick(second * 1000 * MS)
    assert words(kept.records)[1:] == [("1", "retracted")]


def test_no_more_are_open_than_the_table_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = table(tmp_path, table=3)
    assert len(one.publish([identified(str(n)) for n in range(9)], 0)) == 3
    one.confirmed(["0"])
    assert words(one.publish([identified("8"), identified("9")], 0)) == [("8", "provisional")]
    monkeypatch.setattr(provisional, "PROVISIONAL_BYTES", 700)
    few = Provisional(tmp_path / "other.jsonl")
    assert len(few.publish([identified(str(n)) for n in range(9)], 0)) == 1


# -- the journal ----------------------------------------------------------------------------------------


def test_a_replica_that_was_killed_retracts_what_it_left_open(tmp_path: Path) -> None:
    before = table(tmp_path)
    before.publish([identified(str(n)) for n in range(4)], 0)
    before.confirmed(["0"])
    before.retracted(before.retract(["1"], "rollback"))
    after = table(tmp_path)
    left = after.left({"2"})
    assert words(left) == [("3", "retracted")]
    assert left[0]["ftnids"]["why"] == "restart"
    assert table(tmp_path).left(()) != []  # killed again before that was out
    after.forget_left()
    assert after.alerts_retracted == 1
    assert table(tmp_path).left(()) == []


@pytest.mark.parametrize(
    "wrong", [b"\n", b"{", b"[]", b'{"closed": 7}', b'{"closed": [[], {}]}', b"\xff\0", b"[" * 9999]
)
def test_a_journal_with_strange_lines_in_it(tmp_path: Path, wrong: bytes) -> None:
    table(tmp_path).publish([identified("1")], 0)
    path = tmp_path / "provisional.jsonl"
    path.write_bytes(wrong + b"\n" + path.read_bytes() + wrong + b"\n" + path.read_bytes()[:50])
    after = table(tmp_path)
    assert words(after.left(())) == [("1", "retracted")]
    after.publish([identified("2")], 0)
    assert {word for word, _ in words(table(tmp_path).left(()))} == {"1", "2"}


def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    """Nothing is provisional that the next life could not retract."""
    one = table(tmp_path)
    assert one.publish([identified("1")], 0)
    os.close(one._fd)
    one._fd = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(OSError, match="Invalid"):  # what cannot be written cannot be cut
        one.publish([identified("2")], 0)
    with pytest.raises(ConfigError, match=r"alerts\.provisional: cannot write .*Is a directory"):
        Provisional(tmp_path)


def test_a_journal_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisional, "PROVISIONAL_BYTES", 4_000)
    one = table(tmp_path)
    one.publish([identified("first")], 0)
    for number in range(200):
        one.publish([identified(str(number))], 0)
        one.confirmed([str(number)])
        assert (tmp_path / "provisional.jsonl").stat().st_size <= 9_000
    assert words(table(tmp_path).left(())) == [("first", "retracted")]


# -- what readers see ------------------------------------------------------------------------------------


def test_only_what_is_confirmed_counts_as_out(tmp_path: Path) -> None:
    """A replica that starts again must still put out what was provisional or retracted in its file."""
    lines = JsonLines(tmp_path / "alerts.jsonl")
    one = table(tmp_path)
    lines.write(one.publish([identified("1"), identified("2"), identified("3")], 0))
    lines.write([identified("1"), *one.retract(["2"], "rollback")])
    lines.close()
    again = JsonLines(tmp_path / "alerts.jsonl")
    assert again.ids_of_others() == ["1"]
    again.close()
    told = list(history.alerts([tmp_path / "alerts.jsonl"]))
    assert sorted(words(told)) == [("1", "confirmed"), ("2", "retracted"), ("3", "provisional")]


@pytest.mark.parametrize("turn", [1, -1])
def test_confirmed_is_the_last_word_whatever_comes_first(tmp_path: Path, turn: int) -> None:
    """Another replica took over and confirmed it; the first one came back and retracted what it had left."""
    records = [identified("1"), identified("1")]
    records[0]["ftnids"]["status"] = "retracted"
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, record in zip(paths, records[::turn], strict=True):
        path.write_text(json.dumps(record) + "\n")
    assert words(list(history.alerts(paths))) == [("1", "confirmed")]


def test_one_that_stayed_provisional_for_too_long_is_retracted(tmp_path: Path) -> None:
    (record,) = table(tmp_path).publish([identified("1")], 0)
    assert history.lapsed(record, WALL // 1000 + 29_000_000) is None
    gone = history.lapsed(record, WALL // 1000 + 31_000_000)
    assert gone is not None
    assert words([gone]) == [("1", "retracted")]
    assert history.lapsed(identified("1"), WALL // 1000 + 31_000_000) is None


# -- everything at once ------------------------------------------------------------------------------------


class Engine:
    """An IDS that raises an alert on each packet with a number in it, a log that is cut, and a desk behind it.

    `truth` is what is decided; what it is fed ahead may be something else.  It logs at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = Kept()
        self.truth: list[int] = []
        self.fed: list[int] = []  # what it was fed, of which ...
        self.stable = 0  # ... so many are stable
        self.checkpoint: tuple[int, int] | None = None  # seq, and bytes of the log
        self.now = 0
        self.first = 0  # seq at which this life began
        self.start()

    def start(self) -> None:
        self.first = self.stable
        self.log = self.folder / f"log-{self.now}"
        self.log.touch()
        self.reader, self.cuts = EveReader(self.log), Cuts()
        self.scout = Scout(self.reader, self.cuts)
        self.identifier = Identifier("a", self.first, 0)
        path = self.folder / "journal"
        self.table = Provisional(path, wall_ns=lambda: WALL)
        self.output.write(self.table.left({i for i, status in words(self.output.records) if status == "confirmed"}))
        self.table.forget_left()
        known = [i for i, status in words(self.output.records) if status == "confirmed"]
        dedup = Deduplicator(hold_ms=0, known=known)
        header = (0, 1, View(1, 1, 0, 1))
        self.desk = Desk(0, ["a"], lambda: header, dedup, [self.output], [], provisional=self.table)
        self.desk.start(0, (0,), self.now)

    def feed(self, kinds: Sequence[int]) -> None:
        with self.log.open("ab") as log:
            for kind in kinds:
                self.fed.append(kind)
                for _ in range(kind):
                    record = alert(kind, packet=len(self.fed) - self.first)
                    log.write(json.dumps(record).encode() + b"\n")

    def ahead(self, kinds: Sequence[int]) -> None:
        if self.checkpoint is None:
            self.checkpoint = len(self.fed), self.log.stat().st_size
        self.feed(kinds)

    def decide(self, kinds: Sequence[int]) -> None:
        """These are the next packets, and stable."""
        self.truth += kinds
        self.stable = len(self.truth)
        wrong = next((n for n in range(min(len(self.fed), self.stable)) if self.fed[n] != self.truth[n]), None)
        if wrong is not None:
            self.roll_back(wrong)
        self.feed(self.truth[len(self.fed) :])
        if len(self.fed) == self.stable:
            self.checkpoint = None

    def roll_back(self, wrong: int) -> None:
        assert self.checkpoint is not None
        seq, size = self.checkpoint
        with self.cuts.cut(size, wrong):
            self.desk.guessed(*self.scout.look(self.identifier), self.now)  # in the midst of it
            os.truncate(self.log, size)
        del self.fed[seq:]
        self.checkpoint = None

    def finish(self) -> None:
        """The stream ends: what it was fed beyond never came to be."""
        if self.checkpoint is not None and len(self.fed) > self.stable:
            self.roll_back(self.stable)
            self.feed(self.truth[len(self.fed) :])
        self.checkpoint = None
        self.look()

    def look(self) -> None:
        """What the main loop does, now and then."""
        self.now += MS
        lines = self.reader.lines
        lines.limit = self.log.stat().st_size if self.checkpoint is None else self.checkpoint[1]
        self.desk.raised([self.identifier.identify(record) for record in self.reader.poll()], self.now)
        self.desk.guessed(*self.scout.look(self.identifier), self.now)
        self.desk.tick(self.now)

    def crash(self) -> None:
        """The replica is killed; it comes back with an IDS that reads what comes from now on."""
        self.now += MS
        self.scout.close()
        self.reader.close()
        self.fed, self.checkpoint = self.truth.copy(), None
        self.start()


KINDS = st.lists(st.integers(0, 2), max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ahead"), KINDS),
        st.tuples(st.just("decide"), KINDS),
        st.tuples(st.just("guessed"), st.integers(0, 5)),
        st.tuples(st.just("look"), st.none()),
        st.tuples(st.just("crash"), st.none()),
    ),
    max_size=30,
)


def plain(truth: Sequence[int]) -> Iterator[str]:
    """The ids of the alerts of an IDS that is fed what was decided, and nothing else."""
    identifier = Identifier("a")
    for seq, kind in enumerate(truth):
        for _ in range(kind):
            yield identifier.identify(alert(kind, packet=seq + 1))["ftnids"]["id"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_every_alert_has_one_last_word_and_the_sets_are_as_without(
    tmp_path: Path, steps: list[tuple[str, object]]
) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    engine, crashed_at = Engine(folder), set[str]()
    for what, argument in steps:
        match what:
            case "ahead":
                engine.ahead(argument)  # type: ignore[arg-type]
            case "decide":
                engine.decide(argument)  # type: ignore[arg-type]
            case "guessed":  # so many of those ahead were right
                engine.decide(engine.fed[engine.stable : engine.stable + argument])  # type: ignore[operator]
            case "look":
                engine.look()
            case "crash":
                before = {i for i, status in words(engine.output.records) if status == "confirmed"}
                crashed_at |= set(plain(engine.truth)) - before  # of this single replica nobody else raises them
                engine.crash()
    engine.finish()
    assert engine.table.ids() == []
    engine.desk.close()
    told = words(engine.output.records)
    assert max(Counter(told).values(), default=1) == 1
    confirmed = [alert_id for alert_id, status in told if status == "confirmed"]
    expected = list(plain(engine.truth))
    assert [one for one in expected if one in confirmed] == confirmed
    assert set(expected) - set(confirmed) <= crashed_at
    final: dict[str, str] = {}
    for alert_id, status in told:
        if final.get(alert_id) != "confirmed":
            final[alert_id] = status
    assert "provisional" not in final.values()
    assert (folder / "journal").stat().st_size == 0
