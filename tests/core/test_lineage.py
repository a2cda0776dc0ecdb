"""Who calls whom, read from code that is never run."""

import sys
import threading
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_cache_ops.code.calls import SourceReading, age_in_seconds, read_source
from fused_cache_ops.code.reading import read_code
from fused_cache_ops.code.scopes import MAX_SOURCE
from fused_cache_ops.lineage.graph import CallGraph
from fused_cache_ops.secret import Secret
from fused_cache_ops.service.canvases import Canvas, UdfRecord


def names(source: str) -> list[str]:
    """The names that a source loads, all of which must be known."""
    reading = read_source(source)
    assert reading.unknown == ()
    return [str(load.name) for load in reading.loads]


def unknown(source: str) -> list[str]:
    """What is not known of a source, with its lines. It must not load anything that is known."""
    reading = read_source(source)
    assert reading.loads == ()
    return [f"{each.line}: {each.reason}" for each in reading.unknown]


def caches(source: str) -> list[tuple[str, str, int, int | None]]:
    return [(each.kind, each.function, each.line, each.max_age) for each in read_source(source).caches]


# -- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        'fused.load("x")',
        'fused.run("x", n=1)',
        'fused.submit("x", [1, 2])',
        'fused.submit(udf="x", arg_list=[1])',
        'fused.load("x").map([1, 2])',
        'await fused.load_async("x")',
        'await fused.run_async("x")',
        'import fused\nfused.load("x")',
        'import fused as f\nf.load("x")',
        'from fused import load\nload("x")',
        'from fused import load as l\nl("x")',
        'from fused import *\nload("x")',
        'from fused._load_udf import load\nload("x")',
        'import fused.core\nfused.load("x")',
        'import importlib\nimportlib.import_module("fused").load("x")',
        '__import__("fused").load("x")',
        'try:\n    import fused as f\nexcept ImportError:\n    f = None\nf.load("x")',
        'load = fused.load\nload("x")',
        'f = g = fused\ng.load("x")',
        'def udf():\n    import fused as f\n    def inner():\n        return f.load("x")\n    return inner()',
        'class Source:\n    data = fused.load("x")\n',
        'table = [fused.load("x") for _ in range(3)]',
        'def udf(data=fused.load("x")):\n    return data',
        '@fused.load("x").wrap\ndef udf():\n    return 1',
        '(loaded := fused.load("x"))(n=1)',
        'match fused.run("x"):\n    case {"a": a, **rest}:\n        pass',
        'fused.load("  x ")',
    ],
)
def test_a_call_is_found_however_it_is_written(source: str) -> None:
    assert names(source) == ["x"]


@pytest.mark.parametrize(
    "source",
    [
        'NAME = "tiles_v2"\nfused.load(NAME)',
        'NAME: str = "tiles_v2"\ndef udf():\n    return fused.load(NAME)',
        'A = "tiles"\nB = A + "_v2"\nfused.load(B)',
        'A = "tiles"\nfused.load(f"{A}_v{2}")',
        'A, B = "tiles", 2\nfused.load(f"{A}_v{B!s}")',
        'fused.load("tiles" "_v2")',
        'def udf():\n    name = "tiles_v2"\n    return fused.load(name)',
        'NAME = "other"\ndef udf():\n    NAME = "tiles_v2"\n    return fused.load(NAME)',
        'class A:\n    NAME = "tiles_v2"\n    data = fused.load(NAME)',
        'NAME = "tiles"\nNAME += "_v2"\nfused.load(NAME)',
        'fused.load("tiles_v%s" % 2)',
        'fused.load("{}_v{n}".format("tiles", n=2))',
        'fused.load("_".join(["tiles", "v2"]))',
        'fused.load("old_tiles_v2".split("_", 1)[1])',
        'NAMES = {"new": {"udf": "tiles_v2"}}\nfused.load(NAMES["new"]["udf"])',
        'def name_of(kind):\n    return f"{kind}_v2"\nfused.load(name_of("tiles"))',
        'def run(name):\n    return fused.run(name)\nrun("tiles_v2")',
        'name_of = lambda kind: kind + "_v2"\nfused.load(name_of("tiles"))',
        'names = []\nnames.append("tiles_v2")\nfor name in names:\n    fused.run(name)',
        'class Names:\n    tiles = "tiles_v2"\nfused.load(Names.tiles)',
        'name = "other"\nname = "tiles_v2"\nfused.load(name)\nname = "another"',
    ],
)
def test_a_constant_is_a_name(source: str) -> None:
    assert names(source) == ["tiles_v2"]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def udf(name='x'):\n    return fused.run(name)", 2),
        ("name = os.environ.get('NAME', 'x')\nfused.run(name)", 2),
        ("NAME = 'x'\ndef change():\n    global NAME\n    NAME = pick()\nfused.load(NAME)", 5),
        ("name = 'x'\nif late:\n    name = pick()\nfused.load(name)", 4),
    ],
)
def test_a_name_that_may_be_another_is_followed_and_noted(source: str, line: int) -> None:
    reading = read_source(source)
    assert [load.name for load in reading.loads] == ["x"]
    assert [each.line for each in reading.unknown] == [line]


