"""What a worker does: reads images, and measures one image at the levels of one codec."""

import functools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from allocator.images import ImageFile
from allocator.metrics import Metric
from allocator.tables import Member, Point
from codec import Codec, CodecError, ImageError, RGBImage, pixels_sha256, read_image
from codec.remote import is_address


@dataclass(frozen=True)
class WantedLevel:
    """A level to be measured."""

    level: int
    metrics: tuple[int, ...]
    """Indices of the metrics to measure."""
    bitstream: bytes | None = None
    """Known from an earlier build: only to be decoded."""


@dataclass(frozen=True)
class Task:
    """One image at levels of one codec."""

    member: Member
    codec: int
    """Its index."""
    levels: tuple[WantedLevel, ...]

    @property
    def pixels(self) -> int:
        """Of the image."""
        return self.member.width * self.member.height

    @property
    def work(self) -> int:
        """About proportional to the time that it takes."""
        return self.pixels * len(self.levels)


_bank: tuple[Sequence[Codec], Sequence[Metric]] = ((), ())


def prepare(codecs: Sequence[Codec], metrics: Sequence[Metric]) -> None:
    """Make this process a worker: what it needs is loaded once for all that it will do."""
    global _bank
    _bank = (codecs, metrics)
    # one thread a process, so that jobs share the cores and values don't depend on their number
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def identify(file: ImageFile) -> Member:
    """What a table keeps of an image.

    Raises:
        ImageError: see :func:`codec.read_image`.
    """
    image = read_image(file.path)
    height, width = image.shape[:2]
    return Member(file.name, absolute(file.path), pixels_sha256(image), width, height)


def absolute(path: str) -> str:
    """A path as tables keep it."""
    return path if is_address(path) else str(Path(path).resolve())


def measure(task: Task) -> list[Point]:
    """One image at the wanted levels of one codec.

    Raises:
        CodecError: the image can't be read or has changed, the codec or a metric fails on it, or memory is short.
    """
    try:
        return _points(task)
    except MemoryError as error:
        raise CodecError(f"{_bank[0][task.codec].name} needs more memory for it than there is.") from error


def _points(task: Task) -> list[Point]:
    codecs, metrics = _bank
    codec = codecs[task.codec]
    image, references = _original(task.member.path, task.member.sha256)
    points = []
    start = time.perf_counter()
    encode = codec.encoder(image) if any(wanted.bitstream is None for wanted in task.levels) else None
    shared = time.perf_counter() - start
    for wanted in task.levels:
        start = time.perf_counter()
        data = wanted.bitstream
        if data is None:
            assert encode is not None
            data = encode(wanted.level)
        encoded = time.perf_counter()
        decoded = codec.decode(data)
        finished = time.perf_counter()
        if decoded.shape != image.shape:
            raise CodecError(f"{codec.name} decoded it to another size, {decoded.shape[1]}x{decoded.shape[0]}.")
        at = f"at level {codec.levels[wanted.level]} of {codec.name}"
        points.append(
            Point(
                level=wanted.level,
                setting=codec.levels[wanted.level],
                fingerprint=codec.fingerprint(wanted.level),
                bytes=len(data),
                encode_seconds=shared + encoded - start,
                decode_seconds=finished - encoded,
                decoded_sha256=pixels_sha256(decoded),
                bitstream=data,
                values=_values([(metrics[i], partial(references, i)) for i in wanted.metrics], decoded, at),
            )
        )
    return points


def _values(metrics: Sequence[tuple[Metric, Callable[[], Any]]], decoded: RGBImage, at: str) -> dict[str, float]:
    """By fingerprint the values of metrics, each given with what makes its reference."""
    values = {}
    for metric, reference in metrics:
        try:
            value = float(metric.compare(reference(), decoded))
        except Exception as error:  # of anyone's metric
            raise CodecError(f"{metric.name} fails {at} ({type(error).__name__}: {error}).") from error
        if not math.isfinite(value):
            raise CodecError(f"{metric.name} is {value} {at}, which is not a finite number.")
        values[metric.fingerprint] = value
    return values


@functools.lru_cache(maxsize=1)
def _original(path: str, sha256: str) -> tuple[RGBImage, Callable[[int], Any]]:
    """An image and its metrics' references; the last one is kept, for it is met again with the next codec."""
    image = read_image(path)
    if pixels_sha256(image) != sha256:
        raise ImageError(f"{path}: has changed during the build; start it again.")
    return image, functools.cache(lambda index: _bank[1][index].reference(image))
