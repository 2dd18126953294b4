"""The interface of an engine."""

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
    """A process died repeatedly with the same item."""


class Workers(Protocol):
    """A pool of processes that wait for work."""

    def completed(
        self, function: Callable[[T], Any], items: Iterable[T]
    ) -> Iterator[Sequence[tuple[T, Future[Any]]]]:
        """Items with their results in batches, as they finish; few items are in progress at a time.

        A future contains the function's value, or its :class:`codec.CodecError`, or a :class:`WorkerLost`.

        Args:
            function: a function of a module, which a worker calls.
            items: requested only as workers become free, so that items that have not started take no memory.

        Raises:
            AllocatorError: the work can't continue.
        """


class Engine(ABC):
    """Starts workers, each of which loads codecs and metrics once."""

    @abstractmethod
    def start(self, codecs: Sequence[Codec], metrics: Sequence[Metric]) -> AbstractContextManager[Workers]:
        """A pool of workers that ends with the block.

        Raises:
            AllocatorError: they can't be started.
        """
