"""Refresh: run the UDF again for what was invalidated, so that the first visitor does not wait."""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
import logging
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.refresh import REFRESH_DEFAULTS, Refresh, read_count, refresh_options
from fused_cache_ops.outcome.invalidation import InvalidationResult, RefreshError, Verification
from fused_cache_ops.outcome.refresh import RefreshResult
from fused_cache_ops.progress import OnProgress, Progress
from fused_cache_ops.running.asking import Asked, ask_for, ask_until_answered, refuse_another_udf, run_token
from fused_cache_ops.running.verification import verified
from fused_cache_ops.secret import Secret
from fused_cache_ops.selection.batches import MAX_BATCH
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.service.access import Access
from fused_cache_ops.service.retry import Retrier
from fused_cache_ops.service.service import MOST_RUNS_AT_ONCE, Service
from fused_cache_ops.tiles.tile import Tile, is_boolean
from fused_cache_ops.tiles.zooms import parse_zooms
from fused_cache_ops.udf_reference import UdfReference
from fused_cache_ops.wording import quoted

logger = logging.getLogger(__name__)

_LONGEST_RUN = 150.0
"""Seconds. A run may take 120 s, and a cold start 10 to 15 s more."""

_SPARE = 1000  # tiles that are ranked before the ones not wanted are dropped


@dataclass(frozen=True)
class RefreshPlan:
    """What is to be refreshed, and how.

    Attributes:
        targets: the tiles, in the order in which they are asked for. None among them: the UDF without a tile.
        at_once: runs at the same time.
        query: the UDF's parameters, escaped.
        deadline: seconds that it may take.
        must_succeed: whether what could not be refreshed is an error.
        note: why nothing is refreshed, or None.
    """

    targets: tuple[Tile | None, ...]
    at_once: int
    query: str
    deadline: float
    must_succeed: bool
    note: str | None = None

    @property
    def fingerprint(self) -> str:
        """What tells this refresh from any other."""
        return hashlib.blake2b(repr((self.targets, self.query)).encode(), digest_size=16).hexdigest()


def plan_refresh(selection: Selection | WholeUdf, given: Refresh) -> RefreshPlan | None:
    """What is to be refreshed of a selection, or None if no refresh is wanted.

    A selection that can be read only once is read to the end first, into a temporary file.

    Raises:
        InvalidInputError: ``given`` cannot be read, or there are more tiles than its ``max_tiles``.
    """
    options = refresh_options(given)
    if options is None:
        return None
    read: Any = {**REFRESH_DEFAULTS, **options}
    count = read_count(read["count"])
    zooms = None if "zooms" not in options else parse_zooms(options["zooms"], name="refresh: zooms")
    _check_whole_number("concurrency", read["concurrency"], MOST_RUNS_AT_ONCE)
    _check_whole_number("max_tiles", read["max_tiles"], None)
    deadline = read["deadline"]
    if is_boolean(deadline) or not isinstance(deadline, (int, float)) or not 0 < deadline < math.inf:
        raise InvalidInputError(f"refresh: deadline = {quoted(deadline)} must be a number of seconds above 0.")
    if not is_boolean(read["must_succeed"]):
        raise InvalidInputError(f"refresh: must_succeed = {quoted(read['must_succeed'])} must be True or False.")
    query = _query(read["parameters"])
    targets: tuple[Tile | None, ...] = (None,)
    note = None
    if isinstance(selection, Selection):
        selection.file()
        targets = _chosen(selection, math.inf if count is None else count, zooms, read["max_tiles"])
    elif selection.note is not None:
        targets, note = (), f"nothing was refreshed, because {selection.note}"
    elif zooms is not None or (count is not None and count > 1):  # a selection that was left out must not mean everything
        said = f"refresh = {count}" if zooms is None else f"refresh: zooms = {quoted(options['zooms'])}"
        raise InvalidInputError(
            f"{said} needs a selection of tiles, and the whole UDF has none. Pass refresh=1 to run the UDF once."
        )
    return RefreshPlan(targets, read["concurrency"], query, float(deadline), read["must_succeed"], note)


