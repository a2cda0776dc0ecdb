"""The keywords of a refresh: types, defaults, and a line of help for each. Declared once, like those that select tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict, Union

from fused_cache_ops.tiles.zooms import Zooms

RefreshAmount = Union[int, Literal["all"]]
"""The most tiles to refresh, or ``"all"``. 0: none."""

RefreshParameters = Mapping[str, Union[str, int, float]]
"""The UDF's parameters, by name, as a map sends them."""


class RefreshKeywords(TypedDict, total=False):
    """The keywords of a refresh, as `fused_cache_ops.invalidate_cache` describes them."""

    refresh: RefreshAmount
    refresh_zooms: Zooms | None
    refresh_concurrency: int
    max_refresh: int
    refresh_parameters: RefreshParameters | None
    refresh_deadline: float
    fail_on_refresh_error: bool


REFRESH_DEFAULTS: RefreshKeywords = {
    "refresh": 0,
    "refresh_zooms": None,
    "refresh_concurrency": 4,
    "max_refresh": 1000,
    "refresh_parameters": None,
    "refresh_deadline": 600.0,
    "fail_on_refresh_error": False,
}

REFRESH_HELP: dict[str, str] = {
    "refresh": "Afterwards, run the UDF again for this many of the tiles, or for all, so that visitors find them cached.",
    "refresh_zooms": "Refresh only these zooms, such as 0-8. On its own, all tiles of these zooms.",
    "refresh_concurrency": "Runs at the same time. Each one costs credits.",
    "max_refresh": "The most tiles that a refresh may run. More are an error before anything is sent.",
    "refresh_parameters": "The UDF's parameters as the map sends them: results are cached for each set of parameters.",
    "refresh_deadline": "Seconds that the refresh may take.",
    "fail_on_refresh_error": "Fail if a tile could not be refreshed. The invalidation is done nevertheless.",
}
