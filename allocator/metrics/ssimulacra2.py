"""SSIMULACRA 2.1 (Sneyers 2023), which agrees with the program of that name in libjxl.

At up to six scales, in the colour space XYB, three maps are averaged: structural similarity, edges that the decoded
image adds (ringing, blocks), and edges that it loses (blur). The averages are combined into a score with weights that
were fitted to human ratings, as published by libjxl.
"""

from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from allocator.metrics.base import Metric, mirror_to
from codec import RGBImage

Planes = NDArray[np.float32]
"""Channels, rows, columns."""

_SCALES = 6
_LEAST_SIDE = 8
_SIGMA = 1.5
_C2 = 0.0009
_OPSIN = np.array(
    [
        [0.30, 0.622, 0.078],
        [0.23, 0.692, 0.078],
        [0.24342268924547819, 0.20476744424496821, 0.5518098665095536],
    ],
    np.float32,
)
_BIAS = 0.0037930732552754493
_WEIGHTS = np.fromstring(
    """
    0 0.0007376606707406586 0 0 0.0007793481682867309 0
    0 0.0004371155730107379 0 1.1041726426657346 0.00066284834129271 0.00015231632783718752
    0 0.0016406437456599754 0 1.8422455520539298 11.441172603757666 0
    0.0007989109436015163 0.000176816438078653 0 1.8787594979546387 10.94906990605142 0
    0.0007289346991508072 0.9677937080626833 0 0.00014003424285435884 0.9981766977854967 0.00031949755934435053
    0.0004550992113792063 0 0 0.0013648766163243398 0 0
    0 0 0 7.466890328078848 0 17.445833984131262
    0.0006235601634041466 0 0 6.683678146179332 0.00037724407979611296 1.027889937768264
    225.20515300849274 0 0 19.213238186143016 0.0011401524586618361 0.001237755635509985
    176.39317598450694 0 0 24.43300999870476 0.28520802612117757 0.0004485436923833408
    0 0 0 34.77906344483772 44.835625328877896 0
    0 0 0 0 0 0
    0 0.0008680556573291698 0 0 0 0
    0 0.0005313191874358747 0 0.00016533814161379112 0 0
    0 0 0 0.0004179171803251336 0.0017290828234722833 0
    0.0020827005846636437 0 0 8.826982764996862 23.19243343998926 0
    95.1080498811086 0.9863978034400682 0.9834382792465353 0.0012286405048278493 171.2667255897307 0.9807858872435379
    0 0 0 0.0005130064588990679 0 0.00010854057858411537
    """,
    sep=" ",
)
"""A row for each channel and scale, with the weights of the three maps' means, then of their fourth norms."""


class Scale(NamedTuple):
    """The data of an image at one scale."""

    xyb: Planes
    mean: Planes
    """Blurred."""
    square: Planes
    """The square, blurred."""


class SSIMULACRA2(Metric):
    """A score up to 100 (equal): 90 is visually lossless, 70 high, 50 medium, 30 low quality; it can be negative.

    Images under 8 pixels per side are extended to that size by mirroring.
    """

    name = "ssimulacra2"
    version = "2.1"
    higher_is_better = True

    def reference(self, image: RGBImage) -> list[Scale]:
        return [_scale(xyb) for xyb in _pyramid(image)]

    def compare(self, reference: list[Scale], decoded: RGBImage) -> float:
        averages = [_averages(original, xyb) for original, xyb in zip(reference, _pyramid(decoded), strict=True)]
        by_channel = np.stack(averages, 1).ravel()
        # the published weights are used in order, even if small images have fewer scales
        error = 0.9562382616834844 * float(_WEIGHTS[: by_channel.size] @ by_channel)
        error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
        return float(100 - 10 * max(error, 0.0) ** 0.6276336467831387)


def _pyramid(image: RGBImage) -> list[Planes]:
    """The image in XYB at each scale, halved in linear light."""
    image = mirror_to(image, _LEAST_SIDE)
    linear: Planes = _linear()[image.transpose(2, 0, 1)]
    planes = [_xyb(linear)]
    while len(planes) < _SCALES and min(linear.shape[1:]) >= _LEAST_SIDE:
        linear = np.pad(linear, [(0, 0), *((0, side % 2) for side in linear.shape[1:])], mode="edge")
        linear = np.mean([linear[:, y::2, x::2] for y, x in product((0, 1), repeat=2)], 0)
        planes.append(_xyb(linear))
    return planes


@cache
def _linear() -> NDArray[np.float32]:
    """Linear light of each 8-bit value."""
    values = np.arange(256) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _xyb(linear: Planes) -> Planes:
    """Convert linear RGB to XYB, scaled to about 0 to 1, with the second channel subtracted from the third."""
    mixed = np.tensordot(_OPSIN, linear, 1) + np.float32(_BIAS)
    long, medium, short = np.cbrt(np.maximum(mixed, 0, out=mixed), out=mixed) - np.float32(np.cbrt(_BIAS))
    x, y = (long - medium) / 2, (long + medium) / 2
    return np.stack([14 * x + np.float32(0.42), y + np.float32(0.01), short - y + np.float32(0.55)])


@cache
def _window() -> NDArray[np.float32]:
    """Libjxl's approximation of a Gaussian by three cosines (Charalampidis 2016), as its 9 taps."""
    radius = round(3.2795 * _SIGMA + 0.2546)
    omega = np.pi / (2 * radius) * np.array([1, 3, 5])
    p = np.array([1, -1, 1]) / np.tan(omega / 2)
    r = np.array([1, -1, 1]) * p**2 / np.sin(omega)
    rho = np.exp(-0.5 * _SIGMA**2 * omega**2) / radius
    zeta = np.cross(p, r)
    zeta = zeta / zeta[2]
    beta = np.linalg.solve([p, r, zeta], [1, radius**2 - _SIGMA**2, zeta @ rho])
    taps: NDArray[np.float32] = (beta @ np.cos(np.outer(omega, np.arange(1 - radius, radius)))).astype(np.float32)
    return taps


def _blur(planes: Planes) -> Planes:
    for axis in (1, 2):
        planes = correlate1d(planes, _window(), axis, mode="constant")  # zero outside, as in libjxl
    return planes


def _scale(xyb: Planes) -> Scale:
    return Scale(xyb, _blur(xyb), _blur(xyb * xyb))


def _averages(original: Scale, xyb: Planes) -> NDArray[np.float64]:
    """The means, then the fourth norms, of the three maps in each channel: (3, 6)."""
    decoded = _scale(xyb)
    product_of_means = original.mean * decoded.mean
    covariance = _blur(original.xyb * xyb) - product_of_means
    variances = (original.square - original.mean**2) + (decoded.square - decoded.mean**2)
    similarity = (1 - (original.mean - decoded.mean) ** 2) * (2 * covariance + _C2) / (variances + _C2)
    edges = (1 + np.abs(xyb - decoded.mean)) / (1 + np.abs(original.xyb - original.mean)) - 1
    maps = np.maximum([1 - similarity, edges, -edges], 0)
    means = maps.mean((2, 3), dtype=np.float64)
    norms = (maps**4).mean((2, 3), dtype=np.float64) ** 0.25
    averages: NDArray[np.float64] = np.concatenate([means, norms]).T
    return averages
