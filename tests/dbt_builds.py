"""Builds of examples/dbt with a real dbt, and the command after each: which maps became fresh? Run by scripts/dbt."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fused_cache_ops.emulator import Emulator

EXAMPLE = Path(__file__).parents[1] / "examples" / "dbt"
PARCEL, MOVED, OTHER = (14, 7776, 6278), (14, 7773, 6276), (14, 0, 0)
UDFS = ("parcels", "streets", "prices", "prices_legend")


def main() -> None:
    dbt, project = sys.argv[1], Path(sys.argv[2])
    shutil.copytree(EXAMPLE, project)
    with Emulator() as emulator:
        udfs = {name: emulator.register(dict, name=name) for name in UDFS}
        environment = os.environ | emulator.environment() | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "0", "DBT_PROFILES_DIR": "."}

        def run(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)

        def stale() -> dict[str, int]:
            return {name: len(emulator.cached_tiles(udf)) for name, udf in udfs.items()}

        def build(what: str, *arguments: str, code: int, left: dict[str, int]) -> None:
            for udf in udfs.values():
                emulator.fill_cache(udf, [PARCEL, MOVED, OTHER])
            built = run(dbt, "--quiet", *arguments)
            command = ("-c", "from fused_cache_ops.cli import main; main()", "dbt", "target", "--json")
            done = run(sys.executable, *command)
            said = json.loads(done.stdout)
            result = said.get("result", said) or {}
            print(f"{what}: dbt {built.returncode}, command {done.returncode}, cached tiles left {stale()}", flush=True)
            print(f"  changed {list(result.get('changed', ()))}, not built {result.get('not_built')}", flush=True)
            if (done.returncode, stale()) != (code, left):
                raise SystemExit(f"Expected exit code {code}, and {left}.\n{built.stdout}{done.stdout}{done.stderr}")

        build("Everything is built", "build", code=0, left={"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0})
        seed = project / "seeds" / "parcels_delivered.csv"
        seed.write_text(seed.read_text().replace("38.75,920", "38.75,930"))
        build(
            "One parcel changed, and prices fail",
            *("build", "--vars", "{price: no_such_column}"),
            code=3,
            left={"parcels": 2, "streets": 0, "prices": 3, "prices_legend": 3},
        )
        build(
            "The retry",
            *("retry", "--vars", "{price: 12}"),
            code=0,
            left={"parcels": 3, "streets": 3, "prices": 0, "prices_legend": 0},
        )
        build(
            "Only the table under the view",
            *("run", "--select", "streets"),
            code=0,
            left={"parcels": 3, "streets": 0, "prices": 3, "prices_legend": 3},
        )
        build("Nothing is built", "compile", code=1, left=dict.fromkeys(UDFS, 3))
    print("Right maps, and no others.")


if __name__ == "__main__":
    main()
