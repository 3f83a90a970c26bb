"""One member alone: decisions in any turn, bytes before and after, acknowledging, repair, freeing."""

import numpy as np

from ftnids import limits
from ftnids.sync.actions import Free, Publish, Push, Send, Stable, Store
from ftnids.sync.member import RECOVERED, Member
from ftnids.sync.messages import Ack, Bytes, Decision, Fetch, Nack, View
from ftnids.sync.settings import MS, Settings

VIEW = View(1, 1, 0, 1)


def member(me: int = 1, members: int = 2, agreed_slots: int = 1 << 18) -> Member:
    settings = Settings(me=me, members=members, incarnation=1, agreed_slots=agreed_slots)
    return Member(settings, VIEW, tuple(range(members)), 0, 0)


def decision(
    number: int, first_seq: int, holders: list[int], places: dict[int, list[int]], members: int = 3
) -> Decision:
    n = len(holders)
    d = Decision(0, 1, VIEW, number=number, first_seq=first_seq, members=members)
    d.time_us = np.arange(first_seq, first_seq + n, dtype=np.int64)
    d.holders = np.array(holders, np.uint32)
    d.flags = np.zeros(n, np.uint8)
    d.hash = np.array([1000 + first_seq + i for i in range(n) if holders[i] != members], np.uint64)
    d.places = {m: np.array(p, np.int64) for m, p in places.items()}
    return d


def pushed(seqs: list[int], sender: int = 0) -> Bytes:
    n = len(seqs)
    return Bytes(sender, 1, VIEW, np.array(seqs), np.array([1000 + s for s in seqs], np.uint64), np.ones(n, np.uint32))


def take(m: Member, kind: type) -> list:  # type: ignore[type-arg]
    found = [a for a in m.out if isinstance(a, kind)]
    m.out = [a for a in m.out if not isinstance(a, kind)]
    return found


def store(m: Member, now: int, first: int = 0) -> int:
    """Carry out Store actions as the ring would; returns the next recovered number."""
    for action in take(m, Store):
        wanted = action.mask.astype(bool)
        count = int(wanted.sum())
        refs = RECOVERED + np.arange(first, first + count)
        m.stored(action.message.seq[wanted], action.message.hash[wanted], refs, now)
        first += count
    return first


def test_own_packets_are_published_and_acknowledged_at_once() -> None:
    m = member()
    m.decided(decision(0, 0, [3, 3, 2], {0: [0, 1], 1: [0, 1, 2]}), 0)
    m.advance(0)
    (publish,) = take(m, Publish)
    assert (publish.first_seq, publish.refs.tolist()) == (0, [0, 1, 2])
    assert m.acked == 3
    assert m.stable == 0
    m.ack({}, 0)
    (send,) = take(m, Send)
    assert (send.member, send.message.acked) == (0, 3)


def test_a_missing_packet_holds_the_acknowledgement_until_its_bytes_come() -> None:
    m = member()
    m.decided(decision(0, 0, [3, 1, 3], {0: [0, 1, 2], 1: [0, 1]}), 0)
    m.advance(0)
    assert m.acked == 1
    m.offered(pushed([1]))
    store(m, 0)
    m.advance(0)
    assert m.acked == 3
    assert [p.refs.tolist() for p in take(m, Publish)] == [[0], [RECOVERED, 1]]
    assert m.recovered == 1


def test_bytes_that_overtake_their_decision_are_kept() -> None:
    m = member()
    m.offered(pushed([1, 2]))
    store(m, 0)
    m.decided(decision(0, 0, [3, 1], {0: [0, 1], 1: [0]}), 0)
    m.advance(0)
    assert m.acked == 2
    m.decided(decision(1, 2, [1], {0: [2], 1: []}), 0)
    m.advance(0)
    assert m.acked == 3


