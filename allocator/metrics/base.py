"""The definition of a metric: subclass :class:`Metric` and register it as an entry point to use it everywhere."""

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from allocator.errors import AllocatorError
from codec import RGBImage


class MetricError(AllocatorError):
    """A metric can't be computed, for example because its weights are missing."""


class Metric(ABC):
    """A full-reference quality measure of decoded 8-bit RGB."""

    name: str
    """The name that users type, and the name of the column: ``psnr``."""
    version: str
    """Identifies everything that changes the value: the network, its weights."""
    higher_is_better: bool = False

    def reference(self, image: RGBImage) -> Any:
        """The data of the original that :meth:`compare` needs, computed once for all levels."""
        return image

    @abstractmethod
    def compare(self, reference: Any, decoded: RGBImage) -> float:
        """The finite value for ``decoded``, an image of the original's size."""

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change whenever values may change."""
        return hashlib.sha256(json.dumps([self.name, self.version]).encode()).hexdigest()[:32]


def mirror_to(image: RGBImage, side: int) -> RGBImage:
    """Extend an image by mirroring until both sides measure at least ``side`` pixels.

    Metrics with pyramids or deep networks need a minimum size; mirroring both images equally keeps their texture.
    """
    height, width = image.shape[:2]
    if min(height, width) >= side:
        return image
    return np.pad(image, ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0)), mode="symmetric")
