"""What the expressions of a UDF's code are, as far as that is known without running it.

Known are literals, names that are bound to them, defaults of parameters, what functions of the same code are called with and
return, and what is put together from these. A part of a text that is only known at run time is `HOLE`. The work is bounded:
code that would take longer is known in part.
"""

from __future__ import annotations

import ast
import bisect
import itertools
import posixpath
import re
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple, Optional, Union

from fused_cache_ops.code.scopes import Binding, Block, Each, Function, Global, Scope, Scopes, Within, last_part, parsed
from fused_cache_ops.code.sql import HOLE

_MOST = 200
_LONGEST = 20_000
_MOST_STEPS = 200_000  # about a second
_DEEPEST = 60
_DEEPEST_CALLS = 5
_SAME = frozenset(
    {"str", "Path", "PurePath", "PurePosixPath", "UPath", "text", "SQL", "dedent", "cleandoc", "fspath", "Request"}
    | {"sorted", "list", "tuple", "set", "frozenset", "reversed", "tqdm", "deepcopy", "copy"}
)
_SAME_OF = frozenset(
    {"pathlib", "sqlalchemy", "psycopg", "psycopg2", "textwrap", "inspect", "os", "tqdm", "upath", "copy", "urllib"}
)
_KEPT = frozenset({"as_posix", "as_uri", "read", "encode", "decode", "copy", "collect", "result", "resolve"})
_ON_TEXT: dict[str, Callable[..., str]] = {
    name: getattr(str, name)
    for name in ("strip", "lstrip", "rstrip", "lower", "upper", "removeprefix", "removesuffix", "replace")
}
_SPLITTING: dict[str, Callable[..., Iterable[str]]] = {
    name: getattr(str, name) for name in ("split", "rsplit", "partition", "rpartition", "splitlines")
}


class Text(NamedTuple):
    """One text that an expression may be. Numbers are texts too.

    Attributes:
        text: the text. `HOLE` stands for each part that is only known at run time.
        is_default: whether it can be another one, as it comes from the default of a parameter or of the environment.
    """

    text: str
    is_default: bool = False


class Literal(NamedTuple):
    """A list, a dictionary, a function or a class of the code, with the scope that it is evaluated in."""

    node: ast.AST
    scope: Scope


class Udf(NamedTuple):
    """A UDF as an object. Its name was read where it was loaded.

    Attributes:
        names: the names that it may have.
    """

    names: frozenset[str] = frozenset()


class Made(NamedTuple):
    """An object that is made by a call of something outside of the code.

    Attributes:
        name: what was called. The first part is empty if it has no name.
        call: the call.
        scope: the scope of the call.
        owner: the object whose method or attribute it is.
    """

    name: tuple[str, ...]
    call: ast.Call
    scope: Scope
    owner: Optional[Made] = None


Atom = Union[Text, Global, Literal, Udf, Made]
Value = frozenset[Atom]
"""What an expression may be. Empty: ``None``."""

UNKNOWN: Value = frozenset({Text(HOLE)})
NOTHING: Value = frozenset()
FUSED = Global(("fused",))


