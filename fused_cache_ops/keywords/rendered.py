"""Keywords that arrive as text from a template, a form or an environment variable.

Text that rendered to nothing is an error, in a group as outside of it.
"""

from collections.abc import Mapping
from typing import Any

from fused_cache_ops.keywords.announce import ANNOUNCE_OPTIONS
from fused_cache_ops.keywords.call import CALL_OPTIONS
from fused_cache_ops.keywords.client import LIMIT_OPTIONS
from fused_cache_ops.keywords.h3_index import H3_INDEX_OPTIONS
from fused_cache_ops.keywords.option import Option, check_keys
from fused_cache_ops.keywords.refresh import REFRESH_OPTIONS

GROUPS: Mapping[str, Mapping[str, Option]] = {
    "refresh": REFRESH_OPTIONS,
    "h3_index": H3_INDEX_OPTIONS,
    "announce": ANNOUNCE_OPTIONS,
    "limits": LIMIT_OPTIONS,
}
"""The keywords that may be a mapping of options, with these."""


def read_rendered(rendered: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a call from rendered templates. Zooms, geometries and resolutions stay text, because the core reads them.

    Raises:
        InvalidInputError: a text is not valid for its keyword. This includes empty text and ``None``: a template that
            rendered to nothing must not be taken for "no selection", which means everything.
    """
    return {name: _read(name, value, CALL_OPTIONS) for name, value in rendered.items()}


def _read(name: str, value: Any, options: Mapping[str, Option]) -> Any:
    option = options.get(name)
    if isinstance(value, str) and option is not None and option.read is not None:
        value = option.read(name, value)
    if name in GROUPS and isinstance(value, Mapping):
        check_keys(value, GROUPS[name], name)
        return {key: _read_key(name, key, each) for key, each in value.items()}
    return value


def _read_key(group: str, key: str, value: Any) -> Any:
    option = GROUPS[group][key]
    return option.read(f"{group}[{key!r}]", value) if isinstance(value, str) and option.read is not None else value
