"""Read TOML files that users write."""

import tomllib
from pathlib import Path
from typing import Any

from codec.base import CodecError


def read_toml(path: Path, error: type[CodecError]) -> dict[str, Any]:
    """The content of a file.

    Raises:
        error: it can't be read, or is not valid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as cause:
        raise error(f"{path}: can't be read ({cause.strerror}).") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise error(f"{path}: is not a valid TOML file ({cause}).") from cause
