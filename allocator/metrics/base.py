"""What a metric is. Subclass :class:`Metric`, register it as an entry point, and every table can hold it."""

import hashlib
import importlib.metadata
import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from allocator.errors import AllocatorError
from allocator.points import RESERVED
from codec import RGBImage
from codec.registry import create
from codec.trust import check_name, note_typed

METRICS = "clic_allocator.metrics"
"""The entry-point group of metrics; each entry is called without arguments and returns a :class:`Metric`."""
_OF_LIBRARIES = ("piq:", "pyiqa:")
"""How names of their metrics begin, see :mod:`allocator.metrics.libraries`."""


class MetricError(AllocatorError):
    """A metric can't be computed: its weights are missing, say."""


class Metric(ABC):
    """A full-reference quality measure of decoded 8-bit RGB."""

    name: str
    """What people type and what heads the column: ``psnr``."""
    version: str
    """Names everything that changes the value: the network, its weights."""
    higher_is_better: bool = False

    def reference(self, image: RGBImage) -> Any:
        """What :meth:`compare` needs of the original; made once and used for all its levels."""
        return image

    @abstractmethod
    def compare(self, reference: Any, decoded: RGBImage) -> float:
        """The finite value for ``decoded``, an image of the original's size."""

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change whenever values might."""
        return hashlib.sha256(json.dumps([self.name, self.version]).encode()).hexdigest()[:32]


def get_metric(name: str) -> Metric:
    """The metric called ``name``: an entry point, or ``piq:NAME`` or ``pyiqa:NAME`` of those libraries.

    Raises:
        UnknownName: there is no such metric, or importing it fails.
        MetricError: its library or weights are unavailable.
    """
    note_typed(name)
    return _find_metric(name)


def _find_metric(name: str) -> Metric:
    if name.startswith(_OF_LIBRARIES):
        from allocator.metrics.libraries import of_library

        library, _, inner = name.partition(":")
        return of_library(library, inner)
    metric: Metric = create(METRICS, name, MetricError)
    if metric.name in RESERVED:
        raise MetricError(f"A metric can't be called {metric.name!r}, which heads another column of a table.")
    return metric


def stored_metric(name: str) -> Metric:
    """As :func:`get_metric`, for a name that a table or a manifest holds.

    Raises:
        UntrustedName: it would load code or files, and nobody trusts it (see :mod:`codec.trust`).
    """
    if name not in importlib.metadata.entry_points(group=METRICS).names and not name.startswith(_OF_LIBRARIES):
        check_name(name)
    return _find_metric(name)


def mirror_to(image: RGBImage, side: int) -> RGBImage:
    """Extend an image by mirroring until both sides measure at least ``side`` pixels.

    Metrics with pyramids or deep networks need a least size; mirroring both images alike keeps their texture.
    """
    height, width = image.shape[:2]
    if min(height, width) >= side:
        return image
    return np.pad(image, ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0)), mode="symmetric")
