"""The second pass of an invalidation as a scheduled run of a deployment, so that no worker waits for it."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from fused_cache_ops import FusedCacheError, InvalidInputError, plan_invalidation
from fused_cache_ops.integration import (
    CALL_DEFAULTS,
    DETAILS,
    KINDS,
    NOT_GIVEN,
    SELECTION_DEFAULTS,
    Secret,
    announce_options,
    is_given,
    kinds_in,
    webhook_of,
)
from prefect_fused.events import api_error

if TYPE_CHECKING:
    from uuid import UUID

    from fused_cache_ops import InvalidationResult
    from fused_cache_ops.integration import CallKeywords
    from prefect_fused.credentials import FusedCredentials

LARGEST_PARAMETERS = 500_000
"""Bytes of JSON. Prefect's server refuses parameters of more than 512 kB."""

_RUNS = (
    "{0} comes after the second pass, whose worker knows the UDF's shared token only if the block has it: save it in the "
    "block, omit {0}, or omit again_deployment"
)

_SHAPES = ("zooms", "buffer", "max_tiles", "when_too_many", "max_zoom")


class SecondPass:
    """A later run of `invalidate_cache_flow` with the same selection.

    Args:
        deployment: `flow/deployment`.
        udf: The UDF.
        credentials: The block, or None for the environment of the deployment's worker.
        keywords: The core's keywords.
        deadline: Seconds that the second pass may take, or None.
        runs: Whether it can run the UDF, with the shared token that the block has.

    Raises:
        fused_cache_ops.InvalidInputError: The second pass could not be given as parameters, or is not asked for.
    """

    def __init__(
        self,
        deployment: str,
        udf: str | Secret,
        credentials: FusedCredentials | None,
        keywords: CallKeywords,
        deadline: float | None,
        *,
        runs: bool = False,
    ) -> None:
        self._deployment = deployment
        self._id: UUID | None = None
        self._seconds = keywords.get("again_after", 0)
        block = getattr(credentials, "_block_document_name", None)
        for problem, remedy in (
            (not self._seconds, "again_after is 0, so there is no second pass: set again_after, such as 130"),
            (
                not isinstance(udf, str),
                "Prefect stores parameters in plain text, and udf is a shared token: pass its id or name",
            ),
            *((is_given(keywords, name) and not runs, _RUNS.format(name)) for name in ("verify_tiles", "refresh")),
            (
                _is_written_webhook(keywords.get("announce", NOT_GIVEN)),
                "Prefect stores parameters in plain text, and announce is an address to post to: pass env:NAME",
            ),
            (keywords.get("shard"), "a shard cannot be given to it: omit shard, or omit again_deployment"),
            (
                credentials is not None and block is None,
                "its worker cannot load a block that is not saved: call credentials.save()",
            ),
        ):
            if problem:
                raise InvalidInputError(f"again_deployment = {deployment!r} cannot make the second pass: {remedy}.")
        # Nothing of the selection is left to the deployment's own parameters.
        self._parameters = {
            **dict.fromkeys((*KINDS, *DETAILS)),
            "whole_udf": False,
            "udf": udf,
            **({} if block is None else {"credentials": block}),
            "related": keywords.get("related"),
            "max_related": keywords.get("max_related", CALL_DEFAULTS["max_related"]),
            "inner_caches": _folders(keywords),
            "h3_index": None,  # the first pass has waited for it
            "again_after": 0,
            "again_deployment": None,
            "verify_tiles": keywords.get("verify_tiles", 0),
            "fail_on_stale": keywords.get("fail_on_stale", CALL_DEFAULTS["fail_on_stale"]),
            "refresh": _refresh(keywords.get("refresh", 0)),
            "announce": _announced(keywords),
            "loaded_at": _moment(keywords),
            **({} if deadline is None else {"deadline": deadline}),
            **_selection(keywords),
        }
        size = len(json.dumps(self._parameters))
        if size > LARGEST_PARAMETERS:
            raise InvalidInputError(
                f"The second pass would have parameters of {size:,} bytes, over {LARGEST_PARAMETERS:,}, which Prefect does not "
                "accept. Write the tiles to a file that the deployment's worker can read, and pass tiles_file."
            )

    def check(self) -> None:
        """Look the deployment up, before anything is sent.

        Raises:
            fused_cache_ops.InvalidInputError: There is no such deployment, or it is of a flow that does not take what is to be
                invalidated.
            fused_cache_ops.UnavailableError: Prefect's API does not answer.
        """
        try:
            with get_client(sync_client=True) as api:
                found = api.read_deployment_by_name(self._deployment)
        except (ObjectNotFound, ValueError):
            raise InvalidInputError(
                f"again_deployment = {self._deployment!r} does not exist: deploy invalidate_cache_flow, and give its name as "
                "'flow name/deployment name'."
            ) from None
        except Exception as error:
            raise self._unavailable(error) from error
        taken = (found.parameter_openapi_schema or {}).get("properties", {})
        if missing := sorted(self._parameters.keys() - set(taken)):
            raise InvalidInputError(
                f"again_deployment = {self._deployment!r} is of another flow, which does not take {', '.join(missing)}: name a "
                "deployment of invalidate_cache_flow, and deploy it anew after an upgrade."
            )
        self._id = found.id

    def schedule(self, first: InvalidationResult) -> InvalidationResult:
        """Schedule the run. Returns the result, which says so.

        Raises:
            fused_cache_ops.UnavailableError: Prefect's API does not answer. The first pass is done.
        """
        assert self._id is not None  # noqa: S101 - checked before
        moment = datetime.now(timezone.utc) + timedelta(seconds=self._seconds)
        try:
            with get_client(sync_client=True) as api:
                api.create_flow_run_from_deployment(
                    self._id, parameters=self._parameters, state=Scheduled(scheduled_time=moment)
                )
        except Exception as error:
            raise self._unavailable(error) from error
        return dataclasses.replace(first, second_pass="scheduled")  # noqa: S106

    def _unavailable(self, error: Exception) -> FusedCacheError:
        return api_error(error, f"The second pass could not be scheduled with {self._deployment!r}")


