"""Exports of the page, which run in the background, one at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from allocator.errors import AllocatorError
from codec.base import UserError

Report = Callable[[int, int], None]
"""Called with the finished steps and the number of all steps."""


@dataclass
class Job:
    """An export that is running or has ended."""

    what: str
    done: int = 0
    total: int = 0
    ended: bool = False
    failed: bool = False
    sentence: str = ""
    """The result, or the error."""

    def record(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return dict(vars(self))


class Jobs:
    """Runs one job at a time, and refuses another one meanwhile."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self.last: Job | None = None

    def start(self, what: str, work: Callable[[Report], str]) -> None:
        """Start a job.

        Args:
            what: a short description.
            work: writes the export, and returns a sentence about it.

        Raises:
            AllocatorError: another job is running.
        """
        with self._lock:
            if self.last and not self.last.ended:
                raise AllocatorError(f"{self.last.what} is still being written; wait until it is done.")
            self.last = job = Job(what)
        self._pool.submit(self._run, job, work)

    def _run(self, job: Job, work: Callable[[Report], str]) -> None:
        def report(done: int, total: int) -> None:
            job.done, job.total = done, total

        try:
            job.sentence = work(report)
        except (UserError, OSError, MemoryError) as error:
            job.failed, job.sentence = True, str(error) or "Not enough memory."
        except Exception as error:  # the page must show every error
            job.failed, job.sentence = True, f"An error of this program: {error!r}. Please report it."
        finally:
            job.ended = True
