"""One load, every UDF that shows it: what changed is read once, and the UDFs are invalidated side by side."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from fused_cache_ops.cache_map.file import DEFAULT_MAP
from fused_cache_ops.cache_map.reading import SELECTING, SENDING, TOKEN_KEY, CacheMap, MapEntry, MapLocation, without_zooms
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, InvalidationCancelledError, InvalidInputError
from fused_cache_ops.keywords.announce import announce_options, document_name, merged_announce, read_announce, sealed_announce
from fused_cache_ops.keywords.call import CALL_DEFAULTS, DATASET_DEFAULTS, SENDING_OPTIONS, DatasetKeywords
from fused_cache_ops.keywords.h3_index import H3Index, h3_index_options, merged_h3_index, read_h3_index
from fused_cache_ops.keywords.inner_caches import read_folders
from fused_cache_ops.keywords.moment import read_moment
from fused_cache_ops.keywords.refresh import merged_refresh, refresh_of_whole_udf, refresh_options
from fused_cache_ops.keywords.rules import is_given, one_kind_in, refuse_unknown
from fused_cache_ops.keywords.selection import AREAS, DETAILS, SELECTION_DEFAULTS, SELECTION_OPTIONS
from fused_cache_ops.keywords.values import NOT_GIVEN
from fused_cache_ops.notebook import table
from fused_cache_ops.outcome.dataset import DatasetInvalidationError, DatasetResult
from fused_cache_ops.outcome.indexing import DatasetIndexWait
from fused_cache_ops.outcome.interruption import InvalidationInterrupted
from fused_cache_ops.outcome.invalidation import InvalidationResult
from fused_cache_ops.outcome.passes import DatasetFirstPass
from fused_cache_ops.plan.plan import InvalidationPlan, plan_selection
from fused_cache_ops.progress import OnProgress
from fused_cache_ops.running.refresh import RefreshPlan, plan_refresh
from fused_cache_ops.secret import Secret
from fused_cache_ops.selection.reading import check_selection, read_selections, refuse_single_use
from fused_cache_ops.selection.selection import Covered, Selection, WholeUdf, nobody_watches, nothing
from fused_cache_ops.sending.call import Call, check_announcing
from fused_cache_ops.sending.checkpoint import check_location, is_folder
from fused_cache_ops.sending.folders import Folders
from fused_cache_ops.sending.indexing import Indexes
from fused_cache_ops.service.service import Service
from fused_cache_ops.wording import counted, quoted, quoted_address, without_credentials

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

_SIDE_BY_SIDE = 8  # UDFs. All their requests share one pool of connections and one rate limiter.
_TOLD_EVERY = 0.2  # seconds


@dataclass(frozen=True)
class DatasetPlan:
    """What the invalidation of a dataset's UDFs would do. Nothing has been sent.

    Attributes:
        dataset: the dataset's key.
        plans: the plan of each UDF, by the UDF as the map writes it.
        refused: why a UDF's selection is refused, such as too many tiles, by UDF.
    """

    dataset: str
    plans: dict[str, InvalidationPlan]
    refused: dict[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", without_credentials(self.dataset, self.dataset))

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {
            "dataset": self.dataset,
            "plans": {udf: plan.to_dict() for udf, plan in self.plans.items()},
            "refused": dict(self.refused),
        }

    def _repr_html_(self) -> str:
        """The plan in a notebook."""
        rows: list[tuple[object, ...]] = [
            (udf, "everything" if plan.tile_count is None else plan.tile_count, plan.request_count, plan.note or "")
            for udf, plan in self.plans.items()
        ]
        rows += [(udf, "", "", f"refused: {why}") for udf, why in self.refused.items()]
        rows += [("", "", "", _NOT_LOOKED_UP)] if self.plans else []
        return table(f"Plan for the dataset {quoted_address(self.dataset)}", rows, ("UDF", "tiles", "requests", "note"))

    def __str__(self) -> str:
        lines = [*map(str, self.plans.values()), *(f"refused {udf}: {why}" for udf, why in self.refused.items())]
        head = f"dataset {quoted_address(self.dataset)}, {counted(len(lines), 'UDF')}"
        return "\n".join([head, *lines, *([_NOT_LOOKED_UP] if self.plans else [])])


_NOT_LOOKED_UP = (
    "not looked up, because this plan sends nothing: instances, callers and callees. `fused-cache-ops map check` lists them"
)

OnDatasetPlan = Callable[[DatasetPlan], object]
"""Called once with the plan of a dataset, before anything is sent."""


@dataclass(frozen=True)
class _Part:
    """One UDF of a dataset.

    Attributes:
        entry: what the map says of it.
        selection: what is to be invalidated, or why that is refused.
        sending: its keywords for sending.
        refresh: what is to be refreshed afterwards, or None.
    """

    entry: MapEntry
    selection: Selection | WholeUdf | InvalidInputError
    sending: Mapping[str, Any]
    refresh: RefreshPlan | None = None


def plan_dataset(dataset: str, *, cache_map: MapLocation = DEFAULT_MAP, **keywords: Unpack[DatasetKeywords]) -> DatasetPlan:
    """What `invalidate_dataset` would do with the same keywords. Sends nothing, and needs no token.

    Raises:
        InvalidInputError: the map or the selection cannot be read, or the map does not list the dataset.
    """
    refuse_single_use(keywords, "the plan would use it up", pipes=True)
    return plan_parts(dataset, read_parts(CacheMap.of(cache_map), dataset, nobody_watches, **keywords))


def plan_parts(dataset: str, parts: Sequence[_Part]) -> DatasetPlan:
    """The plan of all parts."""
    plans: dict[str, InvalidationPlan] = {}
    refused: dict[str, str] = {}
    for part in parts:
        if isinstance(part.selection, InvalidInputError):
            refused[part.entry.label] = part.selection.message
        else:
            plan = plan_selection(part.entry.udf, part.selection, part.refresh)
            folders, index = read_folders(part.sending["inner_caches"]), part.sending["h3_index"]
            said = None if index is None else str(index)
            announcing = part.sending["announcing"]
            plans[part.entry.label] = replace(
                plan,
                udf=part.entry.label,
                inner_caches=folders,
                h3_index=said,
                announce=None if announcing is None else str(announcing),
            )
    return DatasetPlan(dataset, plans, refused)


def read_parts(
    cache_map: CacheMap, dataset: str, watch: Callable[[], None], **keywords: Unpack[DatasetKeywords]
) -> tuple[_Part, ...]:
    """What is to be done for each UDF of a dataset. What changed is read once for all of them.

    Raises:
        InvalidInputError: the map does not list the dataset, or the keywords cannot be read or contradict the map.
    """
    refuse_unknown(keywords, DATASET_DEFAULTS)
    entries = cache_map.entries(dataset)
    given: dict[str, Any] = {name: value for name, value in keywords.items() if is_given(keywords, name)}
    kind = one_kind_in(given)
    if entries and kind is None and not all(entry.is_whole for entry in entries):
        shown = next(entry.label for entry in entries if not entry.is_whole)
        raise InvalidInputError(
            f"There is no selection, and {cache_map.source} does not say whole_udf = true for {shown}: pass what changed, or "
            "whole_udf=True to invalidate everything."
        )
    if "announce" in given:
        given["announce"] = sealed_announce(given["announce"])
    for entry in entries:
        _refuse_contradiction(entry, given, cache_map.source)
    checkpoint = given.get("checkpoint")
    if checkpoint is not None:
        check_location(checkpoint)
        if not is_folder(checkpoint):
            raise InvalidInputError(
                f"checkpoint = {quoted(checkpoint)} must be a folder, which ends in '/': each UDF of a dataset has a file of "
                "its own in it."
            )
    if "inner_caches" in given:
        given["inner_caches"] = read_folders(given["inner_caches"])
    where = f"{cache_map.source}, dataset {quoted_address(dataset)}"
    if kind in AREAS and "zooms" not in given and (labels := [entry.label for entry in entries if entry.is_open]):
        raise InvalidInputError(f"{where}: {without_zooms(labels, kind)} Or pass zooms in the call.")
    selections = _selections(entries, given, kind, watch, where)
    everything = kind == "whole_udf"
    parts = tuple(_part(entry, selection, given, everything) for entry, selection in zip(entries, selections))
    if parts and "h3_index" in given and not any(part.sending["h3_index"] for part in parts):
        raise InvalidInputError(
            f"h3_index: path is missing, and {cache_map.source} does not say it for any UDF of the dataset."
        )
    _check_announcing(parts, given, cache_map.source)
    return parts


def _check_announcing(parts: Sequence[_Part], given: Mapping[str, Any], source: str) -> None:
    """Reject places that cannot tell the UDFs of a dataset apart.

    Raises:
        InvalidInputError: as said.
    """
    options = announce_options(given.get("announce", NOT_GIVEN))
    if parts and options and not any(part.sending["announcing"] for part in parts):
        raise InvalidInputError(f"announce: to is missing, and {source} does not say it for any UDF of the dataset.")
    if "source" in options:
        raise InvalidInputError(
            f"announce: source = {quoted(options['source'])} names one map: say it for each UDF of the dataset in {source}."
        )
    if "to" in options:
        read = read_announce(options)
        if read is not None and not read.opened_here().can_tell_apart:
            raise InvalidInputError(
                f"announce: to = {quoted(read.shown)} must be a folder, which ends in '/': each UDF of a dataset has a "
                "document of its own in it."
            )
    named: dict[object, str] = {}
    for part in parts:
        announcing = part.sending["announcing"]
        if announcing is None:
            continue
        place = announcing.opened_here()
        name = (place.source or part.entry.udf.name) if place.can_tell_apart else ""
        if name and place.is_folder:
            name = document_name(name)
        address = place.to if isinstance(place.to, str) else place.to.reveal()
        first = named.setdefault((address, name), part.entry.label) if name is not None else part.entry.label
        if first != part.entry.label:
            raise InvalidInputError(
                f"announce: {first} and {part.entry.label} would have the same document at {announcing.shown}: give one of "
                f"them another source in {source}."
            )


def _refuse_contradiction(entry: MapEntry, given: Mapping[str, Any], source: str) -> None:
    """Reject what the call and the map both say of a UDF."""
    for name, value in entry.keywords.items():
        if name not in given or (entry.is_whole and name in _OF_TILES):
            continue
        if name in _KEYS:  # key by key
            keys = _KEYS[name]
            both = keys(given[name]).keys() & keys(value).keys()
            if not both:
                continue
            said = f"{name}: {min(both)} is given in the call, and {source} says it"
        else:
            said = f"{name} = {quoted(given[name])} is given in the call, and {source} says {name} = {quoted(value)}"
        raise InvalidInputError(f"{said} for {entry.label}: give it in one place.")


def _keys_of_refresh(given: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", refresh_options(given) or {"count": 0})


_KEYS: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "refresh": _keys_of_refresh,
    "h3_index": h3_index_options,
    "announce": announce_options,
}
"""The groups, and what reads their keys."""


_OF_TILES = tuple(name for name, option in SELECTION_OPTIONS.items() if option.needs_selection)
"""The keywords that shape a selection."""


def _selections(
    entries: Sequence[MapEntry], given: Mapping[str, Any], kind: str | None, watch: Callable[[], None], where: str
) -> list[Selection | WholeUdf | InvalidInputError]:
    if kind is None or kind == "whole_udf":
        return [WholeUdf() for _ in entries]
    common = {name: value for name, value in given.items() if name in SELECTION_DEFAULTS}
    wanted: list[Any] = []
    for entry in entries:
        if entry.is_whole:
            # Read only to know whether anything changed at all.
            kept = {name: value for name, value in common.items() if name not in _OF_TILES or name in DETAILS}
            wanted.append({**kept, "zooms": (0,)} if kind in AREAS else kept)
        else:
            wanted.append(_of_tiles(entry, common, kind))
    try:
        found = read_selections(wanted, watch)
    except InvalidInputError as error:
        raise _of_its_entry(error, entries, wanted, {"zooms": (0,) if kind in AREAS else None, **common}, where) from None
    shard = given.get("shard")
    return [_whole_if_changed(selection, shard) if entry.is_whole else selection for entry, selection in zip(entries, found)]


def _of_tiles(entry: MapEntry, common: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The keywords of the selection of a UDF that is not invalidated as a whole."""
    own = {name: value for name, value in entry.keywords.items() if name in SELECTING}
    if kind not in DETAILS["render_resolution"]:
        own.pop("render_resolution", None)
    return {**common, **own}


