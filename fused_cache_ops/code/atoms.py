"""What an expression of a UDF's code may be: texts, functions, lists and the like, and what is put together from texts."""

from __future__ import annotations

import ast
import itertools
import re
import string
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Optional, Union

from fused_cache_ops.code.scopes import Global, Scope
from fused_cache_ops.code.sql import HOLE

MOST = 200
"""How many things one expression may be. If it may be more, it is unknown."""

_LONGEST = 20_000
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


def constant(value: object) -> Value:
    """What a constant of the code is."""
    if value is None or value is Ellipsis:
        return NOTHING
    if isinstance(value, str):
        return frozenset({Text(value.replace(HOLE, "\N{REPLACEMENT CHARACTER}"))}) if len(value) <= _LONGEST else UNKNOWN
    if isinstance(value, (int, float)) and abs(value) < 1e15:
        return frozenset({Text(str(value))})
    return UNKNOWN


def text_of(atom: Atom) -> Text:
    """An atom as a part of a text. What is no text is a hole."""
    return atom if isinstance(atom, Text) else Text(HOLE)


def is_unknown(value: Value) -> bool:
    """Whether nothing is known of a value."""
    return value == UNKNOWN or (bool(value) and all(isinstance(each, Global) for each in value))


def as_default(value: Value) -> Value:
    """A value that is only a default."""
    return frozenset(each._replace(is_default=True) if isinstance(each, Text) else each for each in value)


def either(values: Iterable[Value]) -> Value:
    """Any of several values."""
    return bounded(frozenset().union(*values))


def bounded(value: Value) -> Value:
    """A value that is not too many things: otherwise what all of its texts begin with."""
    if len(value) <= MOST:
        return value
    texts = [each for each in value if isinstance(each, Text)]
    if len(texts) < len(value):
        return UNKNOWN
    pairs = zip(min(texts).text, max(texts).text)  # between these two are all others
    beginning = "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return frozenset({Text(f"{beginning}{HOLE}", any(each.is_default for each in texts))}) if beginning else UNKNOWN


def joined(parts: Iterable[Value]) -> Value:
    """Texts one after the other."""
    texts: frozenset[Text] = frozenset({Text("")})
    for part in parts:
        ends = frozenset(map(text_of, part))
        if len(texts) * len(ends) > MOST or any(len(each.text) > _LONGEST for each in ends):
            ends = frozenset({Text(HOLE)})
        texts = frozenset(_sum(left, right) for left in texts for right in ends)
        if any(len(each.text) > _LONGEST for each in texts):
            return UNKNOWN
    return frozenset(texts)


def path(parts: Iterable[Value]) -> Value:
    """Folders and a file, with slashes between them."""
    whole: Value = NOTHING
    for part in parts:
        known = map(text_of, whole)
        slashed = frozenset(each if each.text.endswith("/") else each._replace(text=f"{each.text}/") for each in known)
        whole = joined([slashed, part]) if whole else part
    return whole or UNKNOWN


def fields_of_percent(template: str) -> Iterator[tuple[str, str | None, bool]]:
    """Of ``"…%s…"``: each literal, the field after it (a name, or nothing for the next value), and whether it is plain.

    The field after the last literal is None.
    """
    literal, *rest = re.split(r"%(?:\((\w+)\))?[-+ #0]*(\d*(?:\.\d+)?[sdifrx%])", template)
    for name, kind, after in zip(rest[::3], rest[1::3], rest[2::3]):
        if kind == "%":
            literal += f"%{after}"
            continue
        yield literal, name or "", kind in ("s", "d", "i")
        literal = after
    yield literal, None, True


def fields_of_format(template: str) -> Iterator[tuple[str, str | None, bool]]:
    """Of ``"…{}…{name}…"``: as `fields_of_percent`.

    Raises:
        ValueError: it is no template.
    """
    for literal, name, spec, conversion in string.Formatter().parse(template):
        yield literal, name, not (spec or conversion)


def by_method(name: str, text: Text, arguments: list[str]) -> list[Text] | Text | None:
    """What a method of a text returns: a text, or the parts that it is split into. None: that is not known."""
    numbers = [int(each) if place and each.isdecimal() else each for place, each in enumerate(arguments)]
    try:
        if name in _ON_TEXT:
            return text._replace(text=_ON_TEXT[name](text.text, *arguments))
        parts = list(_SPLITTING[name](text.text, *numbers))[:MOST]
    except (TypeError, ValueError):
        return None
    # A hole may hold more of what the text is split at. So a part has no known place, unless it is counted from its own end.
    is_counted = name.startswith("r") and not any(HOLE in part for part in parts[1:])
    if HOLE in text.text and not is_counted:
        parts = [part for part in parts if HOLE not in part][:1] or [HOLE]
    return [text._replace(text=part) for part in parts]


def has_method(name: str) -> bool:
    """Whether `by_method` knows a method."""
    return name in _ON_TEXT or name in _SPLITTING


def _sum(left: Text, right: Text) -> Text:
    begins = right.text[1:] if left.text.endswith(HOLE) and right.text.startswith(HOLE) else right.text
    return Text(left.text + begins, left.is_default or right.is_default)
