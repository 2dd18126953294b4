"""The data archive: the bitstreams of a set in a ZIP that is the same byte for byte whenever its content is.

Each bitstream is a member of its own (``files``), or all are one member called ``bs`` (``joined``), which saves the
ZIP's 76 bytes and two names for each image. Joined, a member begins with how many bytes a size takes (1 byte) and the
length of what follows (4 bytes), a deflated JSON list of the images' names and of the codecs' endings; then for each
image the index of its ending (1 byte) and its size; then the bitstreams.
"""

import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from codec.files import is_safe_name
from submissions.errors import SubmissionError

Layout = Literal["files", "joined"]
JOINED = "bs"
_START = struct.Struct(">BI")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MOST_HEAD = 1 << 26
_MOST_EXTRACTED = 8 << 30
_END, _MEMBER = 22, 30 + 46  # bytes of a ZIP's end, and of a member's two headers without its name


def pack(members: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> bytes:
    """A ZIP of members, stored as they are (bitstreams don't compress), sorted by name.

    Args:
        members: name to content.
        modes: of members that aren't 0644.

    Raises:
        SubmissionError: a name that would not be safe to unpack.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            check_name(name)
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # Unix, whatever this is: modes are kept
            info.external_attr = (stat.S_IFREG | (modes or {}).get(name, 0o644)) << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


def pack_streams(streams: Mapping[str, tuple[str, bytes]], layout: Layout, endings: Sequence[str]) -> bytes:
    """A data archive.

    Args:
        streams: image to its codec's ending and its bitstream.
        layout: of the archive.
        endings: of all codecs that might have been chosen, so that what was chosen doesn't change the overhead.

    Raises:
        SubmissionError: a name that would not be safe to unpack.
    """
    if layout == "files":
        return pack({image + ending: data for image, (ending, data) in streams.items()})
    names = sorted(streams)
    for name in names:
        check_name(name)
    parts = [streams[name] for name in names]
    width = _width(len(data) for _, data in parts)
    head = _head(names, endings)
    index = b"".join(bytes([endings.index(e)]) + len(data).to_bytes(width, "big") for e, data in parts)
    return pack({JOINED: _START.pack(width, len(head)) + head + index + b"".join(data for _, data in parts)})


def overhead(images: Sequence[str], endings: Sequence[str], layout: Layout, largest: int) -> int:
    """Bytes of a data archive beside its bitstreams, at most.

    Args:
        images: their names.
        endings: of all codecs that may be chosen.
        layout: of the archive.
        largest: bytes of the largest bitstream that may be chosen.
    """
    if layout == "files":
        longest = max(len(ending.encode()) for ending in endings)
        return _END + sum(_MEMBER + 2 * (len(image.encode()) + longest) for image in images)
    head = _START.size + len(_head(sorted(images), endings))
    return _END + _MEMBER + 2 * len(JOINED) + head + len(images) * (1 + _width([largest]))


def _width(sizes: Iterable[int]) -> int:
    """Bytes that hold each of the sizes."""
    return max(3, (max(sizes, default=0).bit_length() + 7) // 8)


def _head(names: Sequence[str], endings: Sequence[str]) -> bytes:
    text = json.dumps([names, endings], separators=(",", ":"), ensure_ascii=False)
    return zlib.compress(text.encode(), 9)


def unpack(path: Path) -> dict[str, bytes]:
    """The bitstreams of a data archive from anyone, by file name: image and ending.

    Raises:
        SubmissionError: missing, damaged, or with a member that is compressed (:func:`pack` stores), there twice, or
            would be written outside the folder it's unpacked to.
    """
    members = _stored(path)
    if members.keys() != {JOINED}:
        return members
    try:
        return _split(members[JOINED])
    except (ValueError, KeyError, TypeError, IndexError, struct.error, zlib.error, RecursionError) as error:
        raise SubmissionError(f"{path}: its index makes no sense; it is damaged.") from error


def _stored(path: Path) -> dict[str, bytes]:
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members: dict[str, bytes] = {}
            for info in archive.infolist():
                check_name(info.filename)
                if info.filename in members:
                    raise SubmissionError(f"{path}: holds {info.filename!r} twice.")
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    raise SubmissionError(f"{path}: holds {info.filename!r} compressed, which bitstreams never are.")
                size -= info.file_size
                if size < 0:
                    raise SubmissionError(f"{path}: claims to hold more than it has bytes.")
                members[info.filename] = archive.read(info)
            return members
    except FileNotFoundError:
        raise SubmissionError(f"{path}: there is no such archive.") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise SubmissionError(f"{path}: is not a ZIP archive, or a damaged one ({error}).") from error


def _split(data: bytes) -> dict[str, bytes]:
    width, length = _START.unpack_from(data)
    index = _START.size + length
    names, endings = json.loads(zlib.decompressobj().decompress(data[_START.size : index], _MOST_HEAD))
    start = index + len(names) * (1 + width)
    members: dict[str, bytes] = {}
    for name in names:
        if not isinstance(name, str):
            raise TypeError("a name that is no text")
        size = int.from_bytes(data[index + 1 : index + 1 + width], "big")
        full = name + endings[data[index]]
        check_name(full)
        if full in members or start + size > len(data):
            raise ValueError("a name twice, or too few bytes")
        members[full] = data[start : start + size]
        index, start = index + 1 + width, start + size
    if start != len(data):
        raise ValueError("bytes behind the end")
    return members


def extract(path: Path, folder: Path, most: int = _MOST_EXTRACTED) -> None:
    """Write the members of a decoder archive from anyone below a folder, with their modes.

    Raises:
        SubmissionError: missing, damaged, larger than ``most`` bytes, or with a member that is a link or a device,
            or would be written outside.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(info.file_size for info in members) > most:
                raise SubmissionError(f"{path}: unpacks to more than {most:,} bytes.")
            for info in members:
                if info.is_dir():
                    continue
                check_name(info.filename)
                mode = info.external_attr >> 16
                if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
                    raise SubmissionError(f"{path}: holds {info.filename!r}, which is no plain file.")
                target = folder / info.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, target.open("xb") as copy:
                    while block := source.read(1 << 20):
                        copy.write(block)
                target.chmod((mode & 0o777) or 0o644)
    except FileNotFoundError:
        raise SubmissionError(f"{path}: there is no such archive.") from None
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as error:
        raise SubmissionError(f"{path}: can't be unpacked ({error}).") from error


def check_name(name: str) -> None:
    """Refuse names that could be written outside a folder.

    Raises:
        SubmissionError: absolute, with a drive or a backslash, or with a part that is empty or dots.
    """
    if not is_safe_name(name):
        raise SubmissionError(f"{name!r} is no safe name for a member of an archive.")
