"""Secrets: text that is only revealed to HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, SupportsIndex, TypeVar, Union, overload
from urllib.parse import quote

T = TypeVar("T")

MASK = "********"


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
    """The whole text, the last word of a header, the token before a shared UDF's name, and each of them URL-encoded."""
    forms = {text, text.rpartition(" ")[2]}
    if is_shared_token(text):
        forms.add(text.partition("/")[0])
    for form in sorted(filter(None, forms), key=len, reverse=True):
        yield form
        yield quote(form, safe="")


def is_shared_token(text: str) -> bool:
    """Whether a UDF is given by a shared token, which grants access."""
    return text.lstrip().startswith(("fsh_", "fc_"))


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
