"""The common parts of all learned codecs: everything except their transforms.

::

    x ── g_a ── y ───────────── Q ── y_hat ── g_s ── x_hat
                │               │
                h_a ── z ── Q ── h_s ── space-channel model: mean and scale of each y

A configuration provides the transforms g_a and g_s (:mod:`codec.dkic`, :mod:`codec.llic`) and all sizes.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_origin

import torch
from torch import Tensor, nn

from codec.entropy.channel_wise import ChannelWiseModel, Refine
from codec.entropy.factorized import LIKELIHOOD_BOUND, FactorizedPrior
from codec.entropy.space_channel import SpaceChannelModel, Visit
from codec.entropy.tables import SCALE_STEP, SCALES, scale_of
from codec.layers.blocks import down, up
from codec.tensors import edge_pad

if TYPE_CHECKING:
    from typing import Self  # needs Python 3.11, but decoders support 3.10

STRIDE = 16
"""Pixels of the image per position of the latents, along each side."""
HYPER_STRIDE = 4
"""Positions of the latents per position of the hyper-latents, along each side."""
CONTEXT_MODELS = ("space-channel", "channel-wise")

_WIDEST, _MOST_PARTS, _LARGEST_KERNEL = 1 << 14, 64, 63
"""The most channels, slices or blocks, and kernel sizes: they limit the work that an untrusted bank can cause."""
MOST_PARAMETERS = 1 << 28
"""The most parameters: five times those of the reference network."""
_WIDEST_WINDOW = 16


def later(default: Any, absent: Any) -> Any:
    """A field that was added to configurations after format 1 of banks.

    Args:
        default: the value in new configurations.
        absent: the value in manifests without the field. Manifests omit this value, so that the identity of
            older banks, and therefore their bitstreams, remain valid.
    """
    return dataclasses.field(default=default, metadata={"absent": absent})


@dataclass(frozen=True)
class NetworkConfig(ABC):
    """The sizes of a network that do not depend on its transforms."""

    family: ClassVar[str]
    """The name of its transforms in manifests."""

    channels: tuple[int, int, int] = (192, 192, 192)
    """N: channels of the features at 1/2, 1/4 and 1/8 of the image's size."""
    latent: int = 320
    """M: channels of the latents y."""
    hyper: int = 320
    """Channels of the hyper-prior's features and of z."""
    global_channels: int = 640
    """Channels of the global context."""
    slices: tuple[int, ...] = (16, 16, 32, 64, 192)
    stages: tuple[int, ...] = (4, 4, 2, 2, 2)
    channel_widths: tuple[int, ...] = (384, 256)
    parameter_widths: tuple[int, ...] = (896, 512)
    context_kernel: int = 5
    attention: int = 0
    """Side of the windows in which the channel context attends to itself; 0 for no attention."""
    contexts_see_global: bool = later(True, absent=False)
    """Whether g_cp and g_sp receive the global context, as in DKIC's equation 2."""
    context_model: str = later("space-channel", absent="space-channel")
    """The model that predicts latents: :class:`codec.entropy.space_channel.SpaceChannelModel`, or
    :class:`codec.entropy.channel_wise.ChannelWiseModel`, which uses ``channel_widths`` and one stage per slice."""
    support_slices: int = later(0, absent=0)
    """``channel-wise``: the number of first slices that later ones see; 0 for all."""
    residual_prediction: bool = later(False, absent=False)
    """``channel-wise``: whether the rounding error is predicted and added."""
    levels: int = 1
    """The number of levels that share the weights and differ by gains; 1 if each level has its own weights."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            least = 0 if field.name in ("blocks", "attention", "support_slices") else 1
            if (field.type is int or get_origin(field.type) is tuple) and not all(
                isinstance(number, int) and not isinstance(number, bool) and least <= number for number in numbers
            ):
                raise ValueError(f"{field.name} can't be {value!r}.")
            if isinstance(value, tuple) and len(value) > _MOST_PARTS:
                raise ValueError(f"{field.name} has more than {_MOST_PARTS} values.")
            most = {"stages": _MOST_PARTS, "blocks": _MOST_PARTS}.get(field.name, _WIDEST)
            if field.name.endswith(("kernel", "kernels")):
                most = _LARGEST_KERNEL
            if max((number for number in numbers if isinstance(number, int)), default=0) > most:
                raise ValueError(f"{field.name} must be at most {most}.")
            if field.type is bool and not isinstance(value, bool):
                raise ValueError(f"{field.name} must be true or false, not {value!r}.")
        if len(self.channels) != 3:
            raise ValueError("channels needs three values.")
        if self.context_kernel % 2 == 0:
            raise ValueError("Kernel sizes must be odd.")
        if self.attention > _WIDEST_WINDOW or self.attention % 2:
            raise ValueError(f"attention must be even and at most {_WIDEST_WINDOW}, not {self.attention}.")
        if self.context_model not in CONTEXT_MODELS:
            raise ValueError(f"Unknown context model {self.context_model!r}.")
        channel_wise = self.context_model == "channel-wise"
        if channel_wise and (set(self.stages) != {1} or self.global_channels % 2 or self.contexts_see_global):
            raise ValueError(
                "The channel-wise model needs one stage per slice, and an even global context "
                "without contexts_see_global."
            )
        if not channel_wise and (self.support_slices or self.residual_prediction):
            raise ValueError("support_slices and residual_prediction need the channel-wise model.")
        if sum(self.slices) != self.latent or len(self.slices) != len(self.stages):
            raise ValueError(
                f"The slices {self.slices} must add up to {self.latent} channels and match the stages {self.stages}."
            )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Self":
        """The inverse of :func:`dataclasses.asdict`, also after JSON.

        Raises:
            ValueError: a field is unknown or invalid.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := fields.keys() - known:
            raise ValueError(f"Unknown setting {', '.join(sorted(unknown))}.")
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        return cls(**values)

    @abstractmethod
    def analysis(self) -> nn.Module:
        """g_a: maps an image (B, 3, H, W), about -0.5 to 0.5, to latents (B, M, H / 16, W / 16)."""

    @abstractmethod
    def synthesis(self) -> nn.Module:
        """g_s: maps latents (B, M, h, w) and levels (B,) to an image (B, 3, 16 h, 16 w), about -0.5 to 0.5."""

    @abstractmethod
    def hyper_block(self) -> nn.Module:
        """The block after each convolution of the hyper-prior."""


