"""The step that the GitHub Action and the GitLab component run: their inputs as a command line, its end as files.

A service's inputs arrive in environment variables, never in a script, where they would be code. Which options there are is read
from the commands, so that an input is declared only in the service's own file.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from fused_cache_ops.cli.options import CHANGES_OF
from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.program import program
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.announce import ANNOUNCE_OPTIONS
from fused_cache_ops.keywords.h3_index import H3_INDEX_OPTIONS
from fused_cache_ops.keywords.inner_caches import OWN
from fused_cache_ops.keywords.option import Option, check_keys
from fused_cache_ops.keywords.refresh import REFRESH_OPTIONS
from fused_cache_ops.outcome.announcement import Announcement
from fused_cache_ops.outcome.refresh import RefreshResult
from fused_cache_ops.wording import rendered_to_nothing

PREFIX = "FUSED_INPUT_"
NOT_GIVEN = "(not given)"
"""The default of every input that may be left out. GitHub and GitLab pass an input that was given but is empty as it is."""

LARGEST_OUTPUT = 400_000
"""Characters. GitHub refuses an output of more than 1 MB."""
_LARGEST_MAP = 200_000
"""Characters of GeoJSON in the summary, of which GitHub refuses more than 1 MiB."""
_SHOWN = (
    *("client_ids", "inner_caches", "h3_index", "seconds_until_invalidated", "seconds_until_fresh", "objects_deleted"),
    *("requests_sent", "request_count", "refresh_runs", "note", "warnings"),
)
_FAILED = {
    2: "wrong inputs",
    3: "failed after a part was done",
    4: "not verified",
    5: "not refreshed",
    6: "not announced",
    75: "failed for now",
}
_MARKUP = re.compile(r"(?![.-]\d)[^\w ,/()]|_")
"""What could be markup, also what would make a list, a link or an emphasis."""


@program.command(hidden=True)
def ci(
    folder: Annotated[Path, typer.Option(help="Where to write the result, the plan, and what remains.")],
) -> None:
    """Run a step of a GitHub workflow or a GitLab pipeline. Its inputs are the variables FUSED_INPUT_….

    What it runs is plan, then invalidate or dataset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _no_workflow_commands():
        code, document, plan = _run(folder)
        for row in _rows(document):
            print(*map(str, row), sep=": ", flush=True)
    text = json.dumps(document)
    (folder / "result.json").write_text(text, encoding="utf-8")
    summary = "\n".join(_summary(document, plan, folder / "footprint.geojson"))
    (folder / "summary.md").write_text(summary, encoding="utf-8")
    _append("GITHUB_STEP_SUMMARY", summary)
    if len(text) > LARGEST_OUTPUT:  # millions of tiles may remain
        text = json.dumps({"error": document.get("error"), "too_large": "see the file of the output result-file"})
    files = {"result-file": "result.json", "plan-page": "plan.html", "remaining-file": "remaining.list"}
    outputs = {"exit-code": str(code), "result": text}
    outputs |= {name: str(folder / file) for name, file in files.items() if (folder / file).exists()}
    _append("GITHUB_OUTPUT", "".join(map(_output, outputs, outputs.values())))
    if "error" in document and os.environ.get("GITHUB_ACTIONS") == "true":
        print(f"::error title=Fused cache::{_escaped(document['error']['message'])}")
    raise typer.Exit(code)


