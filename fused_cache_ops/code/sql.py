"""The tables and paths that an SQL text reads. A reader of words, not a parser: what it cannot tell, it says.

A part of the text that is only known at run time is `HOLE`, one character that no SQL contains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

HOLE = "\x00"
PATH_IS_COMPUTED = "in SQL takes a path that is computed"

_TOKEN = re.compile(
    r"(?P<space>\s+|--[^\n]*|/\*.*?\*/)"
    r"|(?P<text>'(?:[^']|'')*'|\$\$.*?\$\$)"
    r'|(?P<quoted>"(?:[^"]|"")*"|`[^`]*`)'
    r"|(?P<word>[\w\x00][\w\x00$]*)"
    r"|(?P<sign>.)",
    re.DOTALL,
)
_READERS = re.compile(r"(?:read|scan)_\w+|\w+_scan|st_read|from_parquet|parquet_metadata|parquet_schema", re.IGNORECASE)
_PURE = frozenset({"unnest", "flatten", "range", "generate_series", "values", "st_dump", "h3_grid_disk", "table"})
_WITH_FROM = frozenset({"extract", "trim", "substring", "overlay", "position"})  # `extract(year FROM day)`
_words = str.split
_AFTER_TABLE = frozenset(
    _words(
        "where join inner left right full cross natural on using group order having limit offset union except intersect window "
        "qualify select set tablesample pivot unpivot lateral positional asof semi anti fetch for returning sample"
    )
)
_NO_TABLE = _AFTER_TABLE | {"from", "values", "with"}
_BEFORE_VALUE = frozenset(
    _words(
        "and or not limit offset in between like ilike by select where then else when on interval from join as is date "
        "timestamp having distinct set"
    )
)
_FILE = re.compile(r"://|^/[\w-]+/|\.(?:parquet|csv|tsv|json|geojson|gpkg|fgb|duckdb|db)(?:\.gz)?$", re.IGNORECASE)
_SYSTEM = ("information_schema.", "pg_catalog.")
_IS_SQL = re.compile(r"\b(?:select|from|attach|copy|join)\b", re.IGNORECASE)


class SqlReading(NamedTuple):
    """What one SQL text reads.

    Attributes:
        tables: names of tables and views, without those that the text itself defines.
        paths: paths that it reads, which may end in `HOLE` and more.
        defined: names that it creates, in lower case. They are no tables to other texts of the same UDF either.
        unknown: what cannot be known.
        attached: the names of databases that it attaches, in lower case, and whether each is a file, which is read as such.
    """

    tables: tuple[str, ...]
    paths: tuple[str, ...] = ()
    defined: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    attached: Mapping[str, bool] = {}


class _Token(NamedTuple):
    kind: str
    text: str

    @property
    def keyword(self) -> str:
        """An unquoted word in lower case, or nothing."""
        return self.text.lower() if self.kind == "word" else ""

    @property
    def name(self) -> str:
        """A word, or what is quoted as a name."""
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else self.text

    @property
    def path(self) -> str:
        """A text, or what is quoted as a name and is a path. Otherwise nothing."""
        if self.kind == "text":
            return self.value
        return self.name if self.kind == "quoted" and _FILE.search(self.name) else ""

    @property
    def value(self) -> str:
        return self.text[2:-2] if self.text.startswith("$") else self.text[1:-1].replace("''", "'")


_END = _Token("end", "")


def looks_like_sql(text: str) -> bool:
    """Whether a text has a word that only makes sense in SQL that reads something."""
    return _IS_SQL.search(text) is not None


def read_sql(text: str) -> SqlReading:
    """Read what an SQL text reads: tables after FROM and JOIN, and the paths in `read_parquet('…')` and the like."""
    return _Reader(
        [_Token(found.lastgroup or "", found[0]) for found in _TOKEN.finditer(text) if found.lastgroup != "space"]
    ).reading()


class _Reader:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._partners = _brackets(tokens)
        self._tables: list[str] = []
        self._paths: list[str] = []
        self._unknown: list[str] = []

    def _at(self, place: int) -> _Token:
        return self._tokens[place] if 0 <= place < len(self._tokens) else _END

    def reading(self) -> SqlReading:
        defined = frozenset(self._created())
        hidden = defined | frozenset(self._common())
        calls: list[str] = []  # the words before the brackets that are open
        for place, token in enumerate(self._tokens):
            before = self._at(place - 1).keyword
            if token.text == "(":
                calls.append(before)
                if _READERS.fullmatch(before):
                    self._read_call(place - 1)
            elif token.text == ")" and calls:
                calls.pop()
            elif "://" in token.path and before != "to" and not _READERS.fullmatch(calls[-1] if calls else ""):
                if not self._is_installed(place - 1):
                    self._paths.append(token.path)
            elif token.keyword in ("from", "join") and not self._is_other_from(place, calls):
                self._read_tables(place + 1, several=token.keyword == "from")
            elif token.kind == "sign" and token.text in "'\"`":
                self._unknown.append("the SQL has a quote that is not closed")
            elif token.text == HOLE and self._is_clause(place):
                self._unknown.append("a part of the SQL is computed")
        tables = (name for name in self._tables if name.lower() not in hidden and not name.lower().startswith(_SYSTEM))
        unique = [tuple(dict.fromkeys(each)) for each in (tables, self._paths, self._unknown)]
        return SqlReading(unique[0], unique[1], defined, unique[2], dict(self._attached()))

    def _is_other_from(self, place: int, calls: list[str]) -> bool:
        before, second = self._at(place - 1).keyword, self._at(place - 2).keyword
        is_distinct = before == "distinct" and second in ("is", "not")
        return is_distinct or before == "delete" or bool(calls and calls[-1] in _WITH_FROM) or self._is_installed(place)

    def _is_installed(self, place: int) -> bool:
        """Whether a FROM says where an extension of DuckDB comes from: `INSTALL h3 FROM community`."""
        return self._at(place).keyword == "from" and self._at(place - 2).keyword == "install"

    def _is_clause(self, place: int) -> bool:
        """Whether a hole may be more than one value: it stands where a clause may begin."""
        before = self._at(place - 1)
        if before.kind == "sign":
            return before.text in ");"
        return before.keyword not in _BEFORE_VALUE

    def _common(self) -> Iterator[str]:
        """The names of common table expressions: `name AS (SELECT …`, `name (columns) AS MATERIALIZED (SELECT …`."""
        for place, token in enumerate(self._tokens):
            if token.keyword != "as":
                continue
            after = place + 1
            while self._at(after).keyword in ("not", "materialized"):
                after += 1
            if self._at(after).text != "(":
                continue
            name = place - 1
            if self._at(name).text == ")":
                name = self._partners.get(name, 0) - 1
            before = self._at(name - 1)
            if self._at(name).kind in ("word", "quoted") and (before.text == "," or before.keyword in ("with", "recursive")):
                yield self._at(name).name.lower()

    def _created(self) -> Iterator[str]:
        """The names of tables, views and macros that the text creates, and of databases that it attaches."""
        for place, token in enumerate(self._tokens):
            if token.keyword not in ("table", "view", "macro", "function"):
                continue
            before = {self._at(place - back).keyword for back in range(1, 5)}
            if "create" in before:
                after = place + 1
                while self._at(after).keyword in ("if", "not", "exists"):
                    after += 1
                yield self._name(after)[0].lower()

    def _attached(self) -> Iterator[tuple[str, bool]]:
        for place, token in enumerate(self._tokens):
            if token.keyword == "attach":
                while self._at(place + 1).keyword in ("database", "if", "not", "exists"):
                    place += 1
                if self._at(place + 2).keyword == "as":
                    yield self._at(place + 3).name.lower(), _FILE.search(self._at(place + 1).path) is not None

    def _name(self, place: int) -> tuple[str, int]:
        """A dotted name, and the place after it."""
        parts = [self._at(place).name]
        place += 1
        while self._at(place).text == "." and self._at(place + 1).kind in ("word", "quoted"):
            parts.append(self._at(place + 1).name)
            place += 2
        return ".".join(parts), place

    def _read_call(self, place: int) -> None:
        function, closing = self._at(place), self._partners.get(place + 1, len(self._tokens))
        inside = self._tokens[place + 2 : closing]
        end = next(
            (
                at
                for at, token in enumerate(inside)
                if token.text == "=" or (token.text == "," and at and inside[at - 1].text == "]")
            ),
            len(inside),
        )
        is_list = bool(inside) and inside[0].text == "["
        texts = [token.path for token in inside[:end] if token.path]
        self._paths.extend(texts if is_list else texts[:1])
        if not texts and self._at(place - 1).text != ".":
            self._unknown.append(f"{function.text}() {PATH_IS_COMPUTED}")

    def _read_tables(self, place: int, *, several: bool) -> None:
        """Read `a`, `a AS x, b`, `'path'` and the like, after FROM or JOIN."""
        while True:
            while self._at(place).keyword in ("only", "lateral"):
                place += 1
            token = self._at(place)
            if token.text == "(":
                place = self._partners.get(place, len(self._tokens)) + 1  # what is inside is read in its turn
            elif token.path:
                if "://" not in token.path:
                    self._paths.append(token.path)
                place += 1
            elif token.kind == "quoted" or (token.kind == "word" and token.keyword not in _NO_TABLE):
                place = self._read_table(place)
            elif token.keyword:
                return
            else:
                self._unknown.append("a table in SQL is a parameter")
                return
            if self._at(place).keyword == "as":
                place += 1
            if self._at(place).kind in ("word", "quoted") and self._at(place).keyword not in _AFTER_TABLE:
                place += 1
                if self._at(place).text == "(":
                    place = self._partners.get(place, len(self._tokens)) + 1
            if not several or self._at(place).text != ",":
                return
            place += 1

    def _read_table(self, place: int) -> int:
        name, after = self._name(place)
        if self._at(after).text == "(":
            function = self._at(after - 1).keyword
            if not _READERS.fullmatch(function) and function not in _PURE:
                self._unknown.append(f"what {function or 'a function'}() in SQL reads")
            return self._partners.get(after, len(self._tokens)) + 1
        if HOLE in name:
            self._unknown.append("a table name in SQL is computed")
        elif name:
            self._tables.append(name)
        return after


def without_alias(name: str, attached: Mapping[str, bool]) -> str:
    """A table without the name that its database is attached by. Nothing: the database is a file."""
    database, _, table = name.partition(".")
    is_file = attached.get(database.lower())
    return name if is_file is None else "" if is_file else table


def _brackets(tokens: list[_Token]) -> dict[int, int]:
    """For each bracket, the place of the one that belongs to it."""
    partners: dict[int, int] = {}
    opened: list[int] = []
    for place, token in enumerate(tokens):
        if token.text == "(":
            opened.append(place)
        elif token.text == ")" and opened:
            partners[place] = opened.pop()
            partners[partners[place]] = place
    return partners
