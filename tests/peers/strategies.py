"""Hypothesis strategies for every kind of message, within the limits of the wire format."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ftnids.limits import MAX_MEMBERS
from ftnids.sync import messages as m

u64 = st.integers(0, (1 << 64) - 1)
i64 = st.integers(-(1 << 63), (1 << 63) - 1)
number = st.one_of(st.integers(0, 300), st.integers(0, (1 << 62) - 1))
member = st.integers(0, MAX_MEMBERS - 1)
mask = st.integers(0, (1 << MAX_MEMBERS) - 1)
views = st.builds(m.View, lineage=u64, number=st.integers(0, (1 << 32) - 1), coordinator=member, incarnation=u64)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
digest = st.binary(max_size=64)


def array(values: list[int], dtype: Any) -> NDArray[Any]:
    return np.array(values, dtype)


def arrays(elements: st.SearchStrategy[int], dtype: Any, size: int | None = None) -> st.SearchStrategy[NDArray[Any]]:
    low, high = (0, 40) if size is None else (size, size)
    return st.lists(elements, min_size=low, max_size=high).map(lambda values: array(values, dtype))


@st.composite
def rising(draw: st.DrawFn, size: int, unit: int = 1) -> NDArray[np.int64]:
    first = draw(st.integers(-(1 << 40), 1 << 61)) // unit
    step = st.one_of(st.integers(0, 200), st.integers(0, 1 << 40))
    steps = draw(st.lists(step, min_size=max(size - 1, 0), max_size=max(size - 1, 0)))
    return np.cumsum(array([first, *steps][:size], np.int64)) * unit


@st.composite
def numbers(draw: st.DrawFn, size: int) -> NDArray[np.int64]:
    """Mostly consecutive positions, with jumps either way."""
    if draw(st.booleans()):
        return array(draw(st.lists(number, min_size=size, max_size=size)), np.int64)
    first = draw(st.integers(1 << 20, 1 << 61))
    steps = draw(st.lists(st.one_of(st.just(1), st.integers(-1000, 1000)), min_size=size, max_size=size))
    return first + np.cumsum(array(steps, np.int64))


def per_member(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[int, Any]]:
    return st.dictionaries(member, values, max_size=4)


common: dict[str, st.SearchStrategy[Any]] = {"sender": member, "incarnation": u64, "view": views}
sizes = st.integers(0, 40)
unit = st.sampled_from([1, 1000])


@st.composite
def reports(draw: st.DrawFn) -> m.Report:
    size, pushed = draw(sizes), draw(st.booleans())
    report = m.Report(
        **{name: draw(values) for name, values in common.items()},
        position=draw(number),
        start=draw(number),
        watermark_ns=draw(i64),
        end=draw(st.booleans()),
        sent_ns=draw(i64),
    )
    if pushed:
        report.hash = draw(arrays(u64, np.uint64, size))
        report.time_ns = draw(rising(size, draw(unit)))
    else:
        report.k = draw(st.integers(1, 4096))
        report.cluster = draw(arrays(u64, np.uint64, size))
        times = draw(rising(2 * size, draw(unit)))
        report.first_ns, report.last_ns = times[0::2].copy(), times[1::2].copy()
    return report


@st.composite
def decisions(draw: st.DrawFn) -> m.Decision:
    size, members = draw(sizes), draw(st.integers(1, (1 << MAX_MEMBERS) - 1))
    some = st.one_of(st.just(members), mask)
    holders = draw(arrays(some, np.uint32, size))
    listed = draw(st.sets(member, max_size=4))
    held = {who: int(np.count_nonzero(holders & np.uint32(1 << who))) for who in listed}
    counters = ["first_seq", "ambiguous", "late", "rounds", "dirty_rounds"]
    totals: dict[str, Any] = {name: draw(number) for name in counters}
    return m.Decision(
        **totals,
        **{name: draw(values) for name, values in common.items()},
        number=draw(st.integers(0, (1 << 32) - 1)),
        members=members,
        time_us=draw(rising(size)),
        holders=holders,
        flags=draw(arrays(st.one_of(st.just(0), st.integers(0, 15)), np.uint8, size)),
        hash=draw(arrays(u64, np.uint64, int(np.count_nonzero(holders != members)))),
        places={who: draw(numbers(count)) for who, count in held.items()},
        skipped={who: draw(numbers(draw(sizes))) for who in draw(st.sets(member, max_size=2))},
        offset_ns=draw(per_member(i64)),
        tolerance_ns=draw(per_member(number)),
        cut_ns=draw(i64),
        ends=draw(st.booleans()),
        desync_level=draw(st.integers(0, 65535)),
        max_desync=draw(st.integers(0, 65535)),
    )


@st.composite
def pushed_bytes(draw: st.DrawFn) -> m.Bytes:
    frames = draw(st.lists(st.binary(max_size=50), max_size=20))
    caplen = [len(frame) for frame in frames]
    extra = [draw(st.one_of(st.just(0), st.integers(0, 100_000))) for _ in frames]
    return m.Bytes(
        **{name: draw(values) for name, values in common.items()},
        seq=draw(numbers(len(frames))),
        hash=draw(arrays(u64, np.uint64, len(frames))),
        caplen=array(caplen, np.uint32),
        wirelen=array([a + b for a, b in zip(caplen, extra, strict=True)], np.uint32),
        data=b"".join(frames),
    )


@st.composite
def histories(draw: st.DrawFn) -> m.History:
    size = draw(sizes)
    return m.History(
        **{name: draw(values) for name, values in common.items()},
        hash=draw(arrays(u64, np.uint64, size)),
        time_ns=draw(rising(size, draw(unit))),
        position=draw(number),
        cut_ns=draw(i64),
        digest=draw(digest),
        config=draw(text),
        refused=draw(text),
    )


@st.composite
def installs(draw: st.DrawFn) -> m.Install:
    size = draw(sizes)
    return m.Install(
        **{name: draw(values) for name, values in common.items()},
        installed=draw(views),
        members=draw(mask),
        first_seq=draw(number),
        number=draw(st.integers(0, (1 << 32) - 1)),
        start=draw(per_member(number)),
        void=draw(sizes.flatmap(numbers)),
        incarnations=draw(per_member(number)),
        cut_ns=draw(i64),
        time_us=draw(i64),
        offset_ns=draw(per_member(i64)),
        tolerance_ns=draw(per_member(number)),
        hash=draw(arrays(u64, np.uint64, size)),
        decided_us=draw(rising(size)),
        holders=draw(arrays(mask, np.uint32, size)),
        protocol=draw(st.integers(1, 2)),
    )


MESSAGES: dict[m.Kind, st.SearchStrategy[Any]] = {
    m.Kind.REPORT: reports(),
    m.Kind.DECISION: decisions(),
    m.Kind.BYTES: pushed_bytes(),
    m.Kind.ACK: st.builds(m.Ack, **common, acked=number, stable=number, decisions=number, reported=per_member(number)),
    m.Kind.NACK: st.builds(m.Nack, **common, first=number, last=number),
    m.Kind.FETCH: st.builds(
        m.Fetch, **common, seq=sizes.flatmap(numbers), position=number, count=st.integers(0, 1 << 20)
    ),
    m.Kind.HEARTBEAT: st.builds(
        m.Heartbeat,
        **common,
        members=mask,
        hears=mask,
        state=st.integers(0, 255),
        speaks=st.just(m.PROTOCOL),
        promised=st.integers(0, (1 << 32) - 1),
        late=mask,
        fill=st.integers(0, 1000),
        pinned=st.integers(0, 1000),
        load=st.integers(0, 1000),
        watermark_ns=i64,
        sent_ns=i64,
        echo_ns=i64,
        held_ns=i64,
    ),
    m.Kind.PROPOSE: st.builds(
        m.Propose,
        **common,
        proposed=views,
        members=mask,
        number=st.integers(0, (1 << 32) - 1),
        log=st.lists(decisions(), max_size=2),
    ),
    m.Kind.PROMISE: st.builds(
        m.Promise,
        **common,
        proposed=views,
        base=views,
        number=st.integers(0, (1 << 32) - 1),
        log=st.lists(decisions(), max_size=2),
        missing=sizes.flatmap(numbers),
        consumed=number,
        holes=sizes.flatmap(numbers),
    ),
    m.Kind.INSTALL: installs(),
    m.Kind.JOIN: st.builds(
        m.Join,
        **common,
        digest=digest,
        config=text,
        ready=st.booleans(),
        position=st.one_of(st.just(-1), number),
        offset_ns=i64,
        tolerance_ns=number,
        ids=text,
        software=text,
    ),
    m.Kind.HISTORY: histories(),
    m.Kind.ALERT: st.builds(
        m.Alert,
        **common,
        number=number,
        acked=number,
        fed=number,
        final=st.booleans(),
        records=st.binary(max_size=100),
    ),
    m.Kind.STATUS: st.builds(m.Status, **common, snapshot=st.binary(max_size=100)),
    m.Kind.LEAVE: st.builds(m.Leave, **common, reason=text),
    m.Kind.ASK: st.builds(m.Ask, **common, transfer=number, seq=number, facts=st.binary(max_size=100)),
    m.Kind.OFFER: st.builds(m.Offer, **common, transfer=number, manifest=st.binary(max_size=100)),
    m.Kind.CHUNK: st.builds(
        m.Chunk, **common, transfer=number, number=st.integers(0, (1 << 32) - 1), data=st.binary(max_size=100)
    ),
    m.Kind.TAKEN: st.builds(m.Taken, **common, transfer=number, chunks=st.integers(0, (1 << 32) - 1)),
    m.Kind.REFUSE: st.builds(m.Refuse, **common, transfer=number, again=st.booleans(), reason=text),
}


def same(one: Any, other: Any) -> bool:
    """Whether two messages are equal: fields, dtypes and values."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, m.Message):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    return type(one) is type(other) and bool(one == other)
