"""A draft of the map, from code that is never run."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_cache_ops import FusedClient
from fused_cache_ops.cache_map.suggest import UdfCode, read_team, suggest_map
from fused_cache_ops.code.addresses import dataset_key
from fused_cache_ops.code.reading import read_code
from fused_cache_ops.code.sources import Sources
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.errors import AuthenticationError, UnexpectedResponseError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there


def find_sources(code: str) -> Sources:
    return read_code(code).sources


def datasets(code: str) -> list[str]:
    """The datasets that a code reads, all of which must be known."""
    sources = find_sources(code)
    assert sources.unknown == ()
    return [source.dataset for source in sources.found]


def unknown(code: str) -> list[str]:
    """What is not known of a code, with its lines. It must not read any dataset that is known."""
    sources = find_sources(code)
    assert sources.found == ()
    return [f"{each.line}: {each.reason}" for each in sources.unknown]


def shown(code: str) -> str:
    """The line that is shown of a code that reads one dataset once."""
    (source,) = find_sources(code).found
    return source.text


# -- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        'pd.read_parquet("s3://bucket/roads/a.parquet")',
        'gpd.read_file("s3://bucket/roads/a.gpkg")',
        'pd.read_csv(filepath_or_buffer="s3://bucket/roads/a.csv")',
        'pl.scan_parquet("s3://bucket/roads/*.parquet").collect()',
        'pq.read_table("s3://bucket/roads/")',
        'xr.open_dataset("s3://bucket/roads/a.nc")',
        'xr.open_mfdataset(["s3://bucket/roads/a.nc", "s3://bucket/roads/b.nc"])',
        'rasterio.open("s3://bucket/roads/a.tif").read(1)',
        'rasterio.open("/vsis3/bucket/roads/a.tif")',
        'fsspec.open("simplecache::s3://bucket/roads/a.json", "rb")',
        'gpd.read_file("zip+s3://bucket/roads/a.zip!inner/a.shp")',
        'fused.get_chunks_metadata("s3://bucket/roads/")',
        'fused.h3.read_hex_table("s3://bucket/roads/", hexes)',
        'common.table_to_tile(bounds, table="s3://bucket/roads/")',
        'common.table_to_tile(bounds, "s3://bucket/roads/")',
        'fused.utils.common.read_tiff(bounds, "s3://bucket/roads/a.tif")',
        'anything(1, "s3://bucket/roads/a.bin")',
        'anything(options={"path": "s3://bucket/roads/a.bin"})',
        's3.get_object(Bucket="bucket", Key="roads/a.bin")',
        'Path("s3://bucket/roads/a.txt").open()',
        "with fsspec.open('s3://bucket/roads/a.csv') as file:\n    pd.read_csv(file)",
        'from pandas import read_parquet as read\nread("s3://bucket/roads/a.parquet")',
        'read = pd.read_parquet\nread("s3://bucket/roads/a.parquet")',
    ],
)
def test_a_read_is_found_with_every_library(call: str) -> None:
    assert set(datasets(call)) == {"s3://bucket/roads/"}


@pytest.mark.parametrize(
    "address",
    ["gs://b/r/a.csv", "gcs://b/r/a.csv", "az://b/r/a.csv", "abfs://b@a.dfs.core.windows.net/r/a.csv", "hdfs://b/r/a.csv"]
    + ["https://b.example/r/a.csv", "/mnt/cache/r/a.csv"],
)
def test_every_store_counts_in_any_call(address: str) -> None:
    assert datasets(f"anything({address!r})") == [address.removesuffix("a.csv")]


@pytest.mark.parametrize(
    "code",
    [
        '"s3://bucket/roads/a.parquet"',
        'print("s3://bucket/roads/a.parquet")',
        'table.to_parquet("s3://bucket/roads/a.parquet")',
        'fsspec.open("s3://bucket/roads/a.parquet", "wb")',
        'path.replace("s3://", "/vsis3/")',
        'common = fused.load("https://github.com/fusedio/udfs/tree/main/public/common/")',
        '# pd.read_parquet("s3://bucket/roads/a.parquet")',
        'anything("https://example.com/page")',
        'df.query("population > 10")',
        'con.execute("INSTALL spatial; LOAD spatial")',
    ],
)
def test_what_only_looks_like_a_read_is_none(code: str) -> None:
    assert datasets(code) == []


@pytest.mark.parametrize(
    "code",
    [
        'fused.run("loader", path="s3://bucket/roads/a.parquet")',
        'fused.load("loader")(path="s3://bucket/roads/a.parquet")',
        'loader = fused.load("loader")\nloader(path="s3://bucket/roads/a.parquet")',
        'fused.load("loader").map(["s3://bucket/roads/a.parquet"])',
    ],
)
def test_what_another_udf_is_given_is_no_dataset_of_this_one(code: str) -> None:
    assert [each.partition(": ")[2] for each in unknown(code)] == [
        "a path is passed to another UDF, and what that reads is not known here"
    ]


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        'PATH = "s3://bucket/roads/a.parquet"\npd.read_parquet(PATH)',
        'BASE = "s3://bucket"\nPATH = BASE + "/roads/a.parquet"\npd.read_parquet(PATH)',
        'BASE = "s3://bucket"\npd.read_parquet(f"{BASE}/roads/a.parquet")',
        'pd.read_parquet("/".join(["s3://bucket", "roads", "a.parquet"]))',
        'pd.read_parquet(os.path.join("s3://bucket", "roads", "a.parquet"))',
        'from os.path import join\npd.read_parquet(join("s3://bucket/", "roads/a.parquet"))',
        'pd.read_parquet("s3://{}/{name}/a.parquet".format("bucket", name="roads"))',
        'pd.read_parquet("s3://bucket/roads/%s.parquet" % day)',
        'pd.read_parquet(UPath("s3://bucket") / "roads" / "a.parquet")',
        '@fused.udf\ndef udf(path="s3://bucket/roads/a.parquet"):\n    return pd.read_parquet(path)',
        '@fused.udf\ndef udf(*, path: str = "s3://bucket/roads/a.parquet"):\n    return pd.read_parquet(path)',
        '@fused.udf\ndef udf(path=None):\n    path = path or "s3://bucket/roads/a.parquet"\n    return pd.read_parquet(path)',
        'def udf(path=None):\n    if not path:\n        path = "s3://bucket/roads/a.parquet"\n    pd.read_parquet(path)',
        'pd.read_parquet(given or "s3://bucket/roads/a.parquet")',
        'def read(path):\n    return pd.read_parquet(path)\nread("s3://bucket/roads/a.parquet")',
        'def path_of(day):\n    return f"s3://bucket/roads/{day}.parquet"\npd.read_parquet(path_of(3))',
        'PATHS = {"roads": "s3://bucket/roads/a.parquet", "other": "s3://x/y/"}\npd.read_parquet(PATHS["roads"])',
        'for path in ["s3://bucket/roads/a.parquet"]:\n    pd.read_parquet(path)',
        '[pd.read_parquet(path) for path in ("s3://bucket/roads/a.parquet",)]',
        'path = "s3://bucket/"\npath += "roads/a.parquet"\npd.read_parquet(path)',
        'path = "s3://bucket/roads/"\npath = path.rstrip("/")\npd.read_parquet(path)',
        'pd.read_parquet(os.environ.get("ROADS", "s3://bucket/roads/a.parquet"))',
    ],
)
def test_a_path_is_known_however_it_is_put_together(code: str) -> None:
    assert datasets(code) == ["s3://bucket/roads/"]


def test_either_branch_of_a_condition_is_read() -> None:
    code = 'path = "s3://a/x/1.csv" if new else "s3://b/x/1.csv"\npd.read_csv(path)'
    assert datasets(code) == ["s3://a/x/", "s3://b/x/"]


def test_the_folder_is_known_if_only_the_beginning_of_an_f_string_is() -> None:
    (source,) = find_sources('def udf(date):\n    gpd.read_parquet(f"s3://bucket/parcels/{date}.parquet")').found
    assert (source.dataset, source.line) == ("s3://bucket/parcels/", 2)
    assert source.note == "only the beginning of the path is known"


def test_a_default_is_called_a_default() -> None:
    (source,) = find_sources('def udf(path="s3://bucket/parcels/"):\n    gpd.read_parquet(path)').found
    assert (source.dataset, source.note) == ("s3://bucket/parcels/", "with the default of a parameter")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def udf(path):\n    pd.read_csv(path)", "2: read_csv() takes the variable path, which is computed"),
        ("def udf(path=None):\n    pd.read_csv(path)", "2: read_csv() takes the variable path, which is computed"),
        ('pd.read_csv(f"s3://{bucket}/a.csv")', "1: read_csv() takes an f-string, and where that begins is computed"),
        ('pd.read_csv(f"s3://data-{place}/a.csv")', "1: read_csv() takes an f-string, and where that begins is computed"),
        ("pd.read_csv()", "1: read_csv() is called without a path that can be seen"),
        ("con.sql(text)", "1: sql() takes the variable text, which is computed"),
        ("a = a + a\npd.read_csv(a)", "2: read_csv() takes the variable a, which is computed"),
    ],
)
def test_what_is_computed_is_said_to_be_unknown(code: str, reason: str) -> None:
    assert unknown(code) == [reason]


@pytest.mark.parametrize("code", ["def udf(:\n  pass", "\ud800", "x = '\x00'", "(" * 5000 + ")" * 5000, "x" * 1_000_001])
def test_code_that_does_not_parse_is_one_thing_not_known(code: str) -> None:
    assert len(unknown(code)) == 1


def test_texts_that_grow_without_end_are_given_up() -> None:
    grown = "".join(f"a{number + 1} = a{number} + a{number}\n" for number in range(60))
    assert len(unknown(f'a0 = "s3"\n{grown}pd.read_csv(a60)')) == 1


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("s3://bucket/parcels/part.parquet", "s3://bucket/parcels/"),
        ("s3://bucket/parcels", "s3://bucket/parcels/"),
        ("s3://bucket/parcels/", "s3://bucket/parcels/"),
        ("s3://bucket/v1.2/", "s3://bucket/v1.2/"),
        ("s3://bucket/parcels/*.parquet", "s3://bucket/parcels/"),
        ("s3://bucket/parcels/**/part-?.parquet", "s3://bucket/parcels/"),
        ("s3://bucket/parcels/date=2026-01-01/part.parquet", "s3://bucket/parcels/"),
        ("s3://bucket/parcels/country=nl/date=2026-01-01/", "s3://bucket/parcels/"),
        ("s3://bucket/heights.zarr", "s3://bucket/heights.zarr/"),
        ("s3://bucket/a.parquet", "s3://bucket/"),
        ("S3://Bucket/a.parquet", "s3://Bucket/"),
        ("https://user:password@host.example:8080/data/a.csv?X-Amz-Signature=b/c#d", "https://host.example:8080/data/"),
        ("https://user:pass/word@host.example/data/a.csv", "https://host.example/data/"),
        ("s3://key:123/word@bucket/data/a.csv", "s3://bucket/data/"),
        ("s3://bucket/release/2026-04-15.0/theme=places/", "s3://bucket/release/*/"),
        ("s3://bucket/overture/2024-08-20-alpha.0/places/", "s3://bucket/overture/*/places/"),
        ("s3://bucket/releases/v1.2.3/places/", "s3://bucket/releases/*/places/"),
        ("s3://bucket/2026-04-15/places/", "s3://bucket/2026-04-15/places/"),
        ("s3://bucket/hexes/_sample", "s3://bucket/hexes/"),
        ("s3://bucket/hexes/overview/hex5.parquet", "s3://bucket/hexes/"),
        ("s3://bucket/parcels?versionId=x", "s3://bucket/parcels/"),
        ("abfs://container@account.dfs.core.windows.net/a/b.csv", "abfs://container@account.dfs.core.windows.net/a/"),
        ("/mnt/cache/roads/a.csv", "/mnt/cache/roads/"),
        ("geo.parcels", "geo.parcels"),
    ],
)
def test_the_key_is_the_folder_or_the_table(source: str, key: str) -> None:
    assert dataset_key(source) == key


# -- SQL --------------------------------------------------------------------------------------------------------------


def tables(sql: str) -> list[str]:
    return datasets(f"con.sql({sql!r})")


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT * FROM parcels", ["parcels"]),
        ('select * from geo."Parcels" p', ["geo.Parcels"]),
        ("SELECT * FROM `project.geo.parcels`", ["project.geo.parcels"]),
        ("SELECT * FROM a, b AS c, d WHERE a.x = b.y", ["a", "b", "d"]),
        ("SELECT * FROM a LEFT JOIN b USING (id) JOIN c ON a.x = c.x", ["a", "b", "c"]),
        ("WITH x AS (SELECT * FROM a), y (n) AS MATERIALIZED (SELECT n FROM x) SELECT * FROM y JOIN b USING (n)", ["a", "b"]),
        ("SELECT * FROM (SELECT * FROM a) AS inside, b", ["a", "b"]),
        ("SELECT extract(year FROM day) FROM a WHERE x IS DISTINCT FROM y", ["a"]),
        ("SELECT 'from nowhere' -- from nobody\n/* from nothing */ FROM a", ["a"]),
        ("CREATE TEMP TABLE mine AS SELECT * FROM a; SELECT * FROM mine", ["a"]),
        ("DELETE FROM a", []),
        ("SELECT * FROM generate_series(1, 3), unnest([1])", []),
        ("SELECT * FROM information_schema.tables", []),
        ("SELECT * FROM read_parquet('s3://b/roads/*.parquet', hive_partitioning = true)", ["s3://b/roads/"]),
        ("SELECT * FROM read_parquet(['s3://b/x/1.parquet', 's3://b/y/1.parquet'])", ["s3://b/x/", "s3://b/y/"]),
        ("SELECT * FROM 's3://b/roads/a.parquet'", ["s3://b/roads/"]),
        ("FROM delta_scan('s3://b/roads')", ["s3://b/roads/"]),
        ("ATTACH 's3://b/roads/a.duckdb' AS d", ["s3://b/roads/"]),
        ("COPY (SELECT * FROM a) TO 's3://b/out/a.parquet'", ["a"]),
    ],
)
def test_tables_and_paths_are_read_from_sql(sql: str, found: list[str]) -> None:
    assert tables(sql) == found


@pytest.mark.parametrize(
    "call", ["con.execute", "con.query", "duckdb.sql", "pd.read_sql", "gpd.read_postgis", "pl.read_database"]
)
def test_sql_is_read_in_every_call_that_takes_it(call: str) -> None:
    assert datasets(f'{call}("SELECT * FROM parcels", con)') == ["parcels"]


def test_a_data_frame_in_sql_is_no_table() -> None:
    code = 'roads = gpd.read_file("s3://b/roads/a.gpkg")\ncon.register("lakes", x)\ncon.sql("SELECT * FROM roads JOIN lakes")'
    assert datasets(code) == ["s3://b/roads/"]


def test_a_table_whose_result_has_its_name_is_a_table() -> None:
    assert datasets('parcels = con.sql("SELECT * FROM parcels").df()') == ["parcels"]
    assert datasets('roads = 1\nroads = pd.read_sql("SELECT * FROM roads", con)') == ["roads"]


def test_a_path_that_sql_takes_as_a_parameter_is_found() -> None:
    code = 'con.sql("SELECT * FROM read_parquet($path)", params={"path": "s3://b/roads/a.parquet"})'
    assert datasets(code) == ["s3://b/roads/"]


def test_a_path_in_sql_may_end_in_something_unknown() -> None:
    assert datasets("con.sql(f\"SELECT * FROM read_parquet('s3://b/roads/{day}.parquet') LIMIT {n}\")") == ["s3://b/roads/"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ('con.sql(f"SELECT * FROM {table}")', "a table name in SQL is computed"),
        ('con.sql(f"SELECT * FROM roads_{year}")', "a table name in SQL is computed"),
        ('con.sql("SELECT * FROM ?", [x])', "a table in SQL is a parameter"),
        ('con.sql("SELECT * FROM read_parquet(?)", [x])', "read_parquet() in SQL takes a path that is computed"),
        ('con.sql("SELECT * FROM my_macro(1)")', "what my_macro() in SQL reads"),
    ],
)
def test_what_sql_does_not_say_is_unknown(code: str, reason: str) -> None:
    assert unknown(code) == [f"1: {reason}"]


def test_a_clause_that_is_computed_is_said_to_be_unknown() -> None:
    sources = find_sources('con.sql(f"SELECT * FROM roads r {clause}")')
    assert [source.dataset for source in sources.found] == ["roads"]
    assert [each.reason for each in sources.unknown] == ["a part of the SQL is computed"]


# -- masking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        'pd.read_csv("https://user:hunter2@host.example/data/a.csv")',
        'pd.read_csv("https://hunter2@host.example/data/a.csv")',
        'pd.read_csv("https://user:x/hunter2@host.example/data/a.csv")',
        'pd.read_csv("https://host.example/data/a.csv?X-Amz-Signature=hunter2")',
        'pd.read_csv("https://user:hunt" + "hunter2@host.example/data/a.csv")',
        'pd.read_csv(f"https://{user}:hunter2@host.example/data/a.csv", "s3://a/b/")',
        'Q = "?sig=hunter2"\npd.read_csv("https://host.example/data/a.csv" + Q)',
        'pd.read_sql("SELECT * FROM a", "postgresql://user:hunter2@host/db")',
        'pd.read_parquet("s3://b/a/", storage_options={"key": "AKIAABCDEFGHIJKLMNOP", "secret": "hunter2"})',
        'pd.read_parquet("s3://b/a/", password="hunter" "hunter2")',
        "con.sql(\"CREATE SECRET (TYPE s3, SECRET 'hunter2'); SELECT * FROM a\")",
        'anything("s3://b/a/", headers={"Authorization": "Bearer hunter2"})',
        'anything("s3://b/a/", "fsh_hunter2")',
        'anything("s3://b/a/", "https://udf.ai/fc_hunter2/name/run/file")',
        'anything("s3://b/a/", "x?fused_session_token=hunter2")',
        'anything("s3://b/a/", "UDF_hunter2")',
        'requests.get("https://h.example/a.parquet", auth=("me", "hunter2"))',
        'requests.get("https://h.example/a.parquet", headers={"x-api-key": "hunter2"})',
        'pd.read_parquet("az://b/p/a.parquet", storage_options={"sas": "hunter2"})',
        's3fs.S3FileSystem("AKIAABCDEFGHIJKLMNOP", "hunter2").open("s3://b/p/a.parquet")',
        'pd.read_sql("SELECT * FROM a", connect("h", "u", "hunter2"))',
        'pd.read_sql("SELECT * FROM a", connect(host="h", pw="hunter2"))',
        'pd.read_parquet("s3://b/p/a.parquet"); PASS, USER = "hunter2", "me"',
        'pd.read_parquet("s3://b/p/a.parquet")  # the password is hunter2',
        'pd.read_sql("SELECT * FROM a", "postgresql://u:p@ss hunter2@h/db")',
        'con.execute("ATTACH \'host=h password=hunter2\' AS pg (TYPE postgres)")\ncon.execute("SELECT * FROM pg.a.b")',
    ],
)
def test_what_grants_access_is_masked_everywhere(code: str) -> None:
    suggestion = suggest_map([UdfCode("maps/a", code)])
    assert "hunter2" not in suggestion.to_toml() + repr(suggestion)
    assert "AKIA" not in suggestion.to_toml()


def test_the_container_of_an_azure_address_is_not_masked() -> None:
    code = 'pd.read_csv("abfs://container@account.dfs.core.windows.net/a/b.csv")'
    assert shown(code) == code


def test_only_names_and_the_address_are_shown_and_not_too_much_of_them() -> None:
    assert shown(f'{"x" * 300}(key="abc").read_csv("s3://bucket/a/b.csv", sep=";")').startswith("xxx")
    assert shown('reader(key="abc").read_csv("s3://bucket/a/b.csv", sep=";")') == 'reader(…).read_csv("s3://bucket/a/b.csv")'
    assert len(shown(f'{"x" * 300}("s3://bucket/a/b.csv")')) == 120


def test_a_call_of_several_lines_is_shown_on_one() -> None:
    assert shown('pd.read_csv(\n    "s3://bucket/a/b.csv",\n    sep=";",\n)') == 'pd.read_csv("s3://bucket/a/b.csv")'


# -- the draft --------------------------------------------------------------------------------------------------------


def test_the_draft_reads_as_documented() -> None:
    suggestion = suggest_map(
        [
            UdfCode("maps/roads", 'pd.read_csv("s3://bucket/roads/a.csv")\n\npd.read_csv("s3://bucket/roads/b.csv")\n'),
            UdfCode("maps/parcels", 'gpd.read_parquet("s3://bucket/parcels/part.parquet")\npd.read_csv(path)'),
            UdfCode("maps/all", 'fused.run("parcels")'),
            UdfCode("maps/hidden", None),
            UdfCode("maps/helped", "import helpers\nhelpers.read()\n", ("helpers", "common")),
            UdfCode("maps/legend", "def udf():\n    return 1\n"),
        ]
    )
    assert suggestion.to_toml() == (
        "# fused-cache.toml\n"
        "# A draft: the code of 6 UDFs was read, and none was run. Check each entry, and what is listed at the end.\n"
        "# Fill in what no code says: the zooms of each map. A UDF that is no map, such as a report, is whole_udf = true.\n"
        "\n"
        '[datasets."s3://bucket/parcels/"]\n'
        "udfs = [\n"
        '  # maps/parcels, line 1: gpd.read_parquet("s3://bucket/parcels/part.parquet")\n'
        '  { udf = "maps/parcels" },  # <- fill in: zooms = "10-14", or whole_udf = true\n'
        "]\n"
        "\n"
        '[datasets."s3://bucket/roads/"]\n'
        "udfs = [\n"
        '  # maps/roads, line 1: pd.read_csv("s3://bucket/roads/a.csv")\n'
        '  # maps/roads, line 3: pd.read_csv("s3://bucket/roads/b.csv")\n'
        '  { udf = "maps/roads" },  # <- fill in: zooms = "10-14", or whole_udf = true\n'
        "]\n"
        "\n"
        "# What the code does not say:\n"
        "# maps/helped, could not know: the modules saved with it are not read: helpers, common\n"
        "# maps/hidden, could not know: the service did not return the code, or this token may not see it\n"
        "# maps/parcels, could not know: line 2: read_csv() takes the variable path, which is computed\n"
        "\n"
        "# UDFs that read no dataset themselves, but run others:\n"
        "# maps/all runs 'parcels': if the map lists what they run, related = \"callers\" there covers this one\n"
        "\n"
        "# UDFs in which no read of a dataset was found:\n"
        "# maps/legend\n"
    )


def test_the_order_of_the_udfs_does_not_matter() -> None:
    udfs = [UdfCode(f"maps/{number}", f'pd.read_csv("s3://b/{number % 3}/a.csv")\nf(x)') for number in range(9)]
    assert suggest_map(udfs).to_toml() == suggest_map(reversed(udfs)).to_toml()


def test_a_map_of_nothing_is_valid() -> None:
    assert tomllib.loads(suggest_map([]).to_toml()) == {"datasets": {}}


@given(
    st.text(st.characters(codec=None, exclude_categories=())),
    st.sampled_from(["\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x1b[2J", "\u202e", "'''", '"""', "]"]),
)
def test_any_line_stays_inside_one_comment(text: str, end: str) -> None:
    hostile = f"{text}{end}[datasets.evil]{end}{text}"
    codes = [
        f'pd.read_csv("s3://bucket/a/b.csv", {hostile!a})',
        f'pd.read_csv("s3://bucket/a/b.csv", """{hostile}""")',
        f'pd.read_csv("s3://bucket/a/b.csv")  # {hostile}',
        f"pd.read_csv({hostile!a})",
        f'pd.read_csv("s3://bucket/a/" + {hostile!a} + "/")',
        f"con.sql({'SELECT * FROM ' + hostile!a})",
        f"fused.run({hostile!a})",
    ]
    suggestion = suggest_map([UdfCode("maps/a", code) for code in codes] + [UdfCode(hostile, code) for code in codes])
    draft = suggestion.to_toml()
    draft.encode()
    read = tomllib.loads(draft)
    encoded = {key.encode("utf-8", "replace").decode() for key in suggestion.datasets}
    assert {key.replace("\ufffd", "?") for key in read["datasets"]} == {key.replace("\ufffd", "?") for key in encoded}
    for line in draft.split("\n"):
        assert line.isprintable()
        assert line == "" or line.startswith(("#", "  #", "[datasets", "udfs = [", "  { udf = ", "]"))


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_no_code_makes_it_fail(code: str) -> None:
    find_sources(code)
    find_sources(f"con.sql({'SELECT * FROM a' + code!a})")


