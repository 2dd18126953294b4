"""The command that trains learned codecs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli import completion
from allocator.cli.app import Json, Weights, app, console, echo, emit, grid, use_weights
from allocator.cli.options import Threads

if TYPE_CHECKING:
    from codec.training.losses import PerceptualLoss
    from codec.training.recipe import Recipe
    from codec.training.trainer import Report, Trainer


@app.command(epilog="Example: `allocator train dkic-compact --photos photos/ --out run/`")
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="TOML file of a recipe, or the name of a shipped recipe.",
            show_default=False,
            autocompletion=completion.recipe_names,
        ),
    ] = None,
    photos: Annotated[Path | None, typer.Option("--photos", help="Folder of training images.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; an existing run is resumed.")] = Path(
        "allocator-run"
    ),
    start: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Weights to start from: weights.safetensors of a run, or a bank (name or folder). Default: random.",
        ),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(metavar="HOURS", min=0.0, help="Save and stop after this many hours.")
    ] = None,
    core_hours: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS", min=0.0, help="Save and stop when the run has used this many processor hours in total."
        ),
    ] = None,
    threads: Threads = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Test the whole training in under a minute, with the recipe `smoke` on the shipped photos.",
        ),
    ] = False,
    metric_weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Train a learned codec by a recipe, and make a bank of it.

    The same command resumes a stopped run.

    A recipe whose levels have separate networks trains them one after the other, each in a folder of its own.
    On several GPUs: torchrun --standalone --nproc-per-node N -m allocator train ...
    """
    import dataclasses
    import functools
    import math
    import time

    import torch

    from codec.bank_builder import create_bank
    from codec.base import CodecError
    from codec.checkpoints import read_network
    from codec.training.recipe import find_recipe, recipe_names
    from codec.training.trainer import EVENTS, Trainer, has_tensorboard

    use_weights(metric_weights)
    say = functools.partial(echo, err=as_json)
    if threads:
        torch.set_num_threads(threads)
    if smoke:
        from allocator.images import SHIPPED_PHOTOS

        recipe, photos = "smoke", photos or SHIPPED_PHOTOS
    if recipe is None or photos is None:
        raise CodecError(f"Give a recipe ({', '.join(recipe_names())}, or a TOML file) and --photos, or --smoke.")
    found = find_recipe(recipe)
    perceptual = _perceptual(found)
    end = time.monotonic() + (math.inf if hours is None else 3600 * hours)
    core_seconds = math.inf if core_hours is None else 3600 * core_hours
    runs = [(found, out)]
    if found.network.separate:
        runs = [(found.of_level(i), out / f"level-{i}") for i in range(len(found.rate.targets))]
    networks = []
    for one, folder in runs:
        trainer = Trainer(one, photos, folder, perceptual)
        speaks = not trainer.processes.rank
        if start and not trainer.step:
            trainer.start_from(*read_network(start))
        if speaks:
            for sentence in trainer.photos.left_out:
                echo(f"left out: {sentence}", err=True)
            place = trainer.device.type
            if trainer.processes.count > 1:
                place = f"{trainer.processes.count} x {place}"
            say(f"{folder}: {found.name}, step {trainer.step:,} of {found.steps:,}, on {place}")
            if has_tensorboard():
                say(f"Watch it: tensorboard --logdir {folder / EVENTS}")
        finished = trainer.step >= one.steps or _run(trainer, end - time.monotonic(), core_seconds)
        if not finished:
            break
        networks.append(trainer.average)
    if not speaks:
        raise typer.Exit(130 if trainer.interrupted and not finished else 0)
    if trainer.interrupted and not finished:
        echo(f"Interrupted at step {trainer.step:,}, saved; the same command resumes the run.", err=True)
        raise typer.Exit(130)
    if not finished:
        say(f"Stopped at step {trainer.step:,}, saved; the same command resumes the run.")
        if found.network.separate:
            say(f"{len(networks)} of {len(runs)} levels are trained; the bank is made when all are.")
            return
    notes = trainer.notes() | {"recipe": dataclasses.asdict(found)}
    bank = create_bank(out / "bank", found.name, networks or [trainer.average], notes=notes)
    levels = trainer.evaluate(bank)
    rows = [
        [str(one.level), f"{one.bpp:.4f}", f"{one.estimated_bpp:.4f}", f"{one.psnr:.2f}", f"{one.lpips:.4f}"]
        for one in levels
    ]
    text = grid(["level", "bpp", "estimated", "PSNR", "LPIPS"], rows, "Validation images, actual bytes")
    result = {"bank": bank.name, "folder": bank.folder, "steps": trainer.step, "levels": levels}
    emit(result, text, f"{bank.folder}: bank {bank.name}; give it as --codec {bank.folder}", as_json=as_json)


def _perceptual(recipe: "Recipe") -> "PerceptualLoss | None":
    """The perceptual terms that a recipe names; None where they have no weight."""
    from allocator.metrics.backbones import NETS, find_backbone
    from allocator.metrics.lpips import LPIPS
    from codec.training.losses import PerceptualLoss, StructuralLoss
    from codec.training.recipe import RecipeError

    if not any((stage.loss or recipe.loss).lpips for stage in recipe.stages):
        return None
    if unknown := recipe.perceptual.keys() - {*NETS, "ms-ssim"}:
        raise RecipeError(
            f"The recipe {recipe.name} has the unknown perceptual terms {', '.join(sorted(unknown))}; "
            f"use LPIPS's nets {', '.join(NETS)}, or ms-ssim."
        )
    metrics = {net: LPIPS(net, find_backbone(net)) for net in recipe.perceptual if net in NETS}
    names = {term: metrics[term].name if term in metrics else term for term in recipe.perceptual}
    return PerceptualLoss(
        {name: metrics[term].model if term in metrics else StructuralLoss() for term, name in names.items()},
        {name: recipe.perceptual[term] for term, name in names.items()},
        {metric.name: metric.sha256 for metric in metrics.values()},
    )


def _run(trainer: "Trainer", seconds: float, core_seconds: float) -> bool:
    from datetime import timedelta

    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console(stderr=True), disable=trainer.processes.rank > 0) as bars:
        task = bars.add_task("starting", total=trainer.recipe.steps, completed=trainer.step)

        def show(report: "Report") -> None:
            left = timedelta(seconds=round(report.seconds_left))
            losses = f"loss {report.loss:.3f} bpp {report.bpp:.3f} lpips {report.lpips:.3f}"
            text = f"step {report.step:,} {losses}, {left} left"
            bars.update(task, completed=report.step, description=text)

        return trainer.run(show, stop_after_seconds=seconds, stop_at_core_seconds=core_seconds)