def refresh(
    service: Service,
    call: Retrier,
    token: Secret,
    plan: RefreshPlan,
    *,
    sample: Iterable[Tile] | None = None,
    done: Spans | None = None,
    save: Callable[[], object] = lambda: None,
    on_fresh: Callable[[], object] = lambda: None,
    on_progress: OnProgress | None = None,
) -> tuple[RefreshResult, Verification | None]:
    """Ask for tiles through a shared token, so that they are cached.

    Args:
        service: the deployment.
        call: the call that this is a part of. The refresh has a deadline of its own, and the rate limiter of all runs.
        token: the shared token.
        plan: what to ask for, and how.
        sample: tiles to verify by the same answers, or None. They are asked for first.
        done: the positions in ``plan.targets`` that an earlier call has refreshed. Those of this call are added.
        save: called periodically, to keep ``done``.
        on_fresh: called when a tile is fresh.
        on_progress: as for `fused_cache_ops.invalidate_cache`.

    Raises:
        InvalidationCancelledError: the call was cancelled.
    """
    done = Spans() if done is None else done
    running = service.branch(call, deadline=plan.deadline, deadline_name="deadline of the refresh", limiter=service.run_limiter)
    minting = service.branch(call, deadline=plan.deadline, deadline_name="deadline of the refresh")
    access = Access(service, token, minting, parameters=plan.query, timeout=max(service.timeout, _LONGEST_RUN))
    to_verify = dict.fromkeys(sample or ())
    positions = {tile: position for position, tile in enumerate(plan.targets)}
    left = [tile for start, stop in done.missing([(0, len(positions))]) for tile in plan.targets[start : int(stop)]]
    wanted = set(left)
    tally = _Tally(already_done=done.count)
    answers: list[Asked] = []
    progress = Progress(on_progress, "refreshed")
    progress.total = len(positions)

    def note(asked: Asked) -> None:
        if asked.freshness == "fresh":
            on_fresh()
        if asked.tile in to_verify:
            answers.append(asked)
        if asked.tile in wanted:
            tally.add(asked)
            if asked.freshness != "unknown":
                done.add(positions[asked.tile], positions[asked.tile] + 1)

    def tick() -> None:
        progress.tell(done.count, running.retries)
        save()

    def abort() -> None:
        for part in (running, minting):
            part.stop()
            service.abort_requests(part)

    targets = itertools.chain(to_verify, (tile for tile in left if tile not in to_verify))
    ask_for(
        itertools.takewhile(lambda _: running.left > 0, targets),
        functools.partial(ask_until_answered, access, running),
        note,
        at_once=plan.at_once,
        tick=tick,
        abort=abort,
    )
    progress.tell(done.count, running.retries, at_once=True)
    unasked = f"not requested before the deadline of the refresh, {plan.deadline:g} s"
    found = {asked.tile for asked in answers}
    answers += [Asked(tile, "unknown", unasked) for tile in to_verify if tile not in found]
    outcome = tally.outcome(len(left), plan.note, round(running.elapsed, 3))
    return outcome, None if sample is None else verified(answers)


def refresh_selection(
    service: Service,
    call: Retrier,
    udf: UdfReference,
    plan: RefreshPlan | None,
    shared_token: Secret | None,
    on_progress: OnProgress | None,
) -> RefreshResult:
    """Refresh a selection on its own. As for `refresh`.

    Raises:
        InvalidInputError: nothing was asked for.
        ConfigurationError: as for `run_token`.
        RefreshError: something could not be refreshed, and that is an error.
        InvalidationCancelledError: the call was cancelled.
    """
    if plan is None:
        raise InvalidInputError(
            "refresh = 0 would refresh nothing: pass a number of tiles above 0, or omit it for all of them."
        )
    token = run_token("refresh_cache", udf, shared_token, service)
    if udf.secret is None:
        refuse_another_udf(service, call, udf, token)
    done = Spans()
    outcome, _ = refresh(service, call, token, plan, done=done, on_progress=on_progress)
    logger.info("Fused cache: %s", outcome)
    report_failures(plan, outcome, done)
    return outcome


def report_failures(plan: RefreshPlan, outcome: RefreshResult, done: Spans, result: InvalidationResult | None = None) -> None:
    """Log what could not be refreshed.

    Args:
        plan: what was to be refreshed.
        outcome: what was.
        done: the positions that were.
        result: that of the invalidation before it.

    Raises:
        RefreshError: that is an error.
    """
    if outcome.is_complete:
        return
    failure = RefreshError(outcome, RemainingTiles(functools.partial(not_refreshed, plan, done)), result)
    if result is not None:
        failure.remaining = RemainingTiles(functools.partial(iter, ()))
    if plan.must_succeed:
        raise failure
    logger.warning("Fused cache: %s", failure)


def not_refreshed(plan: RefreshPlan, done: Spans) -> Iterator[Tile]:
    """The tiles that were not refreshed."""
    for start, stop in done.missing([(0, len(plan.targets))]):
        yield from filter(None, plan.targets[start : int(stop)])


