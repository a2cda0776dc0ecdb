"""The errors, and whether a retry may help.

Every error has ``retryable``: orchestrators retry transient errors and stop at once for permanent ones. All are importable
from ``fused_cache_ops``::

    FusedCacheError
    ├── PermanentError                    trying again does not help
    │   ├── ConfigurationError            a setting is missing or invalid
    │   ├── InvalidInputError             a UDF or a selection cannot be read
    │   ├── AuthenticationError           401
    │   ├── PermissionDeniedError         403
    │   ├── NotFoundError                 404
    │   ├── InvalidRequestError           422
    │   ├── UnexpectedRedirectError       3xx
    │   └── UnexpectedResponseError       any other response
    │       └── UnconfirmedError          a response to an invalidation that is neither a yes nor an error
    ├── TransientError                    the same call may succeed later
    │   ├── RateLimitedError              429
    │   └── UnavailableError              no connection, timeout, 408, 5xx; a file or store that cannot be read
    ├── InvalidationCancelledError        ended by `FusedClient.cancel`
    ├── PartialInvalidationError          some tiles were invalidated before the failure
    ├── FollowUpError                     everything is invalidated, but not what was to follow it
    │   ├── VerificationError             a tile still comes from the cache
    │   ├── RefreshError                  not everything could be refreshed
    │   └── AnnouncementError             open maps were not told
    └── DatasetInvalidationError          some UDFs of a dataset failed

The last ones are about work of which a part is done: only their ``retryable`` says whether a retry may help.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Union


class Remaining(Protocol):
    """The tiles not yet confirmed as invalidated: the interface of `fused_cache_ops.selection.remaining.RemainingTiles`."""

    unreadable: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[int, int, int]]: ...
    def save(self, path: Union[str, os.PathLike[str]]) -> int: ...


class Unfinished(NamedTuple):
    """One UDF on one real-time instance whose invalidation was not completed.

    Attributes:
        udf_id: the UDF's id.
        client_id: the instance.
        remaining: the tiles not yet confirmed as invalidated. None for the whole UDF.
    """

    udf_id: str
    client_id: str
    remaining: Remaining | None


_CONTEXT: Any = vars(BaseException)["__context__"]


class FusedCacheError(Exception):
    """Base class of every error that this package raises deliberately.

    Attributes:
        retryable: whether the same call may succeed later without any change.
        status: the HTTP status of the response, or None if there was no response.
        remaining: the tiles of the UDF not yet confirmed as invalidated on every instance, or None if no tiles were to be
            sent.
        unfinished: what was not completed, for each UDF and instance. Empty if the call failed before they were known.
    """

    retryable: bool = False

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.remaining: Remaining | None = None
        self.unfinished: tuple[Unfinished, ...] = ()

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def __context__(self) -> BaseException | None:
        """What this error came from, unless it was raised "from None": that may quote what grants access, and some libraries
        (tblib) pickle it."""
        return None if self.__suppress_context__ else _CONTEXT.__get__(self)

    @__context__.setter
    def __context__(self, error: BaseException | None) -> None:
        _CONTEXT.__set__(self, error)


class PermanentError(FusedCacheError):
    """Base class of errors that the same call would meet again."""


class TransientError(FusedCacheError):
    """Base class of errors that may pass: the same call may succeed later."""

    retryable = True


class ConfigurationError(PermanentError, ValueError):
    """A setting is missing or invalid: token, client id, base URL, timeout. Raised before any request."""


class InvalidInputError(PermanentError, ValueError):
    """A UDF or a selection of tiles cannot be read. Raised before the request that would have contained it."""


class AuthenticationError(PermanentError):
    """401: the token is missing, malformed or expired."""


class PermissionDeniedError(PermanentError):
    """403: the token is valid but lacks permission. Invalidating needs write access to the UDF."""


class NotFoundError(PermanentError):
    """404: the UDF or instance does not exist, or the token may not see it."""


class InvalidRequestError(PermanentError):
    """422: the server rejected the request's values. The message contains its reasons."""


class UnexpectedRedirectError(PermanentError):
    """3xx: never followed, because a redirected DELETE arrives as a GET and invalidates nothing."""


class UnexpectedResponseError(PermanentError):
    """A response that the service does not document."""


class UnconfirmedError(UnexpectedResponseError):
    """A response to an invalidation that is neither a yes nor an error: 202, or 200 without what is documented."""


class RateLimitedError(TransientError):
    """429: too many requests. ``retry_after`` is the wait in seconds that the server asked for, or None."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class UnavailableError(TransientError):
    """No connection, a timeout, 408 or 5xx, or a file or store that cannot be read. ``retry_after`` is as in
    `RateLimitedError`."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class StaleConnectionError(UnavailableError):
    """The server had closed a kept-alive connection. The request is retried at once on another connection."""


class FollowUpError(FusedCacheError):
    """Base class of errors after an invalidation that is complete. ``result`` is what was done, as an `InvalidationResult`."""

    result: Any = None


class InvalidationCancelledError(FusedCacheError):
    """The call was ended by `FusedClient.cancel`. ``remaining`` holds the tiles not yet confirmed as invalidated."""


_WRONG_PATHS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ELOOP)
_STORES = ("aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "obstore", "s3fs", "urllib3")
_NOT_REACHED = re.compile(r"no such file|does not exist|HTTP|timed? ?out|resolve|refused|connect|slow ?down", re.IGNORECASE)


def unreadable(error: Exception, message: str, wrong: type[PermanentError] = InvalidInputError) -> FusedCacheError:
    """The error for a file or an object that was asked for. What could not be read is transient: a store is down, or a file is
    not there yet. What was read and is wrong is permanent.

    Args:
        error: what the library that reads it raised.
        message: what is said.
        wrong: the permanent error.
    """
    if isinstance(error, gzip.BadGzipFile):
        return wrong(message)
    if isinstance(error, OSError):
        return wrong(message) if error.errno in _WRONG_PATHS else UnavailableError(message)
    of_store = type(error).__module__.partition(".")[0] in _STORES
    # GDAL says it in words only.
    said = type(error).__name__ == "DataSourceError" and _NOT_REACHED.search(str(error))
    return UnavailableError(message) if of_store or said else wrong(message)
