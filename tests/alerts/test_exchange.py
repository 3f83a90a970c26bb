"""Alerts cross a link that loses, repeats and reorders, each once and in order."""

import random
from typing import Any

import pytest

from ftnids.alerts import exchange
from ftnids.alerts.exchange import RESEND_NS, Receiver, Sender
from ftnids.sync.messages import Alert, View

VIEW = View(1, 1, 0, 1)


def record(number: int, size: int = 10) -> dict[str, Any]:
    return {"event_type": "alert", "pad": "x" * size, "ftnids": {"id": f"{number:08x}", "seq": number}}


def header(member: int, incarnation: int = 1) -> exchange.Header:
    return lambda: (member, incarnation, VIEW)


@pytest.mark.parametrize("seed", range(5))
def test_each_alert_arrives_once_and_in_order_over_a_bad_link(seed: int) -> None:
    rng = random.Random(seed)
    sender, receiver = Sender(header(1)), Receiver(header(0))
    arrived: list[int] = []
    made, now, link = 0, 0, list[Alert]()
    for _ in range(4000):
        now += 20_000_000
        if made < 50:
            sender.raised([record(made)])
            made += 1
            sender.progress(made, final=made == 50)
        link += [m for m in sender.outgoing(now) for _ in range(rng.choice([0, 1, 1, 2]))]
        rng.shuffle(link)
        while link and rng.random() < 0.7:
            came = receiver.arrived(link.pop())
            arrived += [r["ftnids"]["seq"] for r in came.records]
            if rng.random() < 0.7:
                sender.acknowledged(came.answer)
        if sender.done:
            break
    assert arrived == list(range(50))
    assert sender.done
    assert receiver.final(1)


def test_what_the_coordinator_does_not_take_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ALERT_WAITING_BYTES", 1000)
    monkeypatch.setattr(exchange, "ALERT_KEPT_BYTES", 500)
    sender, receiver = Sender(header(1)), Receiver(header(0))
    made = 0
    while not sender.full:
        sender.raised([record(made, 100)])
        made += 1
    assert made == 6
    for now in range(0, 5 * RESEND_NS, RESEND_NS):
        for message in sender.outgoing(now):
            sender.acknowledged(receiver.arrived(message).answer)
    assert not sender.full
    (kept,) = {len(batch) for batch in sender.again(lost=True)}
    assert 0 < len(sender.again(lost=True)) * kept <= 500
    sender.raised([record(made, 2000)])
    assert sender.full


def test_batches_keep_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_ALERT_BATCH", 1000)
    sender, receiver = Sender(header(1)), Receiver(header(0))
    sender.raised([record(i, 300) for i in range(8)] + [record(9, 5000)])
    sizes, seen, now = [], [], 0
    for _ in range(20):
        now += RESEND_NS
        for message in sender.outgoing(now):
            sizes.append(len(message.records))
            came = receiver.arrived(message)
            seen += [r["ftnids"]["seq"] for r in came.records]
            sender.acknowledged(came.answer)
    assert seen == [*range(8), 9]
    assert sorted(sizes)[-2] <= 1000 < sorted(sizes)[-1]


def test_the_end_counts_only_behind_the_last_batch() -> None:
    sender, receiver = Sender(header(1)), Receiver(header(0))
    for i in range(6):
        sender.raised([record(i)])
    sender.progress(6, final=True)
    first = sender.outgoing(0)
    assert [m.final for m in first] == [False] * 4
    for message in first:
        sender.acknowledged(receiver.arrived(message).answer)
    assert not sender.done
    second = sender.outgoing(RESEND_NS)
    assert [m.final for m in second] == [False, True]
    assert not receiver.arrived(second[1]).final  # it overtook the one before
    for message in second:
        sender.acknowledged(receiver.arrived(message).answer)
    assert sender.done


def test_a_restarted_member_counts_from_zero_again() -> None:
    receiver = Receiver(header(0))
    for incarnation in (1, 2):
        sender = Sender(header(1, incarnation))
        sender.raised([record(incarnation)])
        (message,) = sender.outgoing(0)
        assert [r["ftnids"]["seq"] for r in receiver.arrived(message).records] == [incarnation]


@pytest.mark.parametrize("junk", [b"", b"{", b"7", b"{}", b'[{"a":1}]', b"[" * 100_000])
def test_junk_is_counted_and_not_taken(junk: bytes) -> None:
    receiver = Receiver(header(0))
    came = receiver.arrived(Alert(1, 1, VIEW, records=junk))
    assert came.records == []
    assert receiver.invalid == 1
