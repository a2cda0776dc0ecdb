"""What open maps are told, in real flow runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from fused_cache_ops import AnnouncementError, InvalidInputError
from fused_cache_ops.emulator import Emulator
from prefect_fused import invalidate_cache, invalidate_cache_flow
from prefect_fused.second_pass import SecondPass

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api", "udf")]

HOOK = "https://hooks.example.com/T0K3N/Zq7Xw9Kt3V"


@flow
def pipeline(**keywords: Any) -> dict[str, Any]:
    return invalidate_cache(**keywords)


@pytest.mark.parametrize("form", ["task", "flow"])
def test_a_run_announces_what_it_invalidated(form: str, tmp_path: Path) -> None:
    how = {"to": str(tmp_path / "map.json"), "source": "streets"}
    run: Any = pipeline if form == "task" else invalidate_cache_flow
    result = run(udf="roads", tiles=["1/0/0"], announce=how)
    document = json.loads((tmp_path / "map.json").read_text())
    assert (document["source"], document["changes"][0]["tiles"]) == ("streets", ["1/0/0"])
    assert result["announcement"]["version"] == 1


def test_mapped_over_udfs_each_gets_the_whole_mapping(fused_emulator: Emulator, tmp_path: Path) -> None:
    fused_emulator.register(dict, name="rivers")

    @flow
    def mapped() -> Any:
        how = {"to": f"{tmp_path}/", "must_succeed": True}
        return [each.result() for each in invalidate_cache.map(["roads", "rivers"], announce=how)]

    assert [each["announcement"]["source"] for each in mapped()] == ["roads", "rivers"]
    assert {path.name for path in tmp_path.glob("*.json")} == {"roads.json", "rivers.json"}


def test_what_must_be_announced_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("else")
    with pytest.raises(AnnouncementError, match="Everything is invalidated"):
        pipeline(udf="roads", announce={"to": str(tmp_path / "map.json"), "must_succeed": True})


@pytest.mark.parametrize("how", [HOOK, {"to": HOOK}], ids=["text", "mapping"])
def test_an_address_to_post_to_is_not_taken_as_a_parameter(fused_emulator: Emulator, how: Any) -> None:
    with pytest.raises(InvalidInputError, match="env:MAP_WEBHOOK") as caught:
        invalidate_cache_flow("roads", tiles=["1/0/0"], announce=how)
    assert "T0K3N" not in str(caught.value)
    assert fused_emulator.requests == []


def test_the_scheduled_second_pass_announces(tmp_path: Path) -> None:
    keywords: Any = {"tiles": ["1/0/0"], "again_after": 130, "announce": tmp_path / "map.json"}
    later = SecondPass("flow/again", "roads", None, keywords, None)
    assert later._parameters["announce"] == {"to": str(tmp_path / "map.json")}
    keywords["announce"] = {"to": HOOK}
    with pytest.raises(InvalidInputError, match="announce is an address to post to"):
        SecondPass("flow/again", "roads", None, keywords, None)
