"""Train with a recipe: the metrics of its loss, a run for each of its networks, and the resulting bank."""

import dataclasses
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from allocator.metrics.backbones import NETS, find_backbone
from allocator.metrics.lpips import LPIPS
from codec.bank import Bank
from codec.bank_builder import create_bank
from codec.checkpoints import read_network
from codec.training.losses import PerceptualLoss, RandomViews, StructuralLoss
from codec.training.recipe import Recipe, RecipeError, find_recipe
from codec.training.trainer import Evaluation, Report, Trainer


@dataclass(frozen=True)
class Trained:
    """The result of training."""

    trainer: Trainer
    """The steps of the last run."""
    finished: bool
    networks: int
    """The networks trained so far."""
    wanted: int
    """The networks that the bank needs."""
    bank: Bank | None
    """The bank; None while separate networks are missing, after an interrupt, and in processes after the first."""
    levels: list[Evaluation]
    """The bank's levels, measured on the validation images."""


def train(
    recipe: Recipe | str,
    photos: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    start: str | None = None,
    seconds: float = math.inf,
    core_seconds: float = math.inf,
    begin: Callable[[Trainer], None] = lambda trainer: None,
    report: Callable[[Report], None] = lambda report: None,
) -> Trained:
    """Train a learned codec, and create its bank in ``folder/bank``. The same call resumes a stopped run.

    Separate networks are trained one after the other, each in its own folder.

    Args:
        recipe: a TOML file, the name of an included recipe, or a recipe.
        photos: a folder of images to train on.
        folder: the run folder.
        start: initial weights: a file, or a bank's name or folder. By default they are random.
        seconds: save and stop after this time.
        core_seconds: save and stop when a run has used this many CPU seconds in total.
        begin: called with each run's trainer before its first step.
        report: called regularly.

    Raises:
        CodecError: the recipe, the photos, the run's folder or the weights are unusable.
    """
    recipe = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
    perceptual = make_perceptual_loss(recipe)
    end = time.monotonic() + seconds
    place = Path(folder)
    runs = [(recipe, place)]
    if recipe.network.separate:
        runs = [(recipe.of_level(i), place / f"level-{i}") for i in range(len(recipe.rate.targets))]
    networks = []
    for one, run_folder in runs:
        trainer = Trainer(one, Path(photos), run_folder, perceptual)
        if start and not trainer.step:
            trainer.start_from(*read_network(start))
        begin(trainer)
        finished = trainer.step >= one.steps or trainer.run(
            report, stop_after_seconds=end - time.monotonic(), stop_at_core_seconds=core_seconds
        )
        if not finished:
            break
        networks.append(trainer.average)
    lacks_some = not finished and (trainer.interrupted or recipe.network.separate)
    if trainer.processes.rank or lacks_some:
        return Trained(trainer, finished, len(networks), len(runs), None, [])
    notes = trainer.notes() | {"recipe": dataclasses.asdict(recipe)}
    bank = create_bank(place / "bank", recipe.name, networks or [trainer.average], notes=notes)
    return Trained(trainer, finished, len(networks), len(runs), bank, list(trainer.evaluate(bank)))


def make_perceptual_loss(recipe: Recipe) -> PerceptualLoss | None:
    """The perceptual terms of a recipe; None if they have no weight.

    Raises:
        RecipeError: it names unknown terms.
        MetricError: the weights of a net are unavailable.
    """
    if not any((stage.loss or recipe.loss).lpips for stage in recipe.stages):
        return None
    if unknown := recipe.perceptual.keys() - {*NETS, "ms-ssim"}:
        raise RecipeError(
            f"The recipe {recipe.name} has the unknown perceptual terms {', '.join(sorted(unknown))}; "
            f"use LPIPS's nets {', '.join(NETS)}, or ms-ssim."
        )
    metrics = {net: LPIPS(net, find_backbone(net)) for net in recipe.perceptual if net in NETS}
    names = {term: metrics[term].name if term in metrics else term for term in recipe.perceptual}
    nets = {
        term: RandomViews(metric.model) if recipe.random_views else metric.model for term, metric in metrics.items()
    }
    return PerceptualLoss(
        {name: nets[term] if term in nets else StructuralLoss() for term, name in names.items()},
        {name: recipe.perceptual[term] for term, name in names.items()},
        {metric.name: metric.sha256 for metric in metrics.values()},
    )
