"""Canvases and their session tokens."""

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field

from fused_cache_ops.emulator.assumptions import Assumptions
from fused_cache_ops.emulator.store import Caller, Canvas, Store

Skip = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1)]


class MintBody(BaseModel):
    ttl: Annotated[int, Field(ge=1, le=86400)] = 3600


def canvas_lookups(store: Store, assumptions: Assumptions, caller: Callable[..., Any]) -> APIRouter:
    """The lookups of canvases for a team and for a user."""
    Known = Annotated[Caller, Depends(caller)]  # noqa: N806
    router = APIRouter(prefix="/collection")

    def record(canvas: Canvas | None, *, lite: bool = False) -> dict[str, Any]:
        if canvas is None:
            raise HTTPException(404, "Collection not found")
        udfs = store.udfs_of(canvas)
        if lite:
            return canvas.record(lite=True) | {"udf_ids": [udf.id for udf in udfs]}
        return canvas.record() | {"udfs": [udf.record() for udf in udfs]}

    def user(who: Caller) -> str:
        if who.email is None:
            raise HTTPException(403, "A service token is not a user")
        return who.email

    def visible(canvas: Canvas | None, request: Request) -> dict[str, Any]:
        """A canvas that is public or of the caller's team."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        who = store.caller(scheme, token.strip())
        if (
            canvas is not None
            and canvas.access_scope == "team"
            and (who is None or who.environment_id != canvas.environment_id)
        ):
            canvas = None
        return record(canvas)

    @router.get("/exec-env")
    async def of_team(who: Known, skip: Skip = 0, limit: Limit = 300) -> list[dict[str, Any]]:
        return [record(each) for each in store.canvases(environment_id=who.environment_id)[skip:][:limit]]

    @router.get("/exec-env/lite")
    async def of_team_lite(who: Known, skip: Skip = 0, limit: Limit = 300) -> list[dict[str, Any]]:
        return [record(each, lite=True) for each in store.canvases(environment_id=who.environment_id)[skip:][:limit]]

    @router.get("/exec-env/shared")
    async def of_team_shared(who: Known, skip: Skip = 0, limit: Limit = 300) -> list[dict[str, Any]]:
        shared = [each for each in store.canvases(environment_id=who.environment_id) if each.share_token]
        return [record(each) for each in shared[skip:][:limit]]

    @router.get("/exec-env/by-slug/{name}")
    async def of_team_by_name(name: str, who: Known) -> dict[str, Any]:
        return record(store.find_canvas(environment_id=who.environment_id, email=None, name=name))

    @router.get("/self")
    async def of_user(who: Known, skip: Skip = 0, limit: Limit = 300) -> list[dict[str, Any]]:
        return [record(each) for each in store.canvases(email=user(who))[skip:][:limit]]

    @router.get("/self/lite")
    async def of_user_lite(who: Known, skip: Skip = 0, limit: Limit = 300) -> list[dict[str, Any]]:
        return [record(each, lite=True) for each in store.canvases(email=user(who))[skip:][:limit]]

    @router.get("/by-name/{name}")
    async def of_user_by_name(name: str, who: Known) -> dict[str, Any]:
        return record(store.find_canvas(email=user(who), name=name))

    @router.get("/by-id/{canvas_id}")
    async def by_id(canvas_id: str, request: Request) -> dict[str, Any]:
        return visible(store.find_canvas(id=canvas_id), request)

    @router.get("/by-slug/{username}/{name}")
    async def by_owner(username: str, name: str, request: Request) -> dict[str, Any]:
        email = store.user_email(username)
        return visible(store.find_canvas(email=email, name=name) if email else None, request)

    @router.get("/by-token/{token:path}")
    async def by_token(token: str, fused_session_token: str = "") -> dict[str, Any]:
        canvas = store.find_shared_canvas(token)
        if (
            canvas is not None
            and canvas.access_scope == "team"
            and not store.session_token_is_valid(fused_session_token, canvas.id)
        ):
            raise HTTPException(assumptions.refusal_status, "This canvas is not shared publicly.")
        return record(canvas)

    return router


def session_tokens(store: Store, assumptions: Assumptions, caller: Callable[..., Any]) -> APIRouter:
    """Minting and revoking the session tokens of a canvas. A service account may do both."""
    Known = Annotated[Caller, Depends(caller)]  # noqa: N806
    router = APIRouter(prefix="/session-token/by-access-token")

    def canvas_of(token: str, who: Caller) -> Canvas:
        canvas = store.find_shared_canvas(token)
        if canvas is None or canvas.environment_id != who.environment_id:
            raise HTTPException(404, "Access token not found")
        return canvas

    @router.post("/{token:path}")
    async def mint(token: str, body: MintBody, who: Known) -> dict[str, Any]:
        canvas = canvas_of(token, who)
        if canvas.access_scope != "team":
            raise HTTPException(assumptions.public_mint_status, "A public canvas needs no session token")
        session, expires = store.add_session_token(canvas.id, body.ttl)
        return {
            "token": token,
            "session_token": session,
            "expires_at": datetime.fromtimestamp(expires, timezone.utc).isoformat(),
        }

    @router.delete("/{token:path}", status_code=204)
    async def revoke(token: str, who: Known) -> None:
        store.delete_session_tokens(canvas_of(token, who).id)

    return router
