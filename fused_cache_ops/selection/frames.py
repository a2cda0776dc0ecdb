"""DataFrames of Spark, which are read batch by batch, and once; and what its errors say.

Errors of an executor arrive as text, in classes that differ between the ways in which a job is run. So ours are written into
that text as JSON, after a mark.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from fused_cache_ops import errors
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, InvalidInputError, UnavailableError
from fused_cache_ops.selection.arrow import read_tiles
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.tiles.tile import Tile
from fused_cache_ops.wording import quoted, shortened

_MARK = "FUSED_CACHE_ERROR "
_NO_PACKAGE = "No module named 'fused_cache_ops"
_LONGEST = 500  # characters of another error's text


def is_frame(value: Any) -> bool:
    """Whether a value is a DataFrame of Spark."""
    return type(value).__module__.startswith("pyspark.") and hasattr(value, "mapInArrow")


def frame_tiles(frame: Any, unplaced: Callable[[int], object]) -> Iterator[Any]:
    """The tiles of a DataFrame, to be validated. The job is run once.

    Args:
        frame: the DataFrame.
        unplaced: called with the number of rows that are null: they stand for what changed without a place.

    Raises:
        InvalidInputError: it has no columns of tiles, or the job says that its input is wrong.
        UnavailableError: the job failed.
    """
    from array import array

    with in_our_terms():
        pa = import_geo("pyarrow")
        if not {"z", "x", "y"} <= set(frame.columns):
            yield from read_tiles(pa.RecordBatchReader.from_stream(frame), array("Q"))
            return
        for batch in pa.RecordBatchReader.from_stream(frame.select("z", "x", "y")):
            placed = batch.filter(batch.column(0).is_valid())
            if missing := batch.num_rows - placed.num_rows:
                unplaced(missing)
            yield from map(Tile, *(placed.column(axis).to_pylist() for axis in range(3)))


def marked_text(error: FusedCacheError) -> str:
    """One of our errors as text that `in_our_terms` finds again."""
    return _MARK + json.dumps({"kind": type(error).__name__, "message": error.message})


@contextlib.contextmanager
def in_our_terms() -> Iterator[None]:
    """Raise the errors of a Spark job as ours."""
    try:
        yield
    except FusedCacheError:
        raise
    except Exception as error:
        raise our_error(error) from None


def our_error(error: BaseException) -> FusedCacheError:
    """What the error of a Spark job says, as one of ours.

    Args:
        error: of an action, such as ``count()``, or of a stream of batches. One of ours is returned as it is.
    """
    if isinstance(error, FusedCacheError):
        return error
    text = str(error)
    _, mark, after = text.partition(_MARK)
    if mark:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said, _ = json.JSONDecoder().raw_decode(after)
            kind = getattr(errors, said["kind"])
            where = "On an executor of Spark: " if kind is ConfigurationError else ""
            return kind(f"{where}{said['message']}")  # type: ignore[no-any-return]
    if _NO_PACKAGE in text:
        return ConfigurationError(
            "An executor of Spark does not have fused-cache-ops: install 'fused-cache-ops[geo]' there, ship an environment by "
            "spark.archives, or check that PYSPARK_PYTHON names the Python that has it. Nothing was sent."
        )
    reason = shortened(" ".join(text.split()), _LONGEST)
    if type(error).__name__ == "AnalysisException":
        return InvalidInputError(f"Spark cannot run the job: {reason}")
    return UnavailableError(f"The Spark job failed: {type(error).__name__}: {quoted(reason, _LONGEST)}. Nothing was sent.")