@pytest.mark.parametrize(
    "source",
    [
        'requests.get("https://udf.ai/fsh_x/run/file?dtype_out_vector=csv")',
        'pd.read_parquet("https://udf.ai/fsh_x.parquet")',
        'TOKEN = "fsh_x"\npd.read_csv(f"https://www.fused.io/server/v1/realtime-shared/{TOKEN}/run/file")',
        'httpx.get(url="https://udf.ai/fsh_x/run/tiles/3/1/2")',
    ],
)
def test_a_udf_that_is_run_over_http_is_called_by_its_token(source: str) -> None:
    reading = read_source(source)
    assert [load.name.reveal() for load in reading.loads if isinstance(load.name, Secret)] == ["fsh_x"]
    assert "fsh_x" not in repr(reading)


def test_a_udf_whose_tiles_a_browser_draws_is_not_called() -> None:
    assert names('pydeck.Layer("TileLayer", data="https://udf.ai/fsh_x/run/tiles/{z}/{x}/{y}")') == []


def test_a_library_of_which_only_functions_are_called_is_told_from_a_udf_that_is_run() -> None:
    address = "https://github.com/fusedio/udfs/tree/{}/public/common/"
    pinned = f"common = fused.load({address.format('2f41ae1')!r})\n"
    assert [load.is_library for load in read_source(f"{pinned}common.get_tiles()").loads] == [True]
    for run in ("common(n=1)", "fused.run(common)", "common.map([1])", f"fused.run({address.format('2f41ae1')!r})"):
        assert False in [load.is_library for load in read_source(f"{pinned}{run}").loads]
    assert [load.is_library for load in read_source(f"fused.load({address.format('main')!r})").loads] == [False]


def test_lines_with_the_same_gap_are_one_note() -> None:
    (reason,) = unknown("for name in pick():\n    fused.run(name)\n    fused.run(name)\n    fused.run(name)")
    assert reason == "2: fused.run() takes the variable 'name', which is only known at run time (and in 2 more lines)"


def test_both_branches_of_a_condition_are_names() -> None:
    assert names('fused.load("a" if dense else "b")') == ["a", "b"]
    assert names('if dense:\n    NAME = "a"\nelse:\n    NAME = "b"\nfused.load(NAME + "_1")') == ["a_1", "b_1"]


def test_a_loaded_udf_may_be_run_mapped_and_submitted() -> None:
    source = 'loaded = fused.load("x")\nfused.run(loaded)\nfused.submit(loaded, [1], cache=False)\nloaded(n=1)'
    assert names(source) == ["x"]


def test_a_function_of_the_same_source_has_no_name_to_look_up() -> None:
    assert names("@fused.udf\ndef part(n):\n    return n\nfused.submit(part, [1])\nfused.run(fused.udf(part))") == []


