"""The demonstration's data: a table of charging stations, a UDF that maps it, and a load that adds rows.

The load stands in for yours: it writes to a table, and it knows where on the map the new rows are.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from fused_cache_ops.tiles.tile import Tile

ZOOM = 10
UDF_NAME = "charging_stations"
CALLER_NAME = "station_map"

LISBON = (-9.14, 38.72)
PORTO = (-8.61, 41.15)

_FIRST_ROWS = [("Rossio", -9.139, 38.714), ("Alfama", -9.128, 38.712), ("Ribeira", -8.613, 41.141)]
_NEW_ROWS = [("Belém", -9.206, 38.697), ("Oriente", -9.099, 38.768), ("Alvalade", -9.144, 38.753)]


def create_table(database: Path) -> None:
    """Create the table with the rows of the first load."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE stations (name TEXT, longitude REAL, latitude REAL)")
        connection.executemany("INSERT INTO stations VALUES (?, ?, ?)", _FIRST_ROWS)


def load_new_stations(database: Path | None = None) -> list[str]:
    """The load: add rows to the database, and return the tiles they fall in, as ``z/x/y``.

    Args:
        database: default: ``STATIONS_DATABASE``.
    """
    with closing(sqlite3.connect(database or os.environ["STATIONS_DATABASE"])) as connection, connection:
        connection.executemany("INSERT INTO stations VALUES (?, ?, ?)", _NEW_ROWS)
    return sorted({str(Tile.containing(longitude, latitude, ZOOM)) for _, longitude, latitude in _NEW_ROWS})


def stations_in_tile(database: Path, tile: Tile) -> list[str]:
    """The names of the stations in a tile, read from the table."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT name, longitude, latitude FROM stations ORDER BY name").fetchall()
    return [name for name, longitude, latitude in rows if Tile.containing(longitude, latitude, tile.z) == tile]


def build_udf(database: Path) -> Any:
    """The tile UDF: what the map shows of the table in one tile."""

    def charging_stations(z: int, x: int, y: int) -> list[str]:
        return stations_in_tile(database, Tile(z, x, y))

    return charging_stations


CALLER_CODE = f"""
import fused

@fused.udf
def udf(x, y, z):
    return fused.load("{UDF_NAME}")(x=x, y=y, z=z)
"""
"""A UDF that calls the one above, as the service would show its code."""


def build_caller(load: Callable[[str], Callable[..., Any]]) -> Any:
    """The UDF that calls the tile UDF, and keeps a result of its own.

    Args:
        load: what ``fused.load`` is where the UDF runs.
    """

    def station_map(z: int, x: int, y: int) -> list[str]:
        names: list[str] = load(UDF_NAME)(z=z, x=x, y=y)
        return names

    return station_map
