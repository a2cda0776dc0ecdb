#!/bin/sh
# pyarrow 26.0.1: where a Parquet file stores an Arrow schema (ARROW:schema, as pyarrow and many others write it), the metadata
# of `ParquetFile.schema_arrow` are those of that schema alone. What the file itself says beside it is only in
# `ParquetFile.metadata.metadata`: GeoParquet's `geo`, or the PROJJSON that a column of type GEOMETRY names by
# `projjson:KEY`. A reader that looks at the schema takes such a file for one without a reference system. Apache's own
# parquet-testing has one (data/geospatial/crs-projjson.parquet). Seen:
#
#   with an Arrow schema: schema [], file ['ARROW:schema', 'geo']
#   without one: schema ['geo'], file ['geo']
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/python -m pip install -q --disable-pip-version-check pyarrow==26.0.1
environment/bin/python - >said <<'PYTHON'
import pyarrow
import pyarrow.parquet as parquet

table = pyarrow.table({"geometry": [b""]})
for what, stored in {"with an Arrow schema": True, "without one": False}.items():
    with parquet.ParquetWriter("a.parquet", table.schema, store_schema=stored) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"geo": "{}"})
    file = parquet.ParquetFile("a.parquet")
    schema, own = (sorted(map(bytes.decode, each or {})) for each in (file.schema_arrow.metadata, file.metadata.metadata))
    print(f"{what}: schema {schema}, file {own}")
PYTHON
cat said
cat >seen <<'SAID'
with an Arrow schema: schema [], file ['ARROW:schema', 'geo']
without one: schema ['geo'], file ['geo']
SAID
diff seen said
