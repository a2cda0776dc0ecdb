"""Changes that a table format has recorded itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.arrow import Unknown, as_wkb, find_column, marked, no_column, open_table
from fused_cache_ops.selection.geometry import Systems
from fused_cache_ops.selection.reprojection import DEGREES
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.wording import quoted, quoted_address, without_credentials

if TYPE_CHECKING:
    import pyarrow as pa


def changes_of_delta(table: Any, *, since: int, geometry_column: str = "geometry", crs: Any = None) -> pa.Table:
    """The geometry of the rows that a Delta table's change data feed names after a version: inserted, deleted, and updated
    rows, the latter as they were and as they are.

    Where the feed was not enabled (``delta.enableChangeDataFeed``), deltalake names all rows of the files that were rewritten:
    those that changed, and others.

    Args:
        table: the path or URL of a Delta table, or a ``deltalake.DeltaTable``.
        since: the last version that the map already shows.
        geometry_column: the column with the geometries, as WKB or WKT.
        crs: as for `fused_cache_ops.invalidate_cache`.

    Returns:
        A table with one column, to be passed as ``geometry``. It has no rows if nothing changed.

    Raises:
        InvalidInputError: the table, its feed or the column cannot be read, or there is no such version.
        ConfigurationError: the extra ``delta`` is not installed.
    """
    deltalake = import_geo("deltalake", extra="delta")
    shown = quoted_address(os.fspath(table)) if isinstance(table, (str, os.PathLike)) else f"a {type(table).__name__}"
    what = f"table, {shown},"
    try:
        read = deltalake.DeltaTable(table) if isinstance(table, (str, os.PathLike)) else table
        version = read.version()
        _check_since(since, "version", version, what)
        names = [field.name for field in read.schema().fields]
        if geometry_column not in names:
            raise no_column(what, geometry_column, "geometry_column", names)
        if since == version:
            return marked([], Unknown)
        feed = read.load_cdf(starting_version=since + 1, ending_version=version, columns=[geometry_column, "_change_type"])
        return _geometries(feed, geometry_column, crs, what)
    except InvalidInputError:
        raise
    except Exception as error:  # deltalake's own, which do not have a common class
        reason = without_credentials(error, str(table))
        raise InvalidInputError(
            f"The changes of {shown} cannot be read since version {since}: {reason}. The files of all versions since then have "
            "to be there: were they vacuumed?"
        ) from None


def changes_of_iceberg(table: Any, *, since: int, geometry_column: str = "geometry", crs: Any = None) -> pa.Table:
    """The geometry of the rows that were appended to an Iceberg table after a snapshot.

    Only appends can be read completely. If rows were deleted or overwritten since, that is an error.

    Args:
        table: a ``pyiceberg.table.Table``. It is refreshed.
        since: the id of the last snapshot that the map already shows.
        geometry_column: the column with the geometries, as WKB or WKT.
        crs: as for `fused_cache_ops.invalidate_cache`.

    Returns:
        A table with one column, to be passed as ``geometry``. It has no rows if nothing was appended.

    Raises:
        InvalidInputError: rows were deleted or overwritten, there is no such snapshot, or the column cannot be read.
        ConfigurationError: the extra ``iceberg`` is not installed.
    """
    snapshots = import_geo("pyiceberg.table.snapshots", "pyiceberg", extra="iceberg")
    what = f"table, {quoted(getattr(table, 'name', lambda: table)())},"
    table.refresh()
    names = [field.name for field in table.schema().fields]
    if geometry_column not in names:
        raise no_column(what, geometry_column, "geometry_column", names)
    current = table.current_snapshot()
    if current is not None and current.snapshot_id == since:
        return marked([], Unknown)
    for snapshot in snapshots.ancestors_of(current, table.metadata):
        if snapshot.snapshot_id == since:
            break
        operation = snapshot.summary.operation if snapshot.summary is not None else None
        if operation not in (snapshots.Operation.APPEND, snapshots.Operation.REPLACE):
            said = "unknown" if operation is None else operation.value
            raise InvalidInputError(
                f"{what} has the snapshot {snapshot.snapshot_id} ({said}) since {since}. Only appended rows can be read from "
                "Iceberg, not those that were deleted or overwritten: compare both states by changed_geometry, or invalidate "
                "the whole UDF."
            )
    else:
        raise InvalidInputError(
            f"{what} has no snapshot {quoted(since)} before its current one: has it expired, or is it on another branch?"
        )
    scan = table.incremental_append_scan(from_snapshot_id_exclusive=since, selected_fields=(geometry_column,))
    return _geometries(scan.to_arrow_batch_reader(), geometry_column, crs, what)


def _check_since(since: Any, name: str, last: int, what: str) -> None:
    if isinstance(since, bool) or not isinstance(since, int) or not 0 <= since <= last:
        raise InvalidInputError(f"since = {quoted(since)} is not a {name} of {what} whose last {name} is {last}.")


def _geometries(source: Any, name: str, crs: Any, what: str) -> pa.Table:
    """One column of a source as a table, marked with its reference system if that is known."""
    table = open_table(source)
    column = find_column(table.schema, name, what)
    system = column.system
    if crs is not None:
        found = Systems(crs).find(system, what)
        system = DEGREES if found is None else found.to_json_dict()
    return marked([as_wkb(batch.column(name), column.encoding, what).drop_null() for batch in table.batches], system)
