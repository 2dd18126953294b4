"""PSNR and MS-SSIM."""

from importlib.metadata import version

import numpy as np

from allocator.metrics.base import Metric, mirror_to
from codec import RGBImage


class PSNR(Metric):
    """Peak signal-to-noise ratio in dB from one MSE over all RGB samples, at most 100 (equal images)."""

    name = "psnr"
    version = "rgb"
    higher_is_better = True

    def compare(self, reference: RGBImage, decoded: RGBImage) -> float:
        error = np.subtract(reference, decoded, dtype=np.int16).astype(np.float32)
        mse = float(np.mean(np.square(error, out=error), dtype=np.float64))
        return min(100.0, 10 * np.log10(255**2 / mse)) if mse else 100.0


class MSSSIM(Metric):
    """Multi-scale structural similarity, 0 to 1, the mean of the RGB channels' (Wang et al. 2003, five scales).

    Images under 176 pixels a side, the minimum for five scales, are extended to that size by mirroring.
    """

    name = "ms-ssim"
    version = f"pytorch-msssim {version('pytorch-msssim')}, rgb"
    higher_is_better = True

    def compare(self, reference: RGBImage, decoded: RGBImage) -> float:
        import torch
        from pytorch_msssim import ms_ssim

        pair = [mirror_to(image, 176) for image in (reference, decoded)]

        def channel(image: RGBImage, index: int) -> torch.Tensor:
            return torch.from_numpy(image[..., index].astype(np.float32))[None, None]

        # one channel at a time takes a third of the memory
        with torch.inference_mode():
            values = [ms_ssim(*(channel(image, i) for image in pair), data_range=255).item() for i in range(3)]
        return float(np.mean(values))
