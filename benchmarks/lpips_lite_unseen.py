"""What lpips-lite loses on a codec that it hasn't seen: each in turn is left out of a short training.

    python benchmarks/lpips_lite_unseen.py DISTILLED [--steps 1000]

DISTILLED is a run's folder of ``allocator metric distill``, whose pairs are used: two thirds of the photos for
training, on crops of 128x128, the others for judging. Prints Markdown: each codec seen in training like all others,
and not.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from allocator.metrics.distillation import CODECS, PAIRS, Distillation, distance_maps, make_optimizers
from allocator.metrics.lite import STRIDES, LiteNet
from codec.training.schedule import learning_rate, move_average

SIDE = 128


class Kept(NamedTuple):
    """A crop, what became of it, LPIPS's maps and the codecs."""

    original: NDArray[np.uint8]
    distorted: NDArray[np.uint8]
    maps: Tensor
    codecs: NDArray[np.str_]


def read(file: Path, crop: int) -> Kept:
    with np.load(file) as kept:
        codecs = np.array([level.partition(" ")[0] for level in kept["levels"][crop]])
        return Kept(kept["original"][crop], kept["distorted"][crop], torch.from_numpy(kept["maps"][crop]), codecs)


def trained(files: list[Path], unseen: str | None, steps: int) -> LiteNet:
    torch.manual_seed(0)
    settings = Distillation(steps=steps)
    network, average = LiteNet().to(memory_format=torch.channels_last), LiteNet().requires_grad_(False)
    average.load_state_dict(network.state_dict())
    optimizers = make_optimizers(network)
    for step in range(steps):
        random = np.random.default_rng((1, step))
        kept = read(files[random.integers(len(files))], int(random.integers(4)))
        top, left = (STRIDES[-1] * int(random.integers((256 - SIDE) // STRIDES[-1] + 1)) for _ in range(2))
        seen = kept.codecs != unseen
        part = (slice(top, top + SIDE), slice(left, left + SIDE))
        cells = tuple(slice(one.start // STRIDES[-1], one.stop // STRIDES[-1]) for one in part)
        wanted = kept.maps[torch.from_numpy(seen)][:, cells[0], cells[1]]
        found = distance_maps(network, kept.original[part], kept.distorted[seen][:, part[0], part[1]])
        scale = 1 / (wanted.mean((1, 2)) + 0.05)
        wrong = (found - wanted).mean((1, 2)).abs()
        loss = (((found - wanted).abs().mean((1, 2)) + wrong) * scale).mean()
        network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings.stage, step)
            optimizer.step()
        move_average(average, network, 0.99, step)
    return average


@torch.no_grad()
def judged(network: LiteNet, files: list[Path], codec: str) -> str:
    ours, theirs = list[float](), list[float]()
    for file in files:
        kept = read(file, 0)
        of_codec = kept.codecs == codec
        ours += distance_maps(network, kept.original, kept.distorted[of_codec]).mean((1, 2)).tolist()
        theirs += kept.maps[torch.from_numpy(of_codec)].mean((1, 2)).tolist()
    error = np.abs(np.subtract(ours, theirs)).mean()
    return f"{spearmanr(ours, theirs).statistic:.4f} | {error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    files = sorted((arguments.folder / PAIRS).glob("*.npz"))
    training, judging = [f for i, f in enumerate(files) if i % 3], files[::3]
    everything = trained(training, None, arguments.steps)
    print("| codec | Spearman, seen | mean error, seen | Spearman, unseen | mean error, unseen |")
    print("| --- | --- | --- | --- | --- |")
    for codec in CODECS:
        without = trained(training, codec, arguments.steps)
        print(f"| {codec} | {judged(everything, judging, codec)} | {judged(without, judging, codec)} |", flush=True)


if __name__ == "__main__":
    main()
