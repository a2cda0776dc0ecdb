"""The options of commands, derived from the declarations of the keywords, once for all commands."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Optional, cast

import typer

from fused_cache_ops.cli.connection import with_signature
from fused_cache_ops.keywords.announce import ANNOUNCE_OPTIONS
from fused_cache_ops.keywords.call import SENDING_OPTIONS
from fused_cache_ops.keywords.h3_index import H3_INDEX_OPTIONS
from fused_cache_ops.keywords.option import Option
from fused_cache_ops.keywords.refresh import REFRESH_OPTIONS, merged_refresh
from fused_cache_ops.keywords.selection import KINDS, SELECTION_OPTIONS, SelectionKeywords
from fused_cache_ops.keywords.text import read_boolean, read_number, read_seconds
from fused_cache_ops.keywords.values import NOT_GIVEN
from fused_cache_ops.wording import quoted_address

CacheMapFile = Annotated[
    str, typer.Option("--map", metavar="FILE", help="The cache map. In a pyproject.toml, the table tool.fused-cache.")
]
# Only from the environment: everyone on the machine can see a command's options.
SharedToken = Annotated[Optional[str], typer.Option(envvar="FUSED_SHARED_TOKEN", hidden=True)]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Only show what would be sent. Needs no token.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, in a terminal, before a UDF is invalidated whole.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, also if it fails.")]
UdfName = Annotated[
    str, typer.Argument(metavar="UDF", help="Id, name, canvas/name, team/name, user@host/name or shared token.")
]

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def local_file(text: str) -> Path:
    """The path of a file to write. A URL, which a path would turn into folders, is refused.

    Raises:
        typer.BadParameter: it is a URL.
    """
    if "://" in text:
        raise typer.BadParameter(f"{quoted_address(text)} is a URL: give the path of a file.")
    return Path(text)


RemainingFolder = Annotated[
    Optional[Path],
    typer.Option(
        "--remaining",
        help="If it fails, write the tiles not yet confirmed into this folder, a list for each UDF.",
        parser=local_file,
        metavar="FOLDER",
    ),
]


_KINDS: Mapping[Any, Any] = {read_number: int, read_seconds: float, read_boolean: bool}
"""The type of an option's value, by how its keyword is read."""


def _derived(name: str, option: Option, **more: Any) -> Any:
    """An option of the same name and help, which is None if it is left out and has no default."""
    kind = _KINDS.get(option.read, str)
    words = name.replace("_", "-")
    flag = [f"--{words}/--no-{words}" if option.default else f"--{words}"] * (kind is bool)
    return Annotated[
        kind if isinstance(option.default, (int, float, str)) else Optional[kind],
        typer.Option(*flag, **{"help": option.help, **more}),
    ]


def _help_of(name: str) -> str:
    return SELECTION_OPTIONS[name].help


_SELECTING: dict[str, Any] = {name: _derived(name, option) for name, option in SELECTION_OPTIONS.items()} | {
    "tiles": Annotated[Optional[list[str]], typer.Argument(help="Tiles as z/x/y.", metavar="Z/X/Y")],
    "tiles_file": Annotated[Optional[str], typer.Option(help=f"{_help_of('tiles_file')} Use - for standard input.")],
    "bounds": Annotated[Optional[list[str]], typer.Option(help="West,south,east,north in degrees. Repeat for more boxes.")],
    "geometry": Annotated[Optional[list[str]], typer.Option(help=f"{_help_of('geometry')} Repeat for the union.")],
    "cells": Annotated[Optional[str], typer.Option(help="Path of a file with H3 cells, one per line.", metavar="FILE")],
    "partition": Annotated[Optional[list[str]], typer.Option(help=f"{_help_of('partition')} Repeat for more.")],
    "shard": Annotated[Optional[str], typer.Option(help="Only one of several equal parts: 0/4 is the first of four.")],
    "whole_udf": Annotated[bool, typer.Option("--whole-udf", help="Everything that the UDF has cached.")],
}

_SHAPES = tuple(name for name, option in SELECTION_OPTIONS.items() if option.needs_selection)

