"""The instructions of CONTRIBUTING.md, followed in a copy of the packages: the files that it names are enough."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from allocator.schema import SCHEMA_VERSION

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "0.1.0"

NEW = "the whole file"
SCHEMA = SCHEMA_VERSION + 1
JOURNEYS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "a codec": {
        "codec/tiles.py": [
            (
                NEW,
                '''
                """Means of tiles, for the test."""

                import zlib

                import numpy as np

                from codec.base import BitstreamError, Codec, RGBImage

                SIDES = (8, 4, 2)


                class Tiles(Codec):
                    """Means of square tiles, deflated."""

                    name, suffix, version = "tiles", ".tiles", "1"
                    levels = tuple(f"side{side}" for side in SIDES)

                    def encode(self, image: RGBImage, level: int) -> bytes:
                        side, (height, width, _) = SIDES[level], image.shape
                        padded = np.pad(image, ((0, -height % side), (0, -width % side), (0, 0)), "edge")
                        tiles = padded.reshape(len(padded) // side, side, -1, side, 3).mean((1, 3)).astype(np.uint8)
                        head = np.array([side, height, width], "<u2").tobytes()
                        return head + zlib.compress(tiles.tobytes(), 9)

                    def decode(self, data: bytes) -> RGBImage:
                        try:
                            side, height, width = map(int, np.frombuffer(data[:6], "<u2"))
                            tiles = np.frombuffer(zlib.decompress(data[6:]), np.uint8)
                            tiles = tiles.reshape(-(-height // side), -(-width // side), 3)
                        except (ValueError, zlib.error) as error:
                            raise BitstreamError(f"not a whole tiles bitstream ({error}).") from error
                        return np.ascontiguousarray(tiles.repeat(side, 0).repeat(side, 1)[:height, :width])
                ''',
            )
        ],
        "pyproject.toml": [
            ('webp = "codec.pillow:webp"\n', 'webp = "codec.pillow:webp"\ntiles = "codec.tiles:Tiles"\n')
        ],
        "codec/code_digest.py": [('    "codec.tuned",\n', '    "codec.tuned",\n    "codec.tiles",\n')],
    },
    "a metric": {
        "allocator/metrics/mean_error.py": [
            (
                NEW,
                '''
                """The mean absolute error, for the test."""

                from typing import Any

                import numpy as np

                from allocator.metrics.base import Metric
                from codec import RGBImage


                class MeanError(Metric):
                    """Of samples from 0 to 255."""

                    name, version, higher_is_better = "mean-error", "1", False

                    def compare(self, reference: Any, decoded: RGBImage) -> float:
                        return float(np.abs(reference.astype(int) - decoded).mean())
                ''',
            )
        ],
        "pyproject.toml": [
            (
                'psnr = "allocator.metrics.fidelity:PSNR"\n',
                'psnr = "allocator.metrics.fidelity:PSNR"\nmean-error = "allocator.metrics.mean_error:MeanError"\n',
            )
        ],
    },
    "a constraint": {
        "allocator/constraints.py": [
            (
                "    most_bpp: float | None = None\n",
                "    most_bpp: float | None = None\n    most_bytes: int | None = None\n",
            ),
            (
                "        for choice in self.forbidden:\n",
                "        if self.most_bytes is not None:\n"
                '            keep &= points["bytes"].to_numpy() <= self.most_bytes\n'
                "        for choice in self.forbidden:\n",
            ),
        ],
        "allocator/problem.py": [
            (
                "    forbid: Sequence[str | Choice]\n",
                "    most_bytes: int | None\n"
                '    """No image may get more bytes."""\n'
                "    forbid: Sequence[str | Choice]\n",
            ),
            (
                '                most_bpp=options.get("most_bpp"),\n',
                '                most_bpp=options.get("most_bpp"),\n'
                '                most_bytes=options.get("most_bytes"),\n',
            ),
        ],
        "allocator/cli/solving.py": [
            (
                "    forbid: Annotated[\n",
                '    most_bytes: Annotated[int | None, option("--most-bytes", help="Most for an image.")] = None\n'
                "    forbid: Annotated[\n",
            ),
            (
                "                most_bpp=self.most_bpp,\n",
                "                most_bpp=self.most_bpp,\n                most_bytes=self.most_bytes,\n",
            ),
        ],
    },
    "a measured column": {
        "allocator/points.py": [
            (
                "    bitstream: Bitstream | None = None\n",
                "    peak_bytes: int = field(\n"
                f'        metadata=_stored(Column("INTEGER", 0, 1 << 50, since={SCHEMA}, default="0"))\n'
                "    )\n"
                "    bitstream: Bitstream | None = None\n",
            )
        ],
        "allocator/measure/worker.py": [
            ("bitstream=data,\n", "bitstream=data,\n                peak_bytes=3 * len(data),\n")
        ],
    },
    "an engine": {
        "allocator/measure/engines/inline.py": [
            (
                NEW,
                '''
                """This very process, for the test."""

                from collections.abc import Iterable, Iterator, Sequence
                from concurrent.futures import Future
                from contextlib import contextmanager
                from typing import Any

                from allocator.measure import worker
                from allocator.measure.engines.base import Engine
                from allocator.metrics import Metric
                from codec import Codec, CodecError


                class Inline(Engine):
                    """Works as it is asked to."""

                    @contextmanager
                    def start(self, codecs: Sequence[Codec], metrics: Sequence[Metric]) -> Iterator["Inline"]:
                        worker.prepare(codecs, metrics)
                        yield self

                    def completed(self, function: Any, items: Iterable[Any]) -> Iterator[Any]:
                        for item in items:
                            future: Future[Any] = Future()
                            try:
                                future.set_result(function(item))
                            except CodecError as error:
                                future.set_exception(error)
                            yield [(item, future)]
                ''',
            )
        ],
        "allocator/measure/engines/__init__.py": [
            (
                "from allocator.measure.engines.local import Local\n",
                "from allocator.measure.engines.inline import Inline\n"
                "from allocator.measure.engines.local import Local\n",
            ),
            ('__all__ = ["Engine", ', '__all__ = ["Engine", "Inline", '),
        ],
        "allocator/cli/tables.py": [
            ('    ray = "ray"\n', '    ray = "ray"\n    inline = "inline"\n'),
            ("import Engine, Local, Ray\n", "import Engine, Inline, Local, Ray\n"),
            (
                "        EngineName.local: lambda: Local(jobs),\n",
                "        EngineName.local: lambda: Local(jobs),\n        EngineName.inline: Inline,\n",
            ),
        ],
    },
    "a network": {
        "codec/plain.py": [
            (
                NEW,
                '''
                """Convolutions alone, for the test."""

                from dataclasses import dataclass
                from typing import ClassVar

                from torch import Tensor, nn

                from codec.layers.blocks import down, fold, unfold, up
                from codec.network import NetworkConfig


                @dataclass(frozen=True)
                class PlainConfig(NetworkConfig):
                    """Its sizes."""

                    family: ClassVar[str] = "plain"

                    def analysis(self) -> nn.Module:
                        a, b, c = self.channels
                        return nn.Sequential(fold(a, 2), down(a, b), down(b, c), down(c, self.latent))

                    def synthesis(self) -> nn.Module:
                        return Synthesis(self)

                    def hyper_block(self) -> nn.Module:
                        return nn.ReLU()


                class Synthesis(nn.Module):
                    """The same for all levels."""

                    def __init__(self, config: PlainConfig) -> None:
                        super().__init__()
                        a, b, c = config.channels
                        self.layers = nn.Sequential(up(config.latent, c), up(c, b), up(b, a), unfold(a, 2))

                    def forward(self, latents: Tensor, level: Tensor) -> Tensor:
                        return self.layers(latents)  # type: ignore[no-any-return]


                SMALL = PlainConfig(
                    channels=(4, 4, 8),
                    latent=8,
                    hyper=8,
                    global_channels=8,
                    slices=(4, 4),
                    stages=(2, 2),
                    channel_widths=(8,),
                    parameter_widths=(8,),
                    context_kernel=3,
                )
                ''',
            )
        ],
        "codec/families.py": [
            ('"llic": "codec.llic:LLICConfig"', '"llic": "codec.llic:LLICConfig", "plain": "codec.plain:PlainConfig"')
        ],
        "codec/configurations.py": [
            ("from codec.network import", "from codec.plain import SMALL\nfrom codec.network import"),
            ('    "compact": COMPACT,\n', '    "compact": COMPACT,\n    "plain-small": SMALL,\n'),
        ],
        "codec/code_digest.py": [('    "codec.pillow",\n', '    "codec.pillow",\n    "codec.plain",\n')],
        "codec/training/recipes/plain.toml": [
            (
                NEW,
                """
                format = 1
                [network]
                configuration = "plain-small"
                [data]
                crop = 64
                batch = 2
                validation = 1
                [loss]
                lpips = 0.0
                gan = 0.0
                [rate]
                targets = [0.1, 0.5]
                above = [0.1, 0.1]
                below = [0.1, 0.1]
                [[stages]]
                steps = 2
                """,
            )
        ],
    },
}
"""What each journey adds to which files: a whole file, or a text in the place of another."""


def sections() -> dict[str, str]:
    """The journeys of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"^## Add (.+)\n\n((?:(?!^## ).*\n)+)", text, re.MULTILINE))


