"""The dynamic kernel in C, compiled if there is a compiler: four times as fast, forward and backward."""

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.layers.dynamic_kernel import training_kernels

_SOURCE = Path(__file__).with_name("dynamic_kernel.c")
_TYPES = {torch.float32: "float", torch.float64: "double"}


class _Shape(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ssize_t) for name in ("height", "width", "groups", "side"))


@functools.cache
def load_library(channels: int, dtype: torch.dtype) -> ctypes.CDLL | None:
    """Compile the kernel for groups of this number of channels; None if that is not possible."""
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or dtype not in _TYPES:
        return None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # a loaded library may stay open
        library = Path(folder, "dynamic_kernel.so")
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        options = [
            "-O3",
            *(["-march=native", "-mprefer-vector-width=512"] if x86 else ["-mcpu=native"]),
            # sums in any order; not -ffast-math, by which loading the library changes how the whole process rounds
            "-fassociative-math",
            "-freciprocal-math",
            "-fno-signed-zeros",
            "-fno-trapping-math",
            "-fno-math-errno",
            "-shared",
            "-fPIC",
        ]
        defines = [f"-DCHANNELS={channels}", f"-DREAL={_TYPES[dtype]}"]
        try:
            command = [compiler, *options, *defines, str(_SOURCE), "-o", str(library), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.SubprocessError):
            return None


def compiled_kernel(features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor | None:
    """:func:`codec.layers.dynamic_kernel.dynamic_kernel`, or None if the library is unavailable."""
    if features.device.type != "cpu":
        return None
    if load_library(features.shape[1] // modulation.shape[1], features.dtype) is None:
        return None
    return _CompiledKernel.apply(features, offsets, modulation)  # type: ignore[no-any-return]


def install() -> None:
    """Let the dynamic kernel use the library whenever gradients are needed."""
    if compiled_kernel not in training_kernels:
        training_kernels.append(compiled_kernel)


class _CompiledKernel(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor:
        inputs = [_channels_last(part) for part in (features, offsets, modulation)]
        context.save_for_backward(*inputs)
        context.groups = modulation.shape[1]
        out = torch.empty_like(inputs[0])
        _run("forward", [*inputs, out], context.groups)
        return out.movedim(-1, 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, offsets, modulation = context.saved_tensors
        found = [torch.zeros_like(features), torch.empty_like(offsets), torch.empty_like(modulation)]
        gradient = _channels_last(gradient.to(features.dtype))
        _run("backward", [features, offsets, modulation, gradient, *found], context.groups)
        to_features, to_offsets, to_modulation = found
        return to_features.movedim(-1, 1), _channels_first(to_offsets), _channels_first(to_modulation)


def _channels_last(values: Tensor) -> Tensor:
    """(B, ..., H, W) to dense (B, H, W, ...): no copy where features are in that order in memory."""
    return values.movedim((-2, -1), (1, 2)).contiguous()


def _channels_first(values: Tensor) -> Tensor:
    return values.movedim((1, 2), (-2, -1))


def _run(function: str, arrays: list[Tensor], groups: int) -> None:
    features, _, modulation = arrays[:3]
    batch, height, width, channels = features.shape
    library = load_library(channels // groups, features.dtype)
    assert library is not None
    shape = _Shape(height, width, groups, round(modulation.shape[-1] ** 0.5))
    call: Callable[..., None] = getattr(library, function)
    pointers = [ctypes.c_void_p(array.data_ptr()) for array in arrays]

    def run(begin: int, end: int) -> None:
        call(*pointers, shape, ctypes.c_ssize_t(begin), ctypes.c_ssize_t(end))

    units, threads = batch * groups, torch.get_num_threads()
    if threads == 1:
        run(0, units)
        return
    borders = [units * i // threads for i in range(threads + 1)]
    list(_threads(threads).map(run, borders, borders[1:]))


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)