def calls_of_dataset(
    cache_map: CacheMap, dataset: str, **keywords: Unpack[DatasetKeywords]
) -> dict[str, tuple[str | Secret, dict[str, Any]]]:
    """For each UDF of a dataset, by its label: the UDF, and the keywords of a call that sends it again by itself.

    Raises:
        InvalidInputError: the map does not list the dataset, or the selection is contradictory.
    """
    given: dict[str, Any] = {name: value for name, value in keywords.items() if is_given(keywords, name)}
    kind = one_kind_in(given)
    common = {name: value for name, value in given.items() if name in SELECTION_DEFAULTS}
    calls: dict[str, tuple[str | Secret, dict[str, Any]]] = {}
    for entry in cache_map.entries(dataset):
        is_whole = entry.is_whole or kind in (None, "whole_udf")
        selecting = {"whole_udf": True} if is_whole or kind is None else _of_tiles(entry, common, kind)
        sending = {name: value for name, value in {**given, **entry.keywords}.items() if name in SENDING_OPTIONS}
        if refresh := merged_refresh(given.get("refresh", 0), entry.keywords.get("refresh", 0)):
            sending["refresh"] = refresh
        sending["announce"] = merged_announce(given.get("announce", NOT_GIVEN), entry.keywords.get("announce", NOT_GIVEN))
        calls[entry.label] = (entry.reference, {**selecting, **sending})
    return calls


