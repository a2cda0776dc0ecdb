"""Whether a result was computed for this request, as its headers tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from fused_cache_ops.wording import quoted

Freshness = Literal["fresh", "from_cache", "unknown"]

_HIT = re.compile(r"(?:[a-z]+[_-]?)*hit(?:[_-][a-z]+)*|stale|updating|revalidated")
"""A word by which caches say that they answered: ``HIT``, ``TCP_MEM_HIT``, ``RefreshHit``, ``HIT-STALE``, Cloudflare's
``UPDATING``. ``MISS``, ``BYPASS``, ``DYNAMIC``, ``EXPIRED`` and ``PASS`` say that the origin did."""

_STALE_WARNINGS = ("110", "111", "112", "113")  # RFC 7234
_SHOWN = 60


def freshness(headers: Mapping[str, str]) -> tuple[Freshness, str]:
    """Where the body of a 200 response came from, and the cache's tier or what is unclear.

    Fused's own caches are told by the rule of its SDK. A cache that is not Fused's, such as a CDN, may have kept a response of
    either kind with its headers. Then nothing is known of what Fused has now. Nor is it if a page of HTML bears no sign of
    Fused at all: a login page answers 200 too.

    Args:
        headers: those of the response that `fused_cache_ops.service.connection` keeps, keyed by lowercase name.
    """
    proxy = headers.get("x-cache", "").strip()
    if proxy.lower() == "hit":
        return "from_cache", "memory"
    if "x-fused-cached" in headers:
        return "from_cache", "object storage"
    for name, value in headers.items():
        if _is_hit(name, value):
            return "unknown", f"a cache in front of Fused may have answered ({name}: {quoted(value, _SHOWN)})"
    is_page = headers.get("content-type", "").lower().startswith(("text/html", "application/xhtml"))
    if is_page and not any(name == "x-cache" or name.startswith("x-fused-") for name in headers):
        return "unknown", "the response is a page of HTML without any sign of Fused, such as a login page"
    return "fresh", ""


def _is_hit(name: str, value: str) -> bool:
    """Whether a header says that a cache answered."""
    value = value.strip()
    if name == "age":
        return value not in ("", "0")
    if name == "cache-status":  # RFC 9211: one entry for each cache
        return any(_answered(entry) for entry in value.split(","))
    if name == "x-cache-hits":
        return any(number.strip() not in ("", "0") for number in value.split(","))
    if name == "x-varnish":  # the second number is the request that filled the cache
        return len(value.split()) > 1
    if name == "warning":
        return any(entry.strip().startswith(_STALE_WARNINGS) for entry in value.split(","))
    if name == "server-timing":
        return any("cache" in entry.lower() and _says_hit(entry) for entry in value.split(","))
    return "cache" in name and not name.startswith("x-fused-") and _says_hit(value)


def _answered(entry: str) -> bool:
    parameters = {part.strip().lower() for part in entry.split(";")[1:]}
    return bool(parameters & {"hit", "hit=?1", "collapsed", "collapsed=?1"})


def _says_hit(value: str) -> bool:
    return any(_HIT.fullmatch(word) for word in re.findall(r"[a-z_-]+", value.lower()))
