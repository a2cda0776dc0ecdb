"""The commands that plan and invalidate. What is slow to import is imported by the command that needs it."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, Union

import typer

from fused_cache_ops.cache_map.file import DEFAULT_MAP
from fused_cache_ops.cli.connection import Connection, connecting
from fused_cache_ops.cli.endings import CommandFailed
from fused_cache_ops.cli.options import (
    KEYS,
    AsJson,
    CacheMapFile,
    OnlyPlan,
    RemainingFolder,
    Sending,
    SharedToken,
    UdfName,
    Yes,
    local_file,
    refresh_name,
    selecting,
    selecting_if_given,
    sending,
)
from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.program import program
from fused_cache_ops.cli.spelling import as_options
from fused_cache_ops.errors import FusedCacheError, InvalidInputError, Remaining
from fused_cache_ops.keywords.inner_caches import OWN, read_folders
from fused_cache_ops.keywords.selection import SelectionKeywords
from fused_cache_ops.keywords.values import NOT_GIVEN
from fused_cache_ops.outcome.dataset import DatasetResult
from fused_cache_ops.outcome.invalidation import InvalidationResult, PartialInvalidationError, VerificationError
from fused_cache_ops.settings import DEFAULT_DEADLINE

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fused_cache_ops.cache_map.reading import MapEntry
    from fused_cache_ops.plan.plan import InvalidationPlan
    from fused_cache_ops.secret import Secret

_ASKED = 5
"""The most names in a question."""

_PLANNED = (
    *("related", "max_related", "inner_caches", "loaded_at"),
    *KEYS,
    *map(refresh_name, ("count", "zooms", "max_tiles")),
)
"""The options for sending that a plan takes."""

_RESUME = "Run the same command again to send the rest."


@program.command()
@connecting(deadline=60.0)
@selecting
@sending(only=_PLANNED)
def plan(
    udf: UdfName,
    selection: SelectionKeywords,
    sending: Sending,
    connection: Connection,
    html: Annotated[
        Optional[Path], typer.Option(help="Write an HTML page with the footprint on a map.", parser=local_file, metavar="FILE")
    ] = None,
    basemap: Annotated[
        Optional[str],
        typer.Option(help="For --html: show this map below the tiles. A template with {z}/{x}/{y}, or a MapLibre style."),
    ] = None,
    geojson: Annotated[
        Optional[Path], typer.Option(help="Write the footprint as GeoJSON.", parser=local_file, metavar="FILE")
    ] = None,
    list_tiles: Annotated[bool, typer.Option("--list", help="Print only the tiles, as z/x/y.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count and draw what an invalidation would send. Invalidates nothing.

    It needs no token and sends nothing, except with --related, which looks up who calls whom, and with --inner-caches own.
    """
    if list_tiles and as_json:
        raise typer.BadParameter("--list and --json are both given: use one of them.")
    if basemap is not None and html is None:
        raise typer.BadParameter("--basemap is for the page: add --html with the path to write it to.")
    keywords = sending.keywords
    if keywords.get("related") is None and OWN not in keywords.get("inner_caches", ()):
        from fused_cache_ops.plan.plan import plan_invalidation

        known = {name: value for name, value in keywords.items() if name not in ("related", "max_related")}
        made = plan_invalidation(udf, **known, **selection)
    else:
        with connection.open() as client:
            made = client.plan_invalidation(udf, **keywords, **selection)
    if html:
        _write(html, "--html", made.to_html(basemap))
    if geojson:
        _write(geojson, "--geojson", json.dumps(made.to_geojson()))
    if list_tiles:
        output.write(f"{tile}\n" for tile in made.tiles())
    else:
        output.show(made.to_dict(), lambda: _drawn_plan(made))


