"""The training loop: all stages, on any device; it resumes a run that was stopped or killed."""

import contextlib
import copy
import csv
import dataclasses
import functools
import importlib.util
import json
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from codec.bank import Bank, training_metrics
from codec.base import CodecError, ImageError
from codec.checkpoints import write_checkpoint
from codec.files import write_file
from codec.image import read_image
from codec.learned import LearnedCodec
from codec.network import CompressionNetwork, Gains, Output
from codec.tensors import to_tensor
from codec.training import compiled_kernel, triton_kernel
from codec.training.data import Ahead, Photos
from codec.training.discriminator import Discriminator
from codec.training.gpu_graph import Recorded
from codec.training.losses import PerceptualLoss, RatePrice, bits_per_pixel, discriminator_loss, generator_loss
from codec.training.muon import Muon, mixes_channels
from codec.training.processes import Processes
from codec.training.recipe import Recipe, Stage, make_recipe
from codec.training.schedule import averaging, learning_rate, move_average

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STATE, WEIGHTS, NOTES, LOG, EVENTS = "state.pt", "weights.safetensors", "run.json", "log.csv", "events"
_TERMS = ("loss", "bpp", "mse", "lpips", "gan")
"""The values that a step measures."""
_PATIENCE = 20
"""Steps in a row without finite loss after which a run stops."""


class TrainingError(CodecError):
    """Training can't continue; the last saved state is kept."""


class Report(NamedTuple):
    """The progress of a run, with means since the last report."""

    step: int
    steps: int
    seconds_left: float
    loss: float
    bpp: float
    mse: float
    lpips: float
    gan: float
    learning_rate: float


class Evaluation(NamedTuple):
    """One level on the validation images, from actual bitstreams."""

    level: int
    bpp: float
    estimated_bpp: float
    psnr: float
    lpips: float


