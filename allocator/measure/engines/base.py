"""What an engine is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from allocator.errors import AllocatorError
from allocator.metrics import Metric
from codec import Codec

T = TypeVar("T")


class WorkerLost(AllocatorError):
    """A process died with the same item again and again."""


class Workers(Protocol):
    """Processes that wait for work."""

    def completed(
        self, function: Callable[[T], Any], items: Iterable[T]
    ) -> Iterator[Sequence[tuple[T, Future[Any]]]]:
        """Items with what became of them, as they finish, in batches; few are under way at a time.

        A future holds the function's value; or a :class:`codec.CodecError` of its, or a :class:`WorkerLost`.

        Args:
            function: of a module, run by a worker.
            items: taken only as workers come free, so that what isn't begun takes no memory.

        Raises:
            AllocatorError: the work can't go on.
        """


class Engine(ABC):
    """Starts workers, each of which loads codecs and metrics once."""

    @abstractmethod
    def start(self, codecs: Sequence[Codec], metrics: Sequence[Metric]) -> AbstractContextManager[Workers]:
        """Workers that never outlive the block.

        Raises:
            AllocatorError: they can't be started.
        """
