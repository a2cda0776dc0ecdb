"""Spans of positions in a selection: which tiles belong to a shard, and which are done."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Union

Span = tuple[int, Union[int, float]]
"""From one position up to, but not including, another. The end is ``math.inf`` if it is unknown."""

EVERYTHING: tuple[Span, ...] = ((0, math.inf),)


class Spans:
    """A set of positions, stored as spans that neither overlap nor touch."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._spans: list[tuple[int, int]] = []
        self.count = 0
        for start, stop in spans:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add the positions from ``start`` up to, but not including, ``stop``."""
        if start >= stop:
            return
        first = bisect.bisect_left(self._spans, start, key=lambda span: span[1])
        last = bisect.bisect_right(self._spans, stop, key=lambda span: span[0])
        merged = self._spans[first:last]
        if merged:
            start, stop = min(start, merged[0][0]), max(stop, merged[-1][1])
        self.count += stop - start - sum(end - begin for begin, end in merged)
        self._spans[first:last] = [(start, stop)]

    def missing(self, windows: Iterable[Span]) -> Iterator[Span]:
        """The parts of ``windows`` that are not in the set. ``windows`` must be in order."""
        for start, stop in windows:
            for begin, end in self._spans:
                if end <= start:
                    continue
                if begin >= stop:
                    break
                if begin > start:
                    yield start, begin
                start = end
            if start < stop:
                yield start, stop

    @classmethod
    def common(cls, sets: Sequence[Spans]) -> Spans:
        """The positions that are in each of the sets. Of no sets: none."""
        found = list(sets[0]) if sets else []
        for other in sets[1:]:
            ours, theirs, found = iter(found), iter(other), []
            one, two = next(ours, None), next(theirs, None)
            while one is not None and two is not None:
                start, stop = max(one[0], two[0]), min(one[1], two[1])
                if start < stop:
                    found.append((start, stop))
                if one[1] < two[1]:
                    one = next(ours, None)
                else:
                    two = next(theirs, None)
        return cls(found)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._spans)
