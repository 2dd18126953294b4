"""A proof by PuLP ends as soon as nobody waits for it, with all processes of its solver."""

import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pytest

from allocator.metrics import get_metric
from allocator.points import Point
from allocator.tables import Measured, Member, Table
from tests.allocator import faulty
from tests.allocator.explore.conftest import Served
from tests.helpers import is_running, started, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES, LEVELS = 8, 6
SOLVER = f"{faulty.__name__}:{faulty.Hangs.__name__}"


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that the bounds can't solve at odd budgets: all sizes are even, and every byte gains the same."""
    path = tmp_path_factory.mktemp("hard") / "run.db"
    sizes = 2 * np.sort(np.random.default_rng(1).integers(5_000, 800_000, (IMAGES, LEVELS)), axis=1)
    metric = get_metric("psnr")
    with Table(path, create=True) as table:
        table.add_metrics([metric])
        for image, row in enumerate(sizes.tolist()):
            member = Member(f"image-{image}", f"/photos/{image}.png", digest(image), 2000, 1000)
            points = [
                Point(level, f"q{level}", digest(level), size, 0.1, 0.1, digest(image, level))
                for level, size in enumerate(row)
            ]
            for point in points:
                point.values = {metric.fingerprint: point.bytes / 100_000}
            table.add_members([member])
            table.store([Measured(member, "made", points)])
    return path


@pytest.fixture
def proving(hard: Path, tmp_path: Path) -> Iterator[tuple[Served, Callable[[], list[int]]]]:
    """The command with a solver that never ends, and what waits for the solver's processes."""
    file = tmp_path / "processes"
    environment = {"PROCESSES": str(file), "PYTHONPATH": str(Path(__file__).parents[3])}

    def solving() -> list[int]:
        wait_until(file.exists)
        processes = [int(word) for word in file.read_text().split()]
        assert all(map(is_running, processes))
        return processes

    command = ("explore", hard, "--no-browser", "--budget", 6_400_001, "--solver", SOLVER, "--time-limit", 600)
    with started(*command, env=environment) as process:
        assert process.stdout
        yield Served(process.stdout.readline().strip(), hard, process), solving


def test_a_change_on_the_page_ends_it(
    visit: "Callable[[str], Page]", proving: tuple[Served, Callable[[], list[int]]]
) -> None:
    served, solving = proving
    page = visit(served.address)
    assert "the proof is under way" in page.locator("#proof").inner_text()
    processes = solving()
    page.get_by_label("Budget of the set").focus()
    page.keyboard.press("End")
    page.locator("#proof", has_text="proven optimal").wait_for()
    wait_until(lambda: not any(map(is_running, processes)))


def test_an_interrupt_of_the_command_ends_it(proving: tuple[Served, Callable[[], list[int]]]) -> None:
    served, solving = proving
    url = urlsplit(served.root)
    connection = http.client.HTTPConnection("127.0.0.1", url.port or 80)
    state = served.address.partition("#")[2]
    connection.request("POST", url.path + "prove", json.dumps({"state": state}), {"Content-Type": "application/json"})
    processes = solving()
    assert served.stop() == 0
    assert not any(map(is_running, processes))
    connection.close()
