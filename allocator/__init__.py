"""Pick the codec and quality level of every image so that a set looks best within one byte budget.

The whole job::

    import allocator as al

    table = al.build("run.db", ["photos"], codecs=["hevc"], metrics=["lpips"])
    found = table.allocate(bpp=0.15)
    found.submit("entry/")

The names in ``__all__`` are the public API and keep their meaning. Each is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from allocator.api import Allocation as Allocation
    from allocator.api import Table as Table
    from allocator.api import build as build
    from allocator.api import open as open
    from allocator.api import optimize as optimize
    from allocator.errors import AllocatorError as AllocatorError
    from allocator.images import copy_photos as copy_photos
    from allocator.metrics import get_metric as get_metric
    from allocator.plot import Look as Look
    from allocator.problem import Problem as Problem
    from allocator.provenance import FOOTNOTE as FOOTNOTE
    from allocator.provenance import MARK as MARK
    from allocator.provenance import flatters as flatters
    from allocator.solver.hull import sweep as sweep
    from allocator.solver.knapsack import solve as solve
    from allocator.training import train as train
    from submissions.entries import DecoderOptions as DecoderOptions
    from submissions.verify import verify as verify

    __version__: str

_MODULES = {
    "Allocation": "allocator.api",
    "AllocatorError": "allocator.errors",
    "DecoderOptions": "submissions.entries",
    "FOOTNOTE": "allocator.provenance",
    "Look": "allocator.plot",
    "MARK": "allocator.provenance",
    "Problem": "allocator.problem",
    "Table": "allocator.api",
    "build": "allocator.api",
    "copy_photos": "allocator.images",
    "flatters": "allocator.provenance",
    "get_metric": "allocator.metrics",
    "open": "allocator.api",
    "optimize": "allocator.api",
    "solve": "allocator.solver.knapsack",
    "sweep": "allocator.solver.hull",
    "train": "allocator.training",
    "verify": "submissions.verify",
}
"""The module of each public name."""

__all__ = [*sorted(_MODULES), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("clic-allocator")
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