def named_files(section: str) -> set[str]:
    return set(re.findall(r"`([\w./-]+/[\w.-]+\.\w+|pyproject\.toml)`", section))


@pytest.mark.parametrize("journey", JOURNEYS)
def test_the_files_of_a_journey_are_those_that_it_names(journey: str) -> None:
    named = named_files(sections()[journey])
    assert not [name for name in named if "NAME" not in name and not (ROOT / name).is_file()]
    for file, changes in JOURNEYS[journey].items():
        stem = Path(file).stem
        name = file.replace(stem, "NAME") if changes[0][0] == NEW else file
        assert name in named, f"{file} is changed, and CONTRIBUTING.md doesn't say so"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which all journeys were made, installed as pip leaves it."""
    folder = tmp_path_factory.mktemp("house")
    for package in ("allocator", "codec", "submissions"):
        unneeded = shutil.ignore_patterns("__pycache__", "banks", "photos")
        shutil.copytree(ROOT / package, folder / package, ignore=unneeded)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for changes in JOURNEYS.values():
        for file, replaced in changes.items():
            for old, new in replaced:
                change(folder / file, old, new)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "clic_allocator-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clic-allocator\nVersion: 0\n")
    groups = (
        [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        for group, entries in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text("\n".join(line for group in groups for line in group) + "\n")
    return folder


def change(path: Path, old: str, new: str) -> None:
    if old == NEW:
        assert not path.exists()
        path.write_text(textwrap.dedent(new).lstrip())
        return
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} no longer has {old!r} once: is the journey still as described?"
    path.write_text(text.replace(old, new))


def run_python(house: Path, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def table(house: Path, photos: Path) -> Path:
    """Built by the new codec, metric and engine."""
    build = ("tables", "build", photos, "-c", "tiles", "-m", "mean-error", "--engine", "inline", "-o", "run.db")
    run_python(house, "-m", "allocator", *build)
    return house / "run.db"


def test_a_table_holds_the_new_codec_metric_and_column(house: Path, table: Path) -> None:
    run_python(house, "-m", "allocator", "tables", "export", table, "--out", "points.csv")
    points = pd.read_csv(house / "points.csv")
    assert len(points) == 5 * 3
    assert {*points["codec"]} == {"tiles"}
    assert (points["peak_bytes"] == 3 * points["bytes"]).all()
    levels = points.groupby("level")[["bytes", "mean-error"]].mean()
    assert levels["bytes"].is_monotonic_increasing
    assert levels["mean-error"].is_monotonic_decreasing


def test_a_new_column_of_an_older_table_has_its_default(house: Path) -> None:
    shutil.copy(GOLDEN / "table.db", house / "old.db")
    run_python(house, "-m", "allocator", "tables", "export", "old.db", "--out", "old.csv")
    assert {*pd.read_csv(house / "old.csv")["peak_bytes"]} == {0}
    with sqlite3.connect(house / "old.db") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)


def test_a_new_constraint_binds(house: Path, table: Path) -> None:
    solve = ("-m", "allocator", "solve", table, "--target", "20", "--out", "chosen.csv")
    run_python(house, *solve)
    most = int(pd.read_csv(house / "chosen.csv")["bytes"].max()) - 1
    run_python(house, *solve, "--most-bytes", most)
    assert pd.read_csv(house / "chosen.csv")["bytes"].max() <= most


def test_a_new_network_is_trained_and_codes(house: Path, photos: Path) -> None:
    run_python(house, "-m", "allocator", "train", "plain", "--photos", photos, "--out", "run")
    coded = f"coder = codec.get('run/bank'); data = coder.encode({str(photos / 'rocket.png')!r}, level=1)"
    assert run_python(house, "-c", f"import codec; {coded}; print(coder.decode(data).shape)") == "(128, 96, 3)\n"


def test_new_code_is_recorded(house: Path) -> None:
    run_python(house, "-m", "codec.code_digest")
    run_python(house, "-m", "allocator.metrics")
    recorded = "".join((house / package / "code_digests.json").read_text() for package in ("codec", "allocator"))
    assert {"codec.tiles", "codec.plain", "allocator.metrics.mean_error"} <= {*re.findall(r"[\w.]+", recorded)}
