"""A bank as a codec: encode images to exact bitstreams, and decode them."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.bank import Bank, Level
from codec.base import BitstreamError, Codec, CodecError, RGBImage
from codec.bitstream import CELL, MAX_PIXELS, STEPS, VERSION, Stream, is_coded_size, pack, unpack
from codec.entropy.coder import Tables
from codec.entropy.latent_coder import LatentCoder
from codec.entropy.tables import TOTAL
from codec.network import CompressionNetwork, LatentSizes
from codec.tensors import to_tensor


@dataclass
class LearnedCodec(Codec):
    """The codec of a bank. Its bitstreams decode to equal latents on every machine (see :mod:`codec.entropy.exact`).

    Pixels may differ by one step between machines that round the synthesis transform differently.
    """

    bank: Bank
    name: str = field(init=False)
    suffix: str = field(init=False)
    version: str = field(init=False)
    levels: tuple[str, ...] = field(init=False)
    exact_pixels = False
    requirements = ("constriction",)

    def __post_init__(self) -> None:
        self.name, self.suffix = self.bank.name, f".{self.bank.name}"
        self.levels = tuple(level.label for level in self.bank.levels)
        self.version = f"bank {self.bank.identity[:16]}, stream {VERSION}"

    @property
    def modules(self) -> Sequence[str]:
        return (*super().modules, type(self.bank.config).__module__)

    @property
    def training_metrics(self) -> frozenset[str]:  # type: ignore[override]
        return self.bank.training_metrics

    def __getstate__(self) -> dict[str, Any]:
        of_this_machine = ("device", "_networks", "_tables")
        return {key: value for key, value in self.__dict__.items() if key not in of_this_machine}

    def prepare(self, level: int) -> None:
        self._network(self.bank.levels[level].weights)

    def encode(self, image: RGBImage, level: int) -> bytes:
        return self.encoder(image)(level)

    def encoder(self, image: RGBImage) -> Callable[[int], bytes]:
        """Levels that share weights share one analysis of the image."""
        encode = self._encoder(image)
        return lambda level: encode(level, 0)

    def between(self, level: int) -> Sequence[str]:
        """Steps between two levels that share weights, on a logarithmic scale of the gains."""
        here, above = (self.bank.levels[i : i + 1] for i in (level, level + 1))
        if not above or (here[0].weights, here[0].gain + 1) != (above[0].weights, above[0].gain):
            return ()
        return tuple(f"{self.levels[level]}+{step}/{STEPS}" for step in range(1, STEPS))

    def encoder_between(self, image: RGBImage, level: int) -> Callable[[int], bytes]:
        encode = self._encoder(image)
        return lambda index: encode(level, 1 + index)

    def _encoder(self, image: RGBImage) -> Callable[[int, int], bytes]:
        """Encode at a level plus a number of steps."""
        height, width = image.shape[:2]
        if not is_coded_size(width, height):
            raise CodecError(
                f"{self.name} can't encode {width}x{height} pixels; the limit is {MAX_PIXELS:,}, with both sides "
                f"padded to multiples of {CELL}."
            )
        pixels = to_tensor(image).to(self.device)

        @functools.cache
        def latents(weights: str) -> tuple[Tensor, Tensor]:
            with memory_named(width, height), torch.inference_mode():
                return self._network(weights)[0].latents(pixels)

        if len({level.weights for level in self.bank.levels}) == 1:
            latents(self.bank.levels[0].weights)

        def encode(level: int, step: int) -> bytes:
            y, z = latents(self.bank.levels[level].weights)
            return self.encode_latents(y, z, level, width, height, step)

        return encode

    def encode_latents(
        self, latents: Tensor, hyper_latents: Tensor, level: int, width: int, height: int, step: int = 0
    ) -> bytes:
        """The bitstream of given latents.

        Args:
            latents: (1, M, h, w), not yet rounded, in the units of :meth:`codec.network.CompressionNetwork.latents`.
            hyper_latents: (1, C, h', w'), likewise.
            level: the level whose gain is used for rounding.
            width: the image's width.
            height: the image's height.
            step: the step towards the next level, below :data:`codec.bitstream.STEPS`.
        """
        setting = self.bank.levels[level]
        _, coder = self._network(setting.weights)
        with memory_named(width, height):
            payload = coder.encode(latents, hyper_latents, setting.gain + step / STEPS)
        return pack(Stream(self._mark, level, step, width, height, payload))

    def decode(self, data: bytes) -> RGBImage:
        stream = unpack(data)
        latents, _ = self._latents(stream)
        setting, gain = self._setting(stream)
        network, _ = self._network(setting.weights)
        with memory_named(stream.width, stream.height), torch.inference_mode():
            level = torch.tensor([gain], device=latents.device)
            image = network.reconstruct(latents.float(), level, stream.height, stream.width)
            bytes_ = (image[0].clamp(0, 1) * 255).round().to(torch.uint8)
        return np.ascontiguousarray(bytes_.movedim(0, 2).cpu().numpy())

    def decode_latents(self, data: bytes) -> Tensor:
        """The latents that every machine decodes equally: int64 (M, h * w), in 1/256 of a quantisation step.

        Raises:
            BitstreamError: see :meth:`decode`.
        """
        return self._latents(unpack(data))[1]

    def _latents(self, stream: Stream) -> tuple[Tensor, Tensor]:
        if stream.bank != self._mark:
            raise BitstreamError(
                f"was encoded with the bank {stream.bank:04x}, but {self.name} is the bank {self._mark:04x}."
            )
        setting, gain = self._setting(stream)
        size, hyper_size = LatentSizes.of_image(stream.height, stream.width)
        _network, coder = self._network(setting.weights)
        tables = coder.hyper_tables[int(gain)]
        least = sum(math.log2(TOTAL / max(t.frequencies)) for t in tables.tables) * math.prod(hyper_size)
        if 8 * len(stream.payload) + 64 < least:
            raise BitstreamError(f"is too short for its {stream.width}x{stream.height} pixels.")
        with memory_named(stream.width, stream.height):
            return coder.decode(stream.payload, gain, size, hyper_size)

    def _setting(self, stream: Stream) -> tuple[Level, float]:
        """The level of a bitstream, and its gain, which may be between those of two levels."""
        if stream.level >= len(self.levels) or stream.step > len(self.between(stream.level)):
            raise BitstreamError(f"has a level that {self.name} does not have.")
        setting = self.bank.levels[stream.level]
        return setting, setting.gain + stream.step / STEPS

    @property
    def shares_cores(self) -> bool:
        return self.device.type == "cpu"

    def decode_memory(self, data: bytes) -> int:
        """Twelve times the memory of the widest features, at half of the image's size."""
        stream = unpack(data)
        return (256 << 20) + 12 * self.bank.config.channels[0] * stream.width * stream.height

    @property
    def _mark(self) -> int:
        return int(self.bank.identity[:4], 16)

    @functools.cached_property
    def device(self) -> torch.device:
        """The device of the networks: a GPU if there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @functools.cached_property
    def _networks(self) -> dict[str, tuple[CompressionNetwork, LatentCoder]]:
        return {}

    def _network(self, weights: str) -> tuple[CompressionNetwork, LatentCoder]:
        if weights not in self._networks:
            network = self.bank.network(weights).to(self.device)
            for transform in (network.analysis, network.synthesis):
                transform.to(memory_format=torch.channels_last)  # the fastest layout for convolutions
            hyper, latent = self._tables
            by_gain = {level.gain: hyper[i] for i, level in enumerate(self.bank.levels) if level.weights == weights}
            self._networks[weights] = network, LatentCoder(network.priors, by_gain, latent)
        return self._networks[weights]

    @functools.cached_property
    def _tables(self) -> tuple[list[Tables], Tables]:
        hyper, latent = self.bank.tables()
        return [Tables(tables) for tables in hyper], Tables(latent)


def packed_bank(folder: Path, *, bank: str) -> LearnedCodec:
    """The codec of a bank in a decoder's folder."""
    return LearnedCodec(Bank.load(folder / bank))


class memory_named:
    """Converts out-of-memory errors from PyTorch into a CodecError."""

    def __init__(self, width: int, height: int) -> None:
        self.size = f"{width}x{height}"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "can't allocate memory" in str(error):
            raise CodecError(f"{self.size} pixels need more memory than is available.") from error
