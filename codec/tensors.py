"""Convert images to the tensors of networks."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from codec.base import RGBImage


def to_tensor(image: RGBImage) -> Tensor:
    """Pixels as input of a network: (1, 3, H, W), 0 to 1, channels last in memory."""
    own = image.astype(np.float32, order="C")  # torch accepts no arrays with negative strides, or that are read-only
    return torch.from_numpy(own).movedim(2, 0)[None] / 255


def edge_pad(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) until both sides are multiples of ``multiple``."""
    height, width = image.shape[-2:]
    return functional.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
