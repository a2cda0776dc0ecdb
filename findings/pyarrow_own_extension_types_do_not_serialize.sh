#!/bin/sh
# pyarrow 26.0.1: its own extension types have `extension_name`, as those that a user registers have, but not their
# `__arrow_ext_serialize__`. So code that looks through a table's columns for one that is marked (such as a column of geometries)
# and asks each extension type for its metadata fails with an AttributeError beside a column of uuid, json or bool8. Seen:
#
#   arrow.uuid True False
#   arrow.json True False
#   arrow.bool8 True False
#   arrow.opaque True False
#   arrow.fixed_shape_tensor True False
#   own.type True True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/python -m pip install -q --disable-pip-version-check pyarrow==26.0.1
environment/bin/python - >said <<'PYTHON'
import pyarrow


class Own(pyarrow.ExtensionType):
    def __init__(self):
        super().__init__(pyarrow.int8(), "own.type")

    def __arrow_ext_serialize__(self):
        return b""


types = [pyarrow.uuid(), pyarrow.json_(), pyarrow.bool8(), pyarrow.opaque(pyarrow.int8(), "t", "v")]
for kind in [*types, pyarrow.fixed_shape_tensor(pyarrow.int8(), [2]), Own()]:
    print(kind.extension_name, hasattr(kind, "extension_name"), hasattr(kind, "__arrow_ext_serialize__"))
PYTHON
cat said
cat >seen <<'SAID'
arrow.uuid True False
arrow.json True False
arrow.bool8 True False
arrow.opaque True False
arrow.fixed_shape_tensor True False
own.type True True
SAID
diff seen said
