"""What the expressions of a UDF's code are, as far as that is known without running it.

Known are literals, names that are bound to them, defaults of parameters, what functions of the same code are called with and
return, and what is put together from these. A part of a text that is only known at run time is `HOLE`. The work is bounded:
code that would take longer is known in part.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from fused_cache_ops.code.atoms import (
    MOST,
    NOTHING,
    UNKNOWN,
    Atom,
    Literal,
    Made,
    Text,
    Udf,
    Value,
    as_default,
    bounded,
    by_method,
    constant,
    either,
    fields_of_format,
    fields_of_percent,
    has_method,
    is_unknown,
    joined,
    path,
    text_of,
)
from fused_cache_ops.code.names import LATER, UNKNOWN_NODE, Names, is_function
from fused_cache_ops.code.scopes import Each, Global, Scope, Within, last_part
from fused_cache_ops.code.sql import HOLE

_LONGEST_NAME = 12  # parts
_SAME = frozenset(
    {"str", "Path", "PurePath", "PurePosixPath", "UPath", "text", "SQL", "dedent", "cleandoc", "fspath", "Request"}
    | {"sorted", "list", "tuple", "set", "frozenset", "reversed", "tqdm", "deepcopy", "copy"}
)
_SAME_OF = frozenset(
    {"pathlib", "sqlalchemy", "psycopg", "psycopg2", "textwrap", "inspect", "os", "tqdm", "upath", "copy", "urllib"}
)
_KEPT = frozenset({"as_posix", "as_uri", "read", "encode", "decode", "copy", "collect", "result", "resolve"})


class _Members(NamedTuple):
    """What is in a list or a dictionary: key, value and scope of each, and the values by keys that are constants."""

    pairs: list[tuple[ast.expr | None, ast.expr, Scope]]
    by_key: dict[str, list[tuple[ast.expr, Scope]]]
    has_keys: bool


class Values(Names):
    """What the expressions of one code are."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self._inside: dict[Literal, _Members] = {}

    def items(self, node: ast.expr, scope: Scope) -> Value:
        """What an expression is, or what is in it if it is a list or a dictionary, at any depth."""
        found: set[Atom] = set()
        ahead = list(self.value(node, scope))
        for _ in range(MOST * 10):
            if not ahead:
                break
            atom = ahead.pop()
            if atom in found:
                continue
            if isinstance(atom, Literal) and not is_function(atom.node):
                ahead += self._union((value, home) for _, value, home in self._members(atom).pairs)
            found.add(atom)
        return frozenset(each for each in found if not isinstance(each, Literal))

    # -- expressions --------------------------------------------------------------------------------------------------

    def evaluate(self, node: ast.AST, scope: Scope) -> Value:
        if isinstance(node, ast.Constant):
            return constant(node.value)
        if isinstance(node, ast.Name):
            return self.look_up(node, scope)
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
            return either([self.value(node.body, scope), self.value(node.orelse, scope)])
        if isinstance(node, ast.BoolOp):
            return self._alternatives(node, scope)
        if isinstance(node, ast.BinOp):
            return self._operation(node, scope)
        if isinstance(node, ast.JoinedStr):
            return joined([self.value(each, scope) for each in node.values])
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
        known = either(value for value in values if not is_unknown(value))
        if any(map(is_unknown, values)) and isinstance(node.op, ast.Or) and known:
            return as_default(known)
        return either(values)

    def _operation(self, node: ast.BinOp, scope: Scope) -> Value:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        if isinstance(node.op, ast.Add):
            if any(isinstance(each, Literal) for each in (*left, *right)):
                return left | right
            if all(isinstance(each, Text) and each.text.isdecimal() for each in (*left, *right)):
                return UNKNOWN  # a sum of numbers
            return joined([left, right])
        if isinstance(node.op, ast.Div):
            return path([left, right])
        if isinstance(node.op, ast.Mod):
            values: list[ast.expr] = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
            return either(self._filled(each, fields_of_percent(each.text), values, right, scope) for each in map(text_of, left))
        return UNKNOWN

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Value:
        found: set[Atom] = set()
        for owner in self.value(node.value, scope):
            if isinstance(owner, (Global, Made)) and len(owner[0]) >= _LONGEST_NAME:
                found.add(owner)  # code that calls itself could go on for ever
            elif isinstance(owner, Global):
                found.add(Global((*owner.parts, node.attr)))
            elif isinstance(owner, Made):
                found.add(owner._replace(name=(*owner.name, node.attr), owner=owner))
            elif isinstance(owner, Udf):
                library = next((name for name in sorted(owner.names) if "://" in name), "")
                found.add(Global(("udf", library.rstrip("/").rpartition("/")[2], node.attr)))
            elif isinstance(owner, Literal) and isinstance(owner.node, ast.ClassDef):
                body = self.code.bodies[id(owner.node)]
                bound = body.bindings.get(node.attr, ())
                found |= either(self.value(each.bound, body) for each in bound) if bound else UNKNOWN
            elif isinstance(owner, Text) and node.attr in ("parent", "name") and HOLE not in owner.text:
                pick = posixpath.dirname if node.attr == "parent" else posixpath.basename
                found.add(Text(pick(owner.text), owner.is_default))
            else:
                found.add(Text(HOLE))
        return frozenset(found)

    # -- items --------------------------------------------------------------------------------------------------------

    def _members(self, atom: Literal) -> _Members:
        """What is in a list or a dictionary, with what is spread into it."""
        if atom in self._inside:
            return self._inside[atom]
        node, scope = atom.node, atom.scope
        members = self._inside[atom] = _Members([], {}, isinstance(node, (ast.Dict, ast.DictComp)))
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            members.pairs.extend((None, each, scope) for each in node.elts)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            members.pairs.append((None, node.elt, self.inner(node, scope)))
        elif isinstance(node, ast.DictComp):
            members.pairs.append((node.key, node.value, self.inner(node, scope)))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if key is not None:
                    members.pairs.append((key, value, scope))
                for each in self.value(value, scope) if key is None else ():
                    if isinstance(each, Literal):
                        members.pairs.extend(self._members(each).pairs)
            for key, value, home in members.pairs:
                for known in constant(key.value) if isinstance(key, ast.Constant) else ():
                    members.by_key.setdefault(text_of(known).text, []).append((value, home))
        self.may_go_on(len(members.pairs))
        return members

    def _union(self, parts: Iterable[tuple[ast.expr | None, Scope]]) -> Value:
        """Any of several expressions."""
        found: set[Atom] = set()
        for node, scope in parts:
            if not self.may_go_on():
                return UNKNOWN
            value = self.value(node, scope)
            found |= self._any_of(value) if isinstance(node, ast.Starred) else value
        return bounded(frozenset(found))

    def _any_of(self, value: Value) -> Value:
        """Any item of what an expression is: of a dictionary, a key."""
        found: list[Value] = []
        for atom in value:
            if isinstance(atom, Literal) and not is_function(atom.node):
                members = self._members(atom)
                found.append(self._union((key if members.has_keys else item, home) for key, item, home in members.pairs))
            else:
                found.append(UNKNOWN if isinstance(atom, Global) else frozenset({atom}))
        return either(found)

    def _item(self, owner: Value, key: ast.expr | None, scope: Scope) -> Value:
        """The value of a key or place that is known, otherwise any value."""
        if isinstance(key, ast.Slice):
            return frozenset(each if isinstance(each, (Literal, Made)) else Text(HOLE) for each in owner)
        keys = NOTHING if key is None else self.value(key, scope)
        wanted = [each.text for each in keys if isinstance(each, Text) and HOLE not in each.text and not each.is_default]
        return self._picked(owner, wanted if len(wanted) == len(keys) else [])

    def _picked(self, owner: Value, wanted: list[str]) -> Value:
        inside = {atom: self._members(atom) for atom in owner if isinstance(atom, Literal) and not is_function(atom.node)}
        is_known = any(key in members.by_key for members in inside.values() for key in wanted)
        found: list[Value] = []
        for atom in owner:
            if not isinstance(atom, Literal) or atom not in inside:
                found.append(frozenset({atom}) if isinstance(atom, Made) else UNKNOWN)
                continue
            members = inside[atom]
            parts = [(value, home) for _, value, home in members.pairs]
            if is_known:
                parts = [each for key in wanted for each in members.by_key.get(key, ())]
            elif not members.has_keys and not any(isinstance(each, ast.Starred) for each, _ in parts):
                places = [int(each) for each in wanted if re.fullmatch(r"-?\d{1,4}", each)]
                is_list = isinstance(atom.node, (ast.List, ast.Tuple))
                parts = [parts[each] for each in places if is_list and -len(parts) <= each < len(parts)] or parts
            found.append(self._union(parts))
        return either(found)

    # -- calls --------------------------------------------------------------------------------------------------------

    def _result(self, call: ast.Call, scope: Scope) -> Value:
        found: list[Value] = []
        if isinstance(call.func, ast.Attribute):
            method = self._method(call, call.func, scope)
            if method is not None:
                return method
        for callee in self.value(call.func, scope):
            if isinstance(callee, Literal) and is_function(callee.node):
                found.append(self.called(callee, call, scope))
            elif isinstance(callee, Global):
                found.append(self._global_call(callee.parts, call, scope))
            elif isinstance(callee, Made):
                found.append(frozenset({callee._replace(call=call, scope=scope)}))
            else:
                made = Made(("", last_part(call.func)) if isinstance(call.func, ast.Attribute) else ("",), call, scope)
                found.append(frozenset({made}))
        return either(found)

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
            return path([self.value(each, scope) for each in call.args])
        if name[-2:] == ("path", "dirname") and first is not None:
            return frozenset(Text(posixpath.dirname(each.text), each.is_default) for each in self.texts(first, scope))
        if name[-2:] in (("environ", "get"), ("os", "getenv")):
            return as_default((len(call.args) > 1 and self.value(call.args[1], scope)) or UNKNOWN)
        if last in _SAME and (len(name) == 1 or name[0] in _SAME_OF):
            return self.value(first, scope) if first is not None else UNKNOWN
        if name == ("dict",) or last == "namedtuple":
            return frozenset({_dictionary(call.keywords, scope), *either(self.value(each, scope) for each in call.args)})
        if name == ("enumerate",) and call.args:
            return self._list([ast.Tuple([UNKNOWN_NODE, Each(call.args[0])], ast.Load())], scope)
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
            return NOTHING if not owner and name not in LATER else None
        if name == "join" and call.args:
            return self._text_join(owner, self.value(call.args[0], scope))
        if name == "joinpath":
            return path([owner, *(self.value(each, scope) for each in call.args)])
        if name in _KEPT and not call.args:
            return owner
        if name == "format":
            named: Value = frozenset({_dictionary(call.keywords, scope)})
            return either(
                self._filled(each, fields_of_format(each.text), call.args, named, scope) for each in map(text_of, owner)
            )
        if not has_method(name):
            return None
        arguments = [list(self.texts(each, scope)) for each in call.args]
        if any(len(each) != 1 or HOLE in each[0].text for each in arguments):
            return UNKNOWN
        found: set[Atom] = set()
        for each in map(text_of, owner):
            made = by_method(name, each, [argument[0].text for argument in arguments])
            if made is None:
                return UNKNOWN
            found |= {made} if isinstance(made, Text) else self._list([_Known(part) for part in made], scope)
        return frozenset(found)

    def _of_dictionary(self, name: str, owner: Value, call: ast.Call, scope: Scope) -> Value:
        if name in ("get", "pop", "setdefault"):
            found = self._item(owner, call.args[0] if call.args else None, scope)
            return found | self.value(call.args[1], scope) if len(call.args) > 1 else found
        items: list[ast.expr] = []
        for atom in owner:
            for key, value, home in self._members(atom).pairs if isinstance(atom, Literal) else ():
                if key is not None:
                    picked = value if name == "values" else key if name == "keys" else ast.Tuple([key, value], ast.Load())
                    items.append(Within(picked, home))
        return self._list(items, scope)

    # -- texts --------------------------------------------------------------------------------------------------------

    def _text_join(self, owner: Value, items: Value) -> Value:
        found: list[Value] = []
        for atom in items:
            if isinstance(atom, Literal) and isinstance(atom.node, (ast.List, ast.Tuple)):
                parts = [part for each in atom.node.elts[:MOST] for part in (owner, self.value(each, atom.scope))]
                found.append(joined(parts[1:]))
            else:
                found.append(joined([self._any_of(frozenset({atom})), UNKNOWN]))
        return either(found)

    def _filled(
        self, template: Text, fields: Iterable[tuple[str, str | None, bool]], values: list[ast.expr], named: Value, scope: Scope
    ) -> Value:
        """A template of ``%`` or `format` with its values."""
        parts: list[Value] = []
        following = iter(values)
        try:
            for literal, name, is_plain in fields:
                parts.append(frozenset({template._replace(text=literal)}))
                if name is None:
                    continue
                place = int(name) if name.isdecimal() and len(name) < 4 else None
                node = values[place] if place is not None and place < len(values) else None if name else next(following, None)
                value = self._picked(named, [name]) if name and place is None and named else self.value(node, scope)
                parts.append(value if is_plain else UNKNOWN)
        except ValueError:
            return UNKNOWN
        return joined(parts)


def _dictionary(keywords: list[ast.keyword], scope: Scope) -> Literal:
    keys: list[ast.expr | None] = [None if each.arg is None else ast.Constant(each.arg) for each in keywords]
    return Literal(ast.Dict(keys, [each.value for each in keywords]), scope)


class _Known(ast.expr):
    """A text that was worked out."""

    def __init__(self, text: Text) -> None:
        super().__init__()
        self.text = text