class Gains(nn.Module):
    """One positive factor for each level and channel, the only difference between levels of a shared network."""

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(levels, channels))

    def forward(self, level: Tensor) -> Tensor:
        """The factors (B, channels, 1, 1) of levels (B,): int64, or floating for positions between two levels."""
        return self.logarithms(level).exp()[:, :, None, None]

    def logarithms(self, level: Tensor) -> Tensor:
        """The factors' logarithms, (B, channels)."""
        if not level.is_floating_point():
            return self.log.index_select(0, level)
        low = level.long()
        high = (low + 1).clamp_max(len(self.log) - 1)
        return torch.lerp(self.log[low], self.log[high], (level - low).to(self.log.dtype)[:, None])


class HyperAnalysis(nn.Sequential):
    """h_a: maps latents (B, M, h, w) to hyper-latents z (B, hyper, h / 4, w / 4), sizes rounded up."""

    def __init__(self, config: NetworkConfig) -> None:
        hyper = config.hyper
        super().__init__(
            nn.Conv2d(config.latent, hyper, 3, padding=1),
            config.hyper_block(),
            down(hyper, hyper, config.context_kernel),
            config.hyper_block(),
            down(hyper, hyper, config.context_kernel),
        )


class HyperSynthesis(nn.Sequential):
    """h_s: maps hyper-latents z to the global context (B, global_channels, 4 h', 4 w')."""

    def __init__(self, config: NetworkConfig) -> None:
        hyper = config.hyper
        super().__init__(
            up(hyper, hyper, config.context_kernel),
            config.hyper_block(),
            up(hyper, hyper, config.context_kernel),
            config.hyper_block(),
            nn.Conv2d(hyper, config.global_channels, 3, padding=1),
        )


