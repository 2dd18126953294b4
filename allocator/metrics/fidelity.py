"""PSNR and MS-SSIM."""

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from allocator.metrics.base import Metric, mirror_tensor_to, mirror_to
from codec import RGBImage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from codec.refinement import Distortion

_LEAST_SIDE = 176  # of MS-SSIM's five scales


class PSNR(Metric):
    """Peak signal-to-noise ratio in dB from one MSE over all RGB samples, at most 100 (equal images)."""

    name = "psnr"
    version = "rgb"
    higher_is_better = True

    def compare(self, reference: RGBImage, decoded: RGBImage) -> float:
        error = np.subtract(reference, decoded, dtype=np.int16).astype(np.float32)
        mse = float(np.mean(np.square(error, out=error), dtype=np.float64))
        return min(100.0, 10 * np.log10(255**2 / mse)) if mse else 100.0

    def differentiable(self, device: "torch.device") -> "Distortion":
        return lambda decoded, original: -10 * (decoded - original).square().mean().clamp_min(1e-10).log10()


class MSSSIM(Metric):
    """Multi-scale structural similarity, 0 to 1, the mean of the RGB channels' (Wang et al. 2003, five scales).

    Images under 176 pixels per side, the minimum for five scales, are extended to that size by mirroring.
    """

    name = "ms-ssim"
    version = f"pytorch-msssim {version('pytorch-msssim')}, rgb"
    higher_is_better = True

    def compare(self, reference: RGBImage, decoded: RGBImage) -> float:
        import torch
        from pytorch_msssim import ms_ssim

        pair = [mirror_to(image, _LEAST_SIDE) for image in (reference, decoded)]

        def channel(image: RGBImage, index: int) -> torch.Tensor:
            return torch.from_numpy(image[..., index].astype(np.float32))[None, None]

        # one channel at a time takes a third of the memory
        with torch.inference_mode():
            values = [ms_ssim(*(channel(image, i) for image in pair), data_range=255).item() for i in range(3)]
        return float(np.mean(values))

    def differentiable(self, device: "torch.device") -> "Distortion":
        from pytorch_msssim import ms_ssim

        def similarity(decoded: "Tensor", original: "Tensor") -> "Tensor":
            pair = (mirror_tensor_to(image, _LEAST_SIDE) for image in (decoded, original))
            return ms_ssim(*pair, data_range=1.0)  # type: ignore[no-any-return]

        return similarity
