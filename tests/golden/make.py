"""Write samples of all formats for a release: ``python tests/golden/make.py``, from the repository's root.

They go to ``tests/golden/VERSION/`` and never change again; ``tests/test_golden.py`` reads those of all releases.
"""

import contextlib
import dataclasses
import hashlib
import json
import platform
import shutil
import sqlite3
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
from PIL import Image

import allocator as al
import codec
from allocator.images import SHIPPED_PHOTOS
from codec.bank_builder import create_bank
from codec.learned import LearnedCodec
from codec.registry import CODECS
from codec.training.recipe import RECIPES, read_recipe

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.codec.networks import TINY, TINY_LLIC, network

HERE = Path(__file__).parent
CROPS = {"one": (300, 200, 380, 260), "two": (500, 300, 564, 348)}


def latents_sha256(learned: LearnedCodec, data: bytes) -> str:
    """Of a stream's latents as integers on the grid, in a byte order that every machine has."""
    return hashlib.sha256(learned.decode_latents(data).numpy().astype("<i8").tobytes()).hexdigest()


def write_streams(folder: Path, image: Path) -> None:
    """A stream of every codec that is installed along, and of both families of networks."""
    folder.mkdir()
    for name in sorted(entry_points(group=CODECS).names):
        coder = codec.get(name)
        if name != "original":
            write_stream(folder / name, coder, coder.encode(image, level=len(coder.levels) // 2))
    latents = {}
    for name, config in (("dkic", TINY), ("llic", TINY_LLIC)):
        learned = LearnedCodec(create_bank(folder.parent / "banks" / name, f"tiny-{name}", [network(config)]))
        data = learned.encode(codec.read_image(image), level=1)
        write_stream(folder / f"tiny-{name}", learned, data)
        latents[f"tiny-{name}"] = latents_sha256(learned, data)
    (folder / "latents.json").write_text(json.dumps(latents, indent=1) + "\n")


def write_stream(place: Path, coder: codec.Codec, data: bytes) -> None:
    """A stream, and the pixels that it decodes to."""
    place.with_suffix(coder.suffix).write_bytes(data)
    Image.fromarray(coder.decode(data)).save(f"{place}.png", optimize=True)


def write_recipe(folder: Path) -> None:
    """A recipe, and what it means."""
    shutil.copy(RECIPES / "po-dkic-compact-gpu.toml", folder / "recipe.toml")
    meant = dataclasses.asdict(read_recipe(folder / "recipe.toml"))
    (folder / "recipe.json").write_text(json.dumps(meant, indent=1) + "\n")


def write_table_and_submission(folder: Path, work: Path) -> None:
    """A table of two images, and what was submitted of it."""
    packing = al.DecoderOptions([f"{sys.version_info.major}.{sys.version_info.minor}"], machine=platform.machine())
    with al.build(work / "run.db", folder / "images", ["jpeg"], ["psnr"], jobs=1) as table:
        table.allocate(bpp=2).submit(work / "entry", decoder=packing)
        table.frame().drop(columns=["path", "encode_seconds", "decode_seconds"]).to_csv(
            folder / "table.csv", index=False
        )
    with contextlib.closing(sqlite3.connect(work / "run.db", isolation_level=None)) as connection:
        connection.execute("UPDATE member SET path = name || '.png'")
        connection.execute("VACUUM")
    shutil.copy(work / "run.db", folder / "table.db")
    shutil.copytree(work / "entry", folder / "submission")
    manifest = json.loads((work / "entry" / "manifest.json").read_text())
    manifest["table"] = "run.db"
    for entry in manifest["entries"]:
        entry["path"] = f"{entry['name']}.png"
    (folder / "submission" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def main() -> None:
    """Make the folder of this version."""
    folder = HERE / al.__version__
    if folder.exists():
        sys.exit(f"{folder}: is there already, and samples never change.")
    (folder / "images").mkdir(parents=True)
    photo = Image.open(SHIPPED_PHOTOS / "spices.jpg").convert("RGB")
    for name, box in CROPS.items():
        Image.fromarray(np.asarray(photo.crop(box))).save(folder / "images" / f"{name}.png")
    write_recipe(folder)
    write_streams(folder / "streams", folder / "images" / "one.png")
    with tempfile.TemporaryDirectory() as work:
        write_table_and_submission(folder, Path(work))


if __name__ == "__main__":
    main()