# -- a team -----------------------------------------------------------------------------------------------------------

TEAM = {
    "read_parquet": 'def udf(bounds):\n    return gpd.read_parquet("s3://land/parcels/part-0.parquet")',
    "read_partition": 'def udf(day):\n    return pd.read_parquet(f"s3://land/parcels/date={day}/part.parquet")',
    "read_glob": 'def udf():\n    return pl.scan_parquet("s3://land/parcels/*.parquet").collect()',
    "read_constant": 'ROADS = "s3://land/roads"\n\ndef udf():\n    return gpd.read_file(f"{ROADS}/roads.gpkg")',
    "read_default": 'def udf(path: str = "s3://land/roads/roads.fgb"):\n    return gpd.read_file(path)',
    "read_joined": 'import os\n\ndef udf():\n    return gpd.read_file(os.path.join("s3://land", "roads", "a.shp"))',
    "table_to_tile": 'common = fused.load("https://github.com/fusedio/udfs/tree/main/public/common/")\n\n'
    'def udf(bounds, table="s3://land/buildings/"):\n    return common.table_to_tile(bounds, table=table)',
    "chunks": 'def udf():\n    return fused.get_chunks_metadata("s3://land/buildings/")',
    "helper": "@fused.cache\ndef load(path):\n    return pd.read_csv(path)\n\n"
    'def udf():\n    return load("gs://stations/daily/now.csv")',
    "raster": 'def udf(z, x, y):\n    with rasterio.open("s3://land/heights/eu.tif") as src:\n        return src.read(1)',
    "gdal": 'def udf():\n    return rasterio.open("/vsis3/land/heights/eu.tif").read(1)',
    "zarr": 'def udf():\n    return xr.open_zarr("s3://land/climate.zarr")',
    "mount": 'def udf():\n    return pd.read_parquet("/mnt/cache/stations/now.parquet")',
    "signed": 'def udf():\n    return pd.read_csv("https://me:hunter2@data.example/open/a.csv?sig=hunter2")',
    "duckdb": "def udf(bounds):\n    con = duckdb.connect()\n"
    "    return con.sql(\"SELECT * FROM read_parquet('s3://land/parcels/*.parquet')\").df()",
    "postgis": 'def udf(bounds):\n    return gpd.read_postgis("SELECT * FROM geo.parcels JOIN geo.owners USING (id)", con)',
    "common_table": 'def udf():\n    return pd.read_sql("WITH new AS (SELECT * FROM geo.parcels) SELECT * FROM new", con)',
    "frames": 'def udf():\n    df = pd.read_csv("gs://stations/daily/now.csv")\n    return duckdb.sql("SELECT * FROM df").df()',
    "two": 'def udf():\n    a = pd.read_csv("s3://land/roads/a.csv")\n    return a, pd.read_csv("s3://land/roads/b.csv")',
    "many": 'def udf():\n    return [pd.read_csv(f"s3://land/{name}/a.csv") for name in ("roads", "lakes")]',
    "h3": 'def udf(hexes):\n    return fused.h3.read_hex_table("s3://land/hexes/", hexes)',
    "computed": 'def udf(bucket):\n    return pd.read_parquet(f"s3://{bucket}/a.parquet")',
    "parameter": "def udf(path):\n    return pd.read_parquet(path)",
    "which_table": 'def udf(table):\n    return con.sql(f"SELECT * FROM {table}").df()',
    "local": 'def udf():\n    return pd.read_csv("/tmp/scratch.csv")',
    "service": 'def udf():\n    return requests.get("https://api.example/now").json()',
    "broken": "def udf(:\n    return 1",
    "caller": 'def udf(bounds):\n    return fused.run("helper", bounds=bounds)',
    "handing": 'def udf():\n    return fused.load("read_default")(path="s3://land/roads/new.fgb")',
    "legend": 'def udf():\n    """Reads s3://land/roads/ of old."""\n    return {"s3": 1}',
}


