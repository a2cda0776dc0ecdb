"""The program as a whole: every command gets from here how it ends, its defaults, and how much it says."""

import contextlib
import functools
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar

import typer
from typer.core import TyperGroup

from fused_cache_ops.cli.connection import with_signature
from fused_cache_ops.cli.endings import EXIT_CODES, CommandFailed, report, report_usage
from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.spelling import as_options
from fused_cache_ops.errors import FusedCacheError, InvalidInputError

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])

_SENT_NOTHING_BY = {"plan": ("related", "max_related")}
"""Settings that are not for a command, because it would need a token with them."""


class Program(TyperGroup):
    """Maps every error to an exit code and, with ``--json``, to a document."""

    def main(self, args: Optional[Sequence[str]] = None, *others: Any, **named: Any) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        options = given[: given.index("--")] if "--" in given else given
        output.begin(as_json="--json" in options)
        self._asks_for_help = "--help" in options
        self._needs_settings = not self._asks_for_help and options[:1] != ["ci"]  # which runs others, that report for it
        return super().main(args, *others, **named)

    def make_context(self, *given: Any, **named: Any) -> Any:
        with _reported(), self._help_unread():
            return super().make_context(*given, **named)

    def invoke(self, ctx: Any) -> Any:
        with _reported(), self._help_unread(), _warned():
            if self._needs_settings:
                ctx.default_map = _defaults(self.commands)
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _help_unread(self) -> Iterator[None]:
        try:
            yield
        except (BrokenPipeError, SystemExit):  # the latter is Rich's
            if not self._asks_for_help:
                raise
            raise typer.Exit from None


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except CommandFailed as failed:
        raise typer.Exit(report(failed)) from None
    except (FusedCacheError, KeyboardInterrupt) as error:
        raise typer.Exit(report(CommandFailed(error))) from None
    except UnicodeEncodeError:
        unreadable = InvalidInputError("An argument has characters that this locale cannot express: set PYTHONUTF8=1.")
        raise typer.Exit(report(CommandFailed(unreadable))) from None
    except Exception as error:
        # A usage error, or the end of a command. Its class is typer's or click's, depending on the version.
        if type(error).__module__.partition(".")[0] in ("click", "typer"):
            if not (output.as_json and getattr(error, "exit_code", None) == 2 and hasattr(error, "format_message")):
                raise
            raise typer.Exit(report_usage(error.format_message())) from None
        if output.verbose:
            traceback.print_exc()
        unexpected = FusedCacheError(f"Unexpected {type(error).__name__}: {error}. With -v, the traceback is shown.")
        raise typer.Exit(report(CommandFailed(unexpected))) from None


@contextlib.contextmanager
def _warned() -> Iterator[None]:
    """Say warnings in a line each, without the place in Python's code. Those that are for programmers go where they did."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def say(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):
                output.say(as_options(str(message)))
            else:
                before(message, category, *where, **more)

        warnings.showwarning = say
        yield


def _defaults(commands: Any) -> dict[str, Any]:
    """The settings of ``fused-cache.toml`` as defaults of each command's options."""
    from fused_cache_ops.cache_map.defaults import find_settings

    try:
        found = find_settings(Path.cwd())
    except FileNotFoundError:  # the working folder is gone
        found = {}
    found |= {f"refresh_{key}": value for key, value in found.pop("refresh", {}).items()}
    defaults: dict[str, Any] = {
        name: {key: value for key, value in found.items() if key not in _SENT_NOTHING_BY.get(name, ())} for name in commands
    }
    for name, command in commands.items():
        for inner in getattr(command, "commands", ()):
            defaults[name][inner] = found
    return defaults


def _show_version(value: bool) -> None:
    if value:
        from fused_cache_ops import __version__

        output.write([f"fused-cache-ops {__version__}\n"])
        raise typer.Exit


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only results and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also log what is done, and progress if there is no terminal.")]


class Commands(typer.Typer):
    """A group of commands. Each of them takes ``--quiet`` and ``--verbose`` too, as the program itself does."""

    def command(self, *given: Any, **named: Any) -> Callable[[CommandFunction], CommandFunction]:
        register = super().command(*given, **named)

        def add(command: CommandFunction) -> CommandFunction:
            @functools.wraps(command)
            def run(*, quiet: bool, verbose: bool, **options: Any) -> None:
                _say(quiet, verbose)
                command(**options)

            own = inspect.signature(command).parameters.values()
            added = [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
                for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
            ]
            register(with_signature(run, [*own, *added]))
            return command

        return add


def _say(quiet: bool, verbose: bool) -> None:
    output.quiet, output.verbose = output.quiet or quiet, output.verbose or verbose
    if output.quiet and output.verbose:
        raise typer.BadParameter("--quiet and --verbose are both given: use one of them.")


# Tracebacks with locals would show the values of the caller's variables.
program = Commands(cls=Program, no_args_is_help=True, pretty_exceptions_show_locals=False)


@program.callback(
    help="Invalidate the caches of Fused UDFs.",
    epilog="\n\n".join(["Exit codes:", *(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items())]),
)
def _begin(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    _say(quiet, verbose)
