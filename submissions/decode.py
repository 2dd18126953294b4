"""Decode a data archive with what is installed: ``python -m submissions.decode ARCHIVE FOLDER [CODEC ...]``."""

import sys
from pathlib import Path
from typing import NamedTuple

from codec.base import Codec
from codec.registry import codec_for_file, get_codec
from submissions import decoding


class Installed(NamedTuple):
    """The codecs that are installed here."""

    names: tuple[str, ...] = ()
    """Of codecs that come before all that are registered."""

    def codec(self, member: str) -> Codec:
        fitting = [codec for codec in map(get_codec, self.names) if member.endswith(codec.suffix)]
        return max(fitting, key=lambda codec: len(codec.suffix)) if fitting else codec_for_file(member)


def decode(archive: Path, folder: Path, names: tuple[str, ...] = ()) -> list[str]:
    """As :func:`submissions.decoding.decode`, by codecs that are installed."""
    return decoding.decode(archive, folder, Installed(names))


def main() -> int:
    """The command."""
    if len(sys.argv) < 3:
        print("usage: python -m submissions.decode ARCHIVE FOLDER [CODEC ...]", file=sys.stderr)
        return 2
    return decoding.run(Path(sys.argv[1]), Path(sys.argv[2]), Installed(tuple(sys.argv[3:])))


if __name__ == "__main__":
    sys.exit(main())
