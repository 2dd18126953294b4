"""Measuring: every image at every level, in parallel, into a table."""

import contextlib
import functools
import itertools
import math
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from allocator.errors import AllocatorError
from allocator.images import ImageFile, find_images
from allocator.metrics import Metric
from allocator.tables import Member, Point, Table
from codec import Codec, CodecError, ImageError, RGBImage, pixels_sha256, read_image
from codec.workers import cores, leave_with_parent

T = TypeVar("T")
Wanted = Mapping[tuple[str, str], Collection[int]]
"""Levels by image and codec."""


@dataclass(frozen=True)
class Progress:
    """How far a build has come."""

    phase: str
    """``reading`` (every file once, to find bad ones early), then ``measuring``."""
    images_done: int
    images: int
    fraction: float
    """Of the phase's work, 0 to 1, by pixels and levels."""
    current: str = ""
    """What was finished last: image, codec, and the bits per pixel of its levels."""


@dataclass
class BuildReport:
    """What a build did."""

    images: int = 0
    """Images of this build that are in the table."""
    points_measured: int = 0
    points_known: int = 0
    """Operating points that the table held already, with all the metrics."""
    failures: list[str] = field(default_factory=list)
    """One sentence for each image, or image and codec, that was left out."""
    others: list[str] = field(default_factory=list)
    """Images that the table holds from earlier builds and this one wasn't given: they are in the set, too."""


@dataclass(frozen=True)
class _Level:
    level: int
    metrics: tuple[int, ...]
    """Indices of the metrics to measure."""
    bitstream: bytes | None = None
    """Known from an earlier build: only to be decoded."""


@dataclass(frozen=True)
class _Task:
    member: Member
    codec: int
    levels: tuple[_Level, ...]

    @property
    def pixels(self) -> int:
        return self.member.width * self.member.height

    @property
    def work(self) -> int:
        return self.pixels * len(self.levels)


def build(
    table: str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]],
    codecs: Sequence[Codec],
    metrics: Sequence[Metric],
    *,
    jobs: int | None = None,
    keep_going: bool = False,
    keep_bitstreams: bool = True,
    needed: Callable[[Table], Wanted] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> BuildReport:
    """Measure images at every level of codecs by metrics, and keep what is measured in a table.

    Each image and codec is written in one transaction. Whatever the table holds already (same pixels, codec and
    metric fingerprints) isn't measured again, so the same call continues a build that was interrupted.

    Args:
        table: the SQLite file; made if missing.
        images: files and folders, see :func:`allocator.images.find_images`.
        codecs: whose levels are measured.
        metrics: computed on the decoded 8-bit RGB.
        jobs: processes, one thread each; by default as many as there are cores.
        keep_going: leave out what fails and say so in the report, instead of stopping.
        keep_bitstreams: store them in the table, which :mod:`submissions` packs from.
        needed: says, of what is measured so far, what else is to be; first asked of an empty table, last when it
            wants nothing more (see :class:`allocator.lazy.Needed`). By default every level is measured.
        report: called as the build goes on.

    Raises:
        AllocatorError: an image or codec failed and ``keep_going`` is off (what was measured is kept), the table
            can't be written, or a worker process died.
    """
    files = find_images(images)
    jobs = jobs or cores()
    with Table(table, create=True) as opened, _workers(jobs, codecs, metrics) as pool:
        run = _Build(opened, pool, codecs, metrics, jobs, keep_going, keep_bitstreams, report)
        members = run.read(files)
        opened.add_metrics(metrics)
        opened.add_members(members)
        if needed is None:
            run.measure(run.missing(members))
        else:
            while tasks := run.missing(members, needed(opened)):
                run.measure(tasks)
        names = {member.name for member in members}
        run.result.others = [member.name for member in opened.members() if member.name not in names]
        if keep_going:
            run.result.images -= opened.drop_unmeasured(names)
        return run.result


