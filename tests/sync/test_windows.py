"""The sliding windows against plain lists and sets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnids.sync.windows import ABSENT, ConsumedWindow, SeqWindow


def append(window: SeqWindow, refs: list[int]) -> None:
    n = len(refs)
    first = window.end
    window.append(
        np.array(refs, np.int64),
        np.arange(first, first + n, dtype=np.int64),
        np.zeros(n, np.uint8),
        np.ones(n, np.uint32),
        np.arange(first, first + n, dtype=np.uint64),
    )


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(st.integers(-1, 50), max_size=3000), st.integers(0, 4000)), max_size=12))
def test_seq_window_is_a_list_cut_at_the_front(steps: list[tuple[list[int], int]]) -> None:
    window, model, base = SeqWindow(7), [], 7
    for refs, cut in steps:
        append(window, refs)
        model.extend(refs)
        window.cut(base + cut - 2000)
        drop = max(0, min(cut - 2000, len(model)))
        model, base = model[drop:], base + drop
        assert (window.base, window.end) == (base, base + len(model))
        assert window.refs(base, window.end).tolist() == model
        assert window.times(base, window.end).tolist() == list(range(base, window.end))
        absent = [base + i for i, ref in enumerate(model) if ref == ABSENT]
        assert window.first_absent(base) == (absent[0] if absent else window.end)
        assert window.absent(base, 5).tolist() == absent[:5]


def test_refs_are_writable_in_place() -> None:
    window = SeqWindow(0)
    append(window, [ABSENT] * 10)
    window.refs(3, 5)[:] = 42
    assert window.refs(0, 10).tolist() == [ABSENT] * 3 + [42] * 2 + [ABSENT] * 5


@settings(max_examples=100)
@given(st.lists(st.integers(1, 40), max_size=60), st.randoms(use_true_random=False))
def test_consumed_window_is_the_lowest_position_not_consumed(sizes: list[int], random) -> None:  # type: ignore[no-untyped-def]
    window, done, next_position = ConsumedWindow(5), set(range(5)), 5
    waiting: list[int] = []
    for size in sizes:
        waiting.extend(range(next_position, next_position + size))
        next_position += size
        random.shuffle(waiting)
        take, waiting = waiting[: size + 3], waiting[size + 3 :]
        window.mark(np.array(take, np.int64))
        done.update(take)
        assert window.base == next(p for p in range(next_position + 1) if p not in done)


def test_consumed_window_far_ahead() -> None:
    window = ConsumedWindow(0)
    window.mark(np.arange(1, 5000))
    assert window.base == 0
    window.mark(np.array([0]))
    assert window.base == 5000
    window.mark(np.arange(5000, 6000))
    assert window.base == 6000
    window.mark(np.array([3, 5999]))  # again: nothing
    assert window.base == 6000
