"""The emulator's data, in SQLite: environments, users, tokens, canvases, UDFs, cached results, requests."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fused_cache_ops.secret import canvas_token

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
CREATE TABLE IF NOT EXISTS canvases (
    id TEXT PRIMARY KEY, environment_id TEXT NOT NULL REFERENCES environments, email TEXT REFERENCES users,
    name TEXT NOT NULL, access_scope TEXT NOT NULL, share_token TEXT UNIQUE, share_client_id TEXT, passcode TEXT,
    updated_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS session_tokens (
    token TEXT PRIMARY KEY, canvas_id TEXT NOT NULL REFERENCES canvases, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS udfs (
    id TEXT PRIMARY KEY, environment_id TEXT NOT NULL REFERENCES environments, email TEXT REFERENCES users,
    canvas TEXT NOT NULL, slug TEXT NOT NULL, code TEXT NOT NULL, entrypoint TEXT NOT NULL,
    shared_token TEXT NOT NULL UNIQUE, visible INTEGER NOT NULL, cache_max_age INTEGER,
    canvas_id TEXT NOT NULL REFERENCES canvases, updated_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS results (
    client_id TEXT NOT NULL, udf_id TEXT NOT NULL REFERENCES udfs, z INTEGER, x INTEGER, y INTEGER, parameters TEXT NOT NULL,
    body BLOB NOT NULL, media_type TEXT NOT NULL, stored_at REAL NOT NULL, in_memory INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS result_key ON results (udf_id, z, x, y, parameters, client_id);
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY, method TEXT NOT NULL, path TEXT NOT NULL, query TEXT NOT NULL, scheme TEXT NOT NULL,
    tiles INTEGER, status INTEGER NOT NULL
);
"""

_WHOLE_MAP = (-1, -1, -1)  # NULLs would never be equal in the unique index


@dataclass(frozen=True)
class Canvas:
    """A canvas that the emulator holds.

    Attributes:
        id: what Fused calls ``collection_id``.
        environment_id: the team it belongs to.
        email: the user who owns it. None: the team.
        name: its name.
        access_scope: ``"public"``, or ``"team"`` if running its UDFs takes more than the shared token.
        share_token: ``fc_…``. None: it is not shared.
        share_client_id: the instance that its shared UDFs run on. None: the preferred one.
        passcode: what runs of a public canvas must send. None: nothing.
        updated_at: when it changed last, in seconds since the epoch.
    """

    id: str
    environment_id: str
    email: str | None
    name: str
    access_scope: str
    share_token: str | None
    share_client_id: str | None
    passcode: str | None
    updated_at: float

    def record(self, *, lite: bool = False) -> dict[str, Any]:
        """The canvas as the service's lookups return it, without its UDFs."""
        brief = {
            "id": self.id,
            "name": self.name,
            "username": None,
            "access_scope": self.access_scope,
            "allow_public_read": self.access_scope == "public",
            "share_token": self.share_token,
            "last_updated": _iso(self.updated_at),
        }
        if lite:
            return brief
        return brief | {"share_client_id": self.share_client_id, "passcode": self.passcode, "dashboard_body": None}


@dataclass(frozen=True)
class Udf:
    """A UDF that the emulator holds. ``canvas_id`` and ``updated_at`` are set when it is stored."""

    id: str
    slug: str
    canvas: str
    environment_id: str
    email: str | None
    code: str
    entrypoint: str
    shared_token: str
    visible: bool = True
    cache_max_age: int | None = None
    canvas_id: str = ""
    updated_at: float = 0.0

    def record(self) -> dict[str, Any]:
        """The UDF as the service's lookups return it, with what Fused's SDK needs to load it."""
        body = {
            "type": "geopandas_v2",
            "name": self.slug,
            "entrypoint": self.entrypoint,
            "code": self.code,
            "cache_max_age": self.cache_max_age,
        }
        text = json.dumps(body)
        return {
            "id": self.id,
            "slug": self.slug,
            "collection_id": self.canvas_id,
            "collection_name": self.canvas,
            "is_visible": bool(self.visible),
            "last_updated": _iso(self.updated_at),
            "udf_body": text,
            "udf_body_hash": hashlib.sha256(text.encode()).hexdigest(),
        }


