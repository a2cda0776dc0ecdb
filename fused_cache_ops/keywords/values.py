"""The types of the keywords, and what stands for a keyword that is left out."""

import datetime
import enum
import os
from collections.abc import Iterable, Mapping
from typing import IO, Any, Literal, NamedTuple, Protocol, Union

from fused_cache_ops.stores import Store
from fused_cache_ops.tiles.tile import TileLike


class _WholeUdf(enum.Enum):
    WHOLE_UDF = "whole-udf"

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


class NotGiven(enum.Enum):
    NOT_GIVEN = "not-given"

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


WHOLE_UDF = _WholeUdf.WHOLE_UDF
"""The value of ``tiles`` when it is omitted. None is an error, so that a load step that forgot its ``return`` cannot
invalidate everything."""

NOT_GIVEN = NotGiven.NOT_GIVEN
"""The value of the other kinds of selection when they are omitted. None is an error here too."""

Bounds = Union[tuple[float, float, float, float], list[float], Iterable[Iterable[float]]]
"""``(west, south, east, north)`` in degrees, or several such boxes."""

TilesFile = Union[str, os.PathLike[str], IO[bytes], IO[str]]
"""A path, ``-`` for standard input, or an open file."""

RenderResolution = Union[int, str, tuple[str, int], Mapping[Any, int], None]
"""The resolution of the H3 cells that a map draws: None for the cells themselves, a number, a mapping from zooms to numbers,
``"fused"``, or ``("fused", offset)``."""

TileSelection = Union[Iterable[TileLike], Literal[_WholeUdf.WHOLE_UDF]]

Antimeridian = Literal["cross", "literal"]
"""How to read an edge that spans more than half the globe."""

TileOrder = Literal["zxy", "xyz"]
"""The order of the three numbers of a tile where nothing names them."""

WhenTooMany = Literal["fail", "whole-udf", "coarser"]


class CheckpointStore(Protocol):
    """Where an orchestrator keeps records."""

    def record(self, name: str) -> Store:
        """The record of that name."""


class RunCheckpoint(NamedTuple):
    """A checkpoint of one step of an orchestrator's run. A record that another run wrote is ignored.

    Attributes:
        location: a path, a URL that fsspec supports, or the orchestrator's own store.
        run: what identifies the run and the step. It is the same for a retry, and different for everything that may follow
            another load.
    """

    location: str | os.PathLike[str] | CheckpointStore
    run: str

    def __repr__(self) -> str:
        return repr(self.location)


CheckpointLocation = Union[str, os.PathLike[str], RunCheckpoint]
"""A path, or with the extra ``fsspec`` any URL that fsspec supports. A location that ends in ``/`` is a folder."""

Related = Literal["callers", "callees", "both"]

LoadedAt = Union[datetime.datetime, str, float]
"""A time with a time zone, its ISO text, or seconds since 1970."""

InnerCaches = Union[str, Iterable[str]]
"""Folders of inner caches by their names, or ``"own"``."""

RefreshCount = Union[int, Literal["all"]]
"""The most tiles to refresh, or ``"all"``. 0: none."""

RefreshParameters = Mapping[str, Union[str, int, float]]
"""The UDF's parameters, by name, as a map sends them."""
