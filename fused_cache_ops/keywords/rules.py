"""What is refused, whoever says it: contradictions, and whatever could mean everything by mistake."""

from collections.abc import Iterable, Mapping
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.call import CALL_OPTIONS, NEEDS_SELECTION
from fused_cache_ops.keywords.client import CLIENT_OPTIONS
from fused_cache_ops.keywords.h3_index import runs_an_index
from fused_cache_ops.keywords.selection import KINDS, SELECTION_OPTIONS
from fused_cache_ops.keywords.values import NOT_GIVEN, WHOLE_UDF
from fused_cache_ops.tiles.tile import is_boolean
from fused_cache_ops.wording import quoted


def refuse_unknown(given: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Reject a keyword that is not declared.

    Raises:
        TypeError: as said.
    """
    known = list(allowed)
    if unknown := sorted(given.keys() - set(known)):
        if unknown[0] in CLIENT_OPTIONS:
            raise TypeError(
                f"{unknown[0]} is a setting of the client, not a keyword of the call: give it to FusedClient({unknown[0]}=…), "
                f"or to a function as client={{{unknown[0]!r}: …}}."
            )
        raise TypeError(f"Unknown keyword {', '.join(unknown)}: the keywords are {', '.join(known)}.")


STATED = tuple(name for name in (*SELECTION_OPTIONS, "related") if CALL_OPTIONS[name].default is None)
"""The keywords that are None if they are omitted, and would select something else if a value went missing. Where values come
from other steps, as in orchestrators, `NOT_GIVEN` says that they are omitted."""


def stated(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that are given. None is not the same as omitted where it may be a value that went missing.

    Raises:
        InvalidInputError: one of `STATED` is None.
    """
    for name in STATED:
        if keywords.get(name, NOT_GIVEN) is None:
            raise InvalidInputError(
                f"{name} is None, which may be a value that is missing: pass a value, or omit {name}. Nothing was invalidated."
            )
    return {name: value for name, value in keywords.items() if name not in STATED or value is not NOT_GIVEN}


def differs(value: Any, default: Any) -> bool:
    """Whether a keyword has another value than its default."""
    return not (value is default or (type(value) is type(default) and value == default))


def is_given(keywords: Mapping[str, Any], name: str) -> bool:
    """Whether a keyword was given, with another value than its default."""
    return name in keywords and differs(keywords[name], CALL_OPTIONS[name].default)


def kinds_in(keywords: Mapping[str, Any]) -> list[str]:
    """The kinds of selection that are given, including ``whole_udf``.

    Raises:
        InvalidInputError: ``whole_udf`` is neither true nor false.
    """
    whole = keywords.get("whole_udf", False)
    if not is_boolean(whole):
        raise InvalidInputError(f"whole_udf = {quoted(whole)} must be True or False.")
    given = [kind for kind in KINDS if kind in keywords]
    kinds = [kind for kind in given if keywords[kind] is not WHOLE_UDF and keywords[kind] is not NOT_GIVEN]
    return [*kinds, "whole_udf"] if whole else kinds


def one_kind_in(keywords: Mapping[str, Any]) -> str | None:
    """The kind of selection that is given, or None.

    Raises:
        InvalidInputError: there are several, or there is none, or only ``whole_udf``, beside keywords that need a selection.
    """
    kinds = kinds_in(keywords)
    if len(kinds) > 1:
        raise InvalidInputError(f"{' and '.join(kinds)} are both given: use one kind of selection at a time.")
    if not kinds or kinds == ["whole_udf"]:
        refuse_without_selection(keywords)
    return kinds[0] if kinds else None


def require_kind(keywords: Mapping[str, Any], source: str) -> None:
    """Reject keywords from data that select nothing. There, the whole UDF must be requested explicitly.

    Args:
        keywords: the keywords from the data.
        source: where they come from, for the message: ``"The function returned"``.

    Raises:
        InvalidInputError: the keywords select nothing.
    """
    if not kinds_in(keywords) and keywords.get("tiles") is not WHOLE_UDF:
        raise InvalidInputError(
            f"{source} no selection: give one of {', '.join(KINDS)}, such as {{'tiles': […]}}, or whole_udf=True to "
            "invalidate everything. An empty list invalidates nothing."
        )


def refuse_without_selection(given: Mapping[str, Any]) -> None:
    """Reject keywords that need a selection if there is none.

    Raises:
        InvalidInputError: one of them differs from its default.
    """
    present = [name for name in NEEDS_SELECTION if is_given(given, name)]
    if present:
        shown = ", ".join(f"{name} = {quoted(given[name], 40)}" for name in present)
        raise InvalidInputError(
            f"{shown} {'need' if len(present) > 1 else 'needs'} a selection, but there is none: give one of "
            f"{', '.join(KINDS)}. To invalidate the whole UDF, omit {' and '.join(present)}."
        )


def refuse_what_takes_long(given: Mapping[str, Any], where: str, instead: str) -> None:
    """Reject ``again_after``, ``refresh`` and a run of ``h3_index`` where nothing can wait for them.

    Args:
        given: the keywords.
        where: what cannot wait, for the message: ``"a hook"``.
        instead: what can, for the message.

    Raises:
        InvalidInputError: one of them is given.
    """
    for name in ("again_after", "refresh"):
        if is_given(given, name):
            raise InvalidInputError(f"{name} takes long, and {where} cannot wait for it: use {instead}, or omit {name}.")
    if runs_an_index(given):
        raise InvalidInputError(f"run in h3_index takes long, and {where} cannot wait for it: use {instead}, or omit run.")
