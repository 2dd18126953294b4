"""The schema of tables: the statements that create and migrate them, and the check of what a file contains."""

import contextlib
import functools
import re
import sqlite3
from collections.abc import Mapping

from allocator.points import COLUMNS

APPLICATION_ID = 0x434C4943
"""SQLite's ``application_id`` of every table."""
MEMBER_FACTS = "file_bytes, format, alpha, profile"
"""Columns of a member that were added after version 1."""
FIRST_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
CREATE TABLE image (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    width INTEGER NOT NULL CHECK (width > 0),
    height INTEGER NOT NULL CHECK (height > 0)
) STRICT;
CREATE TABLE member (
    name TEXT PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES image,
    path TEXT NOT NULL
) STRICT;
CREATE TABLE point (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    image INTEGER NOT NULL REFERENCES image,
    codec TEXT NOT NULL,
    level INTEGER NOT NULL,
    setting TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    encode_seconds REAL NOT NULL,
    decode_seconds REAL NOT NULL,
    decoded_sha256 TEXT NOT NULL,
    UNIQUE (image, codec, level)
) STRICT;
CREATE TABLE bitstream (
    point INTEGER PRIMARY KEY REFERENCES point ON DELETE CASCADE,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE metric (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL UNIQUE,
    higher_is_better INTEGER NOT NULL
) STRICT;
CREATE TABLE measurement (
    point INTEGER NOT NULL REFERENCES point ON DELETE CASCADE,
    metric INTEGER NOT NULL REFERENCES metric,
    value REAL NOT NULL,
    PRIMARY KEY (point, metric)
) STRICT, WITHOUT ROWID;
"""
"""The statements that create version 1."""
_MIGRATIONS = {
    2: """
    ALTER TABLE member ADD COLUMN file_bytes INTEGER;
    ALTER TABLE member ADD COLUMN format TEXT NOT NULL DEFAULT '';
    ALTER TABLE member ADD COLUMN alpha INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE member ADD COLUMN profile TEXT NOT NULL DEFAULT '';
    CREATE TABLE property (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID
    """,
}
"""The migration to each version of the schema from the one before, in addition to new columns of points."""
SCHEMA_VERSION = max(*_MIGRATIONS, *(one.since for one in COLUMNS.values()))


def migration(version: int) -> str:
    """The migration from the previous version of the schema."""
    added = [
        f"ALTER TABLE point ADD COLUMN {name} {one.kind} NOT NULL DEFAULT {one.default}"
        for name, one in COLUMNS.items()
        if one.since == version
    ]
    return ";".join([_MIGRATIONS.get(version, ""), *added])


READ_ONLY_VIEWS = (
    """
    CREATE TEMP VIEW member AS
    SELECT *, NULL AS file_bytes, '' AS format, 0 AS alpha, '' AS profile FROM main.member;
    CREATE TEMP TABLE property (name TEXT PRIMARY KEY, value TEXT NOT NULL)
    """,
)
"""For a read-only file of each older version: temporary views of what a migration would have added."""


@functools.cache
def known_objects(version: int) -> Mapping[tuple[str, str], str]:
    """The SQL of each table and index of a version of the schema, by kind and name."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(";".join([FIRST_SCHEMA, *map(migration, range(2, version + 1))]))
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE name <> 'sqlite_sequence'"
        ).fetchall()
    return {(kind, name): plain_sql(text) for kind, name, text in rows}


def plain_sql(text: object) -> str:
    """A statement without the parts that earlier releases did not have."""
    return re.sub(r" CHECK \((width > 0|height > 0|bytes >= 0)\)| AUTOINCREMENT", "", str(text))


def is_harmless(kind: str, text: object) -> bool:
    """Whether an object that a user added to a table can't run anything."""
    if kind == "index":
        return text is None or bool(re.fullmatch(r'CREATE INDEX "?\w+"? ON "?\w+"? ?\([\w", ]+\)', str(text)))
    return kind == "table" and str(text).startswith("CREATE TABLE ")
