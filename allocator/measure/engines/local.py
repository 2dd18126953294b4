"""Local processes."""

import contextlib
import itertools
import multiprocessing.context
import pickle
import signal
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from allocator.errors import AllocatorError
from allocator.measure.engines.base import Engine, Workers
from allocator.measure.worker import prepare
from allocator.metrics import Metric
from codec import Codec
from codec.workers import MOST_PROCESSES, cores, leave_with_parent

T = TypeVar("T")
_POLL = 0.5  # seconds; Windows handles Ctrl-C only between waits


@dataclass(frozen=True)
class Local(Engine):
    """Processes of one thread each."""

    jobs: int | None = None
    """The number of processes; by default one for each core."""

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 0:
            raise AllocatorError(f"The number of processes can't be {self.jobs}.")

    @property
    def processes(self) -> int:
        """The number of processes."""
        return min(self.jobs or cores(), MOST_PROCESSES)

    @contextlib.contextmanager
    def start(self, codecs: Sequence[Codec], metrics: Sequence[Metric]) -> Iterator[Workers]:
        pool = ProcessPoolExecutor(
            self.processes,
            mp_context=_context(codecs, metrics),
            initializer=_prepare,
            initargs=(codecs, metrics),
        )
        ended = False
        try:
            yield _Pool(pool, self.processes)
            ended = True
        except BrokenProcessPool as error:
            raise AllocatorError(
                "A worker process was killed, most likely because memory ran out. The measurements are kept; "
                "build again with fewer processes.",
                hint={"jobs": "N"},
            ) from error
        finally:
            own = [*(pool._processes or {}).values()]
            # a pool with idle processes ends by itself, and leaves no work for the exit of Python
            pool.shutdown(wait=ended, cancel_futures=True)
            for process in own:
                process.terminate()


class _Process(multiprocessing.context.SpawnProcess):
    """A spawned process that does not run the caller's script again, so that scripts need no ``__main__`` guard."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")  # without a file, nothing is run
        try:
            return multiprocessing.context.SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _Context(multiprocessing.context.SpawnContext):
    Process = _Process


def _context(codecs: Sequence[Codec], metrics: Sequence[Metric]) -> multiprocessing.context.SpawnContext:
    """The way processes start: with the caller's script only if it defines a codec or metric.

    Raises:
        AllocatorError: a codec or metric can't be pickled.
    """
    try:
        needs_main = b"__main__" in pickle.dumps((codecs, metrics))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AllocatorError(
            f"A codec or metric can't be sent to worker processes ({error}); define its class in a module."
        ) from error
    return multiprocessing.get_context("spawn") if needs_main else _Context()


def _prepare(codecs: Sequence[Codec], metrics: Sequence[Metric]) -> None:
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent()
    prepare(codecs, metrics)


@dataclass(frozen=True)
class _Pool:
    pool: ProcessPoolExecutor
    processes: int

    def completed(
        self, function: Callable[[T], Any], items: Iterable[T]
    ) -> Iterator[Sequence[tuple[T, Future[Any]]]]:
        waiting = iter(items)
        running: dict[Future[Any], T] = {}
        while True:
            for item in itertools.islice(waiting, 2 * self.processes - len(running)):
                with _interrupts_held():
                    running[self.pool.submit(function, item)] = item
            if not running:
                return
            while not (done := wait(running, _POLL, FIRST_COMPLETED).done):
                pass
            yield [(running.pop(future), future) for future in done]


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Delay Ctrl-C until the block ends; processes started in the block ignore it, because the parent handles it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows, processes ignore it from :func:`_prepare` on
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
