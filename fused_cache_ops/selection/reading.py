"""From keywords to a selection. Unreadable or contradictory keywords are rejected before anything is sent."""

from __future__ import annotations

import copy
import itertools
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.rules import one_kind_in, refuse_unknown
from fused_cache_ops.keywords.selection import AREAS, DETAILS, SELECTION_DEFAULTS, SelectionKeywords
from fused_cache_ops.keywords.text import read_list
from fused_cache_ops.keywords.values import NOT_GIVEN
from fused_cache_ops.selection.arrow import is_arrow, read_tiles
from fused_cache_ops.selection.bounds import read_bounds
from fused_cache_ops.selection.frames import frame_tiles, is_frame
from fused_cache_ops.selection.given import as_read
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.selection import Covered, Listed, Once, Selection, Watch, WholeUdf, nobody_watches
from fused_cache_ops.selection.snapshot import TileSnapshot
from fused_cache_ops.selection.tile_list import TileFile, check_source, filed, is_pipe, is_repeatable, list_source
from fused_cache_ops.tiles.blocks import Block, blocks_in_bounds, disjoint
from fused_cache_ops.tiles.tile import ZOOM_LIMIT, TileStream, is_boolean
from fused_cache_ops.tiles.zooms import parse_zooms
from fused_cache_ops.wording import quoted, warn

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Reading(NamedTuple):
    """The keywords of one selection, checked.

    Attributes:
        kind: the kind of selection, or None for the whole UDF.
        read: all keywords.
        zooms: the zooms given.
    """

    kind: str | None
    read: Mapping[str, Any]
    zooms: tuple[int, ...] | None

    @property
    def shape(self) -> tuple[object, ...]:
        """What tells selections of the same tiles or area apart."""
        names = ("buffer", "max_tiles", "when_too_many", "max_zoom", "shard", "render_resolution")
        return (self.zooms, *(repr(self.read[name]) for name in names))

    @property
    def is_computed(self) -> bool:
        return self.kind in AREAS or bool(self.zooms or self.read["buffer"])


def read_selection(watch: Watch = nobody_watches, /, **given: Unpack[SelectionKeywords]) -> Selection | WholeUdf:
    """The selection that the keywords describe. They are those of `fused_cache_ops.invalidate_cache`.

    Args:
        watch: called periodically while tiles are read or counted.
        given: the keywords.

    Raises:
        InvalidInputError: the keywords cannot be read, contradict each other, or select more than ``max_tiles``.
        TypeError: a keyword is unknown.
    """
    (selection,) = read_selections([given], watch)
    if isinstance(selection, InvalidInputError):
        raise selection
    return selection


def read_selections(
    several: Sequence[SelectionKeywords], watch: Watch = nobody_watches
) -> list[Selection | WholeUdf | InvalidInputError]:
    """Several selections of the same tiles or the same area, which is read and covered once.

    Args:
        several: the keywords of each. All that are not of the whole UDF have the same kind and the same value of it.
        watch: called periodically while tiles are read or counted.

    Returns:
        The selections. One that comes to more than its ``max_tiles`` is an error, to be raised.

    Raises:
        InvalidInputError: keywords cannot be read or contradict each other.
        TypeError: a keyword is unknown.
    """
    readings = [_checked(given) for given in several]
    tiled = [reading for reading in readings if reading.kind is not None]
    distinct = {reading.shape: reading for reading in tiled}
    made = dict(zip(distinct, _made(list(distinct.values()), watch, is_shared=len(tiled) > 1)))
    found: dict[object, Selection | WholeUdf | InvalidInputError] = {}
    for shape, reading in distinct.items():
        try:
            found[shape] = _finished(made[shape], reading)
        except InvalidInputError as error:
            found[shape] = error
    return [WholeUdf() if reading.kind is None else _own(found[reading.shape], watch) for reading in readings]


def check_selection(given: SelectionKeywords) -> None:
    """Reject keywords that contradict each other, or have values that are not allowed. Reads no data.

    Raises:
        InvalidInputError: as said.
    """
    _checked(given)


