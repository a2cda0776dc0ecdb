"""The options of a connection, declared once for all commands, and where the token comes from."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from fused_cache_ops.errors import ConfigurationError
from fused_cache_ops.keywords.client import CLIENT_OPTIONS
from fused_cache_ops.secret import Secret
from fused_cache_ops.wording import quoted_address

if TYPE_CHECKING:
    from fused_cache_ops.client import FusedClient

_PANEL = "Connection"
_LARGEST_TOKEN = 65536
STANDARD_INPUT = "-"


def _option(*names: str, **named: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_PANEL, **named)


def _described(name: str, **named: Any) -> Any:
    return _option(help=CLIENT_OPTIONS[name].help, **named)


_CONNECTION: dict[str, Any] = {
    "token_file": Annotated[
        Optional[str],
        _option(metavar="FILE", help="Read the token from a file, - for standard input. Default: FUSED_SERVICE_ACCOUNT_TOKEN."),
    ],
    "client_id": Annotated[Optional[str], _described("client_id", envvar="FUSED_CLIENT_ID")],
    "base_url": Annotated[Optional[str], _described("base_url", envvar="FUSED_BASE_URL")],
    "ca_bundle": Annotated[Optional[str], _described("ca_bundle")],
    "client_certificate": Annotated[Optional[str], _described("client_certificate")],
    "timeout": Annotated[float, _described("timeout")],
    "deadline": Annotated[float, _described("deadline")],
}
_SENDING: dict[str, Any] = {
    "max_concurrency": Annotated[int, _described("max_concurrency")],
    "max_requests_per_second": Annotated[Optional[float], _described("max_requests_per_second")],
}
_DEFAULTS: dict[str, Any] = {name: CLIENT_OPTIONS[name].default for name in ("timeout", "max_concurrency")}


class Connection:
    """The values of a connection's options.

    Args:
        settings: the settings of a client, without the token.
        token_file: where to read the token, or None for the environment.
    """

    def __init__(self, settings: dict[str, Any], token_file: Optional[str]) -> None:
        self.settings = settings
        self.token_file = token_file

    @functools.cached_property
    def token(self) -> Optional[Secret]:
        """The token that was given by a file, read once. None: the environment has it.

        Raises:
            ConfigurationError: the file cannot be read or is empty.
        """
        return None if self.token_file is None else _read_token(self.token_file)

    @property
    def token_source(self) -> str:
        """Where the token comes from, for messages."""
        if self.token_file is not None:
            return "standard input" if self.token_file == STANDARD_INPUT else self.token_file
        return "FUSED_SERVICE_ACCOUNT_TOKEN" if os.environ.get("FUSED_SERVICE_ACCOUNT_TOKEN") else "FUSED_AUTH_TOKEN"

    def open(self) -> "FusedClient":
        """A client, to be used as a context manager.

        Raises:
            ConfigurationError: a setting is missing or invalid.
        """
        from fused_cache_ops.client import FusedClient

        return FusedClient(token=self.token, **self.settings)


def connecting(*, deadline: float, sends: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of a connection to a command. It receives them as ``connection``.

    Args:
        deadline: the default of ``--deadline``, in seconds.
        sends: whether it sends so much that the limits of sending matter.
    """
    options = _CONNECTION | (_SENDING if sends else {})
    defaults = _DEFAULTS | {"deadline": deadline}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command).parameters

        @functools.wraps(command)
        def run(**given: Any) -> None:
            settings = {name: given.pop(name) for name in options}
            token_file = settings.pop("token_file")
            if token_file == STANDARD_INPUT and given.get("tiles_file") == "-":
                raise typer.BadParameter("--token-file - and --tiles-file - are both given: only one can be standard input.")
            command(**given, connection=Connection(settings, token_file))

        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=annotation)
            for name, annotation in options.items()
        ]
        return with_signature(run, [*(each for name, each in own.items() if name != "connection"), *added])

    return decorate


def with_signature(run: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    """A function under the signature that typer reads."""
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    described: Any = run
    described.__signature__ = inspect.Signature(parameters, return_annotation=None)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _read_token(path: str) -> Secret:
    """The content of a file, stripped. No message shows any of it."""
    shown = "standard input" if path == "-" else f"--token-file {quoted_address(path)}"
    try:
        content = sys.stdin.buffer.read(_LARGEST_TOKEN) if path == "-" else _first_bytes(Path(path))
        token = Secret(content.decode("utf-8").strip())
    except UnicodeDecodeError:
        raise ConfigurationError(f"{shown} is not text: it must hold the token alone.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not token.reveal():
        raise ConfigurationError(f"{shown} is empty: it must hold the token of a service account.")
    return token


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST_TOKEN)