class Values:
    """What expressions of one code are.

    Args:
        source: the code.

    Attributes:
        code: its calls and scopes.
        is_exhausted: whether the work was cut short, so that not all is known.

    Raises:
        SyntaxError, RecursionError, MemoryError, ValueError, OverflowError: it cannot be parsed.
    """

    def __init__(self, source: str) -> None:
        self.code = Scopes(parsed(source))
        self.is_exhausted = False
        self._known: dict[tuple[int, int], tuple[Value, object]] = {}  # the nodes are kept, so that their ids stay theirs
        self._named: dict[tuple[int, str], Value] = {}
        self._drafts: dict[tuple[int, int], tuple[Value, object, int]] = {}  # what depends on something that is pending
        self._pending: dict[tuple[int, int], int] = {}  # what is being worked out, with its depth
        self._frames: dict[tuple[int, int, int], tuple[Scope, ast.AST]] = {}
        self._entries: dict[int, dict[str, list[ast.expr]]] = {}
        self._steps = _MOST_STEPS
        self._lowest = _DEEPEST  # the depth of what is pending, and what was worked out last depends on

    def value(self, node: object, scope: Scope) -> Value:
        """What an expression may be."""
        if isinstance(node, Global):
            return frozenset({node})
        if not isinstance(node, ast.AST):
            return UNKNOWN
        key = (id(node), id(scope))
        if key in self._known:
            return self._known[key][0]
        if key in self._drafts:
            self._lowest = min(self._lowest, self._drafts[key][2])
            return self._drafts[key][0]
        if key in self._pending:
            self._lowest = min(self._lowest, self._pending[key])
            return UNKNOWN
        depth = len(self._pending)
        if depth >= _DEEPEST or not self._may_go_on():
            return UNKNOWN
        self._pending[key] = depth
        before, self._lowest, mark = self._lowest, _DEEPEST, len(self._drafts)
        value = self._evaluate(node, scope)
        if len(value) > _MOST:
            value = UNKNOWN
        self._may_go_on(sum(len(each.text) // 100 for each in value if isinstance(each, Text)))
        del self._pending[key]
        self._drafts[key] = (value, node, self._lowest)
        if self._lowest >= depth:
            # What is defined by itself, in a circle that begins here, is known as well as it can be.
            while len(self._drafts) > mark:
                drafted, draft = self._drafts.popitem()
                self._known[drafted] = draft[:2]
            self._lowest = _DEEPEST
        self._lowest = min(before, self._lowest)
        return value

    def texts(self, node: object, scope: Scope) -> frozenset[Text]:
        """Every text that an expression may be. What is no text is a hole."""
        return frozenset(map(_text, self.value(node, scope)))

    def items(self, node: ast.expr, scope: Scope) -> Value:
        """What an expression is, or what is in it if it is a list or a dictionary, at any depth."""
        found: set[Atom] = set()
        ahead = list(self.value(node, scope))
        for _ in range(_MOST * 10):
            if not ahead:
                break
            atom = ahead.pop()
            if atom in found:
                continue
            if isinstance(atom, Literal) and isinstance(atom.node, ast.Dict):
                ahead += [each for value in atom.node.values for each in self.value(value, atom.scope)]
            elif isinstance(atom, Literal) and not isinstance(atom.node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                inside = self._any_of(frozenset({atom}))
                ahead += inside - {atom}
            found.add(atom)
        return frozenset(each for each in found if not isinstance(each, Literal))

    def dotted(self, node: ast.expr, scope: Scope) -> tuple[str, ...]:
        """What is called, part by part, imports resolved: ``("pandas", "read_csv")``. The first is empty if it is no name."""
        found = self.value(node, scope)
        named = next((each for each in found if isinstance(each, (Global, Made))), None)
        if isinstance(named, Global):
            return named.parts
        if named is not None:
            return named.name
        if isinstance(node, ast.Attribute):
            return (*self.dotted(node.value, scope), node.attr)
        return (node.id,) if isinstance(node, ast.Name) else ("",)

    def function(self, node: ast.expr, scope: Scope) -> Literal | None:
        """The function or class of the same code that is called."""
        return next((each for each in self.value(node, scope) if isinstance(each, Literal) and _is_function(each.node)), None)

    def _may_go_on(self, steps: int = 0) -> bool:
        self._steps -= 1 + steps
        self.is_exhausted = self._steps <= 0
        return not self.is_exhausted

    # -- expressions --------------------------------------------------------------------------------------------------

    def _evaluate(self, node: ast.AST, scope: Scope) -> Value:
        if isinstance(node, ast.Constant):
            return _constant(node.value)
        if isinstance(node, ast.Name):
            return self._look_up(node, scope)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, scope)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Lambda, ast.ClassDef, ast.FunctionDef)):
            return frozenset({Literal(node, scope)})
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp, ast.AsyncFunctionDef)):
            return frozenset({Literal(node, scope)})
        if isinstance(node, Each):
            return self._any_of(self.value(node.value, scope))
        if isinstance(node, _Known):
            return frozenset({node.text})
        if isinstance(node, Within):
            return self.value(node.value, node.scope)
        if isinstance(node, (ast.Await, ast.NamedExpr, ast.Starred)):
            return self.value(node.value, scope)
        if isinstance(node, ast.IfExp):
            return _either([self.value(node.body, scope), self.value(node.orelse, scope)])
        if isinstance(node, ast.BoolOp):
            return self._alternatives(node, scope)
        if isinstance(node, ast.BinOp):
            return self._operation(node, scope)
        if isinstance(node, ast.JoinedStr):
            return self._joined([self.value(each, scope) for each in node.values])
        if isinstance(node, ast.FormattedValue) and node.format_spec is None and node.conversion in (-1, ord("s")):
            return self.value(node.value, scope)
        if isinstance(node, ast.Subscript):
            return self._item(self.value(node.value, scope), node.slice, scope)
        if isinstance(node, ast.Call):
            return self._result(node, scope)
        return UNKNOWN

    def _alternatives(self, node: ast.BoolOp, scope: Scope) -> Value:
        """``path or DEFAULT``: if what is given is not known, the default."""
        values = [self.value(each, scope) for each in node.values]
        known = _either(value for value in values if not _is_unknown(value))
        if any(map(_is_unknown, values)) and isinstance(node.op, ast.Or) and known:
            return _as_default(known)
        return _either(values)

    def _operation(self, node: ast.BinOp, scope: Scope) -> Value:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        if isinstance(node.op, ast.Add):
            if any(isinstance(each, Literal) for each in (*left, *right)):
                return left | right
            if all(isinstance(each, Text) and each.text.isdecimal() for each in (*left, *right)):
                return UNKNOWN  # a sum of numbers
            return self._joined([left, right])
        if isinstance(node.op, ast.Div):
            return self._path([left, right])
        if isinstance(node.op, ast.Mod):
            return _either(self._percent(each, node.right, scope) for each in map(_text, left))
        return UNKNOWN

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Value:
        found: set[Atom] = set()
        for owner in self.value(node.value, scope):
            if isinstance(owner, Global):
                found.add(Global((*owner.parts, node.attr)))
            elif isinstance(owner, Made):
                found.add(owner._replace(name=(*owner.name, node.attr), owner=owner))
            elif isinstance(owner, Udf):
                library = next((name for name in sorted(owner.names) if "://" in name), "")
                found.add(Global(("udf", library.rstrip("/").rpartition("/")[2], node.attr)))
            elif isinstance(owner, Literal) and isinstance(owner.node, ast.ClassDef):
                body = self.code.bodies[id(owner.node)]
                bound = body.bindings.get(node.attr, ())
                found |= _either(self.value(each.bound, body) for each in bound) if bound else UNKNOWN
            elif isinstance(owner, Text) and node.attr in ("parent", "name") and HOLE not in owner.text:
                pick = posixpath.dirname if node.attr == "parent" else posixpath.basename
                found.add(Text(pick(owner.text), owner.is_default))
            else:
                found.add(Text(HOLE))
        return frozenset(found)

    # -- names --------------------------------------------------------------------------------------------------------

    def _look_up(self, node: ast.Name, scope: Scope) -> Value:
        name = node.id
        home = scope.find(name)
        if home is None:
            is_of_fused = self.code.star_of_fused and name in ("load", "run", "submit", "cache", "udf", "utils", *_LATER)
            return frozenset({Global(("fused", name) if is_of_fused else (name,))})
        order, block = self.code.places.get(id(node), (0, None))
        if block is None or block.scope is not (home.original or home):
            key = (id(home), name)
            if key not in self._named:
                before, self._lowest = self._lowest, _DEEPEST
                value = self._bound(name, home, home.bindings[name])
                is_whole, self._lowest = self._lowest == _DEEPEST, min(before, self._lowest)
                if not is_whole:
                    return value
                self._named[key] = value
            return self._named[key]
        return self._bound(name, home, list(self._live(home.bindings[name], order, set(block.chain()))))

    def _live(self, bindings: list[Binding], order: int, chain: set[Block]) -> Iterator[Binding]:
        """The bindings that may hold at a place of the same scope."""
        place = bisect.bisect_right(bindings, order, key=lambda each: each.order)
        loops = {each for each in chain if each.is_loop}
        for number in range(place - 1, -1, -1):
            each = bindings[number]
            if not self._may_go_on():
                return
            yield each
            if each.block in chain and not each.adds:
                loops -= set(each.block.chain())
                break
        if loops or not place:
            for each in itertools.islice(bindings, place, None):
                if not self._may_go_on():
                    return
                if not place or loops.intersection(each.block.chain()):
                    yield each

    def _bound(self, name: str, home: Scope, bindings: list[Binding]) -> Value:
        # What a name is defined by itself, as in `path = path.strip()`, is not followed twice.
        others: list[Binding] = []
        for each in bindings:
            key = (id(each.bound), id(home))
            if key in self._pending:
                self._lowest = min(self._lowest, self._pending[key])
            elif each.bound is not None:
                others.append(each)
        values: list[Value] = []
        for each in others:
            values.append(self.value(each.bound, home))
            if not self._may_go_on():
                return UNKNOWN
        if any(each.bound is None for each in bindings) or not others:
            is_parameter = name in (home.original or home).parameters
            given = self._given(name, home) if is_parameter else UNKNOWN
            known = _either(values)
            if _is_unknown(given) and known - UNKNOWN and _is_none((home.original or home).parameters.get(name)):
                return _as_default(known)  # `path=None`, and a default where it is None
            values.append(given)
        return _either(values)

    def _given(self, name: str, home: Scope) -> Value:
        """What a parameter is: its default, and what the code itself passes."""
        if name in home.given:
            given, scope = home.given[name]
            return self.value(given, scope)
        body = home.original or home
        function = body.node
        outside = body.parent
        if outside is None or not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return UNKNOWN
        if outside.kind == "class" and next(iter(body.parameters)) == name and outside.node is not None:
            return frozenset({Literal(outside.node, outside)})
        default = body.parameters[name]
        values: list[Value] = []
        uses_default = home is not body
        calls = [] if home is not body else list(self._calls_of(function, body))
        for passed in calls:
            uses_default |= name not in passed
            if name in passed:
                values.append(self.value(*passed[name]))
        if uses_default or not calls:
            value = UNKNOWN if default is None else self.value(default, outside)
            values.append(UNKNOWN if _is_unknown(value) or not value else _as_default(value))
        return _either(values)

    def _calls_of(self, function: Function | ast.Lambda, body: Scope) -> Iterator[dict[str, tuple[ast.expr, Scope]]]:
        """What each call of a function passes."""
        outside = body.parent
        names = [function.name] if not isinstance(function, ast.Lambda) else []
        if outside is not None and isinstance(function, ast.Lambda):
            names = [name for name, bindings in outside.bindings.items() if any(each.bound is function for each in bindings)]
        if outside is not None and outside.kind == "class" and names == ["__init__"] and isinstance(outside.node, ast.ClassDef):
            names = [outside.node.name]
        for call, scope in [each for name in names for each in self.code.callers.get(name, ())]:
            if not self._may_go_on():
                return
            called = self.function(call.func, scope)
            if called is not None and called.node in (function, outside.node if outside is not None else None):
                yield _passed(call, scope, body)

    # -- items --------------------------------------------------------------------------------------------------------

    def _inner(self, node: ast.AST, scope: Scope) -> Scope:
        """The scope inside a comprehension, for one call of the function that it stands in."""
        body = self.code.bodies[id(node)]
        if scope is body.parent:
            return body
        key = (id(node), id(scope), 0)
        if key not in self._frames:
            self._frames[key] = (replace(body, parent=scope, original=body), node)
        return self._frames[key][0]

    def _any_of(self, value: Value) -> Value:
        """Any item of what an expression is."""
        found: list[Value] = []
        for atom in value:
            node = atom.node if isinstance(atom, Literal) else None
            if isinstance(atom, Literal) and isinstance(node, (ast.List, ast.Tuple, ast.Set)):
                for each in node.elts:
                    if not self._may_go_on():
                        return UNKNOWN
                    item = self.value(each, atom.scope)
                    found.append(self._any_of(item) if isinstance(each, ast.Starred) else item)
            elif isinstance(atom, Literal) and isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
                found.append(self.value(node.elt, self._inner(node, atom.scope)))
            elif isinstance(atom, Literal) and isinstance(node, ast.Dict):
                found += [self.value(each, atom.scope) for each in node.keys if each is not None]
            elif isinstance(atom, Literal) and isinstance(node, ast.DictComp):
                found.append(self.value(node.key, self._inner(node, atom.scope)))
            else:
                found.append(UNKNOWN if isinstance(atom, Global) else frozenset({atom}))
        return _either(found)

    def _item(self, owner: Value, key: ast.expr | None, scope: Scope) -> Value:
        """The value of a key or place that is known, otherwise any value."""
        if isinstance(key, ast.Slice):
            return frozenset(each if isinstance(each, (Literal, Made)) else Text(HOLE) for each in owner)
        keys = NOTHING if key is None else self.value(key, scope)
        wanted = [each.text for each in keys if isinstance(each, Text) and HOLE not in each.text and not each.is_default]
        return self._picked(owner, wanted if len(wanted) == len(keys) else [])

    def _picked(self, owner: Value, wanted: list[str]) -> Value:
        atoms = list(owner)
        entries = {
            id(atom): self._entries_of(atom.node, atom.scope, atoms, wanted) for atom in atoms if isinstance(atom, Literal)
        }
        is_known = any(entries.values())  # otherwise it may be any value
        found: list[Value] = []
        for atom in atoms:
            node = atom.node if isinstance(atom, Literal) else None
            if isinstance(atom, Literal) and isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values):
                    if not self._may_go_on():
                        return UNKNOWN
                    if key is not None and not is_known:
                        found.append(self.value(value, atom.scope))
                found += [self.value(each, atom.scope) for each in entries[id(atom)]]
            elif isinstance(atom, Literal) and isinstance(node, ast.DictComp):
                found.append(self.value(node.value, self._inner(node, atom.scope)))
            elif isinstance(atom, Literal) and isinstance(node, (ast.List, ast.Tuple)):
                places = [int(each) for each in wanted if re.fullmatch(r"-?\d{1,4}", each)]
                is_plain = places and not any(isinstance(each, ast.Starred) for each in node.elts)
                picked = [node.elts[place] for place in places if is_plain and -len(node.elts) <= place < len(node.elts)]
                found += [self.value(each, atom.scope) for each in picked] or [self._any_of(frozenset({atom}))]
            elif isinstance(atom, Literal):
                found.append(self._any_of(frozenset({atom})))
            else:
                found.append(frozenset({atom}) if isinstance(atom, Made) else UNKNOWN)
        return _either(found)

    def _entries_of(self, node: ast.AST, scope: Scope, atoms: list[Atom], wanted: list[str]) -> list[ast.expr]:
        """The values of keys in a dictionary. What is spread into it is added to the atoms, which are looked at next."""
        if not isinstance(node, ast.Dict):
            return []
        if id(node) not in self._entries:
            self._may_go_on(len(node.keys))
            entries: dict[str, list[ast.expr]] = {}
            for each, value in zip(node.keys, node.values):
                for known in _constant(each.value) if isinstance(each, ast.Constant) else ():
                    entries.setdefault(_text(known).text, []).append(value)
            self._entries[id(node)] = entries
        for spread in [value for key, value in zip(node.keys, node.values) if key is None][:_MOST]:
            atoms += [each for each in self.value(spread, scope) if each not in atoms]
        return [value for key in wanted for value in self._entries[id(node)].get(key, ())]

    # -- calls --------------------------------------------------------------------------------------------------------

    def _result(self, call: ast.Call, scope: Scope) -> Value:
        found: list[Value] = []
        if isinstance(call.func, ast.Attribute):
            method = self._method(call, call.func, scope)
            if method is not None:
                return method
        for callee in self.value(call.func, scope):
            if isinstance(callee, Literal) and _is_function(callee.node):
                found.append(self._called(callee, call, scope))
            elif isinstance(callee, Global):
                found.append(self._global_call(callee.parts, call, scope))
            elif isinstance(callee, Made):
                found.append(frozenset({callee._replace(call=call, scope=scope)}))
            else:
                made = Made(("", last_part(call.func)) if isinstance(call.func, ast.Attribute) else ("",), call, scope)
                found.append(frozenset({made}))
        return _either(found)

    def _called(self, callee: Literal, call: ast.Call, scope: Scope) -> Value:
        if isinstance(callee.node, ast.ClassDef):
            return frozenset({callee})
        body = self.code.bodies[id(callee.node)]
        depth, outer = 0, scope
        while outer.parent is not None:
            depth += outer.original is not None
            outer = outer.parent
        frame = body
        if depth < _DEEPEST_CALLS and scope is not body and scope.original is not body:
            key = (id(callee.node), id(call), id(scope))
            if key not in self._frames:
                self._may_go_on(20)
                frame = replace(body, parent=callee.scope, original=body, given=_passed(call, scope, body))
                self._frames[key] = (frame, call)
            frame = self._frames[key][0]
        return _either(self.value(each, frame) for each in body.returned) if body.returned else NOTHING

    def _global_call(self, name: tuple[str, ...], call: ast.Call, scope: Scope) -> Value:
        last = name[-1]
        if name[0] == "fused" and last in ("load", "load_async", "udf"):
            given = call.args[0] if call.args else None
            names = self.texts(given, scope) if given is not None and last != "udf" else frozenset()
            return frozenset({Udf(frozenset(each.text for each in names if HOLE not in each.text))})
        if name[0] == "fused" and last == "cache":
            return self.value(call.args[0], scope) if call.args else frozenset({Global(name)})  # a decorator with its arguments
        first = call.args[0] if call.args else None
        if last in ("import_module", "__import__") and first is not None:
            modules = self.texts(first, scope)
            module = next(iter(modules)).text if len(modules) == 1 else HOLE
            return frozenset({Global(tuple(module.split(".")))}) if HOLE not in module else UNKNOWN
        if name[-2:] == ("path", "join"):
            return self._path([self.value(each, scope) for each in call.args])
        if name[-2:] == ("path", "dirname") and first is not None:
            return frozenset(Text(posixpath.dirname(each.text), each.is_default) for each in self.texts(first, scope))
        if name[-2:] in (("environ", "get"), ("os", "getenv")):
            return _as_default((len(call.args) > 1 and self.value(call.args[1], scope)) or UNKNOWN)
        if last in _SAME and (len(name) == 1 or name[0] in _SAME_OF):
            return self.value(first, scope) if first is not None else UNKNOWN
        if name == ("dict",) or last == "namedtuple":
            keys: list[ast.expr | None] = [None if each.arg is None else ast.Constant(each.arg) for each in call.keywords]
            return frozenset(
                {
                    Literal(ast.Dict(keys, [each.value for each in call.keywords]), scope),
                    *_either(self.value(each, scope) for each in call.args),
                }
            )
        if name == ("enumerate",) and call.args:
            return self._list([ast.Tuple([_UNKNOWN_NODE, Each(call.args[0])], ast.Load())], scope)
        if name == ("zip",) and call.args:
            return self._list([ast.Tuple([Each(each) for each in call.args], ast.Load())], scope)
        if name in (("map",), ("filter",)) and len(call.args) > 1:
            each = Each(call.args[1])
            return self._list(
                [each if name == ("filter",) else ast.copy_location(ast.Call(call.args[0], [each], []), call)], scope
            )
        if name == ("getattr",) and len(call.args) > 1 and isinstance(call.args[1], ast.Constant):
            return self.value(ast.Attribute(call.args[0], str(call.args[1].value), ast.Load()), scope)
        return frozenset({Made(name, call, scope)})

    def _list(self, items: list[ast.expr], scope: Scope) -> Value:
        return frozenset({Literal(ast.List(items, ast.Load()), scope)})

    def _method(self, call: ast.Call, function: ast.Attribute, scope: Scope) -> Value | None:
        """What a method of a text, a list or a dictionary returns. None: it is not one."""
        owner = self.value(function.value, scope)
        name = function.attr
        nodes = [each.node for each in owner if isinstance(each, Literal)]
        if name in ("get", "pop", "setdefault", "values", "items", "keys") and any(
            isinstance(each, ast.Dict) for each in nodes
        ):
            return self._of_dictionary(name, owner, call, scope)
        if name in ("pop", "copy") and nodes and not any(isinstance(each, ast.ClassDef) for each in nodes):
            return owner if name == "copy" else self._any_of(owner)
        if not any(isinstance(each, Text) for each in owner):
            return NOTHING if not owner and name not in _LATER else None
        if name == "join" and call.args:
            return self._text_join(owner, self.value(call.args[0], scope))
        arguments = [self.value(each, scope) for each in call.args]
        if name == "joinpath":
            return self._path([owner, *arguments])
        if name in _KEPT and not call.args:
            return owner
        if name == "format":
            return _either(self._formatted(each, call, scope) for each in map(_text, owner))
        if name not in _ON_TEXT and name not in _SPLITTING:
            return None
        given = [next(iter(each)) for each in arguments if len(each) == 1]
        plain = [each.text for each in given if isinstance(each, Text) and HOLE not in each.text]
        if len(plain) < len(call.args):
            return UNKNOWN
        counted = [
            int(each) if place and each.isdecimal() and name.endswith("split") else each for place, each in enumerate(plain)
        ]
        found: set[Atom] = set()
        for each in map(_text, owner):
            try:
                if name in _ON_TEXT:
                    found.add(each._replace(text=_ON_TEXT[name](each.text, *counted)))
                    continue
                parts = list(_SPLITTING[name](each.text, *counted))[:_MOST]
            except (TypeError, ValueError):
                return UNKNOWN
            # A hole may hold more of what the text is split at, so what comes after it has no known place.
            if HOLE in each.text and not (name[0] == "r" and HOLE in parts[0] and not any(HOLE in part for part in parts[1:])):
                parts = [part for part in parts if HOLE not in part][:1] or [HOLE]
            texts = [Text(part, each.is_default) for part in parts]
            found |= self._list([_Known(text) for text in texts], scope)
        return frozenset(found)

    def _of_dictionary(self, name: str, owner: Value, call: ast.Call, scope: Scope) -> Value:
        if name in ("get", "pop", "setdefault"):
            found = self._item(owner, call.args[0] if call.args else None, scope)
            return found | self.value(call.args[1], scope) if len(call.args) > 1 else found
        lists: set[Atom] = set()
        for each in owner:
            if isinstance(each, Literal) and isinstance(each.node, ast.Dict):
                pairs = [(key, value) for key, value in zip(each.node.keys, each.node.values) if key is not None]
                items: list[ast.expr] = [
                    value if name == "values" else key if name == "keys" else ast.Tuple([key, value], ast.Load())
                    for key, value in pairs
                ]
                lists |= self._list(items, each.scope)
        return frozenset(lists)

    # -- texts --------------------------------------------------------------------------------------------------------

    def _joined(self, parts: Iterable[Value]) -> Value:
        texts: frozenset[Text] = frozenset({Text("")})
        for part in parts:
            ends = frozenset(map(_text, part))
            if len(texts) * len(ends) > _MOST or any(len(each.text) > _LONGEST for each in ends):
                ends = frozenset({Text(HOLE)})
            self._may_go_on(len(texts) * len(ends) // 10)
            texts = frozenset(_sum(left, right) for left in texts for right in ends)
            if any(len(each.text) > _LONGEST for each in texts):
                return UNKNOWN
        return frozenset(texts)

    def _path(self, parts: list[Value]) -> Value:
        """Folders and a file, with slashes between them."""
        if not parts:
            return UNKNOWN
        texts = parts[0]
        for part in parts[1:]:
            known = map(_text, texts)
            slashed = frozenset(each if each.text.endswith("/") else each._replace(text=f"{each.text}/") for each in known)
            texts = self._joined([slashed, part])
        return texts

    def _text_join(self, owner: Value, items: Value) -> Value:
        found: list[Value] = []
        for atom in items:
            if isinstance(atom, Literal) and isinstance(atom.node, (ast.List, ast.Tuple)):
                parts: list[Value] = []
                for each in atom.node.elts[:_MOST]:
                    parts += [owner, self.value(each, atom.scope)]
                found.append(self._joined(parts[1:]))
            else:
                found.append(self._joined([self._any_of(frozenset({atom})), UNKNOWN]))
        return _either(found)

    def _percent(self, template: Text, right: ast.expr, scope: Scope) -> Value:
        """``"…%s…" % value``."""
        values: list[ast.expr] = right.elts if isinstance(right, ast.Tuple) else [right]
        begin, *rest = re.split(r"%(?:\((\w+)\))?[-+ #0]*(\d*(?:\.\d+)?[sdifrx%])", template.text)
        parts: list[Value] = [frozenset({template._replace(text=begin)})]
        for place, (name, kind, after) in enumerate(zip(rest[::3], rest[1::3], rest[2::3])):
            if kind == "%":
                parts.append(frozenset({Text("%")}))
            elif name:
                parts.append(self._item(self.value(right, scope), ast.Constant(name), scope))
            else:
                parts.append(self.value(values[place], scope) if kind in ("s", "d", "i") and place < len(values) else UNKNOWN)
            parts.append(frozenset({Text(after)}))
        return self._joined(parts)

    def _formatted(self, template: Text, call: ast.Call, scope: Scope) -> Value:
        """``"…{}…{name}…".format(…)``."""
        keywords = {each.arg: each.value for each in call.keywords}
        parts: list[Value] = []
        try:
            for number, (literal, field, spec, conversion) in enumerate(string.Formatter().parse(template.text)):
                parts.append(frozenset({Text(literal, template.is_default)}))
                if field is None:
                    continue
                place = int(field) if field.isdecimal() and len(field) < 4 else number
                by_place = call.args[place] if field.isdecimal() | (not field) and place < len(call.args) else None
                value = keywords.get(field, by_place)
                parts.append(UNKNOWN if value is None or spec or conversion else self.value(value, scope))
        except ValueError:
            return UNKNOWN
        return self._joined(parts)


class _Known(ast.expr):
    """A text that was worked out."""

    def __init__(self, text: Text) -> None:
        super().__init__()
        self.text = text


_UNKNOWN_NODE = ast.Name("\x00", ast.Load())  # no code can bind it
_LATER = frozenset({"load_async", "run_async", "map", "map_async"})


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef))