class _Tally:
    """What the answers add up to."""

    def __init__(self, already_done: int) -> None:
        self._already_done = already_done
        self._answers = 0
        self._cached = 0
        self._bytes = 0
        self._failed: list[str] = []
        self._retryable = False
        self._seconds = array("d")

    def add(self, asked: Asked) -> None:
        self._answers += 1
        self._bytes += asked.size
        if asked.freshness == "fresh":
            self._seconds.append(asked.seconds)
        elif asked.freshness == "from_cache":
            self._cached += 1
        else:
            self._failed.append(f"{asked.tile or 'the UDF'}: {asked.reason}")
            self._retryable = self._retryable or asked.retryable

    def outcome(self, wanted: int, note: str | None, elapsed: float) -> RefreshResult:
        seconds = sorted(self._seconds)
        return RefreshResult(
            runs=len(seconds),
            already_cached=self._cached,
            failed=tuple(self._failed),
            not_requested=wanted - self._answers,
            already_done=self._already_done,
            seconds_median=_rank(seconds, 0.5),
            seconds_p95=_rank(seconds, 0.95),
            bytes=self._bytes,
            elapsed_seconds=elapsed,
            retryable=self._retryable or wanted > self._answers,
            note=note,
        )


def _rank(numbers: list[float], share: float) -> float | None:
    """The number that this share of the numbers does not exceed."""
    return round(numbers[max(0, math.ceil(share * len(numbers)) - 1)], 3) if numbers else None


def _chosen(selection: Selection, amount: float, zooms: tuple[int, ...] | None, most: int) -> tuple[Tile, ...]:
    """The tiles to refresh: the hottest first where the list says how often each is requested, otherwise coarse zooms first.

    Raises:
        InvalidInputError: there are more than ``most``.
    """
    if amount > most and sum(1 for _ in itertools.islice(_distinct(selection, zooms), most + 1)) > most:
        zooms_said = "" if zooms is None else f" at zooms {', '.join(map(str, zooms))}"
        raise InvalidInputError(
            f"The refresh would run the UDF for more than {most:,} tiles{zooms_said}, and each run costs credits. Refresh "
            "fewer tiles (refresh=100), only coarse zooms (refresh={'zooms': '0-8'}), or more (refresh={'max_tiles': 5000})."
        )
    wanted = int(min(amount, most))
    best: dict[Tile, tuple[int, int, int, Tile]] = {}  # a tile may be listed more than once
    for rank in _ranked(selection, zooms):
        tile = rank[-1]
        if tile not in best or rank < best[tile]:
            best[tile] = rank
        if len(best) > 2 * wanted + _SPARE:
            best = {rank[-1]: rank for rank in heapq.nsmallest(wanted, best.values())}
    return tuple(tile for *_, tile in heapq.nsmallest(wanted, best.values()))


def _distinct(selection: Selection, zooms: tuple[int, ...] | None) -> Iterator[Tile]:
    seen: set[Tile] = set()
    for _, _, _, tile in _ranked(selection, zooms):
        if tile not in seen:
            seen.add(tile)
            yield tile


def _ranked(selection: Selection, zooms: tuple[int, ...] | None) -> Iterator[tuple[int, int, int, Tile]]:
    position = 0
    for batch in selection.batches(MAX_BATCH):
        selection.watch()
        for tile, count in zip(batch, batch.counts()):
            if zooms is None or tile.z in zooms:
                yield -count, tile.z, position, tile
                position += 1


def _check_whole_number(name: str, value: object, most: int | None) -> None:
    if is_boolean(value) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        limit = "above 0" if most is None else f"from 1 to {most}"
        raise InvalidInputError(f"refresh: {name} = {quoted(value)} must be a whole number {limit}.")


def _query(parameters: object) -> str:
    if parameters is None:
        return ""
    if not isinstance(parameters, Mapping):
        raise InvalidInputError(
            f"refresh: parameters is of type {type(parameters).__name__}: pass a mapping, such as {{'format': 'png'}}."
        )
    for name, value in parameters.items():
        if not isinstance(name, str) or not name or name == "fused_session_token":
            raise InvalidInputError(f"refresh: parameters: {quoted(name)} is not the name of a UDF's parameter.")
        if is_boolean(value) or not isinstance(value, (str, int, float)):
            # A boolean or a list has several notations, and a map's may be another than ours.
            raise InvalidInputError(
                f"refresh: parameters[{quoted(name)}] is of type {type(value).__name__}: write it as text, exactly as the map "
                "sends it."
            )
    try:
        return urlencode(parameters)
    except UnicodeEncodeError:
        raise InvalidInputError("refresh: parameters hold a character that no address can have: a lone surrogate.") from None
