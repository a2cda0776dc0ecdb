"""The group ``announce``: where a page that shows the map learns what has changed."""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, TypedDict, Union
from urllib.parse import urlsplit

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.option import Option, check_keys, described, options_of
from fused_cache_ops.keywords.text import read_boolean
from fused_cache_ops.keywords.values import NOT_GIVEN
from fused_cache_ops.secret import MASK, Secret, sealed
from fused_cache_ops.settings import is_loopback
from fused_cache_ops.stores import local_path, refuse_broken_url
from fused_cache_ops.tiles.tile import is_boolean
from fused_cache_ops.wording import quoted, rendered_to_nothing, without_credentials

_ENVIRONMENT = "env:"
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_SOURCE = 200
_NO_NAME = re.compile(r"[^\w.-]+")


class AnnounceOptions(TypedDict, total=False):
    """Where to announce what has changed. `docs/open-maps.md` explains each key."""

    to: Annotated[
        Union[str, "os.PathLike[str]", Secret],
        Option(
            None,
            "Where to put the document: a path, a URL that fsspec supports, or an https address to POST it to. A folder, which "
            "ends in a slash, gets one for each UDF. env:NAME takes it from an environment variable.",
        ),
    ]
    source: Annotated[str, Option(None, "What the document calls the map. Default: the UDF's name.")]
    secret: Annotated[
        str, Option(None, "The name of the environment variable with the secret that signs what is posted to an address.")
    ]
    must_succeed: Annotated[
        bool,
        Option(False, "Fail if it cannot be announced. The invalidation is done nevertheless.", read_boolean),
    ]


Announce = Union[str, "os.PathLike[str]", AnnounceOptions]
"""A place, or a mapping of `AnnounceOptions`."""

ANNOUNCE_OPTIONS = options_of(AnnounceOptions)
AnnounceOptions.__doc__ = described(AnnounceOptions)


class Announcing(NamedTuple):
    """Where and how to announce.

    Attributes:
        to: the place. An address to post to may grant access.
        source: what the document calls the map. None: the UDF's name.
        secret: the name of the environment variable with the secret that signs. None: nothing is signed.
        must_succeed: whether a failure to announce is an error.
    """

    to: Union[str, Secret]
    source: str | None = None
    secret: str | None = None
    must_succeed: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether each UDF has a document of its own there."""
        return isinstance(self.to, str) and self.to.endswith(("/", os.sep))

    @property
    def can_tell_apart(self) -> bool:
        """Whether several UDFs can be announced there."""
        return self.is_folder or isinstance(self.to, Secret) or self.to.startswith(_ENVIRONMENT)

    @property
    def shown(self) -> str:
        """The place for messages."""
        return without_credentials(self.to, self.to) if isinstance(self.to, str) else masked_webhook(self.to)

    def __str__(self) -> str:
        return f"what is confirmed is announced to {self.shown}"

    def opened(self) -> "Announcing":
        """The same, with the place that an environment variable names.

        Raises:
            InvalidInputError: the variable is not set, or does not hold a place.
        """
        if isinstance(self.to, Secret) or not self.to.startswith(_ENVIRONMENT):
            return self
        name = self.to.removeprefix(_ENVIRONMENT)
        if not os.environ.get(name, "").strip():
            raise InvalidInputError(f"announce: to = {self.to!r}, but the environment variable {name} is not set here.")
        return self._replace(to=_place(os.environ[name].strip(), f"announce: to in {name}"))

    def opened_here(self) -> "Announcing":
        """As `opened`, or unchanged where the variable is not set, such as on another machine than that of the run."""
        return self.opened() if not self._variable or os.environ.get(self._variable, "").strip() else self

    @property
    def _variable(self) -> str | None:
        """The environment variable that names the place."""
        is_named = isinstance(self.to, str) and self.to.startswith(_ENVIRONMENT)
        return str(self.to).removeprefix(_ENVIRONMENT) if is_named else None


def announce_options(given: Any) -> Mapping[str, Any]:
    """The keys that were given. None if nothing is to be announced.

    Raises:
        InvalidInputError: it is neither a place nor a mapping of `AnnounceOptions`.
    """
    if given is NOT_GIVEN:
        return {}
    if isinstance(given, (str, os.PathLike, Secret)):
        return {"to": given}
    if given is None:
        raise InvalidInputError(
            "announce is None, which may be a value that is missing: pass a path, a URL, or a mapping with to. Omit it to "
            "announce nothing."
        )
    check_keys(given, ANNOUNCE_OPTIONS, "announce", example="{'to': 's3://bucket/roads.json'}")
    if missing := [name for name, value in given.items() if value is None]:
        raise InvalidInputError(f"announce: {missing[0]} is None, which may be a value that is missing: omit it instead.")
    if not given:
        raise InvalidInputError("announce is an empty mapping: pass a place, or omit it.")
    return dict(given)


def read_announce(given: Any) -> Announcing | None:
    """Where to announce, or None if nothing is to be announced.

    Raises:
        InvalidInputError: a key is missing or cannot be read.
    """
    options = announce_options(given)
    if not options:
        return None
    if "to" not in options:
        raise InvalidInputError("announce: to is missing: pass a path, a URL that fsspec supports, or an https address.")
    to, source, secret = _place(options["to"], "announce: to"), options.get("source"), options.get("secret")
    if source is not None:
        source = checked_source(source)
    if secret is not None and not (isinstance(secret, str) and _VARIABLE.fullmatch(secret)):
        raise InvalidInputError("announce: secret must be the name of an environment variable, not the secret itself.")
    if secret is not None and not (isinstance(to, Secret) or to.startswith(_ENVIRONMENT)):
        raise InvalidInputError("announce: secret signs what is posted to an https address. A path or a store needs none.")
    must_succeed = options.get("must_succeed", False)
    if not is_boolean(must_succeed):
        raise InvalidInputError(f"announce: must_succeed = {quoted(must_succeed)} must be True or False.")
    return Announcing(to, source, secret, bool(must_succeed))


def merged_announce(*given: Any) -> Any:
    """A place with the keys of several, of which a later one counts more. `NOT_GIVEN` if none of them names one.

    Raises:
        InvalidInputError: one of them cannot be read.
    """
    options = {name: value for each in given for name, value in announce_options(each).items()}
    return options if "to" in options else NOT_GIVEN


def sealed_announce(given: Any) -> Any:
    """The same, with an address to post to as a secret. A mapping is copied, never changed."""
    if isinstance(given, str):
        return sealed(given) if is_webhook(given) else given
    if isinstance(given, Mapping) and "to" in given:
        return {**given, "to": sealed_announce(given["to"])}
    return given


def is_webhook(place: Any) -> bool:
    """Whether a place is an address to post to, which may grant access."""
    return isinstance(place, Secret) or (isinstance(place, str) and place.strip().lower().startswith(("https://", "http://")))


def webhook_of(announce: Any) -> str | None:
    """The address to post to that is written in ``announce``, for those who must not store it. None: there is none."""
    place = announce.get("to") if isinstance(announce, Mapping) else announce
    return place if isinstance(place, str) and is_webhook(place) else None


def refuse_stored_webhook(announce: Any, where: str) -> None:
    """Reject an address to post to that would be stored in plain text.

    Args:
        announce: what was given.
        where: who stores it, for the message: ``"Airflow stores a DAG's arguments"``.

    Raises:
        InvalidInputError: as said.
    """
    if webhook_of(announce) is not None:
        raise InvalidInputError(
            f"announce: to is an address to post to, which may grant access, and {where} in plain text: put it into an "
            "environment variable of the worker, and pass to = 'env:MAP_WEBHOOK' with its name."
        )


def masked_webhook(address: Secret) -> str:
    """An address to post to without what may grant access: its user, path and query."""
    parts = urlsplit(address.reveal())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{MASK}"


def document_name(source: str) -> str:
    """The name of a map's file in a folder."""
    return f"{_NO_NAME.sub('-', source).strip('.') or 'map'}.json"


