"""The keywords of a call on a client: those that select tiles, and those that control sending and what follows it."""

from typing import Annotated, TypedDict

from fused_cache_ops.keywords.announce import Announce
from fused_cache_ops.keywords.h3_index import H3IndexOptions
from fused_cache_ops.keywords.option import Option, defaults_of, options_of
from fused_cache_ops.keywords.refresh import Refresh
from fused_cache_ops.keywords.selection import SELECTION_OPTIONS, SelectionKeywords
from fused_cache_ops.keywords.text import (
    read_boolean,
    read_list_or_text,
    read_mapping,
    read_mapping_or_text,
    read_number,
    read_seconds,
)
from fused_cache_ops.keywords.values import NOT_GIVEN, CheckpointLocation, InnerCaches, LoadedAt, NotGiven, Related
from fused_cache_ops.secret import Secret


class SendingKeywords(TypedDict, total=False):
    """The keywords that control sending, and what follows it."""

    checkpoint: Annotated[
        CheckpointLocation | None,
        Option(
            None,
            "Where to record what is done, so that a retry sends only the rest: a path, or a URL that fsspec supports. Use one "
            "location per load.",
            needs_selection=True,
        ),
    ]
    verify_tiles: Annotated[
        int,
        Option(
            0,
            "Afterwards, request this many of the tiles through a shared token, and report which were computed anew.",
            read_number,
            needs_selection=True,
        ),
    ]
    fail_on_stale: Annotated[
        bool,
        Option(
            True,
            "Fail if a tile of verify_tiles still comes from the cache after it was invalidated twice more.",
            read_boolean,
        ),
    ]
    related: Annotated[
        Related | None,
        Option(
            None, "Also invalidate the UDFs of the same canvas that call this one (callers), that it calls (callees), or both."
        ),
    ]
    max_related: Annotated[int, Option(20, "The most UDFs that related may add.", read_number)]
    inner_caches: Annotated[
        InnerCaches | NotGiven,
        Option(
            NOT_GIVEN,
            "Before that, delete the folders in which functions under @fused.cache keep their results: the names of folders "
            "(cache_folder_path), or own for those that the UDF's code names. Default: none.",
            read_list_or_text,
        ),
    ]
    h3_index: Annotated[
        H3IndexOptions | NotGiven,
        Option(
            NOT_GIVEN,
            "The index of the H3 table that the UDF queries, which must have what was loaded before anything is sent: a "
            "mapping with path, loaded_at, run, prefix and deadline.",
            read_mapping,
        ),
    ]
    loaded_at: Annotated[
        LoadedAt | NotGiven,
        Option(
            NOT_GIVEN,
            "When the load was done, with its time zone, so that the result says how long the map was stale.",
        ),
    ]
    again_after: Annotated[
        float,
        Option(
            0,
            "Send everything a second time after this many seconds, for runs that were under way. 130 is a good value.",
            read_seconds,
        ),
    ]
    refresh: Annotated[
        Refresh,
        Option(
            0,
            "Afterwards, run the UDF again for this many of the tiles, or for all, so that visitors find them cached.",
            read_mapping_or_text,
        ),
    ]

    announce: Annotated[
        Announce | NotGiven,
        Option(
            NOT_GIVEN,
            "Afterwards, put what has changed where open maps look for it: a path, a URL that fsspec supports, an https "
            "address to POST it to, or a mapping with to, source, secret and must_succeed.",
            read_mapping_or_text,
        ),
    ]


class DatasetKeywords(SelectionKeywords, SendingKeywords, total=False):
    """The keywords of `fused_cache_ops.FusedClient.invalidate_dataset`."""


class CallKeywords(DatasetKeywords, total=False):
    """The keywords of `fused_cache_ops.FusedClient.invalidate_cache`."""

    shared_token: Annotated[
        str | Secret | None,
        Option(
            None,
            "The shared token to verify and refresh with. Not needed if the UDF is given by a shared token.",
            stored=False,
        ),
    ]


SENDING_OPTIONS = options_of(SendingKeywords)
CALL_OPTIONS = {**SELECTION_OPTIONS, **SENDING_OPTIONS, **options_of(CallKeywords)}
DATASET_DEFAULTS: DatasetKeywords = defaults_of(DatasetKeywords)  # type: ignore[assignment]
CALL_DEFAULTS: CallKeywords = {name: option.default for name, option in CALL_OPTIONS.items()}  # type: ignore[assignment]

NEEDS_SELECTION = tuple(name for name, option in CALL_OPTIONS.items() if option.needs_selection)
"""The keywords that require a selection. On their own, they must not invalidate everything."""
