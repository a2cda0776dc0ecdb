"""The datasets that the code of one UDF reads: paths, tables, and what else has a name.

A dataset counts where a function that is known to read is called, and where an address of an object store is passed to any
other function. What is computed from something unknown is reported. What no pipeline loads, such as a basemap, is counted.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fused_cache_ops.code.addresses import (
    dataset_key,
    has_bucket,
    is_data_file,
    is_drawn,
    is_stored,
    is_web,
    shown_address,
    unwrapped,
)
from fused_cache_ops.code.atoms import Literal, Made, Text, Udf
from fused_cache_ops.code.calls import is_udf_address, repeated
from fused_cache_ops.code.scopes import Function, Scope, Unknown
from fused_cache_ops.code.sql import HOLE, PATH_IS_COMPUTED, SqlReading, looks_like_sql, read_sql, without_alias
from fused_cache_ops.code.values import Values
from fused_cache_ops.secret import holds_shared_token
from fused_cache_ops.wording import one_line, shortened

_SHOWN_LINE = 120
_LONGEST_KEY = 500
_LONGEST_PATH = 2_000
_MOST_READS = 2_000
_DEFAULT = "with the default of a parameter"
_words = str.split

_READERS = frozenset(
    _words(
        "read_parquet read_csv read_file read_json read_excel read_feather read_orc read_table read_pickle read_hdf "
        "read_xml read_fwf read_stata read_arrow read_dataframe read_ipc read_ndjson read_avro read_delta read_info "
        "read_metadata read_schema scan_parquet scan_csv scan_ipc scan_ndjson scan_delta scan_iceberg from_parquet "
        "open_dataset open_mfdataset open_dataarray open_zarr open_rasterio open_datatree open_zip open open_file "
        "open_input_file ParquetFile ParquetDataset DeltaTable get_chunks_metadata get_chunk_from_table read_hex_table "
        "read_tiff read_tiff_safe mosaic_tiff read_shape_zip read_shapefile table_to_tile urlopen urlretrieve get_mapper "
        "get_tiff_info get_dataset_from_table read_hexfile url_to_arr"
    )
)
_AFTER_AREA = frozenset(_words("table_to_tile read_tiff read_tiff_safe mosaic_tiff read_hexfile"))  # their first argument
_PATH_KEYWORDS = _words(
    "path paths filepath filepath_or_buffer path_or_buffer path_or_buf path_or_paths filename filename_or_obj filenames file "
    "fp path_or_dataframe source sources io store urlpath url uri table_uri table dataset_path input_tiff_path tiff_list "
    "dataset table_path file_path"
)
_SQL = frozenset(
    {"sql", "execute", "query", "read_sql", "read_sql_query", "read_postgis", "read_gbq", "read_database", "read_database_uri"}
    | {"raw_sql", "fetch_pandas_all", "query_df", "executemany"}
)
_SQL_TABLE = frozenset({"read_sql_table", "load_table"})
_SQL_KEYWORDS = ("sql", "query", "statement", "sql_query", "command")
_IN_MEMORY = frozenset({"BytesIO", "StringIO", "MemoryFile", "ZipFile", "TarFile", "GzipFile", "NamedTemporaryFile"})
_LISTING = frozenset(
    _words("ls glob iglob find walk listdir list list_objects_v2 sign_url sign_url_prefix download get_object")
)
_OF_API = frozenset(_words("get list sign_url sign_url_prefix download resolve"))
_NAMED = frozenset({"requests", "httpx", "tempfile", "ee", "arraylake", "icechunk"})  # what they return is no path
_OF_EARTH_ENGINE = frozenset({"Image", "ImageCollection", "FeatureCollection"})
_NO_READ = re.compile(
    r"_?(?:to_|write|save|put|upload|sink|delete|remove|rm|mkdir|makedirs|ingest|print|log|debug|info|warn|error|exception|"
    r"startswith|endswith|replace|split|partition|removeprefix|removesuffix|strip|format|join|Path|PurePath|str|len|append|"
    r"urlparse|urlsplit|sub|match|search|fullmatch|compile|register|create_view|encode|setdefault|file_path|exists|is_file|isfile|"
    r"\w*credentials|\w*initialize|isdir|is_dir|unlink|basename|dirname|isinstance|Layer|TileLayer|html_to_obj|copy|move|hash|md5|sha|quote|dumps|lower|upper).*",
    re.IGNORECASE,
)
_WRITTEN = re.compile(
    r"(?:out|dst|dest|target|save)(?:put)?(?:_\w+)?|endpoint\w*|base_url|\w+_endpoint|extra_\w+", re.IGNORECASE
)
_HANDING = frozenset({"load", "load_async", "run", "run_async", "submit"})
_PLANETARY = "https://planetarycomputer.microsoft.com/api/stac/v1"  # what `common.stac_to_gdf` searches by default


@dataclass(frozen=True)
class Source:
    """One place in a UDF's code that reads a dataset.

    Attributes:
        dataset: the key of the dataset: see `dataset_key`.
        line: where it stands, from 1.
        text: what is called there, and the address or table. Nothing else of the line, which may grant access.
        note: what a reader should know, for example that only the beginning of the path is known. ``""``: nothing.
    """

    dataset: str
    line: int
    text: str
    note: str = ""


@dataclass(frozen=True)
class Sources:
    """What one UDF's code reads, each in the order of lines.

    Attributes:
        found: the reads of datasets.
        unknown: what cannot be known.
        left_out: how many of a kind are read that no pipeline loads: basemaps and styles, web APIs, local files.
    """

    found: tuple[Source, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def sources_in(values: Values) -> Sources:
    """The datasets that code reads that has been parsed already."""
    return _Finder(values).sources()


# -- the calls --------------------------------------------------------------------------------------------------------


class _Read:
    """One call, while it is read."""

    def __init__(self, call: ast.Call, scope: Scope, name: tuple[str, ...]) -> None:
        self.call, self.scope, self.name = call, scope, name
        self.shown = f"{shortened(name[-1])}()"
        self.has_path = False  # among the parameters of SQL
        self.keywords = {each.arg: each.value for each in call.keywords if each.arg is not None}

    def argument(self, keywords: Iterable[str], place: int) -> ast.expr | None:
        if place < len(self.call.args):
            given = self.call.args[place]
            return given.value if isinstance(given, ast.Starred) else given
        return next((self.keywords[keyword] for keyword in keywords if keyword in self.keywords), None)


class _Finder:
    def __init__(self, values: Values) -> None:
        self._values = values
        self._found: dict[tuple[int, str], Source] = {}
        self._unknown: dict[str, list[int]] = {}
        self._left_out: dict[tuple[str, str], None] = {}
        self._sql: list[tuple[_Read, Text, SqlReading]] = []
        self._views: set[str] = set()  # names that the code defines for its own SQL

    def sources(self) -> Sources:
        whole: list[Unknown] = []
        for call, scope in self._values.code.calls:
            name = self._values.dotted(call.func, scope)
            if name == ("",):  # the result of a call is called
                name = ("", "a function")
            if len(self._found) + sum(map(len, self._unknown.values())) + len(self._sql) > _MOST_READS:
                whole.append(Unknown(f"the code reads in more than {_MOST_READS:,} places", None))
                break
            self._read_call(_Read(call, scope, name))
        self._read_tables()
        if self._values.is_exhausted:
            whole.append(Unknown("the code is too long to be followed to its end", None))
        notes = [Unknown(repeated(reason, lines), min(lines)) for reason, lines in self._unknown.items()]
        return Sources(
            tuple(source for _, source in sorted(self._found.items(), key=lambda each: each[0])),
            (*whole, *sorted(notes, key=lambda each: (each.line or 0, each.reason))),
            dict(Counter(kind for kind, _ in self._left_out)),
        )

    def _read_call(self, read: _Read) -> None:
        name, last = read.name, read.name[-1]
        if self._values.function(read.call.func, read.scope) is not None:
            return  # a function of the same code: what it does with its arguments is read there
        if (name[0] == "fused" and len(name) == 2 and last in _HANDING) or self._runs_udf(read):
            self._read_handing(read)
            return
        if last in ("register", "create_view", "from_arrow") or last == "SQLContext":
            self._views.update(
                text.text.lower() for each in read.call.args[:2] for text in self._values.texts(each, read.scope)
            )
            self._views.update(each.lower() for each in read.keywords)
        if self._read_named(read):
            return
        if last in _SQL and name[:2] != ("fused", "h3"):
            before = len(self._found)
            self._read_addresses(read, first=1)  # parameters of the SQL
            read.has_path = len(self._found) > before
            self._read_sql(read)
        elif _is_reader(name):
            self._read_path(read)
        elif not _NO_READ.fullmatch(last) and not _is_of_fused_itself(name):
            self._read_addresses(read)

    def _runs_udf(self, read: _Read) -> bool:
        function = read.call.func
        is_map = isinstance(function, ast.Attribute) and function.attr in ("map", "map_async", "submit")
        owner = function.value if is_map and isinstance(function, ast.Attribute) else function
        return any(isinstance(each, Udf) for each in self._values.value(owner, read.scope))

    def _read_path(self, read: _Read) -> None:
        if _writes(read):
            return
        given = read.argument(_PATH_KEYWORDS, int(read.name[-1] in _AFTER_AREA))
        if given is None and read.name[-1] == "open" and isinstance(read.call.func, ast.Attribute):
            given = read.call.func.value  # `Path(…).open()`
        if given is None:
            if read.name[-1] not in ("open", "load"):
                self._note(read, f"{read.shown} is called without a path that can be seen")
            return
        for text in self._texts(given, read.scope):
            self._place(read, text, given, is_reader=True)

    def _texts(self, given: ast.expr, scope: Scope) -> list[Text]:
        """What may be paths. What was opened or listed is none, because it is read where that was done."""
        texts: set[Text] = set()
        for atom in self._values.items(given, scope):
            made = atom if isinstance(atom, Made) else None
            while made is not None and not _opens(made.name):
                made = made.owner
            if isinstance(atom, Text):
                texts.add(atom)
            elif made is None and not isinstance(atom, Udf):
                texts.add(Text(HOLE))
        return sorted(texts)

    def _read_addresses(self, read: _Read, first: int = 0) -> None:
        """Any other call: only what is certainly an address of data."""
        if read.name[-2:] in (("environ", "get"), ("os", "getenv")):
            return  # a part of a value, which counts where it is used
        is_sql = re.search("sql|query", read.name[-1], re.IGNORECASE) is not None
        keywords = (each.value for each in read.call.keywords if not _WRITTEN.fullmatch(each.arg or ""))
        for given in (*read.call.args[first:], *keywords):
            for text in self._texts(given, read.scope):
                if is_sql and first == 0 and looks_like_sql(text.text):
                    self._sql.append((read, text, read_sql(text.text)))
                else:
                    self._place(read, text, given, is_reader=False)

    def _read_handing(self, read: _Read) -> None:
        """A UDF is run: its parameters are no datasets of this UDF."""
        for given in (*read.call.args, *(each.value for each in read.call.keywords)):
            if any(is_stored(unwrapped(text.text.partition(HOLE)[0])) for text in self._texts(given, read.scope)):
                self._note(read, "a path is passed to another UDF, and what that reads is not known here")

    # -- sources that have a name -------------------------------------------------------------------------------------

    def _read_named(self, read: _Read) -> bool:
        """Read a call that takes the name of a dataset, in parts or of a catalogue."""
        name, last = read.name, read.name[-1]
        bucket = read.keywords.get("Bucket", read.keywords.get("bucket"))
        is_listed = last in ("list_objects", "list_objects_v2", "paginate") or "icechunk" in name
        if last in ("get_object", "download_file", "download_fileobj", "head_object") or (bucket is not None and is_listed):
            self._read_bucket(read)
        elif last in _SQL_TABLE:
            self._read_table_name(read, ("table_name", "table", "identifier"), "{}")
        elif name[0] == "ee" and last in _OF_EARTH_ENGINE:
            self._read_table_name(read, (), "ee://{}", only_texts=True)
        elif name[0] == "arraylake" and last in ("get_repo", "get_or_create_repo"):
            self._read_table_name(read, ("name",), "arraylake://{}")
        elif last == "get_collection" and "Client" in name:
            self._read_collections(read, read.argument(("collection_id",), 0))
        elif "collections" in read.keywords and last in ("search", "stac_to_gdf", "item_search", "ItemSearch"):
            self._read_collections(read, read.keywords["collections"])
        elif last == "post" and "json" in read.keywords:
            return self._read_posted_search(read)
        else:
            return name[-2:] == ("Client", "open")  # of a catalogue, which is searched elsewhere
        return True

    def _read_bucket(self, read: _Read) -> None:
        """A bucket and a key."""
        bucket = read.argument(("Bucket", "bucket"), 0)
        key = read.argument(("Key", "key", "Prefix", "prefix"), 1)
        if bucket is None or key is None:
            self._note(read, f"{read.shown} takes a bucket and key that cannot be seen")
            return
        scheme = "gs" if "gcs" in read.name[-1] else "s3"
        for first in self._texts(bucket, read.scope):
            for second in self._texts(key, read.scope):
                text = Text(f"{scheme}://{first.text}/{second.text}", first.is_default or second.is_default)
                self._place(read, text, key, is_reader=True)

    def _read_table_name(self, read: _Read, keywords: tuple[str, ...], form: str, *, only_texts: bool = False) -> None:
        given = read.argument(keywords, 0)
        for text in () if given is None else self._texts(given, read.scope):
            if text.text and HOLE not in text.text:
                self._add(read, form.format(text.text), _DEFAULT if text.is_default else "")
            elif not only_texts and given is not None:
                self._note(read, f"{read.shown} takes {_described(given)}, which is computed")

    def _read_collections(self, read: _Read, given: ast.expr | None, api: Iterable[str] | None = None) -> None:
        """STAC: collections of a catalogue."""
        if api is None:
            api = self._catalogues(read) or ([_PLANETARY] if read.name[-1] == "stac_to_gdf" else [])
        for text in () if given is None else self._texts(given, read.scope):
            if HOLE in text.text or not api:
                self._note(read, f"{read.shown} takes a catalogue or a collection that is computed")
                continue
            for each in api:
                self._add(read, f"{each.rstrip('/')}/collections/{text.text}", _DEFAULT if text.is_default else "")

    def _catalogues(self, read: _Read) -> list[str]:
        """The addresses of the catalogue whose method is called."""
        given = [(read.keywords[name], read.scope) for name in ("url", "server", "api_url") if name in read.keywords]
        opened = []
        for atom in self._values.value(read.call.func, read.scope):
            made = atom if isinstance(atom, Made) else None
            while made is not None and "open" not in made.name[-1]:
                made = made.owner
            if made is not None and made.call.args:
                opened.append((made.call.args[0], made.scope))
        texts = {text.text for each, scope in opened or given for text in self._texts(each, scope)}
        return [dataset_key(text) for text in sorted(texts) if is_web(text) and HOLE not in text]

    def _read_posted_search(self, read: _Read) -> bool:
        url, body = read.argument(("url",), 0), read.keywords["json"]
        wanted = ast.copy_location(ast.Subscript(body, ast.Constant("collections"), ast.Load()), body)
        if url is None or not any(
            isinstance(each, Literal) and isinstance(each.node, ast.Dict) and _has_key(each.node, "collections")
            for each in self._values.value(body, read.scope)
        ):
            return False
        texts = [text.text for text in self._texts(url, read.scope) if is_web(text.text) and HOLE not in text.text]
        self._read_collections(read, wanted, [dataset_key(text.removesuffix("/search")) for text in texts])
        return True

    # -- paths --------------------------------------------------------------------------------------------------------

    def _place(self, read: _Read, text: Text, given: ast.expr, *, is_reader: bool) -> None:
        """Note what a text is that a call takes as a path."""
        if len(text.text) > _LONGEST_PATH:
            if is_reader:
                self._note(read, f"{read.shown} takes a path that is longer than {_LONGEST_PATH:,} characters")
            return
        path = unwrapped(text.text)
        known, hole, _ = path.partition(HOLE)
        is_data = is_stored(known) and "://" in known
        is_data = is_data or ((is_stored(known) or is_web(known)) and (is_reader or is_data_file(known)))
        if is_udf_address(known) or (is_web(known) and holds_shared_token(known)):
            return  # a UDF, which is run over HTTP
        if is_web(known) and is_drawn(path):
            self._left_out["basemap or style", known] = None
        elif is_data:
            self._add_path(read, known, text, given, is_reader=is_reader, is_open=bool(hole))
        elif is_web(known) and (is_reader or read.name[0] in ("requests", "httpx", "urllib3", "aiohttp")):
            self._left_out["web API", known] = None
        elif is_reader:
            self._read_other_path(read, path, given)

    def _add_path(self, read: _Read, known: str, text: Text, given: ast.expr, *, is_reader: bool, is_open: bool) -> None:
        notes = [_DEFAULT] if text.is_default else []
        whole = known
        if is_open:
            known = known[: known.rfind("/") + 1]
            if not has_bucket(known):
                if is_reader:
                    self._note(read, f"{read.shown} takes {_described(given)}, and where that begins is computed")
                return
            notes.append("only the beginning of the path is known")
        elif not has_bucket(known, alone=is_reader):
            if is_reader:
                self._note(read, f"{read.shown} takes an address without a bucket or host")
            return
        key = dataset_key(known)
        if "/*/" in key and "*" not in known:
            notes.append("for any release")
        self._add(read, key, ", ".join(notes), f'"{shown_address(whole)}{"…" if is_open else ""}"')

    def _read_other_path(self, read: _Read, path: str, given: ast.expr) -> None:
        known, hole, _ = path.partition(HOLE)
        is_builtin = read.name in (("open",), ("io", "open"))
        if "://" in known:
            self._note(read, f"{read.shown} takes an address of a kind that is not known")
        elif known.startswith("/") or not hole or is_builtin:
            self._left_out["file of the machine that runs the UDF", known] = None
        elif not known:
            self._note(read, f"{read.shown} takes {_described(given)}, which is computed")
        else:
            self._note(read, f"{read.shown} takes {_described(given)}, and where that begins is not an address")

    def _add(self, read: _Read, key: str, note: str, shown: str | None = None) -> None:
        if len(key) > _LONGEST_KEY:
            self._note(read, f"{read.shown} takes a path that is longer than {_LONGEST_KEY} characters")
            return
        text = shortened(one_line(f"{_written(read.call.func)}({shown or key})"), _SHOWN_LINE)
        place = (read.call.lineno, key)
        if place not in self._found or len(note) < len(self._found[place].note):
            self._found[place] = Source(key, read.call.lineno, text, note)

    def _note(self, read: _Read, reason: str) -> None:
        self._unknown.setdefault(reason, []).append(read.call.lineno)

    # -- SQL ----------------------------------------------------------------------------------------------------------

    def _read_sql(self, read: _Read) -> None:
        given = read.argument(_SQL_KEYWORDS, 0)
        for text in () if given is None else self._texts(given, read.scope):
            if looks_like_sql(text.text):
                self._sql.append((read, text, read_sql(text.text)))
            elif text.text.startswith(HOLE) and given is not None and self._is_connection(read):
                self._note(read, f"{read.shown} takes {_described(given)}, which is computed")
            elif read.name[-1] == "read_sql" and re.fullmatch(r"[\w.]+", text.text):
                self._sql.append((read, text, SqlReading((text.text,))))

    def _is_connection(self, read: _Read) -> bool:
        """Whether a call that takes something unknown takes SQL. Trees of points have a method `query` too."""
        owner = "".join(read.name[:-1])
        return read.name[-1] != "query" or re.search("con|client|db|cur|engine", owner, re.IGNORECASE) is not None

    def _read_tables(self) -> None:
        """What the SQL reads, once all names are known that it defines."""
        self._views.update(name for _, _, reading in self._sql for name in reading.defined)
        attached = {name: is_file for _, _, reading in self._sql for name, is_file in reading.attached.items()}
        for read, text, reading in self._sql:
            for name in filter(None, (without_alias(name, attached) for name in reading.tables)):
                if name.lower() not in self._views and not self._is_variable(read, name):
                    is_default = text.is_default and HOLE not in text.text
                    self._add(read, self._qualified(read, dataset_key(name)), _DEFAULT if is_default else "")
            for path in reading.paths:
                self._place(read, Text(path, text.is_default), read.call, is_reader=True)
            for reason in reading.unknown:
                if not (read.has_path and reason.endswith(PATH_IS_COMPUTED)):
                    self._note(read, reason)

    def _qualified(self, read: _Read, table: str) -> str:
        """A table with the database and schema of its connection, as Snowflake's ``connect`` takes them."""
        made = next((each for each in self._values.value(read.call.func, read.scope) if isinstance(each, Made)), None)
        given = read.keywords.get("con", read.keywords.get("connection")) or (
            read.call.args[1] if len(read.call.args) > 1 else None
        )
        if given is not None:
            made = next((each for each in self._values.value(given, read.scope) if isinstance(each, Made)), made)
        keywords: dict[str, ast.expr] = {}
        while made is not None and not keywords:
            if "connect" in made.name[-1].lower() or made.name[-1] == "Session":
                keywords = {each.arg: each.value for each in made.call.keywords if each.arg in ("database", "schema")}
            if not keywords:
                made = made.owner
        if made is None or "snowflake" not in made.name:
            return table
        missing = ("database", "schema")[: max(2 - table.count("."), 0)]
        texts = [self._values.texts(keywords[name], made.scope) for name in missing if name in keywords]
        before = [text.text for each in texts for text in each if len(each) == 1 and HOLE not in text.text]
        return ".".join((*before, table))

    def _is_variable(self, read: _Read, name: str) -> bool:
        """Whether DuckDB or Polars would take a name for a variable of the code. This call's own result is not meant."""
        if read.name[-1].startswith("read_") or "." in name:
            return False
        home = read.scope.find(name)
        bound = home.bindings[name] if home is not None else []
        return any(
            each.bound is None or (isinstance(each.bound, ast.AST) and not _holds(each.bound, read.call)) for each in bound
        )


