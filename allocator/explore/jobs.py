"""What the page has written: one thing at a time, in the background."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from allocator.errors import AllocatorError
from codec.base import UserError

Report = Callable[[int, int], None]
"""Takes what is done, and of how much."""


@dataclass
class Job:
    """Something that is being written, or was."""

    what: str
    done: int = 0
    total: int = 0
    ended: bool = False
    failed: bool = False
    sentence: str = ""
    """What came of it."""

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


class Jobs:
    """Runs one job after the other; a new one is refused while one runs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self.last: Job | None = None

    def start(self, what: str, work: Callable[[Report], str]) -> None:
        """Begin a job.

        Args:
            what: a few words on it.
            work: does it, and gives a sentence on what was written.

        Raises:
            AllocatorError: another one hasn't ended.
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
        except Exception as error:  # the page has to hear of it, whatever it is
            job.failed, job.sentence = True, f"An error of this program: {error!r}. Please report it."
        finally:
            job.ended = True
