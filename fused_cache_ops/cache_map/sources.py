"""The datasets that the code of one UDF reads: paths and tables. The code is read with `ast`, and never run.

A dataset counts where a function that is known to read is called, and where an address of an object store is passed to any
other function. What is computed from something unknown is reported, and so is what no pipeline loads, such as local files.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from fused_cache_ops.cache_map.sql import HOLE, SqlReading, looks_like_sql, read_sql
from fused_cache_ops.cache_map.values import Code, Text, Values
from fused_cache_ops.lineage.scopes import UNREADABLE, Function, Scope, parsed, why_unreadable
from fused_cache_ops.secret import holds_shared_token, masked_address
from fused_cache_ops.wording import quoted_address, shortened, without_any_credentials

_SHOWN_LINE = 120
_READ_LINE = 2_000
_LONGEST_KEY = 500
_MOST_READS = 2_000
_DEFAULT = "with the default of a parameter"
_words = str.split
_STORES = frozenset(_words("s3 s3a s3n gs gcs az azure adl abfs abfss wasb wasbs hdfs webhdfs r2 oci oss cos dbfs hf fd"))
_WITH_CONTAINER = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_WEB = frozenset({"http", "https"})
_MOUNTS = ("/mnt/", "/mount/", "/dbfs/")
_GDAL = {"/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://", "/vsiadls/": "abfs://", "/vsihdfs/": "hdfs://"}
_GDAL_WRAPS = ("/vsizip/", "/vsigzip/", "/vsitar/", "/vsicurl/", "/vsicurl_streaming/")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(/.*)?", re.DOTALL)
_DATA_FILE = re.compile(
    r"\.(?:geo)?(?:parquet|pq|csv|tsv|json|jsonl|ndjson|fgb|gpkg|shp|gdb|zip|gz|tar|tiff?|vrt|nc4?|zarr|h5|hdf5?|grib2?|"
    r"pmtiles|mbtiles|arrow|feather|ipc|orc|avro|xlsx?|kmz|kml|gml|gpx|las|laz|copc|e57|duckdb|db|sqlite|pbf|mvt|jp2|png|"
    r"jpe?g|npy|npz|pkl)(?:\.(?:gz|zst|bz2|zip))?",
    re.IGNORECASE,
)
_FILE = re.compile(r"[^/]*[^/.][^/]*\.[A-Za-z][\w-]{0,9}|[^/]*\.(?:h5|mp4|7z)", re.IGNORECASE)
_FOLDER_FORMATS = (".zarr", ".gdb", ".icechunk")
_PARTITION = re.compile(r"[\w.-]+=.*|.*[*?\[{].*", re.DOTALL)  # `date=2026-01-01`, and globs

_READERS = frozenset(
    _words(
        "read_parquet read_csv read_file read_json read_excel read_feather read_orc read_table read_pickle read_hdf "
        "read_xml read_fwf read_stata read_arrow read_dataframe read_ipc read_ndjson read_avro read_delta read_info "
        "read_metadata read_schema scan_parquet scan_csv scan_ipc scan_ndjson scan_delta scan_iceberg from_parquet "
        "open_dataset open_mfdataset open_dataarray open_zarr open_rasterio open_datatree open_zip open open_file "
        "open_input_file ParquetFile ParquetDataset DeltaTable get_chunks_metadata get_chunk_from_table read_hex_table "
        "read_tiff mosaic_tiff read_shape_zip table_to_tile urlopen urlretrieve get_mapper"
    )
)
_LATER_ARGUMENT = {"table_to_tile": 1, "read_tiff": 1, "mosaic_tiff": 1}  # the first is the area
_PATH_KEYWORDS = _words(
    "path paths filepath filepath_or_buffer path_or_buffer path_or_buf path_or_paths filename filename_or_obj filenames file "
    "fp path_or_dataframe source sources io store urlpath url uri table_uri table dataset_path input_tiff_path tiff_list"
)
_SQL = frozenset(
    {"sql", "execute", "query", "read_sql", "read_sql_query", "read_postgis", "read_gbq", "read_database", "read_database_uri"}
)
_SQL_TABLE = frozenset({"read_sql_table", "load_table"})
_SQL_KEYWORDS = ("sql", "query", "statement", "sql_query")
_IN_MEMORY = frozenset({"BytesIO", "StringIO"})
_NO_READ = re.compile(
    r"_?(?:to_|write|save|put|upload|sink|delete|remove|rm|mkdir|makedirs|ingest|print|log|debug|info|warn|error|exception|"
    r"startswith|endswith|replace|split|partition|removeprefix|removesuffix|strip|format|join|Path|PurePath|str|len|append|"
    r"urlparse|urlsplit|sub|match|search|fullmatch|compile|register|create_view|encode|setdefault|file_path).*"
)
_HANDING = frozenset({"load", "load_async", "run", "run_async", "submit"})


@dataclass(frozen=True)
class Source:
    """One place in a UDF's code that reads a dataset.

    Attributes:
        dataset: the key of the dataset: see `dataset_key`.
        line: where it stands, from 1.
        text: the source there, on one line, shortened, with credentials masked. Every character of it prints.
        note: what a reader should know, for example that only the beginning of the path is known. ``""``: nothing.
    """

    dataset: str
    line: int
    text: str
    note: str = ""


@dataclass(frozen=True)
class UnknownSource:
    """Something that cannot be known from the code, or that is read and is no dataset.

    Attributes:
        reason: what, and why.
        line: where it stands, from 1. None: the whole code.
    """

    reason: str
    line: int | None


@dataclass(frozen=True)
class Sources:
    """What one UDF's code reads, each in the order of lines.

    Attributes:
        found: the reads of datasets.
        unknown: what cannot be known.
    """

    found: tuple[Source, ...] = ()
    unknown: tuple[UnknownSource, ...] = ()


def find_sources(code: str) -> Sources:
    """Find the datasets that a UDF's code reads. Never raises: what cannot be parsed is unknown, with the reason.

    Args:
        code: the UDF's code. It is never run.
    """
    try:
        return _Finder(code).sources()
    except UNREADABLE as error:
        return Sources(unknown=(UnknownSource(*why_unreadable(error, code)),))


def dataset_key(source: str) -> str:
    """The dataset that a path or a table belongs to.

    - A file belongs to the folder that holds it: ``s3://bucket/parcels/part.parquet`` to ``s3://bucket/parcels/``. A name with
      an ending is a file, except for formats that are folders, such as ``.zarr``. Other names are folders.
    - Partitions (``date=2026-01-01/``) and globs (``*.parquet``) are dropped, with all that follows.
    - A folder ends with a slash.
    - A user, a password, a query and a fragment of an address are dropped. The container of ``abfs://container@account`` stays.
    - A table is its name.
    """
    source = source.strip()
    found = _ADDRESS.fullmatch(source)
    if found is None:
        return _folder("", source) if "/" in source else source
    scheme = found[1].lower()
    rest = re.split(r"[?#]" if scheme in _WEB else r"\?(?=[\w.-]+=)", source.partition("://")[2])[0]
    host, slash, path = rest.partition("/")
    may_have_port = scheme in _WEB or scheme in ("hdfs", "webhdfs")
    if re.search(r":(?!\d{1,5}$)" if may_have_port else ":", host) and "@" in path:  # a password with a slash
        host, slash, path = rest.rpartition("@")[2].partition("/")
    if scheme not in _WITH_CONTAINER or ":" in host:
        host = host.rpartition("@")[2]
    return _folder(f"{scheme}://{host}", f"{slash}{path}")


def _folder(root: str, path: str) -> str:
    kept: list[str] = []
    folders, _, last = path.rpartition("/")
    for part in folders.split("/"):
        if _PARTITION.fullmatch(part):
            return f"{root}{'/'.join(kept)}/"
        kept.append(part)
    is_folder = last.lower().endswith(_FOLDER_FORMATS) or not _FILE.fullmatch(last)
    if last and is_folder and not _PARTITION.fullmatch(last):
        kept.append(last)
    return f"{root}{'/'.join(kept)}/"


def masked_line(text: str) -> str:
    """Source as one line, shortened, with what grants access masked."""
    text = " ".join(text[:_READ_LINE].split())
    return shortened(one_line(masked_address(without_any_credentials(text))), _SHOWN_LINE)


def one_line(text: str) -> str:
    """The text without line ends and other characters that do not print. They are written as in Python."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# -- the calls --------------------------------------------------------------------------------------------------------


