"""Commands that use one table at the same time."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from allocator.measure import worker
from allocator.measure.build import build
from allocator.metrics import Metric
from allocator.tables import Table
from codec import Codec
from tests.allocator.measure.at_once import BAD, Inline, Made, Zero


def at_once(folder: Path, rounds: int, seed: int) -> None:
    command = [sys.executable, "-m", "tests.allocator.measure.at_once", str(folder), str(rounds), str(seed)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "always one of the serial orders" in done.stdout


def test_commands_at_once_end_as_if_one_after_the_other(tmp_path: Path) -> None:
    at_once(tmp_path, 40, 0)


class Meddling(Inline):
    """An engine that lets others at the table before it measures, each time it is asked to."""

    def __init__(self, *meddle: Callable[[], None]) -> None:
        self._left = list(meddle)

    @contextmanager
    def start(self, codecs: Sequence[Codec], metrics: Sequence[Metric]) -> Iterator["Meddling"]:
        worker.prepare(codecs, metrics)
        yield self

    def completed(self, function: Any, items: Any) -> Iterator[Any]:
        items = list(items)
        if items and isinstance(items[0], worker.Task) and self._left:
            self._left.pop(0)()
        yield from super().completed(function, items)


def photo(folder: Path, name: str, variant: int) -> Path:
    path = folder / f"{name}.png"
    Image.fromarray(np.full((2, 2, 3), variant, np.uint8)).save(path)
    return path


def test_a_new_versions_points_replace_the_old_ones_at_once(tmp_path: Path) -> None:
    """Another build, which drops images without points as it ends, meets the old or the new ones."""
    table, image = tmp_path / "run.db", photo(tmp_path, "a", 1)
    found: list[int] = []

    def look() -> None:
        with Table(table) as opened:
            found.append(len(opened.frame()))

    build(table, [image], [Made("one", "1")], [Zero()], engine=Inline())
    build(table, [image], [Made("one", "2")], [Zero()], engine=Meddling(look))
    look()
    assert found == [2, 2]


def test_a_build_that_begins_again_puts_in_no_image_that_others_drop(tmp_path: Path) -> None:
    """Else what they drop of the same pixels would stay."""
    table, known, new = tmp_path / "run.db", photo(tmp_path, "c", BAD), photo(tmp_path, "a", 2)
    again = photo(tmp_path, "b", BAD)

    def drop(*names: str) -> None:
        with Table(table) as opened:
            opened.drop(names)

    build(table, [known], [Made("one", "1")], [Zero()], engine=Inline())
    build(table, [new], [Made("two", "1")], [Zero()], engine=Inline())
    meddling = Meddling(lambda: drop("a"), lambda: drop("c"))
    build(table, [new, again], [Made("two", "1")], [Zero()], engine=meddling, keep_going=True)
    with Table(table) as opened:
        assert [member.name for member in opened.members()] == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_thousands_of_commands_at_once(seed: int, tmp_path: Path) -> None:
    at_once(tmp_path, 500, seed)