def _of_its_entry(
    error: InvalidInputError, entries: Sequence[MapEntry], wanted: Sequence[Any], call: Any, where: str
) -> InvalidInputError:
    """An error with the map's file and entry, if the call without the entry does not have it."""

    def refusal(keywords: Any) -> str | None:
        try:
            check_selection(keywords)
        except InvalidInputError as refused:
            return refused.message
        return None

    of_entry = next((entry for entry, each in zip(entries, wanted) if refusal(each) == error.message), None)
    if of_entry is None or refusal(call) == error.message:
        return error
    return InvalidInputError(f"{where}, {of_entry.label}: {error.message}")


def _whole_if_changed(
    changed: Selection | WholeUdf | InvalidInputError, shard: tuple[int, int] | None
) -> Selection | WholeUdf | InvalidInputError:
    """Everything, or nothing if nothing changed."""
    if isinstance(changed, Selection) and not changed.unplaced and next(changed.tiles(), None) is None:
        return Selection(Covered(nothing), blocks=True, note="nothing changed")
    if shard is None or shard[0] == 0:
        return WholeUdf()
    return Selection(Covered(nothing), blocks=True, note="the whole UDF is left to shard 0")


def indexes_of(cache_map: CacheMap, dataset: str, h3_index: Any, loaded_at: Any) -> list[H3Index]:
    """The H3 indexes that the UDFs of a dataset need, of the map and of a call. What changed is not read.

    Raises:
        InvalidInputError: the map does not list the dataset, or one of them cannot be read.
    """
    entries = cache_map.entries(dataset)
    given = [merged_h3_index(h3_index, entry.keywords.get("h3_index", NOT_GIVEN)) for entry in entries]
    return [index for each in given if (index := read_h3_index(each, loaded_at)) is not None]