def test_bytes_with_another_hash_than_decided_are_not_taken() -> None:
    m = member()
    wrong = pushed([1])
    wrong.hash[0] += 1
    m.offered(wrong)
    store(m, 0)
    m.decided(decision(0, 0, [3, 1], {0: [0, 1], 1: [0]}), 0)
    m.advance(0)
    assert m.acked == 1
    m.offered(wrong)
    store(m, 0, 1)
    m.advance(0)
    assert m.acked == 1
    assert m.recovered == 0


def test_decisions_are_applied_in_order_and_once() -> None:
    m = member()
    second = decision(1, 2, [3], {0: [2], 1: [2]})
    first = decision(0, 0, [3, 3], {0: [0, 1], 1: [0, 1]})
    m.decided(second, 0)
    m.advance(0)
    assert m.acked == 0
    m.decided(first, 0)
    m.decided(first, 0)
    m.decided(second, 0)
    m.advance(0)
    assert m.acked == 3


def test_the_first_holder_pushes_to_those_who_lack_it() -> None:
    m = member(me=1, members=3)
    #            who:  1      1+2    0+1    2
    m.decided(decision(0, 0, [2, 6, 3, 4], {0: [0], 1: [0, 1, 2], 2: [0, 1]}, members=7), 0)
    pushes = {p.member: (p.seq.tolist(), p.refs.tolist()) for p in take(m, Push)}
    assert pushes == {0: ([0, 1], [0, 1]), 2: ([0], [0])}


def test_stable_is_what_every_member_acknowledged() -> None:
    m = member(members=3)
    m.decided(decision(0, 0, [7] * 5, {i: [0, 1, 2, 3, 4] for i in range(3)}, members=7), 0)
    m.acknowledged(Ack(0, 1, VIEW, acked=5))
    m.advance(0)
    assert m.stable == 0
    m.acknowledged(Ack(2, 1, VIEW, acked=3))
    m.acknowledged(Ack(2, 1, VIEW, acked=2))  # an old one
    m.advance(0)
    assert m.stable == 3
    assert [s.seq for s in take(m, Stable)] == [3]


def test_slots_are_freed_when_all_are_past_them_and_the_feed_too() -> None:
    m = member()
    m.decided(decision(0, 0, [3, 1, 3], {0: [0, 1, 2], 1: [0, 1]}), 0)
    m.offered(pushed([1]))
    store(m, 0)
    m.acknowledged(Ack(0, 1, VIEW, acked=3, stable=3, decisions=1))
    m.advance(0)
    m.fed = 2
    m.advance(0)
    assert [(f.position, f.recovered) for f in take(m, Free)] == [(-1, 1)]
    m.fed = 3
    m.advance(0)
    assert [(f.position, f.recovered) for f in take(m, Free)] == [(2, 1)]
    assert len(m.log) == 0


def test_a_decision_stays_in_the_log_until_everyone_has_it() -> None:
    m = member(me=0)
    m.decided(decision(0, 0, [3], {0: [0], 1: [0]}), 0)
    empty = decision(1, 1, [], {})
    empty.skipped = {0: np.array([1])}
    m.decided(empty, 0)
    m.fed = 1
    m.acknowledged(Ack(1, 1, VIEW, acked=1, stable=1, decisions=1))
    m.advance(0)
    assert [e.decision.number for e in m.log] == [1]
    m.acknowledged(Ack(1, 1, VIEW, acked=1, stable=1, decisions=2))
    m.advance(0)
    assert len(m.log) == 0


def test_the_agreed_index_is_never_overrun() -> None:
    m = member(agreed_slots=2)
    m.decided(decision(0, 0, [3] * 5, {0: [0, 1, 2, 3, 4], 1: [0, 1, 2, 3, 4]}), 0)
    m.advance(0)
    assert m.acked == 2
    m.fed = 1
    m.advance(0)
    assert m.acked == 3


