"""Secrets: text that is only revealed to HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, SupportsIndex, TypeVar, Union, overload
from urllib.parse import quote

T = TypeVar("T")

MASK = "********"

_PREFIXES = ("fsh_", "fc_", "UDF_")
_DIGITS = r"[0-9A-Fa-f]{64}"  # the oldest form
_START = r"(?:\b|(?<=%2F)|(?<=%2f))"
_IN_ADDRESS = re.compile(rf"{_START}(?:({'|'.join(_PREFIXES)})[^?#\s]*?(?=/run(?![^/?#\s])|[?#\s]|$)|{_DIGITS}(?![0-9A-Za-z]))")
_SESSION_TOKEN = re.compile(r"(fused_session_token(?:=|%3D))[^&#\s]+", re.IGNORECASE)


class Secret:
    """A token that is masked wherever it is shown and cannot be pickled. It is not a str, because a slice of one would be
    plain text again.

    Args:
        text: the token, or a header or address that contains it.
    """

    __slots__ = ("reveal",)

    def __init__(self, text: str) -> None:
        self.reveal: Callable[[], str] = lambda: text
        """The text itself. Call it only where the text is written out, and do not store the result in a variable."""

    def __repr__(self) -> str:
        return f"'{MASK}'"

    def __str__(self) -> str:
        return MASK

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("A Fused token cannot be pickled: read it where it is used, from the environment or a secret.")

    def masked(self, text: str) -> str:
        """The text with every form of the secret masked."""
        for form in _forms(self.reveal()):
            text = text.replace(form, MASK)
        return text


def _forms(text: str) -> Iterator[str]:
    """The whole text, the last word of a header, what a shared token begins with, and each of them URL-encoded."""
    forms = {text, text.rpartition(" ")[2]}
    if is_shared_token(text):
        parts = text.split("/")
        forms.update("/".join(parts[:count]) for count in range(1, len(parts)))
        forms.add(canvas_token(text) or "")
    for form in sorted(filter(None, forms), key=len, reverse=True):
        yield form
        yield quote(form, safe="")
        yield quote(form)


def is_shared_token(text: str) -> bool:
    """Whether a UDF is given by a shared token, which grants access. The rule is that of Fused's SDK."""
    text = text.strip()
    return text.startswith(_PREFIXES) or re.fullmatch(_DIGITS, text) is not None


def token_kind(text: str) -> str:
    """How a shared token begins, which may be shown: ``fsh_``, ``fc_``, ``UDF_``, or nothing for 64 digits."""
    return next((prefix for prefix in _PREFIXES if text.lstrip().startswith(prefix)), "")


def canvas_token(text: str) -> str | None:
    """The part of a shared token that stands for its canvas, or None if it has none. The rule is that of Fused's SDK:
    ``fc_<token>`` of ``fc_<token>/<udf>`` and ``fc_<token>-<udf>``, ``fc_<team>/<canvas>`` of ``fc_<team>/<canvas>/<udf>``."""
    text = text.strip()
    if token_kind(text) != "fc_":
        return None
    return text.rpartition("/")[0] or text.rpartition("-")[0] or text


def holds_shared_token(address: str) -> bool:
    """Whether an address contains what looks like a shared token."""
    return _IN_ADDRESS.search(address) is not None


def masked_address(text: str) -> str:
    """An address with shared tokens of every form and session tokens masked."""
    text = _SESSION_TOKEN.sub(rf"\1{MASK}", text)
    return _IN_ADDRESS.sub(lambda found: f"{found[1] or ''}{MASK}", text)


@overload
def sealed(value: str) -> Secret: ...
@overload
def sealed(value: T) -> Union[T, Secret]: ...
def sealed(value: object) -> object:
    """Text as a secret, and any other value unchanged. Use it in the first line of every function that takes a token."""
    return Secret(value) if isinstance(value, str) else value


def sealed_udf(udf: T) -> Union[T, Secret]:
    """A UDF's shared token as a secret, and any other reference unchanged."""
    return Secret(udf) if isinstance(udf, str) and is_shared_token(udf) else udf


def masked(text: str, secrets: Iterable[Secret | None]) -> str:
    """The text with all of the given secrets masked."""
    for secret in secrets:
        text = text if secret is None else secret.masked(text)
    return text
