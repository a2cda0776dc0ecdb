"""The example notebook: it runs from top to bottom in a kernel of Jupyter, and is stored without outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.xdist_group("notebook")  # one process starts one kernel

PATH = Path(__file__).parents[2] / "docs/invalidate.ipynb"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each cell shows, by its id."""
    notebook = nbformat.read(PATH, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return {cell.id: dict(cell.outputs[-1].data) for cell in notebook.cells if cell.cell_type == "code" and cell.outputs}


def test_the_notebook_shows_the_plan_with_its_map(shown: dict[str, dict[str, Any]]) -> None:
    assert "data:image/svg+xml" in shown["plan"]["text/html"]
    assert "<table" in shown["plan"]["text/html"]


def test_the_notebook_shows_the_result_as_a_table(shown: dict[str, dict[str, Any]]) -> None:
    assert "<table" in shown["result"]["text/html"]
    assert "tiles" in shown["result"]["text/html"]


def test_the_notebook_leaves_only_the_tile_elsewhere(shown: dict[str, dict[str, Any]]) -> None:
    assert shown["cached"]["text/plain"] == "{(12, 0, 0)}"


def test_the_notebook_is_valid_and_has_no_outputs() -> None:
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
