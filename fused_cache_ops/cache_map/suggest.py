"""A draft of ``fused-cache.toml``: which UDFs read which dataset, as far as their code says. The code is never run.

Names of UDFs and lines of their code are only read, never trusted: each comment is one escaped line, and each text is quoted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fused_cache_ops.code.calls import shown_name
from fused_cache_ops.code.reading import read_code
from fused_cache_ops.code.sources import Source
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.secret import masked_address
from fused_cache_ops.service.canvases import UdfRecord, read_team_udfs
from fused_cache_ops.udf_reference import parse_udf
from fused_cache_ops.wording import counted, one_line, shortened, without_any_credentials

if TYPE_CHECKING:
    from fused_cache_ops.service.retry import Retrier
    from fused_cache_ops.service.service import Service

_MOST_REASONS = 20
_HEADER = """\
# fused-cache.toml
# A draft: {read} read, and none was run. Check each entry, and what is listed at the end.
# Fill in what no code says: the zooms of each map. A UDF that is no map, such as a report, is whole_udf = true.
"""
_FILL_IN = '# <- fill in: zooms = "10-14", or whole_udf = true'


class UdfCode(NamedTuple):
    """One UDF.

    Attributes:
        udf: as the map should name it, for example ``canvas/name``.
        code: its code. None: the token may not see it.
        modules: the names of modules that were saved with it. Their code is not read.
    """

    udf: str
    code: str | None
    modules: tuple[str, ...] = ()


class Entry(NamedTuple):
    """A UDF that reads a dataset.

    Attributes:
        udf: as the map should name it.
        reasons: where it reads the dataset, each on one line. Credentials are masked.
    """

    udf: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Suggestion:
    """What the code of UDFs says about the datasets that they read.

    Attributes:
        datasets: for each dataset, the UDFs that read it.
        unknown: for each UDF, what could not be known from its code, each on one line.
        callers: for each UDF that reads no dataset itself but runs other UDFs, their names.
        without: UDFs with no read of a dataset that was found, and nothing else either.
        udf_count: how many UDFs were looked at.
        left_out: how many of a kind were left out, because no pipeline loads them: basemaps and styles, web APIs, local files.
    """

    datasets: Mapping[str, tuple[Entry, ...]]
    unknown: Mapping[str, tuple[str, ...]]
    callers: Mapping[str, tuple[str, ...]]
    without: tuple[str, ...]
    udf_count: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    def to_toml(self) -> str:
        """The draft, in the same order each time."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield _HEADER.format(read=f"the code of {counted(self.udf_count, 'UDF')} was").rstrip("\n")
        if not self.datasets:
            yield from ("", "[datasets]")
        for key, entries in sorted(self.datasets.items()):
            yield from ("", f"[datasets.{_toml_text(key)}]", "udfs = [")
            for entry in sorted(entries):
                yield from (f"  {_comment(f'{_name(entry.udf)}, {reason}')}" for reason in _shown(entry.reasons))
                yield f"  {{ udf = {_toml_text(entry.udf)} }},  {_FILL_IN}"
            yield "]"
        yield from self._rest()

    def _rest(self) -> Iterator[str]:
        """Comments about what is not in the map, or only in part."""
        if self.unknown:
            yield from ("", "# What the code does not say:")
        for udf, reasons in sorted(self.unknown.items()):
            yield from (_comment(f"{_name(udf)}, could not know: {reason}") for reason in _shown(reasons))
        if self.callers:
            yield from ("", "# UDFs that read no dataset themselves, but run others:")
        for udf, callees in sorted(self.callers.items()):
            covered = 'if the map lists what they run, related = "callers" there covers this one'
            yield _comment(f"{_name(udf)} runs {', '.join(_shown(callees))}: {covered}")
        if self.left_out:
            counts = (f"{kind}: {count:,}" for kind, count in sorted(self.left_out.items()))
            yield from ("", _comment(f"Left out, because no pipeline loads them: {', '.join(counts)}"))
        if self.without:
            yield from ("", "# UDFs in which no read of a dataset was found:")
            yield from (_comment(_name(udf)) for udf in sorted(self.without))