@pytest.mark.parametrize(
    "source",
    [
        '# fused.load("x")',
        "text = 'fused.load(\"x\")'",
        '"""fused.load("x")"""',
        'def udf():\n    """Calls fused.load("x")."""',
        'json.load("x")',
        'pandas.Series([1]).map(str)\nexecutor.submit(work, "x")\nsubprocess.run("x")',
        'from json import load\nload("x")',
        'def run(name):\n    return name\nrun("x")',
        "import fused\nprint(fused.__version__)",
        "@fused.udf(cache_max_age=0)\ndef udf():\n    return fused.types.Bounds",
    ],
)
def test_what_only_looks_like_a_call_is_none(source: str) -> None:
    assert names(source) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def udf(name):\n    return fused.load(name)", "2: fused.load() takes the variable 'name'"),
        ("fused.load(self.name)", "1: fused.load() takes an attribute"),
        ("fused.load(names[0])", "1: fused.load() takes an item"),
        ("fused.load(pick())", "1: fused.load() takes the result of a call"),
        ("fused.load(f'tiles_{year}')", "1: fused.load() takes an f-string"),
        ("fused.load(f'tiles_{2:03}')", "1: fused.load() takes an f-string"),
        ("fused.load('tiles_' + year)", "1: fused.load() takes an expression"),
        ("fused.load('tiles_%s' % year)", "1: fused.load() takes an expression"),
        ("for name in found:\n    fused.submit(name, [1])", "2: fused.submit() takes the variable 'name'"),
        ("NAME = 'a'\nNAME += other\nfused.load(NAME)", "3: fused.load() takes the variable 'NAME'"),
        ("NAME = NAME\nfused.load(NAME)", "2: fused.load() takes the variable 'NAME'"),
        ("with open_it() as name:\n    fused.load(name)", "2: fused.load() takes the variable"),
        ("try:\n    pass\nexcept E as name:\n    fused.load(name)", "4: fused.load() takes the variable"),
        ("match key:\n    case [name, *_]:\n        fused.load(name)", "3: fused.load() takes the variable"),
        ("fused.load(3)", "1: fused.load() takes an expression"),
        ("fused.load(*names)", "1: the arguments of fused.load() are"),
        ("fused.load(**names)", "1: the arguments of fused.load() are"),
        ("fused.load()", "1: the arguments of fused.load() are"),
        ("fused.load('x', collection_name=canvas)", "1: collection_name of fused.load() is"),
        ("map(fused.load, names)", "1: fused.load is handed on"),
        ("self.load = fused.load", "1: fused.load is handed on"),
        ("class A:\n    load = fused.load", "2: fused.load is handed on"),
        ("partial(fused.run, 'x')", "1: fused.run is handed on"),
        ("getattr(fused, 'lo' + 'ad')('x')", "1: the module fused is handed on"),
        ("exec(text)", "1: exec() can reach UDFs"),
        ("eval('fused.load')", "1: eval() can reach UDFs"),
        ("globals()['NAME'] = 'x'", "1: globals() can reach UDFs"),
        ("from helpers import *\nload('x')", "2: whether load() is Fused's"),
        ("def udf(fused):\n    fused.load('x')", "2: whether 'fused' is the module"),
        ("fused.load('@fused.udf\\ndef udf():\\n    return 1')", "1: fused.load() takes code as text"),
        ("fused.core.load_udf_from_fused('x')", "1: what load_udf_from_fused() loads"),
        ("fused.utils['x']", "1: fused.utils is handed on"),
    ],
)
def test_what_is_made_at_run_time_is_named_with_its_line(source: str, expected: str) -> None:
    (found,) = unknown(source)
    assert found.startswith(expected)


def test_a_constant_beside_a_name_made_at_run_time_hides_neither() -> None:
    reading = read_source("fused.load('a')\nfused.load(name)")
    assert [load.name for load in reading.loads] == ["a"]
    assert [each.line for each in reading.unknown] == [2]


def test_keywords_that_may_name_another_canvas_are_noted_beside_the_name() -> None:
    reading = read_source("fused.load('x', **options)")
    assert [load.name for load in reading.loads] == ["x"]
    assert len(reading.unknown) == 1


def test_a_shared_token_is_a_secret_at_once() -> None:
    reading = read_source('fused.run("fsh_verysecret")\nT = "fc_team/mountains"\nfused.run(T + "/udf")')
    assert all(isinstance(load.name, Secret) for load in reading.loads)
    assert "verysecret" not in repr(reading)
    assert "mountains" not in repr(reading)


def test_names_that_double_with_every_line_take_no_memory() -> None:
    doubling = "\n".join(f"N{i + 1} = N{i} + N{i}" for i in range(60))
    assert len(unknown(f"N0 = 'ab'\n{doubling}\nfused.load(N60)")) == 1


def test_branches_that_multiply_are_not_followed_for_ever() -> None:
    source = "fused.load(" + " + ".join(f"('a{i}' if x else 'b{i}')" for i in range(30)) + ")"
    assert len(unknown(source)) == 1


