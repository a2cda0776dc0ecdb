"""Addresses of datasets: which of them code reads as data, and the key of the dataset that each belongs to."""

from __future__ import annotations

import re

from fused_cache_ops.secret import masked_address

_words = str.split
_STORES = frozenset(_words("s3 s3a s3n gs gcs az azure adl abfs abfss wasb wasbs hdfs webhdfs r2 oci oss cos dbfs hf fd"))
_WITH_CONTAINER = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_WEB = frozenset({"http", "https"})
_MOUNTS = ("/mnt/", "/mount/", "/dbfs/")
_GDAL = {"/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://", "/vsiadls/": "abfs://", "/vsihdfs/": "hdfs://"}
_GDAL_WRAPS = ("/vsizip/", "/vsigzip/", "/vsitar/", "/vsicurl/", "/vsicurl_streaming/")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(/.*)?", re.DOTALL)
_ENDING = re.compile(
    r"\.(?:geo)?(?:parquet|pq|csv|tsv|json|jsonl|ndjson|fgb|gpkg|shp|gdb|zip|gz|tar|tiff?|vrt|nc4?|zarr|h5|hdf5?|grib2?|"
    r"pmtiles|mbtiles|arrow|feather|ipc|orc|avro|xlsx?|kmz|kml|gml|gpx|las|laz|copc|e57|duckdb|db|sqlite|pbf|mvt|jp2|png|"
    r"jpe?g|npy|npz|pkl)(?:\.(?:gz|zst|bz2|zip))?",
    re.IGNORECASE,
)
_FILE_ENDING = re.compile(r"[A-Za-z][\w-]{0,9}|mp4|7z")
_FOLDER_FORMATS = (".zarr", ".gdb", ".icechunk")
_PARTITION = re.compile(r"[\w.-]{1,200}=.*|[^*?\[{]*[*?\[{].*", re.DOTALL)  # `date=2026-01-01`, and globs
_RELEASE = re.compile(r"v?\d{4}[-_.]?\d{2}(?:[-_.]?\d{2})?(?:[-_.]\w{1,20}){0,3}|v?\d{1,3}(?:\.\d{1,5}){1,3}(?:-\w{1,20})?")
_DATED_RELEASE = re.compile(r"v?\d{4}-\d{2}-\d{2}[-.](?:\d{1,3}|(?:alpha|beta|rc|v)[\w.-]{0,20})", re.IGNORECASE)
_RELEASES = frozenset({"release", "releases", "snapshot", "snapshots"})
_OF_H3 = frozenset({"_sample", "overview", ".fused", "_parts", ".fused-h3-source"})
_DRAWN = re.compile(
    r"\{-?[zxy]\}|%7Bz%7D|style\.json|/styles?/|mapbox://|basemap|tile\.openstreetmap\.|demotiles\.|/MapServer/tile|/wmts",
    re.IGNORECASE,
)


def unwrapped(path: str) -> str:
    """A path without what fsspec and GDAL put before it."""
    path = path.strip().rpartition("::")[2]
    before = ""
    while path != before:
        before = path
        for prefix in _GDAL_WRAPS:
            path = path.removeprefix(prefix)
        for prefix, scheme in _GDAL.items():
            path = f"{scheme}{path.removeprefix(prefix)}" if path.startswith(prefix) else path
        path = re.sub(r"^(?:zip|tar|gzip)\+(?=[a-z0-9]+://)", "", path)
    found = re.search(r"![a-z0-9]+://|^/?[a-z0-9]+:/", path)
    if found is not None and found[0].startswith("!"):
        return path[found.start() + 1 :]
    return path.partition("!")[0] if "://" in path else path


def scheme_of(path: str) -> str:
    """The scheme of an address in lower case, or nothing."""
    found = _ADDRESS.fullmatch(path)
    return found[1].lower() if found is not None else ""


def is_stored(path: str) -> bool:
    """Whether a path is in an object store or on a disk that machines share."""
    return scheme_of(path) in _STORES or path.startswith(_MOUNTS)


