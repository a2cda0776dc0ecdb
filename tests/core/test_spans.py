"""Spans: a set of positions, whatever order they come in."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from fused_cache_ops.selection.spans import EVERYTHING, Spans

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)))


def members(pairs: list[tuple[int, int]]) -> set[int]:
    return {position for start, stop in pairs for position in range(start, stop)}


@given(spans)
def test_they_hold_what_was_added(pairs: list[tuple[int, int]]) -> None:
    found = Spans(pairs)
    assert members(list(found)) == members(pairs)
    assert found.count == len(members(pairs))


@given(spans)
def test_they_neither_overlap_nor_touch(pairs: list[tuple[int, int]]) -> None:
    found = list(Spans(pairs))
    assert all(first[1] < second[0] for first, second in itertools.pairwise(found))
    assert all(start < stop for start, stop in found)


@given(spans, st.integers(0, 60), st.integers(0, 60))
def test_what_is_missing_is_the_rest(pairs: list[tuple[int, int]], start: int, stop: int) -> None:
    missing = [(begin, int(end)) for begin, end in Spans(pairs).missing([(start, stop)])]
    assert members(missing) == set(range(start, stop)) - members(pairs)
    assert len(members(missing)) == sum(end - begin for begin, end in missing)


def test_an_end_that_is_not_known_is_no_end() -> None:
    assert list(Spans([(0, 5), (7, 9)]).missing(EVERYTHING)) == [(5, 7), (9, math.inf)]
