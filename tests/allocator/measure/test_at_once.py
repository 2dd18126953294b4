"""Commands that use one table at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest


def at_once(folder: Path, rounds: int, seed: int) -> None:
    command = [sys.executable, "-m", "tests.allocator.measure.at_once", str(folder), str(rounds), str(seed)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "always one of the serial orders" in done.stdout


def test_commands_at_once_end_as_if_one_after_the_other(tmp_path: Path) -> None:
    at_once(tmp_path, 40, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_thousands_of_commands_at_once(seed: int, tmp_path: Path) -> None:
    at_once(tmp_path, 500, seed)