class _Read:
    """One call, while it is read."""

    def __init__(self, call: ast.Call, scope: Scope, name: tuple[str, ...]) -> None:
        self.call, self.scope, self.name = call, scope, name
        self.shown = f"{shortened(name[-1])}()"
        self.keywords = {each.arg: each.value for each in call.keywords if each.arg is not None}


class _Finder:
    def __init__(self, code: str) -> None:
        self._lines = re.split(r"\r\n|\r|\n", code)
        self._code = Code(parsed(code))
        self._values = Values(self._code, _opens)
        self._found: list[Source] = []
        self._unknown: list[UnknownSource] = []
        self._sql: list[tuple[_Read, Text, SqlReading]] = []
        self._shown_lines: dict[tuple[int, int], str] = {}
        self._views: set[str] = set()  # names that the code defines for its own SQL

    def sources(self) -> Sources:
        for call, scope in self._code.calls:
            name = self._values.dotted(call.func, scope)
            if name == ("",):  # the result of a call is called
                name = ("", "a function")
            if len(self._found) + len(self._unknown) + len(self._sql) > _MOST_READS:
                self._unknown.append(UnknownSource(f"the code reads in more than {_MOST_READS:,} places", None))
                break
            self._read_call(_Read(call, scope, name))
        self._read_tables()
        return Sources(
            tuple(sorted(dict.fromkeys(self._found), key=lambda each: (each.line, each.dataset))),
            tuple(sorted(dict.fromkeys(self._unknown), key=lambda each: (each.line or 0, each.reason))),
        )

    def _read_call(self, read: _Read) -> None:
        name, last = read.name, read.name[-1]
        if self._values.function(read.call.func, read.scope) is not None:
            return  # a function of the same code: what it does with its arguments is read there
        if (name[0] == "fused" and len(name) == 2 and last in _HANDING) or self._runs_udf(read):
            self._read_handing(read)
            return
        if last in ("register", "create_view", "from_arrow") or name[-1] == "SQLContext":
            self._views.update(
                text.text.lower() for each in read.call.args[:2] for text in self._values.texts(each, read.scope)
            )
            self._views.update(each.lower() for each in read.keywords)
        if last in ("get_object", "download_file", "download_fileobj"):
            self._read_bucket(read)
        elif last in _SQL:
            self._read_sql(read)
            self._read_addresses(read, first=1)  # parameters of the SQL
        elif last in _SQL_TABLE:
            self._read_named_table(read)
        elif _is_reader(name):
            self._read_path(read)
        elif not _NO_READ.fullmatch(last) and not _is_of_fused_itself(name):
            self._read_addresses(read)

    def _runs_udf(self, read: _Read) -> bool:
        function = read.call.func
        is_map = isinstance(function, ast.Attribute) and function.attr in ("map", "map_async", "submit")
        owner = function.value if is_map and isinstance(function, ast.Attribute) else function
        return self._values.is_udf(owner, read.scope)

    def _read_path(self, read: _Read) -> None:
        if _writes(read):
            return
        given = self._argument(read, _PATH_KEYWORDS, _LATER_ARGUMENT.get(read.name[-1], 0))
        if given is None and read.name[-1] == "open" and isinstance(read.call.func, ast.Attribute):
            given = read.call.func.value  # `Path(…).open()`
        if given is None:
            self._note(read, f"{read.shown} is called without a path that can be seen")
            return
        for text in self._values.texts(given, read.scope):
            self._place(read, text, given, is_reader=True)

    def _argument(self, read: _Read, keywords: list[str] | tuple[str, ...], place: int) -> ast.expr | None:
        if place < len(read.call.args):
            given = read.call.args[place]
            return given.value if isinstance(given, ast.Starred) else given
        return next((read.keywords[keyword] for keyword in keywords if keyword in read.keywords), None)

    def _read_addresses(self, read: _Read, first: int = 0) -> None:
        """Any other call: only what is certainly an address of data."""
        if read.name[-2:] in (("environ", "get"), ("os", "getenv")):
            return  # a part of a value, which counts where it is used
        is_sql = re.search("sql|query", read.name[-1], re.IGNORECASE) is not None
        for given in (*read.call.args[first:], *(each.value for each in read.call.keywords)):
            parts = given.values if isinstance(given, ast.Dict) else [given]
            for text in [text for part in parts for text in self._values.texts(part, read.scope)]:
                if is_sql and first == 0 and looks_like_sql(text.text):
                    self._sql.append((read, text, read_sql(text.text)))
                else:
                    self._place(read, text, given, is_reader=False)

    def _read_handing(self, read: _Read) -> None:
        """A UDF is run: its parameters are no datasets of this UDF."""
        for given in (*read.call.args, *(each.value for each in read.call.keywords)):
            for text in self._values.texts(given, read.scope):
                found = _ADDRESS.fullmatch(_unwrapped(text.text.partition(HOLE)[0]))
                if found is not None and found[1].lower() in _STORES:
                    self._note(read, "a path is passed to another UDF, and what that reads is not known here")

    def _read_bucket(self, read: _Read) -> None:
        """boto3: a bucket and a key."""
        bucket = self._argument(read, ("Bucket",), 0)
        key = self._argument(read, ("Key",), 1)
        if bucket is None or key is None:
            self._note(read, f"{read.shown} takes a bucket and key that cannot be seen")
            return
        for first in self._values.texts(bucket, read.scope):
            for second in self._values.texts(key, read.scope):
                text = Text(f"s3://{first.text}/{second.text}", first.is_default or second.is_default)
                self._place(read, text, key, is_reader=True)

    # -- paths --------------------------------------------------------------------------------------------------------

    def _place(self, read: _Read, text: Text, given: ast.expr, *, is_reader: bool) -> None:
        """Note what a text is that a call takes as a path."""
        path = _unwrapped(text.text)
        known, hole, _ = path.partition(HOLE)
        found = _ADDRESS.fullmatch(known)
        scheme = found[1].lower() if found is not None else ""
        is_data = scheme in _STORES or (scheme in _WEB and (is_reader or _is_data_file(known))) or known.startswith(_MOUNTS)
        if not is_data:
            if is_reader:
                self._note(read, _why_no_dataset(read, path, given))
            elif scheme in _WEB and read.name[0] in ("requests", "httpx") and not hole:
                self._note(read, f"{read.shown} reads an address that is no data file")
            return
        if holds_shared_token(known) or (found is not None and found[2].lower() in ("udf.ai", "www.udf.ai")):
            self._note(read, f"{read.shown} reads an address with what looks like a shared token of Fused")
            return
        notes = [_DEFAULT] if text.is_default else []
        if hole:
            known = known[: known.rfind("/") + 1]
            if not _has_bucket(known):
                self._note(read, f"{read.shown} takes {_described(given)}, and where that begins is computed")
                return
            notes.append("only the beginning of the path is known")
        elif not _has_bucket(known) and not (found is not None and found[2] and found[3] is None and is_reader):
            if is_reader:
                self._note(read, f"{read.shown} takes an address without a bucket or host")
            return
        shown = f"{read.shown[:-2]}({quoted_address(known)}…)" if _grants_access(known) else None
        self._add(read, dataset_key(known), ", ".join(notes), shown)

    def _add(self, read: _Read, key: str, note: str, shown: str | None = None) -> None:
        if len(key) > _LONGEST_KEY:
            self._note(read, f"{read.shown} takes a path that is longer than {_LONGEST_KEY} characters")
            return
        self._found.append(Source(key, read.call.lineno, self._shown(read.call) if shown is None else masked_line(shown), note))

    def _shown(self, call: ast.Call) -> str:
        last = min(call.end_lineno or call.lineno, call.lineno + 30)
        if (call.lineno, last) not in self._shown_lines:
            lines = self._lines[call.lineno - 1 : last]
            self._shown_lines[call.lineno, last] = masked_line("\n".join(line[:_READ_LINE] for line in lines))
        return self._shown_lines[call.lineno, last]

    def _note(self, read: _Read, reason: str) -> None:
        self._unknown.append(UnknownSource(reason, read.call.lineno))

    # -- SQL ----------------------------------------------------------------------------------------------------------

    def _read_sql(self, read: _Read) -> None:
        given = self._argument(read, _SQL_KEYWORDS, 0)
        if given is None:
            return
        for text in self._values.texts(given, read.scope):
            if text.text.startswith(HOLE) and not looks_like_sql(text.text):
                self._note(read, f"{read.shown} takes {_described(given)}, which is computed")
            elif looks_like_sql(text.text):
                self._sql.append((read, text, read_sql(text.text)))
            elif read.name[-1] == "read_sql" and re.fullmatch(r"[\w.]+", text.text):
                self._sql.append((read, text, SqlReading((text.text,), (), frozenset(), ())))

    def _read_named_table(self, read: _Read) -> None:
        given = self._argument(read, ("table_name", "table", "identifier"), 0)
        if given is None:
            return
        for text in self._values.texts(given, read.scope):
            if HOLE in text.text or not text.text:
                self._note(read, f"{read.shown} takes {_described(given)}, which is computed")
            else:
                self._add_table(read, text.text, text)

    def _read_tables(self) -> None:
        """What the SQL reads, once all names are known that it defines."""
        self._views.update(name for _, _, reading in self._sql for name in reading.defined)
        for read, text, reading in self._sql:
            for name in reading.tables:
                if name.lower() not in self._views and not self._is_variable(read, name):
                    self._add_table(read, name, text)
            for path in reading.paths:
                self._place(read, Text(path, text.is_default), read.call, is_reader=True)
            for reason in reading.unknown:
                self._note(read, reason)

    def _add_table(self, read: _Read, name: str, text: Text) -> None:
        self._add(
            read, dataset_key(name), "with the default of a parameter" if text.is_default and HOLE not in text.text else ""
        )

    def _is_variable(self, read: _Read, name: str) -> bool:
        """Whether DuckDB or Polars would take a name for a variable of the code. This call's own result is not meant."""
        if read.name[-1].startswith("read_") or "." in name:
            return False
        found = read.scope.find(name)
        bound = found[1] if found is not None else []
        return any(each is None or (isinstance(each, ast.AST) and not _holds(each, read.call)) for each in bound)


