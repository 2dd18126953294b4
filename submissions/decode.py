"""Decode a data archive to PNG files: ``python -m submissions.decode ARCHIVE FOLDER``."""

import sys
from pathlib import Path

from codec import CodecError, codec_for_file, write_png
from submissions.archive import unpack
from submissions.errors import SubmissionError


def decode(archive: Path, folder: Path) -> list[str]:
    """Write every bitstream's image as ``folder/NAME.png``; one that fails doesn't keep the others back.

    Returns:
        One sentence for each bitstream that can't be decoded.

    Raises:
        SubmissionError: the archive itself can't be read.
    """
    failures = []
    written: dict[str, str] = {}
    for name, data in unpack(archive).items():
        try:
            codec = codec_for_file(name)
            stem = name.removesuffix(codec.suffix)
            if (other := written.setdefault(stem, name)) != name:
                failures.append(f"{name}: would give the same image as {other}.")
                continue
            write_png(folder / f"{stem}.png", codec.decode(data))
        except CodecError as error:
            failures.append(f"{name}: {error}")
    return failures


def main() -> int:
    """The command."""
    if len(sys.argv) != 3:
        print("usage: python -m submissions.decode ARCHIVE FOLDER", file=sys.stderr)
        return 2
    try:
        failures = decode(Path(sys.argv[1]), Path(sys.argv[2]))
    except SubmissionError as error:
        failures = [str(error)]
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