@pytest.fixture
def team(fused_emulator: Emulator) -> None:
    """A team with 30 UDFs in two canvases."""
    for number, (name, code) in enumerate(TEAM.items()):
        canvas = "maps" if number % 2 else "land"
        fused_emulator.register(lambda **parameters: parameters, name=name, canvas=canvas, code=code + "\n")


@pytest.fixture
def listed(client: FusedClient, team: None) -> list[UdfCode]:
    return read_team(client._service, client._service.start())


def test_a_team_is_read_in_two_requests_that_change_nothing(fused_emulator: Emulator, listed: list[UdfCode]) -> None:
    assert len(listed) == len(TEAM) == 30
    assert {each.udf.partition("/")[2]: each.code for each in listed} == {name: f"{code}\n" for name, code in TEAM.items()}
    assert [(each.method, each.query) for each in fused_emulator.requests] == [
        ("GET", "skip=0&limit=300"),
        ("GET", "skip=30&limit=300"),
    ]


def test_what_a_team_reads_is_found(listed: list[UdfCode]) -> None:
    found = {
        key: sorted(entry.udf.partition("/")[2] for entry in entries) for key, entries in suggest_map(listed).datasets.items()
    }
    assert found == {
        "/mnt/cache/stations/": ["mount"],
        "geo.owners": ["postgis"],
        "geo.parcels": ["common_table", "postgis"],
        "gs://stations/daily/": ["frames", "helper"],
        "https://data.example/open/": ["signed"],
        "s3://land/buildings/": ["chunks", "table_to_tile"],
        "s3://land/climate.zarr/": ["zarr"],
        "s3://land/heights/": ["gdal", "raster"],
        "s3://land/hexes/": ["h3"],
        "s3://land/lakes/": ["many"],
        "s3://land/parcels/": ["duckdb", "read_glob", "read_parquet", "read_partition"],
        "s3://land/roads/": ["many", "read_constant", "read_default", "read_joined", "two"],
    }