def _is_reader(name: tuple[str, ...]) -> bool:
    if name[-1] == "dataset":
        return name[0] in ("pyarrow", "ds", "dataset")
    if name[-1] == "connect":
        return False
    if name[:2] == ("fused", "h3") and name[-1].startswith("read_"):
        return True
    return name[-1] in _READERS or name in (("fused", "download"),)


def _opens(name: tuple[str, ...]) -> bool:
    """Whether a call returns what it reads, and no path."""
    return _is_reader(name) or name[-1] in _IN_MEMORY or name[-1] in _SQL or name[0] in ("requests", "httpx")


def _is_of_fused_itself(name: tuple[str, ...]) -> bool:
    return name[0] == "fused" and len(name) > 1 and name[1] not in ("utils", "public", "h3", "core")


def _holds(outer: ast.expr | Function, inner: ast.expr) -> bool:
    """Whether one expression is a part of another, by their places."""
    begin, end = (outer.lineno, outer.col_offset), (outer.end_lineno or 0, outer.end_col_offset or 0)
    return begin <= (inner.lineno, inner.col_offset) and (inner.end_lineno or 0, inner.end_col_offset or 0) <= end


def _writes(read: _Read) -> bool:
    """Whether a file is opened to be written."""
    if read.name[-1] != "open":
        return False
    mode = read.keywords.get("mode", read.call.args[1] if len(read.call.args) > 1 else None)
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and mode.value[:1] in ("w", "a", "x")


