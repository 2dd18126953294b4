"""How ``lpips-lite`` learns: from pairs of a photo and what a codec makes of it, judged by LPIPS with SqueezeNet.

Every crop of a photo meets three neighbouring levels of every codec, and mild blurs, noises and shifts. What LPIPS
says of each place of such a pair, not only its mean, is what the small network learns to say.
"""

import io
import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from allocator.errors import AllocatorError
from allocator.metrics.lite import STRIDES, LiteNet, LPIPSLite
from allocator.metrics.lpips import LPIPS
from codec import Codec, CodecError, RGBImage, pixels_sha256
from codec.files import write_file
from codec.training.data import Photos
from codec.training.muon import Muon, mixes_channels
from codec.training.recipe import Stage
from codec.training.schedule import learning_rate, move_average
from codec.weights import write_tensors

STATE, WEIGHTS, PAIRS = "state.pt", "lpips-lite.safetensors", "pairs"
CODECS = ("avif", "hevc", "jpeg", "jxl", "po-dkic", "webp")
"""What the weights that ship have learnt from."""
NEIGHBOURS = 3
"""Levels of each codec that a crop meets, one after the other: their order is learnt, too."""


@dataclass(frozen=True)
class Distillation:
    """Every number of a run."""

    crop: int = 256
    crops_per_photo: int = 4
    half_size_over: int = 1200
    crops_per_step: int = 2
    steps: int = 6000
    learning_rate: float = 2e-3
    final_learning_rate: float = 2e-5
    warmup: int = 100
    order: float = 2.0
    """Weight of the differences between neighbouring levels, beside maps and means."""
    average: float = 0.998
    calibration_photos: int = 16
    seed: int = 0

    @property
    def stage(self) -> Stage:
        """How the learning rate goes."""
        return Stage(
            steps=self.steps,
            learning_rate=self.learning_rate,
            final_learning_rate=self.final_learning_rate,
            schedule="cosine",
            warmup=self.warmup,
        )


class Pairs(NamedTuple):
    """A crop and what it became."""

    original: RGBImage
    distorted: NDArray[np.uint8]
    """(N, crop, crop, 3)"""
    maps: NDArray[np.float32]
    """LPIPS at each position of the coarsest layer, (N, crop / 16, crop / 16)."""
    levels: list[str]
    """``CODEC LEVEL``, or the name of another distortion."""


def other_distortions(image: RGBImage, random: np.random.Generator) -> Iterator[tuple[str, RGBImage]]:
    """Mild blurs, noises and shifts of an image."""
    pixels = torch.from_numpy(image).movedim(2, 0)[None].float()
    for strength in (0.5, 1.0):
        sigma = strength * random.uniform(0.8, 1.6)
        taps = torch.exp(-0.5 * (torch.arange(-4, 5) / sigma) ** 2)
        taps = (taps / taps.sum()).expand(3, 1, 1, 9)
        blurred = functional.conv2d(functional.pad(pixels, (4, 4, 4, 4), mode="replicate"), taps, groups=3)
        blurred = functional.conv2d(blurred, taps.movedim(3, 2), groups=3)
        yield "blur", blurred[0].movedim(0, 2).round().clamp(0, 255).to(torch.uint8).numpy()
    for strength in (4.0, 10.0):
        noise = random.normal(0, strength * random.uniform(0.5, 1.5), image.shape)
        yield "noise", np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    for axis in (0, 1):
        yield "shift", np.concatenate([image.take([0], axis), image.take(range(image.shape[axis] - 1), axis)], axis)


def make_pairs(
    photo: RGBImage, codecs: Sequence[Codec], teacher: LPIPS, settings: Distillation, seed: int
) -> Iterator[Pairs]:
    """The pairs of one photo's crops."""
    random = np.random.default_rng((settings.seed, seed))
    for _ in range(settings.crops_per_photo):
        image = photo
        halvable = max(photo.shape[:2]) > settings.half_size_over and min(photo.shape[:2]) // 2 >= settings.crop
        if halvable and random.random() < 0.5:
            image = np.asarray(Image.fromarray(photo).reduce(2))
        top, left = (random.integers(side - settings.crop + 1) for side in image.shape[:2])
        crop = np.ascontiguousarray(image[top : top + settings.crop, left : left + settings.crop])
        distorted, levels = [], []
        for codec in codecs:
            first = int(random.integers(max(1, len(codec.levels) - NEIGHBOURS + 1)))
            encode = codec.encoder(crop)
            for level in range(first, min(first + NEIGHBOURS, len(codec.levels))):
                distorted.append(codec.decode(encode(level)))
                levels.append(f"{codec.name} {level}")
        for name, other in other_distortions(crop, random):
            distorted.append(other)
            levels.append(name)
        yield Pairs(crop, np.stack(distorted), _judged(teacher, crop, distorted), levels)


