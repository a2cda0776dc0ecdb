"""Everything that the code of one UDF says, read once: what it calls and caches, and what it reads."""

from __future__ import annotations

from typing import NamedTuple

from fused_cache_ops.code.calls import SourceReading, calls_in
from fused_cache_ops.code.scopes import UNREADABLE, Unknown, why_unreadable
from fused_cache_ops.code.sources import Sources, sources_in
from fused_cache_ops.code.values import Values


class CodeReading(NamedTuple):
    """What one code says."""

    calls: SourceReading
    sources: Sources


def read_code(code: str | None, entrypoint: str | None = None) -> CodeReading:
    """Read the code of a UDF. Never raises: what cannot be parsed is unknown, with the reason.

    Args:
        code: the code. None: the service did not return it.
        entrypoint: the name of the UDF's function. Default: ``udf``.
    """
    if code is None:
        return _unreadable(Unknown("the service did not return the code, or this token may not see it", None))
    try:
        values = Values(code)
        return CodeReading(calls_in(values, entrypoint), sources_in(values))
    except UNREADABLE as error:
        return _unreadable(why_unreadable(error, code))


def _unreadable(why: Unknown) -> CodeReading:
    return CodeReading(SourceReading(unknown=(why,)), Sources(unknown=(why,)))
