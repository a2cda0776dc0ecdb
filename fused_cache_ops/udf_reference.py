"""UDF references and other names that become parts of a URL path: ids, slugs, handles, shared tokens."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from hashlib import blake2b

from fused_cache_ops.errors import FusedCacheError, InvalidInputError
from fused_cache_ops.secret import MASK, Secret, sealed_udf, token_kind
from fused_cache_ops.wording import quoted, rendered_to_nothing

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f?#%\\/]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FORMS = (
    "a UDF is given by its id (a UUID), 'name', 'canvas/name', 'team/name', 'user@host/name', "
    "'@handle/name' or a shared token ('fsh_…', 'fc_<token>/<udf>', 'fc_<team>/<canvas>/<udf>', 'UDF_…', 64 hexadecimal digits)"
)


@dataclass(frozen=True)
class UdfReference:
    """A UDF as the caller named it.

    Attributes:
        udf_id: the id, if the UDF was given by its id. No lookup is needed then.
        lookup: otherwise the path of the lookup, part by part, not yet escaped.
        shown: how messages name the UDF. A shared token grants access, so it is masked.
        secret: the shared token, if there is one, so that it can be masked in the service's own text too.
        identity: what two notations of the same UDF have in common, such as ``roads`` and ``default/roads``. It says nothing
            of a shared token.
    """

    udf_id: str | None
    lookup: tuple[str | Secret, ...] = field(repr=False)
    shown: str
    secret: Secret | None = field(default=None, repr=False)

    @property
    def name(self) -> str | None:
        """Its name, as far as it was given by it."""
        last = self.lookup[-1] if self.lookup and self.secret is None else None
        return last if isinstance(last, str) else None

    @property
    def identity(self) -> object:
        if self.udf_id is not None:
            return self.udf_id
        revealed = tuple(part.reveal() if isinstance(part, Secret) else part for part in self.lookup)
        return blake2b("\0".join(revealed).encode(errors="surrogatepass")).digest()


def parse_udf(udf: str | Secret | UdfReference) -> UdfReference:
    """Read a UDF reference without any request. One that has already been read is returned unchanged.

    A name without a canvas is looked up in the canvas ``default`` of the token's own environment, and so is ``team/name``,
    the SDK's notation. ``canvas/name`` is looked up in that canvas.

    Raises:
        InvalidInputError: it is empty, rendered to nothing, or contains characters not allowed in a URL path segment.
    """
    if isinstance(udf, UdfReference):
        return udf
    udf = sealed_udf(udf)
    if isinstance(udf, Secret):
        return _shared(udf)
    if not isinstance(udf, (str, uuid.UUID)):
        raise InvalidInputError(f"udf is of type {type(udf).__name__}, not a string: {_FORMS}.")
    udf = str(udf).strip()
    if udf and rendered_to_nothing(udf):
        raise InvalidInputError(f"udf is {udf!r}, which looks like a template that rendered to nothing: {_FORMS}.")
    if _is_uuid(udf):
        return UdfReference(udf_id=udf.lower(), lookup=(), shown=udf.lower())
    owner, slash, name = udf.rpartition("/")
    _checked(name, udf)
    if not slash or owner == "team":
        owner = "default"
    if owner.startswith("@"):
        scope = ["by-user-handle", _checked(owner[1:], udf), "by-collection", "default"]
    elif "@" in owner:
        scope = ["by-user-email", _checked(owner, udf), "by-collection", "default"]
    else:
        scope = ["exec-env", "self", "by-collection", _checked(owner, udf)]
    return UdfReference(udf_id=None, lookup=("udf", *scope, "by-slug", name), shown=repr(udf))


def _shared(token: Secret) -> UdfReference:
    shown = f"{token_kind(token.reveal())}{MASK}"
    most = 3 if shown.startswith("fc_") else 1
    if problem := next(filter(None, map(_problem, _parts(token, most))), None):
        raise InvalidInputError(f"udf {shown}: a part of it {problem} ({_FORMS}).")
    return UdfReference(
        udf_id=None,
        # As in the SDK, slashes stay slashes.
        lookup=("udf", "shared", "by-token", *(Secret(part) for part in _parts(token, most))),
        shown=shown,
        secret=Secret(token.reveal().strip()),
    )


def _parts(token: Secret, most: int) -> list[str]:
    return token.reveal().strip().split("/", maxsplit=most - 1)


def checked_identifier(value: str, name: str, error: type[FusedCacheError] = InvalidInputError) -> str:
    """An id, stripped and checked to be safe as one segment of a path.

    Raises:
        error: it is empty, rendered to nothing, ``.`` or ``..``, or contains a control character or one of ``/ ? # % \\``.
    """
    if not isinstance(value, str):
        raise error(f"{name} is of type {type(value).__name__}, not a string.")
    value = value.strip()
    if problem := _problem(value):
        raise error(f"{name} {value!r} {problem}.")
    if rendered_to_nothing(value):
        raise error(f"{name} is {value!r}, which looks like a template that rendered to nothing.")
    return value


def _checked(part: str, shown: str) -> str:
    if problem := _problem(part):
        raise InvalidInputError(f"udf {quoted(shown)}: a part of it {problem} ({_FORMS}).")
    return part


def _problem(part: str) -> str | None:
    if not part.strip():
        return "is empty"
    if part in (".", ".."):
        return f"is {part!r}, which would change the address"
    if found := _FORBIDDEN.search(part):
        return f"contains {found.group()!a}, which would change the address"
    if found := _SURROGATE.search(part):
        return f"contains {found.group()!a}, which is no character. In a locale without UTF-8, set PYTHONUTF8=1"
    return None


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
