"""Both ends of a state transfer: however it goes, it ends in one start of the IDS, and leaves nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnids import limits
from ftnids.handover import donor as donors
from ftnids.sync.messages import Ask, Chunk, Message, Refuse, Taken, View

from .ends import MS, SECOND, Replica, World


@pytest.fixture
def world(seed: int) -> World:
    return World(random.Random(seed))


def settle(world: World, *joiners: Replica) -> None:
    """Until all that joins is over, and the donors know."""
    world.run(lambda: all(one.over for one in joiners))
    world.run(lambda: all(world.ends[one].clean() for one in world.alive), limits.STATE_SILENCE_S + 5)


def test_a_joiner_gets_the_image_of_the_first_candidate(world: World) -> None:
    one, two, three = world.add(0), world.add(1), world.add(2)
    three.join(seq=1_234)
    settle(world, three)
    assert world.now < 1.5 * SECOND
    assert three.ids == ["from 0"]
    asked = [message for _, _, message in world.sent if isinstance(message, Ask)]
    assert {(message.seq, message.facts) for message in asked} == {(1_234, b"{}")}
    assert (one.donor.sent, one.donor.failures, two.donor.sent, three.joiner.failures) == (1, 0, 0, 0)
    events = [event for event, _ in three.facts]
    assert events == ["state_asked", "state_comes", *["state_progress"] * 4, "state_restored"]
    assert [facts["percent"] for event, facts in three.facts if event == "state_progress"] == [25, 50, 75, 100]
    assert [event for event, _ in one.facts] == ["state_wanted", "state_sent"]


def test_an_image_without_pieces(world: World) -> None:
    world.add(0, image=0)
    joiner = world.add(1)
    joiner.join()
    settle(world, joiner)
    assert joiner.ids == ["from 0"]


@pytest.mark.parametrize("slow", [2 * MS, 20 * MS])
def test_few_pieces_are_on_their_way_and_in_memory(world: World, slow: int) -> None:
    """And none is sent twice, however slow the joiner's disk is."""
    donor, joiner = world.add(0, image=400), world.add(1, slow=slow)
    joiner.join()
    most = 0

    def watched() -> bool:
        nonlocal most
        most = max(most, donor.donor._next - donor.donor.acked)
        assert len(donor.donor._read) <= limits.STATE_READ
        return joiner.over

    world.run(watched)
    assert donors.LEAST < most <= limits.STATE_WINDOW
    assert joiner.most_written <= 2 * limits.STATE_WINDOW
    assert donor.donor._again == 0


def test_a_slow_way_gets_few_pieces_at_a_time(world: World) -> None:
    world.late = int(3 * limits.STATE_DELAY_S * SECOND)
    donor, joiner = world.add(0, image=60), world.add(1)
    joiner.join()
    world.run(lambda: donor.donor.acked > 20)
    assert donor.donor._window <= 2 * donors.LEAST
    settle(world, joiner)
    assert joiner.ids == ["from 0"]


FAULTS: list[tuple[str, str, Callable[[World, Replica, Replica], Replica]]] = [
    ("check", "IDS: fake 1 there, fake 2 here", lambda world, donor, joiner: joiner),
    ("write", "No space left on device", lambda world, donor, joiner: joiner),
    ("dump", "No space left on device", lambda world, donor, joiner: donor),
    ("read", "Input/output error", lambda world, donor, joiner: donor),
]


@pytest.mark.parametrize(("what", "why", "where"), FAULTS, ids=[what for what, _, _ in FAULTS])
def test_what_fails_on_either_side_is_a_cold_start(
    world: World, what: str, why: str, where: Callable[[World, Replica, Replica], Replica]
) -> None:
    donor, joiner = world.add(0), world.add(1)
    where(world, donor, joiner).broken[what] = why
    joiner.join()
    settle(world, joiner)
    (cold,) = joiner.ids
    assert cold.startswith("cold: ")
    assert why in cold
    assert "\n" not in cold
    assert [facts["reason"] for event, facts in joiner.facts if event == "state_cold"] == [cold.removeprefix("cold: ")]
    assert joiner.joiner.failures <= limits.STATE_DONORS
    assert donor.donor.sent == 0
    assert joiner.joiner.failures + donor.donor.failures > 0