@contextlib.contextmanager
def _workers(jobs: int, codecs: Sequence[Codec], metrics: Sequence[Metric]) -> Iterator[Executor]:
    """A pool whose processes never outlive this one or the block."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(codecs, metrics),
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise AllocatorError(
            "A worker process was killed, most likely for want of memory; what was measured is kept, so run the "
            "same command again, with fewer --jobs. (A script that calls build needs `if __name__ == '__main__':`.)"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()


_bank: tuple[Sequence[Codec], Sequence[Metric]] = ((), ())


def _start_worker(codecs: Sequence[Codec], metrics: Sequence[Metric]) -> None:
    global _bank
    _bank = (codecs, metrics)
    leave_with_parent()
    # one thread a process, so that jobs share the cores and values don't depend on their number
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block ends; processes started in the block never see it, for it's the parent's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class _Build:
    table: Table
    pool: Executor
    codecs: Sequence[Codec]
    metrics: Sequence[Metric]
    jobs: int
    keep_going: bool
    keep_bitstreams: bool
    report: Callable[[Progress], None]
    result: BuildReport = field(default_factory=BuildReport)

    def read(self, files: Sequence[ImageFile]) -> list[Member]:
        """Read every file once, so that bad ones are known before hours of work."""
        members, failures = [], self.result.failures
        for done, (_, future) in enumerate(self._completed(_identify, files), 1):
            try:
                members.append(future.result())
            except ImageError as error:
                failures.append(str(error))
            self.report(Progress("reading", done, len(files), done / len(files)))
        failures.sort()
        if failures and not self.keep_going:
            left_out = " (--keep-going leaves such images out)" if members else ""
            raise AllocatorError("\n".join([*failures, f"Nothing was measured{left_out}."]))
        if not members:
            raise AllocatorError("\n".join([*failures, "No image could be read."]))
        self.result.images = len(members)
        return sorted(members, key=lambda member: member.name)

    def missing(self, members: Sequence[Member], wanted: Wanted | None = None) -> list[_Task]:
        """What is to be measured, the largest images first so that none is left alone at the end."""
        tasks = []
        self.result.points_known = 0
        unique = {member.sha256: member for member in members}.values()
        for member in sorted(unique, key=lambda m: (-m.width * m.height, m.name)):
            for index, codec in enumerate(self.codecs):
                levels = self._missing_levels(member, codec)
                self.result.points_known += len(codec.levels) - len(levels)
                if wanted is not None:
                    levels = [one for one in levels if one.level in wanted.get((member.name, codec.name), ())]
                if levels:
                    tasks.append(_Task(member, index, tuple(levels)))
        return tasks

    def _missing_levels(self, member: Member, codec: Codec) -> list[_Level]:
        known = self.table.measured(member.sha256, codec.name)
        levels = []
        if known.keys() - set(_fingerprints(codec)):
            self.table.prune(member.sha256, codec.name, _fingerprints(codec))
        for level, fingerprint in enumerate(_fingerprints(codec)):
            values = known.get(fingerprint, set())
            lacking = tuple(i for i, metric in enumerate(self.metrics) if metric.fingerprint not in values)
            if fingerprint not in known or lacking:
                levels.append(_Level(level, lacking))
        return levels

    def measure(self, tasks: Sequence[_Task]) -> None:
        """Do the tasks and store each one's points as it finishes."""
        total = sum(task.work for task in tasks)
        left = Counter(task.member.sha256 for task in tasks)
        images, done = len(left), 0
        for task, future in self._completed(_measure, map(self._with_bitstreams, tasks)):
            codec = self.codecs[task.codec]
            current = f"{task.member.name} {codec.name}"
            try:
                points = future.result()
            except CodecError as error:
                self._fail(f"{task.member.path}: {error}", error)
            else:
                self._store(task, codec, points)
                rates = [8 * point.bytes / task.pixels for point in points]
                current += f" {min(rates):.3f}-{max(rates):.3f} bpp"
            done += task.work
            left[task.member.sha256] -= 1
            self.report(Progress("measuring", images - len(+left), images, done / total, current))

    def _with_bitstreams(self, task: _Task) -> _Task:
        """Read what is stored only now that the task starts: all tasks' bitstreams may exceed memory."""
        codec = self.codecs[task.codec]
        levels = (
            replace(one, bitstream=self.table.bitstream(task.member.sha256, codec.fingerprint(one.level)))
            for one in task.levels
        )
        return replace(task, levels=tuple(levels))

    def _store(self, task: _Task, codec: Codec, points: list[Point]) -> None:
        if not self.keep_bitstreams:
            for point in points:
                point.bitstream = None
        self.table.store(task.member.sha256, codec.name, points)
        self.result.points_measured += len(points)

    def _fail(self, sentence: str, error: Exception) -> None:
        self.result.failures.append(sentence)
        if not self.keep_going:
            raise AllocatorError(
                f"{sentence} What was measured is kept; --keep-going leaves such images out."
            ) from error

    def _completed(self, function: Callable[[T], Any], items: Iterable[T]) -> Iterator[tuple[T, Future[Any]]]:
        """Items with their futures, as they finish; few are under way at a time, which bounds memory."""
        waiting = iter(items)
        running: dict[Future[Any], T] = {}
        while True:
            for item in itertools.islice(waiting, 2 * self.jobs - len(running)):
                with _interrupts_held():
                    running[self.pool.submit(function, item)] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future


