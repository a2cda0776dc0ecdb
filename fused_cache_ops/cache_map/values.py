"""The texts that an expression in a UDF's code may be, as far as they are known without running it.

Known are literals, names that are bound to them, defaults of parameters, what functions of the same code are called with and
return, and what is put together from these. A part that is only known at run time is `HOLE`.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fused_cache_ops.cache_map.sql import HOLE
from fused_cache_ops.lineage.scopes import Bound, Function, Scope, Scopes

_MOST = 200
_LONGEST = 20_000
_MOST_CHARACTERS = 20_000_000
_MOST_ENTRIES = 2_000
_SAME = frozenset(
    {"str", "Path", "PurePath", "PurePosixPath", "UPath", "text", "SQL", "dedent", "cleandoc", "fspath"}
    | {"sorted", "list", "tuple", "set", "tqdm"}
)


class Text(NamedTuple):
    """One text that an expression may be.

    Attributes:
        text: the text. `HOLE` stands for each part that is only known at run time.
        is_default: whether it can be another one, as it comes from the default of a parameter or of the environment.
    """

    text: str
    is_default: bool = False


Texts = frozenset[Text]

UNKNOWN: Texts = frozenset({Text(HOLE)})
"""Only known at run time."""

NOTHING: Texts = frozenset()
"""No text at all: ``None``, or a file that was opened, which is read where it was opened."""


class Code(Scopes):
    """The scopes of a UDF's code, and what else is needed to follow values."""

    def __init__(self, module: ast.Module) -> None:
        self.imported: dict[str, tuple[str, ...]] = {}
        self.returned: dict[int, list[ast.expr]] = {}  # by the id of the function's scope
        self.added: dict[tuple[int, str], list[ast.expr]] = {}  # by `+=`, by the id of the scope and the name
        super().__init__(module)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.asname is not None:
                self.imported[alias.asname] = tuple(alias.name.split("."))
        super().visit_Import(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.imported[alias.asname or alias.name] = (*(node.module or "").split("."), alias.name)
        super().visit_ImportFrom(node)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._bind_each(node.target, node.iter)
        for part in (node.iter, *node.body, *node.orelse):
            self.visit(part)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.visit_For(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind_each(node.target, node.iter)
        for part in (node.iter, *node.ifs):
            self.visit(part)

    def _bind_each(self, target: ast.expr, values: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.scope.bind(target.id, values)  # a list is any of its items
        else:
            self.visit(target)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            if item.optional_vars is not None:
                self._bind_each(item.optional_vars, item.context_expr)
            self.visit(item.context_expr)
        for part in node.body:
            self.visit(part)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self.visit_With(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and isinstance(node.op, ast.Add) and node.target.id in self.scope.bindings:
            self.added.setdefault((id(self.scope), node.target.id), []).append(node.value)
            self.visit(node.value)
        else:
            self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.returned.setdefault(id(self.scope), []).append(node.value)
            self.visit(node.value)


class Values:
    """What expressions of one code are.

    Args:
        code: the code.
        opens: whether a call, by its dotted name, opens a file, so that what it returns is no path.
    """

    def __init__(self, code: Code, opens: Callable[[tuple[str, ...]], bool]) -> None:
        self._code = code
        self._opens = opens
        self._known: dict[tuple[int, int], Texts] = {}
        self._pending: set[tuple[int, int]] = set()  # what is being evaluated
        self._left = _MOST_CHARACTERS  # that may still be put together
        self._functions = {id(node): node for node, _ in code.decorated}
        self._calls: dict[int, list[tuple[ast.Call, Scope]]] = {}
        self._owners = {id(code.bodies[each]): node for each, node in self._functions.items()}
        for call, scope in code.calls:
            function = self.function(call.func, scope)
            if function is not None:
                self._calls.setdefault(id(function), []).append((call, scope))

    def function(self, node: ast.expr, scope: Scope) -> Function | None:
        """The function of the same code that a name stands for."""
        found = scope.find(node.id) if isinstance(node, ast.Name) else None
        if found is None or len(found[1]) != 1 or not isinstance(found[1][0], (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
        return found[1][0]

    def dotted(self, node: ast.expr, scope: Scope) -> tuple[str, ...]:
        """What is called, part by part, imports resolved: ``("pandas", "read_csv")``. The first is empty if it is no name."""
        parts: list[str] = []
        for _ in range(20):
            if isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
                continue
            if not isinstance(node, ast.Name):
                break
            found = scope.find(node.id)
            bound = found[1][0] if found is not None and len(found[1]) == 1 else None
            if not isinstance(bound, (ast.Name, ast.Attribute)):
                return (*self._code.imported.get(node.id, (node.id,)), *reversed(parts))
            node = bound
        return ("", *reversed(parts))

    def is_udf(self, node: ast.expr, scope: Scope) -> bool:
        """Whether an expression is a UDF that was loaded."""
        if isinstance(node, ast.Call):
            return self.dotted(node.func, scope) in (("fused", "load"), ("fused", "load_async"))
        found = scope.find(node.id) if isinstance(node, ast.Name) else None
        return found is not None and any(isinstance(each, ast.Call) and self.is_udf(each, found[0]) for each in found[1])

    def texts(self, node: Bound, scope: Scope) -> Texts:
        """Every text that an expression may be."""
        if not isinstance(node, ast.AST):
            return UNKNOWN
        key = (id(node), id(scope))
        if key in self._pending:
            return UNKNOWN
        if key not in self._known:
            self._pending.add(key)
            value = _limited(self._evaluate(node, scope)) if self._left > 0 else UNKNOWN
            self._left -= sum(len(each.text) for each in value)
            self._pending.discard(key)
            self._known[key] = value
        return self._known[key]

    def _evaluate(self, node: ast.AST, scope: Scope) -> Texts:
        if isinstance(node, ast.Constant):
            return _constant(node.value)
        if isinstance(node, ast.Name):
            return self._look_up(node.id, scope)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return _either(self.texts(each, scope) for each in node.elts)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            return self.texts(node.elt, self._code.bodies[id(node)])
        if isinstance(node, (ast.Await, ast.NamedExpr, ast.Starred)):
            return self.texts(node.value, scope)
        if isinstance(node, ast.IfExp):
            return _either([self.texts(node.body, scope), self.texts(node.orelse, scope)])
        if isinstance(node, ast.BoolOp):
            return self._alternatives(node, scope)
        if isinstance(node, ast.BinOp):
            return self._operation(node, scope)
        if isinstance(node, ast.JoinedStr):
            return _joined([self.texts(each, scope) for each in node.values])
        if isinstance(node, ast.FormattedValue) and node.format_spec is None and node.conversion in (-1, ord("s")):
            return self.texts(node.value, scope)
        if isinstance(node, ast.Subscript):
            return self._item(node, scope)
        if isinstance(node, ast.Call):
            return self._result(node, scope)
        return UNKNOWN

    def _alternatives(self, node: ast.BoolOp, scope: Scope) -> Texts:
        """``path or DEFAULT``: if what is given is not known, the default."""
        values = [self.texts(each, scope) for each in node.values]
        known = _either(value for value in values if value != UNKNOWN)
        if UNKNOWN in values and isinstance(node.op, ast.Or) and known:
            return frozenset(Text(each.text, True) for each in known)
        return _either(values)

    def _operation(self, node: ast.BinOp, scope: Scope) -> Texts:
        left, right = self.texts(node.left, scope), self.texts(node.right, scope)
        if isinstance(node.op, ast.Add):
            is_list = any(isinstance(each, (ast.List, ast.ListComp)) for each in (node.left, node.right))
            return _either([left, right]) if is_list else _joined([left, right])
        if isinstance(node.op, ast.Div):
            return _path([left, right])
        if isinstance(node.op, ast.Mod):
            return frozenset(Text(_without_percents(each.text), each.is_default) for each in left)
        return UNKNOWN

    def _look_up(self, name: str, scope: Scope) -> Texts:
        found = scope.find(name)
        if found is None:
            return UNKNOWN
        home, bound = found
        # What a name is defined by itself, as in `path = path.strip()`, is not followed twice.
        others = [each for each in bound if each is not None and (id(each), id(home)) not in self._pending]
        values = [self.texts(each, home) for each in others]
        if None in bound or not others:
            is_parameter = id(home) in self._owners and name in _parameters(self._owners[id(home)])
            given = self._given(name, home) if is_parameter else UNKNOWN
            known = _either(values)
            if given == UNKNOWN and known - UNKNOWN and _is_none(home.defaults.get(name)):
                values = [frozenset(Text(each.text, True) for each in known)]  # `path=None`, and a default where it is None
            else:
                values.append(given)
        together = _either(values)
        for added in self._code.added.get((id(home), name), ()):
            together = _joined([together, self.texts(added, home)])
        return together

    def _given(self, name: str, home: Scope) -> Texts:
        """What a parameter is: its default, and what the code itself passes."""
        function = self._owners[id(home)]
        values = []
        calls = self._calls.get(id(function), [])
        default = home.defaults.get(name)
        uses_default = not calls
        for call, scope in calls:
            given = _argument(call, function, name)
            if given is None:
                uses_default = True
            else:
                values.append(self.texts(given, scope))
        if uses_default:
            value = UNKNOWN if default is None or home.parent is None else self.texts(default, home.parent)
            values.append(UNKNOWN if value in (UNKNOWN, NOTHING) else frozenset(Text(each.text, True) for each in value))
        return _either(values)

    def _literal(self, node: ast.expr, scope: Scope) -> tuple[ast.expr, Scope]:
        """What a name is bound to, if it is bound once."""
        found = scope.find(node.id) if isinstance(node, ast.Name) else None
        if found is not None and len(found[1]) == 1 and isinstance(found[1][0], (ast.Dict, ast.List, ast.Tuple)):
            return found[1][0], found[0]
        return node, scope

    def _item(self, node: ast.Subscript, scope: Scope) -> Texts:
        owner, home = self._literal(node.value, scope)
        if isinstance(owner, ast.Dict):
            return self._entry(owner, home, node.slice)
        if isinstance(owner, (ast.List, ast.Tuple)):
            wanted = node.slice.value if isinstance(node.slice, ast.Constant) else None
            if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(owner.elts):
                return self.texts(owner.elts[wanted], home)
            return self.texts(owner, home)
        return NOTHING if self.texts(node.value, scope) == NOTHING else UNKNOWN

    def _entry(self, owner: ast.Dict, home: Scope, key: ast.expr | None) -> Texts:
        """The value of a key that is known, otherwise any value."""
        if len(owner.values) > _MOST_ENTRIES:
            return UNKNOWN
        if isinstance(key, ast.Constant):
            for each, value in zip(owner.keys, owner.values):
                if isinstance(each, ast.Constant) and each.value == key.value:
                    return self.texts(value, home)
        return _either(self.texts(value, home) for value in owner.values)

    def _result(self, call: ast.Call, scope: Scope) -> Texts:
        function = self.function(call.func, scope)
        if function is not None:
            body = self._code.bodies[id(function)]
            return _either(self.texts(each, body) for each in self._code.returned.get(id(body), ())) or UNKNOWN
        name = self.dotted(call.func, scope)
        if name[-2:] == ("path", "join"):
            return _path([self.texts(each, scope) for each in call.args])
        if name[-2:] in (("environ", "get"), ("os", "getenv")):
            default = self.texts(call.args[1], scope) if len(call.args) > 1 else UNKNOWN
            return frozenset(Text(each.text, True) for each in default) or UNKNOWN
        if self._opens(name):
            return NOTHING
        if name[-1] in _SAME and (len(name) == 1 or name[0] in _MODULES):
            return self.texts(call.args[0], scope) if call.args else UNKNOWN
        if isinstance(call.func, ast.Attribute):
            return self._method(call, call.func, scope)
        return UNKNOWN

    def _method(self, call: ast.Call, function: ast.Attribute, scope: Scope) -> Texts:
        arguments = [self.texts(each, scope) for each in call.args]
        owner = self.texts(function.value, scope)
        if function.attr == "join" and call.args:
            items = self._literal(call.args[0], scope)
            if isinstance(items[0], (ast.List, ast.Tuple)):
                parts: list[Texts] = []
                for each in items[0].elts:
                    parts += [owner, self.texts(each, items[1])]
                return _joined(parts[1:])
            return _joined([arguments[0], UNKNOWN])
        if function.attr == "joinpath":
            return _path([owner, *arguments])
        if function.attr in ("get", "values"):
            literal, home = self._literal(function.value, scope)
            if isinstance(literal, ast.Dict):
                return self._entry(literal, home, call.args[0] if call.args else None)
        if function.attr in ("as_posix", "as_uri", "read", "encode", "strip", "lstrip", "rstrip") and not call.args:
            stripping = {"strip": str.strip, "lstrip": str.lstrip, "rstrip": str.rstrip}.get(function.attr, str)
            return frozenset(Text(stripping(each.text), each.is_default) for each in owner)
        if function.attr in ("strip", "rstrip") and call.args and isinstance(call.args[0], ast.Constant):
            cut = str(call.args[0].value)
            stripped = str.strip if function.attr == "strip" else str.rstrip
            return frozenset(Text(stripped(each.text, cut), each.is_default) for each in owner)
        if function.attr == "replace" and len(call.args) == 2:
            return self._replaced(owner, arguments)
        if function.attr == "format":
            return _either(self._formatted(each, call, scope) for each in owner)
        return UNKNOWN if owner else NOTHING

    def _replaced(self, owner: Texts, arguments: list[Texts]) -> Texts:
        pairs = [(old, new) for old in arguments[0] for new in arguments[1]]
        if any(HOLE in old.text for old, _ in pairs) or len(pairs) != 1:
            return UNKNOWN
        (old, new) = pairs[0]
        return frozenset(Text(each.text.replace(old.text, new.text), each.is_default) for each in owner) if old.text else owner

    def _formatted(self, template: Text, call: ast.Call, scope: Scope) -> Texts:
        """``"…{}…{name}…".format(…)``."""
        keywords = {each.arg: each.value for each in call.keywords}
        parts: list[Texts] = []
        try:
            for number, (literal, field, spec, conversion) in enumerate(string.Formatter().parse(template.text)):
                parts.append(frozenset({Text(literal, template.is_default)}))
                if field is None:
                    continue
                place = int(field) if field.isdecimal() and len(field) < 4 else number
                by_place = call.args[place] if field.isdecimal() | (not field) and place < len(call.args) else None
                value = keywords.get(field, by_place)
                parts.append(UNKNOWN if value is None or spec or conversion else self.texts(value, scope))
        except ValueError:
            return UNKNOWN
        return _joined(parts)


_MODULES = frozenset({"pathlib", "sqlalchemy", "psycopg", "psycopg2", "textwrap", "inspect", "os", "tqdm", "upath"})


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return [each.arg for each in named]


def _argument(call: ast.Call, function: Function, name: str) -> ast.expr | None:
    """What a call passes for a parameter. None: nothing."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    starred = next((each for each in call.args if isinstance(each, ast.Starred)), None)
    positional = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    if name in positional:
        place = positional.index(name)
        before = call.args[: place + 1]
        if place < len(call.args) and not any(isinstance(each, ast.Starred) for each in before):
            return call.args[place]
        if starred is not None:
            return _SOMETHING
    return _SOMETHING if None in (each.arg for each in call.keywords) else None


_SOMETHING = ast.Name("*", ast.Load())  # bound to nothing, so it is unknown


def _is_none(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _constant(value: object) -> Texts:
    if value is None or value is Ellipsis:
        return NOTHING
    if isinstance(value, str):
        return frozenset({Text(value.replace(HOLE, "\N{REPLACEMENT CHARACTER}"))})
    if isinstance(value, (int, float)) and abs(value) < 1e15:
        return frozenset({Text(str(value))})
    return UNKNOWN


def _limited(texts: Texts) -> Texts:
    if len(texts) > _MOST:
        return UNKNOWN
    return frozenset(each if len(each.text) <= _LONGEST else Text(HOLE, each.is_default) for each in texts)


def _either(values: Iterable[Texts]) -> Texts:
    together: Texts = frozenset().union(*values)
    return together if len(together) <= _MOST else UNKNOWN


def _joined(parts: Iterable[Texts]) -> Texts:
    texts: Texts = frozenset({Text("")})
    for part in parts:
        if len(texts) * len(part) > _MOST or (part and max(len(each.text) for each in part) > _LONGEST):
            part = UNKNOWN
        texts = frozenset(_sum(left, right) for left in texts for right in part)
        if any(len(each.text) > _LONGEST for each in texts):
            return UNKNOWN
    return texts


def _sum(left: Text, right: Text) -> Text:
    begins = right.text[1:] if left.text.endswith(HOLE) and right.text.startswith(HOLE) else right.text
    return Text(left.text + begins, left.is_default or right.is_default)


def _path(parts: list[Texts]) -> Texts:
    """Folders and a file, with slashes between them."""
    if not parts:
        return UNKNOWN
    texts = parts[0]
    for part in parts[1:]:
        slashed = frozenset(Text(each.text if each.text.endswith("/") else f"{each.text}/", each.is_default) for each in texts)
        texts = _joined([slashed, part])
    return texts


def _without_percents(text: str) -> str:
    """The template of ``%``, with a hole for each value."""
    begin, *rest = text.split("%")
    return begin + "".join(HOLE + part.partition("s")[2] if "s" in part[:30] else HOLE for part in rest)