def checked_source(source: Any) -> str:
    """The name of a map.

    Raises:
        InvalidInputError: it is not a name.
    """
    if not isinstance(source, str):
        raise InvalidInputError(f"announce: source is of type {type(source).__name__}, not text.")
    if rendered_to_nothing(source) or not source.isprintable() or len(source) > _LONGEST_SOURCE:
        raise InvalidInputError(
            f"announce: source = {quoted(source)} must be a name of up to {_LONGEST_SOURCE} characters that print."
        )
    return source.strip()


def _place(given: Any, what: str) -> Union[str, Secret]:
    if isinstance(given, Secret):
        return _webhook(given, what)
    if not isinstance(given, (str, os.PathLike)):
        raise InvalidInputError(f"{what} is of type {type(given).__name__}: pass a path, a URL or an https address.")
    place = os.fspath(given)
    if not isinstance(place, str) or rendered_to_nothing(place):
        raise InvalidInputError(f"{what} is {quoted(place)}, which looks like a value that is missing.")
    if "\0" in place:
        raise InvalidInputError(f"{what} = {quoted(place)} is not a path: it holds a NUL character.")
    if is_webhook(place):
        return _webhook(Secret(place.strip()), what)
    if len(place.splitlines()) > 1:
        raise InvalidInputError(f"{what} = {quoted(place)} is several lines: give one place.")
    if place.startswith(_ENVIRONMENT) and not _VARIABLE.fullmatch(place.removeprefix(_ENVIRONMENT)):
        raise InvalidInputError(f"{what} = {quoted(place)} must name an environment variable: env:MAP_WEBHOOK.")
    refuse_broken_url(place, what)
    return local_path(place)


def _webhook(address: Secret, what: str) -> Secret:
    try:
        parts = urlsplit(address.reveal())
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or not address.reveal().isprintable() or any(each.isspace() for each in address.reveal()):
        raise InvalidInputError(f"{what} is not an address that can be posted to. It may grant access and is not shown.")
    if parts.scheme.lower() != "https" and not is_loopback(host):
        raise InvalidInputError(
            f"{what} = {masked_webhook(address)!r} must be https. Only this machine is posted to without it."
        )
    if parts.username is not None or parts.fragment:
        raise InvalidInputError(f"{what} = {masked_webhook(address)!r} must be without a user, a password and a fragment.")
    return address
