"""Mutation tests of the guards, run by scripts/mutants. What is changed and which tests must notice is in mutants.toml."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "mutants"
GUARDS = (
    "core/test_rendered.py",
    "core/test_kinds.py",
    "command_line/test_step_inputs.py",
    "command_line/test_options.py",
    "core/test_freshness.py",
    "core/test_runs_of_a_refresh.py",
    "core/test_masking.py",
    "core/test_nothing_is_lost.py",
)
"""What GUARDS in mutants.toml stands for: the tests that each guard has of its own."""

AT_ONCE = 6  # many tests wait

# Mutants of an error's words would only pin them down, and those of the log too.
CONFIGURATION = """
[tool.mutmut]
source_paths = ["fused_cache_ops"]
only_mutate = ["fused_cache_ops/{module}"]
do_not_mutate_patterns = ['^ *raise ', '^ *logger[.]', '^ *warn[(]', '^ *f?"[^"]* [^"]* ', {unmutated}]
pytest_add_cli_args = ["-p", "no:cacheprovider", {deselected}]
pytest_add_cli_args_test_selection = {tests}
timeout_multiplier = 8
timeout_constant = 2
track_dependencies = false
use_git_change_detection = false
"""

# Run by mutmut's own interpreter in its folder: the status of each mutant and what it changed.
LIST = """
import json
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
for path in walk_mutatable_files():
    data = SourceFileMutationData(path=path)
    data.load()
    for name, code in data.exit_code_by_key.items():
        status = status_by_exit_code[code]
        shown = "" if status in ("killed", "timeout") else get_diff_for_mutant(name, path=path)
        print(json.dumps([name, status, shown]))
"""


def run(module: str, how: dict) -> list[tuple[str, str, str]]:
    """The mutants of a module: name, status, and the lines that were changed."""
    folder = WORK / module.replace("/", "-").removesuffix(".py")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("fused_cache_ops", "tests"):
        (folder / name).symlink_to(ROOT / name)
    deselected = "".join(f'"--deselect=tests/{each}", ' for each in how.get("deselected", []))
    unmutated = "".join(f"'{each}', " for each in how.get("unmutated", []))
    configuration = CONFIGURATION.format(
        module=module,
        tests=[f"tests/{name}" for each in how["tests"] for name in (GUARDS if each == "GUARDS" else [each])],
        deselected=deselected,
        unmutated=unmutated,
    )
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + configuration)
    prefix = f"fused_cache_ops.{module.removesuffix('.py').replace('/', '.')}"
    functions = [f"x_{each}__mutmut_" for each in how.get("functions", [])]
    names = [f"{prefix}.{each}*" for each in functions]
    with (folder / "output").open("wb") as output:
        ended = subprocess.run(
            ["mutmut", "run", f"--max-children={AT_ONCE}", *names],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode:
        raise SystemExit(f"{module}: mutmut failed: {folder / 'output'}\n{(folder / 'output').read_text()[-3000:]}")
    listed = subprocess.run([sys.executable, "-c", LIST], cwd=folder, capture_output=True, text=True, check=True).stdout
    found = []
    for line in listed.splitlines():
        name, status, shown = json.loads(line)
        changed = [row for row in shown.splitlines() if row[:1] in "-+" and row[:3] not in ("---", "+++")]
        if status != "not checked":
            found.append((name.rpartition(".")[2], status, "\n".join(f"{row[0]} {row[1:].strip()}" for row in changed)))
    if gone := [each for each in functions if not any(name.startswith(each) for name, _, _ in found)] or not found:
        raise SystemExit(f"{module} has no mutants of {gone}: is the function still there?")
    return found


def added(shown: str) -> str:
    """The lines as they are in the mutant, by which mutants.toml names it."""
    return "\n".join(line.removeprefix("+ ") for line in shown.splitlines() if line.startswith("+ "))


def main(chosen: list[str]) -> int:
    declared = tomllib.loads((ROOT / "tests" / "repository" / "mutants.toml").read_text())
    if unknown := set(chosen) - set(declared):
        sys.exit(f"mutants.toml has no {', '.join(sorted(unknown))}. It has {', '.join(declared)}.")
    os.environ["HYPOTHESIS_PROFILE"] = "steady"
    unexplained = 0
    print(f"{'module':28} mutants  killed  survived  explained  seconds")
    for module, how in declared.items():
        if chosen and module not in chosen:
            continue
        began = time.monotonic()
        found = run(module, how)
        explained = {mutant for each in how.get("explained", []) for mutant in each["mutants"]}
        survivors = [(name, status, shown) for name, status, shown in found if status not in ("killed", "timeout")]
        left = [each for each in survivors if added(each[2]) not in explained]
        statuses = Counter(status for _, status, _ in found)
        print(
            f"{module:28} {len(found):7} {statuses['killed'] + statuses['timeout']:7} {len(survivors):9} "
            f"{len(survivors) - len(left):10} {time.monotonic() - began:8.0f}",
            flush=True,
        )
        for name, status, shown in left:
            print(f"\n  {name}: {status}\n    " + shown.replace("\n", "\n    "))
        for gone in explained - {added(shown) for _, _, shown in survivors}:
            print(f"\n  Explained, but no longer a survivor: {gone}")
        unexplained += len(left)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
