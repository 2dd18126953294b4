"""The data archive: one bitstream an image, in a ZIP that is the same byte for byte whenever its content is."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from codec.image import is_safe_name
from submissions.errors import SubmissionError

_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(members: Mapping[str, bytes]) -> bytes:
    """A ZIP of members, stored as they are (bitstreams don't compress), sorted by name.

    Raises:
        SubmissionError: a name that would not be safe to unpack.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            check_name(name)
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, bytes]:
    """The members of a data archive from anyone.

    Raises:
        SubmissionError: missing, damaged, or with a member that is compressed (:func:`pack` stores), there twice, or
            would be written outside the folder it's unpacked to.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members: dict[str, bytes] = {}
            for info in archive.infolist():
                check_name(info.filename)
                if info.filename in members:
                    raise SubmissionError(f"{path}: holds {info.filename!r} twice.")
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    raise SubmissionError(f"{path}: holds {info.filename!r} compressed, which bitstreams never are.")
                members[info.filename] = archive.read(info)
            return members
    except FileNotFoundError:
        raise SubmissionError(f"{path}: there is no such archive.") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise SubmissionError(f"{path}: is not a ZIP archive, or a damaged one ({error}).") from error


def check_name(name: str) -> None:
    """Refuse names that could be written outside a folder.

    Raises:
        SubmissionError: absolute, with a drive or a backslash, or with a part that is empty or dots.
    """
    if not is_safe_name(name):
        raise SubmissionError(f"{name!r} is no safe name for a member of an archive.")
