"""What a file from someone else may make this program do: nothing but read plain names.

``module:`` names import code, ``compressai:`` names open files and addresses, and addresses open connections. Whoever
types one means it. The same text inside a table or a manifest was written by whoever made the file, so it is followed
only if it was also typed in this process, or after :func:`trust_files`.
"""

from codec.base import CodecError, is_codec_name
from codec.remote import is_address

_typed: set[str] = set()
_all_files = False


class UntrustedName(CodecError):
    """A file names code or an address, and nobody said that it is trusted."""


def note_typed(name: str) -> None:
    """From now on ``name`` is followed, whoever says it."""
    _typed.add(name)


def trust_files(trusted: bool = True) -> None:
    """Follow all names in files, or stop doing so."""
    global _all_files
    _all_files = trusted


def check_name(name: str) -> None:
    """Refuse a codec's or metric's name from a file if it is more than a plain name.

    Raises:
        UntrustedName: it names code or a file.
    """
    if not (_all_files or name in _typed or is_codec_name(name)):
        raise UntrustedName(
            f"The file names {name!r}, which would load code or files from there. If you trust its author, say so.",
            hint={"trust": True},
        )


def check_path(path: str) -> None:
    """Refuse an image's path from a file if it is an address.

    Raises:
        UntrustedName: it would open a connection.
    """
    if is_address(path) and not (_all_files or path in _typed):
        raise UntrustedName(
            f"The file says that an image is at {path!r}, and reading it would open a connection. If you trust "
            "its author, say so.",
            hint={"trust": True},
        )
