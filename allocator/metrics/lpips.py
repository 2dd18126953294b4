"""LPIPS (Zhang et al. 2018, version 0.1) by the ``lpips`` package, with the original's features cached."""

import hashlib
import math
import os
import pickle
import socket
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import lpips
import torch
from torch import Tensor, nn

from allocator.metrics.base import MetricError
from allocator.metrics.features import FeatureMetric

BACKBONE_VARIABLE = "ALLOCATOR_LPIPS_BACKBONE"
"""Environment variable: files with backbone weights, separated as in PATH."""

StateDict = dict[str, Tensor]


class Net(NamedTuple):
    """A backbone that the ``lpips`` package knows."""

    torchvision: str
    """The model's name in torchvision."""
    strides: tuple[int, ...]
    """Pixels from one feature to the next, for each compared layer."""


NETS = {
    "alex": Net("alexnet", (4, 8, 16, 16, 16)),
    "squeeze": Net("squeezenet1_1", (2, 4, 8, 16, 16, 16, 16)),
    "vgg": Net("vgg16", (1, 2, 4, 8, 16)),
}
_DOWNLOAD_SECONDS = 15.0


class LPIPS(FeatureMetric):
    """Learned perceptual distance, about 0 (equal) to 1; with one net and version of weights for each name."""

    def __init__(self, net: str, weights: StateDict, tile_pixels: int = FeatureMetric.tile_pixels) -> None:
        self.name = f"lpips-{net}"
        self.net = net
        self.backbone = weights
        self.tile_pixels = tile_pixels
        digest = hashlib.sha256()
        for key, value in sorted(self.model.state_dict().items()):
            digest.update(key.encode() + value.numpy().tobytes())
        self.version = f"0.1, weights {digest.hexdigest()[:16]}"

    @cached_property
    def model(self) -> lpips.LPIPS:
        """The ``lpips`` package's own module, with this metric's backbone."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = lpips.LPIPS(net=self.net, pnet_rand=True, verbose=False)
        for name, parameter in model.net.named_parameters():
            parameter.data.copy_(self.backbone[_torchvision_key(name)])
        return model.requires_grad_(False)

    @property
    def strides(self) -> tuple[int, ...]:
        return NETS[self.net].strides

    def layers(self, pixels: Tensor) -> Sequence[Tensor]:
        layers: Sequence[Tensor] = self.model.net(self.model.scaling_layer(pixels))
        return layers

    def weights(self, layer: int) -> Tensor:
        weights: Tensor = self.model.lins[layer].model[-1].weight
        return weights.flatten()

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "model"}


def alex() -> LPIPS:
    """LPIPS with AlexNet, the ``lpips`` package's default."""
    return LPIPS("alex", find_backbone("alex"))


def squeeze() -> LPIPS:
    """LPIPS with SqueezeNet 1.1, the smallest."""
    return LPIPS("squeeze", find_backbone("squeeze"))


def vgg() -> LPIPS:
    """LPIPS with VGG-16, the slowest."""
    return LPIPS("vgg", find_backbone("vgg"))


def of_backbone() -> LPIPS:
    """LPIPS with the net of the first given backbone file, else with AlexNet."""
    for path in given_backbones():
        weights = read_backbone(path)
        for net in NETS:
            if _fits(net, weights):
                return LPIPS(net, weights)
        raise MetricError(f"{path}: holds no weights of {', '.join(NETS)}.")
    return alex()


def given_backbones() -> list[Path]:
    """The files named by :data:`BACKBONE_VARIABLE`."""
    return [Path(part) for part in os.environ.get(BACKBONE_VARIABLE, "").split(os.pathsep) if part]


def find_backbone(net: str) -> StateDict:
    """A backbone's weights: from a given file, else from torch's cache, else by download into that cache.

    Raises:
        MetricError: a given file is unreadable, or the weights can't be had.
    """
    for path in given_backbones():
        weights = read_backbone(path)
        if _fits(net, weights):
            return weights
    from torchvision.models import get_model_weights

    url = get_model_weights(NETS[net].torchvision)["IMAGENET1K_V1"].url
    cached = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not cached.exists():
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_DOWNLOAD_SECONDS)
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            prefix = cached.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(url, str(cached), prefix, progress=False)
        except (OSError, RuntimeError) as error:
            raise MetricError(
                f"LPIPS ({net}) needs torchvision's weights {cached.name}, which are not in {cached.parent} and "
                f"can't be downloaded ({error}); fetch {url} elsewhere and name the file by --lpips-backbone "
                f"or {BACKBONE_VARIABLE}, or use another metric: lpips-lite stands in for it."
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)
    weights = read_backbone(cached)
    if not _fits(net, weights):
        raise MetricError(f"{cached}: doesn't hold the weights of {NETS[net].torchvision}; delete it.")
    return weights


def read_backbone(path: Path) -> StateDict:
    """The float32 tensors of a torchvision checkpoint or of its ``features`` alone, read without running code.

    Raises:
        MetricError: missing, unreadable, or not a checkpoint.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return {key: value.float() for key, value in weights.items() if key.startswith("features.")}
    except FileNotFoundError:
        raise MetricError(f"{path}: there is no such file of LPIPS backbone weights.") from None
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        AttributeError,
        KeyError,
        pickle.UnpicklingError,
    ) as error:
        raise MetricError(f"{path}: is not a file of LPIPS backbone weights, or a damaged one.") from error


def _torchvision_key(name: str) -> str:
    """``slice2.3.squeeze.weight`` in the lpips package is torchvision's ``features.3.squeeze.weight``."""
    return "features." + name.partition(".")[2]


def _fits(net: str, weights: StateDict) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    named: list[tuple[str, nn.Parameter]] = list(model.net.named_parameters())
    return all(
        (value := weights.get(_torchvision_key(name))) is not None
        and value.shape == parameter.shape
        and math.isfinite(float(value.sum()))
        for name, parameter in named
    )
