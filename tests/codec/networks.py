"""Small networks, random or quickly trained."""

from pathlib import Path

import torch

from codec.dkic import DKICConfig
from codec.layers.dynamic_kernel import LiteDCN
from codec.llic import LLICConfig
from codec.network import CompressionNetwork, NetworkConfig
from codec.training.data import Photos
from codec.training.losses import bits_per_pixel

TINY = DKICConfig(
    channels=(16, 16, 32),
    latent=32,
    blocks=(0, 1, 1),
    mlp_ratio=2,
    hyper=16,
    global_channels=32,
    slices=(4, 4, 8, 16),
    stages=(4, 2, 2, 1),
    channel_widths=(16,),
    parameter_widths=(32,),
    context_kernel=3,
    levels=3,
)
TINY_LLIC = LLICConfig(
    channels=(8, 8, 16),
    latent=32,
    blocks=(0, 1, 1, 1),
    hyper=16,
    global_channels=32,
    slices=(4, 4, 8, 16),
    stages=(2, 2, 2, 2),
    channel_widths=(16,),
    parameter_widths=(32,),
    context_kernel=3,
    levels=3,
)


def network(config: NetworkConfig = TINY, seed: int = 1) -> CompressionNetwork:
    """Random weights whose kernels are bent, whose latents are a few steps wide, and whose levels differ."""
    torch.manual_seed(seed)
    made = CompressionNetwork(config).eval()
    for module in made.modules():
        if isinstance(module, LiteDCN):
            for project in (module.offsets[-1], module.modulation[-1]):
                for parameter in project.parameters():
                    torch.nn.init.normal_(parameter, std=0.3)
    made.priors.gains.log.data += 1 + torch.arange(config.levels)[:, None] * 0.7
    made.priors.hyper_gains.log.data += 1
    return made.requires_grad_(False)


def fit(made: CompressionNetwork, photos: Path, steps: int) -> CompressionNetwork:
    """Train for a few seconds, so that probabilities are about those of real latents."""
    torch.manual_seed(0)
    crops = Photos(photos, crop=64, validation=0, half_size_over=10_000)
    made = made.train().requires_grad_(True)
    optimizer = torch.optim.Adam(made.parameters(), 2e-3)
    for step in range(steps):
        image = crops.batch(4, 64, 0, step).float() / 255
        output = made(image, torch.randint(made.config.levels, (4,)))
        rate = bits_per_pixel(output.likelihoods, 64 * 64).mean()
        loss = 100 * (output.x_hat - image).square().mean() + 0.3 * rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
    return made.eval().requires_grad_(False)
