"""The options that select tiles, declared once for all commands."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Optional, cast

import typer

from fused_cache_ops.call_keywords import CALL_DEFAULTS, CALL_HELP
from fused_cache_ops.cli.connection import with_signature
from fused_cache_ops.running.keywords import RefreshKeywords
from fused_cache_ops.selection.keywords import KINDS, SELECTION_HELP, SHAPERS, SelectionKeywords

RelatedUdfs = Annotated[Optional[str], typer.Option("--related", help=CALL_HELP["related"])]
MaxRelated = Annotated[int, typer.Option(help=CALL_HELP["max_related"])]
CacheMapFile = Annotated[
    str, typer.Option("--map", metavar="FILE", help="The cache map. In a pyproject.toml, the table tool.fused-cache.")
]
# Only from the environment: everyone on the machine can see a command's options.
SharedToken = Annotated[Optional[str], typer.Option(envvar="FUSED_SHARED_TOKEN", hidden=True)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, in a terminal, before a UDF is invalidated whole.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, also if it fails.")]
UdfName = Annotated[
    str, typer.Argument(metavar="UDF", help="Id, name, canvas/name, team/name, user@host/name or shared token.")
]

_TYPES: dict[str, Any] = {
    "tiles": Annotated[Optional[list[str]], typer.Argument(help="Tiles as z/x/y.", metavar="Z/X/Y")],
    "tiles_file": Annotated[Optional[str], typer.Option(help=f"{SELECTION_HELP['tiles_file']} Use - for standard input.")],
    "bounds": Annotated[Optional[list[str]], typer.Option(help="West,south,east,north in degrees. Repeat for more boxes.")],
    "geometry": Annotated[Optional[list[str]], typer.Option(help=f"{SELECTION_HELP['geometry']} Repeat for the union.")],
    "cells": Annotated[Optional[str], typer.Option(help="Path of a file with H3 cells, one per line.", metavar="FILE")],
    "hex_dataset": Annotated[Optional[str], typer.Option(help=SELECTION_HELP["hex_dataset"])],
    "geometry_column": Annotated[Optional[str], typer.Option(help=SELECTION_HELP["geometry_column"])],
    "crs": Annotated[Optional[str], typer.Option(help=SELECTION_HELP["crs"])],
    "render_resolution": Annotated[Optional[str], typer.Option(help=SELECTION_HELP["render_resolution"])],
    "partition": Annotated[Optional[list[str]], typer.Option(help=f"{SELECTION_HELP['partition']} Repeat for more.")],
    "zooms": Annotated[Optional[str], typer.Option(help=SELECTION_HELP["zooms"])],
    "buffer": Annotated[int, typer.Option(help=SELECTION_HELP["buffer"])],
    "max_tiles": Annotated[int, typer.Option(help=SELECTION_HELP["max_tiles"])],
    "when_too_many": Annotated[str, typer.Option(help=SELECTION_HELP["when_too_many"])],
    "max_zoom": Annotated[int, typer.Option(help=SELECTION_HELP["max_zoom"])],
    "shard": Annotated[Optional[str], typer.Option(help="Only one of several equal parts: 0/4 is the first of four.")],
    "whole_udf": Annotated[bool, typer.Option("--whole-udf", help="Everything that the UDF has cached.")],
}

_DIFFERENCE: dict[str, Any] = {
    "diff": Annotated[
        Optional[tuple[str, str]],
        typer.Option(
            help="Two states of a table, as Parquet or vector files. The rows that were added, removed or changed are the "
            "geometry, with their old and new places. Needs the extra changes.",
            metavar="BEFORE AFTER",
        ),
    ],
    "key": Annotated[
        Optional[list[str]], typer.Option(help="With --diff: the column that identifies a row. Repeat for more. Default: id.")
    ],
    "columns": Annotated[
        Optional[list[str]],
        typer.Option(
            help="With --diff: a column in which a change counts, besides the geometry. Repeat for more. Default: all."
        ),
    ],
}
"""Options that other keywords are made of."""


def _refresh_option(name: str, *declared: str, **named: Any) -> Any:
    return typer.Option(*declared, rich_help_panel="Refresh", **({"help": CALL_HELP[name]} | named))


_REFRESH: dict[str, Any] = {
    "refresh": Annotated[str, _refresh_option("refresh", metavar="N|all", show_default=False)],
    "refresh_zooms": Annotated[Optional[str], _refresh_option("refresh_zooms")],
    "refresh_concurrency": Annotated[int, _refresh_option("refresh_concurrency")],
    "max_refresh": Annotated[int, _refresh_option("max_refresh")],
    "refresh_parameters": Annotated[
        Optional[list[str]],
        _refresh_option(
            "refresh_parameters",
            "--refresh-parameter",
            metavar="NAME=VALUE",
            help=f"{CALL_HELP['refresh_parameters']} Repeat for more.",
        ),
    ],
    "refresh_deadline": Annotated[float, _refresh_option("refresh_deadline")],
    "fail_on_refresh_error": Annotated[bool, _refresh_option("fail_on_refresh_error", "--fail-on-refresh-error")],
}

Refresh = _REFRESH["refresh"]
RefreshZooms = _REFRESH["refresh_zooms"]
MaxRefresh = _REFRESH["max_refresh"]


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select tiles to a command. It receives their values as ``selection``, the core's keywords."""
    return _with_options(command, _TYPES | _DIFFERENCE, "selection", lambda given: _read(_with_difference(given)))


