"""The drive of each instance, on which `@fused.cache` inside of UDFs keeps its results, and its endpoints."""

import functools
import hashlib
import pickle
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel

from fused_cache_ops.emulator.store import Caller, Store

CACHE_FOLDER = "fused-system/cached_data"
"""Where `@fused.cache` keeps its results."""

STORES = ""
"""In place of an instance: the object stores, of which each path begins with its scheme."""

F = TypeVar("F", bound=Callable[..., Any])


class Drive:
    """The files of every instance, in memory. Safe to use from several threads."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, tuple[bytes, float]]] = {}
        self._lock = threading.RLock()

    def read(self, client_id: str, path: str) -> tuple[bytes, float] | None:
        """A file, and when it was written."""
        with self._lock:
            return self._files.get(client_id, {}).get(path)

    def write(self, client_id: str, path: str, content: bytes) -> None:
        with self._lock:
            self._files.setdefault(client_id, {})[path] = (content, time.time())

    def folders(self, client_id: str, folder: str) -> list[str]:
        """The names of the folders in a folder."""
        return [each["file_name"] for each in self.listing(client_id, folder) or () if each["is_directory"]]

    def listing(self, client_id: str, folder: str) -> list[dict[str, Any]] | None:
        """What is in a folder, as the service lists it. None: there is no such folder."""
        beginning = folder.strip("/") + "/" if folder.strip("/") else ""
        with self._lock:
            within = {path: each for path, each in self._files.get(client_id, {}).items() if path.startswith(beginning)}
        if not within and (client_id == STORES or not f"{CACHE_FOLDER}/".startswith(beginning)):
            return None
        found: dict[str, dict[str, Any]] = {}
        for path, (content, written) in within.items():
            name, slash, _ = path[len(beginning) :].partition("/")
            moment = datetime.fromtimestamp(written, timezone.utc).isoformat()
            entry: dict[str, Any] = {"url": f"{beginning}{name}", "file_name": name, "is_directory": bool(slash)}
            found[name] = entry if slash else {**entry, "size": len(content), "last_modified": moment}
        return list(found.values())

    def delete(self, client_id: str, path: str, *, is_folder: bool) -> bool:
        """Delete a file, or a folder with all that is in it. Returns whether there was one."""
        path = path.strip("/")
        with self._lock:
            files = self._files.get(client_id, {})
            gone = [each for each in files if (each.startswith(f"{path}/") if is_folder else each == path)]
            for each in gone:
                del files[each]
        return bool(gone)

    def cached(self, running_on: Callable[[], str], cache_folder_path: str, cache_max_age: float) -> Callable[[F], F]:
        """What `Emulator.cache` does."""

        def decorate(function: F) -> F:
            @functools.wraps(function)
            def call(*arguments: Any, **named: Any) -> Any:
                key = repr((function.__qualname__, cache_max_age, arguments, sorted(named.items())))
                digest = hashlib.sha256(key.encode()).hexdigest()
                path = f"{CACHE_FOLDER}/{cache_folder_path.strip('/')}/data_{digest}/result.pickle"
                client_id = running_on()
                kept = self.read(client_id, path)
                if kept is not None and time.time() - kept[1] < cache_max_age:
                    return pickle.loads(kept[0])  # noqa: S301 - written below
                result = function(*arguments, **named)
                self.write(client_id, path, pickle.dumps(result))
                return result

            return call  # type: ignore[return-value]

        return decorate


class _Item(BaseModel):
    item: str


def drives(store: Store, drive: Drive, caller: Callable[..., Any]) -> APIRouter:
    """The endpoints by which files on a drive are listed and deleted, as Fused's SDK calls them. They are not in the REST
    reference, and whether the service lets a service token use them is not known: `Emulator.misbehave` can refuse it. Files in
    object stores are listed with their sizes and times."""
    Known = Annotated[Caller, Depends(caller)]  # noqa: N806
    router, files = APIRouter(prefix="/efs/{client_id}"), APIRouter()

    def check(client_id: str, who: Caller, *, writes: bool = False) -> None:
        if client_id not in {instance["client_id"] for instance in store.instances(who.environment_id)}:
            raise HTTPException(404, "Realtime instance not found")
        if writes and not who.may_write:
            raise HTTPException(403, "Write access is required")

    @router.post("/list")
    async def listed(client_id: str, body: _Item, who: Known) -> dict[str, Any]:
        check(client_id, who)
        found = drive.listing(client_id, body.item)
        if found is None:
            raise HTTPException(404, "Folder not found")
        return {"items": found}

    @router.delete("/delete-dir")
    async def delete_folder(client_id: str, body: _Item, who: Known) -> dict[str, Any]:
        return deleted(client_id, body.item, who, is_folder=True)

    @router.delete("/delete-file")
    async def delete_file(client_id: str, body: _Item, who: Known) -> dict[str, Any]:
        return deleted(client_id, body.item, who, is_folder=False)

    @files.get("/files/list-details")
    async def list_details(path: str, who: Known) -> list[dict[str, Any]]:
        found = drive.listing(STORES, path)
        if found is None:
            raise HTTPException(404, "Folder not found")
        return found

    def deleted(client_id: str, item: str, who: Caller, *, is_folder: bool) -> dict[str, Any]:
        check(client_id, who, writes=True)
        if not drive.delete(client_id, item, is_folder=is_folder):
            raise HTTPException(404, "Not found")
        return {"item": item}

    files.include_router(router)
    return files
