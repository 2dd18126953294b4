"""The notebooks run in a clean kernel, and their stored outputs are small and independent of the machine."""

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SAYS = {  # what a reader sees, beside the facts that each notebook asserts itself
    1: r"mean \S+ 0\.\d{4}, gap 0\b",
    2: r"po-dkic +psnr",
    3: r"synthesis\.groups\.0\.1\.aggregation +8\.0",
    4: r"\nPASS\n[\s\S]*decoder: exit status 0[\s\S]*\nFAIL\n[\s\S]*\n\w+: has [\d,]+ bytes, not ",
    5: r"bound ([\d.]+), gap 0;",
}
PATH = r"(?:/[\w.-]+){3,}|[A-Z]:\\"


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def texts(notebook: Any) -> str:
    """All that the outputs say, without the pictures."""
    parts = []
    for output in outputs(notebook):
        parts += [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
    return "\n" + "\n".join(parts)


def number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def test_there_are_five_of_them_and_the_readme_names_each() -> None:
    assert [number(path) for path in NOTEBOOKS] == sorted(SAYS)
    readme = (NOTEBOOKS[0].parent / "README.md").read_text()
    assert re.findall(r"\(([^)]+\.ipynb)\)", readme) == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_leaves_nothing_behind(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    assert not list(tmp_path.rglob("run.db"))
    said = texts(notebook)
    assert re.search(SAYS[number(path)], said)
    pictures = [key for output in outputs(notebook) for key in output.get("data", {}) if key.startswith("image/")]
    stored = read(path)
    assert pictures == [k for o in outputs(stored) for k in o.get("data", {}) if k.startswith("image/")]
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    for place in (str(tmp_path), tempfile.gettempdir(), str(Path.home()), sys.prefix, str(Path.cwd())):
        assert place not in said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_small_and_name_no_machine(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # in one go
    assert re.search(SAYS[number(path)], texts(notebook))
    assert not re.search(PATH, texts(notebook))
    assert not re.search(r"0x[0-9a-f]{6,}", texts(notebook))  # an object's address
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not any(cell.metadata for cell in notebook.cells)
    assert notebook.metadata == {"language_info": {"name": "python"}}


def test_together_they_are_small() -> None:
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1_000_000
