"""What can go wrong, and whether trying again may help.

Every error says so in ``retryable``: an orchestrator retries what is temporary, and stops at once for the rest. All are
importable from ``fused_cache_ops``::

    FusedCacheError
    ├── ConfigurationError            a setting is missing or unusable
    ├── InvalidInputError             a UDF or a selection cannot be read
    ├── AuthenticationError           401
    ├── PermissionDeniedError         403
    ├── NotFoundError                 404
    ├── InvalidRequestError           422
    ├── UnexpectedRedirectError       3xx
    ├── UnexpectedResponseError       any other answer
    ├── RateLimitedError              429, retryable
    ├── UnavailableError              no connection, time-out, 408, 5xx, retryable
    │   └── StaleConnectionError      a kept-alive connection that the server had closed
    ├── InvalidationCancelledError    ended by `FusedClient.cancel`
    └── PartialInvalidationError      some tiles were invalidated first (in ``outcome.py``)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol, Union


class Remaining(Protocol):
    """The tiles that are not known to be invalidated, as `fused_cache_ops.selection.remaining.RemainingTiles` has them."""

    unreadable: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[int, int, int]]: ...
    def save(self, path: Union[str, os.PathLike[str]]) -> int: ...


class FusedCacheError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        retryable: whether the same call may work later, with nothing changed.
        status: the HTTP status that the server answered with, or None where there was no answer.
        remaining: where sending tiles had begun, the tiles that are not known to be invalidated; else None.
    """

    retryable: bool = False

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.remaining: Remaining | None = None

    @property
    def message(self) -> str:
        return str(self.args[0])


class ConfigurationError(FusedCacheError, ValueError):
    """A setting is missing or unusable: token, client id, base URL, time-out. Raised before any request."""


class InvalidInputError(FusedCacheError, ValueError):
    """A UDF or a selection of tiles that cannot be read. Raised before the request that would have carried it."""


class AuthenticationError(FusedCacheError):
    """401: the token is missing, malformed or expired."""


class PermissionDeniedError(FusedCacheError):
    """403: the token is good, but not for this (invalidating needs write access to the UDF)."""


class NotFoundError(FusedCacheError):
    """404: there is no such thing, or the token may not see it."""


class InvalidRequestError(FusedCacheError):
    """422: the server refused the request's values; its reasons are in the message."""


class UnexpectedRedirectError(FusedCacheError):
    """3xx: never followed, since a redirected DELETE arrives as a GET and invalidates nothing."""


class UnexpectedResponseError(FusedCacheError):
    """An answer outside the service's documented ones."""


class RateLimitedError(FusedCacheError):
    """429: too many requests. ``retry_after`` is the wait in seconds that the server asked for, or None."""

    retryable = True

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class UnavailableError(FusedCacheError):
    """No connection, a time-out, 408 or 5xx. ``retry_after`` as in `RateLimitedError`."""

    retryable = True

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class StaleConnectionError(UnavailableError):
    """A connection that was kept alive had been closed by the server: tried again at once, on another."""


class InvalidationCancelledError(FusedCacheError):
    """The call was ended by `FusedClient.cancel`; ``remaining`` holds the tiles that are not known to be invalidated."""
