"""The command that lists a folder, so that a later one can tell what changed in it."""

import json
from typing import Annotated, Optional

import typer

from fused_cache_ops.cli.options import AsJson
from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.program import program
from fused_cache_ops.errors import unreadable
from fused_cache_ops.stores import open_store, reason
from fused_cache_ops.wording import counted


@program.command()
def listing(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The path of a folder, or a URL that fsspec opens.")],
    place: Annotated[
        Optional[str],
        typer.Option("--output", metavar="FILE", help="Where to keep it: a path or URL. Default: standard output."),
    ] = None,
    match: Annotated[
        Optional[str], typer.Option(metavar="PATTERN", help="Only files whose names match, such as '*.parquet'.")
    ] = None,
    footprints: Annotated[
        bool,
        typer.Option("--footprints", help="Also read where each file is, for files that are removed or rewritten later."),
    ] = False,
    known: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="With --footprints: an earlier listing. Only files that changed since are read."),
    ] = None,
    geometry_column: Annotated[Optional[str], typer.Option(help="As for invalidate, for each file.")] = None,
    crs: Annotated[Optional[str], typer.Option(help="As for invalidate, for each file.")] = None,
    antimeridian: Annotated[Optional[str], typer.Option(help="As for invalidate, for each file.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the files of a folder, and what tells whether each was rewritten later: for --changes-of with --since."""
    if known is not None and not footprints:
        raise typer.BadParameter("--known is for --footprints: give both.")
    from fused_cache_ops.changes import folder_listing

    how = {"geometry_column": geometry_column, "crs": crs, "antimeridian": antimeridian}
    found = folder_listing(folder, match=match, footprints=footprints if known is None else known, **how)
    if place is None:
        output.write([json.dumps(found), "\n"])
        return
    store = open_store(place, "listing.json", "--output")
    try:
        store.write(json.dumps(found).encode())
    except OSError as error:
        raise unreadable(error, f"{store.name} cannot be written: {reason(error)}.") from None
    output.is_done = True
    output.say(f"{counted(len(found['files']), 'file')} listed in {store.name}.")
    output.show({"files": len(found["files"]), "output": store.name}, list)