def refreshing(*, alone: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of a refresh to a command. It receives their values as ``refreshing``, the core's keywords.

    Args:
        alone: whether the command only refreshes. Then it is for all tiles by default, and fails if one could not be refreshed.
    """
    types = dict(_REFRESH)
    if alone:
        del types["fail_on_refresh_error"]
        said = "The most tiles to refresh. Default: all."
        types["refresh"] = Annotated[str, _refresh_option("refresh", metavar="N|all", show_default=False, help=said)]
    defaults = {"refresh": "all"} if alone else None
    return lambda command: _with_options(command, types, "refreshing", _read_refresh, defaults)


def _with_options(
    command: Callable[..., None],
    types: Mapping[str, Any],
    received_as: str,
    read: Callable[[dict[str, Any]], object],
    defaults: Mapping[str, Any] | None = None,
) -> Callable[..., None]:
    own = inspect.signature(command).parameters
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=(defaults or {}).get(name, _default(name)), annotation=annotation
        )
        for name, annotation in types.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        read_from = {name: given.pop(name) for name in types}
        command(**given, **{received_as: read(read_from)})

    kept = [each for name, each in own.items() if name != received_as]
    return with_signature(run, [kept[0], *options, *kept[1:]])  # the UDF first


def _read_refresh(given: dict[str, Any]) -> RefreshKeywords:
    parameters = {}
    for text in given.pop("refresh_parameters", None) or ():
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise typer.BadParameter(f"--refresh-parameter {text}: write NAME=VALUE, such as format=png.")
        parameters[name] = value
    amount = int(given["refresh"]) if given["refresh"].isdecimal() else given["refresh"]
    return cast("RefreshKeywords", given | {"refresh": amount, "refresh_parameters": parameters or None})


def _with_difference(given: dict[str, Any]) -> dict[str, Any]:
    """The options with what differs between two files as the geometry."""
    difference, key, columns = (given.pop(name) for name in _DIFFERENCE)
    if difference is None:
        if key or columns:
            raise typer.BadParameter(f"{'--key' if key else '--columns'} is for --diff: name the two files to compare.")
        return given
    if given["geometry"]:
        raise typer.BadParameter("--diff and --geometry are both given: use one kind of selection at a time.")
    from fused_cache_ops.changes import changed_geometry

    column = given["geometry_column"]
    found = changed_geometry(*difference, key=key or ["id"], columns=columns or None, geometry_column=column, crs=given["crs"])
    return given | {"geometry": found, "geometry_column": None}


def _default(name: str) -> Any:
    default = cast("dict[str, Any]", CALL_DEFAULTS).get(name)
    return default if isinstance(default, (int, float, str, bool)) else None


def _read(given: dict[str, Any]) -> SelectionKeywords:
    """The core's keywords: exactly one kind of selection, and the whole UDF only if it is asked for explicitly."""
    # An option that was given but is empty is a mistake, which the core rejects.
    kinds = {name: given[name] for name in KINDS if not _is_left_out(given[name])}
    if "bounds" in kinds:
        kinds["bounds"] = [[_number(text) for text in box.split(",")] for box in given["bounds"]]
    if given["whole_udf"] == bool(kinds):
        raise typer.BadParameter(
            "give exactly one of these: tiles as z/x/y, --tiles-file, --bounds, --geometry, --cells, --hex-dataset, "
            "--diff or --whole-udf."
        )
    shapes = {name: given[name] for name in SHAPERS if name != "shard" and not _is_left_out(given[name])}
    if given["whole_udf"]:
        shapes["whole_udf"] = True
    if given["shard"] is not None:
        parts = given["shard"].split("/")
        if len(parts) != 2 or not all(part.isdecimal() for part in parts):
            raise typer.BadParameter(f"--shard {given['shard']}: write I/N, such as 0/4 for the first of four parts.")
        shapes["shard"] = (int(parts[0]), int(parts[1]))
    return cast("SelectionKeywords", kinds | shapes)


def _is_left_out(value: Any) -> bool:
    return value is None or (isinstance(value, list) and not value)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text  # the core rejects it, with the whole box in its message
