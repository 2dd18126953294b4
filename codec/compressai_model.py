"""A CompressAI model of DKIC, which CompressAI's tools can train, evaluate and compare.

It needs the package. Importing this module adds ``dkic`` to CompressAI's registries, so that its scripts accept the
name.
"""

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from compressai import zoo
from compressai.models import CompressionModel
from compressai.registry import register_model
from compressai.zoo.image import model_architectures
from torch import Tensor, nn

from codec.bank import Bank
from codec.bank_builder import make_hyper_tables
from codec.configurations import find_configuration
from codec.entropy.coder import Tables
from codec.entropy.factorized import FactorizedPrior
from codec.entropy.latent_coder import LatentCoder
from codec.entropy.tables import gaussian_tables
from codec.families import from_json, to_json
from codec.network import CompressionNetwork, LatentSizes, NetworkConfig

_TAIL_MASS = 1e-9
_CONFIGURATION = "_extra_state"  # torch's name for what get_extra_state gives


class HyperBounds(nn.Module):
    """The hyper-latents' quantiles, which CompressAI's second optimizer learns with :meth:`DKICModel.aux_loss`.

    The integer tables depend only on the density, so nothing depends on the quantiles; they are CompressAI's
    convention (its ``EntropyBottleneck.quantiles``), and training scripts expect them.

    Args:
        channels: channels of the hyper-latents.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.quantiles = nn.Parameter(torch.tensor([-10.0, 0.0, 10.0]).repeat(channels, 1, 1))
        """(channels, 1, 3): the lower tail's end, the median, the upper tail's."""

    def loss(self, prior: FactorizedPrior) -> Tensor:
        """The distance of the density's logits at the quantiles from their targets."""
        fixed = copy.deepcopy(prior).requires_grad_(False)
        tail = math.log(2 / _TAIL_MASS - 1)
        wanted = self.quantiles.new_tensor([-tail, 0, tail])
        return (fixed.logits(self.quantiles) - wanted).abs().sum()


