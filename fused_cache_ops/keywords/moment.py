"""Moments, such as when a load was done."""

import math
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.wording import quoted, rendered_to_nothing

_CLOCKS_DIFFER = timedelta(minutes=5)
_NUMBER = re.compile(r"\d{9,11}(\.\d+)?", re.ASCII)
_FRACTION = re.compile(r"\.(\d+)")


def read_moment(name: str, given: Any) -> datetime:
    """A moment in UTC: a ``datetime`` with a time zone, its ISO text, or seconds since 1970.

    Args:
        name: the keyword, for messages.
        given: the moment.

    Raises:
        InvalidInputError: it is none of these, has no time zone, or lies in the future.
    """
    found = _read(name, given)
    if found.tzinfo is None or found.utcoffset() is None:
        raise InvalidInputError(f"{name} = {quoted(str(given))} has no time zone: add one, such as Z for UTC.")
    moment = found.astimezone(timezone.utc)
    if moment > datetime.now(timezone.utc) + _CLOCKS_DIFFER:
        raise InvalidInputError(f"{name} = {quoted(str(given))} is in the future: pass the time at which the load was done.")
    return moment


def _read(name: str, given: Any) -> datetime:
    if isinstance(given, datetime):
        return given
    wrong = InvalidInputError(
        f"{name} = {quoted(given)} is not a time: pass a datetime with a time zone, text such as '2026-11-22T06:30:00Z', or "
        "seconds since 1970."
    )
    if isinstance(given, str) and rendered_to_nothing(given):
        raise InvalidInputError(f"{name} = {quoted(given)} looks like a value that is missing: pass a time, or omit {name}.")
    try:
        if isinstance(given, str) and not _NUMBER.fullmatch(given.strip()):
            return parse_moment(given)
        if isinstance(given, (int, float, str)) and not isinstance(given, bool) and math.isfinite(float(given)):
            return datetime.fromtimestamp(float(given), timezone.utc)
    except (ValueError, OverflowError, OSError):
        pass
    raise wrong


def parse_moment(text: str) -> datetime:
    """A moment from its ISO text.

    Raises:
        ValueError: it is not.
    """
    # Python 3.10 reads neither Z nor other fractions than those of three and six digits.
    plain = _FRACTION.sub(lambda found: f".{found[1][:6]:0<6}", text.strip().replace(" ", "T", 1), count=1)
    return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", plain))