def _run(folder: Path) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Run the commands. Returns the exit code, the last document, and that of the plan."""
    for path in (
        folder / "plan.html",
        folder / "footprint.geojson",
        folder / "remaining.list",
        *folder.glob("remaining/*.list"),
    ):
        path.unlink(missing_ok=True)  # of an earlier step
    try:
        inputs = _inputs(os.environ)
        only_plan = _is_true("dry-run", inputs.pop("dry-run", "false"))
        command, target = _target(inputs, folder)
        # A plan of related UDFs looks them up, which the invalidation does anyway.
        needs_code = ["inner-caches"] if OWN in inputs.get("inner-caches", "") else []
        left_out = () if only_plan else ("related", "max-related", *needs_code)
        shown = {name: value for name, value in inputs.items() if name not in left_out}
        planned = [*_arguments("dataset", shown), "--plan"] if command == "dataset" else _arguments("plan", shown)
        sent = _arguments(command, inputs, strict=not only_plan)
    except (typer.BadParameter, InvalidInputError) as error:
        return _refused(error.message)
    if command == "invalidate":
        planned.append(f"--html={folder / 'plan.html'}")
        if importlib.util.find_spec("shapely"):  # the extra geo
            planned.append(f"--geojson={folder / 'footprint.geojson'}")
    sent.append(f"--remaining={folder / ('remaining.list' if command == 'invalidate' else 'remaining')}")
    code, plan = _call("dataset" if command == "dataset" else "plan", planned, target)
    if code or only_plan:
        return code, plan, plan
    return *_call(command, [*sent, "--yes"], target), plan


def _inputs(environment: Mapping[str, str]) -> dict[str, str]:
    """The inputs that were given, under their names.

    Raises:
        typer.BadParameter: one is empty: what was given on purpose must not be taken for "not given".
    """
    given = {
        name.removeprefix(PREFIX).lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value != NOT_GIVEN
    }
    for name, value in given.items():
        if rendered_to_nothing(value):
            secret = " Workflows of forks get no secrets." if name == "token" else ""
            raise typer.BadParameter(f"The input {name} was given, but is empty.{secret} Pass a value, or leave the input out.")
    token = given.pop("token", None)
    if token is not None:
        os.environ["FUSED_SERVICE_ACCOUNT_TOKEN"] = token.strip()
    return given


def _target(inputs: dict[str, str], folder: Path) -> tuple[str, list[str]]:
    """The command to run, and its arguments that are no options."""
    if ("udf" in inputs) == ("dataset" in inputs):
        raise typer.BadParameter("Give exactly one of the inputs udf and dataset.")
    tiles = None if "tiles" not in inputs else _several("tiles", inputs.pop("tiles"), separated_by_spaces=True)
    if tiles is not None and "tiles-file" in inputs:
        raise typer.BadParameter("The inputs tiles and tiles-file are both given: use one kind of selection at a time.")
    if tiles == []:
        inputs["tiles-file"] = str(folder / "no-tiles.list")
        (folder / "no-tiles.list").touch()
    command = "invalidate" if "udf" in inputs else "dataset"
    return command, [inputs.pop("udf" if command == "invalidate" else "dataset"), *(tiles or ())]


def _arguments(command: str, inputs: Mapping[str, str], *, strict: bool = False) -> list[str]:
    """The options of a command, each in one argument with its value, so that no value is taken for an option."""
    commands: Any = get_command(program)
    options = {option.opts[0].removeprefix("--"): option for option in commands.commands[command].params}
    arguments: list[str] = []
    for name, value in _flat(inputs):
        option = options.get(name)
        if option is None or name.startswith("-"):
            if strict:
                raise typer.BadParameter(f"The input {name} is not for {command}: leave it out.")
        elif option.is_flag:
            arguments += [f"--{name}"] if _is_true(name, value) else option.secondary_opts[:1]
        elif option.nargs > 1:
            values = _several(name, value)
            if len(values) != option.nargs:
                raise typer.BadParameter(f"The input {name} needs {option.nargs} lines, not {len(values)}.")
            arguments += [f"--{name}", *values]
        elif option.multiple:
            values = _several(name, value)
            if not values and name != "inner-caches":  # of which an empty list deletes nothing
                raise typer.BadParameter(f"The input {name} is an empty list. If nothing changed, pass [] as tiles.")
            arguments += [f"--{name}={each}" for each in values]
        else:
            arguments.append(f"--{name}={value.strip()}")
    return arguments


def _flat(inputs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The inputs, with groups as the options that their keys are."""
    for name, value in inputs.items():
        if name == "refresh":
            yield from _refresh(value)
        elif name in _GROUPS:
            yield from _keys(name, value, *_GROUPS[name])
        elif name == "diff" and _is_mapping(value, CHANGES_OF):
            yield from ((key.replace("_", "-"), text) for key, text in _pairs(name, value, CHANGES_OF))
        else:
            yield name, value


_GROUPS: Mapping[str, tuple[Mapping[str, Option], str]] = {
    "h3-index": (H3_INDEX_OPTIONS, "path"),
    "announce": (ANNOUNCE_OPTIONS, "to"),
}
"""The keys of each group, and the one that stands for it."""


