"""The task after a dbt build."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.artifacts import Artifact

from fused_cache_ops import DbtNodesFailedError
from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import FusedCredentials, invalidate_dbt

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

FILES = Path(__file__).parents[1] / "core" / "dbt"


def left(emulator: Emulator, dbt_udfs: dict[str, Udf]) -> dict[str, int]:
    return {name: len(emulator.cached_tiles(udf)) for name, udf in dbt_udfs.items()}


def in_a_flow(emulator: Emulator, dbt_target: Path, **keywords: Any) -> Any:
    credentials = FusedCredentials(token=emulator.token, base_url=emulator.base_url)

    @flow
    def after_dbt() -> Any:
        return invalidate_dbt.with_options(retries=0)(dbt_target, credentials, **keywords)

    return after_dbt()


def test_the_maps_of_what_was_built_are_invalidated_and_shown(
    dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]
) -> None:
    result = in_a_flow(fused_emulator, dbt_target)
    assert left(fused_emulator, dbt_udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}
    assert result["changed"]["model.city.streets"] == "city.main.streets"
    artifact = Artifact.get("fused-cache-dbt")
    assert artifact is not None
    assert "| streets | " in str(artifact.data)


def test_a_failed_build_fails_the_task_once_the_rest_is_invalidated(
    dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]
) -> None:
    shutil.copytree(FILES / "failed", dbt_target, dirs_exist_ok=True)
    with pytest.raises(DbtNodesFailedError, match="did not build 2 nodes"):
        in_a_flow(fused_emulator, dbt_target)
    assert left(fused_emulator, dbt_udfs) == {"parcels": 1, "streets": 0, "prices": 2, "prices_legend": 2}
