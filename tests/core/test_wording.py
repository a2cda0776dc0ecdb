"""How counts and reasons are put into words."""

import pytest

from fused_cache_ops.errors import FusedCacheError, InvalidInputError, UnavailableError
from fused_cache_ops.outcome.dataset import DatasetInvalidationError, DatasetResult
from fused_cache_ops.outcome.invalidation import InvalidationResult, RefreshError, Verification, VerificationError
from fused_cache_ops.outcome.refresh import RefreshResult
from fused_cache_ops.selection.geometry import Systems
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.wording import counted, with_reasons

NOTHING_LEFT = RemainingTiles(lambda: iter(()))


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [(0, "tile", "0 tiles"), (1, "retry", "1 retry"), (2, "retry", "2 retries"), (1639, "tile", "1,639 tiles")],
)
def test_a_count_has_its_noun_and_its_thousands_marked(number: int, noun: str, shown: str) -> None:
    assert counted(number, noun) == shown


def test_a_reason_is_said_once_for_all_that_have_it() -> None:
    lines = ["1/0/0: gone", "1/0/1: slow", "1/1/0: gone", "something else"]
    assert list(with_reasons(lines)) == ["1/0/0, 1/1/0: gone", "1/0/1: slow", "something else"]


def test_of_many_with_the_same_reason_some_are_named() -> None:
    assert list(with_reasons([f"1/0/{y}: gone" for y in range(1500)], 2)) == ["1/0/0, 1/0/1, and 1,498 more: gone"]


def test_the_same_line_twice_is_said_once() -> None:
    assert list(with_reasons(["nobody knows", "nobody knows"])) == ["nobody knows"]


def failed(**messages: str) -> str:
    errors: dict[str, FusedCacheError] = {udf: UnavailableError(message) for udf, message in messages.items()}
    return DatasetInvalidationError(DatasetResult("parcels", {}, errors)).message


def test_udfs_of_a_dataset_that_failed_alike_have_their_reason_said_once() -> None:
    given = {
        udf: f"Failed looking up UDF '{udf}': no response from host. Gave up after {n} attempts in {n}.5 s: it is 9 s."
        for n, udf in enumerate("abcdefgh", start=2)
    }
    message = failed(**given)
    assert "a, b, c, d, e, f, g, h: no response from host. Gave up: it is 9 s." in message
    assert message.count("no response") == 1


def test_the_message_of_a_dataset_has_ten_reasons_at_most() -> None:
    message = failed(**{f"u{number}": f"reason {number}." for number in range(12)})
    assert message.count(": reason ") == 10
    assert "And 2 other reasons: see this error's .result.failed." in message


def test_a_udf_of_a_dataset_that_failed_by_itself_has_its_whole_message() -> None:
    message = failed(a="Failed looking up UDF 'a': no response.", b="Failed invalidating UDF 'b': 503.")
    assert "a: Failed looking up UDF 'a': no response. b: Failed invalidating UDF 'b': 503." in message


def test_tiles_that_could_not_be_refreshed_for_one_reason_have_it_said_once() -> None:
    found = RefreshResult(failed=tuple(f"1/0/{y}: the UDF raised" for y in range(5)))
    assert "5 results could not be refreshed: 1/0/0, 1/0/1, 1/0/2, and 2 more: the UDF raised." in str(
        RefreshError(found, NOTHING_LEFT)
    )


def test_a_verification_marks_its_thousands() -> None:
    checked = Verification(fresh=("1/0/0",) * 1639, from_cache=tuple(f"11/0/{y}: memory" for y in range(306)))
    assert str(checked) == "verified: 1,639 of 1,945"


def test_what_came_from_the_cache_is_named_with_its_tier_once() -> None:
    checked = Verification(from_cache=tuple(f"11/0/{y}: memory" for y in range(1200)))
    result = InvalidationResult("id", "c", 1200, None, 1, 0, 1.0, verification=checked)
    message = VerificationError(result, NOTHING_LEFT).message
    assert "1,200 of 1,200 tiles still came from the cache" in message
    assert ": 11/0/0, 11/0/1, 11/0/2, and 1,197 more: memory. " in message


@pytest.mark.parametrize("degrees", ["EPSG:4326", "OGC:CRS84", "WGS 84"])
def test_degrees_have_one_name_in_a_message_whatever_they_are_called(degrees: str) -> None:
    systems = Systems("EPSG:25832")
    with pytest.raises(InvalidInputError, match=r"^It is in 'EPSG:4326', but crs = 'EPSG:25832' was given"):
        systems.find(degrees, "It")
    with pytest.raises(InvalidInputError, match=r"^It is in 'EPSG:25832', but crs = 'EPSG:4326' was given"):
        Systems(degrees).find("EPSG:25832", "It")