def _is_reader(name: tuple[str, ...]) -> bool:
    if name[-1] == "dataset":
        return name[0] in ("pyarrow", "ds", "dataset")
    if name[:2] == ("fused", "h3"):
        return name[-1].startswith("read_") or name[-1] == "query"
    if name[:2] == ("fused", "api"):
        return name[-1] in _OF_API
    if name[0] in ("webbrowser", "zipfile", "tarfile") or (len(name) > 2 and name[-2] in _IN_MEMORY):
        return False
    return name[-1] in _READERS or name in (("fused", "download"), ("fused", "core", "download"), ("lancedb", "connect"))


def _opens(name: tuple[str, ...]) -> bool:
    """Whether a call returns what it reads, or paths of what it lists."""
    is_listing = name[-1] in _LISTING and len(name) > 1
    return _is_reader(name) or name[-1] in _IN_MEMORY or name[-1] in _SQL or is_listing or name[0] in _NAMED


def _is_of_fused_itself(name: tuple[str, ...]) -> bool:
    return name[0] == "fused" and len(name) > 1 and name[1] not in ("utils", "public", "h3", "core")


def _holds(outer: ast.expr | Function | ast.ClassDef, inner: ast.expr) -> bool:
    """Whether one expression is a part of another, by their places."""
    begin, end = (outer.lineno, outer.col_offset), (outer.end_lineno or 0, outer.end_col_offset or 0)
    return begin <= (inner.lineno, inner.col_offset) and (inner.end_lineno or 0, inner.end_col_offset or 0) <= end


def _has_key(node: ast.Dict, key: str) -> bool:
    return any(isinstance(each, ast.Constant) and each.value == key for each in node.keys)


def _writes(read: _Read) -> bool:
    """Whether a file is opened to be written."""
    if read.name[-1] != "open":
        return False
    mode = read.keywords.get("mode", read.call.args[1] if len(read.call.args) > 1 else None)
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and mode.value[:1] in ("w", "a", "x")


def _written(node: ast.expr, depth: int = 0) -> str:
    """What is called, of names alone: arguments may grant access."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and depth < 6:
        return f"{_written(node.value, depth + 1)}.{node.attr}"
    return f"{_written(node.func, depth + 1)}(…)" if isinstance(node, ast.Call) and depth < 6 else "…"


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
