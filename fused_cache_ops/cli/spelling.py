"""How the command line writes what messages name: ``--zooms 10-14``, and where it puts what an error holds."""

import re
from collections.abc import Mapping

from fused_cache_ops.keywords.announce import ANNOUNCE_OPTIONS
from fused_cache_ops.keywords.h3_index import H3_INDEX_OPTIONS
from fused_cache_ops.keywords.refresh import REFRESH_OPTIONS
from fused_cache_ops.keywords.spelling import respelled, without_attributes

_OTHERS: Mapping[str, str] = {
    "token": "--token-file",
    "shared_token": "FUSED_SHARED_TOKEN",
    "passcode": "FUSED_CANVAS_PASSCODE",
    "run_base_url": "FUSED_RUN_BASE_URL",
    "cache_map": "--map",
    "tiles": "Z/X/Y",
}
_MORE = (
    "cache_map",
    "repeat",
    "changes_of",
    "since",
    "array",
    *(f"refresh_{key}" for key in REFRESH_OPTIONS),
    *(f"h3_index_{key}" for key in H3_INDEX_OPTIONS),
    *(f"announce_{key}" for key in ANNOUNCE_OPTIONS),
)
_BARE = re.compile(r"[\w.,:/…-]+")


def as_options(message: str) -> str:
    """A message in the spelling of the command line."""
    message = re.sub(r"^(refresh|h3_index|announce): (\w+)", r"\1_\2", message.replace("announce: to", "announce"))
    message = message.replace("pass when_grid_differs='everything' to take", "name each by --geometry to take all of")
    message = message.replace("by dimensions=, such as ('y', 'x').", "in Python: changes_of_icechunk takes dimensions.")
    message = re.sub(r"^(since|array) = ", r"--\1 = ", message)
    message = re.sub(r"the deadline of (?:the )?(refresh|h3_index)\b", r"\1_deadline", message)
    return respelled(without_attributes(message), _option, _MORE).replace(" pass FUSED_", " set FUSED_")


def _option(name: str, value: str | None) -> str:
    if name == "refresh" and value is not None and value.startswith("{"):
        keys = re.findall(r"'(\w+)': ('[^']*'|[^,}]+)", value)
        return " ".join(_flag(f"refresh_{key}", given) for key, given in keys if key in REFRESH_OPTIONS)
    return _flag(name, value)


def _flag(name: str, value: str | None) -> str:
    flag = _OTHERS.get(name, f"--{name.replace('_', '-')}")
    if value is None or value == "True" or not flag.startswith("--"):
        return flag
    if value == "False":
        return f"--no-{name.replace('_', '-')}"
    inner = value.strip("'\"")
    return f"{flag} {inner if _BARE.fullmatch(inner) else value}"