# -- code that cannot be parsed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "the service did not return the code"),
        ("def udf(:\n", "cannot be parsed (invalid syntax)"),
        ("fused.load('x')\x00", "null bytes"),
        ("x = '\ud800'", "characters that cannot be parsed"),
        ("-" * 200_000 + "1", "nested too deeply"),
        ("+".join(["1"] * 100_000), "nested too deeply"),
        ("(" * 5_000, "too many nested parentheses"),
        ("x" * (MAX_SOURCE + 1), "longer than 1,000,000 characters"),
        ("1" * 10_000, "cannot be parsed"),
        ("match x:\n  case", "cannot be parsed"),
    ],
)
def test_code_that_cannot_be_parsed_is_not_known(source: str | None, reason: str) -> None:
    (found,) = read_source(source).unknown
    assert reason in found.reason or sys.version_info < (3, 11)


def test_code_that_cannot_be_parsed_in_a_thread_is_not_known_either() -> None:
    found: list[SourceReading] = []
    thread = threading.Thread(target=lambda: found.append(read_source("-" * 200_000 + "1")))
    thread.start()
    thread.join()
    assert len(found[0].unknown) == 1


def test_an_odd_escape_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names('pattern = "\\d"\nfused.load("x")') == ["x"]


pieces = st.sampled_from(
    [
        "fused",
        ".load",
        "(",
        ")",
        "'x'",
        "\n",
        "    ",
        "def f(a):",
        "class C:",
        "import fused as f",
        "f.run",
        "=",
        ",",
        "*",
        "**",
    ]
    + [
        "@fused.cache",
        "@",
        "if x:",
        "else:",
        "f'{x}'",
        "lambda:",
        "global x",
        "x",
        ":=",
        "[",
        "]",
        "for x in y:",
        "await ",
        "0",
    ]
    + [
        "from fused import *",
        "match x:",
        "case ",
        "del x",
        "nonlocal x",
        "{",
        "}",
        ":",
        "\x00",
        "\\",
        "yield ",
        "x: str",
        "return ",
    ]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=30).map("".join), st.lists(pieces, max_size=30).map(" ".join)))
def test_random_source_never_raises(source: str) -> None:
    reading = read_code(source).calls
    try:
        compile(source, "random", "exec", flags=0x400)  # ast.PyCF_ONLY_AST
    except (SyntaxError, ValueError):
        assert len(reading.unknown) == 1
        assert reading.loads == ()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=50))
def test_a_constant_of_any_text_is_read_as_it_is(text: str) -> None:
    reading = read_source(f"fused.load({text!r})")
    loaded = [load.name.reveal() if isinstance(load.name, Secret) else load.name for load in reading.loads]
    assert loaded == ([] if "\n" in text or not text.strip() else [text.strip()])


# -- caches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("@fused.cache\ndef read(): ...", ("@fused.cache", "read", 1, None)),
        ("@fused.cache()\ndef read(): ...", ("@fused.cache", "read", 1, None)),
        ("@fused.cache(cache_max_age='12h')\ndef read(): ...", ("@fused.cache", "read", 1, 43200)),
        ("@fused.cache(cache_max_age=AGE)\ndef read(): ...", ("@fused.cache", "read", 1, None)),
        ("from fused import cache as c\n@c\nasync def read(): ...", ("@fused.cache", "read", 2, None)),
        ("class A:\n    @staticmethod\n    @fused.cache\n    def read(): ...", ("@fused.cache", "read", 3, None)),
        ("def udf():\n    @fused.cache\n    def read(): ...", ("@fused.cache", "read", 2, None)),
        ("kept = fused.cache(cache_max_age=60)\n@kept\ndef read(): ...", ("@fused.cache", "read", 2, None)),
        ("kept = fused.cache(read, cache_max_age=60)", ("@fused.cache", "read", 1, 60)),
        ("fused.cache(lambda: 1)", ("@fused.cache", "<lambda>", 1, None)),
        ("def udf():\n    fused.submit(part(), [1])", None),
        ("def udf():\n    return fused.submit('x', [1])", ("fused.submit", "udf", 2, None)),
        ("fused.submit('x', [1], cache_max_age='1h')", ("fused.submit", "<module>", 1, 3600)),
        ("fused.submit('x', [1], run_cache_max_age=60)", ("fused.submit", "<module>", 1, 60)),
        ("u = fused.load('x')\nu.map([1])", ("udf.map", "<module>", 2, None)),
        ("u = fused.load('x')\nu.map([1], run_cache_max_age='2m')", ("udf.map", "<module>", 2, 120)),
        ("async def f():\n    await fused.load('x').map_async([1])", ("udf.map_async", "f", 2, None)),
    ],
)
def test_a_cache_inside_is_named_with_function_and_line(source: str, expected: tuple[str, str, int, int | None] | None) -> None:
    assert caches(source) == [expected or ("fused.submit", "udf", 2, None)]


