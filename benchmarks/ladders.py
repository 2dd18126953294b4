"""Place the classical codecs' ladders: 16 settings evenly in log-rate, measured on training photos.

    ALLOCATOR_DATA=... python benchmarks/ladders.py [--images 24]

Prints, for each codec, the settings to write into ``codec/pillow.py`` and the rate of each: the geometric mean over
768x512 centre crops.
"""

import argparse
import io
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from codec import get_codec, read_image
from codec.pillow import PillowCodec

LEVELS, LEAST, MOST = 16, 0.03, 2.0
CANDIDATES = {
    "avif": {f"q{q}": {"quality": q} for q in range(0, 100)},
    "hevc": {f"crf{crf}": {"quality": 100 - 2 * crf} for crf in range(50, 9, -1)},
    "jpeg": {f"q{q}": {"quality": q} for q in range(1, 96)},
    "jxl": {f"q{q}": {"quality": q} for q in range(0, 99)},
    "webp": {f"q{q}": {"quality": q} for q in range(0, 100)},
}


def log_rates(name: str, path: Path) -> list[float]:
    """Log bits per pixel of one photo's centre at each candidate."""
    codec = get_codec(name)
    assert isinstance(codec, PillowCodec)
    image = read_image(path)
    top, left = max(0, image.shape[0] - 512) // 2, max(0, image.shape[1] - 768) // 2
    crop = Image.fromarray(image[top : top + 512, left : left + 768])
    rates = []
    for arguments in CANDIDATES[name].values():
        buffer = io.BytesIO()
        crop.save(buffer, codec.format, **arguments, **codec.options)
        rates.append(np.log(8 * buffer.tell() / (crop.width * crop.height)))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    arguments = parser.parse_args()
    photos = sorted(Path(os.environ["ALLOCATOR_DATA"], "train").glob("*.jpg"))
    photos = photos[:: max(1, len(photos) // arguments.images)][: arguments.images]
    with ProcessPoolExecutor() as pool:
        for name, candidates in CANDIDATES.items():
            measured = pool.map(log_rates, [name] * len(photos), photos)
            rates = np.minimum.accumulate(np.mean(list(measured), axis=0)[::-1])[::-1]
            wanted = np.linspace(max(rates[0], np.log(LEAST)), min(rates[-1], np.log(MOST)), LEVELS)
            nearest = sorted({int(np.argmin(abs(rates - rate))) for rate in wanted})
            print(
                f"{name}: " + ", ".join(f"{list(candidates)[i]} {np.exp(rates[i]):.3f}" for i in nearest),
                flush=True,
            )


if __name__ == "__main__":
    main()