def _keys(group: str, text: str, options: Mapping[str, Option], main: str) -> Iterator[tuple[str, str]]:
    """The options of a group: from what stands for it, such as a path, a JSON mapping, or lines of NAME=VALUE."""
    for key, value in _pairs(group, text, options) if _is_mapping(text, options) else [(main, text.strip())]:
        yield group if key == main else f"{group}-{key.replace('_', '-')}", value


def _is_mapping(text: str, keys: Iterable[str]) -> bool:
    return text.lstrip().startswith("{") or text.partition("=")[0].strip() in keys


def _pairs(name: str, text: str, keys: Iterable[str]) -> list[tuple[str, str]]:
    """The keys of a group and their values as text: from a JSON mapping, or lines of NAME=VALUE."""
    if text.lstrip().startswith("{"):
        try:
            given = json.loads(text)
        except ValueError as error:
            raise typer.BadParameter(f"The input {name} begins with {{ but is not a JSON mapping: {error}.") from None
        pairs = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in given.items()]
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if wrong := [line for line in lines if "=" not in line]:
            raise typer.BadParameter(f"The input {name}: line {wrong[0]!r} is not NAME=VALUE.")
        pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition("=") for line in lines)]
    if not pairs:
        raise typer.BadParameter(f"The input {name} has no key: give one, or leave the input out.")
    check_keys(dict(pairs), keys, f"The input {name}")
    if len({key for key, _ in pairs}) < len(pairs):
        raise typer.BadParameter(f"The input {name} has a key twice.")
    return pairs


def _refresh(text: str) -> Iterator[tuple[str, str]]:
    """The options of a refresh: from a number, ``all``, a JSON mapping, or lines of NAME=VALUE."""
    if text.lstrip().startswith("{"):
        try:
            given = json.loads(text)
        except ValueError as error:
            raise typer.BadParameter(f"The input refresh begins with {{ but is not a JSON mapping: {error}.") from None
        parameters = given.pop("parameters", {})
        check_keys(parameters, parameters if isinstance(parameters, dict) else (), "The input refresh: parameters")
        pairs = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in given.items()]
        pairs += [("parameters", f"{key}={value}") for key, value in parameters.items()]
    elif "=" in text:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if wrong := [line for line in lines if "=" not in line]:
            raise typer.BadParameter(f"The input refresh: line {wrong[0]!r} is not NAME=VALUE, such as zooms=0-8.")
        pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition("=") for line in lines)]
    else:
        pairs = [("count", text.strip())]
    check_keys(dict(pairs), REFRESH_OPTIONS, "The input refresh")
    parameters = [value for key, value in pairs if key == "parameters"]
    single = [(key, value) for key, value in pairs if key != "parameters"]
    if len({key for key, _ in single}) < len(single):
        raise typer.BadParameter("The input refresh has a key twice.")
    if not {"count", "zooms"} & {key for key, _ in single}:
        single.append(("count", "all"))
    for key, value in single:
        yield "refresh" if key == "count" else f"refresh-{key.replace('_', '-')}", value
    if parameters:
        yield "refresh-parameter", json.dumps(parameters)


def _several(name: str, text: str, *, separated_by_spaces: bool = False) -> list[str]:
    """A JSON list, or a value on each line."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise typer.BadParameter(f"The input {name} begins with [ but is not a JSON list: {error}.") from None
        if not all(isinstance(each, str) for each in found):
            raise typer.BadParameter(f"The input {name} is a list of something other than texts: quote its entries.")
        return list(found)
    return text.split() if separated_by_spaces else [line.strip() for line in text.splitlines() if line.strip()]


def _is_true(name: str, value: str) -> bool:
    if value.strip().lower() not in ("true", "false"):
        raise typer.BadParameter(f"The input {name} must be true or false.")
    return value.strip().lower() == "true"


def _call(command: str, options: list[str], arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """Run a command of this program. Returns its exit code and its document."""
    code: Any = 0
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            program(args=[command, "--json", *options, "--", *arguments], prog_name="fused-cache-ops")
        except SystemExit as ended:
            code = ended.code
    return int(code or 0), json.loads(printed.getvalue())


def _refused(message: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    output.complain(message)
    error = {"kind": "UsageError", "message": message, "retryable": False, "status": None, "exit_code": 2}
    return 2, {"error": error, "result": None, "remaining": None, "unfinished": []}, {}


# -- what GitHub reads ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _no_workflow_commands() -> Iterator[None]:
    """Keep GitHub from running what looks like a command of its own, such as ``::add-mask::``, in a UDF's name or an answer."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        yield
        return
    resume = secrets.token_hex(32)
    print(f"::stop-commands::{resume}", flush=True)
    try:
        yield
    finally:
        sys.stderr.flush()
        print(f"::{resume}::", flush=True)


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def _output(name: str, value: str) -> str:
    """An output, between delimiters that its value cannot know."""
    delimiter = secrets.token_hex(32)
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