def _own(found: Selection | WholeUdf | InvalidInputError, watch: Watch) -> Selection | WholeUdf | InvalidInputError:
    """A selection for one call alone. A copy has no watch."""
    own = copy.copy(found)
    if isinstance(own, Selection):
        own.watch = watch
    return own


def _checked(given: SelectionKeywords) -> _Reading:
    refuse_unknown(given, SELECTION_DEFAULTS)
    read: dict[str, Any] = {**SELECTION_DEFAULTS, **given}
    kind = one_kind_in(read)
    if kind is not None:
        read[kind] = as_read(kind, read[kind])
    zooms, max_zoom = read["zooms"], read["max_zoom"]
    check_limits(read["buffer"], read["max_tiles"], read["when_too_many"], max_zoom)
    check_shard(read["shard"])
    if read["order"] not in (None, "zxy", "xyz"):
        raise InvalidInputError(f"order = {quoted(read['order'])} must be 'zxy' or 'xyz'.")
    if kind is None or kind == "whole_udf":
        return _Reading(None, read, None)
    _check_details(kind, read)
    read["geometry_column"] = _columns(read["geometry_column"])
    if read["antimeridian"] not in (None, "cross", "literal"):
        raise InvalidInputError(f"antimeridian = {quoted(read['antimeridian'])} must be 'cross' or 'literal'.")
    if not isinstance(read["layer"], (str, type(None))) or read["layer"] == "":
        raise InvalidInputError(f"layer = {quoted(read['layer'])} must be the name of a layer.")
    levels = None if zooms is None else parse_zooms(zooms, max_zoom=max_zoom)
    if kind in AREAS and levels is None:
        raise InvalidInputError(f"{kind} needs zooms, such as zooms='10-14': each zoom is cached separately.")
    return _Reading(kind, read, levels)


def _columns(given: Any) -> str | tuple[str, str] | None:
    """The column of geometries, or the two of coordinates."""
    if isinstance(given, str) and given.lstrip().startswith("["):
        given = read_list("geometry_column", given)
    if given is None or (isinstance(given, str) and given):
        return given
    if isinstance(given, (list, tuple)) and len(given) == 2 and all(isinstance(name, str) and name for name in given):
        return given[0], given[1]
    raise InvalidInputError(
        f"geometry_column = {quoted(given)} must be the name of a column, or a list of two: longitudes and latitudes, or x "
        "and y."
    )


def _made(readings: list[_Reading], watch: Watch, *, is_shared: bool) -> list[Selection]:
    """The selections before their limits, from one value, which several calls may share."""
    if not readings:
        return []
    made = _covered(readings, watch) if readings[0].kind in AREAS else _listed(readings, watch, is_shared=is_shared)
    for selection in made:
        selection.watch = watch
    return made


def _finished(selection: Selection, reading: _Reading) -> Selection | WholeUdf:
    """A selection within its limits, or its shard."""
    limited: Selection | WholeUdf = selection
    read = reading.read
    if reading.is_computed and selection.repeatable:
        at_least = reading.kind in AREAS and reading.kind != "bounds"
        limited = _limited(selection, reading.zooms, read["max_tiles"], read["when_too_many"], at_least=at_least)
    return limited if read["shard"] is None else limited.shard_of(read["shard"])


def refuse_single_use(selection: SelectionKeywords, why: str = "a retry would find it empty", *, pipes: bool = False) -> None:
    """Reject selections that can be read only once, for callers that may be run again.

    An orchestrator's retry would find a generator exhausted, take that for "nothing selected", and succeed.

    Args:
        selection: the keywords.
        why: what would go wrong, for the message.
        pipes: accept a pipe, which is read once and kept for the time of a call.

    Raises:
        InvalidInputError: a selection is or contains a generator or another iterator, or is not a path.
    """
    for kind in ("tiles", "bounds", "geometry", "cells"):
        value: Any = selection.get(kind)
        if is_frame(value):  # over Spark Connect, it has a column for whatever is asked for
            continue
        if _is_single_use(value) or (kind == "tiles" and _may_be_single_use(value)):
            raise InvalidInputError(
                f"{kind} is of type {type(value).__name__}, which can be read only once: {why}. Pass a list."
            )
    tiles_file = selection.get("tiles_file", "")
    if tiles_file is not NOT_GIVEN and not is_repeatable(tiles_file) and not (pipes and is_pipe(tiles_file)):
        check_source(tiles_file)
        raise InvalidInputError(f"tiles_file can be read only once: {why}. Pass the path of a file.")