@dataclass(frozen=True)
class CachedResult:
    """A cached body, and whether the memory tier had it."""

    body: bytes
    media_type: str
    in_memory: bool


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
        self._invalidations: dict[tuple[str | None, str], int] = {}

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
        canvas = self.find_canvas(environment_id=udf.environment_id, email=udf.email, name=udf.canvas)
        if canvas is None:
            canvas = self.add_canvas(udf.environment_id, udf.canvas, email=udf.email, access_scope="public")
        udf = replace(udf, canvas_id=canvas.id, updated_at=time.time())
        if known is not None:
            udf = replace(udf, id=known.id, shared_token=known.shared_token)
        self._insert("udfs", udf)
        return udf

    def find_udf(self, **conditions: str | None) -> Udf | None:
        """The UDF for which every column has the given value (None for NULL)."""
        where = " AND ".join(f"{column} IS ?" for column in conditions)
        return next(iter(self._udfs(where, *conditions.values())), None)

    def udfs(self, environment_id: str, *, skip: int = 0, limit: int = 300) -> list[Udf]:
        return self._udfs("environment_id = ? ORDER BY slug, id LIMIT ? OFFSET ?", environment_id, limit, skip)

    def user_email(self, handle: str) -> str | None:
        with self._lock:
            row = self._connection.execute("SELECT email FROM users WHERE handle = ?", (handle,)).fetchone()
        return row and str(row[0])

    def udfs_of(self, canvas: Canvas) -> list[Udf]:
        return self._udfs("canvas_id = ? ORDER BY slug", canvas.id)

    def _udfs(self, where: str, *values: object) -> list[Udf]:
        return [Udf(*row) for row in self._rows(Udf, "udfs", where, *values)]

    def _rows(self, kind: type[Any], table: str, where: str, *values: object) -> list[tuple[Any, ...]]:
        columns = ", ".join(kind.__dataclass_fields__)
        with self._lock:
            return self._connection.execute(f"SELECT {columns} FROM {table} WHERE {where}", values).fetchall()

    def _insert(self, table: str, row: Any) -> None:
        columns = row.__dict__
        names, places = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        with self._transaction() as db:
            db.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({places})", columns)

    # -- canvases, and who may run what they share ---------------------------------------------------------------

    def add_canvas(
        self,
        environment_id: str,
        name: str,
        *,
        email: str | None = None,
        access_scope: str = "team",
        share_client_id: str | None = None,
        passcode: str | None = None,
        shared: bool = True,
    ) -> Canvas:
        """Store a canvas. If one with the same owner and name exists, it keeps its id and share token."""
        known = self.find_canvas(environment_id=environment_id, email=email, name=name)
        canvas = Canvas(
            id=known.id if known else str(uuid.uuid4()),
            environment_id=environment_id,
            email=email,
            name=name,
            access_scope=access_scope,
            share_token=((known and known.share_token) or f"fc_{secrets.token_hex(16)}") if shared else None,
            share_client_id=share_client_id,
            passcode=passcode,
            updated_at=time.time(),
        )
        self._insert("canvases", canvas)
        return canvas

    def find_canvas(self, **conditions: str | None) -> Canvas | None:
        """The canvas for which every column has the given value (None for NULL)."""
        return next(iter(self.canvases(**conditions)), None)

    def canvases(self, **conditions: str | None) -> list[Canvas]:
        """The canvases for which every column has the given value (None for NULL), by name."""
        where = " AND ".join(f"{column} IS ?" for column in conditions)
        return [Canvas(*row) for row in self._rows(Canvas, "canvases", f"{where} ORDER BY name", *conditions.values())]

    def find_shared_canvas(self, token: str) -> Canvas | None:
        """The canvas of ``fc_<token>`` or ``fc_<team>/<canvas>``."""
        canvas = self.find_canvas(share_token=token)
        team, slash, name = token.removeprefix("fc_").partition("/")
        if canvas is None and slash:
            with self._lock:
                row = self._connection.execute("SELECT id FROM environments WHERE name = ?", (team,)).fetchone()
            canvas = row and self.find_canvas(environment_id=row[0], email=None, name=name)
        return canvas if canvas is not None and canvas.share_token else None

    def find_shared(self, token: str) -> tuple[Udf | None, Canvas | None]:
        """The UDF that a shared token of any form stands for, and the canvas whose access rules apply. A token of the UDF's
        own (``fsh_…`` and older ones) needs nothing else."""
        udf = self.find_udf(shared_token=token)
        of_canvas = canvas_token(token)
        if udf is not None or of_canvas is None:
            return udf, None
        canvas = self.find_shared_canvas(of_canvas)
        if canvas is None:
            return None, None
        return self.find_udf(canvas_id=canvas.id, slug=token[len(of_canvas) + 1 :]), canvas

    def shared_client_id(self, udf: Udf) -> str:
        """The instance that shared runs of a UDF are made on: its canvas's, or the preferred one."""
        canvas = self.find_canvas(id=udf.canvas_id)
        if canvas is not None and canvas.share_client_id:
            return canvas.share_client_id
        instances = self.instances(udf.environment_id)
        return str(max(instances, key=lambda each: each.get("preference_rank") or 0)["client_id"])

    def add_session_token(self, canvas_id: str, ttl: float) -> tuple[str, float]:
        """A new session token, and when it expires, in seconds since the epoch."""
        expires = time.time() + ttl
        token = f"{secrets.token_hex(4)}:{int(expires)}:{secrets.token_urlsafe(24)}"
        with self._transaction() as db:
            db.execute("INSERT INTO session_tokens VALUES (?, ?, ?)", (token, canvas_id, expires))
        return token, expires

    def session_tokens(self) -> list[str]:
        """Every session token that was minted and not revoked, in order."""
        with self._lock:
            return [row[0] for row in self._connection.execute("SELECT token FROM session_tokens ORDER BY rowid")]

    def session_token_is_valid(self, token: str, canvas_id: str) -> bool:
        with self._lock:
            row = self._connection.execute(
                "SELECT expires_at FROM session_tokens WHERE token = ? AND canvas_id = ?", (token, canvas_id)
            ).fetchone()
        return row is not None and row[0] > time.time()

    def expire_session_tokens(self) -> None:
        with self._transaction() as db:
            db.execute("UPDATE session_tokens SET expires_at = 0")

    def delete_session_tokens(self, canvas_id: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM session_tokens WHERE canvas_id = ?", (canvas_id,))

    # -- cached results ------------------------------------------------------------------------------------------

    def cached(
        self, client_id: str, udf_id: str, tile: tuple[int, int, int] | None, parameters: str, *, max_age: float
    ) -> CachedResult | None:
        """A cached result that is young enough. What is read from object storage is in memory from then on."""
        key = (client_id, udf_id, *(tile or _WHOLE_MAP), parameters)
        this = "client_id = ? AND udf_id = ? AND z = ? AND x = ? AND y = ? AND parameters = ?"
        with self._transaction() as db:
            row = db.execute(f"SELECT body, media_type, in_memory, stored_at FROM results WHERE {this}", key).fetchone()
            if row is None or time.time() - row[3] >= max_age:
                return None
            if not row[2]:
                db.execute(f"UPDATE results SET in_memory = 1 WHERE {this}", key)
        return CachedResult(row[0], row[1], bool(row[2]))

    def cache_many(
        self,
        client_id: str,
        udf_id: str,
        tiles: Iterable[tuple[int, int, int] | None],
        parameters: str = "{}",
        body: bytes = b"null",
        media_type: str = "application/json",
    ) -> None:
        """Cache one body for many tiles, as if each had been requested. None stands for a request without a tile."""
        now = time.time()
        rows = ((client_id, udf_id, *(tile or _WHOLE_MAP), parameters, body, media_type, now) for tile in tiles)
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)", rows)

    def cached_tiles(self, udf_id: str, client_id: str | None = None) -> set[tuple[int, int, int]]:
        """The tiles that have cached results, on one instance or on any."""
        query = "SELECT DISTINCT z, x, y FROM results WHERE udf_id = ? AND z >= 0 AND client_id = coalesce(?, client_id)"
        with self._lock:
            return set(self._connection.execute(query, (udf_id, client_id)))

    def cached_calls(self, udf_id: str, client_id: str | None = None) -> list[dict[str, Any]]:
        """The parameters of cached results that are of no tile, on one instance or on any."""
        query = "SELECT DISTINCT parameters FROM results WHERE udf_id = ? AND z < 0 AND client_id = coalesce(?, client_id)"
        with self._lock:
            return [json.loads(row[0]) for row in self._connection.execute(query, (udf_id, client_id))]

    def forget_memory(self) -> None:
        with self._transaction() as db:
            db.execute("UPDATE results SET in_memory = 0")

    def delete_results(
        self, client_id: str | None, udf_id: str, tiles: Iterable[tuple[int, int, int]] | None = None, *, memory: bool = True
    ) -> int:
        """Delete results, and return how many objects there were.

        Args:
            client_id: the instance. None: all of them.
            udf_id: the UDF.
            tiles: the tiles. None: all results.
            memory: whether the memory tier is reached. If not, it keeps what it has.
        """
        with self._transaction() as db:
            count = self._invalidations.get((client_id, udf_id), 0)
            self._invalidations[client_id, udf_id] = count + 1
            this = "DELETE FROM results WHERE udf_id = ? AND client_id = coalesce(?, client_id) AND (? OR NOT in_memory)"
            if tiles is None:
                return db.execute(this, (udf_id, client_id, memory)).rowcount
            rows = ((udf_id, client_id, memory, *tile) for tile in tiles)
            return db.executemany(f"{this} AND z = ? AND x = ? AND y = ?", rows).rowcount

    def invalidations(self, client_id: str, udf_id: str) -> int:
        """How many invalidations of a UDF have reached an instance since the emulator started."""
        with self._lock:
            return sum(self._invalidations.get((each, udf_id), 0) for each in (client_id, None))

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


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