def _selection(keywords: CallKeywords) -> dict[str, Any]:
    """The selection as the flow's parameters: as it was given where the form takes it, otherwise as its tiles."""
    kinds = kinds_in(keywords)
    if not kinds or kinds == ["whole_udf"]:
        return {"whole_udf": True}
    bounds: Any = keywords.get("bounds")
    is_box = isinstance(bounds, (list, tuple)) and len(bounds) == 4 and all(isinstance(each, (int, float)) for each in bounds)
    if kinds == ["tiles_file"] or (kinds == ["bounds"] and is_box):
        shapes = {name: keywords[name] for name in _SHAPES if name in keywords and name != "zooms"}  # type: ignore[literal-required]
        given = {"tiles_file": str(keywords["tiles_file"])} if kinds == ["tiles_file"] else {"bounds": list(bounds)}
        return {**given, **shapes, "zooms": _zooms(keywords.get("zooms"))}
    chosen: Any = {name: value for name, value in keywords.items() if name in SELECTION_DEFAULTS}
    plan = plan_invalidation("udf", **chosen)
    if plan.tile_count is None:
        return {"whole_udf": True}
    # Those beyond the limit only serve to show that it is exceeded.
    tiles = [str(tile) for tile in itertools.islice(plan.tiles(), LARGEST_PARAMETERS // 8)]
    return {"tiles": tiles, "max_zoom": keywords.get("max_zoom", SELECTION_DEFAULTS["max_zoom"])}


def _refresh(given: Any) -> Any:
    """A refresh as a parameter."""
    if not isinstance(given, Mapping):
        return given
    return {name: _zooms(value) if name == "zooms" else value for name, value in given.items()}


def _folders(keywords: CallKeywords) -> list[str] | None:
    given: Any = keywords.get("inner_caches", NOT_GIVEN)
    return None if given is NOT_GIVEN else [given] if isinstance(given, str) else list(given)


def _is_written_webhook(announce: Any) -> bool:
    """Whether an address to post to is written out, in the call or, sealed, in a cache map."""
    place = announce.get("to") if isinstance(announce, Mapping) else announce
    return webhook_of(announce) is not None or isinstance(place, Secret)


def _announced(keywords: CallKeywords) -> Any:
    given: Any = keywords.get("announce", NOT_GIVEN)
    return (
        None
        if given is NOT_GIVEN
        else {key: str(each) if key == "to" else each for key, each in announce_options(given).items()}
    )


def _moment(keywords: CallKeywords) -> str | None:
    given: Any = keywords.get("loaded_at", NOT_GIVEN)
    return None if given is NOT_GIVEN else str(given.isoformat() if hasattr(given, "isoformat") else given)


def _zooms(zooms: Any) -> str | None:
    return ",".join(map(str, zooms)) if isinstance(zooms, (list, tuple, range)) else None if zooms is None else str(zooms)
