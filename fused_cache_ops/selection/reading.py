"""From keywords to a selection: what cannot be read, or contradicts itself, is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Set
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.bounds import read_bounds
from fused_cache_ops.selection.expansion import Expanded
from fused_cache_ops.selection.keywords import KINDS, NOT_GIVEN, SELECTION_DEFAULTS, WHOLE_UDF, SelectionKeywords
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.selection.tile_list import TileList, check_source, is_repeatable
from fused_cache_ops.tiles.blocks import Block, blocks_in_bounds, disjoint
from fused_cache_ops.tiles.tile import ZOOM_LIMIT, Tile, TileStream, is_boolean
from fused_cache_ops.tiles.zooms import parse_zooms
from fused_cache_ops.wording import warn

if TYPE_CHECKING:
    from typing_extensions import Unpack


def read_selection(**given: Unpack[SelectionKeywords]) -> Selection | WholeUdf:
    """The selection that the keywords describe. They are `fused_cache_ops.invalidate_cache`'s.

    Raises:
        InvalidInputError: they cannot be read, contradict one another, or select more than ``max_tiles``.
        TypeError: there is no such keyword.
    """
    if unknown := given.keys() - SELECTION_DEFAULTS.keys():
        raise TypeError(f"There is no keyword {', '.join(sorted(unknown))}: there are {', '.join(SELECTION_DEFAULTS)}.")
    read: dict[str, Any] = {**SELECTION_DEFAULTS, **given}
    kinds = [kind for kind in KINDS if read[kind] is not WHOLE_UDF and read[kind] is not NOT_GIVEN]
    if len(kinds) > 1:
        raise InvalidInputError(f"{' and '.join(kinds)} are given together: give one kind of selection at a time.")
    zooms, buffer, max_zoom, shard = (read[name] for name in ("zooms", "buffer", "max_zoom", "shard"))
    _check_limits(buffer, read["max_tiles"], read["when_too_many"], max_zoom)
    check_shard(shard)
    if not kinds:
        if zooms is not None or buffer or shard is not None:
            raise InvalidInputError(
                "zooms, buffer and shard need a selection to work on: tiles, tiles_file, bounds or geometry. "
                "To invalidate the whole UDF leave them all out."
            )
        return WholeUdf()
    kind, value = kinds[0], read[kinds[0]]
    levels = None if zooms is None else parse_zooms(zooms, max_zoom=max_zoom)
    if kind in ("bounds", "geometry"):
        if levels is None:
            raise InvalidInputError(f"{kind} needs zooms, such as zooms='10-14': a UDF is cached at each by itself.")
        selection, computed = _covered(kind, value, levels, buffer, read["max_tiles"]), True
    else:
        selection, computed = _listed(kind, value, levels or (), buffer, max_zoom)
    limited: Selection | WholeUdf = selection
    if computed and selection.repeatable:
        limited = _limited(selection, levels, read["max_tiles"], read["when_too_many"], at_least=kind == "geometry")
    return limited if shard is None else limited.shard_of(shard)


def refuse_single_use(selection: SelectionKeywords) -> None:
    """Refuse what can be read only once, on behalf of callers that may be run again.

    An orchestrator's retry would find a generator used up, take that for "nothing selected", and succeed.

    Raises:
        InvalidInputError: ``tiles`` is a generator or another iterator, or ``tiles_file`` is no path.
    """
    tiles = selection.get("tiles")
    if isinstance(tiles, Iterator):
        raise InvalidInputError(
            f"tiles is of type {type(tiles).__name__}, which can be read only once: a retry would find it empty. Give a list."
        )
    tiles_file = selection.get("tiles_file", "")
    if tiles_file is not NOT_GIVEN and not is_repeatable(tiles_file):
        check_source(tiles_file)
        raise InvalidInputError("tiles_file can be read only once: a retry would find it empty. Give the path of a file.")


def _check_limits(buffer: int, max_tiles: int, when_too_many: str, max_zoom: int) -> None:
    if isinstance(buffer, bool) or not isinstance(buffer, int) or not 0 <= buffer <= 64:
        raise InvalidInputError(f"buffer = {buffer!r} must be a whole number of tiles from 0 to 64.")
    if isinstance(max_tiles, bool) or not isinstance(max_tiles, int) or max_tiles < 1:
        raise InvalidInputError(f"max_tiles = {max_tiles!r} must be a whole number above 0.")
    if when_too_many not in ("fail", "whole-udf", "coarser"):
        raise InvalidInputError(f"when_too_many = {when_too_many!r} must be 'fail', 'whole-udf' or 'coarser'.")
    if isinstance(max_zoom, bool) or not isinstance(max_zoom, int) or not 0 <= max_zoom <= ZOOM_LIMIT:
        raise InvalidInputError(f"max_zoom = {max_zoom!r} must be a whole number from 0 to {ZOOM_LIMIT}.")


def check_shard(shard: Any) -> None:
    """Refuse what is no shard.

    Raises:
        InvalidInputError: it is not ``(i, n)`` with 0 ≤ i < n.
    """
    if shard is None:
        return
    numbers = list(shard) if isinstance(shard, (tuple, list)) else []
    if (
        len(numbers) != 2
        or any(is_boolean(number) or not isinstance(number, int) for number in numbers)
        or not 0 <= numbers[0] < numbers[1]
    ):
        raise InvalidInputError(f"shard = {shard!r} must be (i, n): the i-th of n shards, counted from 0.")


def _covered(kind: str, value: Any, zooms: tuple[int, ...], buffer: int, max_tiles: int) -> Selection:
    """Bounds, whole; or a geometry, which ends where it comes to more than ``max_tiles``."""
    if kind == "bounds":
        boxes = read_bounds(value)

        def in_bounds() -> Iterator[Block]:
            for zoom in zooms:
                yield from disjoint(block for box in boxes for block in blocks_in_bounds(*box, zoom, buffer))

        return Selection(in_bounds, blocks=True)
    from fused_cache_ops.selection.coverage import cover
    from fused_cache_ops.selection.geometry import read_geometry

    shape = read_geometry(value, zooms[-1])
    return Selection(lambda: iter(()) if shape.is_empty else cover(shape, zooms, buffer, max_tiles), blocks=True)


def _listed(kind: str, value: Any, zooms: tuple[int, ...], buffer: int, max_zoom: int) -> tuple[Selection, bool]:
    """A list, and whether more than the list itself is to be sent."""
    stream: Callable[[], Iterator[Tile]]
    if kind == "tiles_file":
        check_source(value)
        repeatable = is_repeatable(value)

        def stream() -> Iterator[Tile]:
            return TileList(value, max_zoom=max_zoom)
    else:
        repeatable = isinstance(value, Collection)
        if isinstance(value, Set):  # in the same order on every machine
            value = sorted(TileStream(value, max_zoom=max_zoom))
        first: TileStream | None = TileStream(value, max_zoom=max_zoom)  # checks every tile of a collection, now

        def stream() -> Iterator[Tile]:
            nonlocal first
            checked, first = first, None
            return checked or TileStream(value, max_zoom=max_zoom)

    if not zooms and not buffer:
        size = len(value) if kind == "tiles" and isinstance(value, Collection) else None
        return Selection(stream, blocks=False, repeatable=repeatable, size=size), False
    return Selection(lambda: Expanded(stream(), zooms, buffer), blocks=True, repeatable=repeatable), True


def _limited(
    selection: Selection, zooms: tuple[int, ...] | None, max_tiles: int, when_too_many: str, *, at_least: bool
) -> Selection | WholeUdf:
    """A selection of ``max_tiles`` or fewer, or what is to be done instead.

    Args:
        selection: counted from the coarse zooms to the fine ones where it is ``at_least``.
        zooms: those asked for; None: those that a list has.
        max_tiles: as given.
        when_too_many: as given.
        at_least: whether counting ended where there were too many, so that the last zoom's count is not all of it.
    """
    counts = selection.tiles_per_zoom()
    total = sum(counts.values())
    if total <= max_tiles:
        return selection
    last = max(counts) if at_least else None
    over = f"{'at least ' if at_least else ''}{total:,} tiles are selected, over max_tiles={max_tiles:,}"
    # Where not even the coarsest zoom is small enough, "coarser" would leave everything stale.
    if when_too_many == "fail" or (when_too_many == "coarser" and counts[min(counts)] > max_tiles):
        per_zoom = ", ".join(f"zoom {zoom}: {'at least ' * (zoom == last)}{count:,}" for zoom, count in counts.items())
        raise InvalidInputError(
            f"{over} ({per_zoom}). Raise max_tiles, leave out deep zooms, narrow the selection, or set "
            "when_too_many='whole-udf' to invalidate everything instead or 'coarser' to leave the deepest zooms stale."
        )
    if when_too_many == "whole-udf":
        note = f"{over}: the whole UDF is invalidated instead"
        warn(note)
        return WholeUdf(note=note)
    # Zooms that were not counted lie deeper than one that was too much.
    dropped = [] if last is None else [zoom for zoom in zooms or () if zoom > last]
    for zoom in sorted(counts, reverse=True):
        if total <= max_tiles:
            break
        dropped.append(zoom)
        total -= counts[zoom]
    selection.leave_out(dropped)
    stale = ", ".join(str(zoom) for zoom in sorted(dropped))
    selection.note = f"{over}: zooms {stale} are left stale"
    warn(selection.note)
    return selection
