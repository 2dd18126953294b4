"""Commands for metrics."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from allocator.cli import completion
from allocator.cli.app import Json, Weights, app, console, emit, use_weights

metrics = typer.Typer(help="Train this project's own metric.", no_args_is_help=True)
app.add_typer(metrics, name="metric")


class NetName(StrEnum):
    """A backbone of LPIPS."""

    squeeze = "squeeze"
    alex = "alex"
    vgg = "vgg"


@metrics.callback()
def _group() -> None:
    """Train this project's own metric."""


@metrics.command("distill")
def distill(
    photos: Annotated[Path, typer.Option("--photos", help="The folder of training images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder; gone on with if it's there.")],
    codec: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            "-c",
            metavar="NAME",
            help="By default those of this package.",
            autocompletion=completion.codec_names,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    crops: Annotated[int | None, typer.Option(min=1, help="Of each photo, instead of the recipe's.")] = None,
    net: Annotated[NetName, typer.Option(help="LPIPS's, that it learns from.")] = NetName.squeeze,
    threads: Annotated[int | None, typer.Option(min=1, help="By default torch's.")] = None,
    metric_weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Train lpips-lite to say what LPIPS says; the same command goes on after a stop."""
    import dataclasses

    import torch
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from allocator.metrics.backbones import find_backbone
    from allocator.metrics.distillation import CODECS, WEIGHTS, Distillation, Run
    from allocator.metrics.lpips import LPIPS
    from codec import get_codec

    use_weights(metric_weights)
    if threads:
        torch.set_num_threads(threads)
    changes = {"steps": steps, "crops_per_photo": crops}
    settings = dataclasses.replace(Distillation(), **{key: value for key, value in changes.items() if value})
    teacher = LPIPS(net.value, find_backbone(net.value))
    run = Run(photos, out, [get_codec(name) for name in codec or CODECS], teacher, settings)
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as bars:
        pairs = bars.add_task("judging pairs", total=None)
        run.prepare(lambda done, total: bars.update(pairs, completed=done, total=total))
        training = bars.add_task("training", total=settings.steps, completed=run.step)
        run.train(
            lambda step, loss, error: bars.update(
                training, completed=step, description=f"step {step:,} loss {loss:.4f} error {error:.4f}"
            )
        )
        scaling = bars.add_task("calibrating", total=None)
        factor = run.calibrate(lambda done, total: bars.update(scaling, completed=done, total=total))
    line = f"{out / WEIGHTS}: lpips-lite after {run.step:,} steps, calibrated by {factor:.4f}"
    emit({"out": out / WEIGHTS, "steps": run.step, "factor": factor}, line, as_json=as_json)
