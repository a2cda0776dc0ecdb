"""The core's messages in the spelling of the tasks: ``limits={'deadline': …}``, ``credentials``."""

import contextlib
from collections.abc import Iterator

from fused_cache_ops import FusedCacheError
from fused_cache_ops.integration import LIMIT_OPTIONS, respelled

_OF_THE_BLOCK = ("client_id", "base_url", "run_base_url", "passcode", "ca_bundle", "client_certificate")


def _spelled(name: str, value: str | None) -> str | None:
    if name == "token":
        return "credentials=FusedCredentials.load('…')"
    if name in LIMIT_OPTIONS:
        return f"limits={{'{name}': {value or '…'}}}"
    return f"{name} of the FusedCredentials block" if name in _OF_THE_BLOCK else None


def in_our_words(message: str) -> str:
    """A message as the caller of a task would put it."""
    told = respelled(message, _spelled)
    return told.replace(" or pass shared_token=.", " pass shared_token=, or set shared_token of the FusedCredentials block.")


@contextlib.contextmanager
def respelling() -> Iterator[None]:
    """Put errors that pass into our words."""
    try:
        yield
    except FusedCacheError as error:
        error.args = (in_our_words(error.message), *error.args[1:])
        raise