class Trainer:
    """One run of a recipe in one folder.

    Each step's crops, levels and noise depend only on the seed and the step's number, so a run that was killed and
    resumed ends with the same weights as an uninterrupted one. No step waits for a GPU: crops are decoded and copied
    in advance, and measured values are read when they are reported.

    Args:
        recipe: all settings.
        photos: the folder of training images.
        folder: the run folder, with state, weights and logs; an existing run is resumed.
        perceptual: the loss's term ``lpips``; None if the recipe has none.
        processes: this process among those that share the run; by default those of torch's launcher.

    Raises:
        TrainingError: the folder contains a run of another recipe or with other images.
    """

    def __init__(
        self,
        recipe: Recipe,
        photos: Path,
        folder: Path,
        perceptual: PerceptualLoss | None,
        processes: Processes | None = None,
    ) -> None:
        compiled_kernel.install()
        triton_kernel.install()
        self.recipe, self.folder = recipe, folder
        self.processes = processes or Processes.join()
        self.device = self.processes.device
        if self.device.type == "cuda" and recipe.optimizer.precision == "bfloat16":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        for stage in recipe.stages:
            self.processes.share(stage.batch or recipe.data.batch)
        data = recipe.data
        largest = max(stage.crop or data.crop for stage in recipe.stages)
        self.photos = Photos(photos, largest, data.validation, data.half_size_over, data.uniform)
        self.perceptual = perceptual.to(self.device).requires_grad_(False) if perceptual else None
        torch.manual_seed(recipe.seed)
        self.network = CompressionNetwork(recipe.config)
        spread_gains(self.network)
        self.network = self.network.to(self.device).to(memory_format=torch.channels_last)
        self.discriminator = Discriminator(recipe.config.latent).to(self.device)
        self.price = RatePrice(recipe.rate.targets, recipe.rate.above, recipe.rate.below, recipe.rate.memory)
        self.price = self.price.to(self.device)
        weights = recipe.rate.weights or [1.0] * len(recipe.rate.targets)
        self.level_weights = torch.tensor(weights, device=self.device)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizers = self._optimizers(self.network, recipe.optimizer.name)
        self.discriminator_optimizers = self._optimizers(
            self.discriminator, recipe.optimizer.discriminator, recipe.optimizer.discriminator_factor
        )
        self.step = 0
        self.seconds = self.core_seconds = 0.0
        self.core_hours_before = 0.0
        """Those of the runs whose weights this one started from."""
        self.metrics_before: frozenset[str] = frozenset()
        """The metrics in their losses."""
        self.interrupted = False
        """Whether an interrupt ended the last :meth:`run`."""
        self._board: SummaryWriter | None = None
        self._skipped = torch.zeros(2, dtype=torch.int64, device=self.device)
        """Steps in a row without finite gradients, of network and discriminator."""
        self._bad = [torch.zeros((), device=self.device) for _ in range(2)]
        """Whether the last gradients were not finite, of network and discriminator."""
        self._moves: dict[Stage, Callable[..., Tensor]] = {}
        """The function that updates the weights in each stage."""
        self._ahead: Ahead | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{folder}: can't be created as a folder ({error.strerror}).") from error
        if (folder / STATE).exists():
            self._restore()
        if not self.processes.rank:
            self._write_notes()

    def _optimizers(self, module: nn.Module, kind: str, factor: float = 1.0) -> list[torch.optim.Optimizer]:
        gains, matrices, others = list[nn.Parameter](), list[nn.Parameter](), list[nn.Parameter]()
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                if isinstance(part, Gains):
                    gains.append(parameter)
                elif kind == "muon" and mixes_channels(part, parameter):
                    matrices.append(parameter)
                else:
                    others.append(parameter)
        groups = [
            {"params": others, "factor": factor},
            {"params": gains, "factor": self.recipe.optimizer.gain_factor},
        ]
        adam = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
        groups = [group for group in groups if group["params"]]
        optimizers: list[torch.optim.Optimizer] = [
            adam(groups, torch.zeros(()), fused=True, capturable=self.device.type == "cuda")
        ]
        if matrices:
            optimizers.append(Muon([{"params": matrices, "factor": factor}]))
        return optimizers

    def notes(self) -> dict[str, Any]:
        """The record of a run's conditions: recipe, versions, data, hardware."""
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        recipe = dataclasses.asdict(self.recipe)
        perceptual = self.perceptual.notes if self.perceptual else {}
        metrics = training_metrics({"recipe": recipe, "perceptual": perceptual}) | self.metrics_before
        return {
            "recipe": recipe,
            "steps": self.step,
            "hours": round(self.seconds / 3600, 3),
            "core_hours": round(self.core_seconds / 3600, 4),
            "core_hours_in_all": round(self.core_hours_before + self.core_seconds / 3600, 4),
            "perceptual": perceptual,
            "training_metrics": sorted(metrics),
            "hardware": gpu or f"{torch.get_num_threads()} threads, {platform.machine()}",
            "processes": self.processes.count,
            "versions": {name: version(name) for name in ("torch", "numpy")} | {"python": platform.python_version()},
            "data": self.photos.fingerprint,
        }

    def run(
        self,
        report: Callable[[Report], None] = lambda report: None,
        *,
        report_every: int = 50,
        save_every_seconds: float = 180.0,
        stop_after_seconds: float = math.inf,
        stop_at_core_seconds: float = math.inf,
    ) -> bool:
        """Train until the recipe ends, the time limit is reached or Ctrl-C is pressed; save regularly and at the end.

        The time limit is ``stop_after_seconds`` from now, or a total of ``stop_at_core_seconds`` CPU seconds of the
        run, including earlier calls. An interrupt waits for the end of the step, so the saved state is identical to
        that of an uninterrupted run.

        Returns:
            Whether the recipe is finished.

        Raises:
            TrainingError: the loss is repeatedly not finite; the last saved state is from before.
        """
        self._ahead = Ahead(self._crops, self.recipe.steps, *self._background())
        with contextlib.closing(self._ahead), _interrupts_noted() as interrupts, self._tensorboard():
            limits = stop_after_seconds, stop_at_core_seconds
            return self._run(report, report_every, save_every_seconds, limits, interrupts)

    @contextlib.contextmanager
    def _tensorboard(self) -> Iterator[None]:
        """Write scalars for TensorBoard to the run folder if it is installed; steps that are repeated are dropped."""
        if self.processes.rank or not has_tensorboard():
            yield
            return
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.folder / EVENTS), purge_step=self.step + 1)
        try:
            yield
        finally:
            self._board.close()
            self._board = None

    def _run(
        self,
        report: Callable[[Report], None],
        report_every: int,
        save_every_seconds: float,
        limits: tuple[float, float],
        interrupts: list[int],
    ) -> bool:
        begin = saved = time.monotonic()
        cores_saved = time.process_time()
        done_before, seen = self.step, list[Tensor]()

        def save() -> None:
            nonlocal saved, cores_saved
            self._check_finite()
            now, cores = time.monotonic(), time.process_time()
            self.seconds, saved = self.seconds + now - saved, now
            self.core_seconds, cores_saved = self.core_seconds + cores - cores_saved, cores
            self.save()

        while self.step < self.recipe.steps:
            stage, number = self.recipe.stage_at(self.step)
            seen.append(self._train_step(stage, number))
            self.step += 1
            now = time.monotonic()
            self.interrupted = self.processes.any(bool(interrupts))
            used = self.core_seconds + time.process_time() - cores_saved
            over = self.interrupted or self.processes.any(now - begin >= limits[0] or used >= limits[1])
            if self.step % report_every == 0 or self.step == self.recipe.steps or over:
                self._check_finite()
                self._log(seen, (now - begin) / (self.step - done_before), report)
                seen = []
            if now - saved >= save_every_seconds or over:
                save()
            if over:
                break
        else:
            save()
        return self.step >= self.recipe.steps

    def _background(self) -> tuple[int, int]:
        """The number of threads that decode crops, and of steps in advance."""
        threads = min(8, os.cpu_count() or 1) if self.device.type == "cuda" else 2
        return threads, 2 * threads

    def _crops(self, step: int) -> Tensor:
        stage, _ = self.recipe.stage_at(step)
        data = self.recipe.data
        batch = self.photos.batch(stage.batch or data.batch, stage.crop or data.crop, self.recipe.seed, step)
        share = batch[self.processes.share(len(batch))]
        return share.pin_memory() if self.device.type == "cuda" else share

    def _train_step(self, stage: Stage, number: int) -> Tensor:
        """Update the weights once. Returns :data:`_TERMS`, still on the device."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        assert self._ahead
        crops = self._ahead.get(self.step).to(self.device, non_blocking=True)
        size = stage.batch or recipe.data.batch
        level = torch.randint(len(recipe.rate.targets), (size,))
        if recipe.level is not None:
            level.fill_(recipe.level)
        level = level[self.processes.share(size)].to(self.device, non_blocking=True)
        if self.processes.rank:
            torch.manual_seed((self.processes.rank << 40) + recipe.seed * 1_000_003 + self.step)  # its own noise
        self.network.train()
        # filled on the device: a copy from the host would wait
        numbers = learning_rate(stage, number), averaging(recipe.optimizer.average, self.step)
        rate, keep = (torch.full((), value, device=self.device) for value in numbers)
        if stage not in self._moves:
            move = functools.partial(self._move, stage)
            recorded = self.device.type == "cuda" and self.processes.count == 1
            self._moves[stage] = Recorded(move) if recorded else move
        return self.processes.gather(self._moves[stage](crops, level, rate, keep)[None]).mean(0)

    def _move(self, stage: Stage, crops: Tensor, level: Tensor, rate: Tensor, keep: Tensor) -> Tensor:
        """Update all weights by the gradients for crops (B, 3, h, w), uint8. Nothing here waits for the device.

        Returns :data:`_TERMS`.
        """
        terms = self._find_gradients(stage, crops, level)
        optimizers = self.optimizers + self.discriminator_optimizers * stage.adversarial
        for optimizer in optimizers:
            optimizer.found_inf = self._bad[optimizer in self.discriminator_optimizers]  # type: ignore[attr-defined]
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.step()
        move_average(self.average, self.network, keep)
        return terms

    def _find_gradients(self, stage: Stage, crops: Tensor, level: Tensor) -> Tensor:
        """Compute the gradients of the network, and of the discriminator if it is used."""
        weights = stage.loss or self.recipe.loss
        image = crops.float() / 255
        self.network.zero_grad(set_to_none=True)
        self.discriminator.zero_grad(set_to_none=True)
        with self._mixed_precision():
            output: Output = self.network(image, level)
        decoded = output.x_hat.float()
        pixels = image.shape[2] * image.shape[3]
        rates = bits_per_pixel(output.likelihoods, pixels)
        actual = bits_per_pixel(output.rounded, pixels)
        self.price.observe(self.processes.gather(level), self.processes.gather(actual))
        price = stage.rate_factor * self.price(level)
        mse = (decoded - image).square().mean((1, 2, 3))
        lpips = torch.zeros_like(mse)
        if self.perceptual and weights.lpips:
            with self._mixed_precision():
                lpips = self.perceptual(decoded * 2 - 1, image * 2 - 1)
        gan = torch.zeros_like(mse)
        if stage.adversarial:
            condition = output.y_hat.float().detach()
            self.discriminator.requires_grad_(False)
            gan = generator_loss(self.discriminator(image, condition), self.discriminator(decoded, condition))
            self.discriminator.requires_grad_(True)
        loss = weights.mse * mse + weights.lpips * lpips + weights.gan * gan + price * rates
        loss = (self.level_weights[level] * loss).mean()
        self._backward(loss, self.network)
        if stage.adversarial:
            real = self.discriminator(image, condition)
            fake = self.discriminator(decoded.detach(), condition)
            self._backward(discriminator_loss(real, fake), self.discriminator)
        return torch.stack([value.detach().mean() for value in (loss, actual, mse, lpips, gan)])

    def _mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.optimizer.precision == "bfloat16")

    def _backward(self, loss: Tensor, module: nn.Module) -> None:
        """Compute a module's gradients and clip them; if they are not finite, the optimizers skip the step."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average_gradients(module)
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.recipe.optimizer.clip or math.inf)
        which = int(module is self.discriminator)
        bad = norm.isfinite().logical_not()
        self._bad[which].copy_(bad)
        self._skipped[which].add_(1).mul_(bad)

    def _check_finite(self) -> None:
        """Report; this waits for the device, so it is called rarely."""
        if int(self._skipped.max()) >= _PATIENCE:
            raise TrainingError(
                f"The loss wasn't finite for {_PATIENCE} steps before step {self.step}; {self.folder} contains the "
                "last good state. Lower the learning rate or the GAN's weight, then resume."
            )

    def _log(self, seen: list[Tensor], seconds_a_step: float, report: Callable[[Report], None]) -> None:
        means = dict(zip(_TERMS, torch.stack(seen).mean(0).tolist(), strict=True))
        stage, number = self.recipe.stage_at(self.step - 1)
        means["learning_rate"] = learning_rate(stage, number)
        left = (self.recipe.steps - self.step) * seconds_a_step
        line = Report(step=self.step, steps=self.recipe.steps, seconds_left=left, **means)
        report(line)
        if self.processes.rank:
            return
        with (self.folder / LOG).open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow([*Report._fields, *(f"level{i}_bpp" for i in range(len(self.recipe.rate.targets)))])
            numbers = [*line[2:], *self.price.rates.tolist()]
            writer.writerow([line.step, line.steps, *(f"{value:.6g}" for value in numbers)])
        if self._board:
            rates = {f"level{i}_bpp": rate for i, rate in enumerate(self.price.rates.tolist())}
            for key, value in {**means, **rates}.items():
                self._board.add_scalar(key, value, self.step)

    def save(self) -> None:
        """Write the state for resuming and the averaged weights, neither ever in part."""
        if self.processes.rank:
            return
        state = {
            "recipe": json.dumps(dataclasses.asdict(self.recipe)),
            "data": self.photos.fingerprint,
            "step": self.step,
            "seconds": self.seconds,
            "core_seconds": self.core_seconds,
            "core_hours_before": self.core_hours_before,
            "metrics_before": sorted(self.metrics_before),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "price": self.price.state_dict(),
            "optimizers": [one.state_dict() for one in (*self.optimizers, *self.discriminator_optimizers)],
        }
        write_checkpoint(self.folder / WEIGHTS, self.average, self.notes())  # before the state says that it is saved
        self._write_notes()
        partial = self.folder / f".{STATE}.partial"
        try:
            torch.save(state, partial)
            partial.replace(self.folder / STATE)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise TrainingError(f"{self.folder / STATE}: can't be written ({error}).") from error

    def _write_notes(self) -> None:
        write_file(self.folder / NOTES, (json.dumps(self.notes(), indent=1) + "\n").encode())

    def _restore(self) -> None:
        path = self.folder / STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            theirs = _fields(make_recipe(json.loads(state["recipe"])))
        except Exception as error:  # from torch, for damaged files
            raise TrainingError(f"{path}: is not the state of a training run, or is damaged.") from error
        if state["data"] != self.photos.fingerprint:
            raise TrainingError(f"{path}: belongs to a run on other images; choose another folder.")
        ours = _fields(self.recipe)
        if differing := [key for key in ours if key not in ("name", "stages") and theirs[key] != ours[key]]:
            raise TrainingError(
                f"{path}: belongs to a run with another {', '.join(differing)}; only the stages may change. "
                "Choose another folder; a new run can start from the weights of this one."
            )
        for name in ("network", "average", "discriminator"):
            getattr(self, name).load_state_dict(state[name])
        for optimizer, kept in zip(
            (*self.optimizers, *self.discriminator_optimizers), state["optimizers"], strict=True
        ):
            optimizer.load_state_dict(kept)
            for group in optimizer.param_groups:
                if "capturable" in group:
                    group["capturable"] = self.device.type == "cuda"
        self.price.rates.copy_(state["price"]["rates"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.core_seconds, self.core_hours_before = state["core_seconds"], state["core_hours_before"]
        self.metrics_before = frozenset(state.get("metrics_before", ()))
        log = self.folder / LOG
        if log.exists():
            write_file(log, self._kept_lines(log.read_text(encoding="utf-8", errors="replace")).encode())

    def _kept_lines(self, log: str) -> str:
        """The whole lines of a log up to the last save; later steps are repeated."""
        heading, *rows = [line for line in log.splitlines(keepends=True) if line.endswith("\n")] or [""]
        if not heading.startswith(f"{Report._fields[0]},"):
            return ""
        steps = [row.partition(",")[0] for row in rows]
        kept = [
            row
            for row, step in zip(rows, steps, strict=True)
            if step.isdecimal() and int(step) <= self.step and row.count(",") == heading.count(",")
        ]
        return "".join([heading, *kept])

    def start_from(self, network: CompressionNetwork, notes: Mapping[str, Any] | None = None) -> None:
        """Start with the weights of a network of the same configuration instead of random ones.

        Args:
            network: the network whose weights are copied.
            notes: notes of the run that trained it, whose hours and metrics are added to those of this run.

        Raises:
            TrainingError: its configuration differs, or the run has already started.
        """
        if self.step or network.config != self.network.config:
            raise TrainingError("Only a new run can start from weights, which must have the run's configuration.")
        self.network.load_state_dict(network.state_dict())
        self.average.load_state_dict(network.state_dict())
        self.core_hours_before = float((notes or {}).get("core_hours_in_all", 0))
        self.metrics_before = training_metrics(notes or {})

    def evaluate(self, bank: Bank) -> Iterator[Evaluation]:
        """Measure each level of a bank on the validation images, with actual bitstreams.

        Images that can't be read are left out, as :attr:`codec.training.data.Photos.left_out` then says.
        """
        codec = LearnedCodec(bank)
        images = []
        for path in self.photos.validation:
            try:
                images.append(read_image(path))
            except ImageError as error:
                self.photos.left_out.append(str(error))
        if not images:
            return
        networks = {level.weights: bank.network(level.weights) for level in bank.levels}
        encoders = [codec.encoder(image) for image in images]
        for level, setting in enumerate(bank.levels):
            bits = estimated = pixels = 0.0
            errors, distances = [], []
            for image, encode in zip(images, encoders, strict=True):
                data = encode(level)
                original, decoded = to_tensor(image), to_tensor(codec.decode(data))
                with torch.no_grad():
                    output = networks[setting.weights](original, torch.tensor([setting.gain]))
                    pair = (2 * one.to(self.device) - 1 for one in (original, decoded))
                    distances.append(float(self.perceptual(*pair, views=False)) if self.perceptual else math.nan)
                area = image.shape[0] * image.shape[1]
                estimated += float(bits_per_pixel(output.likelihoods, area)) * area
                bits, pixels = bits + 8 * len(data), pixels + area
                errors.append(float((original - decoded).square().mean()))
            psnr = float(np.mean([-10 * math.log10(max(error, 1e-10)) for error in errors]))
            yield Evaluation(level, bits / pixels, estimated / pixels, psnr, float(np.mean(distances)))


def _fields(recipe: Recipe) -> dict[str, Any]:
    """A recipe's fields as JSON has them."""
    fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return fields


@contextlib.contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """Collect interrupts without raising them; outside the main thread nothing changes."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def has_tensorboard() -> bool:
    """Whether runs can be logged for TensorBoard."""
    return importlib.util.find_spec("tensorboard") is not None


@torch.no_grad()
def spread_gains(network: CompressionNetwork) -> None:
    """Initialise the levels' gains in even steps, so that levels differ from the first step."""
    levels = network.config.levels
    spread = torch.linspace(-1, 1, levels)[:, None] if levels > 1 else torch.zeros(1, 1)
    network.priors.gains.log.data += 1.5 + spread * 1.2
    network.priors.hyper_gains.log.data += 1.0 + spread * 0.4
