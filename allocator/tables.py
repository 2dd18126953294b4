"""Tables: all operating points of a set of images in one SQLite file. ``docs/tables.md`` describes the columns."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from allocator.errors import AllocatorError
from allocator.metrics.base import Metric

if TYPE_CHECKING:
    import pandas as pd

Bitstream: TypeAlias = bytes  # `bytes` names a column below

APPLICATION_ID = 0x434C4943
SCHEMA_VERSION = 1
_WAIT_SECONDS = 5.0
_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
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
    id INTEGER PRIMARY KEY,
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


class TableError(AllocatorError):
    """A table can't be read or written, or isn't one."""


@dataclass(frozen=True)
class Member:
    """An image of the set."""

    name: str
    path: str
    """Where the file was when the table was built."""
    sha256: str
    """Of its pixels, see :func:`codec.pixels_sha256`."""
    width: int
    height: int


@dataclass
class Point:
    """One image at one level of one codec."""

    level: int
    setting: str
    fingerprint: str
    bytes: int
    encode_seconds: float
    decode_seconds: float
    decoded_sha256: str
    bitstream: Bitstream | None = None
    values: dict[str, float] = field(default_factory=dict)
    """Metric fingerprint to value."""


class Table:
    """A table on disk. Use it as a context manager.

    Args:
        path: the SQLite file.
        create: make the file if there is none.

    Raises:
        TableError: missing, unreadable, not a table, or of another version.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise TableError(f"{path}: there is no such table; `allocator tables build` makes one.")
        with self._errors():
            uri = f"{self.path.resolve().as_uri()}?mode={'rwc' if create else 'rw'}"
            self._connection = sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            with self._errors():
                self._connection.execute("PRAGMA foreign_keys = ON")
                self._check_schema(create)
        except BaseException:
            self._connection.close()
            raise

    def _check_schema(self, create: bool) -> None:
        if create:
            with self._transaction():
                if not self._scalar("SELECT count(*) FROM sqlite_master"):
                    for statement in _SCHEMA.split(";"):
                        self._connection.execute(statement)
        if self._scalar("PRAGMA application_id") != APPLICATION_ID:
            raise TableError(f"{self.path}: is a database, but not a table of this program.")
        if (found := self._scalar("PRAGMA user_version")) != SCHEMA_VERSION:
            raise TableError(
                f"{self.path}: is a table of version {found}, and this program reads version {SCHEMA_VERSION}; "
                "use the program that made it, or build the table anew."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            reason = {
                sqlite3.SQLITE_BUSY: "another program is writing to it; try again when that has finished",
                sqlite3.SQLITE_LOCKED: "another program is writing to it; try again when that has finished",
                sqlite3.SQLITE_FULL: "the disk is full; what was measured so far is kept, so make room "
                "and run the same command again",
                sqlite3.SQLITE_NOTADB: "is not a table",
                sqlite3.SQLITE_CORRUPT: "is damaged",
                sqlite3.SQLITE_READONLY: "may not be written",
                sqlite3.SQLITE_CANTOPEN: "can't be opened; does its folder exist?",
            }.get(code, str(error))
            raise TableError(f"{self.path}: {reason}.") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or nothing of it."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _scalar(self, query: str, *arguments: object) -> int:
        row = self._connection.execute(query, arguments).fetchone()
        return int(row[0])

    def add_members(self, members: Sequence[Member]) -> None:
        """Put images in the set; one whose name is there already is replaced by the new one."""
        with self._errors(), self._transaction():
            self._connection.executemany(
                "INSERT OR IGNORE INTO image (sha256, width, height) VALUES (?, ?, ?)",
                [(m.sha256, m.width, m.height) for m in members],
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO member SELECT ?, id, ? FROM image WHERE sha256 = ?",
                [(m.name, m.path, m.sha256) for m in members],
            )

    def members(self) -> list[Member]:
        """The set, sorted by name."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT name, path, sha256, width, height FROM member JOIN image ON image.id = member.image "
                "ORDER BY name"
            )
            return [Member(*row) for row in rows]

    def add_metrics(self, metrics: Sequence[Metric]) -> None:
        """Register metrics, which :meth:`store` needs."""
        with self._errors(), self._transaction():
            self._connection.executemany(
                "INSERT OR IGNORE INTO metric (name, fingerprint, higher_is_better) VALUES (?, ?, ?)",
                [(m.name, m.fingerprint, int(m.higher_is_better)) for m in metrics],
            )

    def drop(self, names: Iterable[str]) -> int:
        """Take images out of the set, and their points with them; returns how many were there."""
        with self._errors(), self._transaction():
            count = sum(
                self._connection.execute("DELETE FROM member WHERE name = ?", (name,)).rowcount for name in names
            )
            self._connection.execute("DELETE FROM point WHERE image NOT IN (SELECT image FROM member)")
            self._connection.execute("DELETE FROM image WHERE id NOT IN (SELECT image FROM member)")
            return count

    def drop_unmeasured(self, names: Iterable[str]) -> int:
        """Take those of the named images out of the set that have no point; returns how many."""
        with self._errors():
            rows = self._connection.execute("SELECT name FROM member WHERE image NOT IN (SELECT image FROM point)")
            empty = {row[0] for row in rows}
        empty &= set(names)
        return self.drop(empty) if empty else 0

    def prune(self, sha256: str, codec: str, fingerprints: Sequence[str]) -> None:
        """Delete one image's points of a codec but for those of its levels' fingerprints now."""
        marks = ",".join("?" * len(fingerprints))
        with self._errors(), self._transaction():
            self._connection.execute(
                f"DELETE FROM point WHERE image = (SELECT id FROM image WHERE sha256 = ?) AND codec = ? "
                f"AND fingerprint NOT IN ({marks})",
                (sha256, codec, *fingerprints),
            )

    def store(self, sha256: str, codec: str, points: Sequence[Point]) -> None:
        """Write one image's points of one codec in one transaction.

        Args:
            sha256: the image's, a member's.
            codec: the codec's name.
            points: new points, or known ones with further values; a point without a bitstream keeps the
                one that is stored.
        """
        with self._errors(), self._transaction():
            image = self._scalar("SELECT id FROM image WHERE sha256 = ?", sha256)
            for point in points:
                self._store_point(image, codec, point)

    def _store_point(self, image: int, codec: str, point: Point) -> None:
        found = self._connection.execute(
            "SELECT id FROM point WHERE image = ? AND codec = ? AND fingerprint = ? AND decoded_sha256 = ? "
            "AND bytes = ?",
            (image, codec, point.fingerprint, point.decoded_sha256, point.bytes),
        ).fetchone()
        if found:
            row = found[0]
        else:
            self._connection.execute(
                "DELETE FROM point WHERE image = ? AND codec = ? AND level = ?", (image, codec, point.level)
            )
            row = self._connection.execute(
                "INSERT INTO point (image, codec, level, setting, fingerprint, bytes, encode_seconds, "
                "decode_seconds, decoded_sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    image,
                    codec,
                    point.level,
                    point.setting,
                    point.fingerprint,
                    point.bytes,
                    point.encode_seconds,
                    point.decode_seconds,
                    point.decoded_sha256,
                ),
            ).lastrowid
        if point.bitstream is not None:
            self._connection.execute("INSERT OR REPLACE INTO bitstream VALUES (?, ?)", (row, point.bitstream))
        self._connection.executemany(
            "INSERT OR REPLACE INTO measurement SELECT ?, id, ? FROM metric WHERE fingerprint = ?",
            [(row, value, metric) for metric, value in point.values.items()],
        )

    def measured(self, sha256: str, codec: str) -> dict[str, set[str]]:
        """Codec fingerprint to the fingerprints of its measured metrics, for one image."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT point.fingerprint, metric.fingerprint FROM point JOIN image ON image.id = point.image "
                "LEFT JOIN measurement ON measurement.point = point.id LEFT JOIN metric ON metric.id = metric "
                "WHERE sha256 = ? AND codec = ?",
                (sha256, codec),
            )
            known: dict[str, set[str]] = {}
            for fingerprint, metric in rows:
                known.setdefault(fingerprint, set()).update([metric] if metric else [])
            return known

    def bitstream(self, sha256: str, fingerprint: str) -> bytes | None:
        """A stored bitstream, or None where the table was built without."""
        with self._errors():
            row = self._connection.execute(
                "SELECT data FROM bitstream JOIN point ON point.id = bitstream.point "
                "JOIN image ON image.id = point.image WHERE sha256 = ? AND fingerprint = ?",
                (sha256, fingerprint),
            ).fetchone()
            return row[0] if row else None

    def metrics(self) -> dict[str, bool]:
        """Name of each metric that was measured somewhere to whether higher is better."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT name, higher_is_better FROM metric "
                "WHERE EXISTS (SELECT 1 FROM measurement WHERE measurement.metric = metric.id) ORDER BY id"
            )
            return {name: bool(higher) for name, higher in rows}

    def frame(self) -> "pd.DataFrame":
        """All operating points, one a row, sorted by image, codec and level.

        Columns: ``image``, ``path``, ``sha256``, ``width``, ``height`` (pixels), ``codec``, ``level`` (from 0),
        ``setting``, ``fingerprint``, ``bytes``, ``bpp`` (bits per pixel), ``encode_seconds``, ``decode_seconds``,
        ``decoded_sha256``, and one for each metric, NaN where it wasn't measured. Of a metric that was measured
        with several weights the latest counts.
        """
        import numpy as np

        with self._errors():
            frame = self._read(
                "SELECT point.id, name AS image, path, sha256, width, height, codec, level, setting, fingerprint, "
                "bytes, bytes * 8.0 / (width * height) AS bpp, encode_seconds, decode_seconds, decoded_sha256 "
                "FROM member JOIN image ON image.id = member.image JOIN point ON point.image = image.id "
                "ORDER BY name, codec, level",
            )
            latest = self._connection.execute(
                "SELECT name, max(id) FROM metric "
                "WHERE EXISTS (SELECT 1 FROM measurement WHERE measurement.metric = metric.id) "
                "GROUP BY name ORDER BY max(id)"
            )
            for name, metric in latest.fetchall():
                values = self._read("SELECT point, value FROM measurement WHERE metric = ?", metric)
                values = values.set_index("point")["value"]
                frame[name] = frame["id"].map(values).astype(np.float64)
        return frame.drop(columns="id")

    def _read(self, query: str, *arguments: object) -> "pd.DataFrame":
        import pandas as pd

        cursor = self._connection.execute(query, arguments)
        return pd.DataFrame(cursor.fetchall(), columns=[column[0] for column in cursor.description])

    def merge(self, other: "Table") -> None:
        """Take over all that ``other`` has and this table lacks.

        Raises:
            TableError: a name stands for different pixels in the two.
        """
        own = {member.name: member for member in self.members()}
        for member in other.members():
            if member.name in own and own[member.name].sha256 != member.sha256:
                raise TableError(
                    f"{other.path}: its image {member.name!r} isn't the one of that name in {self.path}."
                )
        with self._errors():
            self._connection.execute("ATTACH ? AS other", (other.path.resolve().as_uri() + "?mode=ro",))
            try:
                with self._transaction():
                    for statement in _MERGE:
                        self._connection.execute(statement)
            finally:
                self._connection.execute("DETACH other")

    def counts(self) -> Mapping[str, int]:
        """How many ``images`` the set has, how many are ``measured`` by at least one codec, and the ``points``."""
        with self._errors():
            return {
                "images": self._scalar("SELECT count(*) FROM member"),
                "measured": self._scalar("SELECT count(*) FROM member WHERE image IN (SELECT image FROM point)"),
                "points": self._scalar("SELECT count(*) FROM member JOIN point USING (image)"),
                "bitstreams": self._scalar("SELECT count(*) FROM bitstream"),
            }


_MERGE = (
    "INSERT OR IGNORE INTO image (sha256, width, height) SELECT sha256, width, height FROM other.image",
    """INSERT OR IGNORE INTO member SELECT name, mine.id, path FROM other.member
       JOIN other.image AS theirs ON theirs.id = image JOIN main.image AS mine USING (sha256)""",
    "INSERT OR IGNORE INTO metric (name, fingerprint, higher_is_better) "
    "SELECT name, fingerprint, higher_is_better FROM other.metric",
    """CREATE TEMP TABLE same AS SELECT DISTINCT mine.id AS image, theirs.id AS other
       FROM main.image AS mine JOIN other.image AS theirs USING (sha256)""",
    """INSERT OR IGNORE INTO point
       (image, codec, level, setting, fingerprint, bytes, encode_seconds, decode_seconds, decoded_sha256)
       SELECT same.image, codec, level, setting, fingerprint, bytes, encode_seconds, decode_seconds, decoded_sha256
       FROM other.point JOIN same ON same.other = point.image""",
    """CREATE TEMP TABLE twin AS SELECT mine.id AS point, theirs.id AS other
       FROM other.point AS theirs JOIN same ON same.other = theirs.image
       JOIN main.point AS mine ON mine.image = same.image AND mine.codec = theirs.codec
       AND mine.fingerprint = theirs.fingerprint AND mine.decoded_sha256 = theirs.decoded_sha256
       AND mine.bytes = theirs.bytes""",
    """INSERT OR IGNORE INTO bitstream SELECT twin.point, data FROM other.bitstream
       JOIN twin ON twin.other = bitstream.point""",
    """INSERT OR IGNORE INTO measurement SELECT twin.point, mine.id, value FROM other.measurement
       JOIN twin ON twin.other = measurement.point JOIN other.metric AS theirs ON theirs.id = measurement.metric
       JOIN main.metric AS mine ON mine.fingerprint = theirs.fingerprint""",
    "DROP TABLE temp.same",
    "DROP TABLE temp.twin",
)
