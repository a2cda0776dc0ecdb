"""The scopes of one UDF's source: its calls, and what each name is bound to. The source is read with `ast`, and never run."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Union

from fused_cache_ops.wording import shortened

MAX_SOURCE = 1_000_000
"""The longest source that is read, in characters."""

UNREADABLE = (SyntaxError, RecursionError, MemoryError, ValueError, OverflowError)
"""What reading a source may raise. `why_unreadable` puts it into words."""

_FILE = "<source of a Fused UDF>"


def parsed(source: str) -> ast.Module:
    """The source as a tree.

    Raises:
        SyntaxError, RecursionError, MemoryError, ValueError, OverflowError: it cannot be parsed.
    """
    if len(source) > MAX_SOURCE:
        raise OverflowError(f"the code is longer than {MAX_SOURCE:,} characters")
    # Python warns of odd escapes in a source as of its own. The filter is set anew each time, because others may reset it,
    # and `warnings.catch_warnings` is not safe in threads.
    warnings.filterwarnings("ignore", module=re.escape(_FILE))
    return ast.parse(source, _FILE)


def why_unreadable(error: BaseException, source: str) -> tuple[str, int | None]:
    """Why a source could not be read, and in which line, from 1."""
    if len(source) > MAX_SOURCE:
        return f"the code is longer than {MAX_SOURCE:,} characters", None
    if isinstance(error, SyntaxError):
        return f"the code cannot be parsed ({shortened(str(error.msg))})", error.lineno
    if isinstance(error, (RecursionError, MemoryError)):
        return "the code is nested too deeply", None
    return "the code contains characters that cannot be parsed", None  # a NUL or half a surrogate pair


@dataclass(eq=False)
class Scope:
    kind: str  # module, function, class or comprehension
    function: str
    parent: Scope | None
    # What each name is bound to. None: to something that is only known at run time.
    bindings: dict[str, list[Bound]] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)  # by `global` or `nonlocal`
    defaults: dict[str, ast.expr] = field(default_factory=dict)  # of parameters. They are evaluated in the scope outside

    @property
    def module(self) -> Scope:
        return self if self.parent is None else self.parent.module

    def bind(self, name: str, bound: Bound) -> None:
        if self.declared.get(name) == "global":
            self.module.bindings.setdefault(name, []).append(bound)
        elif self.declared.get(name) == "nonlocal" and self.parent is not None:
            outer: Scope | None = self.parent
            while outer is not None and outer.parent is not None:
                if name in outer.bindings:
                    outer.bindings[name].append(None)
                outer = outer.parent
        else:
            self.bindings.setdefault(name, []).append(bound)

    def find(self, name: str) -> tuple[Scope, list[Bound]] | None:
        """The scope that binds a name as seen from here, and what it is bound to there."""
        scope: Scope | None = self
        while scope is not None:
            if scope.declared.get(name) == "global":
                scope = scope.module
            if name in scope.bindings and (scope.kind != "class" or scope is self):
                return scope, scope.bindings[name]
            scope = scope.parent
        return None


@dataclass(frozen=True)
class FusedName:
    """The module ``fused`` (the empty name), or something in it."""

    name: str = ""


Bound = Union[ast.expr, ast.FunctionDef, ast.AsyncFunctionDef, FusedName, None]
Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Scopes(ast.NodeVisitor):
    """Finds every call, use and decorator, each with its scope, and what names are bound to."""

    def __init__(self, module: ast.Module) -> None:
        self.scope = Scope("module", "<module>", None)
        self.calls: list[tuple[ast.Call, Scope]] = []
        self.uses: list[tuple[ast.Name | ast.Attribute, Scope]] = []
        self.decorated: list[tuple[Function, Scope]] = []
        self.traced: set[int] = set()  # uses that are followed elsewhere, by id
        self.bodies: dict[int, Scope] = {}  # the scopes of functions and comprehensions, by the id of their nodes
        self.star_of: str | None = None
        self.star_of_fused = False
        self.visit(module)

    def _within(
        self, kind: str, name: str, node: ast.AST, parts: Iterable[ast.AST], signature: ast.arguments | None = None
    ) -> None:
        outer = self.scope
        self.scope = self.bodies[id(node)] = Scope(kind, name, outer)
        if signature is not None:
            self.scope.defaults.update(_defaults(signature))
            for parameter in _parameters(signature):
                self.scope.bind(parameter, None)
        for part in parts:
            self.visit(part)
        self.scope = outer

    def visit_FunctionDef(self, node: Function) -> None:
        self.scope.bind(node.name, node)
        self.decorated.append((node, self.scope))
        for decorator in node.decorator_list:
            self.traced.add(id(decorator))
            self.visit(decorator)
        self._visit_signature(node.args)
        if node.returns is not None:
            self.visit(node.returns)
        self._within("function", node.name, node, node.body, node.args)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_signature(node.args)
        self._within("function", self.scope.function, node, [node.body], node.args)

    def _visit_signature(self, arguments: ast.arguments) -> None:
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
            if argument is not None and argument.annotation is not None:
                self.visit(argument.annotation)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.bind(node.name, None)
        for outside in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(outside)
        self._within("class", self.scope.function, node, node.body)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, _COMPREHENSIONS):
            self._within("comprehension", self.scope.function, node, ast.iter_child_nodes(node))
            return
        for name in ("name", "rest"):  # `except … as name`, and the captures of `match`
            captured = getattr(node, name, None)
            if isinstance(captured, str):
                self.scope.bind(captured, None)
        super().generic_visit(node)

    def visit_alias(self, node: ast.alias) -> None:
        """Bound by the statement."""

    def visit_Global(self, node: ast.Global) -> None:
        self.scope.declared.update(dict.fromkeys(node.names, "global"))

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.scope.declared.update(dict.fromkeys(node.names, "nonlocal"))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            first = alias.name.partition(".")[0]
            self.scope.bind(alias.asname or first, FusedName() if first == "fused" else None)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        is_fused = not node.level and (node.module or "").partition(".")[0] == "fused"
        for alias in node.names:
            if alias.name != "*":
                self.scope.bind(alias.asname or alias.name, FusedName(alias.name) if is_fused else None)
            elif is_fused:
                self.star_of_fused = True
            else:
                self.star_of = node.module or "."

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assign(target, node.value)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self._assign(node.target, node.value)
            self.visit(node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        inner = self.scope
        while self.scope.kind == "comprehension" and self.scope.parent is not None:
            self.scope = self.scope.parent  # a walrus binds outside of the comprehension
        self._assign(node.target, node.value)
        self.scope = inner
        self.visit(node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.scope.bind(target.id, value)
            if self.scope.kind != "class":
                self.traced.add(id(value))
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for each, part in zip(target.elts, value.elts):
                self._assign(each, part)
        else:
            self.visit(target)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.uses.append((node, self.scope))
        else:
            self.scope.bind(node.id, None)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.uses.append((node, self.scope))
        self.traced.add(id(node.value))
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        self.calls.append((node, self.scope))
        self.traced.add(id(node.func))
        super().generic_visit(node)


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            yield argument.arg


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = (*arguments.posonlyargs, *arguments.args)
    if arguments.defaults:
        yield from ((each.arg, value) for each, value in zip(positional[-len(arguments.defaults) :], arguments.defaults))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        if default is not None:
            yield argument.arg, default
