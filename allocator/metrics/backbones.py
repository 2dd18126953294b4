"""Networks trained on ImageNet whose features metrics compare, and the search for their weights."""

import functools
import hashlib
import math
import os
import pickle
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from allocator.metrics.base import MetricError
from codec.weights import WeightsError, read_tensors

WEIGHTS_VARIABLE = "ALLOCATOR_METRIC_WEIGHTS"
"""Environment variable: files or folders with the weights of metrics, separated as in ``PATH``."""
SHIPPED = Path(__file__).parent / "weights"
SUFFIXES = (".safetensors", ".pth", ".pt")

StateDict = dict[str, Tensor]


class Net(NamedTuple):
    """A backbone."""

    torchvision: str
    """The model's name in torchvision."""
    strides: tuple[int, ...]
    """The stride in pixels of each layer that LPIPS compares."""


NETS = {
    "alex": Net("alexnet", (4, 8, 16, 16, 16)),
    "squeeze": Net("squeezenet1_1", (2, 4, 8, 16, 16, 16, 16)),
    "vgg": Net("vgg16", (1, 2, 4, 8, 16)),
}
_DOWNLOAD_SECONDS = 15.0


def find_backbone(net: str) -> StateDict:
    """The float32 weights of a backbone's convolutions, by torchvision's names (``features.0.weight``).

    They are read from a given file or folder (:data:`WEIGHTS_VARIABLE`), from this package (AlexNet), or from torch's
    cache; otherwise they are downloaded into that cache.

    Args:
        net: a key of :data:`NETS`.

    Raises:
        MetricError: a given file is unreadable or contains no weights of a metric, or the weights are unavailable.
    """
    if (given := find_given(NETS[net].torchvision, lambda tensors: _fits(net, tensors))) is not None:
        return given
    shipped = SHIPPED / f"{NETS[net].torchvision}.safetensors"
    path = shipped if shipped.exists() else _fetch(net)
    weights = read_weights(path)
    if not _fits(net, weights):
        raise MetricError(f"{path}: does not contain the weights of {NETS[net].torchvision}; delete it.")
    return weights


def find_given(name: str, fits: Callable[[StateDict], bool]) -> StateDict | None:
    """The first matching weights in the files and folders that :data:`WEIGHTS_VARIABLE` names.

    Args:
        name: the prefix of a file's name in a folder; files that are named directly may have any name.
        fits: returns whether tensors match.

    Raises:
        MetricError: a file is missing or damaged, or a file that is named directly contains no weights of any metric.
    """
    for path in map(Path, filter(None, os.environ.get(WEIGHTS_VARIABLE, "").split(os.pathsep))):
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.glob(f"{name}*") if file.suffix in SUFFIXES)
        for file in files:
            weights = read_weights(file)
            if fits(weights):
                return weights
            if path.is_dir() or not _known(weights):
                models = ", ".join([net.torchvision for net in NETS.values()])
                raise MetricError(
                    f"{file}: contains no weights of {name if path.is_dir() else f'{models} or dists'}."
                )
    return None


def _known(weights: StateDict) -> bool:
    return weights.keys() == {"alpha", "beta"} or any(_fits(net, weights) for net in NETS)


def _fetch(net: str) -> Path:
    """The file in torch's cache, downloaded if it is missing."""
    from torchvision.models import get_model_weights

    url = get_model_weights(NETS[net].torchvision)["IMAGENET1K_V1"].url
    cached = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not cached.exists():
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_DOWNLOAD_SECONDS)
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(cached), cached.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            given = os.environ.get(WEIGHTS_VARIABLE)
            among = f", not among those given ({given})" if given else ""
            raise MetricError(
                f"The weights {cached.name} are not in {cached.parent}{among}, and can't be downloaded ({error}). "
                f"Download {url} elsewhere and set {WEIGHTS_VARIABLE} to the file or its folder, "
                "or use a metric that needs no download: lpips, ms-ssim, psnr.",
                hint={"metric_weights": "PATH"},
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)
    return cached


def read_weights(path: Path) -> StateDict:
    """Read the tensors of a safetensors file or a torch checkpoint as float32, without running code.

    Only the ``features`` of a torchvision checkpoint are kept.

    Raises:
        MetricError: the file is missing, unreadable, or of another kind.
    """
    try:
        if path.suffix == ".safetensors":
            tensors = read_tensors(path)[0]
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {key: value.float() for key, value in tensors.items() if not key.startswith("classifier.")}
    except FileNotFoundError:
        raise MetricError(f"{path}: there is no such file of weights.") from None
    except WeightsError as error:
        raise MetricError(str(error)) from error
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        AttributeError,
        KeyError,
        pickle.UnpicklingError,
    ) as error:
        raise MetricError(f"{path}: is not a file of weights, or is damaged.") from error


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and values, in the order of names: 64 hex digits, equal for every kind of file."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def make_features(net: str) -> nn.Sequential:
    """The convolutions of a torchvision backbone, without values (on the device ``meta``)."""
    from torchvision import models

    with torch.device("meta"):
        features: nn.Sequential = getattr(models, NETS[net].torchvision)(weights=None).features
    return features


@functools.cache
def _shapes(net: str) -> dict[str, torch.Size]:
    return {f"features.{key}": value.shape for key, value in make_features(net).state_dict().items()}


def _fits(net: str, weights: StateDict) -> bool:
    return all(
        (value := weights.get(key)) is not None and value.shape == shape and math.isfinite(float(value.sum()))
        for key, shape in _shapes(net).items()
    )
