"""The saving of refinement at equal PSNR, in actual bytes: a bank's bitstreams with and without searched latents.

    python benchmarks/refinement.py FOLDER [--codec dkic] [--images 3] [--crop 256] [--levels 3,6,9] [--steps 60]

Takes centre crops of images evenly from the folder. The plain bitstream of equal PSNR is found by bisection of the
levels and of the steps between them. Prints Markdown, with CPU seconds per step.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from allocator.images import find_images
from allocator.metrics.fidelity import PSNR
from codec import RGBImage, get_codec, read_image
from codec.learned import LearnedCodec
from codec.refinement import refine


def bytes_at(codec: LearnedCodec, image: RGBImage, psnr: float) -> int:
    """The fewest bytes, of levels and settings between them, whose PSNR is at least ``psnr``."""
    settings = [
        (level, index) for level in range(len(codec.levels)) for index in range(-1, len(codec.between(level)))
    ]

    def encoded(place: int) -> bytes:
        level, index = settings[place]
        return codec.encode(image, level) if index < 0 else codec.encoder_between(image, level)(index)

    low, high = 0, len(settings) - 1
    while low < high:
        middle = (low + high) // 2
        reached = PSNR().compare(image, codec.decode(encoded(middle))) >= psnr
        low, high = (low, middle) if reached else (middle + 1, high)
    return len(encoded(low))


def centre(path: Path, side: int) -> RGBImage:
    image = read_image(path)
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codec", default="dkic")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--levels", default="3,6,9")
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    codec = get_codec(arguments.codec)
    assert isinstance(codec, LearnedCodec)
    paths = [Path(image.path) for image in find_images([arguments.folder])]
    paths = paths[:: max(1, len(paths) // arguments.images)][: arguments.images]
    print("| image | level | bytes | refined | PSNR | refined | bytes saved at equal PSNR | s per step |")
    print("| --- " * 8 + "|", flush=True)
    saved = []
    for path in paths:
        image = centre(path, arguments.crop)
        for level in map(int, arguments.levels.split(",")):
            plain = codec.encode(image, level)
            started = time.process_time()
            refined = refine(codec, image, level, steps=arguments.steps)
            seconds = (time.process_time() - started) / arguments.steps
            before, after = (PSNR().compare(image, codec.decode(data)) for data in (plain, refined))
            saved.append(1 - len(refined) / bytes_at(codec, image, after))
            print(
                f"| {path.stem} | {level} | {len(plain):,} | {len(refined):,} | {before:.2f} | {after:.2f} | "
                f"{100 * saved[-1]:.1f} % | {seconds:.2f} |",
                flush=True,
            )
    print(f"\nMean saving: {100 * np.mean(saved):.1f} %")


if __name__ == "__main__":
    main()