@pytest.mark.parametrize(
    "source",
    [
        "@fused.cache(cache_max_age=0)\ndef read(): ...",
        "@fused.cache(cache_max_age='0s')\ndef read(): ...",
        "@fused.cache(cache_reset=True)\ndef read(): ...",
        "@functools.cache\ndef read(): ...",
        "fused.submit('x', [1], cache=False)",
        "fused.submit('x', [1], cache_max_age=0)",
        "fused.submit('x', [1], cache_max_age='0s')",
        "fused.submit('x', [1], run_cache_max_age=0)",
        "fused.load('x').map([1], cache=False)",
        "fused.load('x').map([1], cache_max_age='0')",
        "fused.load('x').map([1], run_cache_max_age=0)",
        "fused.run('x')",
        "frame.map(str)",
    ],
)
def test_a_cache_that_is_switched_off_is_not_reported(source: str) -> None:
    assert caches(source) == []


def test_a_submitted_udf_keeps_its_table_even_if_its_runs_are_not_kept() -> None:
    source = "u = fused.load('x')\nfused.submit(u, [1], run_cache_max_age=0)"
    assert caches(source) == [("fused.submit", "<module>", 2, None)]
    assert caches(source.replace("=0", "=0, collect=False")) == []


@pytest.mark.parametrize(
    ("decorator", "seconds"),
    [
        ("@fused.udf", None),
        ("@fused.udf()", None),
        ("@fused.udf(cache_max_age='2h')", 7200),
        ("@fused.udf(cache_max_age=' 2H ')", 7200),
        ("@fused.udf(cache_max_age=30)", 30),
        ("@fused.udf(cache_max_age='0')", 0),
        ("@fused.udf(cache_max_age=0)", 0),
        ("@fused.udf(cache_max_age=None)", None),
        ("@fused.udf(name='x', cache_max_age='3d')", 259200),
    ],
)
def test_the_udfs_own_age_is_read_from_its_decorator(decorator: str, seconds: int | None) -> None:
    reading = read_source(f"{decorator}\ndef udf():\n    return 1\n")
    assert reading.max_age == seconds
    assert reading.unknown_age is None


@pytest.mark.parametrize("age", ["AGE", "'2 hours'", "'30'", "-1", "True", "1.5", "'2h' * 2"])
def test_an_age_that_is_not_a_plain_constant_is_not_known(age: str) -> None:
    reading = read_source(f"AGE = '2h'\n@fused.udf(cache_max_age={age})\ndef udf():\n    return 1\n")
    assert reading.max_age is None
    assert reading.unknown_age is not None
    assert reading.unknown_age.line == 2


def test_the_age_of_another_function_is_not_the_udfs() -> None:
    source = "@fused.udf(cache_max_age=5)\ndef part(): ...\n@fused.udf\ndef udf(): ...\n"
    assert read_source(source).max_age is None
    assert read_source(source, "part").max_age == 5


def test_an_age_of_absurd_length_is_not_known() -> None:
    assert age_in_seconds("9" * 5_000 + "d") is None


# -- the graph --------------------------------------------------------------------------------------------------------


def graph(name: str = "maps", username: str | None = None, /, **codes: str) -> CallGraph:
    """The graph of a canvas with UDFs of the given names, which are their ids too."""
    udfs = tuple(UdfRecord(id=udf, name=udf, canvas_name=name, code=code) for udf, code in codes.items())
    return CallGraph(Canvas("canvas-id", name, username, udfs=udfs))


def calls(*callees: str) -> str:
    return "\n".join(f"fused.load({callee!r})" for callee in callees)


def levels(of: CallGraph, udf: str, direction: str) -> list[str]:
    return [" ".join(each.id for each in level) for level in of.levels(udf, direction)]  # type: ignore[arg-type]


CHAIN = graph(map=calls("style"), style=calls("clean"), clean=calls("raw"), raw="", other="")


def test_callers_and_callees_are_found_through_others() -> None:
    assert levels(CHAIN, "clean", "callers") == ["style", "map"]
    assert levels(CHAIN, "map", "callees") == ["style", "clean", "raw"]
    assert levels(CHAIN, "other", "callers") == levels(CHAIN, "other", "callees") == []


