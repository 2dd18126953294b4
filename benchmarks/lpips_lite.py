"""How well lpips-lite stands in for LPIPS: on pairs, on allocations, and how much faster it is.

    ALLOCATOR_METRIC_WEIGHTS=... python benchmarks/lpips_lite.py FOLDER [--codec NAME] [--beside METRIC]

Builds the table of all codecs by LPIPS (squeeze), lpips-lite, MS-SSIM and PSNR (or continues it); prints Markdown.
The judge is always LPIPS. For allocations: how far the LPIPS of what another metric chose lies above that of what
LPIPS itself chose. ``--beside`` names what else is tried as an objective, by default ms-ssim and psnr.
"""

import argparse
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from allocator.allocation import AllocationError, allocate, make_budget, read_points
from allocator.build import build
from allocator.metrics import Metric, get_metric
from allocator.metrics.lite import SHIPPED, LPIPSLite
from allocator.metrics.lpips import squeeze
from allocator.objective import find_objective
from allocator.tables import Table
from codec import get_codec, names, read_image

TARGETS = ("0.075", "0.15", "0.3")
JUDGE, LITE = "lpips-squeeze", "lpips-lite"


def agreement(points: pd.DataFrame) -> str:
    rank = spearmanr(points[JUDGE], points[LITE]).statistic
    error = (points[JUDGE] - points[LITE]).abs().mean()
    ordered = total = 0
    for _, rows in points.sort_values("level").groupby(["image", "codec"]):
        steps = rows[[JUDGE, LITE]].diff().dropna()
        ordered += int((steps[JUDGE] * steps[LITE] > 0).sum())
        total += len(steps)
    return f"{rank:.4f} | {ordered / total:.2%} of {total} | {error:.4f}"


def regrets(table: Table, points: pd.DataFrame, others: list[str]) -> list[str]:
    lines = []
    for target in TARGETS:
        budget = make_budget(points, "pooled", target=Fraction(target))
        try:
            best = allocate(points, budget, find_objective(table, [JUDGE])).value
        except AllocationError:
            continue
        found = [allocate(points, budget, find_objective(table, [name])).chosen[JUDGE].mean() for name in others]
        lines.append(f"{target} | {best:.4f} | " + " | ".join(f"{value / best - 1:+.2%}" for value in found))
    return lines


def seconds(metric: Metric, path: Path, rounds: int) -> float:
    image = read_image(path)
    decoded = (image // 8 * 8).astype(np.uint8)
    reference = metric.reference(image)
    metric.compare(reference, decoded)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        metric.compare(reference, decoded)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codec", action="append")
    parser.add_argument("--beside", action="append")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    lite, judge = LPIPSLite(arguments.weights), squeeze()
    codecs = arguments.codec or names()
    with tempfile.TemporaryDirectory() as scratch:
        path = arguments.table or Path(scratch, "run.db")
        beside = arguments.beside or ["ms-ssim", "psnr"]
        metrics = [judge, lite, *map(get_metric, beside)]
        build(path, [arguments.folder], [get_codec(name) for name in codecs], metrics)
        with Table(path) as table:
            print("\n| codec | Spearman | neighbours in order | mean error |\n| --- | --- | --- | --- |")
            frames = {name: read_points(table, [name]) for name in codecs}
            frames |= {"all of them": read_points(table, codecs)} if len(codecs) > 1 else {}
            for name, points in frames.items():
                print(f"| {name} | {agreement(points)} |")
            others = [LITE, *beside]
            print(f"\n| codec | bpp | LPIPS by LPIPS | {' | '.join(others)} |\n" + "| --- " * (3 + len(others)) + "|")
            for name, points in frames.items():
                for line in regrets(table, points, others):
                    print(f"| {name} | {line} |")
    torch.set_num_threads(2)
    photo = min(arguments.folder.glob("*.png"))
    fast, slow = (seconds(metric, photo, arguments.rounds) for metric in (lite, judge))
    print(f"\nOne pair of {photo.name} on 2 threads, reference cached: {fast:.4f} s, LPIPS {slow:.4f} s, ", end="")
    print(f"{slow / fast:.1f} times as long.")


if __name__ == "__main__":
    main()
