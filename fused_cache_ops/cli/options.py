"""The options that select tiles, declared once for all commands."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional, cast

import typer

from fused_cache_ops.call_keywords import CALL_HELP
from fused_cache_ops.selection.keywords import KINDS, SELECTION_DEFAULTS, SELECTION_HELP, SHAPERS, SelectionKeywords

ClientId = Annotated[
    Optional[str],
    typer.Option(
        envvar="FUSED_CLIENT_ID",
        help="Real-time instance, several with commas, or all. Default: the preferred one, and the one that maps run on.",
    ),
]
RelatedUdfs = Annotated[Optional[str], typer.Option("--related", help=CALL_HELP["related"])]
MaxRelated = Annotated[int, typer.Option(help=CALL_HELP["max_related"])]
BaseUrl = Annotated[Optional[str], typer.Option(envvar="FUSED_BASE_URL", help="Address of the deployment.")]
UdfName = Annotated[str, typer.Argument(help="Id, name, canvas/name, team/name, user@host/name or shared token.")]

_TYPES: dict[str, Any] = {
    "tiles": Annotated[Optional[list[str]], typer.Argument(help="Tiles as z/x/y.", metavar="[Z/X/Y]...")],
    "tiles_file": Annotated[Optional[str], typer.Option(help=f"{SELECTION_HELP['tiles_file']} Use - for standard input.")],
    "bounds": Annotated[Optional[list[str]], typer.Option(help="West,south,east,north in degrees. Repeat for more boxes.")],
    "geometry": Annotated[Optional[list[str]], typer.Option(help=f"{SELECTION_HELP['geometry']} Repeat for the union.")],
    "zooms": Annotated[Optional[str], typer.Option(help=SELECTION_HELP["zooms"])],
    "buffer": Annotated[int, typer.Option(help=SELECTION_HELP["buffer"])],
    "max_tiles": Annotated[int, typer.Option(help=SELECTION_HELP["max_tiles"])],
    "when_too_many": Annotated[str, typer.Option(help=SELECTION_HELP["when_too_many"])],
    "max_zoom": Annotated[int, typer.Option(help=SELECTION_HELP["max_zoom"])],
    "shard": Annotated[Optional[str], typer.Option(help="Only one of several equal parts: 0/4 is the first of four.")],
    "whole_udf": Annotated[bool, typer.Option("--whole-udf", help="Everything that the UDF has cached.")],
}


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select tiles to a command. It receives their values as ``selection``, the core's keywords."""
    own = inspect.signature(command).parameters
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(name), annotation=annotation)
        for name, annotation in _TYPES.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        selection = _read({name: given.pop(name) for name in _TYPES})
        command(**given, selection=selection)

    kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, each in own.items() if name != "selection"]
    parameters = [kept[0], *options, *kept[1:]]  # the UDF first
    described: Any = run
    described.__signature__ = inspect.Signature(parameters, return_annotation=None)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _default(name: str) -> Any:
    default = cast("dict[str, Any]", SELECTION_DEFAULTS).get(name, False)
    return default if isinstance(default, (int, str, bool)) else None


def _read(given: dict[str, Any]) -> SelectionKeywords:
    """The core's keywords: exactly one kind of selection, and the whole UDF only if it is asked for explicitly."""
    # An option that was given but is empty is a mistake, which the core rejects.
    kinds = {name: given[name] for name in KINDS if given[name] is not None and given[name] != []}
    if "bounds" in kinds:
        kinds["bounds"] = [[_number(text) for text in box.split(",")] for box in given["bounds"]]
    if given["whole_udf"] == bool(kinds):
        raise typer.BadParameter(
            "give exactly one of these: tiles as z/x/y, --tiles-file, --bounds, --geometry or --whole-udf."
        )
    shapes = {name: given[name] for name in SHAPERS if name != "shard"}
    if given["whole_udf"]:
        shapes["whole_udf"] = True
    if given["shard"] is not None:
        parts = given["shard"].split("/")
        if len(parts) != 2 or not all(part.isdecimal() for part in parts):
            raise typer.BadParameter(f"--shard {given['shard']}: write I/N, such as 0/4 for the first of four parts.")
        shapes["shard"] = (int(parts[0]), int(parts[1]))
    return cast("SelectionKeywords", kinds | shapes)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text  # the core rejects it, with the whole box in its message
