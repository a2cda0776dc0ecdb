"""Builds of examples/dbt with a real dbt, and the step after each, from the command line and in each orchestrator: which maps
became fresh? Run by scripts/dbt."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fused_cache_ops.emulator import Emulator, Udf

EXAMPLE = Path(__file__).parents[1] / "examples" / "dbt"
PARCEL, MOVED, OTHER = (14, 7776, 6278), (14, 7773, 6276), (14, 0, 0)
UDFS = ("parcels", "streets", "prices", "prices_legend")
EVERYTHING = {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}
FAILED = {"parcels": 2, "streets": 0, "prices": 3, "prices_legend": 3}

AIRFLOW = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag
from airflow_provider_fused.operators import FusedInvalidateDbtOperator


@dag(schedule=None)
def after_dbt():
    build = BashOperator(task_id="build", bash_command="DBT build --vars 'VARS'", cwd="PROJECT", append_env=True)
    build >> FusedInvalidateDbtOperator(task_id="invalidate", path="PROJECT/target", trigger_rule="all_done")


made = after_dbt()
if __name__ == "__main__":
    print({task.task_id: str(task.state) for task in made.test().get_task_instances()})
"""

PREFECT = """
import subprocess

from prefect import flow
from prefect_fused import invalidate_dbt


@flow
def after_dbt():
    subprocess.run(["DBT", "--quiet", "build", "--vars", "VARS"], cwd="PROJECT")
    invalidate_dbt("PROJECT/target")


if __name__ == "__main__":
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness():
        print(after_dbt(return_state=True).name)
"""

DAGSTER = """
import os

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets
from dagster_fused import FusedResource, build_fused_dbt_assets

project = DbtProject(project_dir="PROJECT")


@dbt_assets(manifest=project.manifest_path)
def models(context: dg.AssetExecutionContext, dbt: DbtCliResource):
    yield from dbt.cli(["build", "--vars", 'VARS'], context=context).stream()


maps = build_fused_dbt_assets(project.manifest_path)
fused = FusedResource(token=os.environ["FUSED_SERVICE_ACCOUNT_TOKEN"], base_url=os.environ["FUSED_BASE_URL"])
resources = {"dbt": DbtCliResource(project_dir=project, dbt_executable="DBT"), "fused": fused}
defs = dg.Definitions(assets=[models, *maps], resources=resources)
with dg.DagsterInstance.ephemeral() as instance:
    before = dg.evaluate_automation_conditions(defs, instance)
    built = dg.materialize([models], resources=resources, instance=instance, raise_on_error=False)
    after = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
    wanted = [each for each in maps if after.get_num_requested(each.key)]
    done = dg.materialize(wanted, resources=resources, instance=instance)
print("dbt", built.success, "- automation asked for", sorted(each.key.to_user_string() for each in wanted), done.success)
"""


class City:
    """The project in a folder of its own, the emulator with its maps, and the steps."""

    def __init__(self, emulator: Emulator, folder: Path, dbt: str) -> None:
        self.emulator = emulator
        self.folder = folder
        self.dbt = dbt
        self.udfs: dict[str, Udf] = {name: emulator.register(dict, name=name) for name in UDFS}
        self.environment = os.environ | emulator.environment()
        self.environment |= {"DBT_SEND_ANONYMOUS_USAGE_STATS": "0", "DBT_PROFILES_DIR": ".", "DO_NOT_TRACK": "1"}

    def fresh_project(self) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(EXAMPLE, self.folder)
        return self.folder

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        there = self.environment | environment
        return subprocess.run(command, cwd=self.folder, env=there, capture_output=True, text=True, check=False)

    def expect(self, what: str, step: Callable[[], str], left: dict[str, int]) -> None:
        for udf in self.udfs.values():
            self.emulator.fill_cache(udf, [PARCEL, MOVED, OTHER])
        said = step()
        found = {name: len(self.emulator.cached_tiles(udf)) for name, udf in self.udfs.items()}
        print(f"{what}: {said.strip().splitlines()[-1]}. Cached tiles left: {found}", flush=True)
        if found != left:
            raise SystemExit(f"Expected {left}.\n{said}")

    def command(self, *arguments: str, code: int) -> str:
        built = self.run(self.dbt, "--quiet", *arguments)
        program = ("-c", "from fused_cache_ops.cli import main; main()", "dbt", "target", "--json")
        done = self.run(sys.executable, *program)
        result = json.loads(done.stdout)
        result = result.get("result", result) or {}
        if done.returncode != code:
            raise SystemExit(f"Expected exit code {code}.\n{built.stdout}{done.stdout}{done.stderr}")
        changed = sorted(uid.rpartition(".")[2] for uid in result.get("changed", ()))
        return f"dbt {built.returncode}, command {code}, changed {changed}, not built {list(result.get('not_built', ()))}"

    def script(self, python: str, text: str, variables: str, **environment: str) -> str:
        filled = text.replace("DBT", self.dbt).replace("VARS", variables).replace("PROJECT", str(self.folder))
        path = self.folder.parent / "step.py"
        path.write_text(filled)
        done = self.run(python, str(path), **environment)
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
        return done.stdout