def test_an_image_that_does_not_start_is_a_cold_start_that_the_feed_has_made(world: World) -> None:
    world.add(0)
    joiner = world.add(1, broken={"restore": "criu restore failed"})
    joiner.join()
    settle(world, joiner)
    assert joiner.ids == ["cold: criu restore failed"]
    assert joiner.joiner.failures == 1


def test_who_refuses_is_not_asked_again(world: World) -> None:
    one, two, joiner = world.add(0), world.add(1), world.add(2)
    one.donor.refusal = two.donor.refusal = 'it has feed.state = "cold"'
    joiner.join()
    settle(world, joiner)
    why = 'member 0: it has feed.state = "cold"; member 1: it has feed.state = "cold"'
    assert joiner.ids == [f"cold: no replica gives its state: {why}"]
    assert world.now < 2 * SECOND
    assert (joiner.joiner.failures, one.donor.failures) == (0, 0)


def test_nobody_to_ask(world: World) -> None:
    joiner = world.add(0)
    joiner.join()
    settle(world, joiner)
    assert joiner.ids == ["cold: no replica gives its state: none is there that could"]
    assert world.sent == []


def test_two_joiners_are_served_one_after_the_other(world: World) -> None:
    donor, one, two = world.add(0), world.add(1), world.add(2)
    for joiner in (one, two):
        joiner.join()
        joiner.donor.later = "it waits for a state itself"
    settle(world, one, two)
    assert one.ids == two.ids == ["from 0"]
    assert (donor.donor.sent, donor.donor.failures) == (2, 0)
    busy = [message.reason for _, _, message in world.sent if isinstance(message, Refuse) and message.again]
    assert donors.BUSY in busy


def test_a_joiner_that_comes_back_at_once_waits_a_little(world: World) -> None:
    donor, joiner = world.add(0), world.add(1)
    joiner.join()
    settle(world, joiner)
    world.ends[1] = again = Replica(world, 1)
    began = world.now
    again.join()
    settle(world, again)
    assert again.ids == ["from 0"]
    assert world.now - began > SECOND
    assert donor.donor.sent == 2


@pytest.mark.parametrize("when", [50 * MS, 150 * MS])
def test_a_donor_that_dies_is_followed_by_the_next(world: World, when: int) -> None:
    world.add(0, image=400)
    world.add(1)
    joiner = world.add(2)
    joiner.join()
    world.after(when, lambda: world.alive.discard(0))
    settle(world, joiner)
    assert joiner.ids == ["from 1"]
    assert ("state_failed", {"member": 0, "reason": "member 0 is gone"}) in joiner.facts


def test_donors_that_die_one_after_the_other(world: World) -> None:
    for number in range(5):
        world.add(number, image=400)
    joiner = world.add(5)
    joiner.join()
    for number in range(5):
        world.after(number * 500 * MS + 150 * MS, lambda number=number: world.alive.discard(number))  # type: ignore[misc]
    settle(world, joiner)
    assert joiner.ids == ["cold: 3 transfers failed, the last one because member 2 is gone"]


def test_a_joiner_that_dies_leaves_nothing_at_the_donor(world: World) -> None:
    donor, joiner = world.add(0, image=4_000), world.add(1)
    joiner.join()
    world.run(lambda: donor.donor.acked > 10)
    world.alive.discard(1)
    world.run(donor.clean, 1)
    assert donor.donor.failures == 1


def test_a_joiner_that_stops_reading_is_given_up(world: World) -> None:
    donor, joiner = world.add(0, image=4_000), world.add(1)
    joiner.join()
    world.run(lambda: donor.donor.acked > 10)
    joiner.receive = joiner.turn = lambda *_: None  # type: ignore[method-assign, assignment]
    before = len(world.sent)
    world.run(donor.clean, limits.STATE_SILENCE_S + 1)
    assert ("state_not_given", {"member": 1, "reason": "member 1 is silent for 10 s"}) in donor.facts
    sent = sum(isinstance(message, Chunk) for _, _, message in world.sent[before:])
    assert sent < 10 * limits.STATE_WINDOW + limits.STATE_SILENCE_S / limits.STATE_ASK_S * donors.LEAST


