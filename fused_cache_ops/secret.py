"""Text that only HTTP gets to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, SupportsIndex, TypeVar, Union, overload
from urllib.parse import quote

T = TypeVar("T")

MASK = "********"


class Secret:
    """A token, masked wherever it is shown, never pickled, and no text: a piece of a text is a plain text again.

    Args:
        text: the token, or a header or address that holds it.
    """

    __slots__ = ("reveal",)

    def __init__(self, text: str) -> None:
        self.reveal: Callable[[], str] = lambda: text
        """The text itself. Call it where it is written out, and keep what it returns in no variable."""

    def __repr__(self) -> str:
        return f"'{MASK}'"

    def __str__(self) -> str:
        return MASK

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("A Fused token is never pickled: read it where it is used, from the environment or a secret.")

    def masked(self, text: str) -> str:
        """A text without the secret, in whatever form it holds it."""
        for form in _forms(self.reveal()):
            text = text.replace(form, MASK)
        return text


def _forms(text: str) -> Iterator[str]:
    """The whole, the last word of a header, the token before the name of a shared UDF, and each as an address has it."""
    forms = {text, text.rpartition(" ")[2]}
    if is_shared_token(text):
        forms.add(text.partition("/")[0])
    for form in sorted(filter(None, forms), key=len, reverse=True):
        yield form
        yield quote(form, safe="")


def is_shared_token(text: str) -> bool:
    """Whether a UDF is given by a shared token, which is a permission."""
    return text.lstrip().startswith(("fsh_", "fc_"))


@overload
def sealed(value: str) -> Secret: ...
@overload
def sealed(value: T) -> Union[T, Secret]: ...
def sealed(value: object) -> object:
    """A text as a secret; what is none, or nothing, as it is. For the first line of whatever takes a token."""
    return Secret(value) if isinstance(value, str) else value


def sealed_udf(udf: T) -> Union[T, Secret]:
    """A UDF's shared token as a secret; another reference as it is."""
    return Secret(udf) if isinstance(udf, str) and is_shared_token(udf) else udf


def masked(text: str, secrets: Iterable[Secret | None]) -> str:
    """A text without any of some secrets."""
    for secret in secrets:
        text = text if secret is None else secret.masked(text)
    return text
