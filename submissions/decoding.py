"""Decode a data archive to PNG files, side by side. Every decoder brings this module, so it imports little."""

import functools
import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from codec.base import Codec, CodecError
from codec.formats import write_png
from codec.workers import container_limit, cores, leave_with_parent
from submissions.archive import unpack
from submissions.errors import SubmissionError

DECODER_FILE = "decoder.json"
_WORKER = 768 << 20
"""Bytes of a process with its libraries and a network loaded."""
_MEMORY = 12 << 30
"""The challenge's machine; less where there is less."""
_USED = 0.8


class Source(Protocol):
    """Where codecs come from; processes get it by pickling."""

    def codec(self, member: str) -> Codec:
        """The codec of a bitstream's file name.

        Raises:
            CodecError: there is none.
        """


class Brought(NamedTuple):
    """The codecs that a decoder brings."""

    folder: Path
    """The decoder's."""

    def codec(self, member: str) -> Codec:
        endings = [ending for ending in _codecs(self.folder) if member.endswith(ending)]
        if not endings:
            raise CodecError("this decoder has no codec for it.")
        return _load(self.folder, max(endings, key=len))


@functools.cache
def _codecs(folder: Path) -> dict[str, dict[str, Any]]:
    """A decoder's entries by the ending of bitstreams."""
    content = json.loads((folder / DECODER_FILE).read_bytes())
    return {str(codec["suffix"]): codec for codec in content["codecs"]}


@functools.cache
def _load(folder: Path, ending: str) -> Codec:
    """Call what makes a codec: without arguments, or with the decoder's folder and those that its entry has."""
    entry = _codecs(folder)[ending]
    module, _, path = str(entry["source"]).partition(":")
    make: Any = importlib.import_module(module)
    for part in path.split("."):
        make = getattr(make, part)
    codec: Codec = make(folder, **entry["arguments"]) if "arguments" in entry else make()
    return codec


class _Task(NamedTuple):
    member: str
    image: str
    data: bytes


def decode(archive: Path, folder: Path, source: Source, jobs: int | None = None) -> list[str]:
    """Write every bitstream's image as ``folder/NAME.png``; one that fails doesn't keep the others back.

    As many images are decoded at once as there are cores, and as memory allows. Where a process dies or memory is
    short, what is left is tried again with half as many, at last one by one.

    Args:
        archive: the data archive.
        folder: made if missing; each file is written whole or not at all.
        source: of the codecs.
        jobs: at most so many processes.

    Returns:
        One sentence for each bitstream that can't be decoded.

    Raises:
        SubmissionError: the archive itself can't be read.
    """
    failures: list[str] = []
    tasks: list[_Task] = []
    written: dict[str, str] = {}
    most = 0
    for member, data in unpack(archive).items():
        try:
            codec = source.codec(member)
            image = member.removesuffix(codec.suffix)
            if (other := written.setdefault(image, member)) != member:
                failures.append(f"{member}: would give an image of the same name as {other}.")
                continue
            most = max(most, codec.decode_memory(data))
            jobs = jobs if codec.shares_cores else 1
            tasks.append(_Task(member, image, data))
        except CodecError as error:
            failures.append(f"{member}: {error}")
        except Exception as error:  # of a codec that can't be loaded here
            failures.append(f"{member}: its codec failed with {type(error).__name__} ({error}).")
    jobs = max(1, min(jobs or cores(), len(tasks), int(_memory() * _USED) // (_WORKER + most)))
    return failures + list(_in_processes(tasks, folder, source, jobs))


def _in_processes(tasks: Sequence[_Task], folder: Path, source: Source, jobs: int) -> Iterator[str]:
    """Sentences about what fails; where memory is short, with fewer processes, at last one by one."""
    suspect: _Task | None = None
    while tasks:
        left: list[_Task] = []
        died = False
        for task, future in _complete(tasks, folder, source, jobs):
            try:
                yield from future.result()
            except (BrokenProcessPool, MemoryError) as error:
                died = died or isinstance(error, BrokenProcessPool)
                left.append(task)
        tasks = left
        if left and jobs == 1:  # the first has failed alone: it gets a second chance
            if suspect == left[0] or not died:
                yield f"{left[0].member}: its process {'died' if died else 'had too little memory'}, twice."
                tasks = left[1:]
            suspect = left[0]
        jobs = max(1, jobs // 2)


def _complete(
    tasks: Sequence[_Task], folder: Path, source: Source, jobs: int
) -> Iterator[tuple[_Task, "Future[list[str]]"]]:
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // jobs))  # of the processes that start now
    try:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), leave_with_parent) as pool:
            futures: list[Future[list[str]]] = []
            for task in tasks:
                try:
                    futures.append(pool.submit(_decode_one, task, folder, source))
                except BrokenProcessPool as error:
                    futures.append(Future())
                    futures[-1].set_exception(error)
            yield from zip(tasks, futures, strict=True)
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _decode_one(task: _Task, folder: Path, source: Source) -> list[str]:
    try:
        write_png(folder / f"{task.image}.png", source.codec(task.member).decode(task.data))
    except CodecError as error:
        if isinstance(error.__cause__, (MemoryError, RuntimeError)) and "memory" in str(error):
            raise MemoryError(str(error)) from error
        return [f"{task.member}: {error}"]
    except MemoryError:
        raise
    except Exception as error:  # one image's fault, whatever it is, is not the others'
        return [f"{task.member}: fails with {type(error).__name__} ({error})."]
    return []


def _memory() -> int:
    """Bytes that may be used: what the machine has free, no more than a container's share or the challenge gives."""
    least = _MEMORY
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                least = min(least, int(line.split()[1]) << 10)
    except (OSError, ValueError):
        pass
    limit = container_limit("memory.max")
    return min(least, int(limit)) if limit.isdecimal() else least


def run(archive: Path, folder: Path, source: Source) -> int:
    """Decode for the command line: sentences on stderr, status 0 if all went well, else 1."""
    try:
        failures = decode(archive, folder, source)
    except SubmissionError as error:
        failures = [str(error)]
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0