def _escaped(message: str) -> str:
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


# -- the summary ----------------------------------------------------------------------------------------------------------


def _summary(document: Mapping[str, Any], plan: Mapping[str, Any], footprint: Path) -> Iterator[str]:
    """Markdown with what was done, and the footprint."""
    error = document.get("error")
    target = f" of {_text(plan['udf'])}" if "udf" in plan else f" of {_text(plan['dataset'])}" if "dataset" in plan else ""
    yield f"### Fused cache{target}: {_heading(document, plan)}\n"
    if error:
        yield f"{_text(error['message'])}\n"
    rows = _rows(document)
    if rows:
        yield from _table(("UDF", "tiles", "requests") if len(rows[0]) == 3 else ("", ""), rows)
    zooms = plan.get("tiles_per_zoom") or {}
    shown = footprint.read_text(encoding="utf-8") if footprint.exists() else ""
    boxes = {
        str(each["properties"]["zoom"]): _bounds(each["geometry"]) for each in json.loads(shown or "{}").get("features", ())
    }
    if zooms:
        yield from _table(("zoom", "tiles", "west, south, east, north"), [(z, n, boxes.get(z, "")) for z, n in zooms.items()])
    if boxes and len(shown) <= _LARGEST_MAP:
        yield f"<details><summary>Footprint</summary>\n\n```geojson\n{shown}\n```\n\n</details>\n"


def _rows(document: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """What was done or planned: a row for each UDF of a dataset, or for each value of a UDF."""
    result = document.get("result") if "error" in document else document
    if not result:
        return []
    if "dataset" in result:
        udfs = result.get("results", result.get("plans", {}))
        rows = [(name, _tiles(each), each.get("requests_sent", each.get("request_count"))) for name, each in udfs.items()]
        rows += [(name, f"failed: {each['message']}", "") for name, each in result.get("failed", {}).items()]
        return rows + [(name, f"refused: {why}", "") for name, why in result.get("refused", {}).items()]
    shown = {name: ", ".join(each) if isinstance(each, list) else each for name, each in result.items() if name in _SHOWN}
    if result.get("refresh"):
        shown["refreshed"] = str(RefreshResult.from_dict(result["refresh"])).removeprefix("refreshed: ")
    if isinstance(result.get("announcement"), dict):
        shown["open maps"] = str(Announcement.from_dict(result["announcement"]))
    if result.get("announce"):
        shown["afterwards"] = result["announce"]
    return [("tiles", _tiles(result)), *((name.replace("_", " "), value) for name, value in shown.items() if value)]


def _heading(document: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    if "error" in document:
        return _FAILED.get(document["error"]["exit_code"], "failed")
    if document is plan:
        return "only planned"
    results = document.get("results", {"": document}).values()
    return "invalidated" if any(each["client_ids"] for each in results) else "nothing to invalidate"


def _tiles(each: Mapping[str, Any]) -> str:
    count = each["tile_count"] if "tile_count" in each else each["tiles_invalidated"]
    return "everything" if count is None else f"{count:,}"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(_text(str(value)) for value in row)} |"
    yield ""


def _text(value: str) -> str:
    """A text in which nothing is markup."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(value.split()))


def _bounds(geometry: Mapping[str, Any]) -> str:
    corners = [corner for polygon in geometry["coordinates"] for ring in polygon for corner in ring]
    ends = [choose(corner[axis] for corner in corners) for choose in (min, max) for axis in (0, 1)]
    return ", ".join(f"{end:.5f}" for end in ends)
