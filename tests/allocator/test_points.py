"""A new measured column is one field: older tables are migrated, and read-only ones are read."""

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

WITH_A_FIELD = """
import sys, types
from pathlib import Path
import allocator.errors

source = Path(allocator.errors.__file__).with_name("points.py").read_text()
field = '    encode_joules: float = field(metadata=_stored(Column("REAL", 0, 1e9, since=3, default="0.5")))\\n'
place = source.index("    bitstream: Bitstream")
points = types.ModuleType("allocator.points")
sys.modules["allocator.points"] = points
exec(compile(source[:place] + field + source[place:], "points.py", "exec"), points.__dict__)

from allocator.schema import SCHEMA_VERSION
from allocator.tables import Table

with Table(sys.argv[1]) as table:
    print(SCHEMA_VERSION, set(table.frame()["encode_joules"]), set(table.points()["encode_joules"]))
    image = table.members()[0].sha256
    codec, point = table.find_point(image, table.points()["fingerprint"][0])
    print(point.encode_joules)
with Table(sys.argv[2], create=True) as merged, Table(sys.argv[1]) as table:
    merged.merge(table)
    print(set(merged.points()["encode_joules"]), len(merged.points()) == len(table.points()))
"""
OPEN = "with Table(sys.argv[1])"
AS_NOBODY = """
import os, shutil
if os.geteuid() == 0:  # who may write all
    with Table(shutil.copy(sys.argv[1], sys.argv[2] + ".copy")) as table:
        table.points()  # imports what root alone may be able to read
    os.seteuid(65534)
"""


@pytest.mark.parametrize("writable", [True, False])
def test_a_new_column_is_one_field(writable: bool, table: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = folder / "old.db"
        old.write_bytes(table.read_bytes())
        (folder / "merged").mkdir()
        if not writable:
            old.chmod(0o444)
            (folder / "merged").chmod(0o777)
            folder.chmod(0o755)
        code = WITH_A_FIELD if writable else WITH_A_FIELD.replace(OPEN, AS_NOBODY + OPEN, 1)
        done = subprocess.run(
            [sys.executable, "-c", code, str(old), str(folder / "merged" / "all.db")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "3 {0.5} {0.5}\n0.5\n{0.5} True\n", done.stderr
        with sqlite3.connect(old) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (3 if writable else 2,)
        connection.close()
