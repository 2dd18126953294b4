"""Shared functions of the tests of builds."""

import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from allocator.tables import Table
from codec import read_image


def frame(path: Path) -> pd.DataFrame:
    with Table(path) as table:
        return table.frame()


def copy(photos: Path, folder: Path, count: int) -> None:
    """Many different images: shifted copies of the photos."""
    folder.mkdir()
    images = [read_image(path) for path in sorted(photos.iterdir())]
    for index in range(count):
        shifted = np.roll(images[index % len(images)], index, axis=1)
        Image.fromarray(shifted).save(folder / f"{index:03}.png")


def rows(path: Path) -> int:
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM point").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def wait_for_rows(path: Path, least: int, process: "subprocess.Popen[str] | None" = None) -> None:
    """Wait until a table has so many points; fails as soon as the process that writes them has ended."""
    deadline = time.monotonic() + 300  # seconds: a hang, even on a busy machine
    while rows(path) < least:
        assert process is None or process.poll() is None, f"the command ended: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "the command makes no progress"
        time.sleep(0.02)
