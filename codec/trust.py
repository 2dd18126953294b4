"""Trust in names: a file from someone else may contain only plain names.

``module:`` names import code, ``compressai:`` names open files and addresses, and addresses open connections. A name
that the user types is trusted. A name in a table or a manifest was written by the author of the file, so it is
followed only if the user also typed it in this process, or after :func:`trust_files`.
"""

import sys
from pathlib import PureWindowsPath

from codec.base import CodecError, is_codec_name
from codec.remote import is_address

_typed: set[str] = set()
_all_files = False


class UntrustedName(CodecError):
    """A file contains the name of code or an address that the user has not trusted."""


def note_typed(name: str) -> None:
    """Follow ``name`` from now on, also in files."""
    _typed.add(name)


def trust_files(trusted: bool = True) -> None:
    """Follow all names in files, or stop following them."""
    global _all_files
    _all_files = trusted


def check_name(name: str) -> None:
    """Refuse a codec's or metric's name from a file if it is not a plain name.

    Raises:
        UntrustedName: it would load code or a file.
    """
    if not (_all_files or name in _typed or is_codec_name(name)):
        raise UntrustedName(
            f"The file contains the name {name!r}, which would load code or files. Allow this only if you trust its "
            "author.",
            hint={"trust": True},
        )


def is_elsewhere(path: str) -> bool:
    """Whether reading a path would open a connection: an address, or on Windows the path of a shared folder."""
    return is_address(path) or (sys.platform == "win32" and PureWindowsPath(path).drive.startswith("\\\\"))


def check_path(path: str) -> None:
    """Refuse an image's path from a file if it is an address.

    Raises:
        UntrustedName: it would open a connection.
    """
    if is_elsewhere(path) and not (_all_files or path in _typed):
        raise UntrustedName(
            f"The file gives the address {path!r} for an image, and reading it would open a connection. Allow "
            "this only if you trust its author.",
            hint={"trust": True},
        )
