"""Files in object stores and on web servers (``s3://``, ``gs://``, ``https://``), by fsspec."""

import time
from typing import Any

from codec.base import CodecError

_WAITS = (0.5, 1.0, 2.0)
"""Seconds between attempts."""


def is_address(path: object) -> bool:
    """Whether a path is an address, not a path in this machine's file system."""
    return "://" in str(path)


def file_system(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it.

    Raises:
        CodecError: no installed package supports the address's protocol, or the store can't be used.
    """
    try:
        from fsspec.core import url_to_fs

        found: tuple[Any, str] = url_to_fs(address)
        return found
    except Exception as error:  # each store raises its own
        reason = str(error).strip().rstrip(".")
        advice = '; pip install "clic-allocator[cloud]"' if isinstance(error, ImportError | ValueError) else ""
        raise CodecError(f"{address}: can't be reached ({reason}){advice}.") from error


def fetch(address: str) -> bytes:
    """Read a file; reads that fail in transit are repeated.

    Raises:
        CodecError: see :func:`file_system`.
        FileNotFoundError, PermissionError: it does not exist, or access is denied.
        OSError: the store can't be reached, or closes the connection.
    """
    files, path = file_system(address)
    return bytes(retry(lambda: files.cat_file(path)))


def retry(action: Any) -> Any:
    """Return the result of an action on a file system; repeat it after temporary failures.

    Raises:
        OSError: the last failure, or a permanent one.
    """
    for wait in _WAITS:
        try:
            return action()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception:  # each store raises its own
            time.sleep(wait)
    try:
        return action()
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error