def test_a_gap_in_the_decisions_is_asked_for() -> None:
    m = member()
    m.decided(decision(2, 9, [3], {0: [9], 1: [9]}), 0)
    m.acknowledged(Ack(0, 1, VIEW, decisions=3))
    m.advance(100 * MS)
    (nack,) = [s.message for s in take(m, Send) if isinstance(s.message, Nack)]
    assert (nack.first, nack.last) == (0, 2)


def nacks(m: Member, now: int) -> list[tuple[int, int]]:
    m.advance(now)
    return [(s.message.first, s.message.last) for s in take(m, Send) if isinstance(s.message, Nack)]


def test_all_gaps_are_asked_for_at_once_and_nothing_that_may_be_on_its_way() -> None:
    m = member()
    for number in (2, 3, 7):
        m.decided(decision(number, 9, [3], {0: [9], 1: [9]}), 100 * MS)
    m.acknowledged(Ack(0, 1, VIEW, decisions=100))
    assert nacks(m, 109 * MS) == [], "it may only have been overtaken"
    assert nacks(m, 111 * MS) == [(0, 2), (4, 7)]
    assert nacks(m, 140 * MS) == [], "the answer may still come"
    assert nacks(m, 142 * MS) == [(0, 2), (4, 7)]


def test_many_gaps_are_asked_for_some_at_a_time() -> None:
    m = member()
    for number in range(1, 2 * limits.MAX_NACKS + 9, 2):
        m.decided(decision(number, 9, [3], {0: [9], 1: [9]}), 0)
    assert nacks(m, 100 * MS) == [(2 * i, 2 * i + 1) for i in range(limits.MAX_NACKS)]


def told(m: Member, reported: dict[int, int], *, again: bool = False) -> dict[int, tuple[int, dict[int, int]]]:
    m.ack(reported, 0, again=again)
    return {s.member: (s.message.acked, s.message.reported) for s in take(m, Send) if isinstance(s.message, Ack)}


def test_each_member_is_told_what_is_news_to_it() -> None:
    m = member(me=0, members=3)
    assert told(m, {1: 0, 2: 0}) == {1: (0, {1: 0}), 2: (0, {2: 0})}
    assert told(m, {1: 0, 2: 0}) == {}
    assert told(m, {1: 5, 2: 0}) == {1: (0, {1: 5})}
    assert told(m, {1: 5, 2: 0}, again=True) == {1: (0, {1: 5}), 2: (0, {2: 0})}
    m.decided(decision(0, 0, [7, 7], {0: [0, 1], 1: [0, 1], 2: [0, 1]}, members=7), 0)
    m.advance(0)
    assert told(m, {1: 5, 2: 0}) == {1: (2, {1: 5}), 2: (2, {2: 0})}
    m.enter(View(1, 2, 0, 1), (0, 1, 2), np.empty(0, np.int64))
    assert set(told(m, {1: 5, 2: 0})) == {1, 2}, "a new view knows nothing"


def test_bytes_that_do_not_come_are_fetched_from_one_holder_after_the_other() -> None:
    m = member(me=2, members=3)
    m.decided(decision(0, 0, [3, 3], {0: [0, 1], 1: [0, 1], 2: []}, members=7), 0)
    asked = []
    for i in range(1, 5):
        m.advance(i * 40 * MS)
        asked += [(s.member, s.message.seq.tolist()) for s in take(m, Send) if isinstance(s.message, Fetch)]
    assert asked == [(0, [0, 1]), (1, [0, 1]), (0, [0, 1]), (1, [0, 1])]


def test_a_fetch_is_answered_with_what_is_here() -> None:
    m = member(me=1)
    m.decided(decision(0, 0, [3, 1, 3], {0: [0, 1, 2], 1: [0, 1]}), 0)
    m.out.clear()
    m.fetch(Fetch(0, 1, VIEW, np.array([0, 1, 2, 77])))
    (push,) = take(m, Push)
    assert (push.member, push.seq.tolist(), push.refs.tolist()) == (0, [0, 2], [0, 1])
