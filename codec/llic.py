"""The transforms of LLIC (Jiang et al. 2023): large receptive fields, weights that adapt to the image.

LLIC-STF, LLIC-ELIC and LLIC-TCM differ in the entropy model, which is a configuration. ELIC has uneven slices in two
stages each (:class:`codec.entropy.space_channel.SpaceChannelModel`). STF and TCM have even slices with separate
networks for means and scales, and predict the rounding error (:class:`codec.entropy.channel_wise.ChannelWiseModel`):
STF has ten slices, of which later ones see the first five; TCM has five, with attention before each network.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from codec.layers.blocks import down, up
from codec.layers.large_kernel import SelfConditionedChannel, SelfConditionedSpatial, TransformBlock
from codec.network import Gains, NetworkConfig, later


@dataclass(frozen=True)
class LLICConfig(NetworkConfig):
    """Everything that the network's shape depends on; the defaults are LLIC-ELIC's.

    N = 192, M = 320, the kernels and the blocks at each size are those of the paper (version 9 on arXiv, as quoted by
    public sources). The widths inside the blocks are our choice; see :mod:`codec.layers.large_kernel`.
    """

    family: ClassVar[str] = "llic"

    blocks: tuple[int, int, int, int] = (1, 1, 3, 1)
    """Pairs of a spatial and a channel transform block at each of the four sizes, from the image inwards."""
    mirrored: bool = later(True, absent=False)
    """Whether the synthesis has the blocks in inverse order, the channel transform before the spatial one."""
    kernels: tuple[int, int, int, int] = (11, 11, 9, 9)
    """Sides of the large kernels at each of the four sizes."""
    reduction: int = 4
    """The ratio of channels to those inside the networks that generate weights and importance."""
    gate_ratio: float = 1.0
    """The ratio of channels of each half of a gate to those of the features."""
    hyper: int = 192
    contexts_see_global: bool = later(False, absent=False)
    stages: tuple[int, ...] = (2, 2, 2, 2, 2)
    channel_widths: tuple[int, ...] = (224, 128)
    parameter_widths: tuple[int, ...] = (640, 512)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.blocks) != 4 or len(self.kernels) != 4:
            raise ValueError("blocks and kernels need four values.")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError("Kernel sizes must be odd.")
        if not 0 < self.gate_ratio <= 64 or min(*self.channels, self.latent) < self.reduction:
            raise ValueError("gate_ratio must be positive, and reduction at most the number of channels.")

    def analysis(self) -> nn.Module:
        return Analysis(self)

    def synthesis(self) -> nn.Module:
        return Synthesis(self)

    def hyper_block(self) -> nn.Module:
        return nn.GELU()


class Group(nn.Sequential):
    """The blocks at one of the four sizes: spatial and channel transform blocks in turn, or in inverse order."""

    def __init__(self, config: LLICConfig, size: int, inverse: bool = False) -> None:
        channels = (*config.channels, config.latent)[size]
        blocks = []
        for _ in range(config.blocks[size]):
            for mixing in (
                SelfConditionedSpatial(channels, config.kernels[size], config.reduction),
                SelfConditionedChannel(channels, config.reduction),
            ):
                blocks.append(TransformBlock(channels, mixing, config.gate_ratio))
        super().__init__(*(reversed(blocks) if inverse else blocks))


class Analysis(nn.Sequential):
    """g_a: image (B, 3, H, W), -0.5 to 0.5, to latents (B, M, H / 16, W / 16)."""

    def __init__(self, config: LLICConfig) -> None:
        layers: list[nn.Module] = []
        before = 3
        for size, channels in enumerate((*config.channels, config.latent)):
            layers += [down(before, channels), Group(config, size)]
            before = channels
        super().__init__(*layers)


class Synthesis(nn.Module):
    """g_s: latents (B, M, h, w) to an image (B, 3, 16 h, 16 w), about -0.5 to 0.5. Gains depend on the level."""

    def __init__(self, config: LLICConfig) -> None:
        super().__init__()
        self.gains, self.groups, self.ups = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        widths = (3, *config.channels, config.latent)
        for size in reversed(range(4)):
            self.gains.append(Gains(config.levels, widths[size + 1]))
            self.groups.append(Group(config, size, inverse=config.mirrored))
            self.ups.append(up(widths[size + 1], widths[size]))

    def forward(self, latents: Tensor, level: Tensor) -> Tensor:
        features = latents
        for gain, group, enlarge in zip(self.gains, self.groups, self.ups, strict=True):
            features = enlarge(group(features * gain(level)))
        return features


LLIC_ELIC = LLICConfig()
LLIC_STF = LLICConfig(
    slices=(32,) * 10,
    stages=(1,) * 10,
    context_model="channel-wise",
    support_slices=5,
    residual_prediction=True,
    channel_widths=(224, 176, 128, 64),
    context_kernel=3,
)
LLIC_TCM = LLICConfig(
    slices=(64,) * 5,
    stages=(1,) * 5,
    context_model="channel-wise",
    support_slices=5,
    residual_prediction=True,
    attention=8,
    context_kernel=3,
)


def compact(config: LLICConfig) -> LLICConfig:
    """A network of the same kind with the widths of the compact DKIC, for a few cores."""
    slices = {LLIC_ELIC: (16, 16, 32, 64, 64), LLIC_STF: (24,) * 8, LLIC_TCM: (48,) * 4}[config]
    return dataclasses.replace(
        config,
        channels=(48, 96, 144),
        latent=192,
        blocks=(1, 1, 2, 1),
        support_slices=min(config.support_slices, len(slices) // 2),
        hyper=96,
        global_channels=192,
        slices=slices,
        stages=config.stages[: len(slices)],
        channel_widths=(64,),
        parameter_widths=(192, 128),
        context_kernel=3,
    )
