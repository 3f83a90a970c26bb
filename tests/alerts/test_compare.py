"""The comparison with the reference: as multisets, with a cause for each difference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ftnids.alerts.compare import Comparison, compare
from ftnids.alerts.identity import Identifier
from ftnids.alerts.readers import Record

from .records import START_US, alert

specs = st.lists(st.tuples(st.integers(1, 2), st.integers(0, 1), st.integers(0, 5)), max_size=12)


def raised(specs: list[tuple[int, int, int]], *, shift_us: int = 0) -> list[Record]:
    identifier = Identifier("a")
    return [
        identifier.identify(alert(sid, packet=1 + n, flow=flow, time_us=START_US + t + shift_us))
        for n, (sid, flow, t) in enumerate(specs)
    ]


@given(specs)
def test_equal_but_for_times_and_numbers_is_equal(alerts: list[tuple[int, int, int]]) -> None:
    assert compare(raised(alerts), raised(alerts[::-1], shift_us=1000)) == Comparison()


@given(specs, specs, specs)
def test_counts_are_those_of_the_multisets(
    both: list[tuple[int, int, int]], ours: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]]
) -> None:
    result = compare(raised(both + ours), raised(both + theirs))
    sides = [difference["side"] for difference in result.differences]
    assert result.missing - result.spurious == len(theirs) - len(ours)
    assert (sides.count("missing"), sides.count("spurious")) == (result.missing, result.spurious)
    assert result.missing <= len(theirs)
    assert result.unexplained == len(result.differences)


def test_the_alert_without_partner_in_time_is_the_one_that_differs() -> None:
    reference = raised([(1, 0, 1), (1, 0, 2), (1, 0, 3)])
    ours = [reference[0], reference[2]]
    asked: list[Record] = []

    def cause(record: Record) -> str:
        asked.append(record)
        return "late"

    result = compare(ours, reference, cause)
    assert asked == [reference[1]]
    assert result.unexplained == 0
    assert result.differences == [
        {"id": reference[1]["ftnids"]["id"], "signature_id": 1, "side": "missing", "cause": "late"}
    ]
