"""What mkdocs cannot do by itself: pages made of files that stand elsewhere, links out of ``docs/``, and the commands."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# The sentence before it is for those who read the page where nothing is included.
INCLUDE = re.compile(r'^(?:On GitHub and in a clone, [^\n]*\n\n)?--8<-- "(.+)"$', re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
COMMANDS = "<!-- commands -->"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    here = Path(page.file.abs_src_path)
    included = {(ROOT / path).resolve(): found for found, path in _inclusions()}
    text = _relinked(markdown, here, here, included, config.repo_url)

    def include(match: re.Match[str]) -> str:
        source = ROOT / match[1]
        return _relinked(source.read_text(encoding="utf-8"), source, here, included, config.repo_url)

    return INCLUDE.sub(include, text).replace(COMMANDS, "\n".join(_commands()) if COMMANDS in text else COMMANDS)


def _inclusions() -> Iterator[tuple[Path, str]]:
    """The pages that show a file from elsewhere, with its path."""
    for page in DOCS.rglob("*.md"):
        for path in INCLUDE.findall(page.read_text(encoding="utf-8")):
            yield page, path


def _relinked(text: str, source: Path, page: Path, included: dict[Path, Path], repository: str) -> str:
    """The links of a text that stands in ``source``, as they are to be written in ``page``."""

    def link(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        target = included.get(target, target)
        if DOCS in target.parents and target.suffix != ".ipynb":
            return os.path.relpath(target, page.parent)
        if not target.exists():
            return match[1]  # which mkdocs complains about
        return f"{repository}/blob/main/{target.relative_to(ROOT)}"

    return LINK.sub(link, text)


def _commands() -> Iterator[str]:
    """The reference of the command line, from the program itself."""
    import typer

    from fused_cache_ops.cli.commands import program

    root = typer.main.get_command(program)
    context = typer.Context(root, info_name="fused-cache-ops")
    yield from _options(root, context)
    for path, command, inner in _walk(root, context):
        yield f"\n### {' '.join(path)}\n\n{_plain(command.help)}\n"
        yield f"```text\n{command.get_usage(inner).removeprefix('Usage: ')}\n```\n"
        yield from _options(command, inner)


def _walk(group: Any, context: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    import typer

    for name, command in group.commands.items():
        inner = typer.Context(command, info_name=name, parent=context)
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from ((((name, *path)), found, deepest) for path, found, deepest in _walk(command, inner))
        else:
            yield (name,), command, inner


def _options(command: Any, context: Any) -> Iterator[str]:
    rows = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    if rows:
        yield "| | meaning |\n| --- | --- |"
        yield from (f"| `{_line(name)}` | {_plain(_line(text))} |" for name, text in rows)


def _line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Text in which no character is markup."""
    return re.sub(r"([*_`|])", r"\\\1", text).replace("<", "&lt;")