@pytest.mark.parametrize(
    ("related", "order"),
    [
        ("callers", ["clean", "style", "map"]),
        ("callees", ["raw", "clean"]),
        ("both", ["raw", "clean", "style", "map"]),
    ],
)
def test_callees_come_first_then_the_udf_then_its_callers(related: str, order: list[str]) -> None:
    assert [udf.id for level in CHAIN.in_order("clean", related) for udf in level] == order  # type: ignore[arg-type]


def test_a_relative_comes_after_all_that_it_calls_however_short_the_way_to_it_is() -> None:
    diamond = graph(top=calls("left", "base"), left=calls("right"), right=calls("base"), base="")
    assert levels(diamond, "top", "callees") == ["left", "right", "base"]
    assert levels(diamond, "base", "callers") == ["right", "left", "top"]


def test_a_circle_ends_and_nobody_is_their_own_relative() -> None:
    circle = graph(a=calls("b"), b=calls("c"), c=calls("a", "c"), d=calls("a"))
    assert levels(circle, "a", "callees") == ["b", "c"]
    assert levels(circle, "a", "callers") == ["c d", "b"]
    assert [udf.id for level in circle.in_order("a", "both") for udf in level] == ["c", "b", "a", "d"]


def test_a_circle_beside_the_udf_counts_as_one_step() -> None:
    beside = graph(a=calls("b"), b=calls("c"), c=calls("b", "d"), d="")
    assert levels(beside, "a", "callees") == ["b c", "d"]


def test_a_udf_that_only_calls_itself_has_no_relatives() -> None:
    assert levels(graph(a=calls("a")), "a", "callers") == []


def test_a_chain_of_thousands_is_followed_to_its_end() -> None:
    chain = graph(**{f"u{i}": calls(f"u{i + 1}") for i in range(3_000)}, u3000="")
    assert len(levels(chain, "u0", "callees")) == 3_000


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef")), min_size=1))
def test_in_any_graph_the_order_puts_callees_before_callers_outside_of_circles(edges: dict[str, list[str]]) -> None:
    found = graph(**{udf: calls(*(each for each in called if each in edges)) for udf, called in edges.items()})
    start = min(edges)

    def reached(udf: str) -> set[str]:
        return {each.id for level in found.levels(udf, "callees") for each in level}

    order = [udf.id for level in found.in_order(start, "both") for udf in level]
    assert sorted(order) == sorted({start, *reached(start), *(each for each in edges if start in reached(each))})
    for position, udf in enumerate(order):
        for later in order[position + 1 :]:
            assert later not in reached(udf) or udf in reached(later)


def test_a_udf_is_called_by_its_id_in_every_form() -> None:
    udf_id = "0f0e0d0c-0b0a-4908-8706-050403020100"
    for form in (udf_id, udf_id.upper(), udf_id.replace("-", "")):
        canvas = Canvas("c", "maps", udfs=(UdfRecord("m", "map", code=calls(form)), UdfRecord(udf_id.upper(), "raw", code="")))
        assert [udf.name for udf in CallGraph(canvas).levels("m", "callees")[0]] == ["raw"]


@pytest.mark.parametrize(
    ("name", "leads"),
    [
        ("team/raw", "the team's canvas 'default'"),
        ("public/raw", "a public UDF"),
        ("elsewhere/raw", "another canvas, or the user 'elsewhere'"),
        ("me@example.com/raw", "another canvas, or the user 'me@example.com'"),
        ("@other/raw", "another canvas, or the user '@other'"),
        ("0f0e0d0c-0b0a-4908-8706-050403020100", "the id of a UDF of another canvas"),
        ("fsh_0123456789", "a shared token"),
        ("UDF_0123456789", "a shared token"),
        ("fc_team/other/raw", "a shared token"),
        ("fc_team/maps/gone", "a shared token"),
        ("https://github.com/fusedio/udfs/tree/main/public/raw", "code on GitHub"),
        ("https://udf.ai/fsh_0123456789/run", "an address"),
        ("team/fsh_0123456789", "an address"),
        ("raw.py", "a file"),
    ],
)
def test_what_leads_out_of_the_canvas_is_reported_and_never_followed(name: str, leads: str) -> None:
    node = graph(map=calls(name), raw="").nodes["map"]
    assert node.callees == frozenset()
    assert node.unknown == ()
    (outside,) = node.outside
    assert (outside.reason, outside.line) == (leads, 1)
    assert "0123456789" not in repr(node)


