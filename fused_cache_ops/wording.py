"""How numbers, long text and missing values are put into words."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping

_OURS = ("fused_cache_ops", "airflow_provider_fused", "prefect_fused", "dagster_fused")
_NO_USER = r"(?!(?<=abfs://)[\w-]+@|(?<=abfss://)[\w-]+@|(?<=wasb://)[\w-]+@|(?<=wasbs://)[\w-]+@)"  # but a container
_NAMES = (
    "(?:password|passwd|passphrase|passcode|pwd|secret|token|api_?key|access_?key|key_id|account_?key|signature|credential|"
    "(?<![A-Za-z])sig(?![A-Za-z])|authorization)"
)
_QUOTED = r"(?:\"[^\"]*(?:\"|$)|'[^']*(?:'|$))"
_CREDENTIALS = (
    (
        re.compile(
            rf"(:/{{1,2}}){_NO_USER}(?:[^\s\"'`<>?/@]{{1,500}}|[^\s\"'`<>?/@:]{{1,500}}:(?!\d{{1,5}}/)[^\s\"'`<>?]{{1,2000}})@"
        ),
        r"\1********@",
    ),
    # A user and the beginning of a password: not a port.
    (re.compile(r"://[^\s\"'`<>/?@:]{1,500}:(?!\d{1,5}(?:[/?\s\"'`]|$))[^\s\"'`/?]{0,2000}"), "://********"),
    (re.compile(r"(://[^\s\"'`<>?]{1,2000}\?)[^\s\"'`<>]+"), r"\1********"),
    (
        re.compile(
            rf"({_NAMES}\w{{0,40}}[\"']?\]?\s{{0,8}}[=:,(]?\s{{0,8}})[rbfu]{{0,2}}{_QUOTED}"
            rf"(?:\s{{0,8}}\+?\s{{0,8}}[rbfu]{{0,2}}{_QUOTED})*",  # pieces of the same text
            re.IGNORECASE,
        ),
        r"\1'********'",
    ),
    (re.compile(rf"(\b[\w-]{{0,40}}{_NAMES}\w{{0,40}}=)[^\s\"'&(),]+", re.IGNORECASE), r"\1********"),
    (re.compile(r"\b(Bearer|Basic|Fused-Service-Token|Fused-Canvas-Passcode)\s+[^\s\"']+"), r"\1 ********"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}"), "********"),
)
_READ = 4_000  # characters of a value, of which some may be shown
_NOTHING = {"", "none", "null", "undefined", "nan"}


def counted(number: int, noun: str) -> str:
    """``1 tile``, ``2,500 tiles``, ``2 retries``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def with_reasons(lines: Iterable[str], most: int = 10) -> Iterator[str]:
    """Lines of the form ``what: reason``, in which each reason is said once, after at most ``most`` of what has it."""
    having: dict[str, list[str]] = {}
    for line in lines:
        what, colon, reason = line.partition(": ")
        having.setdefault(f": {reason}" if colon else line, []).append(what if colon else "")
    for reason, whats in having.items():
        more = [f"and {len(whats) - most:,} more"] if len(whats) > most else []
        yield ", ".join([*whats[:most], *more] if any(whats) else []) + reason


def extra_needed(distribution: str, extra: str) -> str:
    """What to do about a distribution that is missing. Right for an index of packages, and for a clone."""
    return f"{distribution} is not installed: install fused-cache-ops with the extra {extra} (docs/errors.md shows how)."


def a_type_of(value: object) -> str:
    """The type of a value with its article: ``a Table``, ``an ArrowTable``."""
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def rendered_to_nothing(text: str) -> bool:
    """Whether a text is what a template renders for a missing value."""
    return text.strip().lower() in _NOTHING


def shortened(text: str, most: int = 80) -> str:
    """The text, cut to at most ``most`` characters. Three dots mark the cut."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(text: str) -> str:
    """The text without line ends and other characters that do not print. They are written as in Python."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def quoted(value: object, most: int = 80) -> str:
    """A value as it would be written in code, in ASCII and shortened. What looks like a credential is masked."""
    try:
        if isinstance(value, str):  # before it has quotes of its own
            return shortened(ascii(without_any_credentials(value[:_READ])), most)
        return shortened(without_any_credentials(ascii(value)[:_READ]), most)
    except (ValueError, RecursionError):  # an integer with thousands of digits, or thousands of nested lists
        return f"a value of type {type(value).__name__} that is too large to show"


def option_text(name: str, value: object) -> str:
    """A keyword and its value. Of parameters of a UDF, which may take a key, only the names."""
    if not isinstance(value, Mapping):
        return f"{name}={without_any_credentials(value) if isinstance(value, str) else value}"
    keys = map(str, value) if "parameters" in name else (option_text(str(key), each) for key, each in value.items())
    return f"{name}=({' '.join(keys)})"


def without_credentials(text: object, address: str) -> str:
    """A text without the user and password and without the query of an address, which may be a signed URL."""
    if "://" not in address:
        return without_any_credentials(str(text))
    rest = address.partition("://")[2]
    parts = (rest.partition("/")[0].rpartition("@")[0], rest.partition("?")[2])
    shown = str(text)
    for secret in filter(None, parts):
        shown = shown.replace(secret, "********")
    return without_any_credentials(shown)


def without_any_credentials(text: str) -> str:
    """A text without the user, password and query of every address in it, and without quoted values that are named as secrets.

    Unlike `without_credentials`, it needs no address. It may mask more than it must. For the text of a line of code, of which
    the end may be missing.
    """
    for pattern, shown in _CREDENTIALS:
        text = pattern.sub(shown, text)
    return text


def quoted_address(address: str) -> str:
    """A path or URL as it would be written in code, shortened, without what grants access."""
    return quoted(without_credentials(address, address), 200)


def warn(text: str) -> None:
    """Warn at the line that called this package, however the call got here (``skip_file_prefixes`` needs Python 3.12)."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        frame, level = frame.f_back, level + 1
    warnings.warn(f"{text}.", stacklevel=level)
