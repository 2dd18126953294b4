"""Files that are written whole or not at all, and names that stay where they belong."""

import os
import re
from pathlib import Path

from codec.base import ImageError


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all; missing folders are made.

    Raises:
        ImageError: the file can't be written (disk full, no permission).
    """
    target = Path(path)
    partial = target.with_name(f".{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():  # a device or pipe can't be replaced by renaming
            target.write_bytes(data)
            return
        try:
            partial.write_bytes(data)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"{path}: can't be written ({error.strerror or error}).") from error


def is_safe_name(name: str) -> bool:
    """Whether a name with ``/`` inside stays below any folder on any system, and is a name at all."""
    parts = name.split("/")
    return not (not name or "\\" in name or "\0" in name or re.match("[A-Za-z]:", name) or {"", ".", ".."} & {*parts})
