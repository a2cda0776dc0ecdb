"""The public client of one Fused deployment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from fused_cache_ops.cache_map.file import DEFAULT_MAP
from fused_cache_ops.cache_map.reading import CacheMap, MapLocation
from fused_cache_ops.errors import FusedCacheError, InvalidInputError, UnavailableError
from fused_cache_ops.keywords.announce import Announce, read_announce, sealed_announce
from fused_cache_ops.keywords.call import CALL_DEFAULTS, CallKeywords
from fused_cache_ops.keywords.h3_index import H3IndexOptions, read_h3_index
from fused_cache_ops.keywords.inner_caches import read_folders
from fused_cache_ops.keywords.moment import read_moment
from fused_cache_ops.keywords.refresh import Refresh
from fused_cache_ops.keywords.rules import refuse_unknown, refuse_without_selection
from fused_cache_ops.keywords.selection import SELECTION_DEFAULTS, SelectionKeywords
from fused_cache_ops.keywords.values import NOT_GIVEN
from fused_cache_ops.outcome.dataset import DatasetResult
from fused_cache_ops.outcome.indexing import DatasetIndexWait, IndexWait
from fused_cache_ops.outcome.interruption import InvalidationInterrupted
from fused_cache_ops.outcome.invalidation import InvalidationResult, Verification
from fused_cache_ops.outcome.passes import DatasetFirstPass, FirstPass
from fused_cache_ops.outcome.refresh import RefreshResult
from fused_cache_ops.plan.plan import InvalidationPlan, PlannedTarget, plan_selection
from fused_cache_ops.running.refresh import RefreshPlan, plan_refresh, refresh_selection
from fused_cache_ops.running.verification import verify_selection
from fused_cache_ops.secret import Secret, sealed, sealed_udf
from fused_cache_ops.selection.reading import read_selection, refuse_single_use
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.sending.call import Call, check_announcing
from fused_cache_ops.sending.checkpoint import check_location
from fused_cache_ops.sending.indexing import look_at_index, look_at_indexes
from fused_cache_ops.sending.targets import Targets, check_related, find_targets, refuse_shard
from fused_cache_ops.service.canvases import read_team_udfs, read_udf
from fused_cache_ops.service.service import Service
from fused_cache_ops.settings import (
    DEFAULT_CONCURRENCY,
    DEFAULT_DEADLINE,
    DEFAULT_TIMEOUT,
    ClientId,
    check_limits,
    resolve_settings,
)
from fused_cache_ops.udf_reference import parse_udf

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fused_cache_ops.cache_map.dataset import OnDatasetPlan
    from fused_cache_ops.cache_map.suggest import Suggestion
    from fused_cache_ops.dbt.artifacts import DbtPath
    from fused_cache_ops.dbt.call import DbtFirstPass
    from fused_cache_ops.keywords.call import DatasetKeywords
    from fused_cache_ops.keywords.values import InnerCaches, LoadedAt, NotGiven, Related
    from fused_cache_ops.lineage.report import UdfReport
    from fused_cache_ops.outcome.dbt import DbtResult
    from fused_cache_ops.plan.plan import OnPlan
    from fused_cache_ops.progress import OnProgress
    from fused_cache_ops.settings import Certificate


@dataclass(frozen=True)
class TeamEnvironment:
    """The team environment that a token belongs to."""

    id: str | None
    name: str | None


@dataclass(frozen=True)
class TeamUdf:
    """A UDF of the token's team.

    Attributes:
        id: its id.
        name: its name. None if the service does not say it.
        canvas: the name of its canvas. None if the service does not say it.
    """

    id: str
    name: str | None
    canvas: str | None

    @property
    def reference(self) -> str:
        """How a call names it: ``canvas/name`` as far as known, otherwise its id."""
        return self.id if self.name is None else "/".join(filter(None, (self.canvas, self.name)))


class FusedClient:
    """A client of one Fused deployment, with one pool of kept-alive connections and one TLS context.

    Use it as a context manager, from any number of threads. It cannot be pickled, because it holds a token: create it where
    it is used.

    Args:
        token: a service-account token. Default: ``FUSED_SERVICE_ACCOUNT_TOKEN``, otherwise the SDK's pair
            ``FUSED_AUTH_TOKEN_TYPE`` and ``FUSED_AUTH_TOKEN``. Pass ``"Bearer …"`` for a personal access token.
        client_id: one real-time instance, several (a list, or text with commas), or ``"all"``. Default: ``FUSED_CLIENT_ID``,
            otherwise every instance on which a UDF's results may lie: the service's preferred one, and the one that the shared
            UDFs of its canvas run on. Looking these up takes up to three requests per call.
        base_url: the deployment. Default: ``FUSED_BASE_URL``, otherwise ``https://www.fused.io/server/v1``. Plain http is
            accepted only for this machine.
        timeout: seconds that one request may take, until the last byte of the response.
        deadline: seconds that one call may take, retries included.
        max_concurrency: requests in flight at once when tiles are sent one by one. At most four batches are in flight.
        max_requests_per_second: the most requests per second, for all calls of this client together. None: as many as the
            service accepts. After "too many requests", a sustainable rate is determined, and all workers keep to it.
        ca_bundle: certificates to trust, as a file or a folder. Default: what ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``
            or ``SSL_CERT_FILE`` names, otherwise requests' own.
        client_certificate: the path of a PEM file to present to the server, or the paths of a certificate and its key.
        run_base_url: where shared UDFs run, for ``verify_tiles`` and ``refresh``. Default: ``FUSED_RUN_BASE_URL``, otherwise
            ``https://udf.ai`` for www.fused.io.
        passcode: the passcode of a public canvas, for ``verify_tiles`` and ``refresh``. Default: ``FUSED_CANVAS_PASSCODE``.
            A team canvas needs none: a session token is minted for it.
        allow_http: allow plain http to other machines, which sends the token unencrypted.

    Raises:
        ConfigurationError: a setting is missing or invalid.
    """

    def __init__(
        self,
        *,
        token: str | Secret | None = None,
        client_id: ClientId | None = None,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        deadline: float = DEFAULT_DEADLINE,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        max_requests_per_second: float | None = None,
        ca_bundle: str | None = None,
        client_certificate: Certificate | None = None,
        run_base_url: str | None = None,
        passcode: str | Secret | None = None,
        allow_http: bool = False,
    ) -> None:
        token, passcode = sealed(token), sealed(passcode)  # masked in the locals of a traceback
        settings = resolve_settings(
            token=token,
            client_id=client_id,
            base_url=base_url,
            run_base_url=run_base_url,
            passcode=passcode,
            allow_http=allow_http,
        )
        check_limits(timeout, deadline, max_concurrency, max_requests_per_second)
        self._service = Service(
            settings,
            timeout=timeout,
            deadline=deadline,
            max_concurrency=max_concurrency,
            max_requests_per_second=max_requests_per_second,
            ca_bundle=ca_bundle,
            client_certificate=client_certificate,
        )

    @property
    def base_url(self) -> str:
        """The deployment's address."""
        return self._service.base_url

    @property
    def run_base_url(self) -> str | None:
        """Where the deployment runs shared UDFs, or None if unknown."""
        return self._service.run_base_url

    @property
    def timeout(self) -> float:
        """Seconds that one request may take."""
        return self._service.timeout

    @property
    def deadline(self) -> float:
        """Seconds that one call may take, retries included."""
        return self._service.deadline

    @property
    def max_concurrency(self) -> int:
        """Requests in flight at once when tiles are sent one by one."""
        return self._service.max_concurrency

    @property
    def client_id(self) -> str | None:
        """The preferred real-time instance, if it was configured or has been looked up."""
        return self._service.client_id

    def invalidate_cache(
        self,
        udf: str | Secret,
        *,
        on_progress: OnProgress | None = None,
        on_plan: OnPlan | None = None,
        **keywords: Unpack[CallKeywords],
    ) -> InvalidationResult:
        """Invalidate the cached results of a UDF, over this client's connections.

        Takes the keywords of `fused_cache_ops.invalidate_cache`, except for ``client``.
        """
        udf = sealed_udf(udf)
        keywords["shared_token"] = sealed(keywords.get("shared_token"))
        keywords["announce"] = sealed_announce(keywords.get("announce", NOT_GIVEN))
        call, _ = self._call(udf, keywords, on_progress, on_plan)
        return call.run()

    def first_pass(
        self,
        udf: str | Secret,
        *,
        on_progress: OnProgress | None = None,
        on_plan: OnPlan | None = None,
        **keywords: Unpack[CallKeywords],
    ) -> FirstPass:
        """The first of the two passes of ``again_after``, for orchestrators that can wait without keeping a worker.

        After ``again_after`` seconds, call `second_pass` with the same keywords, from any process. Tiles are not verified
        before that.

        Args:
            udf: as for `fused_cache_ops.invalidate_cache`.
            on_progress: as for `fused_cache_ops.invalidate_cache`.
            on_plan: as for `fused_cache_ops.invalidate_cache`.
            keywords: as for `invalidate_cache`.

        Raises:
            FusedCacheError: as for `invalidate_cache`.
        """
        udf = sealed_udf(udf)
        keywords["shared_token"] = sealed(keywords.get("shared_token"))
        keywords["announce"] = sealed_announce(keywords.get("announce", NOT_GIVEN))
        call, plan = self._call(udf, keywords, on_progress, on_plan, only_pass=1)
        return FirstPass(plan.fingerprint, call.run())

    def second_pass(
        self,
        udf: str | Secret,
        first: FirstPass,
        *,
        on_progress: OnProgress | None = None,
        on_plan: OnPlan | None = None,
        **keywords: Unpack[CallKeywords],
    ) -> InvalidationResult:
        """The second of the two passes of ``again_after``, and the verification, if requested.

        Args:
            udf: as for `first_pass`.
            first: what `first_pass` returned.
            on_progress: as for `first_pass`.
            on_plan: as for `first_pass`.
            keywords: as for `first_pass`.

        Returns:
            The result of both passes.

        Raises:
            InvalidInputError: the keywords select other tiles than the first pass.
            FusedCacheError: as for `invalidate_cache`.
        """
        udf = sealed_udf(udf)
        keywords["shared_token"] = sealed(keywords.get("shared_token"))
        keywords["announce"] = sealed_announce(keywords.get("announce", NOT_GIVEN))
        if not isinstance(first, FirstPass):
            raise InvalidInputError(f"first is of type {type(first).__name__}: pass what first_pass returned.")
        call, plan = self._call(udf, keywords, on_progress, on_plan, only_pass=2)
        if plan.fingerprint != first.fingerprint:
            raise InvalidInputError(
                f"The selection has changed since the first pass (its fingerprint was {first.fingerprint} and is now "
                f"{plan.fingerprint}), so the second pass would not invalidate the same tiles. The first pass is done. Run the "
                "invalidation again, with a selection that stays the same while it waits."
            )
        return first.result.followed_by(call.run())

    def _call(
        self,
        udf: str | Secret,
        keywords: CallKeywords,
        on_progress: OnProgress | None,
        on_plan: OnPlan | None,
        *,
        only_pass: Literal[1, 2] | None = None,
    ) -> tuple[Call, InvalidationPlan]:
        refuse_unknown(keywords, CALL_DEFAULTS)
        given: CallKeywords = {**CALL_DEFAULTS, **keywords}
        retrier = self._service.start()  # from here on, `cancel` ends this call
        reference = parse_udf(udf)
        selecting: SelectionKeywords = {name: given[name] for name in SELECTION_DEFAULTS}  # type: ignore[literal-required,assignment]
        selection = read_selection(retrier.check, **selecting)
        if isinstance(selection, WholeUdf) and selection.note is None:
            refuse_without_selection(given)
        if given["checkpoint"] is not None:
            check_location(given["checkpoint"])
        folders = read_folders(given["inner_caches"])
        loaded_at = None if given["loaded_at"] is NOT_GIVEN else read_moment("loaded_at", given["loaded_at"])
        index = read_h3_index(given["h3_index"], given["loaded_at"])
        announcing = read_announce(sealed_announce(given["announce"]))
        if announcing is not None:
            check_announcing(announcing, given["related"])
        refresh = _planned_refresh(selection, given["refresh"], is_read_again=announcing is not None)
        # Counting takes time, and exhausts what can be read only once. The call itself refuses to send that twice.
        plan = (
            plan_selection(reference, selection, refresh)
            if on_plan is not None or (only_pass and _is_repeatable(selection))
            else None
        )

        def show(targets: Targets | None) -> None:
            if on_plan is not None and plan is not None:
                is_sent = targets is not None
                shown = replace(
                    plan,
                    h3_index=str(index) if index is not None and is_sent else None,
                    announce=str(announcing) if announcing is not None and is_sent else None,
                )
                on_plan(shown if targets is None else shown.sent_to(_planned(targets)))

        call = Call(
            self._service,
            retrier,
            reference,
            selection,
            on_targets=show,
            checkpoint=given["checkpoint"],
            on_progress=on_progress,
            verify_tiles=given["verify_tiles"],
            fail_on_stale=given["fail_on_stale"],
            shared_token=sealed(given["shared_token"]),
            related=given["related"],
            max_related=given["max_related"],
            inner_caches=folders,
            h3_index=index,
            loaded_at=loaded_at,
            again_after=given["again_after"],
            refresh_plan=refresh,
            announcing=announcing,
            only_pass=only_pass,
        )
        return call, cast("InvalidationPlan", plan)

    def invalidate_dataset(
        self,
        dataset: str,
        *,
        cache_map: MapLocation = DEFAULT_MAP,
        on_progress: OnProgress | None = None,
        on_plan: OnDatasetPlan | None = None,
        **keywords: Unpack[DatasetKeywords],
    ) -> DatasetResult:
        """Invalidate every UDF that shows a dataset, over this client's connections.

        Takes the keywords of `fused_cache_ops.invalidate_dataset`, except for ``client``.
        """
        from fused_cache_ops.cache_map.dataset import DatasetCall

        call = DatasetCall(self._service, CacheMap.of(cache_map), dataset, keywords, on_progress=on_progress, on_plan=on_plan)
        return call.run()

    def invalidate_dbt(
        self,
        path: DbtPath,
        *,
        cache_map: MapLocation | None = None,
        newer_than: Any = None,
        repeat: bool = False,
        on_progress: OnProgress | None = None,
        on_plan: OnDatasetPlan | None = None,
        **keywords: Unpack[DatasetKeywords],
    ) -> DbtResult:
        """Invalidate every UDF that shows what a dbt build changed, over this client's connections.

        Takes the keywords of `fused_cache_ops.invalidate_dbt`, except for ``client``.
        """
        from fused_cache_ops.dbt.call import DbtCall, noting, read_dbt
        from fused_cache_ops.dbt.maps import maps_of

        build = read_dbt(path, newer_than=newer_than, repeat=repeat)
        call = DbtCall(self._service, build, maps_of(build, cache_map), keywords, on_progress=on_progress, on_plan=on_plan)
        with noting(path, build):
            return call.run()

    def first_dbt_pass(
        self,
        path: DbtPath,
        *,
        cache_map: MapLocation | None = None,
        newer_than: Any = None,
        repeat: bool = False,
        on_progress: OnProgress | None = None,
        **keywords: Unpack[DatasetKeywords],
    ) -> DbtFirstPass:
        """Like `first_dataset_pass`, for what a dbt build changed. After its ``again_after`` seconds, or at once if they are
        0, call `second_dbt_pass` with the same keywords, which also raises what failed here.

        Raises:
            FusedCacheError: as for `invalidate_dbt`, if nothing was sent.
        """
        from fused_cache_ops.dbt.call import DbtCall, read_dbt
        from fused_cache_ops.dbt.maps import maps_of

        build = read_dbt(path, newer_than=newer_than, repeat=repeat)
        return DbtCall(self._service, build, maps_of(build, cache_map), keywords, on_progress=on_progress).first_pass()

    def second_dbt_pass(
        self,
        path: DbtPath,
        first: DbtFirstPass,
        *,
        cache_map: MapLocation | None = None,
        on_progress: OnProgress | None = None,
        **keywords: Unpack[DatasetKeywords],
    ) -> DbtResult:
        """Like `second_dataset_pass`, for what a dbt build changed. dbt's files are not read again: only what the first pass
        covers is noted beside them as handled.

        Raises:
            FusedCacheError: as for `invalidate_dbt`.
        """
        from fused_cache_ops.dbt.call import DbtCall, noting
        from fused_cache_ops.dbt.maps import maps_of

        call = DbtCall(self._service, first.build, maps_of(first.build, cache_map), keywords, on_progress=on_progress)
        with noting(path, first.build):
            return call.second_pass(first)

    def first_dataset_pass(
        self,
        dataset: str,
        *,
        cache_map: MapLocation = DEFAULT_MAP,
        on_progress: OnProgress | None = None,
        indexes: DatasetIndexWait | None = None,
        **keywords: Unpack[DatasetKeywords],
    ) -> DatasetFirstPass:
        """Like `first_pass`, for every UDF that shows a dataset. After its ``again_after`` seconds, call
        `second_dataset_pass` with the same keywords. UDFs without ``again_after`` are complete. ``indexes`` is what
        `look_at_dataset_indexes` has returned, so that H3 indexes are not run again.

        Raises:
            FusedCacheError: as for `invalidate_dataset`.
        """
        from fused_cache_ops.cache_map.dataset import DatasetCall

        call = DatasetCall(
            self._service, CacheMap.of(cache_map), dataset, keywords, on_progress=on_progress, only_pass=1, indexes=indexes
        )
        return call.first_pass()

    def look_at_dataset_indexes(
        self,
        dataset: str,
        waiting: DatasetIndexWait | None = None,
        *,
        cache_map: MapLocation = DEFAULT_MAP,
        h3_index: H3IndexOptions | NotGiven = NOT_GIVEN,
        loaded_at: LoadedAt | NotGiven = NOT_GIVEN,
    ) -> DatasetIndexWait:
        """Like `look_at_index`, for every index that a UDF of a dataset has run, as the map or ``h3_index`` says.

        Call it again after the ``seconds`` of what it returns, with that as ``waiting``, until ``seconds`` is None. Then pass
        what it returned to `first_dataset_pass` as ``indexes``.

        Raises:
            InvalidInputError: the map cannot be read, or does not list the dataset, or an index cannot be read.
        """
        from fused_cache_ops.cache_map.dataset import indexes_of

        wanted = indexes_of(CacheMap.of(cache_map), dataset, h3_index, loaded_at)
        return look_at_indexes(self._service, self._service.start(), wanted, waiting or DatasetIndexWait())

    def second_dataset_pass(
        self,
        dataset: str,
        first: DatasetFirstPass,
        *,
        cache_map: MapLocation = DEFAULT_MAP,
        on_progress: OnProgress | None = None,
        **keywords: Unpack[DatasetKeywords],
    ) -> DatasetResult:
        """Like `second_pass`, for the UDFs of a dataset that have one.

        Raises:
            InvalidInputError: the keywords or the map select other tiles than the first pass.
            FusedCacheError: as for `invalidate_dataset`.
        """
        from fused_cache_ops.cache_map.dataset import DatasetCall

        call = DatasetCall(
            self._service, CacheMap.of(cache_map), dataset, keywords, on_progress=on_progress, only_pass=2, first=first
        )
        return call.run()

    def plan_invalidation(
        self,
        udf: str | Secret,
        *,
        related: Related | None = None,
        max_related: int = CALL_DEFAULTS["max_related"],
        inner_caches: InnerCaches | NotGiven = NOT_GIVEN,
        h3_index: H3IndexOptions | NotGiven = NOT_GIVEN,
        loaded_at: LoadedAt | NotGiven = NOT_GIVEN,
        refresh: Refresh = 0,
        announce: Announce | NotGiven = NOT_GIVEN,
        **selection: Unpack[SelectionKeywords],
    ) -> InvalidationPlan:
        """What `invalidate_cache` would do with the same keywords, and where: the instances, the callers and the callees are
        looked up. Changes nothing.

        It takes up to three requests, and none for an empty selection.

        Args:
            udf: as for `fused_cache_ops.invalidate_cache`.
            related: as there.
            max_related: as there.
            inner_caches: as there. The plan names the folders that ``"own"`` stands for.
            h3_index: as there. Its index is not looked at.
            loaded_at: as there.
            refresh: as there. The plan's ``refresh_runs`` says how many runs it would be.
            announce: as there.
            selection: the keywords that select tiles.

        Raises:
            InvalidInputError: the UDF or the selection cannot be read, there are more relatives than ``max_related``, or more
                runs than the ``max_tiles`` of ``refresh``.
            FusedCacheError: a lookup failed.
        """
        udf = sealed_udf(udf)
        refuse_single_use(selection, "the plan would use it up", pipes=True)
        check_related(related, max_related)
        folders = read_folders(inner_caches)
        index = read_h3_index(h3_index, loaded_at)
        announcing = read_announce(sealed_announce(announce))
        if announcing is not None:
            check_announcing(announcing, related)
        retrier = self._service.start()
        reference = parse_udf(udf)
        read = read_selection(retrier.check, **selection)
        if related is not None:
            refuse_shard(read.shard)
        plan = plan_selection(reference, read, plan_refresh(read, refresh))
        if plan.tile_count == 0:
            return plan
        has_tiles = isinstance(read, Selection)
        found = find_targets(self._service, retrier, reference, related, max_related, folders, has_tiles=has_tiles)
        return replace(
            plan.sent_to(_planned(found)),
            h3_index=None if index is None else str(index),
            announce=None if announcing is None else str(announcing),
        )

    def look_at_index(
        self, h3_index: H3IndexOptions, waiting: IndexWait | None = None, *, loaded_at: LoadedAt | NotGiven = NOT_GIVEN
    ) -> IndexWait | None:
        """Look once at the index of an H3 table, for orchestrators that can wait without keeping a worker. The first look
        starts a run of it, if that is asked for.

        Call it again after the ``seconds`` of what it returns, with that as ``waiting``, from any process. Once it returns
        None, invalidate without ``h3_index``.

        Args:
            h3_index: as for `fused_cache_ops.invalidate_cache`.
            waiting: what the last look returned.
            loaded_at: as for `fused_cache_ops.invalidate_cache`.

        Returns:
            When to look again, or None if the index has what was loaded.

        Raises:
            InvalidInputError: a key of ``h3_index`` is missing or cannot be read.
            UnavailableError: the index is older than the load and not to be run, its run failed, or its deadline has passed.
            FusedCacheError: a request failed.
        """
        index = read_h3_index(h3_index, loaded_at)
        if index is None:
            raise InvalidInputError("h3_index is omitted, so that there is no index to look at: pass a mapping with its path.")
        return look_at_index(self._service, self._service.start(), index, waiting)

    def verify_cache(
        self,
        udf: str | Secret,
        *,
        verify_tiles: int,
        shared_token: str | Secret | None = None,
        **selection: Unpack[SelectionKeywords],
    ) -> Verification:
        """Request some tiles of a selection, and report which of them the UDF computed anew.

        Right after an invalidation that covered the selection, and before anyone else requests them, all tiles are fresh. A
        second call finds in the cache what the first call computed.

        Args:
            udf: as for `fused_cache_ops.invalidate_cache`.
            verify_tiles: how many tiles to request, drawn at random. Each one runs the UDF.
            shared_token: a shared token of the UDF. Not needed if ``udf`` is one.
            selection: the keywords of `fused_cache_ops.invalidate_cache` that select tiles.

        Raises:
            InvalidInputError: the selection cannot be read, or is the whole UDF.
            ConfigurationError: there is no shared token, or the address where shared UDFs run is unknown.
        """
        udf, shared_token = sealed_udf(udf), sealed(shared_token)
        retrier = self._service.start()
        reference = parse_udf(udf)
        read = read_selection(retrier.check, **selection)
        return verify_selection(self._service, retrier, reference, read, verify_tiles, shared_token)

    def refresh_cache(
        self,
        udf: str | Secret,
        *,
        refresh: Refresh = "all",
        shared_token: str | Secret | None = None,
        on_progress: OnProgress | None = None,
        **selection: Unpack[SelectionKeywords],
    ) -> RefreshResult:
        """Run a UDF for the tiles of a selection, so that they are cached, over this client's connections. Nothing is
        invalidated, and what is cached already costs no run.

        Takes the keywords of `fused_cache_ops.refresh_cache`, except for ``client``.
        """
        udf, shared_token = sealed_udf(udf), sealed(shared_token)
        retrier = self._service.start()
        reference = parse_udf(udf)
        plan = plan_refresh(read_selection(retrier.check, **selection), refresh)
        return refresh_selection(self._service, retrier, reference, plan, shared_token, on_progress)

    def resolve_udf(self, udf: str | Secret) -> str:
        """The id of a UDF given by id, name or shared token. An id needs no request. The UDF's code is never run.

        Raises:
            InvalidInputError: the reference cannot be read.
            NotFoundError: the UDF does not exist, or this token may not see it.
            FusedCacheError: the lookup failed.
        """
        udf = sealed_udf(udf)
        reference = parse_udf(udf)
        return reference.udf_id or read_udf(self._service, reference, retrier=self._service.start()).id

    def resolve_client_id(self) -> str:
        """The preferred real-time instance: the first one configured, otherwise the one with the highest ``preference_rank``.

        Raises:
            ConfigurationError: the token has no real-time instance.
            FusedCacheError: the lookup failed.
        """
        return self._service.resolve_client_id()

    def check(self) -> TeamEnvironment:
        """Check that the token is valid, and return its environment. Changes nothing.

        Raises:
            AuthenticationError: the token is not valid.
            FusedCacheError: the check failed.
        """
        return TeamEnvironment(**self._service.read_environment())

    def inspect(self, udf: str | Secret) -> UdfReport:
        """What could keep the map of a UDF stale although an invalidation succeeds: UDFs that call it or are called by it,
        another real-time instance, caches inside the code, indexes of H3 tables, layers of maps. Changes nothing, and never
        runs the UDF's code.

        It takes up to three requests, and one for each H3 table that is queried, up to ten. What the token may not see is named
        in the report's ``unknown``.

        Args:
            udf: as for `fused_cache_ops.invalidate_cache`.

        Raises:
            InvalidInputError: the reference cannot be read.
            NotFoundError: the UDF does not exist, or this token may not see it.
            FusedCacheError: a lookup failed.
        """
        from fused_cache_ops.lineage.report import inspect_udf

        udf = sealed_udf(udf)
        return inspect_udf(self._service, self._service.start(), parse_udf(udf))

    def list_udfs(self) -> tuple[TeamUdf, ...]:
        """The UDFs of the token's team. It takes a request for every 300 UDFs. Changes nothing.

        Raises:
            PermissionDeniedError: this token may not list them.
            FusedCacheError: the lookup failed.
        """
        records = read_team_udfs(self._service, retrier=self._service.start())
        return tuple(TeamUdf(each.id, each.name, each.canvas_name) for each in records)

    def suggest_map(self) -> Suggestion:
        """A first draft of a cache map, from the code of the team's UDFs, which is read but never run.

        It takes a request for every 300 UDFs.

        Raises:
            FusedCacheError: a lookup failed.
        """
        from fused_cache_ops.cache_map.suggest import read_team, suggest_map

        return suggest_map(read_team(self._service, self._service.start()))

    def cancel(self) -> None:
        """End the calls in progress immediately, from any thread. Calls that begin later are not affected.

        The ended calls raise `InvalidationCancelledError`, or `PartialInvalidationError` if some tiles were already done. Both
        hold the tiles not yet confirmed as invalidated.
        """
        self._service.cancel()

    def close(self) -> None:
        """Close the connections. If the client is used again, it opens new ones."""
        self._service.close()

    def __enter__(self) -> FusedClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        # A traceback may show a client whose constructor failed.
        service = getattr(self, "_service", None)
        fields = (f"{name}={getattr(service, name, None)!r}" for name in ("base_url", "client_id"))
        return f"FusedClient({', '.join(fields)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a FusedClient cannot be pickled, because it holds a token: create it where it is used, "
            "with FusedClient() and FUSED_SERVICE_ACCOUNT_TOKEN, or with your orchestrator's secret."
        )


