"""What can go wrong, and whether trying again may help.

Every error says so in ``retryable``, so that an orchestrator retries what passes and stops at once for what does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fused_cache_ops.result import InvalidationResult
    from fused_cache_ops.tiles import RemainingTiles


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
        self.remaining: RemainingTiles | None = None

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


class PartialInvalidationError(FusedCacheError):
    """Some tiles were invalidated, and then something failed.

    Attributes:
        result: what was done, as an `InvalidationResult` of the confirmed tiles.
        remaining: exactly the tiles that are not known to be invalidated. Pass it to the next call. It reads the rest
            of the caller's own iterable as it goes and keeps what it has read, so it can be read more than once.
        cause: the error that ended the sending; ``retryable`` is the cause's.
    """

    result: InvalidationResult
    remaining: RemainingTiles
    cause: Exception

    def __init__(self, message: str, *, result: InvalidationResult, remaining: RemainingTiles, cause: Exception) -> None:
        super().__init__(message, status=getattr(cause, "status", None))
        self.result = result
        self.remaining = remaining
        self.cause = cause
        self.retryable = bool(getattr(cause, "retryable", False))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_partial, (self.message, self.result, self.remaining, self.cause)


def _rebuild_partial(
    message: str, result: InvalidationResult, remaining: RemainingTiles, cause: Exception
) -> PartialInvalidationError:
    return PartialInvalidationError(message, result=result, remaining=remaining, cause=cause)