def test_a_joiner_that_takes_for_ever_is_given_up(world: World) -> None:
    """It says a word every second, but never that it has more."""
    donor, joiner = world.add(0, image=4_000), world.add(1)
    joiner.join()
    world.run(lambda: donor.donor.acked > 10)
    transfer, had = donor.donor.transfer, donor.donor.acked
    joiner.receive = joiner.turn = lambda *_: None  # type: ignore[method-assign, assignment]
    for second in range(int(limits.STATE_WAIT_S + limits.STATE_SILENCE_S)):
        world.after(second * SECOND, lambda: donor.receive(Taken(1, 1, View(), transfer, had)))
    world.run(donor.clean, limits.STATE_WAIT_S + limits.STATE_SILENCE_S + 1)
    assert ("state_not_given", {"member": 1, "reason": "member 1 has not taken it after 40 s"}) in donor.facts


def test_who_is_busy_in_the_middle_of_a_transfer_has_ended_it(world: World) -> None:
    """Nothing that came is left, and it counts."""
    world.add(0, image=4_000)
    joiner = world.add(1)
    joiner.join()
    for _ in range(limits.STATE_DONORS):
        world.run(lambda: joiner.joiner.transfer != 0 and joiner.joiner.bytes > 10)
        joiner.receive(Refuse(0, 1, View(), joiner.joiner.transfer, True, "busy"))
        world.run(lambda: not joiner.disk)
    world.run(lambda: joiner.over)
    assert joiner.ids == ["cold: 3 transfers failed, the last one because member 0: busy"]


def test_a_donor_that_hangs_is_given_up(world: World) -> None:
    world.add(0, image=4_000)
    world.add(1)
    joiner = world.add(2)
    joiner.join()
    world.run(lambda: joiner.joiner.bytes > 100)
    donor = world.ends[0]
    donor.receive = donor.turn = lambda *_: None  # type: ignore[method-assign, assignment]
    world.run(lambda: joiner.over)
    assert joiner.ids == ["from 1"]
    assert ("state_failed", {"member": 0, "reason": "member 0 is silent for 10 s"}) in joiner.facts


def test_what_is_all_here_needs_no_donor(world: World) -> None:
    """It has forgotten the transfer, and then dies, while the joiner's slow disk takes the last pieces."""
    donor, joiner = world.add(0), world.add(1, slow=400 * MS)
    joiner.join()
    world.run(lambda: donor.donor.sent == 1)
    before = len(joiner.disk[joiner.joiner.transfer])
    joiner.joiner._say_taken(world.now)
    world.run(lambda: any(isinstance(message, Refuse) for source, _, message in world.sent if source == 0))
    world.run(lambda: len(joiner.disk[joiner.joiner.transfer]) > before)
    world.alive.discard(0)
    settle(world, joiner)
    assert joiner.ids == ["from 0"]
    assert joiner.joiner.failures == 0


def test_a_joiner_that_dies_while_an_image_is_waited_for(world: World) -> None:
    """And that is in the view: another one is not told to wait for ever."""
    donor, joiner = world.add(0), world.add(1)
    donor.prepared = lambda _: None  # type: ignore[method-assign, assignment]
    joiner.join()
    world.run(lambda: bool(donor.taken))
    joiner.receive = joiner.turn = lambda *_: None  # type: ignore[method-assign, assignment]
    world.run(donor.clean, limits.STATE_SILENCE_S + 1)
    assert donor.donor.phase is donors.Phase.FREE


def test_a_long_reason_is_cut(world: World) -> None:
    why = "; ".join(f"/usr/lib/x86_64-linux-gnu/lib\u00fc{number}.so.1: another file" for number in range(500))
    donor, joiner = world.add(0), world.add(1, broken={"check": why})
    joiner.join()
    settle(world, joiner)
    said = [message.reason.encode() for _, _, message in world.sent if isinstance(message, Refuse)]
    assert said
    assert max(map(len, said)) <= limits.MAX_TEXT
    assert ("state_not_given", {"member": 1, "reason": f"member 1: {said[0].decode()}"}) in donor.facts


