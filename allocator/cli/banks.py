"""Commands for the banks of learned codecs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli import completion
from allocator.cli.app import Json, app, console, echo, emit, grid
from allocator.cli.options import Threads

if TYPE_CHECKING:
    from codec.bank import Bank

banks = typer.Typer(help="Create, inspect and check banks of learned codecs.", no_args_is_help=True)
app.add_typer(banks, name="bank")
codecs = typer.Typer(help="Inspect learned codecs.", no_args_is_help=True)
app.add_typer(codecs, name="codec", hidden=True)  # its earlier name

BankName = Annotated[
    str,
    typer.Argument(
        help="Folder of a bank, or the name of a known bank.",
        show_default=False,
        autocompletion=completion.bank_names,
    ),
]


@banks.command("create", epilog="Example: `allocator bank create weights.safetensors --name mine --out mine/`")
def create(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bank; an existing bank is replaced.")],
    name: Annotated[str, typer.Option(help="Name of the codec on the command line and in tables.")],
    weights: Annotated[
        list[str] | None,
        typer.Argument(
            help="Weights saved by `train`: one file that holds all levels, or one file per level, fewest bytes "
            "first. The name or folder of a bank stands for the weights that its levels share.",
            show_default=False,
        ),
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEVEL=WEIGHTS",
            help="Separate weights for one level, numbered from 0; the others keep the shared ones. Repeatable.",
        ),
    ] = None,
    untrained: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIGURATION",
            help="Use random weights of this configuration (`reference`, `compact`, `llic-elic`, ...) in place of "
            "WEIGHTS.",
        ),
    ] = None,
    levels: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of levels of a bank with --untrained weights.")
    ] = 4,
    levels_at: Annotated[
        str | None,
        typer.Option(
            metavar="POSITIONS",
            help="Replace the levels by levels at these positions, such as `-2,-1,0,1.5,3`: a fraction lies between "
            "two level numbers, and positions below the first or above the last level are extrapolated.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Label of a level; repeat it for every level, fewest bytes first. Default: g0, g1, ..."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Store weights in 32 bits. Default: 16 bits.")] = False,
    as_json: Json = False,
) -> None:
    """Create a bank from a network's weights."""
    from codec.bank import training_metrics
    from codec.bank_builder import create_bank, respace_levels, untrained_network
    from codec.base import CodecError
    from codec.checkpoints import read_network, read_networks

    if bool(weights) == bool(untrained):
        raise CodecError("Give either files of weights or --untrained.")
    if untrained:
        networks = [untrained_network(untrained, levels)]
        notes: dict[str, Any] = {"trained": "not at all"}
    else:
        read = [read_networks(source) for source in weights or []]
        networks, notes = [network for several, _ in read for network in several], dict(read[0][1])
        notes["training_metrics"] = sorted(training_metrics(*(one for _, one in read)))
    if levels_at:
        try:
            places = [float(place) for place in levels_at.split(",")]
        except ValueError:
            raise CodecError(f"--levels-at {levels_at}: write numbers separated by commas.") from None
        networks, notes["levels_at"] = [respace_levels(network, places) for network in networks], places
    if own:
        networks *= networks[0].config.levels if len(networks) == 1 else 1
    for one in own or []:
        level, _, source = one.partition("=")
        if not (level.isdecimal() and int(level) < len(networks)) or not source:
            raise CodecError(f"--own {one}: write LEVEL=FILE, with a level from 0 to {len(networks) - 1}.")
        networks[int(level)], notes[f"level {level}"] = read_network(source)
        notes["training_metrics"] = sorted(training_metrics(notes, notes[f"level {level}"]))
    bank = create_bank(out, name, networks, label, notes, half=not full)
    line = f"{out}: bank {bank.name} {bank.identity[:4]} with {len(bank.levels)} levels, {_size(out):,} bytes"
    emit(_record(bank), line, as_json=as_json)


@banks.command("show", epilog="Example: `allocator bank show po-dkic`")
def show(bank: BankName, as_json: Json = False) -> None:
    """Print the levels, configuration and notes of a bank."""
    import json

    from codec.families import to_json

    found = _bank(bank)
    head = f"{found.name}: bank {found.identity[:4]} in {found.folder}, {_size(found.folder):,} bytes"
    rows = [[str(i), level.label, level.weights, str(level.gain)] for i, level in enumerate(found.levels)]
    more = {"configuration": to_json(found.config), **found.notes}
    lines = [
        line
        for key, value in more.items()
        for line in _wrap(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    ]
    emit(_record(found), head, grid(["level", "label", "weights", "gain"], rows), *lines, as_json=as_json)


@banks.command("check", epilog="Example: `allocator bank check po-dkic`")
def check(bank: BankName, as_json: Json = False) -> None:
    """Check the SHA-256 of all files, and code an image at all levels."""
    from codec.bank_builder import check_bank

    found = _bank(bank)
    faults = check_bank(found)
    line = [] if faults else [f"{found.name}: {len(found.levels)} levels, no faults found"]
    result = {"bank": found.name, "levels": len(found.levels), "faults": faults, "passed": not faults}
    emit(result, *line, as_json=as_json)
    if faults:
        echo("\n".join(faults), err=True)
        raise typer.Exit(1)


@codecs.command("profile")
@banks.command("profile", epilog="Example: `allocator bank profile po-dkic --width 1920 --height 1080`")
def profile(
    bank: Annotated[
        str,
        typer.Argument(
            help="Folder or name of a bank, or a configuration, which gets random weights.",
            show_default=False,
            autocompletion=completion.bank_names,
        ),
    ],
    width: Annotated[int, typer.Option(metavar="PIXELS", min=1, help="Width of the image.")] = 768,
    height: Annotated[int, typer.Option(metavar="PIXELS", min=1, help="Height of the image.")] = 512,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Print parameters, multiply-adds and time of each part."""
    import torch

    from codec.bank_builder import untrained_network
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
    rows = [
        [part.name, f"{part.parameters:,}", f"{part.macs / 1e3 / width / height:.1f}", f"{part.seconds:.3f}"]
        for part in parts
    ]
    title = f"{width}x{height}, {torch.get_num_threads()} threads"
    result = {"width": width, "height": height, "threads": torch.get_num_threads(), "parts": parts}
    emit(result, grid(["part", "parameters", "kMAC/pixel", "seconds"], rows, title), as_json=as_json)


def _bank(name: str) -> "Bank":
    from codec.bank import Bank
    from codec.bank_folders import bank_folder

    return Bank.load(bank_folder(name))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _record(bank: "Bank") -> dict[str, Any]:
    from codec.families import to_json

    return {
        "bank": bank.name,
        "identity": bank.identity,
        "folder": bank.folder,
        "bytes": _size(bank.folder),
        "levels": [
            {"level": i, "label": one.label, "weights": one.weights, "gain": one.gain}
            for i, one in enumerate(bank.levels)
        ],
        "configuration": to_json(bank.config),
        "notes": bank.notes,
    }


def _wrap(key: str, text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(f"{key} {text}", console().width, subsequent_indent="  ", break_on_hyphens=False)