@torch.no_grad()
def _judged(teacher: LPIPS, original: RGBImage, distorted: Sequence[RGBImage]) -> NDArray[np.float32]:
    reference = teacher.reference(original)
    maps = []
    for one in distorted:
        whole = torch.from_numpy(teacher.map(reference, one))[None, None]
        pooled = functional.avg_pool2d(whole, STRIDES[-1])[0, 0]
        # the mean of the map, whose layers were enlarged, is made that of LPIPS itself
        maps.append((pooled * (teacher.compare(reference, one) / max(float(pooled.mean()), 1e-9))).numpy())
    return np.stack(maps)


def make_optimizers(network: LiteNet) -> list[torch.optim.Optimizer]:
    """Muon for what mixes channels, Adam for the rest."""
    matrices, others = list[Tensor](), list[Tensor]()
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            (matrices if mixes_channels(module, parameter) else others).append(parameter)
    return [Muon(matrices), torch.optim.Adam(others)]


def distance_maps(network: LiteNet, original: NDArray[np.uint8], distorted: NDArray[np.uint8]) -> Tensor:
    """What a network says of each place, (N, H / 16, W / 16), with features in bfloat16.

    Args:
        network: that says it.
        original: (H, W, 3).
        distorted: (N, H, W, 3).
    """
    images = torch.from_numpy(np.concatenate([original[None], distorted])).movedim(3, 1).float() / 127.5 - 1
    with torch.autocast("cpu", torch.bfloat16):
        features = network(images.contiguous(memory_format=torch.channels_last))
    features = [layer.float() for layer in features]
    return network.distance_map([layer[:1] for layer in features], [layer[1:] for layer in features])