def _unwrapped(path: str) -> str:
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


def _has_bucket(known: str) -> bool:
    """Whether an address has a bucket or host that is complete."""
    if known.startswith(_MOUNTS):
        return known.count("/") > 2
    found = _ADDRESS.fullmatch(known)
    return found is not None and bool(found[2].rpartition("@")[2]) and found[3] is not None


def _grants_access(address: str) -> bool:
    """Whether an address has a user or a query. Its parts may be scattered over a line, where they cannot be masked."""
    found = _ADDRESS.fullmatch(address)
    return found is not None and ("@" in address or "?" in address) and found[1].lower() not in _WITH_CONTAINER


def _is_data_file(address: str) -> bool:
    path = re.split(r"[?#]", address.partition("://")[2].partition("/")[2])[0]
    return any(_DATA_FILE.search(f".{part.partition('.')[2]}") for part in path.split("/")[-1:] if "." in part)


def _why_no_dataset(read: _Read, path: str, given: ast.expr) -> str:
    if path.startswith(HOLE) or not path:
        return f"{read.shown} takes {_described(given)}, which is computed"
    if "://" in path.partition(HOLE)[0]:
        return f"{read.shown} takes an address of a kind that is not known"
    if path.startswith("/") or HOLE not in path:
        return f"{read.shown} reads a file of the machine that runs the UDF"
    return f"{read.shown} takes {_described(given)}, and where that begins is not an address"


def _described(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return f"the variable {node.id}"
    kinds: dict[type[ast.expr], str] = {
        ast.Attribute: "an attribute",
        ast.Call: "the result of a call",
        ast.JoinedStr: "an f-string",
        ast.Subscript: "an item",
    }
    return kinds.get(type(node), "an expression")