def test_an_address_is_shown_without_its_password_and_query() -> None:
    node = graph(map=calls("https://someone:hidden@example.com/x?token=hidden#hidden")).nodes["map"]
    assert node.outside[0].name == "https://example.com/x"


def test_deprecated_public_utilities_are_outside() -> None:
    (outside,) = graph(map="fused.utils.common.read()").nodes["map"].outside
    assert outside.name == "'public/common'"


def test_a_name_that_no_udf_of_the_canvas_has_is_not_known() -> None:
    node = graph(map=calls("gone")).nodes["map"]
    assert node.unknown[0].reason == "'gone' is not the name of a UDF of this canvas"


def test_the_canvas_may_be_named_in_the_call() -> None:
    source = "fused.load('raw', collection_name='{}')"
    assert graph(map=source.format("maps"), raw="").nodes["map"].callees == {"raw"}
    outside = graph(map=source.format("secret"), raw="").nodes["map"].outside
    assert [each.reason for each in outside] == ["the canvas 'secret'"]


def test_the_owner_of_the_canvas_may_be_named() -> None:
    for owner in ("me", "@me"):
        assert graph("maps", "me", map=calls(f"{owner}/raw"), raw="").nodes["map"].callees == {"raw"}


@pytest.mark.parametrize(("canvas", "name"), [("default", "team/raw"), ("maps", "maps/raw")])
def test_a_name_that_may_be_of_this_canvas_is_followed_and_reported(canvas: str, name: str) -> None:
    node = graph(canvas, map=calls(name), raw="").nodes["map"]
    assert node.callees == {"raw"}
    assert len(node.outside) == 1


def test_two_udfs_of_the_same_name_are_both_called() -> None:
    udfs = (UdfRecord("1", "map", code=calls("raw")), UdfRecord("2", "raw", code=""), UdfRecord("3", "raw", code=""))
    assert CallGraph(Canvas("c", "maps", udfs=udfs)).nodes["1"].callees == {"2", "3"}


def test_one_udf_that_cannot_be_parsed_does_not_hide_the_others() -> None:
    found = graph(map=calls("raw"), raw="", broken="def udf(:")
    assert levels(found, "raw", "callers") == ["map"]
    assert "cannot be parsed" in found.nodes["broken"].unknown[0].reason


def test_modules_saved_with_a_udf_are_not_known() -> None:
    udf = UdfRecord("1", "map", code="", modules=("helpers",))
    (found,) = CallGraph(Canvas("c", "maps", udfs=(udf,))).nodes["1"].unknown
    assert found.reason == "the modules saved with it are not read: helpers"


def test_the_records_own_age_comes_before_the_decorators() -> None:
    udf = UdfRecord("1", "map", code="@fused.udf(cache_max_age=AGE)\ndef udf(): ...", max_age=60)
    node = CallGraph(Canvas("c", "maps", udfs=(udf,))).nodes["1"]
    assert (node.max_age, node.unknown) == (60, ())


def test_a_token_that_is_known_is_followed() -> None:
    codes = {
        "by_token": 'fused.run("fsh_roads")',
        "over_http": 'pd.read_parquet("https://udf.ai/fsh_roads.parquet")',
        "by_canvas": 'fused.run("fc_shared/roads")',
        "by_old_canvas": 'fused.run("fc_shared-roads")',
        "by_name": 'fused.run("fc_team/maps/roads")',
        "stranger": 'fused.run("fsh_other")',
        "roads": "",
    }
    udfs = tuple(UdfRecord(name, name, code=code) for name, code in codes.items())
    canvas = Canvas("c", "maps", udfs=udfs, share_token=Secret("fc_shared"))
    followed = CallGraph(canvas, tokens=[(Secret("fsh_roads"), "roads")])
    assert levels(followed, "roads", "callers") == ["by_canvas by_name by_old_canvas by_token over_http"]
    assert [(node.udf.name, each.name) for node in followed.nodes.values() for each in node.outside] == [
        ("by_name", "fc_********"),  # the canvas of another team may have this name
        ("stranger", "fsh_********"),
    ]


def test_a_default_that_no_udf_of_the_canvas_has_is_noted_once() -> None:
    (found,) = graph(map="def udf(style='plain'):\n    fused.run(style)").nodes["map"].unknown
    assert "only a default is known" in found.reason