def is_web(path: str) -> bool:
    return scheme_of(path) in _WEB


def is_drawn(address: str) -> bool:
    """Whether an address is a basemap or a style, which a browser reads."""
    return _DRAWN.search(address) is not None


def is_data_file(address: str) -> bool:
    """Whether an address ends as a file of data does."""
    path = address if address.startswith("/") else address.partition("://")[2].partition("/")[2]
    last = re.split(r"[?#]", path)[0].rpartition("/")[2]
    return "." in last and _ENDING.search(f".{last.partition('.')[2]}") is not None


def has_bucket(known: str, *, alone: bool = False) -> bool:
    """Whether an address has a bucket or host that is complete. `alone`: also if nothing follows."""
    if known.startswith(_MOUNTS):
        return known.count("/") > 2
    found = _ADDRESS.fullmatch(known)
    return found is not None and bool(found[2].rpartition("@")[2]) and (alone or found[3] is not None)


def dataset_key(source: str) -> str:
    """The dataset that a path or a table belongs to.

    - A file belongs to the folder that holds it: ``s3://bucket/parcels/part.parquet`` to ``s3://bucket/parcels/``. A name with
      an ending is a file, except for formats that are folders, such as ``.zarr``. Other names are folders.
    - Partitions (``date=2026-01-01/``) and globs (``*.parquet``) are dropped, with all that follows. So is what belongs to an
      H3 dataset, such as ``_sample``.
    - The name of a release is ``*``: ``s3://bucket/release/2026-04-15.0/`` is ``s3://bucket/release/*/``.
    - A folder ends with a slash.
    - A user, a password, a query and a fragment of an address are dropped. The container of ``abfs://container@account`` stays.
    - A table is its name.
    """
    root, path = _without_access(source)
    return _folder(root, path) if root or "/" in path else path


def shown_address(source: str) -> str:
    """A path as it may be shown: without a user, a password, a query and a fragment, tokens masked."""
    root, path = _without_access(source)
    return masked_address(root + path)


def _without_access(source: str) -> tuple[str, str]:
    source = source.strip()
    found = _ADDRESS.fullmatch(source)
    if found is None:
        return "", source
    scheme = found[1].lower()
    rest = re.split(r"[?#]" if scheme in _WEB else r"\?(?=[\w.-]{1,200}=)", source.partition("://")[2])[0]
    host, slash, path = rest.partition("/")
    may_have_port = scheme in _WEB or scheme in ("hdfs", "webhdfs")
    if re.search(r":(?!\d{1,5}$)" if may_have_port else ":", host) and "@" in path:  # a password with a slash
        host, slash, path = rest.rpartition("@")[2].partition("/")
    if scheme not in _WITH_CONTAINER or ":" in host:
        host = host.rpartition("@")[2]
    return f"{scheme}://{host}", f"{slash}{path}"


def _folder(root: str, path: str) -> str:
    kept: list[str] = []
    folders, _, last = path.rpartition("/")
    for part in folders.split("/"):
        if _PARTITION.fullmatch(part) or part in _OF_H3:
            return f"{root}{'/'.join(kept)}/"
        kept.append("*" if _is_release(part, kept) else part)
    if last and not _PARTITION.fullmatch(last) and last not in _OF_H3:
        if _is_release(last, kept):
            kept.append("*")
        elif last.lower().endswith(_FOLDER_FORMATS) or not _is_file(last):
            kept.append(last)
    return f"{root}{'/'.join(kept)}/"


def _is_release(part: str, before: list[str]) -> bool:
    if not before or len(part) > 100:
        return False
    is_version = before[-1].lower() in _RELEASES and _RELEASE.fullmatch(part) is not None
    return is_version or _DATED_RELEASE.fullmatch(part) is not None


def _is_file(name: str) -> bool:
    stem, _, ending = name.rpartition(".")
    return stem.strip(".") != "" and (_FILE_ENDING.fullmatch(ending) is not None or ending.lower() in ("h5", "7z"))
