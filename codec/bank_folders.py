"""Where banks lie: the folders of those that are known by name."""

import contextlib
import json
import os
from pathlib import Path

SEARCH_PATH = "ALLOCATOR_BANKS"
"""Environment variable: folders of banks, and banks' own folders, separated as in ``PATH``."""
SHIPPED_BANKS = Path(__file__).parent / "banks"
BANK_MANIFEST = "manifest.json"


def bank_folders() -> dict[str, Path]:
    """The folders of the banks that are known by name; the first of a name counts, unreadable ones don't."""
    places = [Path(part) for part in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if part]
    found: dict[str, Path] = {}
    for place in [*places, SHIPPED_BANKS]:
        for manifest in [place / BANK_MANIFEST, *sorted(place.glob(f"*/{BANK_MANIFEST}"))]:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found.setdefault(str(json.loads(manifest.read_bytes())["name"]), manifest.parent)
    return found


def bank_folder(name: str) -> Path:
    """The folder of the bank that ``name`` names, or is the path of; it may hold none."""
    return bank_folders().get(name, Path(name))
