"""Other people's models in CompressAI's conventions as codecs: its zoo's, or any class with checkpoints.

``compressai:ARCHITECTURE`` has the zoo's pretrained qualities as levels, ``compressai:ARCHITECTURE@FILE,FILE,...``
has checkpoints, fewest bytes first, and ``module:PACKAGE.CLASS@FILE,FILE,...`` takes the class from any package.

Such models decode what the same machine and versions encoded; they don't promise it between machines, as this
project's own networks do (:mod:`codec.entropy.exact`).
"""

import hashlib
import importlib
import json
import re
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.base import BitstreamError, Codec, CodecError, RGBImage
from codec.bitstream import MAX_PIXELS, read_varint, varint
from codec.tensors import edge_pad, to_tensor

_PADDED_TO = 64
"""Sides are padded to multiples of it, as by CompressAI's own evaluation; every model of its zoo takes that."""
_DEEPEST = 4
Strings = bytes | list["Strings"]


class ModelError(CodecError):
    """A model or its weights can't be had, or don't fit each other."""


@dataclass
class CompressAICodec(Codec):
    """The codec of a name as above.

    Raises:
        ModelError: the package, the class or a file is missing.
    """

    name: str
    suffix: str = field(init=False)
    version: str = field(init=False)
    levels: tuple[str, ...] = field(init=False)
    exact_pixels = False

    def __post_init__(self) -> None:
        kind, _, rest = self.name.partition(":")
        what, _, files = rest.partition("@")
        self.model_class = _zoo_class(what) if kind == "compressai" else _class_of(what)
        self.files = [Path(file) for file in files.split(",") if file]
        self.urls: list[str] = []
        if not self.files:
            if kind != "compressai":
                raise ModelError(
                    f"{self.name}: name checkpoints behind an @, fewest bytes first, with commas between."
                )
            self.urls = _zoo_urls(what)
            self.training_metrics = frozenset({"psnr"})  # the zoo's models for MSE
        self.levels = tuple(f"q{i + 1}" for i in range(len(self.files or self.urls)))
        self.version = f"compressai {_version()}, " + " ".join(_digest(file) for file in self.files)
        self.version += " ".join(re.findall(r"-([0-9a-f]{8})\.", " ".join(self.urls)))
        self._mark = hashlib.sha256(f"{self.name} {self.version}".encode()).digest()[:2]
        self.suffix = "." + re.sub(r"[^\w+-]+", "-", f"{kind}-{what}-{self._mark.hex()}")
        self._models: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": {}}

    def encode(self, image: RGBImage, level: int) -> bytes:
        height, width = image.shape[:2]
        model = self.network(level)
        try:
            with torch.inference_mode():
                coded = model.compress(edge_pad(to_tensor(image), _PADDED_TO).contiguous())
            shape = json.dumps(coded["shape"], separators=(",", ":")).encode()
            body = self._mark + bytes([level]) + b"".join(map(varint, (width - 1, height - 1, len(shape))))
            body += shape + _packed(coded["strings"])
        except Exception as error:  # of anyone's model
            raise CodecError(f"{self.name} can't encode {width}x{height} pixels ({_said(error)}).") from error
        return zlib.crc32(body).to_bytes(4, "big") + body

    def decode(self, data: bytes) -> RGBImage:
        body = data[4:]
        if len(body) < 4 or zlib.crc32(body).to_bytes(4, "big") != data[:4]:
            raise BitstreamError("is damaged or truncated (its checksum doesn't fit).")
        if body[:2] != self._mark or body[2] >= len(self.levels):
            raise BitstreamError(f"is of another model than {self.name}, or of other weights.")
        try:
            width, position = read_varint(body, 3)
            height, position = read_varint(body, position)
            length, position = read_varint(body, position)
            width, height = width + 1, height + 1
            shape = json.loads(body[position : position + length])
            strings, _ = _unpacked(body, position + length, _DEEPEST)
            if width * height > MAX_PIXELS or not _is_shape(shape, max(width, height) + _PADDED_TO):
                raise ValueError("sizes")
        except (IndexError, ValueError, RecursionError) as error:
            raise BitstreamError("is no stream of such a model.") from error
        model = self.network(body[2])
        try:
            with torch.inference_mode():
                decoded: Tensor = model.decompress(strings, shape)["x_hat"]
            pixels = (decoded[0, :, :height, :width].clamp(0, 1) * 255).round().to(torch.uint8)
            return np.ascontiguousarray(pixels.movedim(0, 2).cpu().numpy())
        except Exception as error:  # of anyone's model
            raise BitstreamError(f"isn't decoded by {self.name} ({_said(error)}).") from error

    def network(self, level: int) -> Any:
        """The model of a level.

        Raises:
            ModelError: its weights can't be had, or don't fit.
        """
        if level not in self._models:
            state = read_state(self.files[level]) if self.files else _download(self.urls[level], self.name)
            if self.name.startswith("compressai:"):
                state = _with_todays_names(state)
            self._models[level] = _with_weights(self.model_class, state, self.name)
        return self._models[level]


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, read without running code.

    Raises:
        ModelError: it can't be read, or holds more than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model", "network"):
            content = content.get(key, content) if isinstance(content.get(key), dict) else content
        return {name.removeprefix("module."): tensor for name, tensor in content.items() if torch.is_tensor(tensor)}
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such checkpoint.") from None
    except Exception as error:  # of torch, about damaged files or such as hold code
        raise ModelError(f"{path}: is no checkpoint that can be read without running its code.") from error


