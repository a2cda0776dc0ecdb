"""Run the README's example of one orchestrator against the emulator: python readme_example.py airflow README.md

Stands alone, so that it can also be run where a wheel has been installed beside its own orchestrator.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from fused_cache_ops.demo.pipelines import PIPELINES, run_pipeline
from fused_cache_ops.emulator import Emulator


def example(readme: Path, title: str | None = None) -> str:
    """The first block of Python in a README, or in its section of that title."""
    text = readme.read_text()
    if title is not None:
        text = text.split(f"\n## {title}\n", 1)[1]
    match = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{readme} has no example")
    return match[1]


def run_example(name: str, code: str, templates: Path | None = None) -> None:
    """Run the example in a real orchestrator; fail unless exactly the tiles it names were invalidated."""
    known = PIPELINES[name]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Emulator() as emulator:
        udf = emulator.register(lambda **tile: tile, name="roads")
        emulator.fill_cache(udf, [(15, 9647, 12320), (15, 9647, 12321), (15, 0, 0)])
        home, file = Path(folder, "home"), Path(folder, "example", "after_load.py")
        home.mkdir()
        file.parent.mkdir()
        file.write_text(code)

        def commands(path: Path) -> list[list[str]]:
            found = known.commands(path)
            return [["after_load" if word == "load_then_invalidate" else word for word in command] for command in found]

        pipeline = replace(known, example=str(file), commands=commands)
        run_pipeline(pipeline, home, emulator=emulator.environment(), variables={}, templates=templates)
        left = emulator.cached_tiles(udf)
        if left != {(15, 0, 0)}:
            raise AssertionError(f"{left} are still cached:\n{home.joinpath('output.log').read_text()}")


if __name__ == "__main__":
    run_example(sys.argv[1], example(Path(sys.argv[2])))
    print(f"The example of {sys.argv[2]} ran, and its tiles were invalidated.")
