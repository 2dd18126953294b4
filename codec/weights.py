"""Tensors in files, in the safetensors format, which contains only data, so that an untrusted file can't run code.

The format is simple enough to be read here with only torch, because decoders include no library for it.
"""

import itertools
import json
import math
import os
from typing import Any

import torch
from torch import Tensor

from codec.base import CodecError
from codec.files import read_file, write_file

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MOST_HEADER_BYTES = 1 << 24
_MOST_BYTES = 1 << 34
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


class WeightsError(CodecError):
    """A file of weights is missing, damaged, or not in the safetensors format."""


def write_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], notes: dict[str, str] | None = None
) -> None:
    """Write tensors in the order of their names, never in part; the same tensors give the same bytes.

    Raises:
        ImageError: the file can't be written.
    """
    write_file(path, tensors_to_bytes(tensors, notes))


def tensors_to_bytes(tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> bytes:
    """The bytes of a file of tensors."""
    header: dict[str, Any] = {"__metadata__": notes} if notes else {}
    blobs, position = [], 0
    for name, tensor in sorted(tensors.items()):
        blob = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + len(blob)],
        }
        blobs.append(blob)
        position += len(blob)
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(blobs)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the notes.

    Raises:
        WeightsError: the file is missing, unreadable or damaged, or has unsupported types.
    """
    try:
        data = read_file(path, _MOST_BYTES)
    except FileNotFoundError:
        raise WeightsError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise WeightsError(f"{path}: can't be read ({error.strerror}).") from error
    return parse_tensors(data, path)


def parse_tensors(data: bytes, path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """:func:`read_tensors` for the bytes of the file at ``path``."""
    try:
        length = int.from_bytes(data[:8], "little")
        if length > MOST_HEADER_BYTES:
            raise ValueError("header")
        header = json.loads(data[8 : 8 + length])
        notes = header.pop("__metadata__", {})
        body = memoryview(data)[8 + length :]
        places = sorted(tuple(entry["data_offsets"]) for entry in header.values())
        if any(start < stop_before for (_, stop_before), (start, _) in itertools.pairwise(places)):
            raise ValueError("tensors that overlap")
        return {name: _tensor(entry, body) for name, entry in header.items()}, notes
    except Exception as error:  # any error that damaged JSON causes
        raise WeightsError(f"{path}: is not a safetensors file, or is damaged.") from error


def _tensor(entry: dict[str, Any], body: memoryview) -> Tensor:
    dtype, shape, (start, stop) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if not 0 <= start <= stop <= len(body) or stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError("offsets")
    if start == stop:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(body[start:stop]), dtype=dtype).reshape(shape)
