"""Which responses are fresh: only what bears no sign of a cache, and no page of somebody else."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_cache_ops.running.evidence import freshness

HITS = [
    {"cache-status": "cdn; hit; ttl=300"},
    {"cache-status": "origin; fwd=miss, edge; hit"},
    {"cache-status": "edge; fwd=miss; collapsed"},
    {"cache-status": "edge; hit=?1"},
    {"cache-status": "edge; fwd=miss; collapsed=?1"},
    {"cache-status": "edge; hit, origin; fwd=miss"},
    {"cf-cache-status": "HIT"},
    {"cf-cache-status": "STALE"},
    {"cf-cache-status": "UPDATING"},
    {"cf-cache-status": "REVALIDATED"},
    {"x-cache-status": "HIT"},
    {"x-proxy-cache": "HIT"},
    {"x-nginx-cache": "stale"},
    {"x-cache": "STALE"},
    {"x-cache": "MISS, HIT"},
    {"x-cache": "TCP_MEM_HIT from a-b-c"},
    {"x-cache": "Hit from cloudfront"},
    {"x-cache": "RefreshHit from cloudfront"},
    {"x-cache-lookup": "HIT from proxy:3128"},
    {"x-cache-hits": "0, 3"},
    {"x-varnish": "32770 3"},
    {"x-vercel-cache": "STALE"},
    {"cdn-cache": "HIT"},
    {"age": "1"},
    {"warning": '110 - "Response is Stale"'},
    {"warning": '199 - "x", 111 - "Revalidation Failed"'},
    {"server-timing": "cdn-cache; desc=HIT, edge; dur=1"},
]
MISSES = [
    {},
    {"cache-status": "cdn; fwd=miss; stored"},
    {"cache-status": "cdn; fwd=stale; fwd-status=200"},
    {"cache-status": "cdn; hit=?0"},
    {"cache-status": "cdn; fwd=miss, hit"},
    {"age": ""},
    {"x-cache-hits": ""},
    {"x-cache-hits": "0,"},
    {"warning": '199 - "110 is not a code here"'},
    {"warning": '199 - "nor is 110 one here"'},
    {"server-timing": "cdn-cache; desc=MISS, hit; dur=1"},
    {"x-fused-cache-tier": "hit"},
    {"cf-cache-status": "DYNAMIC"},
    {"cf-cache-status": "EXPIRED"},
    {"x-cache-status": "BYPASS"},
    {"x-cache": "Miss from cloudfront"},
    {"x-cache-hits": "0, 0"},
    {"x-varnish": "32770"},
    {"age": "0"},
    {"cache-control": "max-age=60, stale-while-revalidate=30"},
    {"cdn-cache-control": "no-store"},
    {"warning": '199 - "Miscellaneous"'},
    {"server-timing": "cdn-cache; desc=MISS, origin; dur=12"},
    {"content-type": "image/png"},
    {"content-type": "text/html", "x-fused-metadata": "{}"},
    {"content-type": "text/html; charset=utf-8", "x-cache": "Miss"},
]


@pytest.mark.parametrize("headers", HITS, ids=str)
def test_a_sign_of_a_cache_is_no_evidence_of_a_run(headers: dict[str, str]) -> None:
    assert freshness(headers)[0] == "unknown"


@pytest.mark.parametrize("headers", MISSES, ids=str)
def test_what_says_that_no_cache_answered_is_evidence(headers: dict[str, str]) -> None:
    assert freshness(headers) == ("fresh", "")


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "application/xhtml+xml"])
def test_a_page_of_html_without_a_sign_of_fused_is_unknown(kind: str) -> None:
    assert freshness({"content-type": kind}) == (
        "unknown",
        "the response is a page of HTML without any sign of Fused, such as a login page",
    )


@given(st.sampled_from(HITS), st.lists(st.sampled_from(MISSES), max_size=3))
@settings(max_examples=150)
def test_no_other_header_makes_a_hit_fresh(hit: dict[str, str], others: Any) -> None:
    headers = {name: value for each in others for name, value in each.items()} | hit
    assert freshness(headers)[0] != "fresh"


@given(st.lists(st.sampled_from(MISSES), max_size=4))
@settings(max_examples=150)
def test_misses_together_are_fresh(several: Any) -> None:
    assert freshness({name: value for each in several for name, value in each.items()})[0] == "fresh"
