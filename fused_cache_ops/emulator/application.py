"""The endpoints, as Fused's REST reference and SDK define them. Where neither does, a comment says so."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from fused_cache_ops.emulator.store import Caller, Store, Udf
from fused_cache_ops.selection.batches import MAX_BATCH

PREFIX = "/server/v1"
_AGE = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DEFAULT_AGE = "14d"  # [docs] how long results are kept by default


class TileKey(NamedTuple):
    z: Annotated[int, Field(ge=0)]
    x: Annotated[int, Field(ge=0)]
    y: Annotated[int, Field(ge=0)]


class TileBody(BaseModel):
    z: Annotated[int, Field(strict=True, ge=0)]
    x: Annotated[int, Field(strict=True, ge=0)]
    y: Annotated[int, Field(strict=True, ge=0)]


class BatchBody(BaseModel):
    # The response to 0 or more than 50,000 tiles is undocumented. 422 is the most likely.
    tiles: Annotated[list[TileBody], Field(min_length=1, max_length=MAX_BATCH)]


class Functions:
    """The Python functions behind the UDFs, by UDF id, and a hook. A UDF kept from an earlier run may have no function."""

    def __init__(self) -> None:
        self.by_udf: dict[str, Callable[..., Any]] = {}
        self.before_invalidation: Callable[[], None] | None = None


def build_application(store: Store, functions: Functions, *, batch_endpoint: bool = True) -> FastAPI:
    """The service as an ASGI application.

    Args:
        store: the data.
        functions: the functions that the UDFs run.
        batch_endpoint: False for a deployment without ``batch-delete``.
    """
    application = FastAPI(title="Fused emulator", docs_url=None, redoc_url=None, openapi_url=None)
    application.include_router(_api(store, functions, batch_endpoint=batch_endpoint), prefix=PREFIX)
    application.include_router(_runs(store, functions))
    return application


def _api(store: Store, functions: Functions, *, batch_endpoint: bool) -> APIRouter:
    async def caller(request: Request) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = store.caller(scheme, token.strip())
        if found is None:
            raise HTTPException(401, "Not authenticated: missing, malformed or expired credentials")
        return found

    Known = Annotated[Caller, Depends(caller)]  # noqa: N806
    router = APIRouter(dependencies=[Depends(caller)])

    def found(udf: Udf | None) -> dict[str, Any]:
        if udf is None:
            raise HTTPException(404, "UDF not found")
        return udf.record()

    def visible(udf_id: str, who: Caller) -> Udf:
        udf = store.find_udf(id=udf_id, environment_id=who.environment_id)
        if udf is None:
            raise HTTPException(404, "UDF not found")
        return udf

    async def writable(client_id: str, udf_id: str, who: Caller) -> Udf:
        udf = visible(udf_id, who)
        if client_id not in {instance["client_id"] for instance in store.instances(who.environment_id)}:
            raise HTTPException(404, "Realtime instance not found")
        if not who.may_write:
            raise HTTPException(403, "Write access to the UDF is required")
        if functions.before_invalidation is not None:
            await run_in_threadpool(functions.before_invalidation)
        return udf

    @router.get("/user/self")
    async def user(who: Known) -> dict[str, Any]:
        if who.email is None:
            raise HTTPException(403, "A service token is not a user")
        return {"email": who.email}

    @router.get("/execution-env/self")
    async def environment(who: Known) -> dict[str, Any]:
        return {"id": who.environment_id, "name": who.environment_name}

    @router.get("/realtime-instance/available")
    async def instances(who: Known) -> list[dict[str, Any]]:
        return store.instances(who.environment_id)

    @router.get("/udf/by-id/{udf_id}")
    async def udf_by_id(udf_id: str, who: Known) -> dict[str, Any]:
        return visible(udf_id, who).record()

    @router.get("/udf/shared/by-token/{token:path}")
    async def udf_by_token(token: str) -> dict[str, Any]:
        return found(store.find_udf(shared_token=token))

    @router.get("/udf/exec-env/self")
    async def udfs(
        who: Known, skip: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1)] = 300
    ) -> list[dict[str, Any]]:
        return [udf.record() for udf in store.udfs(who.environment_id, skip=skip, limit=limit)]

    @router.get("/udf/exec-env/self/by-slug/{slug}")
    @router.get("/udf/exec-env/self/by-collection/{canvas}/by-slug/{slug}")
    async def udf_of_team(slug: str, who: Known, canvas: str = "default") -> dict[str, Any]:
        return found(store.find_udf(environment_id=who.environment_id, email=None, canvas=canvas, slug=slug))

    @router.get("/udf/by-user-email/{email}/by-slug/{slug}")
    @router.get("/udf/by-user-email/{email}/by-collection/{canvas}/by-slug/{slug}")
    async def udf_by_email(email: str, slug: str, who: Known, canvas: str = "default") -> dict[str, Any]:
        return found(store.find_udf(environment_id=who.environment_id, email=email, canvas=canvas, slug=slug))

    @router.get("/udf/by-user-handle/{handle}/by-slug/{slug}")
    @router.get("/udf/by-user-handle/{handle}/by-collection/{canvas}/by-slug/{slug}")
    async def udf_by_handle(handle: str, slug: str, who: Known, canvas: str = "default") -> dict[str, Any]:
        email = store.user_email(handle)
        if email is None:
            raise HTTPException(404, "User not found")
        return found(store.find_udf(environment_id=who.environment_id, email=email, canvas=canvas, slug=slug))

    @router.delete("/realtime-shared/{client_id}/udf-cache/by-id/{udf_id}/delete", status_code=204)
    async def delete(
        client_id: str,
        udf_id: str,
        who: Known,
        z: Annotated[int | None, Query(ge=0)] = None,
        x: Annotated[int | None, Query(ge=0)] = None,
        y: Annotated[int | None, Query(ge=0)] = None,
    ) -> None:
        udf = await writable(client_id, udf_id, who)
        if z is None and x is None and y is None:
            store.delete_all(udf.id)
        elif z is None or x is None or y is None:
            raise RequestValidationError(
                [{"loc": ("query",), "msg": "z, x and y must be provided together", "type": "value_error"}]
            )
        else:
            store.delete_tiles(udf.id, [(z, x, y)])

    if batch_endpoint:

        @router.post("/realtime-shared/{client_id}/udf-cache/by-id/{udf_id}/batch-delete")
        async def batch_delete(client_id: str, udf_id: str, body: BatchBody, who: Known, request: Request) -> dict[str, Any]:
            request.state.tiles = len(body.tiles)
            udf = await writable(client_id, udf_id, who)
            tiles = {(tile.z, tile.x, tile.y) for tile in body.tiles}
            deleted = await run_in_threadpool(store.delete_tiles, udf.id, tiles)
            return {"udf_id": udf.id, "tiles_requested": len(tiles), "objects_deleted": deleted}

    return router


def _runs(store: Store, functions: Functions) -> APIRouter:
    router = APIRouter()

    @router.get("/{token}/run/tiles/{z}/{x}/{y}")
    async def run_tile(token: str, z: int, x: int, y: int, request: Request) -> Response:
        return await run(token, (z, x, y), request.query_params)

    @router.get("/{token}")
    async def run_whole(token: str, request: Request) -> Response:
        return await run(token.removesuffix(".json"), None, request.query_params)

    async def run(token: str, tile: tuple[int, int, int] | None, query: Mapping[str, str]) -> Response:
        """Run a shared UDF, or respond from its cache. The token in the address grants access."""
        udf = store.find_udf(shared_token=token)
        if udf is None:
            raise HTTPException(404, "Shared token not found")
        parameters = {key: value for key, value in query.items() if key != "cache_max_age"}
        key = json.dumps(parameters, sort_keys=True)
        hit = store.cached(udf.id, tile, key)
        if hit is not None and hit[1] < _max_age(query.get("cache_max_age", _DEFAULT_AGE)):
            return _json(hit[0], cached=True)
        function = functions.by_udf.get(udf.id)
        if function is None:
            raise HTTPException(500, f"UDF {udf.slug} has no function in this emulator: register it again")
        try:
            answer = await run_in_threadpool(function, **(dict(zip("zxy", tile or ())) | parameters))
        except Exception as error:
            raise HTTPException(500, f"UDF {udf.slug} failed: {type(error).__name__}: {error}") from error
        body = json.dumps(answer).encode()
        store.cache(udf.id, tile, key, body)
        return _json(body, cached=False)

    return router


def _json(body: bytes, *, cached: bool) -> Response:
    headers = {"x-cache": "Hit" if cached else "Miss"} | ({"x-fused-cached": "true"} if cached else {})
    return Response(body, media_type="application/json", headers=headers)


def _max_age(text: str) -> int:
    match = _AGE.fullmatch(text)
    if match is None:
        raise HTTPException(422, f"cache_max_age={text!r}: write it as 30s, 5m, 2h or 14d")
    return int(match[1]) * _SECONDS[match[2]]
