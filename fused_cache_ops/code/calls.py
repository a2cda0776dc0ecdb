"""What the source of one UDF calls and caches.

A name counts if it is known without running the code: text, a constant, a default, and what is put together from these. What is
only known at run time is reported as unknown. Text and comments that only look like calls are not.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fused_cache_ops.code.atoms import FUSED, Literal, Text, Udf
from fused_cache_ops.code.layers import TileLayer, tile_layers
from fused_cache_ops.code.scopes import UNREADABLE, Function, Global, Scope, Unknown, last_part, why_unreadable
from fused_cache_ops.code.sql import HOLE
from fused_cache_ops.code.values import Values
from fused_cache_ops.keywords.inner_caches import SHARED_FOLDER, is_folder
from fused_cache_ops.secret import MASK, Secret, holds_shared_token, is_shared_token, masked_address, token_kind
from fused_cache_ops.wording import quoted, shortened

_LOADING = frozenset({"load", "load_async", "run", "run_async", "submit"})
_WATCHED = _LOADING | {"cache"}
_MAPPING = frozenset({"map", "map_async"})
_RUN_TIME = frozenset({"exec", "eval", "globals", "__import__"})
_AGE = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DAY = 86400
_PINNED = re.compile(r"https://github\.com/[^/]+/[^/]+/(?:tree|blob)/[0-9a-f]{7,40}/.+")
_OVER_HTTP = re.compile(r"https?://(?:(?:[\w-]+\.){0,3}udf\.ai|[^/?#]+/server/v1/realtime-shared)/([^?#]+)", re.IGNORECASE)
DECORATOR = "@fused.cache"
_TAIL = re.compile(r"(?:/run(?:/.*)?|\.[a-z0-9]{2,10})$", re.IGNORECASE)
_DRAWN = re.compile(r"[{%$]\{?[zxy]\}?")  # a template of tiles, which a browser fills in
# Functions of Fused's public library `common` that keep results by `@fused.cache`: their folder, and age where it is set.
_KEPT_IN_COMMON: dict[str, tuple[str, int | None]] = {
    "table_to_tile": ("table_to_tile", None),
    "geom_stats": ("geom_stats", None),
    **dict.fromkeys(("read_tiff", "read_tiff_safe", "mosaic_tiff", "get_tiff_info"), (SHARED_FOLDER, 90 * _DAY)),
    **dict.fromkeys(("stac_to_gdf", "get_url_aws_stac", "get_parquet_stats", "get_row_groups"), (SHARED_FOLDER, None)),
    **dict.fromkeys(("get_crs", "read_shapefile"), (SHARED_FOLDER, None)),
}


@dataclass(frozen=True)
class LoadedName:
    """A UDF that the source loads or runs, as it is named there.

    Attributes:
        name: the name or id. What may grant access is a `Secret`: a shared token, or an address.
        canvas: the value of ``collection_name=``, or None.
        line: where it stands, from 1.
        is_library: whether it is loaded from GitHub by commit, and only its functions are called.
        is_default: whether it is only the default of a parameter, so that others are possible.
    """

    name: str | Secret
    canvas: str | None
    line: int
    is_library: bool = False
    is_default: bool = False


@dataclass(frozen=True)
class CachedCall:
    """A cache inside the UDF that no invalidation reaches.

    Attributes:
        kind: ``@fused.cache``, or ``fused.submit`` or ``udf.map``, which keep results on the caller's side.
        function: the function that is cached, or that contains the call. ``<module>`` outside of any. A function of a library
            is named with it: ``common.read_tiff``.
        line: where it stands, from 1.
        max_age: seconds that a result is kept. None: not given (Fused's default is 48 hours) or not a constant.
        folder: its ``cache_folder_path``, or the folder in which the SDK keeps results on the caller's side, such as
            ``run-roads``. None: it is not known, or not on the drive.
        table_folder: the folder of the table of all results, if `fused.submit` keeps that too.
    """

    kind: str
    function: str
    line: int
    max_age: int | None
    folder: str | None = None
    table_folder: str | None = None

    @property
    def folders(self) -> tuple[str | None, ...]:
        """Its folders."""
        return (self.folder,) if self.table_folder is None else (self.folder, self.table_folder)

    @property
    def is_of_code(self) -> bool:
        """Whether the code itself names the folder, and not a library or Fused's SDK."""
        return self.kind == DECORATOR and not self.function.startswith("common.")


@dataclass(frozen=True)
class SourceReading:
    """What one source calls and caches, each in the order of lines.

    Attributes:
        loads: the UDFs that it loads or runs.
        unknown: what cannot be known.
        caches: caches inside that no invalidation reaches.
        max_age: the ``cache_max_age`` of the entry point's decorator, in seconds. None: not given, or not known.
        unknown_age: why ``max_age`` is not known, if it is given.
        h3_tables: the paths of the H3 tables that it queries, as far as they are known, each with its line.
        layers: the layers of maps in it that draw a UDF with ``tile: true``.
    """

    loads: tuple[LoadedName, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    caches: tuple[CachedCall, ...] = ()
    max_age: int | None = None
    unknown_age: Unknown | None = None
    h3_tables: tuple[tuple[str, int], ...] = ()
    layers: tuple[TileLayer, ...] = ()


def read_source(source: str | None, entrypoint: str | None = None) -> SourceReading:
    """Read what a UDF calls and caches. Never raises: what cannot be parsed is unknown, with the reason.

    Args:
        source: the UDF's code. None: the service did not return it.
        entrypoint: the name of the UDF's function. Default: ``udf``.
    """
    if source is None:
        return SourceReading(unknown=(Unknown("the service did not return the code", None),))
    return _read_source(source, entrypoint)


@functools.lru_cache(maxsize=512)
def _read_source(source: str, entrypoint: str | None) -> SourceReading:
    """Kept, because the calls for several UDFs of a canvas each read the code of all of it."""
    try:
        reading = calls_in(Values(source), entrypoint)
    except UNREADABLE as error:
        reading = SourceReading(unknown=(why_unreadable(error, source),))
    return replace(reading, layers=tile_layers(source))


def calls_in(values: Values, entrypoint: str | None = None) -> SourceReading:
    """What code calls and caches that has been parsed already. See `read_source`."""
    return _Reader(values, entrypoint or "udf").reading()


def age_in_seconds(value: object) -> int | None:
    """A ``cache_max_age`` in seconds: a number of seconds, or text such as ``"2h"``. None if it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    written = _AGE.fullmatch(text)
    return int(written[1]) * _SECONDS[written[2]] if written else 0 if text == "0" else None


def shown_name(load: LoadedName) -> str:
    """How a name may be shown: tokens masked, an address without its query, and not too long."""
    if not isinstance(load.name, Secret):
        return quoted(load.name)
    if is_shared_token(load.name.reveal()):
        return f"{token_kind(load.name.reveal())}{MASK}"
    return shortened(masked_address(re.sub(r"//[^/?#]*@", "//", re.split(r"[?#]", load.name.reveal())[0])))


class _Reader:
    def __init__(self, values: Values, entrypoint: str) -> None:
        self._values = values
        self._code = values.code
        self._entrypoint = entrypoint
        self._loads: list[LoadedName] = []
        self._unknown: dict[str, list[int]] = {}
        self._caches: list[CachedCall] = []
        self._max_age: int | None = None
        self._unknown_age: Unknown | None = None
        self._h3_tables: list[tuple[str, int]] = []
        self._run: set[str] = set()  # addresses of UDFs that are run, and not only their functions

    def reading(self) -> SourceReading:
        decorators = {id(each) for node, _ in self._code.decorated for each in node.decorator_list}
        for node, scope in self._code.decorated:
            self._read_decorators(node, scope)
        for call, scope in self._code.calls:
            self._read_call(call, scope, is_decorator=id(call) in decorators)
        names = self._names_of_fused()
        for use, scope in self._code.uses:
            if names.intersection(_root(use)):
                self._read_use(use, scope)
        unknown = [Unknown(repeated(reason, lines), min(lines)) for reason, lines in self._unknown.items()]
        if self._values.is_exhausted:
            unknown.append(Unknown("the code is too long to be followed to its end", None))
        return SourceReading(
            tuple(sorted(map(self._as_library, dict.fromkeys(self._loads)), key=lambda load: load.line)),
            tuple(sorted(unknown, key=lambda each: each.line or 0)),
            tuple(sorted(dict.fromkeys(self._caches), key=lambda cache: cache.line)),
            self._max_age,
            self._unknown_age,
            tuple(sorted(dict.fromkeys(self._h3_tables), key=lambda table: table[1])),
        )

    def _as_library(self, load: LoadedName) -> LoadedName:
        name = load.name.reveal() if isinstance(load.name, Secret) else ""
        is_library = _PINNED.fullmatch(name) is not None and name not in self._run
        return replace(load, is_library=is_library)

    def _is(self, node: ast.expr, scope: Scope, *names: str) -> bool:
        """Whether an expression is something of Fused's."""
        value = self._values.value(node, scope)
        return any(isinstance(each, Global) and each.parts[0] == "fused" and each.parts[-1] in names for each in value)

    def _read_decorators(self, node: Function, scope: Scope) -> None:
        for decorator in node.decorator_list:
            keywords = _keywords(decorator)
            if self._is(decorator.func if isinstance(decorator, ast.Call) else decorator, scope, "cache"):
                self._add_cache(node.name, decorator, keywords, scope)
            # Which decorator and which function, and that only a constant counts, are the rules of Fused's SDK.
            age = keywords.get("cache_max_age")
            if node.name == self._entrypoint and age is not None:
                self._max_age = _age(keywords)
                is_known = self._max_age is not None or _is_none(age)
                reason = "cache_max_age is neither a number of seconds nor text such as '2h'"
                self._unknown_age = None if is_known else Unknown(reason, decorator.lineno)

    def _add_cache(self, function: str, node: ast.expr, keywords: dict[str, ast.expr], scope: Scope) -> None:
        reset = keywords.get("cache_reset")
        if _is_zero(keywords.get("cache_max_age")) or (isinstance(reset, ast.Constant) and bool(reset.value)):
            return  # it never returns an older result
        folder = keywords.get("cache_folder_path")
        names = {SHARED_FOLDER} if _is_none(folder) else {each.text for each in self._values.texts(folder, scope)}
        name = names.pop().strip("/") if len(names) == 1 else HOLE  # as the SDK does
        storage = keywords.get("cache_storage")
        if not (_is_none(storage) or (isinstance(storage, ast.Constant) and storage.value in ("auto", "mount"))):
            name = HOLE  # it is not on the drive
        if HOLE not in name and not is_folder(name):
            name = HOLE  # it leads out of the folder of all caches
        self._caches.append(CachedCall(DECORATOR, function, node.lineno, _age(keywords), None if HOLE in name else name))

    def _read_call(self, call: ast.Call, scope: Scope, *, is_decorator: bool) -> None:
        callee = self._values.value(call.func, scope)
        named = next((each.parts for each in callee if isinstance(each, Global)), ("",))
        udfs = [each for each in callee if isinstance(each, Udf)]
        if isinstance(call.func, ast.Attribute) and call.func.attr in _MAPPING:
            mapped = [each for each in self._values.value(call.func.value, scope) if isinstance(each, Udf)]
            if mapped:
                names = {name.rpartition("/")[2] for each in mapped for name in each.names}
                self._read_client_cache(call, scope, f"udf.{call.func.attr}", names, keeps_table=False)
                udfs += mapped
        self._run.update(name for each in udfs for name in each.names)
        if named[0] == "fused" and named[-1] in _LOADING:
            self._read_name(call, named[-1], scope)
            if named[-1] == "submit":
                given = call.args[0] if call.args else _keywords(call).get("udf")
                value = self._values.value(given, scope) if given is not None else frozenset()
                names = {each.text for each in value if isinstance(each, Text)}
                names |= {name.rpartition("/")[2] for each in value if isinstance(each, Udf) for name in each.names or {HOLE}}
                self._read_client_cache(call, scope, "fused.submit", names, keeps_table=True)
        elif named[:2] == ("fused", "h3") and named[-1] == "query":
            self._read_h3_table(call, scope)
        elif named[0] == "fused" and named[-1] == "cache" and call.args and not is_decorator:
            self._add_cache(last_part(call.args[0]) or "<lambda>", call, _keywords(call), scope)
        elif named[0] == "fused" and named[-1].startswith("load_udf_from_"):
            self._note(f"what {named[-1]}() loads is not read", call)
        elif "common" in named[:-1] and named[0] in ("udf", "fused") and named[-1] in _KEPT_IN_COMMON:
            folder, age = _KEPT_IN_COMMON[named[-1]]
            self._caches.append(CachedCall(DECORATOR, f"common.{named[-1]}", call.lineno, age, folder))
        elif not any(isinstance(each, (Literal, Udf)) for each in callee):
            self._read_addresses(call, scope)
        if named[0] != "fused":
            self._read_unknown_callee(call, scope)

    def _read_h3_table(self, call: ast.Call, scope: Scope) -> None:
        given = call.args[0] if call.args else _keywords(call).get("path")
        texts = () if given is None else {each.text for each in self._values.texts(given, scope)}
        self._h3_tables += [(text, call.lineno) for text in sorted(texts) if text and HOLE not in text]

    def _read_unknown_callee(self, call: ast.Call, scope: Scope) -> None:
        function, owner = call.func, getattr(call.func, "value", None)
        if isinstance(function, ast.Name) and scope.find(function.id) is None:
            is_import_of_other = any(isinstance(each, Global) for each in self._values.value(call, scope))
            if function.id in _RUN_TIME and not is_import_of_other:
                self._note(f"{function.id}() can reach UDFs in ways that are only known at run time", call)
            elif function.id in _LOADING and self._code.star_of is not None:
                self._note(f"whether {function.id}() is Fused's depends on 'from {self._code.star_of} import *'", call)
        elif isinstance(owner, ast.Name) and owner.id == "fused" and getattr(function, "attr", "") in _LOADING:
            self._note("whether 'fused' is the module here is only known at run time", call)

    def _read_addresses(self, call: ast.Call, scope: Scope) -> None:
        """UDFs that are run over HTTP."""
        for given in (
            *call.args[:2],
            *(each.value for each in call.keywords if each.arg in ("url", "path", "filepath_or_buffer")),
        ):
            for text in sorted({each.text for each in self._values.texts(given, scope)}):
                address = _OVER_HTTP.match(text)
                if address is None or _DRAWN.search(text):
                    continue
                token = _TAIL.sub("", address[1])
                if is_shared_token(token) and HOLE not in token:
                    self._loads.append(LoadedName(Secret(token), None, call.lineno))
                else:
                    self._note("a UDF is run over HTTP, and which one is only known at run time", call)

    def _read_name(self, call: ast.Call, name: str, scope: Scope) -> None:
        keywords = _keywords(call)
        given = call.args[0] if call.args else keywords.get("udf", keywords.get("url_or_udf"))
        shown = f"fused.{name}()"
        if given is None or isinstance(given, ast.Starred):
            self._note(f"the arguments of {shown} are only known at run time", call)
            return
        value = self._values.value(given, scope)
        udfs = [each for each in value if isinstance(each, Udf) or _is_udf(each)]
        texts = {each for each in value - frozenset(udfs) if isinstance(each, Text) and HOLE not in each.text}
        if not name.startswith("load"):
            self._run.update(text for each in udfs if isinstance(each, Udf) for text in each.names)
            self._run.update(each.text for each in texts)
        if (
            len(texts) + len(udfs) < len(value)
            or not value
            or (isinstance(given, ast.Constant) and not isinstance(given.value, str))
        ):
            self._note(f"{shown} takes {_described(given)}, which is only known at run time", call)
        elif any(each.is_default for each in texts):
            self._note(f"{shown} takes {_described(given)}, of which only a default is known", call)
        canvas: str | None = None
        if name.startswith("load") and not _is_none(keywords.get("collection_name")):
            canvases = [each.text for each in self._values.texts(keywords["collection_name"], scope)]
            if len(canvases) != 1 or HOLE in canvases[0]:
                self._note(f"collection_name of {shown} is only known at run time", call)
                return
            canvas = canvases[0]
        elif None in (each.arg for each in call.keywords) and name.startswith("load"):
            self._note(f"the arguments of {shown} are only known at run time", call)
        for text, is_default in sorted(texts):
            if "\n" in text:
                self._note(f"{shown} takes code as text, which is not read", call)
            elif text.strip() and not (isinstance(given, ast.Constant) and not isinstance(given.value, str)):
                self._loads.append(LoadedName(_sealed(text.strip()), canvas, call.lineno, is_default=is_default))

    def _read_client_cache(self, call: ast.Call, scope: Scope, kind: str, names: set[str], *, keeps_table: bool) -> None:
        """By the SDK's rules, `fused.submit` and `udf.map` keep each run's result, and the former also the table of all. They
        do so in folders that are called after the UDF."""
        keywords = _keywords(call)
        cache, age, run_age = (keywords.get(name) for name in ("cache", "cache_max_age", "run_cache_max_age"))
        if isinstance(cache, ast.Constant) and not cache.value:
            return
        if _is_none(run_age):
            run_age = age
        collect = keywords.get("collect")
        keeps_table = keeps_table and not (isinstance(collect, ast.Constant) and not collect.value)
        if keeps_table and _is_none(age):
            given = call.args[0] if call.args else keywords.get("udf")
            texts = self._values.value(given, scope) if given is not None else ()
            keeps_table = not (
                texts and all(isinstance(each, Text) and HOLE not in each.text for each in texts)
            )  # by name: not kept
        kept = [each for each in (run_age, age if keeps_table else run_age) if not _is_zero(each)]
        if kept:
            ages = [age_in_seconds(each.value) if isinstance(each, ast.Constant) else None for each in kept]
            longest = None if None in ages else max(each for each in ages if each is not None)
            (name,) = names if len(names) == 1 else {HOLE}
            is_known = HOLE not in name and is_folder(name) and not isinstance(_sealed(name), Secret)
            folders = (f"run-{name}", f"submit-{name}" if keeps_table else None) if is_known else (None, None)
            self._caches.append(CachedCall(kind, scope.function, call.lineno, longest, *folders))

    def _read_use(self, use: ast.Name | ast.Attribute, scope: Scope) -> None:
        """Note where Fused's functions are handed on, so that calls of them cannot be followed, and public UDFs."""
        if isinstance(use, ast.Attribute) and Global(("fused", "utils")) in self._values.value(use.value, scope):
            self._loads.append(LoadedName(f"public/{use.attr}", None, use.lineno))
        if id(use) in self._code.traced:
            return
        for value in self._values.value(use, scope):
            if value == FUSED or (
                isinstance(value, Global) and value.parts[0] == "fused" and value.parts[-1] in ("utils", *_WATCHED)
            ):
                shown = "the module fused" if value == FUSED else f"fused.{value.parts[-1]}"
                self._note(f"{shown} is handed on, and what becomes of it is only known at run time", use)

    def _names_of_fused(self) -> set[str]:
        """The names that may stand for Fused's module or something in it. Others need not be followed."""
        names = {"fused", "importlib", "import_module", "__import__", *(_WATCHED if self._code.star_of_fused else ())}
        count = 0
        while count < len(names):
            count = len(names)
            for name, binding in self._code.bound:
                bound = binding.bound
                is_import = isinstance(bound, Global) and bound.parts[0] == "fused"
                if is_import or (isinstance(bound, ast.AST) and names.intersection(_root(bound))):
                    names.add(name)
        return names

    def _note(self, reason: str, node: ast.expr) -> None:
        self._unknown.setdefault(reason, []).append(node.lineno)


def _root(node: ast.AST) -> Iterator[str]:
    """The names that an expression begins with."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call, ast.Await, ast.NamedExpr)):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, (ast.IfExp, ast.BoolOp)):
        for each in ast.iter_child_nodes(node):
            yield from _root(each)


def _is_udf(atom: object) -> bool:
    """Whether it is a function, which `fused.submit` takes too."""
    return isinstance(atom, Literal) and isinstance(atom.node, (ast.FunctionDef, ast.AsyncFunctionDef))


def _sealed(name: str) -> str | Secret:
    return Secret(name) if is_shared_token(name) or "://" in name or holds_shared_token(name) else name


def is_udf_address(address: str) -> bool:
    """Whether an address runs a UDF over HTTP."""
    return _OVER_HTTP.match(address) is not None


def repeated(reason: str, lines: Iterable[int]) -> str:
    """The reason, and in how many more lines than the first it holds."""
    others = len(set(lines)) - 1
    return (
        f"{reason} (and in {others:,} more lines)" if others > 1 else f"{reason} (and in one more line)" if others else reason
    )


def _keywords(node: ast.expr) -> dict[str, ast.expr]:
    if not isinstance(node, ast.Call):
        return {}
    return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}


def _age(keywords: dict[str, ast.expr]) -> int | None:
    age = keywords.get("cache_max_age")
    return age_in_seconds(age.value) if isinstance(age, ast.Constant) else None


def _is_zero(age: ast.expr | None) -> bool:
    return isinstance(age, ast.Constant) and age_in_seconds(age.value) == 0


def _is_none(node: ast.expr | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def _described(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return f"the variable {node.id!r}"
    kinds = {ast.Attribute: "an attribute", ast.Call: "the result of a call", ast.JoinedStr: "an f-string"}
    return kinds.get(type(node), "an item" if isinstance(node, ast.Subscript) else "an expression")