def _is_single_use(value: Any) -> bool:
    """Whether a value is an iterator, or a list that holds one."""
    return (
        (isinstance(value, Iterator) and not isinstance(value, list))  # Prefect's list of futures says that it is both
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


def check_limits(buffer: int, max_tiles: int, when_too_many: str, max_zoom: int) -> None:
    """Reject invalid limits.

    Raises:
        InvalidInputError: one of them is invalid.
    """
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


def _covered(readings: list[_Reading], watch: Watch) -> list[Selection]:
    """Bounds, whole; or another area, which ends where it comes to more than ``max_tiles``."""
    first = readings[0]
    if first.kind == "bounds":
        boxes = read_bounds(first.read["bounds"])
        return [_of_blocks(partial(_blocks_in_boxes, boxes, each.zooms or (), each.read["buffer"])) for each in readings]
    from fused_cache_ops.selection.coverage import Covering, Gathered

    unplaced: list[int] = []
    portions = filter(lambda portion: not portion[2].is_empty, _portions(readings, unplaced, watch))
    begun = list(itertools.islice(portions, 2))
    if len(readings) == 1 and len(begun) == 1:  # small enough to be computed again when it is needed
        _, zooms, portion = begun[0]
        covering = Covering(portion, zooms, first.read["buffer"], first.read["max_tiles"])
        return [_of_blocks(covering.blocks, covering.counts, sum(unplaced))]
    gathered: dict[tuple[str, int], Gathered] = {}
    shares: dict[tuple[str, int], list[_Reading]] = {}
    for reading in readings:
        shares.setdefault((_drawn_as(reading), reading.read["buffer"]), []).append(reading)
    for (drawn, buffer), group in shares.items():
        limits = [(reading.zooms or (), reading.read["max_tiles"]) for reading in group]
        gathered[drawn, buffer] = Gathered(buffer, *limits)
    for drawn, zooms, portion in itertools.chain(begun, portions):
        for (as_drawn, _), one in gathered.items():
            watch()
            if as_drawn == drawn:
                one.add(portion, zooms)
    made = {
        id(reading): _of_blocks(partial(gathered[key].blocks, number), partial(gathered[key].counts, number), sum(unplaced))
        for key, group in shares.items()
        for number, reading in enumerate(group)
    }
    return [made[id(reading)] for reading in readings]


def _of_blocks(
    blocks: Callable[[], Iterator[Block]], counts: Callable[[], dict[int, int]] | None = None, unplaced: int = 0
) -> Selection:
    return Selection(Covered(blocks, counts), blocks=True, unplaced=unplaced)


def _drawn_as(reading: _Reading) -> str:
    """What tells apart how the cells of an area are drawn."""
    return repr(reading.read["render_resolution"])


def _portions(readings: list[_Reading], unplaced: list[int], watch: Watch) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """The area piece by piece, each with how it is drawn, and the zooms at which it changed. At the end, it is known how many
    rows changed that have no place."""
    kind, read = readings[0].kind, readings[0].read
    zooms: dict[str, set[int]] = {}
    for reading in readings:
        zooms.setdefault(_drawn_as(reading), set()).update(reading.zooms or ())
    every = tuple(sorted(set().union(*zooms.values())))
    if kind == "geometry":
        from fused_cache_ops.selection.geometry import Options, read_geometry
        from fused_cache_ops.selection.margins import by_margin, widen

        said = {name: read[name] for name in ("crs", "layer", "antimeridian")}
        options = Options(every[-1], read["geometry_column"], **said, unplaced=unplaced.append, watch=watch)
        drawn = _drawn_as(readings[0])
        for margin, value in by_margin(read[kind]):
            if not margin:
                for portion in read_geometry(value, options):
                    yield drawn, every, portion
                continue
            for zoom in every:  # in pixels of a tile, so that it is another area at each zoom
                widened = options._replace(deepest_zoom=zoom, widened=partial(widen, share=margin / 2**zoom))
                for portion in read_geometry(value, widened):
                    yield drawn, (zoom,), portion
        return
    from fused_cache_ops.selection.cells import read_cells, read_hex_dataset, read_rendering

    renderings = {_drawn_as(reading): read_rendering(reading.read["render_resolution"]) for reading in readings}
    cells = read_cells(read[kind]) if kind == "cells" else read_hex_dataset(read["hex_dataset"], read["partition"])
    for drawn, rendering in renderings.items():
        for at, portion in cells.portions(tuple(sorted(zooms[drawn])), rendering):
            yield drawn, at, portion


def _blocks_in_boxes(boxes: list[tuple[float, float, float, float]], zooms: tuple[int, ...], buffer: int) -> Iterator[Block]:
    for zoom in zooms:
        yield from disjoint(block for box in boxes for block in blocks_in_bounds(*box, zoom, buffer))


def _listed(readings: list[_Reading], watch: Watch, *, is_shared: bool) -> list[Selection]:
    """Selections from one list. What can be read only once is written to a file if several calls share it."""
    kind, value = readings[0].kind, readings[0].read[readings[0].kind or ""]
    highest = sorted({reading.read["max_zoom"] for reading in readings}, reverse=True)
    order = readings[0].read["order"]
    unplaced: list[int] = []
    first = (
        _filed_frame(readings, highest[0], unplaced, watch)
        if is_frame(value)
        else _source(kind, value, highest[0], order, watch)
    )
    if isinstance(first, Once) and is_shared:
        first = TileFile(filed(first.read(), watch), kind or "tiles", highest[0])
    sources = {highest[0]: first}
    for max_zoom in highest[1:]:
        is_file = isinstance(first, TileFile)
        sources[max_zoom] = first.limited(max_zoom) if is_file else _source(kind, value, max_zoom, order, watch)
    made = [_of_list(sources[reading.read["max_zoom"]], reading) for reading in readings]
    for selection in made:
        selection.unplaced = sum(unplaced)
    return made


def _filed_frame(readings: list[_Reading], max_zoom: int, unplaced: list[int], watch: Watch) -> TileFile:
    """The tiles of a DataFrame of Spark, in a temporary file: its job is run once, and nothing is sent before it is done."""
    if any(reading.read["shard"] is not None for reading in readings):
        raise InvalidInputError(
            "shard is given with a DataFrame, whose rows come in another order each time: pass shard to "
            "fused_cache_ops.spark.tiles instead."
        )
    stream = TileStream(frame_tiles(readings[0].read["tiles"], unplaced.append), max_zoom=max_zoom, watch=watch)
    return TileFile(filed(stream, watch), "tiles", max_zoom)


def _of_list(source: Any, reading: _Reading) -> Selection:
    zooms, buffer = reading.zooms or (), reading.read["buffer"]
    known = isinstance(source, TileSnapshot) and not reading.is_computed
    return Selection(
        Listed(source, zooms, buffer),
        blocks=reading.is_computed,
        repeatable=not isinstance(source, Once),
        size=len(source) if known else None,
    )


def _source(kind: str | None, value: Any, max_zoom: int, order: str | None, watch: Watch) -> Any:
    if kind == "tiles_file":
        found = list_source(value, max_zoom, order, watch)
        return found if isinstance(found, TileFile) else Once(found)
    if isinstance(value, RemainingTiles):
        return value
    if is_arrow(value):
        counts = array("Q")
        stream = TileStream(read_tiles(value, counts), max_zoom=max_zoom, order=order or "zxy", watch=watch)
        return TileSnapshot(stream, counts)
    if _is_collection(value):
        return _snapshot(value, max_zoom, order or "zxy", watch)
    return Once(TileStream(value, max_zoom=max_zoom, order=order or "zxy"))


def _snapshot(tiles: Collection[Any], max_zoom: int, order: str, watch: Watch) -> TileSnapshot:
    """Read and check a collection once. Its length must be right. Otherwise it is exhausted or still being built."""
    expected = len(tiles)
    stream: Iterator[Any] = TileStream(tiles, max_zoom=max_zoom, order=order, watch=watch)
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
