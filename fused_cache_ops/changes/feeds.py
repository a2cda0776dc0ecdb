"""Changes that a table format has recorded itself."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import FusedCacheError, InvalidInputError, UnavailableError
from fused_cache_ops.selection.arrow import Unknown, as_wkb, find_column, marked, no_column, open_table
from fused_cache_ops.selection.geometry import Systems
from fused_cache_ops.selection.reprojection import DEGREES
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.wording import a_type_of, quoted, quoted_address, shortened, without_credentials

if TYPE_CHECKING:
    import pyarrow as pa


_MOST_SCHEMAS = 100
"""Versions of a Delta table whose columns are looked at."""

_NO_TABLE = ("TableNotFoundError", "NoSuchTableError", "NoSuchNamespaceError", "NoSuchIcebergTableError")
_UNRECORDED = (
    "That version changed what the table says of itself, such as its columns, and its feed is not enabled: set "
    "delta.enableChangeDataFeed, or compare both states by changed_geometry."
)
_NO_LOG = (
    "The log of the first versions is not there: did its retention end? Compare both states by changed_geometry, or invalidate "
    "the whole UDF."
)
_VACUUMED = "The files of all versions since then have to be there: were they vacuumed or expired?"
_CONTEXT = re.compile(r"\A\s*x |(?<=\n)\s*\||[\s|]*context:.*", re.DOTALL)  # Icechunk's frame, and where in its code
_STORE = re.compile(r"StorageError|object store")  # Icechunk 2 and 1
Remedies = Sequence[tuple[re.Pattern[str], str]]
_REMEDIES: Remedies = (
    (re.compile(r"does not have change data enabled|change data not enabled", re.IGNORECASE), _UNRECORDED),
    (re.compile(r"No table metadata or protocol found"), _NO_LOG),
    (re.compile(r"not found|no such file|does not exist", re.IGNORECASE), _VACUUMED),
)
"""What to do about some errors, by their text, because their classes do not tell them apart."""


def changes_of_delta(table: Any, *, since: int, geometry_column: str = "geometry", crs: Any = None) -> pa.Table:
    """The geometry of the rows that a Delta table's change data feed names after a version: inserted, deleted, and updated
    rows, the latter as they were and as they are.

    Where the feed was not enabled (``delta.enableChangeDataFeed``), deltalake names all rows of the files that were rewritten:
    those that changed, and others.

    Args:
        table: the path or URL of a Delta table, or a ``deltalake.DeltaTable``, which is brought up to date.
        since: the last version that the map already shows.
        geometry_column: the column with the geometries, as WKB or WKT.
        crs: as for `fused_cache_ops.invalidate_cache`.

    Returns:
        A table with one column, to be passed as ``geometry``. It has no rows if nothing changed. A row without a place is
        null.

    Raises:
        InvalidInputError: the table, its feed or the column cannot be read, there is no such version, or the column was
            missing in one of them.
        UnavailableError: the store does not answer.
        ConfigurationError: the extra ``delta`` is not installed.
    """
    deltalake = import_geo("deltalake", extra="delta")
    is_address = isinstance(table, (str, os.PathLike))
    shown = quoted_address(os.fspath(table)) if is_address else f"{a_type_of(table)}"
    what = f"table, {shown},"
    with in_our_terms(f"The changes of {shown} cannot be read since version {quoted(since)}", str(table)):
        read = deltalake.DeltaTable(table) if is_address else table
        if not is_address:
            if not isinstance(table, deltalake.DeltaTable):
                raise InvalidInputError(f"table is {shown}: pass the path or URL of a Delta table, or a DeltaTable.")
            read.update_incremental()  # it may have been opened before the load
        version = read.version()
        _check_since(since, "version", version, what)
        names = [field.name for field in read.schema().fields]
        if geometry_column not in names:
            raise no_column(what, geometry_column, "geometry_column", names)
        if since == version:
            return marked([], Unknown)
        _refuse_renamed(deltalake, read, since, version, geometry_column, what)
        # deltalake reads names as SQL: unquoted, capitals are lost, and a dot or a hyphen is no part of a name.
        column = '"{}"'.format(geometry_column.replace('"', '""'))
        feed = read.load_cdf(starting_version=since + 1, ending_version=version, columns=[column, "_change_type"])
        return _geometries(feed, geometry_column, crs, what)


def _refuse_renamed(deltalake: Any, table: Any, since: int, version: int, name: str, what: str) -> None:
    """Reject a feed over versions in which the column was missing: the places of the rows of then would be left out."""
    options = getattr(table, "_storage_options", None)
    past = deltalake.DeltaTable(table.table_uri, version=since, storage_options=options)
    versions = range(since, version)
    for each in (*versions[:_MOST_SCHEMAS], *versions[_MOST_SCHEMAS:][-1:]):
        past.load_as_version(each)
        names = [field.name for field in past.schema().fields]
        if name not in names:
            raise InvalidInputError(
                f"{what} had no column {quoted(name)} at version {each}, so that the places of the rows of then are not known. "
                f"It had {', '.join(names)}. Compare both states by changed_geometry, or invalidate the whole UDF."
            )


@contextlib.contextmanager
def in_our_terms(failed: str, address: str, remedies: Remedies = _REMEDIES) -> Iterator[None]:
    """Raise the errors of a table format, which do not have a common class, as ours.

    Args:
        failed: what failed.
        address: what may hold credentials.
        remedies: what to do about some of them, by their text.
    """
    try:
        yield
    except FusedCacheError:
        raise
    except Exception as error:
        text = " ".join(_CONTEXT.sub("", without_credentials(error, address)).split())
        reason = f"{type(error).__name__}: {shortened(text, 500)}".rstrip(".")
        if type(error).__name__ in _NO_TABLE:
            raise InvalidInputError(f"{failed}: there is no such table. {reason}.") from None
        remedy = next((said for pattern, said in remedies if pattern.search(text)), None)
        if remedy is None and isinstance(error, FileNotFoundError):
            remedy = _VACUUMED
        if remedy is not None:
            raise InvalidInputError(f"{failed}: {reason}. {remedy}") from None
        is_store = isinstance(error, (OSError, TimeoutError)) or _STORE.search(reason)
        kind = UnavailableError if is_store else InvalidInputError
        raise kind(f"{failed}: {reason}.") from None


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
        UnavailableError: the store does not answer.
        ConfigurationError: the extra ``iceberg`` is not installed.
    """
    snapshots = import_geo("pyiceberg.table.snapshots", "pyiceberg", extra="iceberg")
    tables = import_geo("pyiceberg.table", "pyiceberg", extra="iceberg")
    if not isinstance(table, tables.Table):
        raise InvalidInputError(f"table is of type {type(table).__name__}: pass what catalog.load_table(…) returns.")
    what = f"table, {quoted(table.name())},"
    with in_our_terms(f"The changes of {what} cannot be read since snapshot {quoted(since)}", str(table.location())):
        table.refresh()
        names = [field.name for field in table.schema().fields]
        if geometry_column not in names:
            raise no_column(what, geometry_column, "geometry_column", names)
        current = table.current_snapshot()
        if current is not None and current.snapshot_id == since:
            return marked([], Unknown)
        column = table.schema().find_field(geometry_column).field_id
        for snapshot in snapshots.ancestors_of(current, table.metadata):
            if snapshot.snapshot_id == since:
                break
            _refuse_lossy(table, snapshot, snapshots.Operation, column, since, what)
        else:
            raise InvalidInputError(
                f"{what} has no snapshot {quoted(since)} before its current one: has it expired, or is it on another branch?"
            )
        scan = table.incremental_append_scan(from_snapshot_id_exclusive=since, selected_fields=(geometry_column,))
        return _geometries(scan.to_arrow_batch_reader(), geometry_column, crs, what)


def _refuse_lossy(table: Any, snapshot: Any, operations: Any, column: int, since: int, what: str) -> None:
    """Reject a snapshot that did more than append, or that was written before the column was there."""
    operation = snapshot.summary.operation if snapshot.summary is not None else None
    if operation not in (operations.APPEND, operations.REPLACE):
        said = "unknown" if operation is None else operation.value
        raise InvalidInputError(
            f"{what} has the snapshot {snapshot.snapshot_id} ({said}) since {since}. Only appended rows can be read from "
            "Iceberg, not those that were deleted or overwritten: compare both states by changed_geometry, or invalidate "
            "the whole UDF."
        )
    schema = table.schemas().get(snapshot.schema_id)
    if schema is not None and column not in {field.field_id for field in schema.fields}:
        raise InvalidInputError(
            f"{what} had another geometry column at the snapshot {snapshot.snapshot_id}, so that the places of the rows of "
            "then are not known: compare both states by changed_geometry, or invalidate the whole UDF."
        )


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
    # A row without a place has changed all the same, so it stays.
    return marked([as_wkb(batch.column(name), column.encoding, what) for batch in table.batches], system)
