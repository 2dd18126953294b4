"""The main job from start to end on real photos, for a first look."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as Grid

from allocator.allocation import allocate, make_budget, read_points
from allocator.errors import AllocatorError
from allocator.metrics import Metric, MetricError, get_metric
from allocator.tables import Table
from codec import get_codec
from submissions.decode import decode
from submissions.submit import ARCHIVE, submit
from submissions.verify import verify

if TYPE_CHECKING:
    from allocator.build import BuildReport

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
TARGETS = ("0.075", "0.15", "0.3")


def run(out: Path, jobs: int | None, console: Console, build: Callable[..., "BuildReport"]) -> None:
    """Measure, solve, submit and verify at the challenge's three rates, and say what came out.

    Raises:
        AllocatorError: the photos are missing, or a step fails.
    """
    photos = _photos()
    objective = _perceptual(console)
    codecs = [get_codec("avif"), get_codec("hevc")]
    levels = sum(len(codec.levels) for codec in codecs)
    console.print(f"Measuring {len(photos)} photos at {levels} levels of AVIF and HEVC.")
    table = out / "demo.db"
    out.mkdir(parents=True, exist_ok=True)
    build(table, photos, codecs, [objective, get_metric("psnr")], jobs=jobs)
    better = "higher" if objective.higher_is_better else "lower"
    grid = Grid(title=f"Mean {objective.name} ({better} is better) of the same budget, spent in three ways")
    for heading in ("target\nbpp", "budget\nbytes", "used\nbytes", "allocated\nby image", "best single\nlevel"):
        grid.add_column(heading, justify="right")
    grid.add_column("equal rate\nfor each", justify="right")
    grid.add_column("verified")
    with Table(table) as opened:
        frame = read_points(opened)
        for target in TARGETS:
            allocation = allocate(
                frame,
                make_budget(frame, "pooled", target=Fraction(target)),
                objective.name,
                higher_is_better=objective.higher_is_better,
            )
            folder = out / target
            submit(opened, allocation, folder)
            verdict = verify(folder)
            if not verdict.passed:
                raise AllocatorError("\n".join(verdict.failures))
            decode(folder / ARCHIVE, folder / "images")
            grid.add_row(
                target,
                f"{int(allocation.budget.limit):,}",
                f"{allocation.bytes:,}",
                f"{allocation.mean_objective:.4f}",
                *(_value(baseline) for baseline in (allocation.single, allocation.equal)),
                f"{verdict.images} decode",
            )
    console.print(grid)
    console.print(f"Look at   {photos[0]}\nbeside    {out / TARGETS[0] / 'images' / photos[0].stem}.png")
    console.print(f"Upload    {out / TARGETS[0] / ARCHIVE}\nGo on     allocator tables show {table}", soft_wrap=True)


def _photos() -> list[Path]:
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    if missing := [name for name in PHOTOS if not (folder / name).is_file()]:
        raise AllocatorError(f"{folder}: this scikit-image comes without {', '.join(missing)}; install another.")
    return [folder / name for name in PHOTOS]


def _perceptual(console: Console) -> Metric:
    try:
        return get_metric("lpips")
    except MetricError as error:
        console.print(f"Optimising MS-SSIM instead of LPIPS: {error}", soft_wrap=True)
        return get_metric("ms-ssim")


def _value(baseline: Any) -> str:
    return "not possible" if baseline is None else f"{baseline.objective:.4f}"
