"""A pool of Ray actors on a cluster, or on this machine."""

import contextlib
import itertools
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from allocator.errors import AllocatorError
from allocator.measure.engines.base import Engine, WorkerLost, Workers
from allocator.measure.worker import prepare
from allocator.metrics import Metric
from codec import Codec, CodecError
from codec.workers import cores

T = TypeVar("T")
_AHEAD = 2
"""Items that a worker has at a time: the current one, and the next one, so that it does not wait."""
_SECONDS = 10.0
"""Seconds within which a cluster's address must answer."""
_TRIES = 3
"""The number of attempts for an item whose worker dies."""


@dataclass(frozen=True)
class Ray(Engine):
    """Actors of one core each, which load codecs and metrics once.

    An actor that dies, with its node or alone, is replaced on any node with room, and its work is repeated.
    Needs the extra ``ray``; all nodes need this package, and the files of codecs, metrics and images.
    """

    address: str | None = None
    """The address of a cluster; ``auto`` on one of its nodes; by default ``RAY_ADDRESS``, or this machine alone."""
    workers: int | None = None
    """The number of workers; by default as many as the cluster has room for at the start."""
    gpus_per_worker: float = 0.0
    """The share of a GPU for each worker; without one it computes on its core."""

    @contextlib.contextmanager
    def start(self, codecs: Sequence[Codec], metrics: Sequence[Metric]) -> Iterator[Workers]:
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise AllocatorError(
                f"A worker takes a share of one GPU or a whole number of GPUs, not {self.gpus_per_worker:g}."
            )
        try:
            import ray
        except ImportError as error:
            raise AllocatorError('The engine ray needs its package: pip install "clic-allocator[ray]".') from error
        with contextlib.ExitStack() as stack:
            # Ray's own messages, such as those on lost workers, would mix with the output
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            if not ray.is_initialized():
                self._connect(ray)
                stack.callback(ray.shutdown)
            pool = _Pool(ray, ray.put((codecs, metrics)), self._count(ray), self.gpus_per_worker)
            stack.callback(pool.close)
            yield pool

    @property
    def _place(self) -> str:
        return self.address or os.environ.get("RAY_ADDRESS") or "local"

    def _connect(self, ray: Any) -> None:
        address = self._place
        own: dict[str, Any] = {}
        if address == "local":
            own = {"num_cpus": self.workers or cores(), "include_dashboard": False}
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if host and port.isdecimal():  # Ray itself retries for minutes
                socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
            ray.init(address, logging_level="ERROR", log_to_driver=False, **own)
        except Exception as error:  # Ray raises this class directly
            raise AllocatorError(f"{address}: no Ray cluster answers there ({_reason(error)}).") from error

    def _count(self, ray: Any) -> int:
        room = ray.cluster_resources()
        if self.workers and not (self._place == "local" and self.gpus_per_worker > room.get("GPU", 0)):
            return self.workers
        count = int(room.get("CPU", 0))
        if self.gpus_per_worker:
            count = min(count, int(room.get("GPU", 0) / self.gpus_per_worker))
        if not count:
            raise AllocatorError(
                f"The cluster has {room.get('CPU', 0):g} cores and {room.get('GPU', 0):g} GPUs now, too few for a "
                "worker; if the cluster will grow, set the number of workers.",
                hint={"jobs": "N"},
            )
        return count


class _Actor:
    """A worker's process."""

    def __init__(self, bank: tuple[Sequence[Codec], Sequence[Metric]]) -> None:
        prepare(*bank)

    def ready(self) -> None:
        """Return when the worker is ready."""

    def do(self, function: Callable[[Any], Any], item: Any) -> Any:
        try:
            return function(item)
        except CodecError as error:  # raised in Ray, it would contain a traceback instead of a sentence
            return error


@dataclass(eq=False)
class _Attempt:
    item: Any
    number: int = 1
    reference: Any = None


@dataclass(eq=False)
class _Worker:
    actor: Any
    attempts: deque[_Attempt] = field(default_factory=deque)
    """The items in their order of work."""


