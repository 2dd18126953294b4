"""An allocation to a submission on disk: the data archive and a manifest of what it holds."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from allocator.allocation import Allocation
from allocator.tables import Table
from codec import Codec, CodecError, get_codec, read_image
from codec.image import write_file
from submissions.archive import pack
from submissions.errors import SubmissionError

ARCHIVE = "bs.zip"
MANIFEST = "manifest.json"
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One image of a submission."""

    name: str
    path: str
    """Of the original when the table was built."""
    sha256: str
    """Of the original's pixels."""
    width: int
    height: int
    codec: str
    level: int
    setting: str
    fingerprint: str
    bytes: int
    decoded_sha256: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Manifest:
    """What a submission holds, as the table has it."""

    rule: str
    target_bpp: float
    budget_bytes: int | None
    """Under the rule ``pooled``."""
    bytes: int
    bpp: float
    objective: str
    aggregate: str
    value: float
    entries: list[Entry]
    version: int = MANIFEST_VERSION

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest.

        Raises:
            SubmissionError: missing, damaged or of another version.
        """
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != MANIFEST_VERSION:
                raise SubmissionError(
                    f"{path}: is of version {content['version']}; this program reads {MANIFEST_VERSION}."
                )
            return cls(**{**content, "entries": [Entry(**entry) for entry in content["entries"]]})
        except FileNotFoundError:
            raise SubmissionError(f"{path}: there is no such file; is its folder a submission?") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SubmissionError(f"{path}: is not a submission's manifest, or a damaged one.") from error


def submit(
    table: Table,
    allocation: Allocation,
    folder: Path,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Write ``folder/bs.zip`` with one bitstream an image, and ``folder/manifest.json``.

    Bitstreams come from the table; where it was built without, images are encoded again and must give the
    bytes that were measured. Both files are written whole or not at all.

    Args:
        table: that the allocation was made from.
        allocation: what to pack.
        folder: made if missing.
        report: called with the images done and their number.

    Raises:
        SubmissionError: a bitstream can't be made again as it was measured.
        CodecError: an image can't be read or encoded again, or a file can't be written.
    """
    metrics = [name for name in table.metrics() if name in allocation.chosen]
    codecs: dict[str, Codec] = {}
    members: dict[str, bytes] = {}
    entries = []
    rows: list[dict[str, Any]] = allocation.chosen.to_dict("records")
    for done, row in enumerate(rows, 1):
        codec = codecs.setdefault(row["codec"], get_codec(row["codec"]))
        data = table.bitstream(row["sha256"], row["fingerprint"])
        members[row["image"] + codec.suffix] = data if data is not None else _encode_again(codec, row)
        fields = {name: row[name] for name in Entry.__dataclass_fields__ if name in row}
        values = {name: row[name] for name in metrics if row[name] == row[name]}  # measured ones only
        entries.append(Entry(name=row["image"], metrics=values, **fields))
        report(done, len(rows))
    budget = allocation.budget
    manifest = Manifest(
        rule=budget.rule,
        target_bpp=budget.bpp,
        budget_bytes=int(budget.limit) if budget.rule == "pooled" else None,
        bytes=allocation.bytes,
        bpp=allocation.bpp,
        objective=allocation.objective.label,
        aggregate=allocation.objective.aggregate,
        value=allocation.value,
        entries=entries,
    )
    write_file(folder / ARCHIVE, pack(members))
    write_file(folder / MANIFEST, manifest.to_json().encode())
    return manifest


def _encode_again(codec: Codec, row: dict[str, Any]) -> bytes:
    if codec.fingerprint(row["level"]) != row["fingerprint"]:
        raise SubmissionError(
            f"{row['image']}: was measured with another version of {codec.name}, and the table keeps no "
            "bitstreams; build it again."
        )
    try:
        data = codec.encode(read_image(row["path"]), row["level"])
    except CodecError as error:
        raise SubmissionError(f"{row['image']}: its bitstream isn't in the table, and {error}") from error
    if len(data) != row["bytes"]:
        raise SubmissionError(
            f"{row['image']}: {codec.name} {row['setting']} gives {len(data)} bytes now and gave {row['bytes']} "
            "when it was measured; build the table again."
        )
    return data
