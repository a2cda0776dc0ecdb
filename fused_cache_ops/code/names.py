"""What the names of a UDF's code stand for at each place: what they were bound to last, and what parameters are given.

The work is bounded: code that would take longer is known in part.
"""

from __future__ import annotations

import ast
import bisect
import itertools
from collections.abc import Iterator
from dataclasses import replace

from fused_cache_ops.code.atoms import (
    NOTHING,
    UNKNOWN,
    Literal,
    Made,
    Text,
    Value,
    as_default,
    bounded,
    either,
    is_unknown,
    text_of,
)
from fused_cache_ops.code.scopes import Binding, Block, Function, Global, Scope, Scopes, parsed

_MOST_STEPS = 200_000  # about a second
_DEEPEST = 60
_DEEPEST_CALLS = 5
UNKNOWN_NODE = ast.Name("\x00", ast.Load())  # no code can bind it
LATER = frozenset({"load_async", "run_async", "map", "map_async"})


class Names:
    """What the names of one code stand for. What other expressions are, `Values` knows.

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
        if depth >= _DEEPEST or not self.may_go_on():
            return UNKNOWN
        self._pending[key] = depth
        before, self._lowest, mark = self._lowest, _DEEPEST, len(self._drafts)
        value = bounded(self.evaluate(node, scope))
        self.may_go_on(sum(len(each.text) // 100 for each in value if isinstance(each, Text)))
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
        return frozenset(map(text_of, self.value(node, scope)))

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
        return next((each for each in self.value(node, scope) if isinstance(each, Literal) and is_function(each.node)), None)

    def may_go_on(self, steps: int = 0) -> bool:
        self._steps -= 1 + steps
        self.is_exhausted = self._steps <= 0
        return not self.is_exhausted

    def evaluate(self, node: ast.AST, scope: Scope) -> Value:
        """What an expression is, of which the parts are asked of `value`."""
        raise NotImplementedError

    # -- names --------------------------------------------------------------------------------------------------------

    def look_up(self, node: ast.Name, scope: Scope) -> Value:
        name = node.id
        home = scope.find(name)
        if home is None:
            is_of_fused = self.code.star_of_fused and name in ("load", "run", "submit", "cache", "udf", "utils", *LATER)
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
            if not self.may_go_on():
                return
            yield each
            if each.block in chain and not each.adds:
                loops -= set(each.block.chain())
                break
        if loops or not place:
            for each in itertools.islice(bindings, place, None):
                if not self.may_go_on():
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
            if not self.may_go_on():
                return UNKNOWN
        if any(each.bound is None for each in bindings) or not others:
            is_parameter = name in (home.original or home).parameters
            given = self._given(name, home) if is_parameter else UNKNOWN
            known = either(values)
            if is_unknown(given) and known - UNKNOWN and _is_none((home.original or home).parameters.get(name)):
                return as_default(known)  # `path=None`, and a default where it is None
            values.append(given)
        return either(values)

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
            values.append(UNKNOWN if is_unknown(value) or not value else as_default(value))
        return either(values)

    def _calls_of(self, function: Function | ast.Lambda, body: Scope) -> Iterator[dict[str, tuple[ast.expr, Scope]]]:
        """What each call of a function passes."""
        outside = body.parent
        names = [function.name] if not isinstance(function, ast.Lambda) else []
        if outside is not None and isinstance(function, ast.Lambda):
            names = [name for name, bindings in outside.bindings.items() if any(each.bound is function for each in bindings)]
        if outside is not None and outside.kind == "class" and names == ["__init__"] and isinstance(outside.node, ast.ClassDef):
            names = [outside.node.name]
        for call, scope in [each for name in names for each in self.code.callers.get(name, ())]:
            if not self.may_go_on():
                return
            called = self.function(call.func, scope)
            if called is not None and called.node in (function, outside.node if outside is not None else None):
                yield _passed(call, scope, body)

    # -- functions ----------------------------------------------------------------------------------------------------

    def inner(self, node: ast.AST, scope: Scope) -> Scope:
        """The scope inside a comprehension, for one call of the function that it stands in."""
        body = self.code.bodies[id(node)]
        if scope is body.parent:
            return body
        key = (id(node), id(scope), 0)
        if key not in self._frames:
            self._frames[key] = (replace(body, parent=scope, original=body), node)
        return self._frames[key][0]

    def called(self, callee: Literal, call: ast.Call, scope: Scope) -> Value:
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
                self.may_go_on(20)
                frame = replace(body, parent=callee.scope, original=body, given=_passed(call, scope, body))
                self._frames[key] = (frame, call)
            frame = self._frames[key][0]
        return either(self.value(each, frame) for each in body.returned) if body.returned else NOTHING


def is_function(node: ast.AST) -> bool:
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
        given |= {name: (UNKNOWN_NODE, scope) for name in names if name not in given}
    return given


def _is_none(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
