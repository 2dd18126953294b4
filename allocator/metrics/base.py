"""What a metric is. Subclass :class:`Metric`, register it as an entry point, and every table can hold it."""

import hashlib
import importlib.metadata
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from allocator.errors import AllocatorError
from codec import RGBImage
from codec.registry import create
from codec.trust import check_name, note_typed

METRICS = "clic_allocator.metrics"
"""The entry-point group of metrics; each entry is called without arguments and returns a :class:`Metric`."""


STAND_IN = "lpips-lite"
"""This project's own stand-in for LPIPS, which is never taken for it."""
RESERVED = frozenset(
    "id image path sha256 width height codec level setting fingerprint bytes bpp encode_seconds decode_seconds "
    "decoded_sha256 target".split()
)
"""Columns of a table's data frame that a metric's name must leave alone."""


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
    """The metric called ``name``.

    Raises:
        UnknownName: there is no such metric, or importing it fails.
        MetricError: its weights can't be had.
    """
    note_typed(name)
    return _find_metric(name)


def _find_metric(name: str) -> Metric:
    metric: Metric = create(METRICS, name, MetricError)
    if metric.name in RESERVED:
        raise MetricError(f"A metric can't be called {metric.name!r}, which heads another column of a table.")
    return metric


def stored_metric(name: str) -> Metric:
    """As :func:`get_metric`, for a name that a table or a manifest holds.

    Raises:
        UntrustedName: it would load code or files, and nobody trusts it (see :mod:`codec.trust`).
    """
    if name not in importlib.metadata.entry_points(group=METRICS).names:
        check_name(name)
    return _find_metric(name)


def get_perceptual(report: Callable[[str], None]) -> Metric:
    """LPIPS, or where its weights can't be had its stand-in, and ``report`` is told why."""
    try:
        return get_metric("lpips")
    except MetricError as error:
        report(f"Measuring {STAND_IN}, which stands in for LPIPS: {error}")
        return get_metric(STAND_IN)


def mirror_to(image: RGBImage, side: int) -> RGBImage:
    """Extend an image by mirroring until both sides measure at least ``side`` pixels.

    Metrics with pyramids or deep networks need a least size; mirroring both images alike keeps their texture.
    """
    height, width = image.shape[:2]
    if min(height, width) >= side:
        return image
    return np.pad(image, ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0)), mode="symmetric")