_CHANGES: dict[str, Any] = {
    "diff": Annotated[
        Optional[tuple[str, str]],
        typer.Option(
            help="Two states of a table, as Parquet or vector files. The rows that were added, removed or changed are the "
            "geometry, with their old and new places. Needs the extra changes. Or two states of a raster: the blocks that "
            "differ. Needs the extra raster.",
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
    "changes_of": Annotated[
        Optional[str],
        typer.Option(
            help="A Delta table, as a path or URL, or an Icechunk repository, as a path: what it has recorded itself since the "
            "state that --since names is the geometry. Needs the extra delta or icechunk. Or a folder, or its later listing: "
            "the files that are new, rewritten or gone since a listing.",
            metavar="ADDRESS",
        ),
    ],
    "since": Annotated[
        Optional[str],
        typer.Option(
            help="With --changes-of: the state that the map already shows. Of a table, the number of a version. Of a "
            "repository, the id of a snapshot, a tag, a branch, or a time. Of a folder, a file that the command listing wrote.",
            metavar="STATE",
        ),
    ],
    "array": Annotated[
        Optional[str],
        typer.Option(
            help="With --changes-of and a repository: the path of the array that the map shows, if there are several."
        ),
    ],
}
"""Options that other keywords are made of."""

CHANGES_OF = ("changes_of", "since", "array")
"""Of these, the ones about what a format has recorded. In a step's inputs, they are keys of ``diff``."""

_GROUPS = ("refresh", "h3_index", "announce")
"""The keywords whose keys are options of their own."""

_SENDING: dict[str, Any] = {name: _derived(name, option) for name, option in SENDING_OPTIONS.items() if name not in _GROUPS} | {
    "inner_caches": Annotated[
        Optional[list[str]],
        typer.Option(help=f"{SENDING_OPTIONS['inner_caches'].help} Repeat for more.", metavar="FOLDER|own"),
    ],
}


def _refresh_option(key: str, option: Option) -> Any:
    """An option for a key of ``refresh``. All of them are None if they are left out."""
    kind = _KINDS.get(option.read, str)
    names = [f"--refresh-{key.replace('_', '-')}"]
    more: dict[str, Any] = {"help": option.help}
    if key == "count":
        names, more = ["--refresh"], {"help": SENDING_OPTIONS["refresh"].help, "metavar": "N|all"}
    elif key == "parameters":
        kind = list[str]
        names, more = ["--refresh-parameter"], {"help": f"{option.help} Repeat for more.", "metavar": "NAME=VALUE"}
    elif kind in (int, float):
        more["help"] = f"{option.help} Default: {option.default:g}."
    return Annotated[Optional[kind], typer.Option(*names, rich_help_panel="Refresh", show_default=False, **more)]


def refresh_name(key: str) -> str:
    """The name of the option for a key of ``refresh``, as a command's parameter."""
    return "refresh" if key == "count" else f"refresh_{key}"


_REFRESH: dict[str, Any] = {refresh_name(key): _refresh_option(key, option) for key, option in REFRESH_OPTIONS.items()}


class _Group(NamedTuple):
    """A keyword whose keys are options of their own: one is named as the keyword, the others ``--keyword-key``."""

    options: Mapping[str, Option]
    main: str
    panel: str


_KEYED: Mapping[str, _Group] = {
    "h3_index": _Group(H3_INDEX_OPTIONS, "path", "H3 index"),
    "announce": _Group(ANNOUNCE_OPTIONS, "to", "Announcement"),
}


def _key_option(group: str, key: str, option: Option) -> Any:
    """An option for a key of a group. All of them are None if they are left out."""
    name = f"--{key_name(group, key).replace('_', '-')}"
    more: dict[str, Any] = {"help": option.help, "rich_help_panel": _KEYED[group].panel, "show_default": False}
    if key == "prefix":
        return Annotated[Optional[list[str]], typer.Option(name, **{**more, "help": f"{option.help} Repeat for more."})]
    if key == "deadline":
        more["help"] = f"{option.help} Default: {option.default:g}."
    return Annotated[Optional[_KINDS.get(option.read, str)], typer.Option(name, **more)]


def key_name(group: str, key: str) -> str:
    """The name of the option for a key of a group, as a command's parameter."""
    return group if key == _KEYED[group].main else f"{group}_{key}"


KEYS = {key_name(name, key): (name, key) for name, group in _KEYED.items() for key in group.options}
"""The options that are keys of groups, as a command's parameters, each with its group and key."""

_OF_GROUPS: dict[str, Any] = {name: _key_option(group, key, _KEYED[group].options[key]) for name, (group, key) in KEYS.items()}


@dataclass(frozen=True)
class Sending:
    """The options that control sending, as keywords.

    Attributes:
        given: those of the command line.
        defaults: those of the table ``[settings]``. The keys of ``refresh`` say how, so that they alone refresh nothing.
    """

    given: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def keywords(self) -> dict[str, Any]:
        """All of them."""
        found = {**self.defaults, **self.given}
        if "refresh" in found:
            found["refresh"] = _refresh_of(self.given.get("refresh", 0), self.defaults)
        return found


def _refresh_of(given: Any, defaults: Mapping[str, Any]) -> Any:
    refresh = merged_refresh(given)
    return refresh and {**defaults.get("refresh", {}), **refresh}


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select tiles to a command. It receives their values as ``selection``, the core's keywords."""
    types = _SELECTING | _CHANGES
    return _with_options(command, types, "selection", lambda _, given: _read(_with_changes(given)))


def selecting_if_given(command: Callable[..., None]) -> Callable[..., None]:
    """As `selecting`, for a command that may know from elsewhere what is selected."""
    types = _SELECTING | _CHANGES
    return _with_options(command, types, "selection", lambda _, given: _read(_with_changes(given), is_needed=False))


def sending(*, only: tuple[str, ...] | None = None, described: Mapping[str, str] | None = None) -> Decorator:
    """Add the options that control sending to a command. It receives them as ``sending``, a `Sending`.

    Args:
        only: the names of the options that it takes. Default: all.
        described: its own help for some of them.
    """
    types = {name: each for name, each in (_SENDING | _OF_GROUPS | _REFRESH).items() if only is None or name in only}
    for name, text in (described or {}).items():
        types[name] = _derived(name, SENDING_OPTIONS[name], help=text)
    return lambda command: _with_options(command, types, "sending", _read_sending)


def refreshing(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a refresh to a command that only refreshes. It receives them as ``refresh``, the core's keyword: all
    tiles by default, and it fails if one could not be refreshed."""
    types = {name: each for name, each in _REFRESH.items() if name != "refresh_must_succeed"}

    def read(ctx: Any, given: dict[str, Any]) -> Any:
        options = _refresh_options(given)
        return merged_refresh({"must_succeed": True}, {"count": "all", **options})

    return _with_options(command, types, "refresh", read)


def _with_options(
    command: Callable[..., None],
    types: Mapping[str, Any],
    received_as: str,
    read: Callable[[Any, dict[str, Any]], object],
) -> Callable[..., None]:
    own = inspect.signature(command).parameters
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(name), annotation=annotation)
        for name, annotation in types.items()
    ]

    @functools.wraps(command)
    def run(ctx: typer.Context, **given: Any) -> None:
        read_from = {name: given.pop(name) for name in types}
        if "ctx" in own:
            given["ctx"] = ctx
        command(**given, **{received_as: read(ctx, read_from)})

    kept = [each for name, each in own.items() if name not in (received_as, "ctx")]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    return with_signature(run, [context, kept[0], *options, *kept[1:]])  # the UDF first


def is_from_file(ctx: typer.Context, name: str) -> bool:
    """Whether an option's value is that of the table ``[settings]``."""
    return getattr(ctx.get_parameter_source(name), "name", "") == "DEFAULT_MAP"


def _read_sending(ctx: typer.Context, given: dict[str, Any]) -> Sending:
    from_file = {name for name in given if is_from_file(ctx, name)}
    refresh = {name: given.pop(name) for name in _REFRESH if name in given}
    keys = {name: given.pop(name) for name in KEYS if name in given}
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, value in given.items():
        if SENDING_OPTIONS[name].default is not NOT_GIVEN or not _is_left_out(value):
            parts[name in from_file][name] = value
    how = _refresh_options({name: value for name, value in refresh.items() if name in from_file})
    said = _refresh_options({name: value for name, value in refresh.items() if name not in from_file})
    if said and not said.keys() & {"count", "zooms"}:
        option = _REFRESH[refresh_name(next(iter(said)))].__metadata__[0].param_decls[0]
        raise typer.BadParameter(f"{option} says how to refresh: add --refresh all, or --refresh with a number of tiles.")
    if said:
        parts[0]["refresh"] = said
    for name, value in keys.items():
        if value is not None and value is not False and value != []:
            group, key = KEYS[name]
            parts[name in from_file].setdefault(group, {})[key] = value
    if how:
        parts[1]["refresh"] = how
    return Sending(*parts)


def _refresh_options(given: dict[str, Any]) -> dict[str, Any]:
    """The keys of ``refresh`` that were given."""
    keys = {refresh_name(key): key for key in REFRESH_OPTIONS}
    found = {keys[name]: value for name, value in given.items() if value is not None and value is not False and value != []}
    if "parameters" in found:
        parameters = {}
        for text in found["parameters"]:
            name, separator, value = text.partition("=")
            if not name or not separator:
                raise typer.BadParameter(f"--refresh-parameter {text}: write NAME=VALUE, such as format=png.")
            parameters[name] = value
        found["parameters"] = parameters
    return found


def _with_changes(given: dict[str, Any]) -> dict[str, Any]:
    """The options with what changed as the geometry."""
    of = {name: given.pop(name) for name in _CHANGES}
    ways = [f"--{name.replace('_', '-')}" for name in ("diff", "changes_of") if of[name] is not None]
    if len([*ways, *(given["geometry"] or ())[:1]]) > 1:
        other = ways[1] if len(ways) > 1 else "--geometry"
        raise typer.BadParameter(f"{ways[0]} and {other} are both given: use one kind of selection at a time.")
    given = _with_difference(given, of["diff"], of["key"], of["columns"])
    return _with_records(given, of["changes_of"], of["since"], of["array"])


def _with_difference(given: dict[str, Any], difference: Any, key: Any, columns: Any) -> dict[str, Any]:
    """The options with what differs between two files as the geometry."""
    if difference is None:
        if key or columns:
            raise typer.BadParameter(f"{'--key' if key else '--columns'} is for --diff: name the two files to compare.")
        return given
    from fused_cache_ops.changes import changed_geometry, changed_raster
    from fused_cache_ops.selection.rasters import is_raster

    if all(map(is_raster, difference)):
        if key or columns:
            raise typer.BadParameter(f"{'--key' if key else '--columns'} is for tables, and --diff names two rasters: omit it.")
        return given | {"geometry": changed_raster(*difference)}
    if any(map(is_raster, difference)):
        raise typer.BadParameter("--diff names a raster and a file that is none: name two states of the same thing.")
    column = given["geometry_column"]
    found = changed_geometry(
        *difference,
        key=key or ["id"],
        columns=columns or None,
        geometry_column=column,
        crs=given["crs"],
        layer=given["layer"],
    )
    return given | {"geometry": found, "geometry_column": None, "layer": None}


def _with_records(given: dict[str, Any], address: str | None, since: str | None, array: str | None) -> dict[str, Any]:
    """The options with what a format has recorded itself as the geometry."""
    if address is None:
        if since is not None or array is not None:
            name = "--since" if since is not None else "--array"
            raise typer.BadParameter(f"{name} is for --changes-of: name what changed.")
        return given
    if since is None:
        raise typer.BadParameter("--changes-of needs --since, the state that the map already shows.")
    from fused_cache_ops.changes.records import recorded_changes

    how = {name: given[name] for name in ("geometry_column", "crs", "antimeridian")}
    found = recorded_changes(address, since=since, array=array, **how)
    return given | {"geometry": found, "geometry_column": None}


def _default(name: str) -> Any:
    option = SELECTION_OPTIONS.get(name) or SENDING_OPTIONS.get(name)
    default = option.default if option is not None and name not in _GROUPS else None
    return default if isinstance(default, (int, float, str, bool)) else None


def _read(given: dict[str, Any], *, is_needed: bool = True) -> SelectionKeywords:
    """The core's keywords: exactly one kind of selection, and the whole UDF only if it is asked for explicitly."""
    # An option that was given but is empty is a mistake, which the core rejects.
    kinds = {name: given[name] for name in KINDS if not _is_left_out(given[name])}
    if "bounds" in kinds:
        kinds["bounds"] = [[_number(text) for text in box.split(",")] for box in given["bounds"]]
    if given["whole_udf"] == bool(kinds) and (kinds or is_needed):
        raise typer.BadParameter(
            "give exactly one of these: tiles as z/x/y, --tiles-file, --bounds, --geometry, --cells, --hex-dataset, "
            "--diff, --changes-of or --whole-udf."
        )
    shapes = {name: given[name] for name in _SHAPES if name != "shard" and not _is_left_out(given[name])}
    column = shapes.get("geometry_column")
    if column is not None and column.count(",") == 1 and not column.startswith("["):
        shapes["geometry_column"] = [name.strip() for name in column.split(",")]
    if given["whole_udf"]:
        shapes["whole_udf"] = True
    if given["shard"] is not None:
        parts = given["shard"].split("/")
        if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
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
