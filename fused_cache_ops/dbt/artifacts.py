"""What dbt built, as ``run_results.json`` and ``manifest.json`` say. dbt is not imported.

The facts are of dbt-core 1.11 (run results v6, manifest v12). dbt Fusion writes the manifest as v20, with the same keys.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Union

from fused_cache_ops.errors import InvalidInputError, unreadable
from fused_cache_ops.wording import quoted, rendered_to_nothing

logger = logging.getLogger(__name__)

RESULTS, MANIFEST = "run_results.json", "manifest.json"
_VERSIONS = {RESULTS: ("run-results", (6,)), MANIFEST: ("manifest", (12, 20))}
_LARGEST = {RESULTS: 256 * 2**20, MANIFEST: 2**30}
"""Bytes. A manifest of 5,000 models has about 100 MB."""

_BUILDS = ("build", "run", "seed", "snapshot")
"""Other commands, such as compile, docs generate and show, overwrite the results with successes that changed nothing."""

_TABLES = ("model", "seed", "snapshot")
_PASSED_THROUGH = ("view", "ephemeral")
_ADDS_ROWS_ONLY = ("append", "merge", "delete+insert")
_QUOTES = re.compile(r'["`\[\]]')

DbtPath = Union[str, "os.PathLike[str]", Sequence[Union[str, "os.PathLike[str]"]]]
"""A folder with dbt's files (a target folder, or the project's), a results file, or several of these."""


@dataclass(frozen=True)
class Exposure:
    """An exposure that names UDFs, and is below something that changed.

    Attributes:
        name: its unique id.
        nodes: what changed above it.
        fused: what its ``meta`` says under ``fused``, as a list of mappings.
        project: the project's folder, to which relative paths belong.
    """

    name: str
    nodes: list[str]
    fused: list[Any]
    project: str


@dataclass(frozen=True)
class DbtBuild:
    """What one build changed, or several.

    Attributes:
        changed: the models, seeds and snapshots whose rows changed, by unique id, with the name of their table or view. None:
            it has none of its own.
        not_built: those that were to be built and were not, by unique id, with dbt's status. What shows them stays stale.
        exposures: those below ``changed`` that name UDFs.
        invocations: dbt's ids of the builds.
        warnings: what may be missing.
        names_udfs: whether any exposure of the project names UDFs.
    """

    changed: dict[str, str | None] = field(default_factory=dict)
    not_built: dict[str, str] = field(default_factory=dict)
    exposures: tuple[Exposure, ...] = ()
    invocations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    names_udfs: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types, from which `from_dict` makes the same again."""
        return {
            "changed": dict(self.changed),
            "not_built": dict(self.not_built),
            "exposures": [vars(each) for each in self.exposures],
            "invocations": list(self.invocations),
            "warnings": list(self.warnings),
            "names_udfs": self.names_udfs,
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> DbtBuild:
        """The build that `to_dict` described."""
        return cls(
            dict(given["changed"]),
            dict(given["not_built"]),
            tuple(Exposure(**each) for each in given["exposures"]),
            tuple(given["invocations"]),
            tuple(given["warnings"]),
            given["names_udfs"],
        )


def results_files(path: DbtPath) -> list[Path]:
    """The results files that a path stands for.

    Raises:
        InvalidInputError: there is none, or the path is not one.
    """
    if path is None:
        raise InvalidInputError("path is None: pass the folder that dbt writes to, such as target/.")
    if not isinstance(path, (str, os.PathLike)):
        if not isinstance(path, Sequence) or not path:
            raise InvalidInputError(f"path = {quoted(path)}: pass the folder that dbt writes to, or a list of these.")
        return [file for each in path for file in results_files(each)]
    text = os.fspath(path)
    if rendered_to_nothing(text):
        raise InvalidInputError(f"path is {text!r}, which looks like a template that rendered to nothing.")
    if "://" in text and not text.startswith("file://"):
        raise InvalidInputError(f"path = {quoted(text)} is a URL: dbt's files are read from a folder. Copy them there first.")
    given = Path(text.removeprefix("file://"))
    candidates = [given / RESULTS, given / "target" / RESULTS] if given.is_dir() else [given]
    if found := next((each for each in candidates if each.is_file()), None):
        return [found]
    missing = "has no run_results.json" if given.is_dir() else "does not exist"
    said = f"path = {quoted(text)} {missing}: run dbt build first, and pass the folder that it writes to (--target-path)."
    raise unreadable(FileNotFoundError(2, "No such file"), said)


def read_build(path: DbtPath, *, newer_than: Any = None, handled: Collection[str] = ()) -> DbtBuild:
    """What dbt changed, from the files that it wrote. Several builds are one: what a later one repaired is no failure.

    Args:
        path: see `DbtPath`. The manifest lies beside the results.
        newer_than: a time, or its text in ISO 8601. Older results are an error.
        handled: the invocations that are left out.

    Raises:
        InvalidInputError: the files are not those of a build, or do not belong together.
        UnavailableError: a file is not there yet, or cannot be read for now.
    """
    since = _time(newer_than, "newer_than")
    builds = []
    for file in results_files(path):
        results = _checked_results(_read(file), file, since)
        invocation = str(results["metadata"].get("invocation_id"))
        if invocation in handled:
            logger.info("Fused cache: the dbt invocation %s was handled before.", invocation)
            continue
        manifest = _read(file.with_name(MANIFEST))
        builds.append((str(results["metadata"].get("generated_at")), _build(results, manifest, file)))
    merged = DbtBuild()
    for _, each in sorted(builds, key=lambda build: build[0]):
        still = {uid: status for uid, status in merged.not_built.items() if uid not in each.changed}
        known = {exposure.name: exposure for exposure in (*merged.exposures, *each.exposures)}
        merged = DbtBuild(
            merged.changed | each.changed,
            still | each.not_built,
            tuple(known.values()),
            (*merged.invocations, *each.invocations),
            (*merged.warnings, *each.warnings),
            merged.names_udfs or each.names_udfs,
        )
    return merged


def is_build(path: DbtPath) -> bool:
    """Whether the results are those of a command that builds something.

    Raises:
        InvalidInputError: the files are not those of dbt.
        UnavailableError: a file is not there yet.
    """
    results = [_read(file) for file in results_files(path)]
    return any((each.get("args") or {}).get("which") in _BUILDS for each in results)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        size = file.stat().st_size
        if size > _LARGEST[_kind(file)]:
            raise InvalidInputError(f"{file} has {size:,} bytes, more than the {_LARGEST[_kind(file)]:,} that are read.")
        content = json.loads(file.read_bytes())
    except OSError as error:
        beside = " It must lie beside run_results.json." if file.name == MANIFEST else ""
        raise unreadable(error, f"{file} cannot be read: {error.strerror or error}.{beside}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{file} is not complete JSON ({error}). Did dbt fail while it wrote the file?") from None
    if not isinstance(content, dict) or not isinstance(content.get("metadata"), dict):
        raise InvalidInputError(f"{file} is not a file of dbt: it has no metadata.")
    _check_version(content["metadata"], file)
    return content


def _kind(file: Path) -> str:
    return MANIFEST if file.name == MANIFEST else RESULTS


def _check_version(metadata: Mapping[str, Any], file: Path) -> None:
    name, versions = _VERSIONS[_kind(file)]
    schema = metadata.get("dbt_schema_version")
    found = re.search(r"/dbt/([a-z-]+)/v(\d+)\.json$", schema) if isinstance(schema, str) else None
    if found is None or found[1] != name:
        raise InvalidInputError(f"{file} is not dbt's {_kind(file)}: its dbt_schema_version is {quoted(schema)}.")
    if int(found[2]) not in versions:
        known = " and ".join(f"v{version}" for version in versions)
        raise InvalidInputError(f"{file} has version v{found[2]} of {name}, but {known} can be read (dbt-core 1.8 and later).")


def _checked_results(results: Mapping[str, Any], file: Path, since: datetime | None) -> Mapping[str, Any]:
    arguments = results.get("args")
    if not isinstance(results.get("results"), list) or not isinstance(arguments, dict):
        raise InvalidInputError(f"{file} has no list of results, or no args: it is not whole.")
    command = arguments.get("which")
    if command not in _BUILDS:
        raise InvalidInputError(
            f"{file} holds the results of dbt {quoted(command)}, not of {', '.join(_BUILDS)}, and has overwritten those of the "
            "build. Read the results before that command, or give the build a --target-path of its own."
        )
    if arguments.get("empty"):
        raise InvalidInputError(
            f"{file} holds the results of dbt {command} --empty, which loads no rows: there is nothing to do."
        )
    generated = _time(results["metadata"].get("generated_at"), f"generated_at of {file}")
    if since is not None and (generated is None or generated < since):
        raise InvalidInputError(f"{file} is of {generated}, and so is older than newer_than = {since}. Did dbt not run?")
    return results


def _time(value: Any, name: str) -> datetime | None:
    if value is None:
        return None
    try:
        # Python 3.10 does not read Z.
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    except ValueError:
        raise InvalidInputError(f"{name} = {quoted(value)} is not a time: write it as 2026-11-29T06:00:00+00:00.") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def _build(results: Mapping[str, Any], manifest: Mapping[str, Any], file: Path) -> DbtBuild:
    nodes = manifest.get("nodes")
    if not isinstance(nodes, dict):
        raise InvalidInputError(f"{file.with_name(MANIFEST)} has no nodes: it is not whole.")
    ran = [each for each in results["results"] if _is_of(each, _TABLES)]
    _check_belongs(results, manifest, [each["unique_id"] for each in ran], file)
    arguments = results["args"]
    changed: set[str] = set()
    not_built: dict[str, str] = {}
    for each in ran:
        uid, status = each["unique_id"], str(each.get("status"))
        batches = _within(each, "batch_results")
        if status == "success" and not batches.get("failed"):
            if not _added_nothing(each, nodes[uid], arguments):
                changed.add(uid)
            continue
        if status != "no-op":
            not_built[uid] = "partial success" if status == "success" else status
        if batches.get("successful"):
            changed.add(uid)
    changed |= _below(changed, nodes)
    warnings = []
    if arguments.get("sample"):
        warnings.append(f"{file} holds the results of dbt {arguments['which']} --sample, which loads a part of the rows.")
    if unknown := [key for key in ("exposures",) if not isinstance(manifest.get(key, {}), dict)]:
        raise InvalidInputError(f"{file.with_name(MANIFEST)}: {unknown[0]} is not a mapping.")
    folder = file.parent.parent if file.parent.name == "target" else file.parent
    return DbtBuild(
        {uid: _unquoted(nodes[uid].get("relation_name")) for uid in sorted(changed)},
        not_built,
        tuple(_exposures(manifest.get("exposures", {}), changed, str(folder))),
        (str(results["metadata"].get("invocation_id")),),
        tuple(warnings),
        any(_fused(each) is not None for each in manifest.get("exposures", {}).values()),
    )


def _is_of(result: Any, kinds: tuple[str, ...]) -> bool:
    if not isinstance(result, dict) or not isinstance(result.get("unique_id"), str):
        raise InvalidInputError(f"{RESULTS} has a result without a unique_id: it is not whole.")
    return result["unique_id"].partition(".")[0] in kinds


def _check_belongs(results: Mapping[str, Any], manifest: Mapping[str, Any], ran: list[str], file: Path) -> None:
    """The manifest may be of a later command, such as dbt list, as long as it knows everything that ran."""
    if missing := [uid for uid in ran if not isinstance(manifest["nodes"].get(uid), Mapping)]:
        raise InvalidInputError(
            f"{file.with_name(MANIFEST)} does not know {missing[0]}, which {file} says ran: they are of different projects or "
            "states. Run dbt build again."
        )
    ids = [each["metadata"].get("invocation_id") for each in (results, manifest)]
    times = [_time(each["metadata"].get("generated_at"), "generated_at") for each in (results, manifest)]
    if ids[0] == ids[1] or None in times:
        return
    # A build writes its manifest before it runs, so its own is older than the results. That of another one must be newer.
    if times[1] < times[0]:  # type: ignore[operator]
        raise InvalidInputError(
            f"{file.with_name(MANIFEST)} is of another invocation than {file}, and older: it may not know what was built. Run "
            "dbt build again, or copy both files together."
        )


def _added_nothing(result: Mapping[str, Any], node: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether a success left the rows as they were. Only of incremental models is 0 rows a statement about that: a table that
    was rebuilt empty reports 0 too."""
    rows = _within(result, "adapter_response").get("rows_affected")
    config = _within(node, "config")
    if isinstance(rows, bool) or rows != 0 or config.get("materialized") != "incremental":
        return False
    full = config.get("full_refresh")
    if full or (full is None and arguments.get("full_refresh")):
        return False
    strategy = config.get("incremental_strategy")
    return strategy in _ADDS_ROWS_ONLY and (strategy != "delete+insert" or bool(config.get("unique_key")))


def _below(changed: set[str], nodes: Mapping[str, Any]) -> set[str]:
    """The views and ephemeral models that read what changed. A table below them was built itself, or keeps its old rows."""
    children: dict[str, list[str]] = {}
    for uid, node in nodes.items():
        if _materialized(node) in _PASSED_THROUGH:
            for parent in _parents(node):
                children.setdefault(parent, []).append(uid)
    found: set[str] = set()
    waiting = list(changed)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found and child not in changed:
                found.add(child)
                waiting.append(child)
    return found


def _materialized(node: Mapping[str, Any]) -> Any:
    return _within(node, "config").get("materialized")


def _parents(node: Mapping[str, Any]) -> Sequence[str]:
    parents = _within(node, "depends_on").get("nodes")
    return [each for each in parents if isinstance(each, str)] if isinstance(parents, list) else ()


def _exposures(exposures: Mapping[str, Any], changed: set[str], project: str) -> Iterator[Exposure]:
    for name, exposure in exposures.items():
        fused = _fused(exposure)
        above = sorted(changed.intersection(_parents(exposure)))
        if fused is not None and above:
            yield Exposure(name, above, list(fused) if isinstance(fused, list) else [fused], project)


def _fused(exposure: Any) -> Any:
    """What an exposure says of UDFs, or None."""
    of_config = _within(_within(exposure, "config"), "meta").get("fused")
    return _within(exposure, "meta").get("fused") if of_config is None else of_config


def _within(content: Any, key: str) -> Mapping[str, Any]:
    """A mapping within a mapping. Empty, if dbt has written something else there."""
    found = content.get(key) if isinstance(content, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _unquoted(relation: Any) -> str | None:
    return _QUOTES.sub("", relation) if isinstance(relation, str) else None


@dataclass(frozen=True)
class DbtManifest:
    """A project, as its manifest describes it.

    Attributes:
        nodes: its models, seeds, snapshots and sources, by unique id, as dbt writes them.
        everything: the build that would have changed all of them, with every exposure that names UDFs.
    """

    nodes: Mapping[str, Mapping[str, Any]]
    everything: DbtBuild

    def loads_of(self, uids: Collection[str]) -> list[str]:
        """What has to be loaded for some nodes to change: these, and what is above them through views and ephemeral models.
        Ephemeral models themselves are not loaded."""
        found: dict[str, None] = {}
        waiting = list(uids)
        while waiting:
            uid = waiting.pop(0)
            if uid in found or uid not in self.nodes:
                continue
            found[uid] = None
            if _materialized(self.nodes[uid]) in _PASSED_THROUGH:
                waiting += _parents(self.nodes[uid])
        return [uid for uid in found if _materialized(self.nodes[uid]) != "ephemeral"]


def read_manifest(path: str | os.PathLike[str]) -> DbtManifest:
    """A project from its ``manifest.json``, or from the folder that has it.

    Raises:
        InvalidInputError: the file is not one.
        UnavailableError: it is not there yet.
    """
    given = Path(path)
    candidates = [given / MANIFEST, given / "target" / MANIFEST] if given.is_dir() else [given]
    file = next((each for each in candidates if each.is_file()), candidates[0])
    manifest = _read(file)
    nodes = {
        uid: node
        for uid, node in {**_within(manifest, "nodes"), **_within(manifest, "sources")}.items()
        if isinstance(node, Mapping) and uid.partition(".")[0] in (*_TABLES, "source")
    }
    folder = file.parent.parent if file.parent.name == "target" else file.parent
    everything = DbtBuild(
        {uid: _unquoted(node.get("relation_name")) for uid, node in nodes.items()},
        exposures=tuple(_exposures(_within(manifest, "exposures"), set(nodes), str(folder))),
    )
    return DbtManifest(nodes, everything)
