"""Names inside tables and manifests run nothing and open nothing, unless they are trusted."""

import json
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import run


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when the module of the same name is imported."""
    sprung = tmp_path / "sprung"
    name = f"trap_{tmp_path.parent.name.replace('-', '_')}_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(f"open({str(sprung)!r}, 'w').close()\nclass Model: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / name


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def changed(table: Path, path: Path, statement: str, *values: str) -> Path:
    shutil.copy(table, path)
    with sqlite3.connect(path) as connection:
        connection.execute(statement, values)
    return path


def test_a_table_imports_no_module(table: Path, trap: Path, tmp_path: Path) -> None:
    name = f"module:{trap.name}.Model@weights.pth"
    hostile = changed(table, tmp_path / "run.db", "UPDATE point SET codec = ? WHERE codec = 'webp'", name)
    for command in (
        ("report", hostile, "-t", "1", "-o", tmp_path / "page.html"),
        ("submit", hostile, "-t", "1", "-o", tmp_path / "entry", "--no-decoder"),
    ):
        ran = run(*command)
        assert ran.code == 2
        assert f"The file contains the name '{name}'" in ran.err
        assert not (tmp_path / "sprung").exists()
        run(*command, "--trust")
        assert (tmp_path / "sprung").exists()
        (tmp_path / "sprung").unlink()
        del sys.modules[trap.name]


def test_a_manifest_imports_no_module_and_opens_no_connection(
    table: Path, trap: Path, listener: socket.socket, tmp_path: Path
) -> None:
    entry = tmp_path / "entry"
    assert run("submit", table, "-t", "1", "-o", entry, "--no-decoder").code == 0
    manifest = json.loads((entry / "manifest.json").read_text())
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
    for image in manifest["entries"]:
        image["path"] = address
        image["metrics"][f"module:{trap.name}.Model"] = 1.0
    (entry / "manifest.json").write_text(json.dumps(manifest))
    run("verify", entry)
    manifest["entries"][0]["codec"] = f"module:{trap.name}.Model@weights.pth"
    (entry / "manifest.json").write_text(json.dumps(manifest))
    assert run("verify", entry).code != 0
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(TimeoutError):
        listener.accept()


def test_a_table_opens_no_connection(table: Path, listener: socket.socket, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
    hostile = changed(table, tmp_path / "run.db", "UPDATE member SET path = ?", address)
    ran = run("report", hostile, "-t", "1", "-o", tmp_path / "page.html")
    assert ran.code == 2
    assert f"gives the address '{address}' for an image" in ran.err
    with pytest.raises(TimeoutError):
        listener.accept()


def test_a_name_that_a_person_types_is_followed(table: Path, trap: Path, tmp_path: Path) -> None:
    name = f"module:{trap.name}.Model@weights.pth"
    hostile = changed(table, tmp_path / "run.db", "UPDATE point SET codec = ? WHERE codec = 'webp'", name)
    ran = run("report", hostile, "-t", "1", "-c", name, "-o", tmp_path / "page.html")
    assert "weights.pth: can't be read" in ran.err
    assert (tmp_path / "sprung").exists()