class _Pool:
    """Actors and their current items."""

    def __init__(self, ray: Any, bank: Any, count: int, gpus: float) -> None:
        self._ray, self._bank, self._count = ray, bank, count
        self._actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Actor)
        self._starting: dict[Any, _Worker] = {}
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        for _ in range(count):
            self._hire()

    def completed(
        self, function: Callable[[T], Any], items: Iterable[T]
    ) -> Iterator[Sequence[tuple[T, Future[Any]]]]:
        waiting = map(_Attempt, items)
        queue: deque[_Attempt] = deque()
        while True:
            queue.extend(itertools.islice(waiting, not queue))  # so that its end is noticed
            self._hand_out(function, queue, waiting)
            under_way = {one.reference: worker for worker in self._workers for one in worker.attempts}
            if not queue and not under_way:
                return
            references = [*under_way, *self._starting]
            self._ray.wait(references, num_returns=1)
            ready = dict.fromkeys(self._ray.wait(references, num_returns=len(references), timeout=0)[0])
            batch: list[tuple[T, Future[Any]]] = []
            for reference in ready:
                if reference in under_way:
                    batch += self._collect(under_way[reference], ready, queue)
                else:
                    self._begin(reference)
            if batch:
                yield batch

    def _hand_out(self, function: Callable[[T], Any], queue: deque[_Attempt], waiting: Iterator[_Attempt]) -> None:
        for ahead in range(_AHEAD):
            for worker in self._workers:
                if len(worker.attempts) != ahead or any(one.number > 1 for one in worker.attempts):
                    continue
                alone = bool(queue) and queue[0].number > 1
                attempt = queue.popleft() if queue and not (alone and ahead) else next(waiting, None)
                if attempt is None:
                    return
                attempt.reference = worker.actor.do.remote(function, attempt.item)
                worker.attempts.append(attempt)

    def _collect(
        self, worker: _Worker, ready: Container[Any], queue: deque[_Attempt]
    ) -> Iterator[tuple[Any, Future[Any]]]:
        """The finished items of a worker. If it died, each unfinished one may be the cause, and is tried again alone.

        The cause need not be the first of them: a worker that dies can lose the result of the item before.
        """
        from ray.exceptions import RayError, RayTaskError

        while worker.attempts and worker.attempts[0].reference in ready:
            attempt = worker.attempts.popleft()
            future: Future[Any] = Future()
            try:
                value = self._ray.get(attempt.reference)
            except RayTaskError as error:
                future.set_exception(error)
            except RayError as error:
                self._replace(worker)
                lost = [attempt, *worker.attempts]
                worker.attempts.clear()
                if attempt.number < _TRIES:
                    queue.extend(_Attempt(one.item, one.number + 1) for one in lost)
                    return
                future.set_exception(WorkerLost(f"{_TRIES} workers died while they measured it ({_reason(error)})."))
            else:
                if isinstance(value, CodecError):
                    future.set_exception(value)
                else:
                    future.set_result(value)
            yield attempt.item, future

    def _hire(self) -> None:
        actor = self._actor.remote(self._bank)
        self._starting[actor.ready.remote()] = _Worker(actor)

    def _begin(self, reference: Any) -> None:
        """Give items to a worker that has started; replace one that died before."""
        from ray.exceptions import RayActorError

        worker = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except RayActorError as error:
            self._failed_starts += 1
            if error.actor_init_failed or self._failed_starts > _TRIES * self._count:
                raise AllocatorError(f"Workers can't start ({_reason(error)}).") from error
            self._hire()
        else:
            self._failed_starts = 0
            self._workers.append(worker)

    def _replace(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        self._hire()

    def close(self) -> None:
        """End all workers."""
        for worker in [*self._workers, *self._starting.values()]:
            self._ray.kill(worker.actor)


def _reason(error: Exception) -> str:
    """The sentence in a Ray error that describes the cause."""
    text, _, detail = str(error).partition("exit detail: ")
    line = detail or (text.strip() or type(error).__name__).splitlines()[-1]
    return line.splitlines()[0].partition(". ")[0].strip().rstrip(".")
