"""How much of what a person would name is found in code as people write it, and how much of what is named is right."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops.code.reading import CodeReading, read_code
from fused_cache_ops.secret import Secret

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

CORPUS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("udf_corpus.toml").read_text())["udf"]


def datasets(reading: CodeReading) -> Iterator[str]:
    return (source.dataset for source in reading.sources.found)


def calls(reading: CodeReading) -> Iterator[str]:
    names = (load.name for load in reading.calls.loads if not load.is_library)
    return (name.reveal() if isinstance(name, Secret) else name for name in names)


def caches(reading: CodeReading) -> Iterator[str]:
    for cache in reading.calls.caches:
        yield " ".join(str(part) for part in (cache.function, cache.folder, cache.max_age) if part is not None)


def unknown(reading: CodeReading) -> Iterator[int | None]:
    return (each.line for each in (*reading.sources.unknown, *reading.calls.unknown))


READINGS = [(udf, read_code(udf["code"])) for udf in CORPUS]


def compared(field: str, found: Any) -> tuple[set[tuple[str, Any]], set[tuple[str, Any]]]:
    """What is named in the corpus, and what is read from the code."""
    expected = {(udf["name"], each) for udf in CORPUS for each in udf.get(field, ())}
    return expected, {(udf["name"], each) for udf, reading in READINGS for each in found(reading)}


def share(part: Iterable[object], whole: Iterable[object]) -> float:
    return len(list(part)) / len(list(whole))


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len({udf["name"] for udf in CORPUS}) == len(CORPUS) >= 60


@pytest.mark.parametrize(("field", "found"), [("datasets", datasets), ("calls", calls), ("caches", caches)])
def test_19_of_20_are_found_and_19_of_20_are_right(field: str, found: Any) -> None:
    expected, read = compared(field, found)
    assert share(expected & read, expected) >= 0.95, expected - read
    assert share(expected & read, read) >= 0.95, read - expected


def test_at_most_one_warning_in_ten_needs_no_action() -> None:
    expected, read = compared("unknown", unknown)
    assert expected <= read
    assert len(read - expected) <= len(read) / 10, read - expected


def test_the_readings_are_the_same_in_each_process() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_udf_corpus as t; print(t.READINGS)"

    def read(seed: str) -> bytes:
        found = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        )
        return found.stdout

    assert len({read(seed) for seed in ("1", "2", "3")}) == 1
