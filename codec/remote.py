"""Files in object stores and on web servers (``s3://``, ``gs://``, ``https://``), by fsspec."""

import time
from typing import Any

from codec.base import CodecError

_WAITS = (0.5, 1.0, 2.0)
"""Seconds between one try and the next."""


def is_address(path: object) -> bool:
    """Whether a path names a file elsewhere, not in this machine's file system."""
    return "://" in str(path)


def file_system(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it.

    Raises:
        CodecError: no package that is installed speaks the address's protocol.
    """
    try:
        from fsspec.core import url_to_fs

        found: tuple[Any, str] = url_to_fs(address)
        return found
    except (ImportError, ValueError) as error:
        reason = str(error).strip().rstrip(".")
        raise CodecError(f"{address}: can't be reached ({reason}); pip install 'clic-allocator[cloud]'.") from error


def fetch(address: str) -> bytes:
    """The content of a file; what fails on the way is tried again.

    Raises:
        CodecError: see :func:`file_system`.
        FileNotFoundError, PermissionError: it isn't there, or may not be read.
        OSError: the store can't be reached, or breaks off.
    """
    files, path = file_system(address)
    return bytes(tried_again(lambda: files.cat_file(path)))


def tried_again(action: Any) -> Any:
    """What an action on a file system gives, after failures that may pass.

    Raises:
        OSError: the last failure, or one that won't pass.
    """
    for wait in _WAITS:
        try:
            return action()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception:  # each store has its own
            time.sleep(wait)
    try:
        return action()
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error