class Priors(nn.Module):
    """The parts that predict probabilities in the decoder: hyper-synthesis, space-channel model, gains.

    Latents are in the network's own units, in which all levels are similar; multiplied by a level's gain, they are
    the values that are rounded. One model therefore predicts for all levels: a gain multiplies means and scales.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.hyper_synthesis = HyperSynthesis(config)
        self.space_channel = (
            ChannelWiseModel(
                config.global_channels,
                config.slices,
                config.channel_widths,
                config.context_kernel,
                config.support_slices,
                config.attention,
                config.residual_prediction,
            )
            if config.context_model == "channel-wise"
            else SpaceChannelModel(
                config.global_channels,
                config.slices,
                config.stages,
                config.channel_widths,
                config.parameter_widths,
                config.context_kernel,
                config.attention,
                config.contexts_see_global,
            )
        )
        self.gains = Gains(config.levels, config.latent)
        self.hyper_gains = Gains(config.levels, config.hyper)
        self.context_gains = Gains(config.levels, config.global_channels)

    def context(self, hyper_latents: Tensor, level: Tensor, height: int, width: int) -> Tensor:
        """The global context of latents of ``height`` and ``width``."""
        context = self.hyper_synthesis(hyper_latents)[:, :, :height, :width]
        return context * self.context_gains(level)  # type: ignore[no-any-return]

    def code(self, context: Tensor, level: Tensor, visit: Visit, refine: Refine) -> Tensor:
        """Process the latents in coding order, with a level's gains.

        Args:
            context: the global context, see :meth:`context`.
            level: (B,).
            visit: converts predictions to decoded latents; means and latents are in quantisation steps.
            refine: adds predicted residuals to decoded latents, both in quantisation steps.

        Returns:
            The decoded latents (B, M, h, w), in the network's own units.
        """
        gain = self.gains(level).flatten(2)
        shift = self.gains.logarithms(level)[:, :, None] / SCALE_STEP  # in fractional scale indices

        def visit_scaled(channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            by: Tensor = gain[:, channels]
            return visit(channels, positions, means * by, scales + shift[:, channels]) / by

        def refine_scaled(channels: slice, decoded: Tensor, lost: Tensor) -> Tensor:
            by: Tensor = gain[:, channels]
            return refine(channels, decoded * by, lost) / by

        latents: Tensor = self.space_channel(context, visit_scaled, refine_scaled)
        return latents


class Likelihoods(NamedTuple):
    """Probabilities of the coded values: the sum of minus their binary logarithms is the number of bits."""

    y: Tensor
    z: Tensor


class Output(NamedTuple):
    """The result of a forward pass."""

    x_hat: Tensor
    """(B, 3, H, W), about 0 to 1."""
    likelihoods: Likelihoods
    """In training, likelihoods of noisy latents: a differentiable approximation, which counts about 0.1 bits too many
    per latent."""
    y_hat: Tensor
    """The decoded latents, (B, M, h, w)."""
    rounded: Likelihoods
    """Likelihoods of the coded values, without gradients."""


class CompressionNetwork(nn.Module):
    """The whole network. :class:`codec.learned.LearnedCodec` uses it to write bitstreams."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.analysis = config.analysis()
        self.synthesis = config.synthesis()
        self.hyper_analysis = HyperAnalysis(config)
        self.hyper_prior = FactorizedPrior(config.hyper)
        self.priors = Priors(config)

    def latents(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The latents y and hyper-latents z, not yet rounded, of an image (B, 3, H, W) of any size, 0 to 1."""
        y = self.analysis(edge_pad(image, STRIDE) - 0.5)
        return y, self.hyper_analysis(y)

    def reconstruct(self, latents: Tensor, level: Tensor, height: int, width: int) -> Tensor:
        """The image (B, 3, height, width), about 0 to 1, of decoded latents in the network's own units."""
        image: Tensor = self.synthesis(latents, level)
        return image[:, :, :height, :width] + 0.5

    def forward(self, image: Tensor, level: Tensor | None = None) -> Output:
        """Estimate compression: with rounding in evaluation, with differentiable approximations in training.

        In training, the rate is computed with uniform noise instead of rounding, and everything else with rounded
        values and straight-through gradients (Minnen and Singh 2020).

        Args:
            image: (B, 3, H, W), 0 to 1.
            level: (B,) int64; by default the first level.
        """
        level = level if level is not None else torch.zeros(len(image), dtype=torch.int64, device=image.device)
        return self.code(*self.latents(image), level, *image.shape[2:])

    def code(self, y: Tensor, z: Tensor, level: Tensor, height: int, width: int) -> Output:
        """The second half of :meth:`forward`: from the latents and hyper-latents of :meth:`latents`.

        Gradients also pass straight through rounding in evaluation.
        """
        y, z = y.float(), z.float()
        hyper_gain = self.priors.hyper_gains(level)
        z_hat = self._round(z * hyper_gain) / hyper_gain
        z_seen = z + self._noise(z) / hyper_gain if self.training else z_hat
        with torch.autocast(y.device.type, enabled=False):  # differences of probabilities
            z_likelihood = self.hyper_prior.likelihood(z_seen, 1 / hyper_gain)
            with torch.no_grad():
                z_rounded = self.hyper_prior.likelihood(z_hat, 1 / hyper_gain) if self.training else z_likelihood

        wanted = y.flatten(2) * self.priors.gains(level).flatten(2)
        likelihoods: list[Tensor] = []
        of_rounded: list[Tensor] = []

        def visit(channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            residual = wanted[:, channels].index_select(2, positions) - means
            rounded = self._round(residual)
            seen = residual + self._noise(residual) if self.training else rounded
            likelihoods.append(_gaussian_likelihood(seen, scales).flatten(1))
            if self.training:
                with torch.no_grad():
                    of_rounded.append(_gaussian_likelihood(rounded, scales).flatten(1))
            return rounded + means

        def refine(channels: slice, decoded: Tensor, lost: Tensor) -> Tensor:
            return decoded + lost

        context = self.priors.context(z_hat, level, *y.shape[2:])
        y_hat = self.priors.code(context, level, visit, refine)
        x_hat = self.reconstruct(y_hat, level, height, width)
        seen = Likelihoods(torch.cat(likelihoods, 1), z_likelihood)
        return Output(x_hat, seen, y_hat, Likelihoods(torch.cat(of_rounded, 1), z_rounded) if of_rounded else seen)

    @staticmethod
    def _round(values: Tensor) -> Tensor:
        return values + (values.round() - values).detach()

    @staticmethod
    def _noise(values: Tensor) -> Tensor:
        return torch.rand_like(values) - 0.5


def bits_of(residual: Tensor, scale_index: Tensor) -> Tensor:
    """The bits of residuals, whole numbers if they are coded, at fractional scale indices."""
    return -_gaussian_likelihood(residual, scale_index).log2()


def _gaussian_likelihood(residual: Tensor, scale_index: Tensor) -> Tensor:
    """P(round(X) = residual) for zero-mean Gaussians X, one for each element."""
    scale = scale_of(_bound(scale_index))
    distance = residual.abs()
    lower = torch.special.ndtr((-0.5 - distance) / scale)
    inside: Tensor = torch.special.ndtr((0.5 - distance) / scale) - lower
    return inside.clamp_min(LIKELIHOOD_BOUND)


def _bound(scale_index: Tensor) -> Tensor:
    """Clamp to the table's indices, with gradients that point back inside (``clamp`` would remove them)."""
    bounded: Tensor = _Bound.apply(scale_index)
    return bounded


class _Bound(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values.clamp(0, SCALES - 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        values: Tensor = context.saved_tensors[0]
        leads_back = ((values >= 0) | (gradient < 0)) & ((values <= SCALES - 1) | (gradient > 0))
        return gradient * leads_back


def empty_network(config: NetworkConfig) -> CompressionNetwork:
    """A network without values (on torch's meta device), into which those of a file can be loaded.

    Raises:
        ValueError: it would have more than :data:`MOST_PARAMETERS`.
    """
    with torch.device("meta"):
        network = CompressionNetwork(config)
    if (count := count_parameters([network])) > MOST_PARAMETERS:
        raise ValueError(f"its network would have {count:,} parameters; the limit is {MOST_PARAMETERS:,}")
    return network


class LatentSizes(NamedTuple):
    """Height and width of the latents and of the hyper-latents."""

    latents: tuple[int, int]
    hyper_latents: tuple[int, int]

    @classmethod
    def of_image(cls, height: int, width: int) -> "LatentSizes":
        """The sizes for an image of a height and a width, rounded up."""
        h, w = -(-height // STRIDE), -(-width // STRIDE)
        return cls((h, w), (-(-h // HYPER_STRIDE), -(-w // HYPER_STRIDE)))


def count_parameters(modules: Sequence[nn.Module]) -> int:
    """The total number of parameters of the modules."""
    return sum(p.numel() for module in modules for p in module.parameters())
