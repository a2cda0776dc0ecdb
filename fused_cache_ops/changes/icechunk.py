"""What was written to an array since a snapshot of its Icechunk repository. Needs the extra ``icechunk``."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.changes.cells import Layout, read_layout
from fused_cache_ops.changes.feeds import in_our_terms
from fused_cache_ops.changes.windows import MARGIN, MOST_MARGIN, Window, check_number, merged, table_of
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.moment import parse_moment, read_moment
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.stores import local_path
from fused_cache_ops.wording import a_type_of, quoted, quoted_address, rendered_to_nothing

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_SNAPSHOTS = 1000
"""Whose shapes of an array are looked at, if it was resized."""
_MOST_NAMES = 20

_UNKNOWN = "What changed since then is not known: invalidate the whole UDF, or the area of the array."
_NO_ANCESTOR = (
    "That snapshot is not in the history of what the map is to show: was the branch reset, was its commit amended, or has it "
    f"expired? {_UNKNOWN}"
)
_NO_SNAPSHOT = f"It is no tag, no branch, no time, and no snapshot that is still there: has it expired? {_UNKNOWN}"
_NO_REPOSITORY = "Pass the path of the folder that icechunk.local_filesystem_storage names, or an icechunk.Repository."
_NO_REF = "Pass the name of a branch by branch=, or of a tag by tag=."
_REMEDIES = (
    (re.compile("ancestry doesn't include"), _NO_ANCESTOR),
    (re.compile(r"snapshot (id )?not found|invalid snapshot id", re.IGNORECASE), _NO_SNAPSHOT),
    (re.compile(r"repository doesn't exist|not a directory", re.IGNORECASE), _NO_REPOSITORY),
    (re.compile(r"ref not found", re.IGNORECASE), _NO_REF),
)
"""What to do about some errors, by their text, because Icechunk 1 has no classes for them."""


class _State(NamedTuple):
    """An array at a snapshot: its size, the sizes of what is written at once (chunks or shards), and where it is."""

    shape: tuple[int, ...]
    sizes: tuple[Any, ...]
    layout: Layout

    @property
    def size(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        rows, columns = self.layout.axes
        return self.shape[rows], self.shape[columns]


def changes_of_icechunk(
    repo: Any,
    *,
    since: str | datetime,
    array: str | None = None,
    branch: str = "main",
    tag: str | None = None,
    dimensions: tuple[str, str] | None = None,
    crs: Any = None,
    margin: float = MARGIN,
) -> pa.Table:
    """The chunks of an array that were written since a snapshot of its Icechunk repository, as rectangles.

    Chunks that differ only in other dimensions, such as the time, are one place. Of a sharded array, whole shards count. Rows
    and columns that were added or removed count. Everything of the array, where it was and where it is, counts if it was
    replaced, moved or deleted, if another of its dimensions grew or shrank, or if its attributes, those of its groups, or the
    values of its coordinates changed.

    Args:
        repo: an ``icechunk.Repository``, or the path of one on this machine.
        since: the state that the map already shows: the id of a snapshot, a tag, another branch, or a time with its time zone,
            as a ``datetime`` or as text.
        array: the path of the array that the map shows. Default: the only one with rows and columns.
        branch: the branch that the map shows.
        tag: the tag that the map shows, instead of a branch.
        dimensions: the names of the array's rows and columns. Default: by what its coordinates say, or names such as y and x.
        crs: the reference system of its coordinates, if it does not say it.
        margin: how far beyond the changed cells a tile changes, in pixels of a tile of 256 pixels, at each zoom, because it is
            resampled. Where cells are larger than the tile's pixels, up to 3 cells. 0: none.

    Returns:
        A table with one column, to be passed as ``geometry``. It has no rows if nothing changed.

    Raises:
        InvalidInputError: what changed since is not known, there is no such array, or it does not say where its cells are.
        UnavailableError: the store does not answer.
        ConfigurationError: the extra ``icechunk`` is not installed.
    """
    icechunk = import_geo("icechunk", extra="icechunk")
    import_geo("zarr", extra="icechunk")
    check_number("margin", margin, MOST_MARGIN)
    is_address = isinstance(repo, (str, os.PathLike))
    address = os.fspath(repo) if is_address else ""
    shown = quoted_address(address) if is_address else a_type_of(repo)
    for name, text in (("repo", address or None), ("since", since), ("array", array), ("branch", branch), ("tag", tag)):
        if isinstance(text, str) and rendered_to_nothing(text):
            raise InvalidInputError(f"{name} is {quoted(text)}, which looks like a value that is missing.")
    with in_our_terms(f"The changes of {shown} cannot be read since {quoted(str(since))}", str(address), _REMEDIES):
        opened = _opened(icechunk, repo, address, shown)
        head = opened.lookup_branch(branch) if tag is None else opened.lookup_tag(tag)
        earlier = _snapshot(opened, since, head, branch if tag is None else tag)
        path = _only_array(opened, [head, earlier], shown) if array is None else array.strip("/")
        after = _state(opened, head, path, dimensions, crs, shown)
        if earlier == head:  # which Icechunk refuses to compare
            if after is None:
                raise _no_such_array(opened, head, path, shown)
            return table_of([(after.layout.grid, [])], margin)
        diff = opened.diff(from_snapshot_id=earlier, to_snapshot_id=head)
        names = _names(diff, path)
        states = [_state(opened, earlier, name, dimensions, crs, shown) for name in names]
        before = states[0]
        if after is None and not any(states):
            raise _no_such_array(opened, head, path, shown)
        if after is None or before is None or len(names) > 1 or _is_another(diff, path, before, after):
            found = [each for each in (after, *states) if each is not None]
        elif _may_have_shrunk(opened, diff, path, earlier, head, before, after):
            found = [before, after]
        else:
            written = _written(diff, path, after)
            return table_of(list(_changed(before, after, written)), margin)
        return table_of([(each.layout.grid, _whole(*each.size)) for each in found], margin)


def _opened(icechunk: Any, repo: Any, address: str, shown: str) -> Any:
    if isinstance(repo, icechunk.Repository):
        return repo
    if not address:
        raise InvalidInputError(f"repo is {shown}: pass an icechunk.Repository, or the path of one.")
    path = local_path(address)
    if "://" in path:
        raise InvalidInputError(
            f"repo = {shown} is not on this machine: pass icechunk.Repository.open(…) with its storage, such as "
            "icechunk.s3_storage(bucket=…, prefix=…, from_env=True)."
        )
    if not Path(path).is_dir():  # which Icechunk would make
        raise InvalidInputError(f"repo = {shown} is not a folder: {_NO_REPOSITORY[0].lower()}{_NO_REPOSITORY[1:]}")
    return icechunk.Repository.open(icechunk.local_filesystem_storage(path))


def _snapshot(repo: Any, since: Any, head: str, shown_by_map: str) -> str:
    """The id of the snapshot that the map already shows."""
    if isinstance(since, str) and since in (tags := repo.list_tags()) | (branches := repo.list_branches()):
        if since in tags and since in branches:
            raise InvalidInputError(f"since = {quoted(since)} is a tag and a branch: pass the id of the snapshot.")
        if since == shown_by_map:
            raise InvalidInputError(
                f"since = {quoted(since)} is what the map is to show, which never differs from itself: pass the id of the "
                "snapshot that the map already shows, such as lookup_branch returned before the load."
            )
        return str(repo.lookup_tag(since) if since in tags else repo.lookup_branch(since))
    if isinstance(since, str):
        try:
            since = parse_moment(since)
        except ValueError:
            return str(since)
    if not isinstance(since, datetime):
        raise InvalidInputError(f"since is {a_type_of(since)}: pass the id of a snapshot, a tag, a branch or a datetime.")
    moment = read_moment("since", since)
    found = next((each.id for each in repo.ancestry(snapshot_id=head) if each.written_at <= moment), None)
    if found is None:
        raise InvalidInputError(f"since = {quoted(str(since))} is before the first snapshot: pass a later time.")
    return str(found)


def _state(repo: Any, snapshot: str, path: str, dimensions: Any, crs: Any, shown: str) -> _State | None:
    """An array at a snapshot. None: there is none."""
    import zarr

    try:
        root = zarr.open_group(repo.readonly_session(snapshot_id=snapshot).store, mode="r")
    except FileNotFoundError:  # as of the first snapshot, which holds nothing
        return None
    found = root.get(path) if path else None
    if not isinstance(found, zarr.Array):
        return None
    parents = path.split("/")[:-1]
    groups = [root["/".join(parents[:depth])] for depth in range(len(parents), 0, -1)]
    what = f"array {quoted(path)} of {shown}, at the snapshot {snapshot},"
    layout = read_layout(found, [*groups, root], dimensions, crs, what)
    sizes = getattr(found, "write_chunk_sizes", None)  # since zarr 3.2
    return _State(found.shape, tuple(sizes or found.shards or found.chunks), layout)


def _no_such_array(repo: Any, snapshot: str, path: str, shown: str) -> InvalidInputError:
    return InvalidInputError(f"array = {quoted(path)} is not in {shown}, which has {_listed(_arrays(repo, snapshot))}.")


def _only_array(repo: Any, snapshots: list[str], shown: str) -> str:
    """The path of the only array with rows and columns at some snapshots."""
    names = {name for snapshot in snapshots for name, depth in _arrays(repo, snapshot).items() if depth > 1}
    if len(names) != 1:
        raise InvalidInputError(
            f"{shown} has {_listed(names)} with rows and columns: name the one that the map shows by array=."
        )
    return names.pop()


def _arrays(repo: Any, snapshot: str) -> dict[str, int]:
    """The paths of all arrays at a snapshot, each with its number of dimensions."""
    import zarr

    try:
        root = zarr.open_group(repo.readonly_session(snapshot_id=snapshot).store, mode="r")
    except FileNotFoundError:  # as of the first snapshot, which holds nothing
        return {}
    return {name: each.ndim for name, each in root.members(max_depth=None) if isinstance(each, zarr.Array)}


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join([*map(quoted, found[:_MOST_NAMES]), *["…"] * (len(found) > _MOST_NAMES)]) or "no array"


def _names(diff: Any, path: str) -> list[str]:
    """The paths that an array has had, the latest first."""
    names = [f"/{path}"]
    for source, target in getattr(diff, "moved_nodes", ()):  # the latest first
        if names[-1] == target or names[-1].startswith(f"{target}/"):
            names.append(source + names[-1][len(target) :])
    return [name.strip("/") for name in names]


def _is_another(diff: Any, path: str, before: _State, after: _State) -> bool:
    """Whether the same values mean something else, or something that is not seen by rows and columns has changed."""
    if f"/{path}" in diff.new_arrays | diff.deleted_arrays or before.layout.said != after.layout.said:
        return True
    others = set(range(len(after.shape))) - set(after.layout.axes)
    if any(before.shape[axis] != after.shape[axis] for axis in others):
        return True
    old, new = before.layout.coordinates, after.layout.coordinates
    return not all(_begin_alike(old[name], new[name]) for name in old)


def _begin_alike(one: Any, other: Any) -> bool:
    """Whether values are the same as far as both go. Every append writes them anew."""
    one, other = (each[: min(len(one), len(other))] for each in (one, other))
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _may_have_shrunk(repo: Any, diff: Any, path: str, earlier: str, head: str, before: _State, after: _State) -> bool:
    """Whether the array may have been smaller in between. A commit of Icechunk 1, which Icechunk 2 reads too, does not name the
    chunks that were lost then."""
    import numpy as np
    import zarr

    if f"/{path}" not in diff.updated_arrays:
        return False
    for snapshot in itertools.islice(repo.ancestry(snapshot_id=head), _MOST_SNAPSHOTS):
        if snapshot.id == earlier:
            return False
        if snapshot.id != head:
            store = repo.readonly_session(snapshot_id=snapshot.id).store
            shape = zarr.open_array(store, path=path, mode="r").shape
            if (np.array(shape) < np.minimum(before.shape, after.shape)).any():
                return True
    return True


def _written(diff: Any, path: str, state: _State) -> list[Window]:
    """Where chunks were written, as far as they are within the array."""
    import numpy as np

    chunks = np.array(diff.updated_chunks.get(f"/{path}", ()), dtype=np.int64).reshape(-1, len(state.shape))
    rows, columns = (_ends(state.shape[axis], state.sizes[axis]) for axis in state.layout.axes)
    places = np.unique(chunks[:, list(state.layout.axes)], axis=0)
    places = places[(places[:, 0] < len(rows) - 1) & (places[:, 1] < len(columns) - 1)]
    row, column = places.T
    return merged(zip(*(each.tolist() for each in (columns[column], rows[row], columns[column + 1], rows[row + 1]))))


def _ends(size: int, written: Any) -> Any:
    """Where the chunks of a dimension begin, and where the last one ends."""
    import numpy as np

    sizes = [written] * -(-size // written) if isinstance(written, int) else written
    return np.minimum(np.cumsum([0, *sizes]), size)


def _changed(before: _State, after: _State, written: list[Window]) -> Iterator[tuple[Any, list[Window]]]:
    yield after.layout.grid, [*written, *_beyond(after, before)]
    yield before.layout.grid, list(_beyond(before, after))


def _beyond(state: _State, other: _State) -> Iterator[Window]:
    """The rows and columns that only one of two states has, and the last ones that both have: how far these reach depends on
    what follows."""
    (rows, columns), (fewer_rows, fewer_columns) = state.size, other.size
    if rows > fewer_rows:
        yield 0, max(0, fewer_rows - 1), columns, rows
    if columns > fewer_columns:
        yield max(0, fewer_columns - 1), 0, columns, rows


def _whole(rows: int, columns: int) -> list[Window]:
    return [(0, 0, columns, rows)] if rows and columns else []
