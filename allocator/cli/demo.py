"""The demo: the whole job on the photos that the package includes."""

import platform
import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from allocator.cli.app import Json, Weights, app, echo, emit, grid, use_weights
from allocator.cli.options import Jobs, codec_option
from allocator.cli.waiting import showing_progress

SIDE = 448
"""Pixels of a photo's longer side; small, so that the demo takes two minutes."""
TARGETS = ("0.075", "0.15", "0.3")


@app.command(epilog="Example: `allocator demo --out demo/`")
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the photos, the table and the submissions.")
    ] = Path("allocator-demo"),
    codec: Annotated[
        list[str] | None,
        codec_option("Codec to allocate among; repeatable. Default: po-dkic and hevc."),
    ] = None,
    jobs: Jobs = None,
    metric_weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Run the whole job on small copies of the shipped photos.

    The demo measures them, allocates at three rates, and writes and verifies a submission for each.
    """
    import functools

    import allocator as al
    from allocator.allocation import allocate, make_budget, read_points
    from allocator.errors import AllocatorError
    from allocator.images import copy_photos
    from allocator.metrics import get_metric
    from allocator.objective import find_objective
    from allocator.provenance import FOOTNOTE, MARK, flatters
    from allocator.summary import Summary
    from allocator.tables import Table
    from codec import get_codec
    from codec.files import write_file
    from submissions.decode import decode
    from submissions.decoder import DECODER, make_decoder
    from submissions.manifest import ARCHIVE
    from submissions.submit import submit
    from submissions.verify import verify

    use_weights(metric_weights)
    say = functools.partial(echo, err=as_json)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AllocatorError(f"{out}: can't be created as a folder ({error.strerror}).") from error
    photos = copy_photos(out / "photos", SIDE)
    metric = get_metric("lpips")
    codecs = [get_codec(name) for name in dict.fromkeys(codec or ["po-dkic", "hevc"])]
    levels = sum(len(codec.levels) for codec in codecs)
    names = " and ".join(codec.name for codec in codecs)
    say(f"Measuring {len(photos)} photos at {levels} levels of {names}.")
    table = out / "demo.db"
    with showing_progress() as progress:
        al.build(table, photos, codecs, [metric, "psnr"], jobs=jobs, progress=progress)
    better = "higher" if metric.higher_is_better else "lower"
    alone = [codec.name for codec in codecs] if len(codecs) > 1 else []
    rows, rates = [], []
    decoder = None
    if sys.platform == "linux":  # as on the challenge servers
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        decoder = make_decoder(codecs, [python], machine=platform.machine())
        write_file(out / DECODER, decoder.data)
    with Table(table) as opened:
        points = read_points(opened)
        objective = find_objective(opened, [metric.name])
        for target in TARGETS:
            budget = make_budget(points, "pooled", target=Fraction(target))
            allocation = allocate(points, budget, objective)
            folder = out / target
            submit(opened, allocation, folder, decoder=decoder)
            verdict = verify(folder)
            if not verdict.passed:
                raise AllocatorError("\n".join(verdict.failures))
            decode(folder / ARCHIVE, folder / "images")
            parts = [_try_to_allocate(points[points["codec"] == name], budget, objective) for name in alone]
            strategies = [allocation, *parts, allocation.single, allocation.equal]
            rows.append([target, f"{int(budget.limit):,}", f"{allocation.bytes:,}", *map(_value, strategies)])
            rates.append(
                {
                    **Summary(allocation).record(),
                    "alone": {a: w and w.value for a, w in zip(alone, parts, strict=True)},
                }
            )
    alone_heads = [f"{name}{MARK if flatters(metric.name, name) else ''} alone" for name in alone]
    heads = ["bpp", "budget bytes", "used bytes", "chosen by image", *alone_heads]
    heads += ["best single level", "equal rate for each"]
    title = f"Mean {metric.name} ({better} is better) of several strategies at the same budget"
    footnote = [FOOTNOTE] if any(MARK in head for head in heads) else []
    emit({"out": out, "allocations": rates}, grid(heads, rows, title), *footnote, as_json=as_json)
    say(f"Verified: all {len(photos)} images of the {len(TARGETS)} submissions decode from their archives alone.")
    say(f"Compare   {photos[0]}")
    say(f"with      {out / TARGETS[0] / 'images' / photos[0].stem}.png")
    say(f"Upload    {out / DECODER if decoder else 'a decoder'} and {out / TARGETS[0] / ARCHIVE}")
    say(f"Next      allocator tables show {table}")


def _try_to_allocate(points: Any, budget: Any, objective: Any) -> Any:
    from allocator.allocation import AllocationError, allocate

    try:
        return allocate(points, budget, objective)
    except AllocationError:
        return None


def _value(baseline: Any) -> str:
    return "not possible" if baseline is None else f"{baseline.value:.4f}"
