"""Untrusted tables: nothing in them runs, and every error is one sentence."""

import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from allocator.tables import Table, TableError
from tests.helpers import run


@pytest.fixture(params=["by Arrow", "by rows"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How columns are read."""
    monkeypatch.setattr("allocator.columns.has_arrow", lambda: request.param == "by Arrow")
    return str(request.param)


VIEW = (
    "CREATE VIEW {} AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT x AS id, 'a' AS name, 1 AS image, '/p' AS path FROM n"
)


def hostile(table: Path, folder: Path, *statements: str) -> Path:
    """A copy of a table that its schema's own rules don't hold back."""
    path = folder / "hostile.db"
    shutil.copy(table, path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return path


def with_loose_types(table: Path, folder: Path, name: str, *statements: str) -> Path:
    """The same, where a STRICT table took other types while it wasn't strict, and says it is."""
    path = hostile(table, folder)

    def rewrite(text: str) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, name))
        connection.close()

    with sqlite3.connect(path) as connection:
        [strict] = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    loose = strict.replace("STRICT, ", "").replace("STRICT", "").replace("NOT NULL", "")
    for kind in ("TEXT", "INTEGER NOT", "REAL"):
        loose = loose.replace(kind, "BLOB" if kind != "INTEGER NOT" else "BLOB NOT")
    rewrite(loose)
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    rewrite(strict)
    return path


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["ALTER TABLE member RENAME TO m", VIEW.format("member")], "lacks the table member|contains the view"),
        ([VIEW.format("more")], "contains the view 'more'"),
        (
            ["CREATE TRIGGER t AFTER DELETE ON member BEGIN INSERT INTO metric VALUES (9, 'x', 'y', 1); END"],
            "contains the trigger 't'",
        ),
        (["CREATE VIRTUAL TABLE f USING fts5(x)"], "contains the table 'f'"),
        (["CREATE INDEX i ON point (abs(bytes))"], "contains the index 'i'"),
        (
            ["DROP TABLE measurement", "CREATE TABLE measurement (point, metric, value)"],
            "has a structure that this program does not write",
        ),
        (["DROP TABLE bitstream"], "lacks the table bitstream"),
        (["UPDATE image SET width = -1"], "is damaged"),
        (["UPDATE image SET width = 4611686018427387904"], "is damaged"),
        (["UPDATE image SET width = 2000000, height = 2000000"], "is damaged"),
        (["UPDATE point SET bytes = 9223372036854775807"], "is damaged"),
        (["UPDATE point SET level = -level - 1"], "is damaged"),
        (["UPDATE point SET decode_seconds = 9e999"], "is damaged"),
        (["UPDATE measurement SET value = -9e999"], "is damaged"),
        (["UPDATE metric SET name = 'bytes' WHERE name = 'psnr'"], "metric with the name 'bytes'"),
        (["UPDATE point SET codec = CAST(x'ff00fe' AS TEXT) WHERE codec = 'jpeg'"], "is damaged"),
        (
            ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET rootpage = 3 WHERE name = 'metric'"],
            "is damaged",
        ),
    ],
)
def test_content_that_no_build_writes_is_refused(
    table: Path, tmp_path: Path, statements: list[str], reason: str, reading: str
) -> None:
    path = hostile(table, tmp_path, *statements)
    before = time.monotonic()
    with pytest.raises(TableError, match=reason), Table(path) as opened:
        opened.points()
    assert time.monotonic() - before < 20
    for command in (("tables", "show", path), ("solve", path, "-t", "1"), ("tables", "export", path, "-o", "x.csv")):
        ran = run(*command)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.count("\n") == 1


def test_names_add_no_lines_to_a_result(table: Path, tmp_path: Path) -> None:
    """A line break could forge any line of the result."""
    path = hostile(table, tmp_path, "UPDATE point SET codec = codec || char(10) || '  allocated 99'")
    ran = run("solve", path, "-t", "1")
    assert ran.code == 0, ran.err
    assert "\\u000a  allocated 99" in ran.out
    assert [line for line in ran.out.splitlines() if "allocated" in line[:13]] == ran.out.splitlines()[3:4]


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("image", "UPDATE image SET width = 'wide'"),
        ("image", "UPDATE image SET width = NULL"),
        ("member", "UPDATE member SET path = x'00ff'"),
        ("point", "UPDATE point SET bytes = 'many'"),
        ("point", "UPDATE point SET codec = NULL"),
        ("point", "UPDATE point SET encode_seconds = 'long'"),
        ("measurement", "UPDATE measurement SET value = NULL"),
        ("metric", "UPDATE metric SET higher_is_better = 'yes'"),
    ],
)
@pytest.mark.parametrize("checked", [True, False])
def test_other_types_in_strict_tables_are_refused(
    table: Path,
    tmp_path: Path,
    name: str,
    statement: str,
    checked: bool,
    reading: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not checked:  # as where a table is too large to be checked in whole
        monkeypatch.setattr("allocator.table_file._CHECKED_BYTES", 0)
    path = with_loose_types(table, tmp_path, name, statement)
    ran = run("tables", "show", path)
    assert ran.code == 2, ran.out
    assert "hostile.db: " in ran.err
    assert ran.err.count("\n") == 1


def test_a_query_that_does_not_end_is_ended(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allocator.table_file._STEPS", 10**7)
    with Table(table) as opened, pytest.raises(TableError, match="reading it does not end"), opened._errors():
        opened._scalar("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n")


def test_additional_tables_and_indexes_are_accepted(table: Path, tmp_path: Path) -> None:
    path = hostile(
        table, tmp_path, "CREATE TABLE notes (image, text)", "CREATE INDEX by_codec ON point (codec)", "ANALYZE"
    )
    assert run("tables", "show", path).code == 0


def test_tables_of_earlier_releases_are_read(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(table) as new, sqlite3.connect(path) as old:
        for line in new.iterdump():
            if "sqlite_sequence" not in line:
                for later in (" AUTOINCREMENT", " CHECK (width > 0)", " CHECK (height > 0)", " CHECK (bytes >= 0)"):
                    line = line.replace(later, "")
                old.execute(line)
        for pragma in ("application_id", "user_version"):
            old.execute(f"PRAGMA {pragma} = {new.execute(f'PRAGMA {pragma}').fetchone()[0]}")
    assert run("tables", "show", path).out.splitlines()[1:] == run("tables", "show", table).out.splitlines()[1:]
