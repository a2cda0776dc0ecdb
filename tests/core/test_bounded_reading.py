"""Reading someone else's code costs a bounded time, however it is written, and what was not followed is said."""

import threading
from collections.abc import Callable

import pytest

from fused_cache_ops.cache_map.suggest import UdfCode, suggest_map
from fused_cache_ops.code import names, values
from fused_cache_ops.code.atoms import Made
from fused_cache_ops.code.reading import read_code


def lines(template: str, count: int) -> str:
    return "".join(template.format(n=number, m=number + 1, k=(number * 7 + 3) % count) for number in range(count))


HOSTILE: dict[str, Callable[[int], str]] = {
    "a name bound again and again": lambda n: "def udf():\n" + lines("    x = 'n{n}'\n    fused.run(x)\n", n),
    "a name bound outside": lambda n: (
        "def udf():\n" + lines("    x = 'n{n}'\n", n) + "    def f():\n        pass\n" + lines("        fused.run(x)\n", n)
    ),
    "a name bound in a loop": lambda n: "while True:\n" + lines("    fused.run(x)\n    if a: x = 'n{n}'\n", n),
    "a chain": lambda n: "x0 = 's3://b/'\n" + lines("x{m} = x{n} + 'a'\npd.read_csv(x{m})\n", n),
    "doubling": lambda n: "x0 = 's3://b/'\n" + lines("x{m} = x{n} + x{n}\n", n) + f"pd.read_csv(x{n})\n",
    "circles": lambda n: "while a:\n" + lines("  x{n} = x{m} + x{k}\n  pd.read_csv(x{n})\n", n),
    "a large dictionary": lambda n: (
        "D = {" + lines("'k{n}': 's3://b/v{n}/',", n) + "}\n" + lines("pd.read_csv(D[a{n}])\npd.read_csv(D['k{n}'])\n", n)
    ),
    "a list that grows": lambda n: "x = []\n" + lines("x.append('s3://b/{n}/')\npd.read_csv(x)\n", n),
    "functions of functions": lambda n: (
        "f0 = lambda a: a\n" + lines("f{m} = lambda a: f{n}(a) + f{n}(a)\n", n) + f"fused.run(f{n}('a'))\n"
    ),
    "a function called everywhere": lambda n: "def f(a):\n    return pd.read_csv(a)\n" + lines("f('s3://b/{n}/')\n", n),
    "a long text": lambda n: f"P = 's3://b/{'a' * 19_900}!'\n" + "pd.read_csv(P)\n" * n,
    "a long text without an end": lambda n: f"P = '{'a/' * 9_000}'\n" + "pd.read_csv('s3://' + P + x)\n" * n,
    "SQL in a text": lambda n: "con.sql('" + lines("SELECT * FROM t{n} JOIN (", n) + "')\n",
    "many brackets in SQL": lambda n: "con.sql('SELECT * FROM " + "(" * n + "')\n",
    "objects of objects": lambda n: (
        "def f(x):\n    return f(x.get(f(x)).made)\n" + lines("y = f(y.a(y).b)\npd.read_csv(y)\n", n)
    ),
    "branches": lambda n: "fused.run(" + " + ".join(f"('a{i}' if x else 'b{i}')" for i in range(min(n, 90))) + ")\n",
    "nested formats": lambda n: "x0 = '{}'\n" + lines("x{m} = x{n}.format(x{n})\n", n) + f"pd.read_csv(x{n})\n",
}


def steps_of(code: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many steps were taken, and how many things are said not to be known."""
    made: list[values.Values] = []
    original = values.Values.__init__

    def remembering(self: values.Values, source: str) -> None:
        original(self, source)
        made.append(self)

    monkeypatch.setattr(values.Values, "__init__", remembering)
    reading = read_code(code)
    return names._MOST_STEPS - made[0]._steps, len(reading.calls.unknown) + len(reading.sources.unknown)


@pytest.mark.parametrize("kind", HOSTILE)
def test_steps_are_bounded_and_what_was_not_followed_is_said(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, unknown = steps_of(HOSTILE[kind](300), monkeypatch)
    assert steps < names._MOST_STEPS * 1.1
    assert steps < names._MOST_STEPS or unknown


@pytest.mark.parametrize(
    "kind", ["a name bound again and again", "a name bound outside", "a function called everywhere", "a long text"]
)
def test_twice_the_code_takes_at_most_thrice_the_steps(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once, _ = steps_of(HOSTILE[kind](100), monkeypatch)
    twice, _ = steps_of(HOSTILE[kind](200), monkeypatch)
    assert twice <= 3 * once


def test_code_that_was_not_followed_to_its_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_MOST_STEPS", 50)
    reading = read_code("a = 's3://b/x/'\n" * 30 + "fused.run('x')\n" * 30)
    for unknown in (reading.calls.unknown, reading.sources.unknown):
        assert "the code is too long to be followed to its end" in [each.reason for each in unknown]


def test_a_draft_of_reads_of_a_long_path_says_so_once() -> None:
    code = f'P = "s3://b/{"a" * 19_900}!"\n' + "pd.read_parquet(P)\n" * 500
    (reasons,) = suggest_map([UdfCode("maps/a", code)]).unknown.values()
    assert reasons == ("line 2: read_parquet() takes a path that is longer than 2,000 characters (and in 499 more lines)",)


def test_an_object_that_code_makes_of_itself_again_and_again_keeps_a_short_name() -> None:
    read = values.Values("x = make()\n" + "x = x.get(1).part\n" * 50 + "show(x)\n")
    call, scope = next((call, scope) for call, scope in read.code.calls if getattr(call.func, "id", "") == "show")
    assert [len(each.name) <= 12 for each in read.value(call.args[0], scope) if isinstance(each, Made)] == [True]


def test_deep_code_is_read_in_a_thread_too() -> None:
    read: list[object] = []
    code = "x0 = 's3://b/'\n" + lines("x{m} = (((x{n} + 'a')))\n", 3_000) + "pd.read_csv(x3000)\n"
    thread = threading.Thread(target=lambda: read.append(read_code(code)))
    thread.start()
    thread.join()
    assert len(read) == 1
