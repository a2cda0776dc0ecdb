"""One keyword in one line: ``name: Annotated[type, Option(default, help)]`` in a ``TypedDict``.

Signatures, configurations, template fields and command-line options are derived from these declarations.
"""

import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.wording import quoted


class Option(NamedTuple):
    """What a keyword has beside its type.

    Attributes:
        default: its value if it is left out.
        help: one line that says what it is for.
        read: reads text from a template, a form or an environment variable: ``read(name, text)``. None: the core reads the
            text itself.
        needs_selection: whether it means nothing without a selection, so that it must not invalidate everything on its own.
        stored: whether a run's settings, such as Dagster's configuration, may hold it. False for secrets.
    """

    default: Any
    help: str
    read: Callable[[str, str], Any] | None = None
    needs_selection: bool = False
    stored: bool = True


def options_of(declaration: Any) -> dict[str, Option]:
    """The options of a ``TypedDict`` by their names, in the order of declaration."""
    return {name: hint.__metadata__[0] for name, hint in declaration.__annotations__.items()}


def types_of(declaration: Any) -> dict[str, Any]:
    """The types of a ``TypedDict`` by their names."""
    return {name: typing.get_args(hint)[0] for name, hint in declaration.__annotations__.items()}


def defaults_of(declaration: Any) -> dict[str, Any]:
    """The defaults of a ``TypedDict`` by their names."""
    return {name: option.default for name, option in options_of(declaration).items()}


def help_of(declaration: Any) -> dict[str, str]:
    """A line of help for each key of a ``TypedDict``."""
    return {name: option.help for name, option in options_of(declaration).items()}


def described(declaration: Any) -> str:
    """The docstring of a ``TypedDict``, with a line for each key."""
    lines = [f"    {name}: {option.help} Default: {option.default!r}." for name, option in options_of(declaration).items()]
    return "\n".join([declaration.__doc__, "", "Keys:", *lines])


def check_keys(given: Any, allowed: Iterable[str], where: str, *, example: str = "") -> None:
    """Reject what is not a mapping, and a key that is not allowed, with the nearest one that is. Values are never shown.

    Args:
        given: the group as it was given.
        allowed: its keys.
        where: what the message calls it.
        example: what it may look like, for the message.

    Raises:
        InvalidInputError: as said.
    """
    known = list(allowed)
    if not isinstance(given, Mapping):
        shown = f", such as {example}" if example else ""
        raise InvalidInputError(f"{where} is of type {type(given).__name__}: pass a mapping with {', '.join(known)}{shown}.")
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            meant = f"Did you mean {near[0]}?" if near else f"The keys are {', '.join(known)}."
            raise InvalidInputError(f"{where}: unknown key {quoted(key)}. {meant}")