def test_what_could_not_be_known_of_a_team_is_said(listed: list[UdfCode]) -> None:
    suggestion = suggest_map(listed)
    assert {udf.partition("/")[2]: list(reasons) for udf, reasons in suggestion.unknown.items()} == {
        "broken": ["line 1: the code cannot be parsed (invalid syntax)"],
        "computed": ["line 2: read_parquet() takes an f-string, and where that begins is computed"],
        "handing": ["line 2: a path is passed to another UDF, and what that reads is not known here"],
        "parameter": ["line 2: read_parquet() takes the variable path, which is computed"],
        "which_table": ["line 2: a table name in SQL is computed"],
    }
    assert {udf.partition("/")[2]: names for udf, names in suggestion.callers.items()} == {
        "caller": ("'helper'",),
        "handing": ("'read_default'",),
    }
    assert suggestion.left_out == {"file of the machine that runs the UDF": 1, "web API": 1}
    assert {udf.partition("/")[2] for udf in suggestion.without} == {"legend", "local", "service"}


def test_the_draft_of_a_team_parses_and_holds_no_secret(listed: list[UdfCode]) -> None:
    draft = suggest_map(listed).to_toml()
    assert "hunter2" not in draft
    read = tomllib.loads(draft)["datasets"]
    assert read["gs://stations/daily/"] == {"udfs": [{"udf": "land/helper"}, {"udf": "maps/frames"}]}


