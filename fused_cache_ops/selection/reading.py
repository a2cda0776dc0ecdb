"""From keywords to a selection. Unreadable or contradictory keywords are rejected before anything is sent."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.arrow import is_arrow, read_tiles
from fused_cache_ops.selection.bounds import read_bounds
from fused_cache_ops.selection.keywords import (
    AREAS,
    DETAILS,
    KINDS,
    NOT_GIVEN,
    SELECTION_DEFAULTS,
    SHAPERS,
    WHOLE_UDF,
    SelectionKeywords,
)
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.selection import Covered, Listed, Once, Selection, Watch, WholeUdf, nobody_watches, nothing
from fused_cache_ops.selection.snapshot import TileSnapshot
from fused_cache_ops.selection.tile_list import TileFile, check_source, is_repeatable, list_source
from fused_cache_ops.tiles.blocks import Block, blocks_in_bounds, disjoint
from fused_cache_ops.tiles.tile import ZOOM_LIMIT, TileStream, is_boolean
from fused_cache_ops.tiles.zooms import parse_zooms
from fused_cache_ops.wording import quoted, warn

if TYPE_CHECKING:
    from typing_extensions import Unpack


def read_selection(watch: Watch = nobody_watches, /, **given: Unpack[SelectionKeywords]) -> Selection | WholeUdf:
    """The selection that the keywords describe. They are those of `fused_cache_ops.invalidate_cache`.

    Args:
        watch: called periodically while tiles are read or counted.
        given: the keywords.

    Raises:
        InvalidInputError: the keywords cannot be read, contradict each other, or select more than ``max_tiles``.
        TypeError: a keyword is unknown.
    """
    if unknown := given.keys() - SELECTION_DEFAULTS.keys():
        raise TypeError(f"Unknown keyword {', '.join(sorted(unknown))}: the keywords are {', '.join(SELECTION_DEFAULTS)}.")
    read: dict[str, Any] = {**SELECTION_DEFAULTS, **given}
    kinds = kinds_in(read)
    if len(kinds) > 1:
        raise InvalidInputError(f"{' and '.join(kinds)} are both given: use one kind of selection at a time.")
    zooms, buffer, max_zoom, shard = (read[name] for name in ("zooms", "buffer", "max_zoom", "shard"))
    _check_limits(buffer, read["max_tiles"], read["when_too_many"], max_zoom)
    check_shard(shard)
    if not kinds or kinds == ["whole_udf"]:
        refuse_shapers(read, SELECTION_DEFAULTS, SHAPERS)
        return WholeUdf()
    kind, value = kinds[0], read[kinds[0]]
    _check_details(kind, read)
    levels = None if zooms is None else parse_zooms(zooms, max_zoom=max_zoom)
    if kind in AREAS:
        if levels is None:
            raise InvalidInputError(f"{kind} needs zooms, such as zooms='10-14': each zoom is cached separately.")
        selection, computed = _covered(kind, read, levels, watch), True
    else:
        selection, computed = _listed(kind, value, levels or (), buffer, max_zoom, watch), bool(levels or buffer)
    selection.watch = watch
    limited: Selection | WholeUdf = selection
    if computed and selection.repeatable:
        limited = _limited(
            selection, levels, read["max_tiles"], read["when_too_many"], at_least=kind in AREAS and kind != "bounds"
        )
    return limited if shard is None else limited.shard_of(shard)


def kinds_in(keywords: Mapping[str, Any]) -> list[str]:
    """The kinds of selection that are given, including ``whole_udf``.

    Raises:
        InvalidInputError: ``whole_udf`` is neither true nor false.
    """
    whole = keywords.get("whole_udf", False)
    if not is_boolean(whole):
        raise InvalidInputError(f"whole_udf = {quoted(whole)} must be True or False.")
    given = [kind for kind in KINDS if kind in keywords]
    kinds = [kind for kind in given if keywords[kind] is not WHOLE_UDF and keywords[kind] is not NOT_GIVEN]
    return [*kinds, "whole_udf"] if whole else kinds


def require_kind(keywords: Mapping[str, Any], source: str) -> None:
    """Reject keywords from data that select nothing. There, the whole UDF must be requested explicitly.

    Args:
        keywords: the keywords from the data.
        source: where they come from, for the message: ``"The function returned"``.

    Raises:
        InvalidInputError: the keywords select nothing.
    """
    if not kinds_in(keywords) and keywords.get("tiles") is not WHOLE_UDF:
        raise InvalidInputError(
            f"{source} no selection: give one of {', '.join(KINDS)}, such as {{'tiles': […]}}, or whole_udf=True to "
            "invalidate everything. An empty list invalidates nothing."
        )


def refuse_shapers(given: Mapping[str, Any], defaults: Mapping[str, Any], shapers: Sequence[str]) -> None:
    """Reject keywords that shape a selection if there is no selection.

    Raises:
        InvalidInputError: one of them differs from its default.
    """
    present = [name for name in shapers if name in given and _differs(given[name], defaults[name])]
    if present:
        shown = ", ".join(f"{name} = {quoted(given[name], 40)}" for name in present)
        raise InvalidInputError(
            f"{shown} {'need' if len(present) > 1 else 'needs'} a selection, but there is none: give one of "
            f"{', '.join(KINDS)}. To invalidate the whole UDF, omit {' and '.join(present)}."
        )


def _differs(value: Any, default: Any) -> bool:
    return not (value is default or (type(value) is type(default) and value == default))


def refuse_single_use(selection: SelectionKeywords) -> None:
    """Reject selections that can be read only once, for callers that may be run again.

    An orchestrator's retry would find a generator exhausted, take that for "nothing selected", and succeed.

    Raises:
        InvalidInputError: a selection is or contains a generator or another iterator, or is not a path.
    """
    for kind in ("tiles", "bounds", "geometry", "cells"):
        value: Any = selection.get(kind)
        if _is_single_use(value) or (kind == "tiles" and _may_be_single_use(value)):
            raise InvalidInputError(
                f"{kind} is of type {type(value).__name__}, which can be read only once: a retry would find it empty. Pass a "
                "list."
            )
    tiles_file = selection.get("tiles_file", "")
    if tiles_file is not NOT_GIVEN and not is_repeatable(tiles_file):
        check_source(tiles_file)
        raise InvalidInputError("tiles_file can be read only once: a retry would find it empty. Pass the path of a file.")


def _is_single_use(value: Any) -> bool:
    """Whether a value is an iterator, or a list that holds one."""
    return (
        isinstance(value, Iterator)
        or hasattr(value, "read_next_batch")
        or (isinstance(value, (list, tuple)) and any(map(_is_single_use, value)))
    )


def _may_be_single_use(tiles: Any) -> bool:
    """Whether tiles are in something other than a collection, so that a second reading may give something else."""
    return (
        not is_arrow(tiles)
        and hasattr(tiles, "__iter__")
        and not isinstance(tiles, (str, RemainingTiles))
        and not _is_collection(tiles)
    )


def _is_collection(value: Any) -> bool:
    """Whether a value knows its number of members. A progress bar around a generator has such a type, but may not know it."""
    try:
        return isinstance(value, Collection) and len(value) >= 0
    except TypeError:
        return False


def _check_limits(buffer: int, max_tiles: int, when_too_many: str, max_zoom: int) -> None:
    if isinstance(buffer, bool) or not isinstance(buffer, int) or not 0 <= buffer <= 64:
        raise InvalidInputError(f"buffer = {quoted(buffer)} must be a whole number of tiles from 0 to 64.")
    if isinstance(max_tiles, bool) or not isinstance(max_tiles, int) or max_tiles < 1:
        raise InvalidInputError(f"max_tiles = {quoted(max_tiles)} must be a whole number above 0.")
    if when_too_many not in ("fail", "whole-udf", "coarser"):
        raise InvalidInputError(f"when_too_many = {quoted(when_too_many)} must be 'fail', 'whole-udf' or 'coarser'.")
    if isinstance(max_zoom, bool) or not isinstance(max_zoom, int) or not 0 <= max_zoom <= ZOOM_LIMIT:
        raise InvalidInputError(f"max_zoom = {quoted(max_zoom)} must be a whole number from 0 to {ZOOM_LIMIT}.")


def check_shard(shard: Any) -> None:
    """Reject an invalid shard.

    Raises:
        InvalidInputError: ``shard`` is not ``(i, n)`` with 0 ≤ i < n.
    """
    if shard is None:
        return
    numbers = list(shard) if isinstance(shard, (tuple, list)) else []
    if (
        len(numbers) != 2
        or any(is_boolean(number) or not isinstance(number, int) for number in numbers)
        or not 0 <= numbers[0] < numbers[1]
    ):
        raise InvalidInputError(f"shard = {quoted(shard)} must be (i, n): the i-th of n shards, counted from 0.")


def _check_details(kind: str, read: Mapping[str, Any]) -> None:
    for name, kinds in DETAILS.items():
        if kind not in kinds and read[name] is not cast("Any", SELECTION_DEFAULTS)[name]:
            raise InvalidInputError(
                f"{name} = {quoted(read[name])} is given with {kind}, but it is for {' and '.join(kinds)}: omit it."
            )


def _covered(kind: str, read: Mapping[str, Any], zooms: tuple[int, ...], watch: Watch) -> Selection:
    """Bounds, whole; or another area, which ends where it comes to more than ``max_tiles``."""
    buffer, most = read["buffer"], read["max_tiles"]
    if kind == "bounds":
        return Selection(Covered(partial(_blocks_in_boxes, read_bounds(read[kind]), zooms, buffer)), blocks=True)
    from fused_cache_ops.selection.coverage import Gathered, cover

    portions = filter(lambda portion: not portion[1].is_empty, _portions(kind, read, zooms))
    begun = list(itertools.islice(portions, 2))
    if not begun:
        return Selection(Covered(nothing), blocks=True)
    if len(begun) == 1:  # small enough to be computed again when it is needed
        return Selection(Covered(partial(cover, begun[0][1], begun[0][0], buffer, most)), blocks=True)
    gathered = Gathered(zooms, buffer, most)
    for at, shape in itertools.chain(begun, portions):
        watch()
        gathered.add(shape, at)
    return Selection(Covered(gathered.blocks), blocks=True)


def _portions(kind: str, read: Mapping[str, Any], zooms: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """The area piece by piece, each with the zooms at which it changed."""
    if kind == "geometry":
        from fused_cache_ops.selection.geometry import Options, read_geometry

        options = Options(zooms[-1], read["geometry_column"], read["crs"])
        return ((zooms, portion) for portion in read_geometry(read[kind], options))
    from fused_cache_ops.selection.cells import read_cells, read_hex_dataset, read_rendering

    cells = read_cells(read[kind]) if kind == "cells" else read_hex_dataset(read[kind], read["partition"])
    return cells.portions(zooms, read_rendering(read["render_resolution"]))


def _blocks_in_boxes(boxes: list[tuple[float, float, float, float]], zooms: tuple[int, ...], buffer: int) -> Iterator[Block]:
    for zoom in zooms:
        yield from disjoint(block for box in boxes for block in blocks_in_bounds(*box, zoom, buffer))


def _listed(kind: str, value: Any, zooms: tuple[int, ...], buffer: int, max_zoom: int, watch: Watch) -> Selection:
    source: Any
    size = None
    if kind == "tiles_file":
        found = list_source(value, max_zoom)
        source = found if isinstance(found, TileFile) else Once(found)
    elif isinstance(value, RemainingTiles):
        source = value
    elif is_arrow(value):
        source = TileSnapshot(TileStream(read_tiles(value), max_zoom=max_zoom, watch=watch))
        size = None if zooms or buffer else len(source)
    elif _is_collection(value):
        source = _snapshot(value, max_zoom, watch)
        size = None if zooms or buffer else len(source)
    else:
        source = Once(TileStream(value, max_zoom=max_zoom))
    return Selection(
        Listed(source, zooms, buffer), blocks=bool(zooms or buffer), repeatable=not isinstance(source, Once), size=size
    )


def _snapshot(tiles: Collection[Any], max_zoom: int, watch: Watch) -> TileSnapshot:
    """Read and check a collection once. Its length must be right. Otherwise it is exhausted or still being built."""
    expected = len(tiles)
    stream: Iterator[Any] = TileStream(tiles, max_zoom=max_zoom, watch=watch)
    if isinstance(tiles, Set):  # the same order on every machine
        stream = iter(sorted(stream))
    snapshot = TileSnapshot(stream)
    if len(snapshot) != expected:
        raise InvalidInputError(
            f"tiles, of type {type(tiles).__name__}, has a length of {expected:,} but returned {len(snapshot):,} tiles. It can "
            "be read only once, or was changed while it was read: pass a list."
        )
    return snapshot


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
    # If not even the coarsest zoom is small enough, "coarser" would leave everything stale.
    if when_too_many == "fail" or (when_too_many == "coarser" and counts[min(counts)] > max_tiles):
        per_zoom = ", ".join(f"zoom {zoom}: {'at least ' * (zoom == last)}{count:,}" for zoom, count in counts.items())
        raise InvalidInputError(
            f"{over} ({per_zoom}). Raise max_tiles, omit deep zooms, narrow the selection, or set when_too_many: "
            "'whole-udf' invalidates everything instead, 'coarser' leaves the deepest zooms stale."
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