class Run:
    """One distillation in one folder: pairs are made once and kept, and training goes on where it stopped.

    Args:
        photos: the folder of training images.
        folder: of the run.
        codecs: whose levels are learnt.
        teacher: that is reproduced.
        settings: all numbers.

    Raises:
        CodecError: there are no photos.
        AllocatorError: the folder holds a run with other settings, codecs or photos.
    """

    def __init__(
        self, photos: Path, folder: Path, codecs: Sequence[Codec], teacher: LPIPS, settings: Distillation
    ) -> None:
        self.folder, self.codecs, self.teacher, self.settings = folder, codecs, teacher, settings
        self.photos = Photos(photos, settings.crop, 0, 1 << 30)
        torch.manual_seed(settings.seed)
        self.network = LiteNet().to(memory_format=torch.channels_last)
        self.average = LiteNet().requires_grad_(False)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizers = make_optimizers(self.network)
        self.step, self.seconds, self.factor = 0, 0.0, 1.0
        identity = folder / PAIRS / "run.json"
        mine = json.dumps(self._identity(), indent=1)
        if identity.exists() and identity.read_text(encoding="utf-8") != mine:
            raise AllocatorError(
                f"{folder}: is of a run with other settings, codecs or photos; choose another folder."
            )
        write_file(identity, mine.encode())
        if (folder / STATE).exists():
            self._restore()

    def _identity(self) -> dict[str, Any]:
        return {
            "settings": asdict(self.settings),
            "codecs": {codec.name: codec.version for codec in self.codecs},
            "teacher": f"{self.teacher.name} {self.teacher.version}",
            "data": self.photos.fingerprint,
        }

    def notes(self) -> dict[str, Any]:
        """What the weights are kept with."""
        return {
            **self._identity(),
            "steps": self.step,
            "factor": self.factor,
            "hours": round(self.seconds / 3600, 3),
            "hardware": f"{torch.get_num_threads()} threads, {platform.machine()}",
            "versions": {name: version(name) for name in ("torch", "numpy")},
        }

    def prepare(self, report: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Make the pairs that aren't there yet."""
        for index, photo in enumerate(self.photos.images):
            path = self.folder / PAIRS / f"{pixels_sha256(photo)[:16]}.npz"
            if not path.exists():
                try:
                    pairs = list(make_pairs(photo, self.codecs, self.teacher, self.settings, index))
                except CodecError as error:
                    raise AllocatorError(f"Photo {index}: {error}") from error
                buffer = io.BytesIO()
                np.savez(
                    buffer,
                    original=np.stack([one.original for one in pairs]),
                    distorted=np.stack([one.distorted for one in pairs]),
                    maps=np.stack([one.maps for one in pairs]),
                    levels=np.array([one.levels for one in pairs]),
                )
                write_file(path, buffer.getvalue())
            report(index + 1, len(self.photos.images))

    def train(self, report: Callable[[int, float, float], None] = lambda step, loss, error: None) -> None:
        """Train to the end; ``report`` gets the step, the mean loss and the mean error since the last report."""
        files = sorted((self.folder / PAIRS).glob("*.npz"))
        if not files:
            raise AllocatorError(f"{self.folder / PAIRS}: holds no pairs; prepare them first.")
        saved = time.monotonic()
        seen: list[tuple[float, float]] = []
        while self.step < self.settings.steps:
            seen.append(self._train_step(files))
            self.step += 1
            if self.step % 50 == 0 or self.step == self.settings.steps:
                loss, error = (sum(values) / len(seen) for values in zip(*seen, strict=True))
                report(self.step, loss, error)
                seen = []
            if time.monotonic() - saved > 120 or self.step == self.settings.steps:
                self.seconds += time.monotonic() - saved
                saved = time.monotonic()
                self.save()

    def _train_step(self, files: Sequence[Path]) -> tuple[float, float]:
        settings = self.settings
        random = np.random.default_rng((settings.seed, 1, self.step))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings.stage, self.step)
        loss, error = torch.zeros(()), 0.0
        for file in random.choice(len(files), settings.crops_per_step):
            with np.load(files[file]) as kept:
                crop = int(random.integers(len(kept["original"])))
                original, distorted = kept["original"][crop], kept["distorted"][crop]
                maps, levels = torch.from_numpy(kept["maps"][crop]), kept["levels"][crop].tolist()
            found = distance_maps(self.network, original, distorted)
            wrong = found.mean((1, 2)) - maps.mean((1, 2))
            same = torch.tensor([a.partition(" ")[0] == b.partition(" ")[0] for a, b in itertools.pairwise(levels)])
            order = (wrong[1:] - wrong[:-1])[same].abs().mean()
            # errors at small distances count for more, as they do where levels are chosen
            scale = 1 / (maps.mean((1, 2)) + 0.05)
            local = ((found - maps).abs().mean((1, 2)) * scale).mean()
            loss = loss + local + (wrong.abs() * scale).mean() + settings.order * order / 0.1
            error += float(wrong.detach().abs().mean()) / settings.crops_per_step
        loss = loss / settings.crops_per_step
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        move_average(self.average, self.network, settings.average, self.step)
        return float(loss.detach()), error

    def calibrate(self, report: Callable[[int, int], None] = lambda done, total: None) -> float:
        """Scale the metric, which has learnt from crops, to whole photos: values times a factor, which is returned.

        Two levels of every codec are drawn for each of some photos; the factor is the one with the least mean
        absolute error. The weights' file is written with it.
        """
        self.factor = 1.0
        self.save()
        metric = LPIPSLite(self.folder / WEIGHTS)
        random = np.random.default_rng((self.settings.seed, 2))
        count = min(self.settings.calibration_photos, len(self.photos.images))
        ours, theirs = list[float](), list[float]()
        for done, index in enumerate(random.choice(len(self.photos.images), count, replace=False), 1):
            photo = self.photos.images[index]
            reference, judged = metric.reference(photo), self.teacher.reference(photo)
            for codec in self.codecs:
                encode = codec.encoder(photo)
                for level in random.choice(len(codec.levels), min(2, len(codec.levels)), replace=False):
                    decoded = codec.decode(encode(int(level)))
                    ours.append(metric.compare(reference, decoded))
                    theirs.append(self.teacher.compare(judged, decoded))
            report(done, count)
        self.factor = _weighted_median(np.divide(theirs, ours), np.array(ours))
        self.save()
        return self.factor

    def save(self) -> None:
        """Write the state for going on, and the averaged weights with 16 bits."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_file(self.folder / STATE, buffer.getvalue())
        tensors = {
            name: (tensor * math.sqrt(self.factor) if name.startswith("roots") else tensor).half()
            for name, tensor in self.average.state_dict().items()
        }
        write_tensors(self.folder / WEIGHTS, tensors, {"notes": json.dumps(self.notes())})

    def _restore(self) -> None:
        path = self.folder / STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of torch, about damaged files
            raise AllocatorError(f"{path}: is no state of a distillation, or a damaged one.") from error
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.step, self.seconds = state["step"], state["seconds"]


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    half = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(values[order][half])
