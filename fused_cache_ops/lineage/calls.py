"""What the source of one UDF calls and caches. The source is read with `ast`, and never run.

A name counts if it is a constant: text, a constant of the module or function, an f-string or a sum of these, or either branch
of a condition. What is put together at run time is reported as unknown. Text and comments that only look like calls are not.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Union

from fused_cache_ops.lineage.scopes import UNREADABLE, Bound, Function, FusedName, Scope, Scopes, parsed, why_unreadable
from fused_cache_ops.secret import Secret, holds_shared_token, is_shared_token

_LOADING = frozenset({"load", "load_async", "run", "run_async", "submit"})
_WATCHED = _LOADING | {"cache"}
_MAPPING = frozenset({"map", "map_async"})
_RUN_TIME = frozenset({"exec", "eval", "globals", "__import__"})
_MOST_NAMES = 16
_LONGEST_NAME = 1_000
_AGE = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class LoadedName:
    """A UDF that the source loads or runs, as it is named there.

    Attributes:
        name: the name or id. What may grant access is a `Secret`: a shared token, or an address.
        canvas: the value of ``collection_name=``, or None.
        line: where it stands, from 1.
    """

    name: str | Secret
    canvas: str | None
    line: int


@dataclass(frozen=True)
class UnknownName:
    """Something that cannot be known from the source.

    Attributes:
        reason: what, and why.
        line: where it stands, from 1. None: the whole source.
    """

    reason: str
    line: int | None


@dataclass(frozen=True)
class CachedCall:
    """A cache inside the UDF that no invalidation reaches.

    Attributes:
        kind: ``@fused.cache``, or ``fused.submit`` or ``udf.map``, which keep results on the caller's side.
        function: the function that is cached, or that contains the call. ``<module>`` outside of any.
        line: where it stands, from 1.
        max_age: seconds that a result is kept. None: not given (Fused's default is 48 hours) or not a constant.
    """

    kind: str
    function: str
    line: int
    max_age: int | None


@dataclass(frozen=True)
class SourceReading:
    """What one source calls and caches, each in the order of lines.

    Attributes:
        loads: the UDFs that it loads or runs.
        unknown: what cannot be known.
        caches: caches inside that no invalidation reaches.
        max_age: the ``cache_max_age`` of the entry point's decorator, in seconds. None: not given, or not known.
        unknown_age: why ``max_age`` is not known, if it is given.
    """

    loads: tuple[LoadedName, ...] = ()
    unknown: tuple[UnknownName, ...] = ()
    caches: tuple[CachedCall, ...] = ()
    max_age: int | None = None
    unknown_age: UnknownName | None = None


def read_source(source: str | None, entrypoint: str | None = None) -> SourceReading:
    """Read what a UDF calls and caches. Never raises: what cannot be parsed is unknown, with the reason.

    Args:
        source: the UDF's code. None: the service did not return it.
        entrypoint: the name of the UDF's function. Default: ``udf``.
    """
    if source is None:
        return _unreadable("the service did not return the code")
    try:
        return _Reader(parsed(source), entrypoint or "udf").reading()
    except UNREADABLE as error:
        return _unreadable(*why_unreadable(error, source))


def age_in_seconds(value: object) -> int | None:
    """A ``cache_max_age`` in seconds: a number of seconds, or text such as ``"2h"``. None if it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    found = _AGE.fullmatch(text)
    return int(found[1]) * _SECONDS[found[2]] if found else 0 if text == "0" else None


def _unreadable(reason: str, line: int | None = None) -> SourceReading:
    return SourceReading(unknown=(UnknownName(reason, line),))


# -- what the calls mean ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AUdf:
    """A UDF as an object. Its name was read where it was loaded."""


_Texts = frozenset[Union[str, int, float]]
_Value = Union[_Texts, FusedName, _AUdf, None]


class _Reader:
    def __init__(self, module: ast.Module, entrypoint: str) -> None:
        self._found = Scopes(module)
        self._entrypoint = entrypoint
        self._known: dict[tuple[int, int], _Value] = {}
        self._loads: list[LoadedName] = []
        self._unknown: list[UnknownName] = []
        self._caches: list[CachedCall] = []
        self._max_age: int | None = None
        self._unknown_age: UnknownName | None = None

    def reading(self) -> SourceReading:
        decorators = {id(each) for node, _ in self._found.decorated for each in node.decorator_list}
        for node, scope in self._found.decorated:
            self._read_decorators(node, scope)
        for call, scope in self._found.calls:
            self._read_call(call, scope, is_decorator=id(call) in decorators)
        for use, scope in self._found.uses:
            self._read_use(use, scope)
        return SourceReading(
            tuple(sorted(dict.fromkeys(self._loads), key=lambda load: load.line)),
            tuple(sorted(dict.fromkeys(self._unknown), key=lambda each: each.line or 0)),
            tuple(sorted(dict.fromkeys(self._caches), key=lambda cache: cache.line)),
            self._max_age,
            self._unknown_age,
        )

    def _read_decorators(self, node: Function, scope: Scope) -> None:
        for decorator in node.decorator_list:
            keywords = _keywords(decorator)
            function = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self._value(function, scope) == FusedName("cache") and not _is_off(keywords):
                self._caches.append(CachedCall("@fused.cache", node.name, decorator.lineno, _age(keywords)))
            # Which decorator and which function, and that only a constant counts, are the rules of Fused's SDK.
            age = keywords.get("cache_max_age")
            if node.name == self._entrypoint and age is not None:
                self._max_age = _age(keywords)
                is_known = self._max_age is not None or _is_none(age)
                reason = "cache_max_age is neither a number of seconds nor text such as '2h'"
                self._unknown_age = None if is_known else UnknownName(reason, decorator.lineno)

    def _read_call(self, call: ast.Call, scope: Scope, *, is_decorator: bool) -> None:
        callee = self._value(call.func, scope)
        if callee is None:
            self._read_unknown_callee(call, scope)
        method = call.func if isinstance(call.func, ast.Attribute) else None
        if method is not None and method.attr in _MAPPING and self._value(method.value, scope) == _AUdf():
            self._read_client_cache(call, scope, f"udf.{method.attr}", keeps_table=False)
        if not isinstance(callee, FusedName):
            return
        if callee.name in _LOADING:
            self._read_name(call, callee.name, scope)
            if callee.name == "submit":
                self._read_client_cache(call, scope, "fused.submit", keeps_table=True)
        elif callee.name == "cache" and call.args and not is_decorator:
            kept = call.args[0]
            if not _is_off(_keywords(call)):
                name = kept.id if isinstance(kept, ast.Name) else kept.attr if isinstance(kept, ast.Attribute) else "<lambda>"
                self._caches.append(CachedCall("@fused.cache", name, call.lineno, _age(_keywords(call))))
        elif callee.name.startswith("load_udf_from_"):
            self._note(f"what {callee.name}() loads is not read", call)

    def _read_unknown_callee(self, call: ast.Call, scope: Scope) -> None:
        function, owner = call.func, getattr(call.func, "value", None)
        if isinstance(function, ast.Name) and scope.find(function.id) is None:
            if function.id in _RUN_TIME and self._value(call, scope) is None:
                self._note(f"{function.id}() can reach UDFs in ways that are only known at run time", call)
            elif function.id in _LOADING and self._found.star_of is not None:
                self._note(f"whether {function.id}() is Fused's depends on 'from {self._found.star_of} import *'", call)
        elif isinstance(owner, ast.Name) and owner.id == "fused" and getattr(function, "attr", "") in _LOADING:
            self._note("whether 'fused' is the module here is only known at run time", call)

    def _read_name(self, call: ast.Call, name: str, scope: Scope) -> None:
        keywords = _keywords(call)
        given = call.args[0] if call.args else keywords.get("udf", keywords.get("url_or_udf"))
        shown = f"fused.{name}()"
        if given is None or isinstance(given, ast.Starred):
            self._note(f"the arguments of {shown} are only known at run time", call)
            return
        value = self._value(given, scope)
        if isinstance(value, _AUdf):
            return
        names = sorted(text for text in value if isinstance(text, str)) if isinstance(value, frozenset) else []
        if not isinstance(value, frozenset) or len(names) < len(value):
            self._note(f"{shown} takes {_described(given)}, which is only known at run time", call)
        canvas: str | None = None
        if name.startswith("load") and not _is_none(keywords.get("collection_name")):
            canvases = self._value(keywords["collection_name"], scope)
            found = [text for text in canvases if isinstance(text, str)] if isinstance(canvases, frozenset) else []
            if len(found) != 1:
                self._note(f"collection_name of {shown} is only known at run time", call)
                return
            canvas = found[0]
        elif None in (each.arg for each in call.keywords) and name.startswith("load"):
            self._note(f"the arguments of {shown} are only known at run time", call)
        for text in names:
            if "\n" in text:
                self._note(f"{shown} takes code as text, which is not read", call)
            elif text.strip():
                self._loads.append(LoadedName(_sealed(text.strip()), canvas, call.lineno))

    def _read_client_cache(self, call: ast.Call, scope: Scope, kind: str, *, keeps_table: bool) -> None:
        """By the SDK's rules, `fused.submit` and `udf.map` keep each run's result, and the former also the table of all."""
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
            keeps_table = given is None or not isinstance(self._value(given, scope), frozenset)  # given by name: not kept
        kept = [each for each in (run_age, age if keeps_table else run_age) if not _is_zero(each)]
        if kept:
            ages = [age_in_seconds(each.value) if isinstance(each, ast.Constant) else None for each in kept]
            longest = None if None in ages else max(each for each in ages if each is not None)
            self._caches.append(CachedCall(kind, scope.function, call.lineno, longest))

    def _read_use(self, use: ast.Name | ast.Attribute, scope: Scope) -> None:
        """Note where Fused's functions are handed on, so that calls of them cannot be followed, and public UDFs."""
        if isinstance(use, ast.Attribute) and self._value(use.value, scope) == FusedName("utils"):
            self._loads.append(LoadedName(f"public/{use.attr}", None, use.lineno))
        if id(use) in self._found.traced:
            return
        value = self._value(use, scope)
        if isinstance(value, FusedName) and value.name in ("", "utils", *_WATCHED):
            shown = f"fused.{value.name}" if value.name else "the module fused"
            self._note(f"{shown} is handed on, and what becomes of it is only known at run time", use)

    def _note(self, reason: str, node: ast.expr) -> None:
        self._unknown.append(UnknownName(reason, node.lineno))

    # -- values -------------------------------------------------------------------------------------------------------

    def _value(self, node: Bound, scope: Scope) -> _Value:
        """What an expression is, as far as it is constant. None: only known at run time."""
        if node is None or isinstance(node, FusedName):
            return node
        key = (id(node), id(scope))
        if key not in self._known:
            self._known[key] = None  # for a name that is defined by itself
            self._known[key] = self._evaluate(node, scope)
        return self._known[key]

    def _evaluate(self, node: ast.AST, scope: Scope) -> _Value:
        if isinstance(node, ast.Constant):
            return _constant(node.value)
        if isinstance(node, ast.Name):
            return self._look_up(node.id, scope)
        if isinstance(node, ast.Attribute):
            owner = self._value(node.value, scope)
            return FusedName(node.attr) if isinstance(owner, FusedName) and owner.name != "utils" else None
        if isinstance(node, ast.Call):
            return self._result(node, scope)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return _AUdf()  # `fused.submit` takes plain functions too
        if isinstance(node, (ast.Await, ast.NamedExpr)):
            return self._value(node.value, scope)
        if isinstance(node, ast.IfExp):
            return _either([self._value(node.body, scope), self._value(node.orelse, scope)])
        if isinstance(node, ast.BoolOp):
            return _either([self._value(each, scope) for each in node.values])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            parts = [self._value(node.left, scope), self._value(node.right, scope)]
            is_text = all(isinstance(part, frozenset) and all(isinstance(each, str) for each in part) for part in parts)
            return _joined(parts) if is_text else None
        if isinstance(node, ast.JoinedStr):
            return _joined([self._value(each, scope) for each in node.values])
        if isinstance(node, ast.FormattedValue) and node.format_spec is None and node.conversion in (-1, ord("s")):
            return self._value(node.value, scope)
        return None

    def _look_up(self, name: str, scope: Scope) -> _Value:
        found = scope.find(name)
        if found is None:
            if name == "fused":  # Fused provides it
                return FusedName()
            return FusedName(name) if self._found.star_of_fused and name in (*_WATCHED, "udf", "utils") else None
        home, bound = found
        values = [self._value(each, home) for each in bound]
        return next((value for value in values if isinstance(value, FusedName)), None) or _either(values)

    def _result(self, call: ast.Call, scope: Scope) -> _Value:
        function = self._value(call.func, scope)
        if isinstance(function, FusedName):
            if function.name in ("load", "load_async", "udf"):
                return _AUdf()
            if function.name == "cache" and not call.args:
                return function  # a decorator with its arguments
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        if name in ("import_module", "__import__") and call.args and self._value(call.args[0], scope) == frozenset({"fused"}):
            return FusedName()
        return None


def _sealed(name: str) -> str | Secret:
    return Secret(name) if is_shared_token(name) or "://" in name or holds_shared_token(name) else name


def _constant(value: object) -> _Value:
    if isinstance(value, str):
        return frozenset({value}) if len(value) <= _LONGEST_NAME or "\n" in value else None
    if isinstance(value, (int, float)) and abs(value) < 1e15:
        return frozenset({value})
    return None


def _either(values: list[_Value]) -> _Value:
    if values and all(isinstance(value, _AUdf) for value in values):
        return _AUdf()
    if not values or not all(isinstance(value, frozenset) for value in values):
        return None
    together: _Texts = frozenset().union(*(value for value in values if isinstance(value, frozenset)))
    is_text = all(isinstance(each, str) for each in together)  # numbers that are equal may be written differently
    return together if len(values) == 1 or (is_text and len(together) <= _MOST_NAMES) else None


def _joined(parts: list[_Value]) -> _Value:
    texts = {""}
    for part in parts:
        if not isinstance(part, frozenset):
            return None
        texts = {f"{text}{each}" for text in texts for each in part}
        if len(texts) > _MOST_NAMES or max(map(len, texts)) > _LONGEST_NAME:
            return None
    return frozenset(texts)


def _keywords(node: ast.expr) -> dict[str, ast.expr]:
    if not isinstance(node, ast.Call):
        return {}
    return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}


def _age(keywords: dict[str, ast.expr]) -> int | None:
    age = keywords.get("cache_max_age")
    return age_in_seconds(age.value) if isinstance(age, ast.Constant) else None


def _is_off(keywords: dict[str, ast.expr]) -> bool:
    """Whether `fused.cache` never returns an older result."""
    reset = keywords.get("cache_reset")
    return _is_zero(keywords.get("cache_max_age")) or (isinstance(reset, ast.Constant) and bool(reset.value))


def _is_zero(age: ast.expr | None) -> bool:
    return isinstance(age, ast.Constant) and age_in_seconds(age.value) == 0


def _is_none(node: ast.expr | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def _described(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return f"the variable {node.id!r}"
    kinds = {ast.Attribute: "an attribute", ast.Call: "the result of a call", ast.JoinedStr: "an f-string"}
    return kinds.get(type(node), "an item" if isinstance(node, ast.Subscript) else "an expression")