def _fingerprints(codec: Codec) -> list[str]:
    return [codec.fingerprint(level) for level in range(len(codec.levels))]


def _identify(file: ImageFile) -> Member:
    image = read_image(file.path)
    height, width = image.shape[:2]
    return Member(file.name, str(file.path.resolve()), pixels_sha256(image), width, height)


def _measure(task: _Task) -> list[Point]:
    """One image at all the missing levels of one codec."""
    codecs, metrics = _bank
    codec = codecs[task.codec]
    image, references = _original(Path(task.member.path), task.member.sha256)
    points = []
    start = time.perf_counter()
    encode = codec.encoder(image) if any(wanted.bitstream is None for wanted in task.levels) else None
    shared = time.perf_counter() - start
    for wanted in task.levels:
        start = time.perf_counter()
        data = wanted.bitstream
        if data is None:
            assert encode is not None
            data = encode(wanted.level)
        encoded = time.perf_counter()
        decoded = codec.decode(data)
        finished = time.perf_counter()
        if decoded.shape != image.shape:
            raise CodecError(f"{codec.name} decoded it to another size, {decoded.shape[1]}x{decoded.shape[0]}.")
        points.append(
            Point(
                level=wanted.level,
                setting=codec.levels[wanted.level],
                fingerprint=codec.fingerprint(wanted.level),
                bytes=len(data),
                encode_seconds=shared + encoded - start,
                decode_seconds=finished - encoded,
                decoded_sha256=pixels_sha256(decoded),
                bitstream=data,
                values={metrics[i].fingerprint: _value(metrics[i], references(i), decoded) for i in wanted.metrics},
            )
        )
    return points


def _value(metric: Metric, reference: Any, decoded: RGBImage) -> float:
    try:
        value = float(metric.compare(reference, decoded))
    except Exception as error:  # of anyone's metric
        raise CodecError(f"{metric.name} fails on it ({type(error).__name__}: {error}).") from error
    if not math.isfinite(value):
        raise CodecError(f"{metric.name} gives {value} for it, which is no finite number.")
    return value


@functools.lru_cache(maxsize=1)
def _original(path: Path, sha256: str) -> tuple[RGBImage, Callable[[int], Any]]:
    """An image and its metrics' references; the last one is kept, for it is met again with the next codec."""
    image = read_image(path)
    if pixels_sha256(image) != sha256:
        raise ImageError(f"{path}: has changed during the build; start it again.")
    return image, functools.cache(lambda index: _bank[1][index].reference(image))
