"""The networks here as a CompressAI model, evaluated and compared by CompressAI's own tools. Needs the package."""

import copy
from pathlib import Path
from typing import Any

import torch
from compressai.models import CompressionModel
from compressai.registry import register_model
from torch import Tensor

from codec.bank import Bank, make_hyper_tables
from codec.configurations import find_configuration
from codec.entropy.coder import Tables
from codec.entropy.latent_coder import LatentCoder
from codec.entropy.tables import gaussian_tables
from codec.network import CompressionNetwork, LatentSizes, NetworkConfig


@register_model("dkic")
class DKICModel(CompressionModel):  # type: ignore[misc]
    """A thin shell around :class:`codec.network.CompressionNetwork` with CompressAI's conventions.

    Args:
        configuration: a name in :data:`codec.configurations.CONFIGURATIONS`, or a whole configuration.
        level: which gain is used.
    """

    def __init__(self, configuration: str | NetworkConfig = "reference", level: int = 0) -> None:
        super().__init__()
        config = find_configuration(configuration) if isinstance(configuration, str) else configuration
        self.network = CompressionNetwork(config)
        self.level = level
        self._coder: LatentCoder | None = None

    @classmethod
    def from_bank(cls, folder: str | Path, level: int) -> "DKICModel":
        """The model of one level of a bank, ready to compress.

        Raises:
            BankError: there is no sound bank.
        """
        bank = Bank.load(folder)
        model = cls(bank.config, bank.levels[level].gain)
        model.network = bank.network(bank.levels[level].weights)
        model.update()
        return model.eval()  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> dict[str, Any]:
        """``x_hat`` (B, 3, H, W) and ``likelihoods`` of y and z for images (B, 3, H, W), 0 to 1."""
        output = self.network(x, self._levels(x))
        return {"x_hat": output.x_hat, "likelihoods": output.likelihoods._asdict()}

    def update(self, *args: Any, **options: Any) -> bool:
        """Make the integer tables from the weights as they are now; needed before :meth:`compress`."""
        hyper = {gain: Tables(tables) for gain, tables in enumerate(make_hyper_tables(self.network))}
        self._coder = LatentCoder(copy.deepcopy(self.network.priors), hyper, Tables(gaussian_tables()))
        return True

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Load weights; tables made before no longer hold."""
        self._coder = None
        return super().load_state_dict(*args, **options)

    def _apply(self, *args: Any, **options: Any) -> Any:
        self._coder = None  # it has a copy of the weights on the old device
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
        """``x_hat`` (B, 3, H, W), 0 to 1, of what :meth:`compress` gave.

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
