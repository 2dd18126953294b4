"""The transforms of DKIC: dynamic kernels (Wang et al. 2023). PO-DKIC's network is the same."""

from dataclasses import dataclass
from typing import ClassVar, get_args

from torch import Tensor, nn

from codec.layers.blocks import (
    Aggregation,
    DynamicResidualBlock,
    NormPlacement,
    ResidualBottleneck,
    down,
    fold,
    unfold,
    up,
)
from codec.network import Gains, NetworkConfig, later

_SKIPPED = {2: 0, 4: 1, 8: 2}
"""The sizes that a stem omits."""


@dataclass(frozen=True)
class DKICConfig(NetworkConfig):
    """Everything that the network's shape depends on; the defaults are the papers' reference.

    The rows of DKIC's tables 2 to 4 are single fields: ``kernel``, ``block``, ``aggregation``, ``norm``, ``slices``
    and ``stages``. Table 4 is our interpretation: the available text of the paper lacks its row labels. The paper
    also does not specify widths; those here are fitted to its 53.3 M parameters.
    """

    family: ClassVar[str] = "dkic"

    blocks: tuple[int, int, int] = (1, 2, 4)
    """The number of dynamic residual blocks in the group at each of the three sizes."""
    block: str = "drb"
    """``drb``, or ``rbb`` to replace them by residual bottlenecks (table 2)."""
    aggregation: Aggregation = "dynamic"
    kernel: int = 3
    """Side of the dynamic kernel: 1, 3 or 5 (table 2)."""
    group_channels: int = 16
    """Channels that share positions and weights in the dynamic kernel."""
    mlp_ratio: float = 2
    norm: NormPlacement = "after"
    stem: int = later(2, absent=2)
    """Pixels along each side that the first layer folds into channels: 2 as in the paper; 4 or 8 omit the features at
    1/2, or at 1/2 and 1/4, of the image's size, which take most of the time on a processor."""
    resampling_kernel: int = later(5, absent=5)
    """Side of the convolutions that halve and double the size."""
    offset_norm: bool = later(True, absent=False)
    """Whether the dynamic kernel's offsets and modulation are normalised before their projection, as in DCNv3."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.blocks) != 3 or not 0 < self.mlp_ratio <= 64:
            raise ValueError("blocks needs three values, and mlp_ratio must be positive.")
        if self.kernel % 2 == 0 or self.resampling_kernel % 2 == 0:
            raise ValueError("Kernel sizes must be odd.")
        if self.stem not in _SKIPPED:
            raise ValueError(f"stem must be 2, 4 or 8, not {self.stem}.")
        if self.block not in ("drb", "rbb"):
            raise ValueError(f"Unknown block {self.block!r}.")
        if self.norm not in get_args(NormPlacement) or self.aggregation not in get_args(Aggregation):
            raise ValueError(f"Unknown norm {self.norm!r} or aggregation {self.aggregation!r}.")
        for channels in (*self.channels, self.hyper):
            if channels % self.group_channels:
                raise ValueError(f"{channels} channels can't be divided into groups of {self.group_channels}.")

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Channels and blocks of the groups, the largest size first."""
        return list(zip(self.channels, self.blocks, strict=True))[_SKIPPED[self.stem] :]

    def analysis(self) -> nn.Module:
        return Analysis(self)

    def synthesis(self) -> nn.Module:
        return Synthesis(self)

    def hyper_block(self) -> nn.Module:
        return self.residual_block(self.hyper)

    def residual_block(self, channels: int) -> nn.Module:
        """The block of these transforms."""
        if self.block == "rbb":
            return ResidualBottleneck(channels)
        return DynamicResidualBlock(
            channels,
            channels // self.group_channels,
            self.kernel,
            self.mlp_ratio,
            self.norm,
            self.aggregation,
            self.offset_norm,
        )


class DynamicGroup(nn.Sequential):
    """DRBG: dynamic residual blocks, then a residual bottleneck (DKIC, figure 2)."""

    def __init__(self, config: DKICConfig, channels: int, blocks: int) -> None:
        super().__init__(*(config.residual_block(channels) for _ in range(blocks)), ResidualBottleneck(channels))


class Analysis(nn.Sequential):
    """g_a: image (B, 3, H, W), -0.5 to 0.5, to latents (B, M, H / 16, W / 16)."""

    def __init__(self, config: DKICConfig) -> None:
        layers: list[nn.Module] = []
        before = 3
        for channels, blocks in config.groups:
            enter = down(before, channels, config.resampling_kernel) if layers else fold(channels, config.stem)
            layers += [enter, DynamicGroup(config, channels, blocks)]
            before = channels
        super().__init__(*layers, down(before, config.latent, config.resampling_kernel))


class Synthesis(nn.Module):
    """g_s: latents (B, M, h, w) to an image (B, 3, 16 h, 16 w), about -0.5 to 0.5. Gains depend on the level."""

    def __init__(self, config: DKICConfig) -> None:
        super().__init__()
        self.ups, self.gains, self.groups = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = config.latent
        for channels, blocks in reversed(config.groups):
            self.ups.append(up(before, channels, config.resampling_kernel))
            self.gains.append(Gains(config.levels, channels))
            self.groups.append(DynamicGroup(config, channels, blocks))
            before = channels
        self.last = unfold(before, config.stem)

    def forward(self, latents: Tensor, level: Tensor) -> Tensor:
        features = latents
        for enlarge, gain, group in zip(self.ups, self.gains, self.groups, strict=True):
            features = group(enlarge(features) * gain(level))
        return self.last(features)  # type: ignore[no-any-return]


REFERENCE = DKICConfig()
COMPACT = DKICConfig(
    channels=(48, 96, 256),
    latent=256,
    blocks=(0, 0, 2),
    stem=4,
    resampling_kernel=3,
    hyper=128,
    global_channels=256,
    slices=(16, 16, 32, 64, 128),
    channel_widths=(96,),
    parameter_widths=(256, 192),
    context_kernel=3,
)
"""A network for processors: most of its work is at an eighth of the image's size."""