def _write(path: Path, option: str, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{option} {path} cannot be written: {error}.") from None


def _drawn_plan(made: "InvalidationPlan") -> Iterator["RenderableType"]:
    from rich.table import Table
    from rich.text import Text

    if made.tiles_per_zoom:
        table = Table("zoom", "tiles")
        for zoom, count in made.tiles_per_zoom.items():
            table.add_row(str(zoom), f"{count:,}")
        yield table
    if made.targets:
        order = Table("order", "UDF", "is", "instance", "what")
        for number, each in enumerate(made.targets, start=1):
            what = "everything" if made.tile_count is None and not each.is_folder else each.what
            order.add_row(str(number), each.name or each.udf_id, each.relation, each.client_id, what)
        yield order
    yield Text(f"{made}.")


@program.command()
@connecting(deadline=DEFAULT_DEADLINE, sends=True)
@selecting
@sending(
    described={
        "checkpoint": "Record what is done in this file or at this URL. Run the same command again to send the rest.",
        "verify_tiles": "Afterwards, request this many tiles: none may come from the cache.",
    }
)
def invalidate(
    udf: UdfName,
    selection: SelectionKeywords,
    sending: Sending,
    connection: Connection,
    remaining: Annotated[
        Optional[Path],
        typer.Option(
            help="If it fails, write the tiles not yet confirmed here instead of printing them.",
            parser=local_file,
            metavar="FILE",
        ),
    ] = None,
    shared_token: SharedToken = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Invalidate some tiles of a UDF, or all of it with --whole-udf.

    The shared token for --verify-tiles and --refresh is read from FUSED_SHARED_TOKEN, unless the UDF is given by it.
    """
    from fused_cache_ops.udf_reference import parse_udf

    keywords: Any = {**selection, **sending.keywords}
    _confirm(lambda: _whole(connection, udf, parse_udf(udf).shown, keywords), yes)
    _check_writable(remaining)
    try:
        with connection.open() as client, output.progress() as on_progress:
            done = client.invalidate_cache(udf, shared_token=shared_token, on_progress=on_progress, **keywords)
    except (FusedCacheError, KeyboardInterrupt) as error:
        if isinstance(error, VerificationError) and not output.as_json:
            output.draw(*_drawn(error.result))
        left = getattr(error, "remaining", None)
        saved = None if left is None or remaining is None else _saved(left, remaining)
        prints = saved is None and (remaining is not None or isinstance(error, PartialInvalidationError))
        kept = "What was not confirmed is not recorded: use --checkpoint or --remaining." if left is not None else ""
        hint = _RESUME if keywords["checkpoint"] is not None else f"The remaining tiles are in {saved}." if saved else kept
        raise CommandFailed(error, saved_to=saved, prints_remaining=prints, hint=hint) from None
    output.is_done = True
    output.show(done.to_dict(), lambda: _drawn(done))


def _drawn(done: InvalidationResult) -> Iterator["RenderableType"]:
    from rich.table import Table
    from rich.text import Text

    if _is_nothing(done):
        yield Text(f"Nothing to invalidate{f': {done.note}' if done.note else ''}.")
        return
    table = Table("", "", show_header=False)
    optional = (
        "zooms_left_stale",
        "note",
        "verification",
        "refresh",
        "tiles_already_done",
        "second_pass",
        "warnings",
        "related",
        "inner_caches",
        "loaded_at",
        "seconds_until_invalidated",
        "seconds_until_fresh",
        "announcement",
    )
    rows = {
        "verification": done.verification,
        "refresh": done.refresh and str(done.refresh).removeprefix("refreshed: "),
        "announcement": done.announcement and str(done.announcement).removeprefix("announced: "),
        "related": "\n".join(map(str, done.related.values())),
        "client_ids": ", ".join(done.client_ids),
        "inner_caches": ", ".join(done.inner_caches),
        "warnings": "\n".join(map(as_options, done.warnings or ())),
    }
    for name, value in (done.to_dict() | rows).items():
        if name == "client_id" or (name in optional and not value):
            continue
        shown = "the whole UDF" if name == "tiles_invalidated" and value is None else "unknown" if value is None else value
        label = "instances" if name == "client_ids" else name.replace("_", " ")
        table.add_row(label, Text(f"{shown:,}" if isinstance(shown, int) else str(shown)))
    yield table


@program.command()
@connecting(deadline=DEFAULT_DEADLINE, sends=True)
@selecting
@sending(
    described={
        "checkpoint": "A folder, which ends in /. Run the same command again to send the rest.",
        "verify_tiles": "Afterwards, request this many tiles of each UDF.",
    }
)
def dataset(
    dataset_key: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset, as the cache map writes it.")],
    selection: SelectionKeywords,
    sending: Sending,
    connection: Connection,
    cache_map: CacheMapFile = DEFAULT_MAP,
    only_plan: OnlyPlan = False,
    remaining: RemainingFolder = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Invalidate every UDF that shows a dataset, as the cache map says.

    One UDF that fails does not keep the others from being invalidated.
    """
    from rich.text import Text

    from fused_cache_ops.cache_map.dataset import plan_dataset
    from fused_cache_ops.cache_map.reading import CacheMap

    # What the map says of a UDF is more specific than the table [settings].
    known = CacheMap.read(cache_map).with_defaults(sending.defaults)
    called: Any = {**selection, **sending.given}
    if only_plan:
        made = plan_dataset(dataset_key, cache_map=known, **called)
        output.show(made.to_dict(), lambda: [Text(str(made))])
        return
    entries = known.entries(dataset_key)
    _confirm(
        lambda: (name for each in entries for name in _whole(connection, each.reference, each.udf.shown, called, each)), yes
    )
    _check_writable_folder(remaining)
    try:
        with connection.open() as client, output.progress() as on_progress:
            done = client.invalidate_dataset(dataset_key, cache_map=known, on_progress=on_progress, **called)
    except (FusedCacheError, KeyboardInterrupt) as error:
        found = getattr(error, "result", None)
        if found is not None and not output.as_json:
            output.draw(*_drawn_dataset(found))
        saved = None if remaining is None or found is None else _saved_each(found, remaining)
        kept = (
            f"The remaining tiles are in {remaining}." if saved else "What was not confirmed is not recorded: use --checkpoint."
        )
        hint = _RESUME if called["checkpoint"] is not None else kept
        raise CommandFailed(error, saved_to=saved, hint=hint) from None
    output.is_done = True
    output.show(done.to_dict(), lambda: _drawn_dataset(done))


@program.command()
@connecting(deadline=DEFAULT_DEADLINE, sends=True)
@selecting_if_given
@sending(
    described={
        "checkpoint": "A folder, which ends in /. Run the same command again to send the rest.",
        "verify_tiles": "Afterwards, request this many tiles of each UDF.",
    }
)
def dbt(
    target: Annotated[Path, typer.Argument(help="The folder that dbt writes to, such as target/.", show_default=False)],
    selection: SelectionKeywords,
    sending: Sending,
    connection: Connection,
    cache_map: Annotated[
        Optional[str],
        typer.Option(
            "--map", metavar="FILE", help=f"The cache map. Default: {DEFAULT_MAP}, if there is one.", show_default=False
        ),
    ] = None,
    newer_than: Annotated[
        Optional[str], typer.Option(metavar="TIME", help="Refuse results that are older, such as 2026-11-29T06:00:00+00:00.")
    ] = None,
    also: Annotated[
        Optional[list[Path]],
        typer.Option(
            metavar="TARGET", help="The folder of another build, such as the one that dbt retry repaired. Repeatable."
        ),
    ] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Do it again for a build that was handled before.")] = False,
    only_plan: OnlyPlan = False,
    remaining: RemainingFolder = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Invalidate every UDF that shows what a dbt build changed.

    Run it after each build, also after one that failed. UDFs are those of the cache map, and of exposures with meta.fused.
    """
    from rich.text import Text

    from fused_cache_ops.cache_map.reading import CacheMap
    from fused_cache_ops.dbt.call import plan_dbt, read_dbt
    from fused_cache_ops.dbt.maps import maps_of

    known = None
    if cache_map is not None or Path(DEFAULT_MAP).is_file():
        # What the map says of a UDF is more specific than the table [settings].
        known = CacheMap.read(cache_map or DEFAULT_MAP).with_defaults(sending.defaults)
    called: Any = {**selection, **sending.given}
    paths = [target, *(also or ())]
    about: Any = {"cache_map": known, "newer_than": newer_than, "repeat": repeat}
    if only_plan:
        planned = plan_dbt(paths, **about, **called)
        output.show(planned.to_dict(), lambda: [Text(str(planned))])
        return
    maps = maps_of(read_dbt(paths, newer_than=newer_than, repeat=repeat), known)
    entries = [entry for share in maps.shares for entry in share.cache_map.entries(share.key)]
    _confirm(
        lambda: (name for each in entries for name in _whole(connection, each.reference, each.udf.shown, called, each)), yes
    )
    _check_writable_folder(remaining)
    try:
        with connection.open() as client, output.progress() as on_progress:
            done = client.invalidate_dbt(paths, on_progress=on_progress, **about, **called)
    except (FusedCacheError, KeyboardInterrupt) as error:
        found = getattr(error, "result", None)
        if found is not None and not output.as_json:
            output.draw(*_drawn_dataset(found))
        raise _dataset_failed(error, remaining, called["checkpoint"]) from None
    output.is_done = True
    output.show(done.to_dict(), lambda: _drawn_dataset(done))


def _dataset_failed(
    error: Union[FusedCacheError, KeyboardInterrupt], remaining: Optional[Path], checkpoint: Any
) -> CommandFailed:
    """The end of a command for several UDFs, with what remains of each in a file."""
    found = getattr(error, "result", None)
    saved = _saved_each(found, remaining) if remaining is not None and found is not None and found.failed else None
    kept = f"The remaining tiles are in {remaining}." if saved else "What was not confirmed is not recorded: use --checkpoint."
    return CommandFailed(error, saved_to=saved, hint=_RESUME if checkpoint is not None else kept)


def _drawn_dataset(done: DatasetResult) -> Iterator["RenderableType"]:
    from rich.table import Table
    from rich.text import Text

    results = list(done.results.values())
    if results and not done.failed and all(map(_is_nothing, results)):
        yield Text("Nothing to invalidate.")
        return
    table = Table("UDF", "tiles", "requests", "result")
    for udf in dict.fromkeys([*done.results, *done.failed]):
        result, error = done.results.get(udf), done.failed.get(udf)
        tiles = "" if result is None else "all" if result.tiles_invalidated is None else f"{result.tiles_invalidated:,}"
        parts = result and (result.note, str(result.verification or ""), result.stale_time)
        said = result and ("; ".join(filter(None, parts or ())) or ("nothing to do" if _is_nothing(result) else ""))
        ended = "not done" if type(error).__name__ == "InvalidationCancelledError" else "failed"
        table.add_row(
            Text(udf), tiles, "" if result is None else f"{result.requests_sent:,}", ended if error else said or "done"
        )
    if table.row_count:
        yield table
    yield Text(f"{done}.")
    for udf, result in done.results.items():
        for related in result.related.values():
            yield Text(f"{udf}: with it, {related}")
        for warning in result.warnings or ():
            yield Text(f"{udf}: {as_options(warning)}")


def _is_nothing(done: InvalidationResult) -> bool:
    """Whether there was nothing to send."""
    return not done.client_ids and done.tiles_invalidated == 0


def _whole(
    connection: Connection,
    udf: "str | Secret",
    shown: str,
    called: Mapping[str, Any],
    entry: Optional["MapEntry"] = None,
) -> Iterator[str]:
    """What a call invalidates whole, of a UDF and those related to it, which are looked up, and the inner caches it deletes."""
    keywords = {**called, **({} if entry is None else entry.keywords)}
    is_whole = bool(called.get("whole_udf") or (entry is not None and entry.is_whole))
    if is_whole:
        yield f"UDF {shown}"
    elif keywords.get("when_too_many") == "whole-udf" and (keywords.get("zooms") or keywords.get("buffer")):
        yield f"UDF {shown} if its tiles are too many"
    if keywords.get("related") is not None:
        related: Any = {name: keywords[name] for name in ("related", "max_related") if name in keywords}
        try:
            with connection.open() as client:
                targets = client.plan_invalidation(udf, whole_udf=True, **related).targets or ()
        except FusedCacheError:  # the call itself will say so
            targets = ()
            yield f"what UDF {shown} calls"
        for each in dict.fromkeys(each._replace(client_id="") for each in targets):
            why = "" if is_whole else f" (because of {', '.join(each.called_by)})"
            if each.called_by if not is_whole else each.relation != "udf":
                yield f"UDF {each.name or each.udf_id}{why}"
    for folder in read_folders(keywords.get("inner_caches", NOT_GIVEN)):
        yield f"the functions in UDF {shown}" if folder == OWN else f"the functions in folder {folder}"


def _is_on(switch: Optional[str]) -> bool:
    """Whether an environment variable switches something on: ``CI=false`` does not."""
    return (switch or "").strip().lower() not in ("", "0", "false", "no", "off")


def _confirm(found: Callable[[], Iterable[str]], yes: bool) -> None:
    """Ask a person before something is invalidated whole. Pipelines, which have no terminal, are not asked."""
    if yes or _is_on(os.environ.get("CI")) or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    names = list(dict.fromkeys(found()))
    if not names:
        return
    shown = [*names[:_ASKED], *([f"{len(names) - _ASKED:,} more"] if len(names) > _ASKED else ())]
    if not typer.confirm(f"Invalidate everything cached by {', and '.join(shown)}?", err=True):
        raise CommandFailed(InvalidInputError("Nothing was invalidated. Use --yes to skip the question."))


def _check_writable(path: Optional[Path]) -> None:
    """Reject, before anything is sent, a location for the remaining tiles that cannot be written."""
    if path is None:
        return
    folder = path.absolute().parent
    if "\0" in str(path) or path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"--remaining {str(path)!r} cannot be written: use a file in an existing, writable folder.")


def _check_writable_folder(path: Optional[Path]) -> None:
    """Reject, before anything is sent, a folder for the remaining tiles that cannot be written."""
    if path is None:
        return
    folder = path if path.is_dir() else path.absolute().parent
    if "\0" in str(path) or not folder.is_dir() or (path.exists() and not path.is_dir()) or not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"--remaining {str(path)!r} cannot be written: use a folder in an existing, writable folder.")


def _saved_each(found: DatasetResult, folder: Path) -> Optional[dict[str, str]]:
    """Write the tiles not yet confirmed of each UDF into a folder. Returns the files, or None if one cannot be written."""
    saved: dict[str, str] = {}
    for udf, failure in found.failed.items():
        if failure.remaining is not None:
            name = re.sub(r"[^\w.@-]+", "-", udf)
            path = (
                folder
                / f"{name if f'{name}.list' not in map(os.path.basename, saved.values()) else f'{name}-{len(saved)}'}.list"
            )
            try:
                folder.mkdir(exist_ok=True)
                failure.remaining.save(path)
            except OSError as error:
                output.complain(f"--remaining {folder} cannot be written ({error}): the tiles are in the JSON document.")
                return None
            saved[udf] = str(path)
    return saved


def _saved(left: Remaining, path: Path) -> Optional[str]:
    """Write the tiles not yet confirmed to a file. Returns its path, or None if that fails."""
    try:
        left.save(path)
    except OSError as error:
        output.complain(f"--remaining {path} cannot be written ({error}): the tiles are printed instead.")
        return None
    return str(path)