@register_model("dkic")
class DKICModel(CompressionModel):  # type: ignore[misc]
    """A wrapper of :class:`codec.network.CompressionNetwork` with CompressAI's interface.

    Args:
        configuration: a name in :data:`codec.configurations.CONFIGURATIONS`, or a configuration.
        level: the level whose gain is used.
    """

    def __init__(self, configuration: str | NetworkConfig = "reference", level: int = 0) -> None:
        super().__init__()
        config = find_configuration(configuration) if isinstance(configuration, str) else configuration
        self.network = CompressionNetwork(config)
        self.hyper_bounds = HyperBounds(config.hyper)
        self.level = level
        self._coder: LatentCoder | None = None

    @classmethod
    def from_bank(cls, folder: str | Path, level: int) -> "DKICModel":
        """The model of one level of a bank, ready to compress.

        Raises:
            BankError: there is no valid bank.
        """
        bank = Bank.load(folder)
        model = cls(bank.config, bank.levels[level].gain)
        model.network = bank.network(bank.levels[level].weights)
        model.update()
        return model.eval()  # type: ignore[no-any-return]

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> "DKICModel":
        """Create a model from a :meth:`state_dict` of any configuration.

        Raises:
            ValueError: it is not the state of such a model.
        """
        if _CONFIGURATION not in state_dict:
            raise ValueError("The checkpoint names no configuration; create the model and use load_state_dict.")
        config, level = _unpack(state_dict[_CONFIGURATION])
        model = cls(config, level)
        model.load_state_dict(state_dict)
        return model

    def forward(self, x: Tensor) -> dict[str, Any]:
        """``x_hat`` (B, 3, H, W) and ``likelihoods`` of y and z for images (B, 3, H, W), 0 to 1."""
        output = self.network(x, self._levels(x))
        return {"x_hat": output.x_hat, "likelihoods": output.likelihoods._asdict()}

    def aux_loss(self) -> Tensor:
        """The loss of only the hyper-latents' quantiles, as in CompressAI's models."""
        return self.hyper_bounds.loss(self.network.hyper_prior)

    def update(self, scale_table: Any = None, force: bool = False, update_quantiles: bool = False) -> bool:
        """Create the integer tables from the current weights.

        :meth:`compress` does this if necessary, and training or loading discards tables, so they are never outdated.

        Args:
            scale_table: not used: scales are those of :func:`codec.entropy.tables.scale_of`.
            force: replace existing tables.
            update_quantiles: not used: tables do not depend on the quantiles.

        Returns:
            Whether tables were created.
        """
        if self._coder is not None and not force:
            return False
        hyper = {gain: Tables(tables) for gain, tables in enumerate(make_hyper_tables(self.network))}
        self._coder = LatentCoder(copy.deepcopy(self.network.priors), hyper, Tables(gaussian_tables()))
        return True

    def train(self, mode: bool = True) -> "DKICModel":
        """Discard tables in training, because the weights change."""
        if mode:
            self._coder = None
        return super().train(mode)  # type: ignore[no-any-return]

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> Any:
        """Load weights and the level, and discard existing tables.

        Raises:
            ValueError: the state has another configuration.
        """
        self._coder = None
        own = self.state_dict()
        later = {key: own[key] for key in own if key == _CONFIGURATION or key.startswith("hyper_bounds.")}
        return super().load_state_dict({**later, **state_dict}, strict)  # older checkpoints lack these

    def get_extra_state(self) -> Tensor:
        """The configuration and the level as JSON in a tensor, so that checkpoints contain only tensors."""
        state = {"configuration": to_json(self.network.config), "level": self.level}
        return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Set the level, and check that the configuration matches this model."""
        config, level = _unpack(state)
        if config != self.network.config:
            raise ValueError("The checkpoint has another configuration; use DKICModel.from_state_dict.")
        self.level = level

    def _apply(self, *args: Any, **options: Any) -> Any:
        self._coder = None  # it contains a copy of the weights on the old device
        return super()._apply(*args, **options)

    def compress(self, x: Tensor) -> dict[str, Any]:
        """One string for each image of (B, 3, H, W), and the images' size."""
        strings = []
        with torch.inference_mode():
            for image in x:
                y, z = self.network.latents(image[None])
                strings.append(self._ready.encode(y, z, self.level))
        return {"strings": [strings], "shape": tuple(x.shape[2:])}

    def decompress(self, strings: list[list[bytes]], shape: tuple[int, int]) -> dict[str, Tensor]:
        """``x_hat`` (B, 3, H, W), 0 to 1, from the result of :meth:`compress`.

        Raises:
            BitstreamError: a string is damaged.
        """
        height, width = shape
        size, hyper_size = LatentSizes.of_image(height, width)
        images = []
        with torch.inference_mode():
            for string in strings[0]:
                latents, _ = self._ready.decode(string, self.level, size, hyper_size)
                images.append(self.network.reconstruct(latents.float(), self._levels(latents), height, width))
        return {"x_hat": torch.cat(images).clamp(0, 1)}

    @property
    def _ready(self) -> LatentCoder:
        if self._coder is None:
            self.update()
        assert self._coder is not None
        return self._coder

    def _levels(self, batch: Tensor) -> Tensor:
        return torch.full((len(batch),), self.level, dtype=torch.int64, device=batch.device)


def _unpack(state: Tensor) -> tuple[NetworkConfig, int]:
    """Unpack the result of :meth:`DKICModel.get_extra_state`.

    Raises:
        ValueError: it has another form.
    """
    try:
        content = json.loads(bytes(state.to(torch.uint8).tolist()))
        config, level = from_json(content["configuration"]), int(content["level"])
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError("The checkpoint's configuration can't be read.") from error
    if not 0 <= level < config.levels:
        raise ValueError(f"The checkpoint's level {level} isn't one of {config.levels}.")
    return config, level


def _of_quality(quality: int = 1, metric: str = "mse", pretrained: bool = False, **options: Any) -> DKICModel:
    """An untrained model for CompressAI's zoo; all qualities have the same size."""
    if pretrained:
        raise ValueError("CompressAI's zoo has no weights of dkic; use DKICModel.from_bank, or a checkpoint.")
    return DKICModel(**options)


for _models in (zoo.models, zoo.image_models):
    _models["dkic"] = _of_quality
model_architectures["dkic"] = DKICModel