def test_a_udf_is_named_by_its_id_if_its_name_does_not_lead_back_to_it(fused_emulator: Emulator, client: FusedClient) -> None:
    twins = [
        fused_emulator.register(lambda: 1, name="twin", canvas="land", code="1", email=email)
        for email in ("a@example.com", "b@example.com")
    ]
    alone = fused_emulator.register(lambda: 1, name="alone", canvas="team", code="1")
    named = {each.udf for each in read_team(client._service, client._service.start())}
    assert named == {twins[0].id, twins[1].id, alone.id}


def test_a_long_list_is_read_to_its_end(
    fused_emulator: Emulator, client: FusedClient, team: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fused_cache_ops.service.canvases._PAGE", 7)
    assert len(read_team(client._service, client._service.start())) == 30


class Repeating:
    """A service that does not know ``skip``."""

    def __init__(self, page: object) -> None:
        self.page = page
        self.count = 0

    def read(self, path: object, **options: object) -> object:
        self.count += 1
        return self.page


def test_a_service_that_repeats_itself_is_not_asked_for_ever() -> None:
    service = Repeating([{"id": "1", "slug": "a", "collection_name": "maps", "udf_body": None}])
    assert read_team(service, None) == [UdfCode("maps/a", None)]
    assert service.count == 2


def test_the_modules_saved_with_a_udf_are_named() -> None:
    body = {"code": "1", "headers": [{"module_name": "helpers", "source_code": "x = 1"}, "common"]}
    service = Repeating([{"id": "1", "slug": "a", "collection_name": "maps", "udf_body": json.dumps(body)}])
    assert read_team(service, None) == [UdfCode("maps/a", "1", ("helpers", "common"))]


@pytest.mark.parametrize("page", [None, {"items": []}, ["a"], [{"slug": "a"}]])
def test_a_list_that_is_malformed_is_an_error(page: object) -> None:
    with pytest.raises(UnexpectedResponseError):
        read_team(Repeating(page), None)


def test_a_token_that_may_not_list_the_team_is_an_error(fused_emulator: Emulator) -> None:
    with FusedClient(token="wrong", client_id="x", deadline=5) as client:
        with pytest.raises(AuthenticationError):
            read_team(client._service, client._service.start())