def suggest_map(udfs: Iterable[UdfCode]) -> Suggestion:
    """Draft a map from the code of UDFs. Never raises for what is in the code: what cannot be read is unknown.

    Args:
        udfs: the UDFs.
    """
    datasets: dict[str, dict[str, list[str]]] = {}
    unknown: dict[str, tuple[str, ...]] = {}
    callers: dict[str, tuple[str, ...]] = {}
    without: list[str] = []
    left_out: Counter[str] = Counter()
    given = sorted(set(udfs), key=lambda each: (each.udf, each.code or ""))
    for udf, code, modules in given:
        reading, sources = read_code(code)
        for source in sources.found:
            datasets.setdefault(source.dataset, {}).setdefault(udf, []).append(_reason(source))
        left_out.update(sources.left_out)
        reasons = [
            one_line(each.reason if each.line is None else f"line {each.line}: {each.reason}") for each in sources.unknown
        ]
        if modules:
            reasons.append(one_line(f"the modules saved with it are not read: {', '.join(modules)}"))
        names = sorted({shown_name(load) for load in reading.loads if not load.is_library})
        if names and not sources.found:
            callers[udf] = tuple(map(one_line, names))
        if not (names or reasons or sources.found):
            without.append(udf)
        if reasons:
            unknown[udf] = tuple(dict.fromkeys((*unknown.get(udf, ()), *reasons)))
    return Suggestion(
        datasets={
            key: tuple(Entry(udf, tuple(dict.fromkeys(reasons))) for udf, reasons in sorted(readers.items()))
            for key, readers in sorted(datasets.items())
        },
        unknown=dict(sorted(unknown.items())),
        callers=dict(sorted(callers.items())),
        without=tuple(sorted(set(without))),
        udf_count=len({each.udf for each in given}),
        left_out=dict(left_out),
    )


def read_team(service: Service, retrier: Retrier) -> list[UdfCode]:
    """The UDFs of the token's team with their code, by name. No UDF is run.

    A UDF is named ``canvas/name``. If that would not lead back to it alone, it is named by its id.

    Args:
        service: the deployment.
        retrier: the call.

    Raises:
        PermissionDeniedError: this token may not list them.
        UnexpectedResponseError: the list is malformed.
        FusedCacheError: the lookup failed.
    """
    records = read_team_udfs(service, retrier=retrier)
    count = Counter(map(_reference, records))
    return sorted(
        (UdfCode(each.id if count[_reference(each)] > 1 else _reference(each), each.code, each.modules) for each in records),
        key=lambda each: each.udf,
    )


def _reference(udf: UdfRecord) -> str:
    """``canvas/name``, or the id if the name does not lead back to the UDF."""
    if not udf.name or not udf.canvas_name:
        return udf.id
    text = f"{udf.canvas_name}/{udf.name}"
    try:
        lookup = parse_udf(text).lookup
    except InvalidInputError:
        return udf.id
    expected = ("udf", "exec-env", "self", "by-collection", udf.canvas_name, "by-slug", udf.name)
    return text if lookup == expected else udf.id


def _reason(source: Source) -> str:
    note = f", {source.note}" if source.note else ""
    return one_line(f"line {source.line}{note}: {source.text}")


# -- writing ----------------------------------------------------------------------------------------------------------


def _shown(reasons: tuple[str, ...]) -> tuple[str, ...]:
    if len(reasons) <= _MOST_REASONS:
        return reasons
    return (*reasons[:_MOST_REASONS], f"and {len(reasons) - _MOST_REASONS:,} more")


def _name(udf: str) -> str:
    """How a comment names a UDF. An address or token in its place is masked."""
    return shortened(masked_address(without_any_credentials(udf)))


def _comment(text: str) -> str:
    return f"# {one_line(text)}"


def _toml_text(text: str) -> str:
    """A TOML string on one line. Half surrogate pairs, which TOML cannot hold, are replaced."""
    return '"' + "".join(map(_toml_character, text)) + '"'


def _toml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    number = ord(character)
    if 0xD800 <= number <= 0xDFFF:
        return "\N{REPLACEMENT CHARACTER}"
    return f"\\u{number:04X}" if number <= 0xFFFF else f"\\U{number:08X}"
