"""Decode a data archive with the installed codecs: ``python -m submissions.decode ARCHIVE FOLDER [CODEC ...]``."""

import sys
from pathlib import Path
from typing import NamedTuple

from codec.base import Codec
from codec.registry import codec_for_file, get_codec
from submissions import decoding


class Installed(NamedTuple):
    """The installed codecs."""

    names: tuple[str, ...] = ()
    """Names of codecs that precede all registered ones."""

    def codec(self, member: str) -> Codec:
        fitting = [codec for codec in map(get_codec, self.names) if member.endswith(codec.suffix)]
        return max(fitting, key=lambda codec: len(codec.suffix)) if fitting else codec_for_file(member)


def decode(archive: Path, folder: Path, names: tuple[str, ...] = ()) -> list[str]:
    """:func:`submissions.decoding.decode` with the installed codecs."""
    return decoding.decode(archive, folder, Installed(names))


def main() -> int:
    """The command."""
    if len(sys.argv) < 3:
        print("usage: python -m submissions.decode ARCHIVE FOLDER [CODEC ...]", file=sys.stderr)
        return 2
    return decoding.run(Path(sys.argv[1]), Path(sys.argv[2]), Installed(tuple(sys.argv[3:])))


if __name__ == "__main__":
    sys.exit(main())
