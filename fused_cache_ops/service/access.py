"""Access to the shared UDFs of a canvas: by the shared token alone, by a passcode, or by a session token."""

from __future__ import annotations

import hashlib
import threading

from fused_cache_ops.errors import FusedCacheError, InvalidationCancelledError
from fused_cache_ops.secret import Secret, canvas_token
from fused_cache_ops.service.retry import Retrier, Stopped
from fused_cache_ops.service.service import Service, SharedRun
from fused_cache_ops.tiles.tile import Tile

_REFUSALS = (401, 403, 404)  # which of them means "no access" is not documented
_PASSCODE = "If the canvas has a passcode, set passcode or FUSED_CANVAS_PASSCODE."
_NAME = "A new session token did not help: check the UDF's name in the shared token."


class Access:
    """What one call may run of a canvas.

    A public canvas asks for nothing but the shared token, and for its passcode if it has one. Once a run is refused, a session
    token of the canvas is minted, as a team canvas demands. It stays in the memory of the `Service` for later calls. One that
    is refused later is taken as expired and replaced, once in a call. None is revoked, because the service can only revoke
    all session tokens of a canvas, also those of others.

    Args:
        service: the deployment.
        token: the shared token.
        retrier: the call, for minting session tokens.
        parameters: the UDF's parameters, as for `Service.request_shared`.
        timeout: seconds that a run may take. Default: those of the client.
    """

    def __init__(
        self, service: Service, token: Secret, retrier: Retrier, *, parameters: str = "", timeout: float | None = None
    ) -> None:
        self._service = service
        self._token = token
        self._retrier = retrier
        self._parameters = parameters
        self._timeout = timeout
        canvas = canvas_token(token.reveal())
        self._canvas = Secret(canvas) if canvas else None
        self._key = hashlib.sha256((canvas or "").encode()).digest()
        self._lock = threading.Lock()  # held while minting, so that a call mints once for all its threads
        self._replaced = False
        self._problem = ""

    def request(self, tile: Tile | None, retrier: Retrier) -> SharedRun:
        """Request a tile of the shared UDF, or its result without a tile, again with a session token if it was refused
        without one.

        Args:
            tile: the tile, or None.
            retrier: what the request belongs to: the call, or a part of it.

        Raises:
            InvalidationCancelledError: `FusedClient.cancel` ended the call.
        """
        while True:
            session = self._service.session_tokens.get(self._key)
            run = self._service.request_shared(
                self._token, tile, retrier=retrier, session=session, parameters=self._parameters, timeout=self._timeout
            )
            if run.status not in _REFUSALS:
                return run
            if not self._obtain_another(session):
                remedy = self._problem or (_PASSCODE if session is None else _NAME)
                return run._replace(trouble=f"{run.trouble}. {remedy}")

    def _obtain_another(self, refused: Secret | None) -> bool:
        """Whether there is another session token than the one that was refused (None: there was none)."""
        if self._canvas is None:
            return False
        with self._lock:
            if self._service.session_tokens.get(self._key) is not refused:
                return True  # another thread was faster
            if self._problem or (refused is not None and self._replaced):
                return False
            self._replaced = self._replaced or refused is not None
            try:
                minted = self._service.mint_session_token(self._canvas, retrier=self._retrier)
            except (InvalidationCancelledError, Stopped):
                self._retrier.raise_if_cancelled()
                return False
            except FusedCacheError as error:
                self._problem = error.message
                return False
            self._service.session_tokens[self._key] = minted
            return True
