"""Commands for the banks of learned codecs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.app import app, console

if TYPE_CHECKING:
    from codec.bank import Bank

banks = typer.Typer(help="Make and check the banks of learned codecs.", no_args_is_help=True)
app.add_typer(banks, name="bank")
codecs = typer.Typer(help="Look into learned codecs.", no_args_is_help=True)
app.add_typer(codecs, name="codec")

BankName = Annotated[str, typer.Argument(help="A bank's folder, or the name of a known bank.", show_default=False)]


@banks.command("create")
def create(
    out: Annotated[Path, typer.Option("--out", "-o", help="The bank's folder; replaced if it's there.")],
    name: Annotated[str, typer.Option(help="The codec's name on the command line and in tables.")],
    weights: Annotated[
        list[str] | None,
        typer.Argument(
            help="Weights as training saves them (or a bank, for what its levels share): one whose gains are the "
            "levels, or one a level, fewest bytes first.",
            show_default=False,
        ),
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(metavar="LEVEL=WEIGHTS", help="Weights of a level's own, beside those that the others share."),
    ] = None,
    untrained: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIGURATION", help="Random weights instead: `reference`, `compact`, `llic-elic`, ..."
        ),
    ] = None,
    levels: Annotated[int, typer.Option(min=1, help="Of an untrained bank.")] = 4,
    label: Annotated[list[str] | None, typer.Option(help="Each level's, fewest bytes first.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Keep 32 bits a weight, not 16.")] = False,
) -> None:
    """Make a bank from weights."""
    from codec.bank import create_bank, read_network, untrained_network
    from codec.base import CodecError

    if bool(weights) == bool(untrained):
        raise CodecError("Give either files of weights or --untrained.")
    if untrained:
        networks = [untrained_network(untrained, levels)]
        notes: dict[str, Any] = {"trained": "not at all"}
    else:
        read = [read_network(source) for source in weights or []]
        networks, notes = [network for network, _ in read], dict(read[0][1])
    if own:
        networks *= networks[0].config.levels if len(networks) == 1 else 1
    for one in own or []:
        level, _, source = one.partition("=")
        if not (level.isdecimal() and int(level) < len(networks)) or not source:
            raise CodecError(f"--own {one}: give a level from 0 to {len(networks) - 1}, =, and a file of weights.")
        networks[int(level)], notes[f"level {level}"] = read_network(source)
    bank = create_bank(out, name, networks, label, notes, half=not full)
    typer.echo(f"{out}: bank {bank.name} {bank.identity[:4]} with {len(bank.levels)} levels, {_size(out):,} bytes")


@banks.command("show")
def show(bank: BankName) -> None:
    """Print what a bank holds."""
    import json

    from rich.table import Table

    from codec.configurations import to_json

    found = _bank(bank)
    typer.echo(f"{found.name}: bank {found.identity[:4]} in {found.folder}, {_size(found.folder):,} bytes")
    grid = Table("level", "label", "weights", "gain")
    for i, level in enumerate(found.levels):
        grid.add_row(str(i), level.label, level.weights, str(level.gain))
    console().print(grid)
    typer.echo(f"configuration {json.dumps(to_json(found.config))}")
    for key, value in found.notes.items():
        typer.echo(f"{key} {value if isinstance(value, str) else json.dumps(value)}")


@banks.command("check")
def check(bank: BankName) -> None:
    """Check every file of a bank by its SHA-256, and code an image at every level."""
    from codec.bank import check_bank

    found = _bank(bank)
    if faults := check_bank(found):
        typer.echo("\n".join(faults), err=True)
        raise typer.Exit(1)
    typer.echo(f"{found.name}: {len(found.levels)} levels, all sound")


@codecs.command("profile")
def profile(
    bank: Annotated[str, typer.Argument(help="A bank, or a configuration with random weights.", show_default=False)],
    width: Annotated[int, typer.Option(min=1)] = 768,
    height: Annotated[int, typer.Option(min=1)] = 512,
    threads: Annotated[int | None, typer.Option(min=1, help="By default torch's.")] = None,
) -> None:
    """Print parameters, multiply-adds per pixel and time of each part of a learned codec."""
    import torch
    from rich.table import Table

    from codec.bank import untrained_network
    from codec.configurations import CONFIGURATIONS
    from codec.profile import profile_network

    if threads:
        torch.set_num_threads(threads)
    if bank in CONFIGURATIONS:
        network = untrained_network(bank, 1)
    else:
        found = _bank(bank)
        network = found.network(found.levels[0].weights)
    parts = profile_network(network, height, width)
    grid = Table(
        "part", "parameters", "kMAC/pixel", "seconds", title=f"{width}x{height}, {torch.get_num_threads()} threads"
    )
    for column in grid.columns[1:]:
        column.justify = "right"
    for part in parts:
        grid.add_row(
            part.name, f"{part.parameters:,}", f"{part.macs / 1e3 / width / height:.1f}", f"{part.seconds:.3f}"
        )
    console().print(grid)


def _bank(name: str) -> "Bank":
    from codec.bank import Bank
    from codec.registry import bank_folder

    return Bank.load(bank_folder(name))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
