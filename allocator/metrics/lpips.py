"""LPIPS (Zhang et al. 2018, version 0.1) from the package ``lpips``, with cached features of the original."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import lpips
import torch
from torch import Tensor

from allocator.metrics.backbones import NETS, StateDict, find_backbone, sha256_of
from allocator.metrics.features import FeatureMetric


class LPIPS(FeatureMetric):
    """Learned perceptual distance, approximately 0 (equal) to 1; each name has one net and version of weights.

    Args:
        net: ``alex``, ``squeeze`` or ``vgg``.
        weights: the weights of that backbone, see :func:`allocator.metrics.backbones.find_backbone`.
        tile_pixels: see :class:`FeatureMetric`.
    """

    def __init__(self, net: str, weights: StateDict, tile_pixels: int = FeatureMetric.tile_pixels) -> None:
        self.name = f"lpips-{net}"
        self.net = net
        self.backbone = weights
        self.tile_pixels = tile_pixels
        self.sha256 = sha256_of(self.model.state_dict())
        self.version = f"0.1, weights {self.sha256[:16]}"

    @cached_property
    def model(self) -> lpips.LPIPS:
        """The module of the package ``lpips``: maps two batches (B, 3, H, W), -1 to 1, to distances (B, 1, 1, 1)."""
        with warnings.catch_warnings(), torch.device("meta"):  # initialising random weights takes seconds
            warnings.simplefilter("ignore")
            model = lpips.LPIPS(pretrained=False, net=self.net, pnet_rand=True, verbose=False)
        model.scaling_layer = lpips.ScalingLayer()
        calibration = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{self.net}.pth"
        weights = torch.load(calibration, map_location="cpu", weights_only=True)
        weights |= {f"lins.{key.removeprefix('lin')}": value for key, value in weights.items()}
        weights |= {f"net.{key}": self.backbone[_torchvision_key(key)] for key in model.net.state_dict()}
        weights |= {f"scaling_layer.{key}": value for key, value in model.scaling_layer.state_dict().items()}
        model.load_state_dict(weights, assign=True)
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


def alex() -> LPIPS:
    """LPIPS with AlexNet, the default of the package ``lpips`` and the variant in most papers."""
    return LPIPS("alex", find_backbone("alex"))


def squeeze() -> LPIPS:
    """LPIPS with SqueezeNet 1.1."""
    return LPIPS("squeeze", find_backbone("squeeze"))


def vgg() -> LPIPS:
    """LPIPS with VGG-16, the slowest variant."""
    return LPIPS("vgg", find_backbone("vgg"))


def _torchvision_key(name: str) -> str:
    """``slice2.3.squeeze.weight`` in the lpips package is torchvision's ``features.3.squeeze.weight``."""
    return "features." + name.partition(".")[2]