def _is_repeatable(selection: Selection | WholeUdf) -> bool:
    return isinstance(selection, WholeUdf) or selection.repeatable


def _planned(targets: Targets) -> tuple[PlannedTarget, ...]:
    return tuple(
        PlannedTarget(each.cache.udf_id, each.name, each.cache.client_id, each.relation, each.is_whole, each.called_by)
        for each in targets.all
    )


def _planned_refresh(selection: Selection | WholeUdf, refresh: Refresh, *, is_read_again: bool) -> RefreshPlan | None:
    """What is to be refreshed. If the selection cannot be read to its end, the error has what was read."""
    try:
        if is_read_again and isinstance(selection, Selection):
            selection.file()
        return plan_refresh(selection, refresh)
    except (Exception, KeyboardInterrupt) as error:
        left = selection.unwatched().remaining(Spans()) if isinstance(selection, Selection) else None
        if isinstance(error, KeyboardInterrupt):
            raise InvalidationInterrupted(error, remaining=left) from error
        failure: FusedCacheError
        if isinstance(error, FusedCacheError):
            failure = error
        else:
            kind = UnavailableError if isinstance(error, OSError) else InvalidInputError
            failure = kind(f"The selection cannot be read: {type(error).__name__}: {error}. Nothing was sent.")
        failure.remaining = left
        if failure is error:
            raise
        raise failure from error
