"""The endpoints, as Fused's REST reference and SDK define them. Where neither does, a comment says so."""

import functools
import json
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Annotated, Any, NamedTuple, cast

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from fused_cache_ops.emulator.assumptions import Assumptions
from fused_cache_ops.emulator.canvases import canvas_lookups, session_tokens
from fused_cache_ops.emulator.drive import Drive, drives
from fused_cache_ops.emulator.runs import Runner, TileIndex
from fused_cache_ops.emulator.shared import max_age, respond, shared_runs
from fused_cache_ops.emulator.store import Caller, Store, Udf
from fused_cache_ops.emulator.tables import H3Table, h3_indexes
from fused_cache_ops.selection.batches import MAX_BATCH

PREFIX = "/server/v1"


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


class RunBody(BaseModel):
    step_config: str  # JSON within JSON


class Hooks:
    """What is called at certain moments."""

    def __init__(self) -> None:
        self.before_invalidation: Callable[[], None] | None = None


class Parts(NamedTuple):
    """What one emulator consists of.

    Attributes:
        store: the data.
        runner: runs the UDFs.
        assumptions: what the documentation leaves open.
        hooks: what is called at certain moments.
        drive: the files of every instance.
        tables: the H3 tables, by their paths.
    """

    store: Store
    runner: Runner
    assumptions: Assumptions
    hooks: Hooks
    drive: Drive
    tables: dict[str, H3Table]


_PARTS: ContextVar[Parts] = ContextVar("parts")


class _Part:
    """A part of the emulator that the request has reached. Emulators share their routes, which are costly to build."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(_PARTS.get(), self._name), name)


def build_application(parts: Parts, *, batch_endpoint: bool = True) -> ASGIApp:
    """The service as an ASGI application.

    Args:
        parts: what the emulator consists of.
        batch_endpoint: False for a deployment without ``batch-delete``.
    """
    routes = _build_routes(batch_endpoint)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        _PARTS.set(parts)
        await routes(scope, receive, send)

    return application


@functools.cache
def _build_routes(batch_endpoint: bool) -> FastAPI:
    store, runner, assumptions, hooks, drive, tables = (cast("Any", _Part(name)) for name in Parts._fields)

    async def caller(request: Request) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found: Caller | None = store.caller(scheme, token.strip())
        if found is None:
            raise HTTPException(401, "Not authenticated: missing, malformed or expired credentials")
        return found

    async def any_caller(request: Request) -> Caller:
        """Also a service token that comes as a personal one, as the SDK sends it for H3 tables."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        service: Caller | None = store.caller("Fused-Service-Token", token.strip()) if scheme.lower() == "bearer" else None
        return service or await caller(request)

    application = FastAPI(title="Fused emulator", docs_url=None, redoc_url=None, openapi_url=None)
    routers = [
        _api(store, assumptions, hooks, caller, batch_endpoint=batch_endpoint),
        canvas_lookups(store, assumptions, caller),
        session_tokens(store, assumptions, caller),
        _runs_of_loaded_udfs(store, runner, caller),
        drives(store, drive, caller),
        h3_indexes(tables, any_caller),
    ]
    shared = shared_runs(store, runner, assumptions).routes
    # Mounted, because include_router would build every route once more, and most tests start an emulator.
    custom = Mount("/realtime-shared", routes=shared)  # where custom deployments run them
    routes = [route for router in routers for route in router.routes]
    application.router.routes += [Mount(PREFIX, routes=[*routes, custom]), *shared]
    return application


def _api(
    store: Store, assumptions: Assumptions, hooks: Hooks, caller: Callable[..., Any], *, batch_endpoint: bool
) -> APIRouter:
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
        if hooks.before_invalidation is not None:
            await run_in_threadpool(hooks.before_invalidation)
        return udf

    def delete_results(client_id: str, udf: Udf, tiles: Iterable[tuple[int, int, int]] | None = None) -> int:
        reached = None if assumptions.mixed_instances else client_id
        return store.delete_results(reached, udf.id, tiles, memory=assumptions.memory_is_invalidated)

    @router.get("/user/self")
    async def user(who: Known) -> dict[str, Any]:
        if who.email is None and not assumptions.service_token_is_user:
            raise HTTPException(403, "A service token is not a user")
        if who.email is None:
            return {"email": None, "execution_environment_id": who.environment_id}
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
        return found(store.find_shared(token)[0])

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
            delete_results(client_id, udf)
        elif z is None or x is None or y is None:
            raise RequestValidationError(
                [{"loc": ("query",), "msg": "z, x and y must be provided together", "type": "value_error"}]
            )
        else:
            delete_results(client_id, udf, [(z, x, y)])

    if batch_endpoint:

        @router.post("/realtime-shared/{client_id}/udf-cache/by-id/{udf_id}/batch-delete")
        async def batch_delete(client_id: str, udf_id: str, body: BatchBody, who: Known, request: Request) -> dict[str, Any]:
            request.state.tiles = len(body.tiles)
            udf = await writable(client_id, udf_id, who)
            tiles = {(tile.z, tile.x, tile.y) for tile in body.tiles}
            deleted = await run_in_threadpool(delete_results, client_id, udf, tiles)
            return {"udf_id": udf.id, "tiles_requested": len(tiles), "objects_deleted": deleted}

    return router


def _runs_of_loaded_udfs(store: Store, runner: Runner, caller: Callable[..., Any]) -> APIRouter:
    """Where the SDK runs a UDF that it has loaded. The UDF's record comes back in the body."""
    Known = Annotated[Caller, Depends(caller)]  # noqa: N806
    router = APIRouter(prefix="/realtime/{client_id}/api/v1/run/udf")

    @router.post("/start")
    @router.post("")
    async def run_whole(client_id: str, body: RunBody, who: Known, request: Request) -> Response:
        return await run(client_id, None, body, who, request)

    @router.post("/start/tiles/{z}/{x}/{y}")
    @router.post("/tiles/{z}/{x}/{y}")
    async def run_tile(client_id: str, z: int, x: int, y: int, body: RunBody, who: Known, request: Request) -> Response:
        return await run(client_id, (z, x, y), body, who, request)

    async def run(client_id: str, tile: TileIndex | None, body: RunBody, who: Caller, request: Request) -> Response:
        if client_id not in {instance["client_id"] for instance in store.instances(who.environment_id)}:
            raise HTTPException(404, "Realtime instance not found")
        asked = json.loads(body.step_config)["udf"]
        udf = store.find_udf(id=(asked.get("metadata") or {}).get("fused:id"), environment_id=who.environment_id)
        if udf is None:
            raise HTTPException(404, "UDF not found: the emulator runs registered UDFs only")
        return await respond(runner.run, udf, client_id, tile, asked.get("parameters") or {}, max_age(request.query_params))

    return router
