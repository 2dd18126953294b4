"""Metrics that compare the features of a network, in bounded memory."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from allocator.metrics.base import Metric, mirror_tensor_to, mirror_to
from codec import RGBImage
from codec.refinement import Distortion

_LEAST_SIDE = 64
_GRID = 16  # the largest stride: tiles start on multiples of it, so their features match those of the whole image
_HALO = 224  # the largest receptive field is 207 pixels (squeeze's last layer)
_EPSILON = 1e-10  # as in lpips.normalize_tensor, but without a copy


class Reference(NamedTuple):
    """An original, at least 64 pixels per side, and its features, if they fit in memory."""

    image: RGBImage
    features: list[Tensor] | None


class NetworkMetric(Metric):
    """Compares the features of two images in the layers of a convolutional network.

    Images over ``tile_pixels`` are compared strip by strip, with the same result, in bounded memory. Images under
    64 pixels per side are extended to that size by mirroring.
    """

    tile_pixels: int = 1 << 22
    sha256: str
    """The hash of the network's weights, independent of the file format."""

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The metric for training: a module that maps two batches (B, 3, H, W), -1 to 1, to a distance for each pair.

        It is a cached property because it is not pickled.
        """

    @property
    @abstractmethod
    def strides(self) -> Sequence[int]:
        """The stride in pixels of each compared layer."""

    @abstractmethod
    def layers(self, pixels: Tensor) -> Sequence[Tensor]:
        """The compared layers' features of an image (1, 3, H, W), -1 to 1, as tensors that may be overwritten."""

    def prepared(self, features: Tensor) -> Tensor:
        """Prepare a layer's features (1, C, h, w) for the comparison; may overwrite them."""
        return features

    def mirrored(self, image: RGBImage) -> RGBImage:
        """An image of at least 64 pixels per side."""
        return mirror_to(image, _LEAST_SIDE)

    def reference(self, image: RGBImage) -> Reference:
        image = self.mirrored(image)
        tiles = list(self.tiles(image))
        return Reference(image, self._features(image, tiles[0]) if len(tiles) == 1 else None)

    def differentiable(self, device: torch.device) -> Distortion:
        net = self.model if device.type == "cpu" else copy.deepcopy(self.model).to(device)

        def distance(decoded: Tensor, original: Tensor) -> Tensor:
            pair = (2 * mirror_tensor_to(image, _LEAST_SIDE) - 1 for image in (decoded, original))
            return net(*pair).mean()  # type: ignore[no-any-return]

        return distance

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "model"}

    def pairs(
        self, reference: Reference, decoded: RGBImage, tile: tuple[int, int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Each layer's features of both images, in one strip; the second ones may be overwritten."""
        cached = reference.features or self._features(reference.image, tile)
        return zip(cached, self._features(decoded, tile), strict=True)

    def tiles(self, image: RGBImage) -> Iterator[tuple[int, int]]:
        """The start and end, along the longer axis, of the strips whose features are compared."""
        long, short = max(image.shape[:2]), min(image.shape[:2])
        core = long
        if long * short > self.tile_pixels:
            core = max(_HALO, self.tile_pixels // short - 2 * _HALO) // _GRID * _GRID
        begins = range(0, long - _LEAST_SIDE + 1, core)  # the last strip is long enough for all layers
        yield from zip(begins, [*begins[1:], long], strict=True)

    def _features(self, image: RGBImage, tile: tuple[int, int]) -> list[Tensor]:
        """Each layer's features (1, C, h, w) of one strip of an image, prepared."""
        axis = 0 if image.shape[0] >= image.shape[1] else 1
        long = image.shape[axis]
        start, stop = max(0, tile[0] - _HALO), min(long, tile[1] + _HALO)
        strip = image[start:stop] if axis == 0 else image[:, start:stop]
        with torch.inference_mode():
            pixels = torch.from_numpy(strip.transpose(2, 0, 1).copy())[None].float().div_(127.5).sub_(1)
            features = []
            for layer, stride in zip(self.layers(pixels), self.strides, strict=True):
                begin = (tile[0] - start) // stride
                end = layer.shape[2 + axis] if tile[1] == long else (tile[1] - start) // stride
                kept = layer.narrow(2 + axis, begin, end - begin)
                features.append(self.prepared(kept))
        return features


class FeatureMetric(NetworkMetric):
    """A weighted sum over layers and channels of squared differences of unit-normalised features, averaged over
    positions (Zhang et al. 2018, equation 1).
    """

    @abstractmethod
    def weights(self, layer: int) -> Tensor:
        """The weights of a layer's channels, (C,), at least 0."""

    def prepared(self, features: Tensor) -> Tensor:
        return features.div_(features.square().sum(1, keepdim=True).sqrt_().add_(_EPSILON))

    def compare(self, reference: Reference, decoded: RGBImage) -> float:
        decoded = self.mirrored(decoded)
        sums = [0.0] * len(self.strides)
        counts = [0] * len(self.strides)
        with torch.inference_mode():
            for tile in self.tiles(reference.image):
                for layer, (a, b) in enumerate(self.pairs(reference, decoded, tile)):
                    # the layer's 1x1 convolution and the mean over positions commute
                    by_channel = b.sub_(a).square_().sum((0, 2, 3), dtype=torch.float64)
                    sums[layer] += float(self.weights(layer).double() @ by_channel)
                    counts[layer] += a.shape[2] * a.shape[3]
        return sum(total / count for total, count in zip(sums, counts, strict=True))

    def map(self, reference: Reference, decoded: RGBImage) -> NDArray[np.float32]:
        """A map of the differences: float32 (H, W), whose mean is approximately the distance."""
        height, width = decoded.shape[:2]
        decoded = self.mirrored(decoded)
        axis = 0 if decoded.shape[0] >= decoded.shape[1] else 1
        strips = []
        with torch.inference_mode():
            for tile in self.tiles(reference.image):
                size = list(decoded.shape[:2])
                size[axis] = tile[1] - tile[0]
                total = torch.zeros(size)
                for layer, (a, b) in enumerate(self.pairs(reference, decoded, tile)):
                    here = functional.conv2d(b.sub_(a).square_(), self.weights(layer)[None, :, None, None])
                    total += functional.interpolate(here, size=size, mode="bilinear", align_corners=False)[0, 0]
                strips.append(total.numpy())
        whole: NDArray[np.float32] = np.concatenate(strips, axis)
        return whole[:height, :width]
