"""Progress of long work: a bar in a terminal, and otherwise a line every few seconds."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from allocator.cli.app import console

if TYPE_CHECKING:
    from allocator.measure.build import Progress

_SECONDS = 5.0
"""Seconds between lines without a terminal."""


class Lines:
    """Prints progress on stderr at intervals."""

    def __init__(self, unit: str = "images") -> None:
        self._unit = unit
        self._started = self._said = time.monotonic()
        self._phase, self._fraction = "", 0.0

    def show(self, phase: str, fraction: float, count: str, current: str = "") -> None:
        """Print the progress if the interval has passed.

        Args:
            phase: the phase of the work.
            fraction: the finished share of that phase, 0 to 1.
            count: the number of finished items: ``3/24``.
            current: the last finished item.
        """
        from codec.base import shown

        now = time.monotonic()
        if phase != self._phase or fraction < self._fraction:  # it may take several rounds
            self._phase, self._started = phase, now
        self._fraction = fraction
        if now - self._said < _SECONDS:
            return
        self._said = now
        left = (now - self._started) * (1 - fraction) / fraction if fraction else 0.0
        parts = [
            f"{phase} {count} {self._unit}, {100 * fraction:.0f} %",
            f"about {left:.0f} s left" if left else "",
            shown(current),
        ]
        console(stderr=True).print(", ".join(part for part in parts if part), soft_wrap=True)


@contextlib.contextmanager
def showing_progress() -> "Iterator[Callable[[Progress], None]]":
    """Progress of a build: yields the function to call after each step."""
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from codec.base import shown

    out = console(stderr=True)
    if not out.is_terminal:
        lines = Lines()
        yield lambda one: lines.show(one.phase, one.fraction, f"{one.images_done}/{one.images}", one.current)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[images]} images", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[current]}", markup=False),
    )
    phases: dict[str, TaskID] = {}

    def show(progress: "Progress") -> None:
        if progress.phase not in phases:
            phases[progress.phase] = bars.add_task(progress.phase, total=1.0, images="", current="")
        bars.update(
            phases[progress.phase],
            completed=progress.fraction,
            images=f"{progress.images_done}/{progress.images}",
            current=shown(progress.current),
        )

    with Bars(*columns, console=out) as bars:
        yield show


@contextlib.contextmanager
def waiting(phase: str, unit: str = "images") -> Iterator[Callable[..., None]]:
    """Progress of work on images (or steps).

    Yields the function to call with the finished and total numbers, and optionally with what was finished last.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from codec.base import shown

    out = console(stderr=True)
    if not out.is_terminal:
        lines = Lines(unit)

        def say(done: int, total: int, current: str = "") -> None:
            lines.show(phase, done / total, f"{done}/{total}", current)

        yield say
        return
    texts = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[current]"))
    description, last = texts
    with Progress(
        description, BarColumn(bar_width=20), TimeRemainingColumn(), last, console=out, transient=True
    ) as bars:
        task = bars.add_task(phase, current="")

        def show(done: int, total: int, current: str = "") -> None:
            bars.update(task, completed=done, total=total, current=shown(current))

        yield show
