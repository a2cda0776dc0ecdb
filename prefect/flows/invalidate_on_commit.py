"""Load in a transaction, and invalidate when it commits. A load that is rolled back leaves the caches unchanged."""

import os
import sqlite3
from contextlib import closing

from prefect import flow, task
from prefect.transactions import Transaction, get_transaction, transaction

from fused_cache_ops.demo.stations import load_new_stations
from prefect_fused import FusedCredentials, invalidate_on_commit


@task
def load() -> None:
    get_transaction().set("tiles", load_new_stations())  # your load, and the tiles it changed


# A hook, not a task inside the transaction: a task's first failed attempt rolls the load back, even if its retry succeeds.
load.on_commit(invalidate_on_commit("charging_stations", FusedCredentials(), from_transaction="tiles"))


@load.on_rollback
def remove(load: Transaction) -> None:
    with closing(sqlite3.connect(os.environ["STATIONS_DATABASE"])) as connection, connection:
        connection.execute("DELETE FROM stations WHERE name IN ('Alvalade', 'Belém', 'Oriente')")


@task
def check(most_stations: int) -> None:
    with closing(sqlite3.connect(os.environ["STATIONS_DATABASE"])) as connection:
        (count,) = connection.execute("SELECT count(*) FROM stations").fetchone()
    if count > most_stations:
        raise ValueError(f"{count} stations are more than {most_stations}: the load is not to be trusted.")


@flow
def load_in_transaction(most_stations: int = 1000) -> None:
    with transaction():
        load()
        check(most_stations)


if __name__ == "__main__":
    load_in_transaction()
