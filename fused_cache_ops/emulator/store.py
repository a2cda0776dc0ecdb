"""The emulator's data, in SQLite: environments, users, tokens, UDFs, shared tokens, cached results, requests."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS environments (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS users (
    email TEXT PRIMARY KEY, handle TEXT NOT NULL UNIQUE, environment_id TEXT NOT NULL REFERENCES environments
);
CREATE TABLE IF NOT EXISTS tokens (
    token TEXT PRIMARY KEY, scheme TEXT NOT NULL, environment_id TEXT NOT NULL REFERENCES environments,
    email TEXT REFERENCES users, may_write INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS instances (
    client_id TEXT PRIMARY KEY, environment_id TEXT NOT NULL REFERENCES environments, preference_rank INTEGER
);
CREATE TABLE IF NOT EXISTS udfs (
    id TEXT PRIMARY KEY, environment_id TEXT NOT NULL REFERENCES environments, email TEXT REFERENCES users,
    canvas TEXT NOT NULL, slug TEXT NOT NULL, code TEXT NOT NULL, entrypoint TEXT NOT NULL,
    shared_token TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS results (
    udf_id TEXT NOT NULL REFERENCES udfs, z INTEGER, x INTEGER, y INTEGER, parameters TEXT NOT NULL,
    body BLOB NOT NULL, stored_at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS result_key ON results (udf_id, z, x, y, parameters);
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY, method TEXT NOT NULL, path TEXT NOT NULL, query TEXT NOT NULL, scheme TEXT NOT NULL,
    tiles INTEGER, status INTEGER NOT NULL
);
"""

_WHOLE_MAP = (-1, -1, -1)  # NULLs would never be equal in the unique index


@dataclass(frozen=True)
class Udf:
    """A UDF that the emulator holds."""

    id: str
    slug: str
    canvas: str
    environment_id: str
    email: str | None
    code: str
    entrypoint: str
    shared_token: str

    def record(self) -> dict[str, Any]:
        """The UDF as the service's lookups return it, with what Fused's SDK needs to load it."""
        body = {"type": "geopandas_v2", "entrypoint": self.entrypoint, "code": self.code}
        return {"id": self.id, "slug": self.slug, "collection_name": self.canvas, "udf_body": json.dumps(body)}


