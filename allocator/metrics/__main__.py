"""Record the code of this package's metrics, see :mod:`codec.code_digest`."""

from pathlib import Path

from allocator.metrics.registry import own_modules
from codec.code_digest import record

if __name__ == "__main__":
    record(Path(__file__).parents[1], own_modules())
