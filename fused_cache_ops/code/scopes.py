"""The scopes of one UDF's source: its calls, and what each name is bound to where. The source is parsed, and never run."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Union

from fused_cache_ops.wording import shortened

MAX_SOURCE = 1_000_000
"""The longest source that is read, in characters."""

UNREADABLE = (SyntaxError, RecursionError, MemoryError, ValueError, OverflowError)
"""What reading a source may raise. `why_unreadable` puts it into words."""

_FILE = "<source of a Fused UDF>"
_EACH = frozenset({"map", "imap", "imap_unordered", "map_async", "run_pool", "thread_map", "process_map"})
_ONCE = frozenset({"apply_async", "partial", "to_thread"})


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


class Unknown(NamedTuple):
    """Something that cannot be known from the source.

    Attributes:
        reason: what, and why.
        line: where it stands, from 1. None: the whole source.
    """

    reason: str
    line: int | None


def why_unreadable(error: BaseException, source: str) -> Unknown:
    """Why a source could not be read."""
    if len(source) > MAX_SOURCE:
        return Unknown(f"the code is longer than {MAX_SOURCE:,} characters", None)
    if isinstance(error, SyntaxError):
        return Unknown(f"the code cannot be parsed ({shortened(str(error.msg))})", error.lineno)
    if isinstance(error, (RecursionError, MemoryError)):
        return Unknown("the code is nested too deeply", None)
    return Unknown("the code contains characters that cannot be parsed", None)  # a NUL or half a surrogate pair


class Global(NamedTuple):
    """A module or something in it, with imports resolved: ``("pandas", "read_csv")``."""

    parts: tuple[str, ...]


class Each(ast.expr):
    """Any item of what an expression is: what a loop binds."""

    def __init__(self, value: ast.expr) -> None:
        super().__init__()
        self.value = value
        ast.copy_location(self, value)


class Within(ast.expr):
    """An expression that is evaluated in the scope where it stands, wherever its value is looked up."""

    def __init__(self, value: ast.expr, scope: Scope) -> None:
        super().__init__()
        self.value, self.scope = value, scope


Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]
Bound = Union[ast.expr, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, Global, None]


@dataclass(eq=False, repr=False)
class Block:
    """Statements that run one after the other.

    Attributes:
        parent: the block that contains it, in the same scope.
        scope: its scope.
        is_loop: whether it may run again.
    """

    parent: Block | None
    scope: Scope
    is_loop: bool = False

    def chain(self) -> Iterator[Block]:
        """It, and all that contain it."""
        block: Block | None = self
        while block is not None:
            yield block
            block = block.parent


class Binding(NamedTuple):
    """What a name is bound to at one place.

    Attributes:
        bound: what. None: something that is only known at run time.
        order: the place, counted through the source.
        block: the block that it stands in.
        adds: whether what the name was bound to before stays, as with ``append``.
    """

    bound: Bound
    order: int
    block: Block
    adds: bool = False


@dataclass(eq=False, repr=False)
class Scope:
    kind: str  # module, function, class or comprehension
    function: str
    parent: Scope | None
    node: ast.AST | None = None
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)  # by `global` or `nonlocal`
    parameters: dict[str, ast.expr | None] = field(default_factory=dict)  # with defaults, evaluated in the scope outside
    returned: list[ast.expr] = field(default_factory=list)
    original: Scope | None = None  # for one call of a function: the scope of all its calls
    given: dict[str, tuple[ast.expr, Scope]] = field(default_factory=dict)  # for one call: its arguments

    @property
    def module(self) -> Scope:
        return self if self.parent is None else self.parent.module

    def bind(self, name: str, binding: Binding) -> None:
        if self.declared.get(name) == "global":
            self.module.bindings.setdefault(name, []).append(binding)
        elif self.declared.get(name) == "nonlocal" and self.parent is not None:
            outer: Scope | None = self.parent
            while outer is not None and outer.parent is not None:
                if name in outer.bindings:
                    outer.bindings[name].append(binding._replace(bound=None))
                outer = outer.parent
        else:
            self.bindings.setdefault(name, []).append(binding)

    def find(self, name: str) -> Scope | None:
        """The scope that binds a name as seen from here."""
        scope: Scope | None = self
        while scope is not None:
            if scope.declared.get(name) == "global":
                scope = scope.module
            if name in scope.bindings and (scope.kind != "class" or scope is self):
                return scope
            scope = scope.parent
        return None


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Scopes(ast.NodeVisitor):
    """Finds every call, use and decorator, each with its scope, and what names are bound to.

    Attributes:
        calls: the calls.
        uses: names and attributes that are read.
        decorated: the functions, each with the scope that it is defined in.
        traced: the ids of uses that are followed elsewhere.
        bodies: the scopes of functions, classes and comprehensions, by the id of their nodes.
        bound: what names are bound to, in any scope.
        places: where names are read, by the id of their nodes: the order, and the block.
        callers: calls by the last part of what is called, also those that a pool of workers makes.
        star_of: the module of which all names are imported. None: none.
    """

    def __init__(self, module: ast.Module) -> None:
        self.scope = Scope("module", "<module>", None)
        self.block = Block(None, self.scope)
        self.order = 0
        self.calls: list[tuple[ast.Call, Scope]] = []
        self.uses: list[tuple[ast.Name | ast.Attribute, Scope]] = []
        self.decorated: list[tuple[Function, Scope]] = []
        self.traced: set[int] = set()
        self.bodies: dict[int, Scope] = {}
        self.bound: list[tuple[str, Binding]] = []
        self.places: dict[int, tuple[int, Block]] = {}
        self.callers: dict[str, list[tuple[ast.Call, Scope]]] = {}
        self.star_of: str | None = None
        self.star_of_fused = False
        self.visit(module)

    def bind(self, name: str, bound: Bound, *, adds: bool = False) -> None:
        self.order += 1
        binding = Binding(bound, self.order, self.block, adds)
        self.bound.append((name, binding))
        self.scope.bind(name, binding)

    # -- scopes and blocks --------------------------------------------------------------------------------------------

    def _within(self, scope: Scope, node: ast.AST, parts: Iterable[ast.AST]) -> None:
        outer, block = self.scope, self.block
        self.scope = self.bodies[id(node)] = scope
        if scope.kind != "comprehension":  # which runs where it stands
            self.block = Block(None, scope)
        for name in scope.parameters:
            self.bind(name, None)
        for part in parts:
            self.visit(part)
        self.scope, self.block = outer, block

    def visit_FunctionDef(self, node: Function) -> None:
        self.bind(node.name, node)
        self.decorated.append((node, self.scope))
        for decorator in node.decorator_list:
            self.traced.add(id(decorator))
            self.visit(decorator)
        self._visit_signature(node.args)
        if node.returns is not None:
            self.visit(node.returns)
        body = Scope("function", node.name, self.scope, node, parameters=dict(_parameters(node.args)))
        self._within(body, node, node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_signature(node.args)
        body = Scope("function", self.scope.function, self.scope, node, parameters=dict(_parameters(node.args)))
        body.returned.append(node.body)
        self._within(body, node, [node.body])

    def _visit_signature(self, arguments: ast.arguments) -> None:
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
            if argument is not None and argument.annotation is not None:
                self.visit(argument.annotation)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.scope.returned.append(node.value)
            self.visit(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.bind(node.name, node)
        for outside in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(outside)
        self._within(Scope("class", self.scope.function, self.scope, node), node, node.body)

    def _run(self, statements: list[ast.stmt], *, is_loop: bool = False) -> None:
        """Visit statements that may not run, or not only once."""
        outer = self.block
        self.block = Block(outer, outer.scope, is_loop)
        for statement in statements:
            self.visit(statement)
        self.block = outer

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, _COMPREHENSIONS):
            inner = Scope("comprehension", self.scope.function, self.scope, node)
            self._within(inner, node, [*node.generators, *(each for each in ast.iter_child_nodes(node))])
            return
        for name in ("name", "rest"):  # `except … as name`, and the captures of `match`
            captured = getattr(node, name, None)
            if isinstance(captured, str):
                self.bind(captured, None)
        is_optional = (
            isinstance(node, (ast.If, ast.While, ast.ExceptHandler)) or hasattr(node, "handlers") or hasattr(node, "pattern")
        )
        for _, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                self.visit(value)
            elif isinstance(value, list):
                if is_optional and value and isinstance(value[0], ast.stmt):
                    self._run(value, is_loop=isinstance(node, ast.While))
                else:
                    for each in value:
                        if isinstance(each, ast.AST):
                            self.visit(each)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        outer = self.block
        self.block = Block(outer, outer.scope, is_loop=True)
        self._assign(node.target, Each(node.iter))
        for statement in node.body:
            self.visit(statement)
        self.block = outer
        self._run(node.orelse)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.visit_For(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        if id(node) in self.traced:
            return
        self.traced.add(id(node))
        self.visit(node.iter)
        self._assign(node.target, Each(node.iter))
        for part in node.ifs:
            self.visit(part)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self._assign(item.optional_vars, item.context_expr)
        for part in node.body:
            self.visit(part)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self.visit_With(node)

    # -- names --------------------------------------------------------------------------------------------------------

    def visit_alias(self, node: ast.alias) -> None:
        """Bound by the statement."""

    def visit_Global(self, node: ast.Global) -> None:
        self.scope.declared.update(dict.fromkeys(node.names, "global"))

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.scope.declared.update(dict.fromkeys(node.names, "nonlocal"))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            parts = tuple(alias.name.split("."))
            self.bind(alias.asname or parts[0], Global(parts if alias.asname else parts[:1]))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name != "*":
                self.bind(alias.asname or alias.name, Global((*module.split("."), alias.name)))
            elif module.partition(".")[0] == "fused":
                self.star_of_fused = True
            else:
                self.star_of = module

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self._assign(node.target, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            before = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
            self.visit(before)
            self.bind(node.target.id, ast.copy_location(ast.BinOp(before, node.op, node.value), node))
        else:
            self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        inner = self.scope
        while self.scope.kind == "comprehension" and self.scope.parent is not None:
            self.scope = self.scope.parent  # a walrus binds outside of the comprehension
        self._assign(node.target, node.value)
        self.scope = inner

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.bind(target.id, value)
            if self.scope.kind != "class":
                self.traced.add(id(value))
        elif isinstance(target, (ast.Tuple, ast.List)) and not any(isinstance(each, ast.Starred) for each in target.elts):
            for number, each in enumerate(target.elts):
                if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
                    self._assign(each, value.elts[number])
                else:
                    self._assign(each, ast.copy_location(ast.Subscript(value, ast.Constant(number), ast.Load()), value))
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):  # `paths["roads"] = …`
            self.visit(target)
            self.bind(target.value.id, ast.copy_location(ast.Dict([target.slice], [value]), value), adds=True)
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
            self.visit(target)
            holder = self.scope.parent
            if holder is not None and holder.kind == "class":
                self.order += 1
                kept = ast.copy_location(Within(value, self.scope), value)
                holder.bindings.setdefault(target.attr, []).append(Binding(kept, self.order, self.block))
        else:
            self.visit(target)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.uses.append((node, self.scope))
            self.places[id(node)] = (self.order, self.block)
        else:
            self.bind(node.id, None)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.uses.append((node, self.scope))
        self.traced.add(id(node.value))
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        self.calls.append((node, self.scope))
        self.traced.add(id(node.func))
        super().generic_visit(node)
        self._note_caller(node)
        function = node.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and len(node.args) == 1:
            given = node.args[0]
            if function.attr in ("append", "add"):
                given = ast.copy_location(ast.List([given], ast.Load()), given)
            if function.attr in ("append", "add", "extend", "update") and self.scope.find(function.value.id) is not None:
                self.bind(function.value.id, given, adds=True)

    def _note_caller(self, call: ast.Call) -> None:
        name = last_part(call.func)
        self.callers.setdefault(name, []).append((call, self.scope))
        if not call.args or not (name in _EACH or name in _ONCE or name == "submit"):
            return
        worker, *given = call.args
        if name in _EACH or (isinstance(call.func, ast.Attribute) and last_part(call.func.value) == "fused"):
            given = [Each(each) for each in given]
        called = ast.copy_location(ast.Call(worker, given, []), call)
        self.callers.setdefault(last_part(worker), []).append((called, self.scope))


def last_part(node: ast.expr) -> str:
    """The last part of a dotted name, or nothing."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _parameters(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr | None]]:
    """Each parameter, with its default."""
    positional = (*arguments.posonlyargs, *arguments.args)
    missing = len(positional) - len(arguments.defaults)
    yield from ((each.arg, default) for each, default in zip(positional, (*[None] * missing, *arguments.defaults)))
    yield from ((each.arg, default) for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults))
    yield from ((each.arg, None) for each in (arguments.vararg, arguments.kwarg) if each is not None)
