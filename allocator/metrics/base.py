"""The definition of a metric: subclass :class:`Metric` and register it as an entry point to use it everywhere."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from allocator.errors import AllocatorError
from codec import RGBImage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from codec.refinement import Distortion


class MetricError(AllocatorError):
    """A metric can't be computed, for example because its weights are missing."""


class Metric(ABC):
    """A full-reference quality measure of decoded 8-bit RGB."""

    name: str
    """The name that users type, and the name of the column: ``psnr``."""
    version: str
    """Identifies what changes the value, besides its own code: the weights of a network, the version of a library."""
    higher_is_better: bool = False

    def reference(self, image: RGBImage) -> Any:
        """The data of the original that :meth:`compare` needs, computed once for all levels."""
        return image

    @abstractmethod
    def compare(self, reference: Any, decoded: RGBImage) -> float:
        """The finite value for ``decoded``, an image of the original's size."""

    def differentiable(self, device: "torch.device") -> "Distortion | None":
        """A differentiable version of the metric, for which bitstreams can be refined; None by default.

        Args:
            device: the device of the images.

        Returns:
            A function of a decoded and an original image, (1, 3, H, W) each, 0 to 1.
        """
        return None

    @property
    def modules(self) -> Sequence[str]:
        """The modules whose code determines the value, for :mod:`codec.code_digest`.

        By default the module of its class. Override it to add others, or to return none if ``version`` suffices.
        """
        return (type(self).__module__,)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change whenever values may change."""
        from codec.code_digest import find_unrecorded

        code = [digest for module in self.modules for digest in find_unrecorded(module)]
        return hashlib.sha256(json.dumps([self.name, self.version, *code]).encode()).hexdigest()[:32]


def mirror_to(image: RGBImage, side: int) -> RGBImage:
    """Extend an image by mirroring until both sides measure at least ``side`` pixels.

    Metrics with pyramids or deep networks need a minimum size; mirroring both images equally keeps their texture.
    """
    height, width = image.shape[:2]
    if min(height, width) >= side:
        return image
    return np.pad(image, ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0)), mode="symmetric")


def mirror_tensor_to(image: "Tensor", side: int) -> "Tensor":
    """:func:`mirror_to` for an image (1, 3, H, W), with gradients."""
    rows, columns = (np.pad(np.arange(n), (0, max(0, side - n)), mode="symmetric") for n in image.shape[2:])
    return image if min(image.shape[2:]) >= side else image[:, :, rows][..., columns]