def _passed(call: ast.Call, scope: Scope, body: Scope) -> dict[str, tuple[ast.expr, Scope]]:
    """What a call passes for each parameter. What may be among starred arguments is not known."""
    names = list(body.parameters)
    if body.parent is not None and body.parent.kind == "class":
        names = names[1:]
    given: dict[str, tuple[ast.expr, Scope]] = {}
    is_open = None in (each.arg for each in call.keywords)
    for place, argument in enumerate(call.args):
        if isinstance(argument, ast.Starred):
            is_open = True
            break
        if place < len(names):
            given[names[place]] = (argument, scope)
    given.update({each.arg: (each.value, scope) for each in call.keywords if each.arg in body.parameters})
    if is_open:
        given |= {name: (_UNKNOWN_NODE, scope) for name in names if name not in given}
    return given


def _is_none(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _constant(value: object) -> Value:
    if value is None or value is Ellipsis:
        return NOTHING
    if isinstance(value, str):
        return frozenset({Text(value.replace(HOLE, "\N{REPLACEMENT CHARACTER}"))}) if len(value) <= _LONGEST else UNKNOWN
    if isinstance(value, (int, float)) and abs(value) < 1e15:
        return frozenset({Text(str(value))})
    return UNKNOWN


def _text(atom: Atom) -> Text:
    return atom if isinstance(atom, Text) else Text(HOLE)


def _is_unknown(value: Value) -> bool:
    return value == UNKNOWN or (bool(value) and all(isinstance(each, Global) for each in value))


def _as_default(value: Value) -> Value:
    return frozenset(each._replace(is_default=True) if isinstance(each, Text) else each for each in value)


def _either(values: Iterable[Value]) -> Value:
    together: Value = frozenset().union(*values)
    return together if len(together) <= _MOST else UNKNOWN


def _sum(left: Text, right: Text) -> Text:
    begins = right.text[1:] if left.text.endswith(HOLE) and right.text.startswith(HOLE) else right.text
    return Text(left.text + begins, left.is_default or right.is_default)
