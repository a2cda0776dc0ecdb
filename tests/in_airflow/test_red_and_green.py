"""Each row of the README's table of what is red and what stays green, in real DAG runs."""

import contextlib
import json
import runpy
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fused._compat import IS_AIRFLOW_2
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("airflow")

GREEN, RED = "success", "failed"


class House:
    """An emulator with a UDF of which four tiles are cached, and the DAGs that run against it."""

    def __init__(self, emulator: Emulator, udf: Udf, dags: Any, database: Path, always_cached: Callable[[str], None]) -> None:
        self.emulator, self.udf, self.dags, self.database, self.always_cached = emulator, udf, dags, database, always_cached

    def run(self, name: str) -> tuple[str, int, int]:
        """What became of the task that invalidates, how often it was tried, and how many events its outlet had."""
        before = self._rows("event", name)
        [task] = [each for each in self.dags[name].test().get_task_instances() if each.task_id == "t"]
        events = self._rows("event", name)[len(before) :]
        return str(task.state), task.try_number, len(events)

    def result(self, name: str) -> dict[str, Any]:
        """What the task returned."""
        value: Any = self._rows("xcom", name)[-1][0]
        found: dict[str, Any] = json.loads(value) if isinstance(value, (str, bytes)) else value
        return found

    def _rows(self, what: str, name: str) -> list[Any]:
        table = f"{'dataset' if IS_AIRFLOW_2 else 'asset'}_event"
        queries = {
            "event": f"SELECT id FROM {table} WHERE source_dag_id = ? ORDER BY id",
            "xcom": "SELECT value FROM xcom WHERE dag_id = ? AND task_id = 't' AND key = 'return_value'",
        }
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            return list(database.execute(queries[what], (f"rg_{name}",)))

    @property
    def is_invalidated(self) -> bool:
        return (1, 0, 0) not in self.emulator.cached_tiles(self.udf)


def told(count: int) -> int:
    """So many events. Airflow 2 drops those of datasets that no scheduler has seen."""
    return 0 if IS_AIRFLOW_2 else count


def everything(house: House) -> None:
    assert house.run("simple") == (GREEN, 1, told(1))
    assert house.result("simple")["tiles_invalidated"] == 1


def nothing(house: House) -> None:
    assert house.run("nothing") == (GREEN, 1, told(1))
    assert house.result("nothing")["tiles_invalidated"] == 0
    assert house.emulator.requests == []


def warnings(house: House) -> None:
    house.emulator.register(dict, name="caller", code='def udf():\n    return fused.run("roads")\n')
    assert house.run("simple") == (GREEN, 1, told(1))
    assert "1 caller of this UDF keeps results of its own" in house.result("simple")["warnings"][0]


def transient(house: House) -> None:
    house.emulator.misbehave(status=503, retry_after=60, times=None)
    assert house.run("simple") == (RED, 3, 0)


def permanent(house: House) -> None:
    assert house.run("none") == (RED, 1, 0)
    assert house.run("rendered_to_nothing") == (RED, 1, 0)
    assert house.emulator.requests == []
    house.emulator.misbehave(status=403, times=None)
    assert house.run("simple") == (RED, 1, 0)


def stale(house: House) -> None:
    house.always_cached("1/0/0")
    assert house.run("verified") == (RED, 3, 0)
    assert house.is_invalidated
    assert house.run("verified_leniently") == (GREEN, 1, told(1))


def not_judged(house: House) -> None:
    house.emulator.misbehave(status=500, path="/run/tiles/1/0/0", times=None)
    assert house.run("verified") == (GREEN, 1, told(1))
    assert house.result("verified")["verification"]["unknown"][0].startswith("1/0/0: ")


def not_refreshed(house: House) -> None:
    house.emulator.misbehave(status=500, path="/run/tiles/1/0/0", times=None)
    assert house.run("refreshed") == (GREEN, 1, told(1))
    assert len(house.result("refreshed")["refresh"]["failed"]) == 1
    state, _, events = house.run("must_be_refreshed")
    assert (state, events, house.is_invalidated) == (RED, 0, True)
    state, _, events = house.run("refresh")
    assert (state, events) == (RED, 0)


def one_of_several(house: House) -> None:
    assert house.run("dataset") == (RED, 1, 0)
    assert house.is_invalidated
    other = house.emulator.register(dict, name="missing")
    house.emulator.misbehave(status=503, retry_after=60, path=other.id, times=None)
    assert house.run("dataset") == (RED, 3, 0)


def notifier(house: House) -> None:
    house.emulator.misbehave(status=401, times=None)
    assert house.run("notifier") == (GREEN, 1, told(1))
    assert house.emulator.requests
    assert not house.is_invalidated


ROWS: dict[str, Callable[[House], None]] = {
    "Everything selected is invalidated": everything,
    "Nothing was selected (`[]`)": nothing,
    "The result has `warnings`: the map may stay stale all the same": warnings,
    "A transient error outlasts the deadline": transient,
    "A permanent error, None, or a template that rendered to nothing": permanent,
    "A tile of `verify_tiles` still came from the cache": stale,
    "A tile of `verify_tiles` could not be judged": not_judged,
    "Something could not be refreshed": not_refreshed,
    "One of several UDFs failed (a dataset, dbt)": one_of_several,
    "The notifier failed": notifier,
}


@pytest.fixture(scope="module")
def dags(install_dag: Callable[[Path], Path]) -> Any:
    return runpy.run_path(str(install_dag(Path(__file__).with_name("dag_red_and_green.py"))))["DAGS"]


def test_every_row_of_the_table_is_run(what_happened: Callable[[str], set[str]]) -> None:
    assert what_happened("airflow") == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_what_is_red_and_what_stays_green_is_as_the_table_says(
    row: str,
    fused_emulator: Emulator,
    udf: Udf,
    dags: Any,
    airflow_database: Path,
    always_cached: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token, "extra": {"deadline": 5}}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))
    monkeypatch.setenv("AIRFLOW_VAR_ROADS_TOKEN", udf.shared_token)
    (tmp_path / "map.toml").write_text('[datasets.lake]\nudfs = [{ udf = "roads" }, { udf = "missing" }]\n')
    monkeypatch.setenv("AIRFLOW_VAR_MAP", str(tmp_path / "map.toml"))
    ROWS[row](House(fused_emulator, udf, dags, airflow_database, always_cached))