def _part(
    entry: MapEntry, selection: Selection | WholeUdf | InvalidInputError, given: Mapping[str, Any], everything: bool
) -> _Part:
    sending: dict[str, Any] = {name: given.get(name, CALL_DEFAULTS[name]) for name in SENDING_OPTIONS} | {  # type: ignore[literal-required]
        name: value for name, value in entry.keywords.items() if name in SENDING
    }
    del sending["refresh"]
    loaded_at = sending["loaded_at"]
    index = merged_h3_index(given.get("h3_index", NOT_GIVEN), entry.keywords.get("h3_index", NOT_GIVEN))
    sending["h3_index"] = read_h3_index(index, loaded_at)
    del sending["announce"]
    announcing = merged_announce(given.get("announce", NOT_GIVEN), entry.keywords.get("announce", NOT_GIVEN))
    sending["announcing"] = read_announce(announcing)
    sending["loaded_at"] = None if loaded_at is NOT_GIVEN else read_moment("loaded_at", loaded_at)
    refresh = merged_refresh(given.get("refresh", 0), entry.keywords.get("refresh", 0))
    sending["checkpoint"] = given.get("checkpoint") if isinstance(selection, Selection) else None
    if entry.is_whole or everything:
        sending |= {"verify_tiles": 0, "checkpoint": None}
        refresh = refresh_of_whole_udf(refresh)
    elif isinstance(selection, WholeUdf) and sending["verify_tiles"]:
        selection = InvalidInputError(
            f"{selection.note}, but verify_tiles needs tiles to sample from: omit it, or raise max_tiles."
        )
    plan = None
    if not isinstance(selection, InvalidInputError):
        try:
            if sending["announcing"] is not None:
                check_announcing(sending["announcing"], sending["related"])
                if isinstance(selection, Selection):
                    selection.file()
            plan = plan_refresh(selection, refresh)
        except InvalidInputError as error:
            selection = error
    return _Part(entry, selection, sending, plan)


