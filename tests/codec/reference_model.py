"""A stand-in for VTM and HM: their options, raw video and configuration files, with another coding."""

import argparse
import struct
import sys
import zlib
from pathlib import Path


def encode() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("-i", "-c", "-o", "-b"):
        parser.add_argument(option, required=True)
    for option in (
        "-q",
        "-wdt",
        "-hgt",
        "-fr",
        "-f",
        "--InputChromaFormat",
        "--InputBitDepth",
        "--ConformanceWindowMode",
    ):
        parser.add_argument(option, required=True, type=int)
    for option in ("--Level", "--CUNoSplitIntraACT"):  # HM's
        parser.add_argument(option, type=float)
    given = parser.parse_args()
    if "IntraPeriod" not in Path(given.c).read_text():
        sys.exit("Error: no configuration")
    frame = Path(given.i).read_bytes()
    assert (given.InputChromaFormat, given.InputBitDepth, given.f) == (444, 8, 1)
    assert len(frame) == 3 * given.wdt * given.hgt
    assert given.wdt % 8 == given.hgt % 8 == 0  # the least coding unit
    step = min(64, max(1, round(2 ** ((given.q - 4) / 6) / 4)))
    coded = zlib.compress(bytes(min(255, round(sample / step) * step) for sample in frame), 9)
    Path(given.b).write_bytes(struct.pack("<HH", given.wdt, given.hgt) + coded)


def decode() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("-b", "-o", "-d"):
        parser.add_argument(option, required=True)
    given = parser.parse_args()
    assert given.d == "8"
    Path(given.o).write_bytes(zlib.decompress(Path(given.b).read_bytes()[4:]))


if __name__ == "__main__":
    encode() if "Encoder" in sys.argv[0] else decode()
