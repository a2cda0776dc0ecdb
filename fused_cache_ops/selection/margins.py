"""Areas of which the tiles around them change too, by a share of a tile at each zoom: those of rasters, which are resampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fused_cache_ops.selection.arrow import margin_of
from fused_cache_ops.selection.shapes import areas, import_geo
from fused_cache_ops.tiles.projection import LATITUDE_LIMIT


def by_margin(geometry: Any) -> Iterator[tuple[float, Any]]:
    """What has a margin, each with it as a share of a tile, and the rest without one."""
    members = geometry if isinstance(geometry, (list, tuple)) else [geometry]
    margins = [margin_of(each) for each in members]
    if not any(margins):
        yield 0.0, geometry
        return
    rest = [each for each, margin in zip(members, margins) if not margin]
    if rest:
        yield 0.0, rest
    yield from ((margin, each) for each, margin in zip(members, margins) if margin)


def widen(shapes: Any, share: float) -> Any:
    """Areas in degrees, widened by a share of the whole map's width, as the map draws them.

    Args:
        shapes: polygons within ±180 degrees.
        share: the share.
    """
    import numpy as np

    shapely = import_geo("shapely")

    def drawn(places: Any) -> Any:
        sines = np.sin(np.radians(places[:, 1].clip(-LATITUDE_LIMIT, LATITUDE_LIMIT)))
        return np.column_stack(((places[:, 0] + 180) / 360, np.log((1 + sines) / (1 - sines)) / (4 * np.pi)))

    def placed(places: Any) -> Any:
        latitudes = np.degrees(np.arctan(np.sinh(2 * np.pi * places[:, 1].clip(-0.5, 0.5))))
        return np.column_stack((places[:, 0] * 360 - 180, latitudes))

    on_map = shapely.transform(np.asarray(shapes, dtype=object), drawn)
    wide = shapely.buffer(on_map, share, cap_style="square", join_style="mitre")
    return areas(shapely.transform(shapely.union_all(wide), placed)) if len(wide) else []
