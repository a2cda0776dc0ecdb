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
CHANGED, OTHER = (14, 7776, 6278), (14, 0, 0)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "city" / "target"
    shutil.copytree(FILES / "first", folder)
    (folder / "changed_parcels.csv").write_text(f"z,x,y\n{','.join(map(str, CHANGED))}\n")
    return folder


@pytest.fixture
def udfs(fused_emulator: Emulator) -> dict[str, Udf]:
    made = {name: fused_emulator.register(dict, name=name) for name in ("parcels", "streets", "prices", "prices_legend")}
    for udf in made.values():
        fused_emulator.fill_cache(udf, [CHANGED, OTHER])
    return made


def left(emulator: Emulator, udfs: dict[str, Udf]) -> dict[str, int]:
    return {name: len(emulator.cached_tiles(udf)) for name, udf in udfs.items()}


def in_a_flow(emulator: Emulator, target: Path, **keywords: Any) -> Any:
    credentials = FusedCredentials(token=emulator.token, base_url=emulator.base_url)

    @flow
    def after_dbt() -> Any:
        return invalidate_dbt.with_options(retries=0)(target, credentials, **keywords)

    return after_dbt()


def test_the_maps_of_what_was_built_are_invalidated_and_shown(
    target: Path, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    result = in_a_flow(fused_emulator, target)
    assert left(fused_emulator, udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}
    assert result["changed"]["model.city.streets"] == "city.main.streets"
    artifact = Artifact.get("fused-cache-dbt")
    assert artifact is not None
    assert "| streets | " in str(artifact.data)


def test_a_failed_build_fails_the_task_once_the_rest_is_invalidated(
    target: Path, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    shutil.copytree(FILES / "failed", target, dirs_exist_ok=True)
    with pytest.raises(DbtNodesFailedError, match="did not build 2 nodes"):
        in_a_flow(fused_emulator, target)
    assert left(fused_emulator, udfs) == {"parcels": 1, "streets": 0, "prices": 2, "prices_legend": 2}
