"""The task that refreshes, and its artifact."""

from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.sorting import ArtifactSort
from pydantic import SecretStr

from fused_cache_ops import InvalidInputError, RefreshError, RefreshResult
from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import invalidate_cache, invalidate_on_completion, refresh_cache
from prefect_fused.reports import describe_refresh

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]


def artifacts(kind: str) -> list[Any]:
    """The latest ones first: the server hands out 200 of those of all tests."""
    with get_client(sync_client=True) as api:
        found = api.read_artifacts(sort=ArtifactSort.CREATED_DESC)
    return [artifact for artifact in found if (artifact.key or "").endswith(kind)]


def test_a_task_refreshes_after_the_invalidation(fused_emulator: Emulator, udf: Udf) -> None:
    @flow
    def pipeline() -> dict[str, Any]:
        invalidate_cache(udf.id, tiles=ALL)
        return refresh_cache(udf.id, tiles=ALL, refresh=3, shared_token=SecretStr(udf.shared_token))

    assert pipeline()["runs"] == 3
    assert len(fused_emulator.cached_tiles(udf)) == 3
    shown = [artifact.data for artifact in artifacts("-refresh")]
    assert [data for data in shown if "| Runs | 3 |" in data]
    assert udf.shared_token not in "".join(shown)


def test_the_result_of_an_invalidation_shows_its_refresh(fused_emulator: Emulator, udf: Udf) -> None:
    @flow
    def pipeline() -> dict[str, Any]:
        return invalidate_cache(udf.shared_token, tiles=ALL, refresh="all")

    assert pipeline()["refresh"]["runs"] == 4
    shown = [artifact.data for artifact in artifacts("") if "| Refreshed |" in str(artifact.data)]
    assert any("4 runs" in each for each in shown)


def test_a_refresh_that_failed_fails_the_task_and_shows_why(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=500, body={"detail": "no such `column`"}, path="/run/tiles/2/0/0")

    @flow
    def pipeline() -> dict[str, Any]:
        return refresh_cache("roads", tiles=["2/0/0", "2/0/1"], shared_token=udf.shared_token)

    with pytest.raises(RefreshError, match="1 result could not be refreshed"):
        pipeline()
    runs = [request for request in fused_emulator.requests if "/run/" in request.path]
    assert len(runs) == 2  # no retry, which would not help
    failed = [artifact.data for artifact in artifacts("-refresh") if "Could not be refreshed" in artifact.data]
    assert "no such 'column'" in failed[0]


def test_an_artifact_says_what_was_not_reached() -> None:
    said = describe_refresh("roads", RefreshResult(runs=1, not_requested=2000, seconds_median=1.25, seconds_p95=3.5))
    assert "| Not reached in time | 2,000 |" in said
    assert "| Median run, seconds | 1.25 |" in said


def test_an_invalidation_whose_refresh_failed_is_an_invalidation_to_automations(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr("prefect_fused.invalidation.emit_event", lambda event, *_, **__: events.append(event))
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")

    @flow
    def pipeline() -> None:
        invalidate_cache(udf.shared_token, tiles=ALL, refresh={"must_succeed": True})

    with pytest.raises(RefreshError, match="Everything is invalidated"):
        pipeline()
    assert events == ["fused.cache.invalidated"]


@pytest.mark.parametrize("keywords", [{"refresh": 5}, {"refresh": {"zooms": "1"}}], ids=str)
def test_a_hook_does_not_refresh(keywords: Any) -> None:
    with pytest.raises(InvalidInputError, match="refresh takes long, and a hook cannot wait"):
        invalidate_on_completion("roads", tiles=ALL, **keywords)


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="Unknown keyword related"):
        refresh_cache.fn("roads", related="callers")  # type: ignore[call-arg]


def test_a_second_pass_of_a_deployment_does_not_get_a_token_that_was_passed(udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match="refresh comes after the second pass"):
        invalidate_cache.fn(
            "roads", tiles=ALL, again_after=130, again_deployment="a/b", refresh="all", shared_token=udf.shared_token
        )