def test_a_ring_that_fills_ends_the_wait(world: World) -> None:
    donor, joiner = world.add(0, image=4_000), world.add(1)
    joiner.join()
    world.run(lambda: joiner.joiner.bytes > 100)
    joiner.joiner.filled(limits.STATE_FILL - 1, world.now)
    assert joiner.joiner.active
    joiner.joiner.filled(limits.STATE_FILL, world.now)
    settle(world, joiner)
    assert joiner.ids == ["cold: the ring is 75 % full (ring.slots, ring.arena_mb)"]
    assert donor.donor.failures == 1


def test_the_wait_has_an_end(world: World) -> None:
    donor, joiner = world.add(0), world.add(1)
    donor.donor.later = "it waits for a state itself"
    joiner.join()
    settle(world, joiner)
    assert joiner.ids == ["cold: no state after 30 s; member 0: it waits for a state itself"]


def test_a_replica_that_ends_tells_the_other_side(world: World) -> None:
    donor, joiner = world.add(0, image=4_000), world.add(1)
    joiner.join()
    world.run(lambda: joiner.joiner.bytes > 100)
    joiner.joiner.abandon()
    world.run(lambda: donor.clean() and joiner.clean(), 1)
    assert joiner.ids == []
    assert ("state_not_given", {"member": 1, "reason": "member 1: this replica ends"}) in donor.facts


def test_a_donor_that_ends_tells_the_other_side(world: World) -> None:
    donor, joiner = world.add(0, image=4_000), world.add(1)
    world.add(2)
    joiner.join()
    world.run(lambda: joiner.joiner.bytes > 100)
    donor.donor.abandon()
    donor.donor.refusal = "this replica ends"
    settle(world, joiner)
    assert joiner.ids == ["from 2"]


def test_what_is_of_no_transfer_changes_nothing(world: World) -> None:
    """Messages that come late, twice, from others, or that nobody would send."""
    donor, joiner = world.add(0), world.add(1)
    head = 0, 1, View()
    foreign: list[Message] = [Chunk(*head, 5, 0, b"x"), Refuse(*head, 5), Taken(*head, 5, 3), Refuse(*head, 0)]
    for message in foreign:
        joiner.receive(message)
        donor.receive(message)
    joiner.join()
    world.run(lambda: joiner.joiner.bytes > 100)
    transfer, had = joiner.joiner.transfer, joiner.joiner._taken
    strange: list[Message] = [Chunk(*head, transfer, number, b"x") for number in (had - 1, had + 1, 1 << 31)]
    for message in [*strange, Chunk(2, 1, View(), transfer, had, b"x"), Refuse(2, 1, View(), transfer)]:
        joiner.receive(message)
    acked = donor.donor.acked
    for chunks in (0, acked - 1, 1 << 31):
        donor.receive(Taken(1, 1, View(), transfer, chunks))
    assert donor.donor.acked == acked
    donor.receive(Taken(2, 1, View(), transfer, acked + 1))
    donor.receive(Refuse(2, 1, View(), transfer))
    settle(world, joiner)
    assert joiner.ids == ["from 0"]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    late=st.sampled_from([2, 30, 200]),
    deaths=st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 4)), max_size=3),
    faults=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["check", "write", "restore", "dump", "read"])), max_size=2
    ),
    joiners=st.integers(1, 2),
    mixed=st.booleans(),
)
def test_whatever_happens_each_joiner_begins_once_and_nothing_is_left(
    seed: int,
    loss: float,
    late: int,
    deaths: list[tuple[int, int]],
    faults: list[tuple[int, str]],
    joiners: int,
    mixed: bool,
) -> None:
    world = World(random.Random(seed), loss, late * MS, mixed)
    for number in range(5):
        world.add(number, image=world.rng.randint(0, 200))
    for number, what in faults:
        world.ends[number].broken[what] = "it is broken"
    coming = [world.ends[number] for number in range(joiners)]
    for joiner in coming:
        joiner.donor.later = "it waits for a state itself"
        joiner.join()
    for when, number in deaths:
        world.after(when * MS, lambda number=number: world.alive.discard(number))  # type: ignore[misc]
    world.run(lambda: all(one.over for one in coming if one.me in world.alive))
    world.run(lambda: all(world.ends[one].clean() for one in world.alive), 2 * limits.STATE_SILENCE_S)
    for one in coming:
        assert len(one.ids) == 1 or (one.me not in world.alive and not one.ids)
    assert not any(world.ends[one].joiner.active for one in world.alive)
