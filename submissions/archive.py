"""The data archive: one bitstream an image, in a ZIP that is the same byte for byte whenever its content is."""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from submissions.errors import SubmissionError

MAX_BITSTREAM = 1 << 28
"""The most bytes that one member may unpack to."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(members: Mapping[str, bytes]) -> bytes:
    """A ZIP of members, stored as they are (bitstreams don't compress), sorted by name.

    Raises:
        SubmissionError: a name that would not be safe to unpack.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            _check_name(name)
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, bytes]:
    """The members of a data archive from anyone.

    Raises:
        SubmissionError: missing, damaged, or with a member that is too large, twice there, or would be
            written outside the folder it's unpacked to.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members: dict[str, bytes] = {}
            for info in archive.infolist():
                _check_name(info.filename)
                if info.filename in members:
                    raise SubmissionError(f"{path}: holds {info.filename!r} twice.")
                if info.file_size > MAX_BITSTREAM:
                    raise SubmissionError(f"{path}: {info.filename!r} unpacks to over {MAX_BITSTREAM >> 20} MiB.")
                with archive.open(info) as member:
                    members[info.filename] = member.read(MAX_BITSTREAM)
            return members
    except FileNotFoundError:
        raise SubmissionError(f"{path}: there is no such archive.") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise SubmissionError(f"{path}: is not a ZIP archive, or a damaged one ({error}).") from error


def _check_name(name: str) -> None:
    parts = name.split("/")
    if not name or "\\" in name or "\0" in name or re.match(r"^[A-Za-z]:", name) or {"", ".", ".."} & {*parts}:
        raise SubmissionError(f"{name!r} is no safe name for a member of an archive.")
