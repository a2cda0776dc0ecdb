"""Shared runs, as ``https://udf.ai`` serves them, and who may make them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor

from fused_cache_ops.emulator.assumptions import Assumptions
from fused_cache_ops.emulator.runs import Outcome, Runner, TileIndex, UdfFailed
from fused_cache_ops.emulator.store import Canvas, Store

_AGE = re.compile(r"(\d+)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_EXTENSION = re.compile(r"\.(json|geojson|parquet|csv|xlsx|html|png|jpg|tif|tiff|npy|mvt)$")
# What the service and the SDK put into the query. The rest are the UDF's parameters.
_NO_PARAMETERS = {
    "cache_max_age",
    "format",
    "profile",
    "fused_cache_disable_stream",
    "_stream_logs",
    "fused_session_token",
}


class _SharedToken(StringConvertor):
    """A shared token with its slashes. The API's own paths are not shared tokens."""

    regex = "(?!server/).+?"


register_url_convertor("shared_token", _SharedToken())


def shared_runs(store: Store, runner: Runner, assumptions: Assumptions) -> APIRouter:
    """The addresses of shared UDFs. The token in the address grants access, unless its canvas demands more."""
    router = APIRouter()

    @router.get("/{token:shared_token}/run/tiles/{z}/{x}/{y}")
    async def run_tile(token: str, z: int, x: int, y: int, request: Request) -> Response:
        return await run(token, (z, x, y), request)

    @router.get("/{token:shared_token}/run/file")
    @router.get("/{token:shared_token}/run")
    async def run_whole(token: str, request: Request) -> Response:
        return await run(token, None, request)

    @router.get("/{token:shared_token}")
    async def run_file(token: str, request: Request) -> Response:
        return await run(_EXTENSION.sub("", token), None, request)

    async def run(token: str, tile: TileIndex | None, request: Request) -> Response:
        udf, canvas = store.find_shared(token)
        if canvas is not None:
            check_access(canvas, request)
        if udf is None:
            raise HTTPException(404, "Shared token not found")
        parameters = {key: value for key, value in request.query_params.items() if key not in _NO_PARAMETERS}
        age = max_age(request.query_params)
        answer = await respond(runner.run, udf, store.shared_client_id(udf), tile, parameters, age)
        answer.headers.update(assumptions.shared_headers)
        return answer

    def check_access(canvas: Canvas, request: Request) -> None:
        """Refuse a run for which the canvas demands more than the shared token. The statuses are not documented."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if canvas.access_scope == "team":
            who = store.caller(scheme, given.strip())
            teammate = who is not None and who.email is not None and who.environment_id == canvas.environment_id
            session = request.query_params.get("fused_session_token", "")
            if not teammate and not store.session_token_is_valid(session, canvas.id):
                raise HTTPException(assumptions.refusal_status, "This canvas is not shared publicly.")
        elif canvas.passcode and (scheme.lower(), given.strip()) != ("fused-canvas-passcode", canvas.passcode):
            raise HTTPException(assumptions.refusal_status, "This canvas needs a passcode.")

    return router


async def respond(run: Callable[..., Outcome], *arguments: Any) -> Response:
    """The response to a run."""
    try:
        outcome = await run_in_threadpool(run, *arguments)
    except UdfFailed as error:
        raise HTTPException(500, str(error)) from error
    return Response(outcome.body, media_type=outcome.media_type, headers=dict(outcome.headers))


def max_age(query: Mapping[str, str]) -> int | None:
    """The seconds that ``cache_max_age`` in a query asks for."""
    text = query.get("cache_max_age")
    if text is None:
        return None
    match = _AGE.fullmatch(text)
    if match is None:
        raise HTTPException(422, f"cache_max_age={text!r}: write it as 30s, 5m, 2h or 14d")
    return int(match[1]) * _SECONDS[match[2]]
