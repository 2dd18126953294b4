"""Attack every parser for some CPU seconds, and count: ``python -m tests.fuzz SECONDS [PARSER ...]``.

Inputs that make a parser fail are kept in ``corpus/``, and from then on every run of the tests tries them.
"""

import contextlib
import hashlib
import sys
import time
from collections import Counter

from tests.fuzz import test_parsers as fuzz

_ROUND = 100


def attack(parser: str, seconds: float) -> Counter[str]:
    """What became of the attempts: ``read``, ``refused`` or ``failed``."""
    counts: Counter[str] = Counter()
    last = b""

    def parse(data: bytes) -> object:
        nonlocal last
        last = data
        try:
            result = found.parse(data)
        except fuzz.ALLOWED:
            counts["refused"] += 1
            raise
        counts["read"] += 1
        return result

    found = fuzz.PARSERS[parser]
    fuzz.PARSERS[parser] = found._replace(parse=parse)
    end = time.process_time() + seconds
    try:
        while time.process_time() < end:
            with contextlib.suppress(Exception):
                fuzz.fuzz(parser, _ROUND, derandomize=False)
                continue
            counts["failed"] += 1
            place = fuzz.CORPUS / parser / hashlib.sha256(last).hexdigest()[:12]
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(last)  # hypothesis has made it small
    finally:
        fuzz.PARSERS[parser] = found
    return counts


def main() -> None:
    """The command."""
    seconds, *parsers = sys.argv[1:]
    failed = 0
    print("parser attempts read refused failed")
    for parser in parsers or fuzz.PARSERS:
        counts = attack(parser, float(seconds))
        print(parser, counts.total(), counts["read"], counts["refused"], counts["failed"], flush=True)
        failed += counts["failed"]
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