@dataclass(frozen=True)
class Caller:
    """Whom a token belongs to: always an environment, and also a user if it is a personal access token."""

    environment_id: str
    environment_name: str
    email: str | None
    may_write: bool


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived. ``tiles`` is the number of tiles in a batch."""

    method: str
    path: str
    query: str
    scheme: str
    tiles: int | None
    status: int


class Store:
    """The emulator's data, in a file or in memory. Safe to use from several threads."""

    def __init__(self, path: str | Path | None = None) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False)
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection

    # -- who may do what ----------------------------------------------------------------------------------------

    def add_environment(self, name: str) -> str:
        """The id of the environment with this name, which is created if it does not exist."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (str(uuid.uuid4()), name))
            return str(db.execute("SELECT id FROM environments WHERE name = ?", (name,)).fetchone()[0])

    def add_user(self, email: str, handle: str, environment_id: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?)", (email, handle, environment_id))

    def add_token(
        self, environment_id: str, *, token: str | None = None, email: str | None = None, may_write: bool = True
    ) -> str:
        """Add a token of a service account, or of a user if ``email`` is given."""
        token = token or secrets.token_urlsafe(32)
        scheme = "bearer" if email else "fused-service-token"
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?)",
                (token, scheme, environment_id, email, may_write),
            )
        return token

    def add_instance(self, client_id: str, environment_id: str, preference_rank: int | None) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO instances VALUES (?, ?, ?)", (client_id, environment_id, preference_rank))

    def caller(self, scheme: str, token: str) -> Caller | None:
        with self._lock:
            row = self._connection.execute(
                "SELECT e.id, e.name, t.email, t.may_write FROM tokens t JOIN environments e ON e.id = t.environment_id"
                " WHERE t.token = ? AND t.scheme = ?",
                (token, scheme.lower()),
            ).fetchone()
        return row and Caller(row[0], row[1], row[2], bool(row[3]))

    def instances(self, environment_id: str) -> list[dict[str, Any]]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT client_id, preference_rank FROM instances WHERE environment_id = ? ORDER BY rowid",
                (environment_id,),
            ).fetchall()
        return [
            {"client_id": client_id, "name": client_id, "endpoint": None} | ({} if rank is None else {"preference_rank": rank})
            for client_id, rank in rows
        ]

    # -- UDFs ---------------------------------------------------------------------------------------------------

    def add_udf(self, udf: Udf) -> Udf:
        """Store a UDF. If one with the same owner, canvas and name exists, it keeps its id and shared token."""
        known = self.find_udf(environment_id=udf.environment_id, email=udf.email, canvas=udf.canvas, slug=udf.slug)
        if known is not None:
            udf = Udf(**(udf.__dict__ | {"id": known.id, "shared_token": known.shared_token}))
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO udfs (id, slug, canvas, environment_id, email, code, entrypoint, shared_token)"
                " VALUES (:id, :slug, :canvas, :environment_id, :email, :code, :entrypoint, :shared_token)",
                udf.__dict__,
            )
        return udf

    def find_udf(self, **conditions: str | None) -> Udf | None:
        """The UDF for which every column has the given value (None for NULL)."""
        where = " AND ".join(f"{column} IS ?" for column in conditions)
        return next(iter(self._udfs(where, *conditions.values())), None)

    def udfs(self, environment_id: str, *, skip: int = 0, limit: int = 300) -> list[Udf]:
        return self._udfs("environment_id = ? ORDER BY slug LIMIT ? OFFSET ?", environment_id, limit, skip)

    def user_email(self, handle: str) -> str | None:
        with self._lock:
            row = self._connection.execute("SELECT email FROM users WHERE handle = ?", (handle,)).fetchone()
        return row and str(row[0])

    def _udfs(self, where: str, *values: object) -> list[Udf]:
        columns = ", ".join(Udf.__dataclass_fields__)
        with self._lock:
            rows = self._connection.execute(f"SELECT {columns} FROM udfs WHERE {where}", values).fetchall()
        return [Udf(*row) for row in rows]

    # -- cached results ------------------------------------------------------------------------------------------

    def cached(self, udf_id: str, tile: tuple[int, int, int] | None, parameters: str) -> tuple[bytes, float] | None:
        """A cached body and its age in seconds."""
        with self._lock:
            row = self._connection.execute(
                "SELECT body, stored_at FROM results WHERE udf_id = ? AND z = ? AND x = ? AND y = ? AND parameters = ?",
                (udf_id, *(tile or _WHOLE_MAP), parameters),
            ).fetchone()
        return row and (row[0], time.time() - row[1])

    def cache(self, udf_id: str, tile: tuple[int, int, int] | None, parameters: str, body: bytes) -> None:
        self.cache_many(udf_id, [tile], parameters, body)

    def cache_many(
        self,
        udf_id: str,
        tiles: Iterable[tuple[int, int, int] | None],
        parameters: str = "{}",
        body: bytes = b"null",
    ) -> None:
        """Cache one body for many tiles, as if each had been requested. None stands for a request without a tile."""
        now = time.time()
        rows = ((udf_id, *(tile or _WHOLE_MAP), parameters, body, now) for tile in tiles)
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def cached_tiles(self, udf_id: str) -> set[tuple[int, int, int]]:
        """The tiles that have cached results."""
        with self._lock:
            return set(self._connection.execute("SELECT DISTINCT z, x, y FROM results WHERE udf_id = ? AND z >= 0", (udf_id,)))

    def delete_all(self, udf_id: str) -> int:
        with self._transaction() as db:
            return db.execute("DELETE FROM results WHERE udf_id = ?", (udf_id,)).rowcount

    def delete_tiles(self, udf_id: str, tiles: Iterable[tuple[int, int, int]]) -> int:
        with self._transaction() as db:
            return db.executemany(
                "DELETE FROM results WHERE udf_id = ? AND z = ? AND x = ? AND y = ?",
                ((udf_id, *tile) for tile in tiles),
            ).rowcount

    # -- received requests ----------------------------------------------------------------------------------------

    def record_request(self, request: ReceivedRequest) -> None:
        with self._transaction() as db:
            db.execute(
                "INSERT INTO requests (method, path, query, scheme, tiles, status) VALUES (?, ?, ?, ?, ?, ?)",
                tuple(request.__dict__.values()),
            )

    def requests(self) -> list[ReceivedRequest]:
        """Every request so far, in the order of the responses."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT method, path, query, scheme, tiles, status FROM requests ORDER BY number"
            ).fetchall()
        return [ReceivedRequest(*row) for row in rows]

    def forget_requests(self) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM requests")
