"""A Luigi task that invalidates the cache of a Fused UDF, as an example of a wrapper for another orchestrator.

    class InvalidateRoads(FusedInvalidateCache):
        udf = "maps/roads"
        zooms = "10-14"

        def requires(self):
            return LoadRoads(self.load)

        def changed(self):
            return {"geometry": self.input().path}

    luigi.build([InvalidateRoads(load="2026-11-27")])

It stands on the public names of ``fused_cache_ops`` and on ``fused_cache_ops.integration`` alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import luigi

from fused_cache_ops import FusedClient, InvalidInputError
from fused_cache_ops.integration import (
    CALL_OPTIONS,
    parse_udf,
    read_rendered,
    refuse_single_use,
    require_kind,
    sealed,
)

# Luigi writes the parameters of a task to its log and its web page, so a secret is none. It has its own places for progress.
KEYWORDS = tuple(name for name, option in CALL_OPTIONS.items() if option.stored and name != "again_after")


# As text, as on Luigi's command line, which the core reads.
_Keywords: Any = type(
    "_Keywords", (), {name: luigi.OptionalParameter(default=None, description=CALL_OPTIONS[name].help) for name in KEYWORDS}
)


class FusedInvalidateCache(_Keywords, luigi.Task):
    """Invalidate the cached results of a Fused UDF: all of them, or those of what a load changed.

    The token is read from ``FUSED_SERVICE_ACCOUNT_TOKEN``, and a shared token, for ``verify_tiles`` and ``refresh``, from
    ``FUSED_SHARED_TOKEN``. The core retries transient errors until ``deadline``. Luigi's ``retry_count`` applies after that. It
    does not distinguish permanent errors, so they are retried too.

    A second pass (``again_after``) would keep Luigi's worker waiting, so there is none.
    """

    udf = luigi.Parameter(description="Id, name, canvas/name, team/name or user@host/name.")
    load = luigi.Parameter(description="What tells this load from any other, such as its date: each is invalidated once.")
    results = luigi.Parameter(default="fused-cache-results", significant=False, description="Folder for the results.")
    deadline = luigi.FloatParameter(default=600.0, significant=False, description="Seconds in total, retries included.")

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if parse_udf(self.udf).secret is not None:
            raise InvalidInputError("udf is a shared token, which Luigi would write to its log: pass the UDF's id or name.")

    def changed(self) -> Mapping[str, Any] | None:
        """What the load changed, as the core's keywords, such as ``{"tiles": [...]}``. None: the parameters say it."""
        return None

    def output(self) -> luigi.LocalTarget:
        """The result, as JSON."""
        return luigi.LocalTarget(os.path.join(self.results, f"{self.task_id}.json"))  # noqa: PTH118 - as Luigi does it

    def run(self) -> None:
        """Invalidate.

        Raises:
            FusedCacheError: it failed. ``remaining`` holds what is not yet confirmed, and ``checkpoint`` keeps it for a retry.
        """
        keywords = self._keywords()
        with FusedClient(deadline=self.deadline) as client:
            result = client.invalidate_cache(self.udf, on_progress=self._show, **keywords)
        self.set_status_message(str(result))
        with self.output().open("w") as file:
            json.dump(result.to_dict(), file)

    def _keywords(self) -> Any:
        given = {name: getattr(self, name) for name in KEYWORDS}
        keywords = read_rendered({name: value for name, value in given.items() if value is not None})
        changed = self.changed()
        if changed is not None:
            require_kind(changed, "changed() returned")  # it comes from data: everything has to be said
            if twice := sorted(changed.keys() & keywords.keys()):
                raise InvalidInputError(
                    f"{', '.join(twice)}: given as a parameter, and returned by changed(). Give it in one place."
                )
            keywords |= changed
        refuse_single_use(keywords)  # type: ignore[arg-type]  # Luigi runs a task that failed again
        return {**keywords, "shared_token": sealed(os.environ.get("FUSED_SHARED_TOKEN"))}

    def _show(self, done: int, total: int | None, retries: int) -> None:
        if total:
            self.set_progress_percentage(100 * done / total)
        self.set_status_message(f"{done:,} tiles invalidated, {retries:,} retries")