def command_line(city: City) -> None:
    project = city.fresh_project()
    city.expect("Everything is built", lambda: city.command("build", code=0), EVERYTHING)
    seed = project / "seeds" / "parcels_delivered.csv"
    seed.write_text(seed.read_text().replace("38.75,920", "38.75,930"))
    broken = ("build", "--vars", "{price: no_such_column}")
    city.expect("One parcel changed, and prices fail", lambda: city.command(*broken, code=3), FAILED)
    only_prices = {"parcels": 3, "streets": 3, "prices": 0, "prices_legend": 0}
    city.expect("The retry", lambda: city.command("retry", "--vars", "{price: 12}", code=0), only_prices)
    only_streets = {"parcels": 3, "streets": 0, "prices": 3, "prices_legend": 3}
    city.expect("Only the table under the view", lambda: city.command("run", "--select", "streets", code=0), only_streets)
    city.expect("Nothing is built", lambda: city.command("compile", code=1), dict.fromkeys(UDFS, 3))


def orchestrated(city: City, python: str, text: str, name: str, *, left_by_failure: dict[str, int], **environment: str) -> None:
    city.fresh_project()
    city.run(city.dbt, "--quiet", "parse")  # for the manifest
    city.expect(f"{name}, everything", lambda: city.script(python, text, "{price: 10}", **environment), EVERYTHING)
    city.expect(
        f"{name}, prices fail", lambda: city.script(python, text, "{price: no_such_column}", **environment), left_by_failure
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dbt", help="the program of a real dbt")
    parser.add_argument("python", help="an interpreter with dagster-dbt and dagster-fused")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=["airflow", "prefect", "dagster"])
    arguments = parser.parse_args()
    home = arguments.folder / "home"
    home.mkdir(parents=True)
    with Emulator() as emulator:
        city = City(emulator, arguments.folder / "city", arguments.dbt)
        if arguments.only is None:
            command_line(city)
        left = FAILED | {"parcels": 3}  # no parcel changed
        if arguments.only in (None, "airflow"):
            airflow = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
            airflow["AIRFLOW__CORE__DAGS_FOLDER"] = str(arguments.folder)
            fields = {"conn_type": "fused", "host": emulator.base_url, "password": emulator.token}
            airflow["AIRFLOW_CONN_FUSED_DEFAULT"] = json.dumps(fields)
            city.fresh_project()
            city.run(sys.executable, "-m", "airflow", "db", "migrate", **airflow)
            orchestrated(city, sys.executable, AIRFLOW, "Airflow", left_by_failure=left, **airflow)
        if arguments.only in (None, "prefect"):
            orchestrated(city, sys.executable, PREFECT, "Prefect", left_by_failure=left, PREFECT_HOME=str(home))
        if arguments.only in (None, "dagster"):
            orchestrated(city, arguments.python, DAGSTER, "Dagster", left_by_failure=left)
    print("Right maps, and no others.")


if __name__ == "__main__":
    main()