def _with_todays_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Checkpoints of the zoo are older than its code."""
    from compressai.zoo.pretrained import load_pretrained

    renamed: dict[str, Tensor] = load_pretrained(state)
    return renamed


def _with_weights(model: Any, state: dict[str, Tensor], name: str) -> Any:
    try:
        if hasattr(model, "from_state_dict"):
            made = model.from_state_dict(state)
        else:
            made = model()
            made.load_state_dict(state)
        made.update()
        return made.eval()
    except Exception as error:  # of anyone's model
        raise ModelError(f"{name}: its weights don't fit it ({_said(error)}).") from error


def _download(url: str, name: str) -> dict[str, Tensor]:
    from torch.hub import load_state_dict_from_url

    try:
        state: dict[str, Tensor] = load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
        return state
    except Exception as error:  # of sockets, of torch, about damaged files
        raise ModelError(
            f"{name}: its weights can't be downloaded ({_said(error)}); fetch {url} and the other qualities "
            f"elsewhere and name the files: {name}@FILE,FILE."
        ) from error


def _zoo_urls(architecture: str) -> list[str]:
    from compressai.zoo.image import model_urls

    by_quality = model_urls.get(architecture, {}).get("mse")
    if not by_quality:
        raise ModelError(f"CompressAI's zoo has no weights of {architecture}; name checkpoints behind an @.")
    return [by_quality[quality] for quality in sorted(by_quality)]


def _zoo_class(architecture: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from compressai.registry import MODELS
            from compressai.zoo.image import model_architectures
    except ImportError:
        raise ModelError(
            f"compressai:{architecture} needs the package compressai; pip install 'clic-allocator[compressai]' into "
            "an environment of its own."
        ) from None
    known = {**MODELS, **model_architectures}
    if architecture not in known:
        raise ModelError(f"CompressAI has no {architecture!r}; it has {', '.join(sorted(known))}.")
    return known[architecture]


def _class_of(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # of a stranger's package
        raise ModelError(f"module:{path}: can't be imported ({_said(error)}).") from error


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("compressai")
    except PackageNotFoundError:
        return "none"


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:8]
    except OSError as error:
        raise ModelError(f"{file}: can't be read as a checkpoint ({error.strerror}).") from error


def _packed(strings: Strings) -> bytes:
    if isinstance(strings, bytes):
        return varint(2 * len(strings) + 1) + strings
    return varint(2 * len(strings)) + b"".join(map(_packed, strings))


def _unpacked(data: bytes, position: int, deepest: int) -> tuple[Strings, int]:
    head, position = read_varint(data, position)
    count = head >> 1
    if head & 1:
        if position + count > len(data):
            raise ValueError("a string's end")
        return data[position : position + count], position + count
    if not deepest or count > len(data):
        raise ValueError("too many lists")
    items: list[Strings] = []
    for _ in range(count):
        item, position = _unpacked(data, position, deepest - 1)
        items.append(item)
    return items, position


def _is_shape(shape: Any, most: int) -> bool:
    """Whether it is made of sizes only, in lists or by names."""
    if isinstance(shape, dict | list):
        return all(_is_shape(one, most) for one in (shape.values() if isinstance(shape, dict) else shape))
    return isinstance(shape, int) and 0 <= shape <= most


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(".: ")
