"""HiFiC's conditional discriminator (Mentzer et al. 2020, figure 2), which PO-DKIC uses (section 2.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """Rates how real each patch of an image looks, given the latents of the image.

    Args:
        latent: channels of the latents.
        widths: channels of the strided 4x4 convolutions.
    """

    def __init__(self, latent: int, widths: tuple[int, ...] = (64, 128, 256, 512)) -> None:
        super().__init__()
        self.condition = nn.Sequential(spectral_norm(nn.Conv2d(latent, 12, 3, padding=1)), nn.LeakyReLU(0.2))
        layers: list[nn.Module] = []
        before = 3 + 12
        for i, width in enumerate(widths):
            stride = 2 if i < len(widths) - 1 else 1
            layers += [spectral_norm(nn.Conv2d(before, width, 4, stride, 1)), nn.LeakyReLU(0.2)]
            before = width
        self.patches = nn.Sequential(*layers, spectral_norm(nn.Conv2d(before, 1, 1)))

    def forward(self, image: Tensor, latents: Tensor) -> Tensor:
        """Outputs before the sigmoid, (B, 1, h', w'), for images (B, 3, H, W), 0 to 1, and latents (B, M, h, w)."""
        condition = functional.interpolate(self.condition(latents), size=image.shape[2:], mode="nearest")
        return self.patches(torch.cat([image * 2 - 1, condition], 1))  # type: ignore[no-any-return]
