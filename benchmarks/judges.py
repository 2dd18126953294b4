"""Codecs at the challenge's rates by several metrics, each marked where it was in the loss that trained the codec.

    python benchmarks/judges.py FOLDER --table FILE [--codec NAME ...] [--judge NAME ...] [--every N]

Measures what the rates need of every codec by LPIPS (`alex`), allocates each codec on its own by it, and measures the
other judges on what was chosen, the fast ones first; then prints Markdown. A run that was stopped goes on with the
same command, and prints the judges that are complete. `lpips-vgg` and `dists` need VGG-16's weights
(ALLOCATOR_METRIC_WEIGHTS).
"""

import argparse
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pandas as pd

from allocator.allocation import Budget, allocate, make_budget, read_points
from allocator.images import find_images
from allocator.measure.adaptive import Needed
from allocator.measure.build import Wanted, build
from allocator.measure.engines import Engine, Local
from allocator.metrics import get_metric
from allocator.objective import Objective, find_objective
from allocator.provenance import FOOTNOTE, marked
from allocator.tables import Table
from codec import get_codec

TARGETS = ("0.075", "0.15", "0.3")
OBJECTIVE = "lpips-alex"
CODECS = ("hevc", "avif", "po-dkic")
JUDGES = ("psnr", "ms-ssim", "ssimulacra2", "lpips-squeeze", "lpips-vgg", "dists")
DECIMALS = {"psnr": 2, "ssimulacra2": 2}


def budgets(points: pd.DataFrame) -> list[Budget]:
    """Those that can be met, as far as the lightest levels are known."""
    every = [make_budget(points, "pooled", target=Fraction(target)) for target in TARGETS]
    lightest = points[points["level"] == 0]
    if len(lightest) < points["image"].nunique():
        return every
    return [budget for budget in every if lightest["bytes"].sum() <= budget.limit]


def objective(table: Table) -> Objective:
    return find_objective(table, [OBJECTIVE])


def chosen(table: Table, codec: str) -> dict[float, pd.DataFrame]:
    """What is allocated to each image at each target that can be reached."""
    points = read_points(table, [codec])
    return {budget.bpp: allocate(points, budget, objective(table)).chosen for budget in budgets(points)}


def measure(path: Path, images: Sequence[str], codecs: Sequence[str], judges: Sequence[str], engine: Engine) -> None:
    known = [get_codec(name) for name in codecs]
    for codec in known:
        needed = Needed([codec], lambda table, points: budgets(points), objective, "convex")
        report = build(path, images, [codec], [get_metric(OBJECTIVE)], engine=engine, needed=needed)
        print(f"{codec.name}: {report.points_measured} points measured, {report.points_known} known", flush=True)

    def wanted(table: Table) -> Wanted:
        found: Wanted = {}
        for codec in codecs:
            for row in pd.concat(chosen(table, codec).values()).itertuples():
                found.setdefault((str(row.image), codec), set()).add(int(row.level))
        return found

    for judge in judges:
        report = build(path, images, known, [get_metric(judge)], engine=engine, needed=wanted)
        print(f"{judge}: {report.points_measured} points measured", flush=True)


def show(path: Path, codecs: Sequence[str], judges: Sequence[str]) -> None:
    with Table(path) as table:
        rows = {codec: chosen(table, codec) for codec in codecs}
        names = [name for name in (OBJECTIVE, *judges) if name in table.metrics()]
    frames = [frame for of_codec in rows.values() for frame in of_codec.values()]
    complete = [name for name in names if all(name in frame and frame[name].notna().all() for frame in frames)]
    print(f"\n| bpp | codec | {' | '.join(complete)} |\n{'| --- ' * (len(complete) + 2)}|")
    for target in TARGETS:
        for codec in codecs:
            means = ["out of reach"] * len(complete)
            if (frame := rows[codec].get(float(target))) is not None:
                signs = [marked(name, [codec]) for name in complete]
                means = [
                    f"{frame[name].mean():.{DECIMALS.get(name, 4)}f}{sign}"
                    for name, sign in zip(complete, signs, strict=True)
                ]
            print(f"| {target} | {codec} | {' | '.join(means)} |")
    print(f"\n{FOOTNOTE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--codec", action="append", help=f"by default {', '.join(CODECS)}")
    parser.add_argument("--judge", action="append", help=f"by default {', '.join(JUDGES)}")
    parser.add_argument("--every", type=int, default=1, help="measure every n-th image by name")
    parser.add_argument("--jobs", type=int)
    arguments = parser.parse_args()
    images = [image.path for image in find_images([arguments.folder])][:: arguments.every]
    codecs, judges = arguments.codec or CODECS, arguments.judge or JUDGES
    measure(arguments.table, images, codecs, judges, Local(arguments.jobs))
    show(arguments.table, codecs, judges)


if __name__ == "__main__":
    main()
