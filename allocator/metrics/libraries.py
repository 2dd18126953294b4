"""Metrics of optional packages: ColorVideoVDP, and all of ``piq`` and ``pyiqa`` by name."""

import contextlib
import io
import warnings
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from allocator.metrics.base import Metric, MetricError, mirror_to
from codec import RGBImage

_PIQ = {
    "dss": True,
    "fsim": True,
    "gmsd": False,
    "haarpsi": True,
    "information_weighted_ssim": True,
    "mdsi": False,
    "multi_scale_gmsd": False,
    "srsim": True,
    "vif_p": True,
    "vsi": True,
}
"""piq's full-reference functions that need no download, and whether higher is better."""
_LEAST_SIDE = 176
"""The minimum side, which is enough for metrics with five scales."""


def of_library(library: str, name: str) -> Metric:
    """The metric of ``piq`` or ``pyiqa`` with the name ``name``.

    Raises:
        MetricError: the library is not installed or has no full-reference metric of that name, or its weights are
            unavailable.
    """
    return PIQ(name) if library == "piq" else PyIQA(name)


def _import(module: str, extra: str) -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        raise MetricError(
            f'The package {module} can\'t be imported ({error}); `pip install "clic-allocator[{extra}]"` installs it.'
        ) from error


def _tensor(image: RGBImage) -> Tensor:
    """Convert to (1, 3, H, W), 0 to 1; an image under 176 pixels per side is extended to that size by mirroring."""
    return torch.from_numpy(mirror_to(image, _LEAST_SIDE).transpose(2, 0, 1).copy())[None].float() / 255


class ColorVideoVDP(Metric):
    """ColorVideoVDP (Mantiuk et al. 2024): just-objectionable differences, from 10 (equal) down to below 0.

    It is a model of early vision, not a trained network: contrast sensitivity and masking by frequency and colour,
    for the package's standard 4K display at its standard distance.

    Raises:
        MetricError: the package ``cvvdp`` is not installed.
    """

    name = "cvvdp"
    higher_is_better = True
    display = "standard_4k"

    def __init__(self) -> None:
        _import("pycvvdp", "cvvdp")
        self.version = f"cvvdp {version('cvvdp')}, {self.display}"

    @cached_property
    def model(self) -> Any:
        """The metric object of the package."""
        module = _import("pycvvdp", "cvvdp")
        with contextlib.redirect_stdout(io.StringIO()):
            return module.cvvdp(display_name=self.display, device=torch.device("cpu"), quiet=True)

    def compare(self, reference: RGBImage, decoded: RGBImage) -> float:
        pair = [mirror_to(image, 16) for image in (decoded, reference)]
        with torch.inference_mode():
            return float(self.model.predict(*pair, dim_order="HWC")[0])

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "model"}


class PIQ(Metric):
    """A full-reference metric of ``piq`` that needs no weights: ``piq:vif_p``.

    Raises:
        MetricError: see :func:`of_library`.
    """

    def __init__(self, function: str) -> None:
        _import("piq", "piq")
        if function not in _PIQ:
            raise MetricError(
                f"piq has no metric {function!r} that compares images without a download; use {', '.join(_PIQ)}."
            )
        self.name = f"piq:{function}"
        self.function = function
        self.version = f"piq {version('piq')}"
        self.higher_is_better = _PIQ[function]

    def compare(self, reference: RGBImage, decoded: RGBImage) -> float:
        measure = getattr(_import("piq", "piq"), self.function)
        with torch.inference_mode():
            return float(measure(_tensor(decoded), _tensor(reference), data_range=1.0))


class PyIQA(Metric):
    """A full-reference metric of ``pyiqa``, which may download weights when it is first used: ``pyiqa:topiq_fr``.

    Raises:
        MetricError: see :func:`of_library`.
    """

    def __init__(self, model: str) -> None:
        pyiqa = _import("pyiqa", "pyiqa")
        known = pyiqa.list_models(metric_mode="FR")
        if model not in known:
            raise MetricError(f"pyiqa has no full-reference metric {model!r}; use {', '.join(known)}.")
        self.name = f"pyiqa:{model}"
        self.metric = model
        self.version = f"pyiqa {version('pyiqa')}"
        self.higher_is_better = not self.model.lower_better

    @cached_property
    def model(self) -> Any:
        """The metric object of the package."""
        try:
            return _import("pyiqa", "pyiqa").create_metric(self.metric, device="cpu")
        except Exception as error:  # for example from a download
            raise MetricError(f"pyiqa:{self.metric} is unavailable ({type(error).__name__}: {error}).") from error

    def compare(self, reference: RGBImage, decoded: RGBImage) -> float:
        with torch.inference_mode():
            return float(self.model(_tensor(decoded), _tensor(reference)))

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "model"}