class DatasetCall:
    """The invalidation of all UDFs that show a dataset.

    Args:
        service: the deployment.
        cache_map: the map.
        dataset: the dataset's key.
        keywords: as for `fused_cache_ops.FusedClient.invalidate_dataset`, like the next two.
        on_progress: called with the sums of all UDFs.
        on_plan: called once, before anything is sent.
        only_pass: 1 or 2 to make only one of the two passes of UDFs with ``again_after``, without waiting. The others are
            complete after the first.
        first: for the second pass, what the first did.
        indexes: what is known of the H3 indexes already.

    Raises:
        InvalidInputError: as for `read_parts`.
    """

    def __init__(
        self,
        service: Service,
        cache_map: CacheMap,
        dataset: str,
        keywords: DatasetKeywords,
        *,
        on_progress: OnProgress | None = None,
        on_plan: OnDatasetPlan | None = None,
        only_pass: Literal[1, 2] | None = None,
        first: DatasetFirstPass | None = None,
        indexes: DatasetIndexWait | None = None,
    ) -> None:
        self._only_pass = only_pass
        self._first = first
        self._service = service
        self._retrier = service.start()
        self._dataset = dataset
        self._source = cache_map.source
        self._parts = read_parts(cache_map, dataset, self._retrier.check, **keywords)
        if first is not None:
            self._parts = self._those_again(first)
        self._on_progress = on_progress
        self._on_plan = on_plan
        self._progress: dict[str, tuple[int, int | None, int]] = {}
        self._tiled = sum(isinstance(part.selection, Selection) for part in self._parts)
        self._caller = threading.get_ident()
        self._folders = Folders()
        self._indexes = Indexes(indexes)
        self._calls = {part.entry.label: self._call(part) for part in self._parts if _is_valid(part)}

    def _call(self, part: _Part) -> Call:
        # No UDF that hangs may take the time of the others: they come in rounds, and each gets a round's share.
        rounds = -(-sum(map(_is_valid, self._parts)) // _SIDE_BY_SIDE)
        retrier = self._service.branch(self._retrier, patience=self._retrier.deadline / (rounds + 1))

        def note(done: int, total: int | None, retries: int) -> None:
            self._progress[part.entry.label] = (done, total, retries)

        return Call(
            self._service,
            retrier,
            part.entry.udf,
            cast("Selection | WholeUdf", part.selection),
            on_targets=lambda _: None,
            on_progress=note,
            shared_token=self._token_of(part),
            refresh_plan=part.refresh,
            folders=self._folders,
            indexes=self._indexes,
            only_pass=self._only_pass if part.sending["again_after"] else None,
            **part.sending,
        )

    def _token_of(self, part: _Part) -> Secret | None:
        """The shared token of a UDF that is to be run.

        Raises:
            ConfigurationError: there is none.
        """
        what = "verify_tiles" if part.sending["verify_tiles"] else "refresh" if part.refresh else None
        if what is None:
            return None
        if part.entry.shared_token_env is None and part.entry.udf.secret is None:
            raise ConfigurationError(
                f"{what} needs a shared token of each UDF. {self._source}, dataset {quoted_address(self._dataset)}, says none "
                f'for {part.entry.label}: name the environment variable that has it, such as {TOKEN_KEY} = "MAP_TOKEN".'
            )
        return part.entry.shared_token

    def _those_again(self, first: DatasetFirstPass) -> tuple[_Part, ...]:
        """The parts that have a second pass.

        Raises:
            InvalidInputError: the map or the selection has changed since the first pass.
        """
        parts = {part.entry.label: part for part in self._parts if part.entry.label in first.fingerprints}
        changed = [udf for udf, said in first.fingerprints.items() if udf not in parts or _fingerprint(parts[udf]) != said]
        if changed:
            raise InvalidInputError(
                f"The selection or the map has changed since the first pass for {', '.join(changed)}, so the second pass would "
                "not invalidate the same. The first pass is done. Run the invalidation again, with a selection and a map that "
                "stay the same while it waits."
            )
        return tuple(parts.values())

    def first_pass(self) -> DatasetFirstPass:
        """Make the first pass. As for `run`."""
        again = {part.entry.label: part for part in self._parts if part.sending["again_after"]}
        fingerprints = {udf: _fingerprint(part) for udf, part in again.items()}

        def passed(result: DatasetResult) -> DatasetFirstPass:
            # What failed, or had nothing to send, needs no second pass.
            done = {udf: each for udf, each in result.results.items() if udf not in result.failed}
            sent = {udf: said for udf, said in fingerprints.items() if udf in done and done[udf].client_ids}
            return DatasetFirstPass(result, sent, max((again[udf].sending["again_after"] for udf in sent), default=0))

        try:
            return passed(self.run())
        except DatasetInvalidationError as error:
            error.first_pass = passed(error.result)
            raise

    def run(self) -> DatasetResult:
        """Send everything.

        Raises:
            DatasetInvalidationError: a UDF failed. The others are invalidated.
        """
        self._caller = threading.get_ident()
        if self._on_plan is not None:
            self._on_plan(plan_parts(self._dataset, self._parts))
        outcomes = self._outcomes()
        failed: dict[str, FusedCacheError] = {}
        results: dict[str, InvalidationResult] = {}
        for part in self._parts:
            label = part.entry.label
            outcome = part.selection if isinstance(part.selection, InvalidInputError) else outcomes[label]
            if isinstance(outcome, FusedCacheError):
                failed[label] = outcome
                outcome = getattr(outcome, "result", None)
            elif isinstance(outcome, BaseException):
                raise outcome
            if isinstance(outcome, InvalidationResult):
                results[label] = outcome
        if self._first is not None:
            before = self._first.result.results
            results = before | {udf: before[udf].followed_by(result) for udf, result in results.items()}
        note = None if self._parts or self._first else "no UDF shows it, so there was nothing to do"
        result = DatasetResult(self._dataset, results, failed, round(self._retrier.elapsed, 3), note)
        logger.info("Fused cache: %s", result)
        if failed:
            raise DatasetInvalidationError(result)
        return result

    def _outcomes(self) -> dict[str, object]:
        """What each call returned or raised. Those that need the same H3 index wait for it, and no others."""
        outcomes: dict[str, object] = {}
        groups: dict[H3Index | None, dict[str, Call]] = {}
        for label, call in self._calls.items():
            groups.setdefault(call.h3_index, {})[label] = call
        try:
            if len(groups) > 1:
                self._in_threads([functools.partial(self._in_stages, calls, outcomes) for calls in groups.values()])
            else:
                self._in_stages(self._calls, outcomes)
        except KeyboardInterrupt as interrupt:
            raise InvalidationInterrupted(interrupt, result=self._interrupted(outcomes)) from interrupt
        return outcomes

    def _in_threads(self, actions: Sequence[Callable[[], None]]) -> None:
        """Do several things at once. The caller's thread reports progress."""
        pool = concurrent.futures.ThreadPoolExecutor(len(actions), thread_name_prefix="fused-cache-index")
        running = [pool.submit(contextvars.copy_context().run, action) for action in actions]
        waiting = set(running)
        try:
            while waiting:
                waiting = concurrent.futures.wait(waiting, _TOLD_EVERY, concurrent.futures.FIRST_COMPLETED).not_done
                self._tell()
        except BaseException:
            self._service.cancel_call(self._retrier)
            raise
        finally:
            pool.shutdown(wait=True)
        for each in running:
            each.result()

    def _in_stages(self, calls: Mapping[str, Call], outcomes: dict[str, object]) -> None:
        """Make calls of one H3 index. Once it has the load, everything is sent once for all UDFs, then comes one wait for those
        that have a second pass, then that pass, and only then whatever runs a UDF. So none of them waits for another one's wait
        or runs."""
        while True:
            looks = self._side_by_side(Call.look_at_index, calls, outcomes)
            calls = {label: self._calls[label] for label in looks}
            pause = max((seconds for seconds in looks.values() if seconds is not None), default=None)
            if pause is None:
                break
            self._wait(pause, calls.values())
        waits = self._side_by_side(_send, calls, outcomes)
        again = {label: seconds for label, seconds in waits.items() if seconds is not None}
        if again:
            seconds = max(again.values())
            logger.info("Fused cache: the second pass begins in %.0f s.", seconds)
            self._wait(seconds, (self._calls[label] for label in waits))
            self._side_by_side(Call.send_again, {label: self._calls[label] for label in again}, outcomes)
        left = {label: call for label, call in calls.items() if label not in outcomes}
        outcomes.update(self._side_by_side(Call.conclude, left, outcomes))

    def _wait(self, seconds: float, calls: Iterable[Call]) -> None:
        """Wait on behalf of calls. If they are cancelled meanwhile, each of them says so, with what remains."""
        with contextlib.suppress(InvalidationCancelledError):
            self._retrier.wait(seconds)
        for call in calls:
            call.has_waited(seconds)

    def _side_by_side(
        self, step: Callable[[Call], Any], calls: Mapping[str, Call], failures: dict[str, object]
    ) -> dict[str, Any]:
        """What a step of each call returned. Those that failed are added to ``failures``. The caller's thread reports
        progress."""
        done_by: dict[str, Any] = {}
        pool = concurrent.futures.ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="fused-cache-dataset")
        running = {pool.submit(step, call): label for label, call in calls.items()}
        waiting = set(running)
        interrupted = False
        try:
            while waiting:
                waiting = concurrent.futures.wait(waiting, _TOLD_EVERY, concurrent.futures.FIRST_COMPLETED).not_done
                self._tell()
        except BaseException:
            interrupted = True
            for future in waiting:
                future.cancel()
            self._service.cancel_call(self._retrier)
            raise
        finally:
            pool.shutdown(wait=True)
            for future, label in running.items():
                if future.cancelled():
                    failures[label] = self._calls[label].not_begun()
                elif (error := future.exception()) is not None:
                    failures[label] = error
                elif interrupted and isinstance(future.result(), InvalidationResult):
                    failures[label] = future.result()
                else:
                    done_by[label] = future.result()
        return done_by

    def _interrupted(self, outcomes: Mapping[str, object]) -> DatasetResult:
        """What was done when the caller was interrupted, and for each other UDF an error that holds what remains."""
        failed: dict[str, FusedCacheError] = {}
        results: dict[str, InvalidationResult] = {}
        for part in self._parts:
            label = part.entry.label
            outcome = part.selection if isinstance(part.selection, InvalidInputError) else outcomes.get(label)
            if outcome is None:  # it was sent, and not looked at
                outcome = self._calls[label].ended()
            if isinstance(outcome, FusedCacheError):
                failed[label] = outcome
                outcome = getattr(outcome, "result", None)
            if isinstance(outcome, InvalidationResult):
                results[label] = outcome
        return DatasetResult(self._dataset, results, failed, round(self._retrier.elapsed, 3))

    def _tell(self) -> None:
        if self._on_progress is None or not self._progress or threading.get_ident() != self._caller:
            return
        parts = list(self._progress.values())
        totals = [total for _, total, _ in parts]
        total = None if None in totals or len(parts) < self._tiled else sum(each or 0 for each in totals)
        self._on_progress(sum(done for done, _, _ in parts), total, sum(retries for _, _, retries in parts))


def _send(call: Call) -> float | None:
    call.begin()
    return call.send()


def _fingerprint(part: _Part) -> str:
    if isinstance(part.selection, InvalidInputError):
        return ""
    return plan_selection(part.entry.udf, part.selection).fingerprint


def _is_valid(part: _Part) -> bool:
    return not isinstance(part.selection, InvalidInputError)
