#!/bin/sh
# deltalake 1.6.6: load_cdf(columns=[…]) reads each name as an SQL identifier. Unquoted, capitals are lost, and a dot or a
# hyphen is no part of a name, so a column GEOMETRY, geo.wkb or geo-wkb is an error. In double quotes, all are found. The same
# names are taken as they are by to_pyarrow_table(columns=[…]). Seen:
#
#   geometry plain=True quoted=True table=True
#   GEOMETRY plain=False quoted=True table=True
#   geo.wkb plain=False quoted=True table=True
#   geo-wkb plain=False quoted=True table=True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/python -m pip install -q --disable-pip-version-check deltalake==1.6.6 pyarrow==26.0.1
environment/bin/python - >said <<'PYTHON'
import pyarrow
from deltalake import DeltaTable, write_deltalake


def found(read):
    try:
        return pyarrow.table(read()).num_rows == 1
    except Exception:
        return False


for name in ("geometry", "GEOMETRY", "geo.wkb", "geo-wkb"):
    write_deltalake(name, pyarrow.table({name: [b"1"]}), configuration={"delta.enableChangeDataFeed": "true"})
    table = DeltaTable(name)
    plain, quoted = (found(lambda: table.load_cdf(starting_version=0, columns=[each])) for each in (name, f'"{name}"'))
    print(f"{name} plain={plain} quoted={quoted} table={found(lambda: table.to_pyarrow_table(columns=[name]))}")
PYTHON
cat said
cat >seen <<'SAID'
geometry plain=True quoted=True table=True
GEOMETRY plain=False quoted=True table=True
geo.wkb plain=False quoted=True table=True
geo-wkb plain=False quoted=True table=True
SAID
diff seen said
