"""Decode a data archive to PNG files, images side by side: ``python -m submissions.decode ARCHIVE FOLDER``."""

import functools
import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from codec.base import Codec, CodecError
from codec.image import write_png
from submissions.archive import unpack
from submissions.errors import SubmissionError

DECODER_FILE = "decoder.json"
_WORKER = 768 << 20
"""Bytes of a process with its libraries and a network loaded."""
_MEMORY = 12 << 30
"""The challenge's machine; less where there is less."""
_USED = 0.8


class Source(NamedTuple):
    """Where a decoder's codecs are: in its folder, or (None) what is installed."""

    folder: Path | None = None

    def codec(self, member: str) -> Codec:
        """The codec of a bitstream's file name.

        Raises:
            CodecError: there is none.
        """
        if self.folder is None:
            from codec.registry import codec_for_file

            return codec_for_file(member)
        return _brought(self.folder, member)


def _brought(folder: Path, member: str) -> Codec:
    endings = [ending for ending in _codecs(folder) if member.endswith(ending)]
    if not endings:
        raise CodecError(f"{member}: this decoder has no codec for it.")
    return _load(folder, max(endings, key=len))


@functools.cache
def _codecs(folder: Path) -> dict[str, str]:
    """Ending to what makes the codec: a bank's folder, or ``module:function``."""
    content = json.loads((folder / DECODER_FILE).read_bytes())
    return {str(codec["suffix"]): str(codec["source"]) for codec in content["codecs"]}


@functools.cache
def _load(folder: Path, ending: str) -> Codec:
    module, _, function = _codecs(folder)[ending].partition(":")
    if function:
        codec: Codec = getattr(importlib.import_module(module), function)()
        return codec
    from codec.bank import Bank
    from codec.learned import LearnedCodec

    return LearnedCodec(Bank.load(folder / module))


class _Task(NamedTuple):
    member: str
    image: str
    data: bytes


def decode(archive: Path, folder: Path, source: Source | None = None, jobs: int | None = None) -> list[str]:
    """Write every bitstream's image as ``folder/NAME.png``; one that fails doesn't keep the others back.

    As many images are decoded at once as there are cores, and as memory allows. An image whose process dies is
    tried again alone.

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
    source = source or Source()
    failures: list[str] = []
    tasks: list[_Task] = []
    written: dict[str, str] = {}
    most = 0
    for member, data in unpack(archive).items():
        try:
            codec = source.codec(member)
            image = member.removesuffix(codec.suffix)
            if (other := written.setdefault(image, member)) != member:
                failures.append(f"{member}: would give the same image as {other}.")
                continue
            most = max(most, codec.decode_memory(data))
            tasks.append(_Task(member, image, data))
        except CodecError as error:
            failures.append(f"{member}: {error}")
    jobs = max(1, min(jobs or _cores(), len(tasks), int(_memory() * _USED) // (_WORKER + most)))
    return failures + list(_in_processes(tasks, folder, source, jobs))


def _in_processes(tasks: list[_Task], folder: Path, source: Source, jobs: int) -> Iterator[str]:
    died: list[_Task] = []
    for task, done in _completed(tasks, folder, source, jobs):
        try:
            yield from done.result()
        except BrokenProcessPool:
            died.append(task)
    for one in died:
        for task, done in _completed([one], folder, source, 1):
            try:
                yield from done.result()
            except BrokenProcessPool:
                yield f"{task.member}: its process died twice; is there too little memory?"


def _completed(
    tasks: list[_Task], folder: Path, source: Source, jobs: int
) -> Iterator[tuple[_Task, "Future[list[str]]"]]:
    os.environ["OMP_NUM_THREADS"] = str(max(1, _cores() // jobs))  # of the processes that start now
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures: list[Future[list[str]]] = []
        for task in tasks:
            try:
                futures.append(pool.submit(_decode_one, task, folder, source))
            except BrokenProcessPool as error:
                futures.append(Future())
                futures[-1].set_exception(error)
        yield from zip(tasks, futures, strict=True)


def _decode_one(task: _Task, folder: Path, source: Source) -> list[str]:
    try:
        write_png(folder / f"{task.image}.png", source.codec(task.member).decode(task.data))
    except (CodecError, MemoryError) as error:
        return [f"{task.member}: {str(error) or 'takes too much memory.'}"]
    return []


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    """Bytes that may be used: what the machine has free, no more than the challenge gives."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(_MEMORY, int(line.split()[1]) << 10)
    except (OSError, ValueError):
        pass
    return _MEMORY


def run(archive: Path, folder: Path, source: Source | None = None) -> int:
    """Decode for the command line: sentences on stderr, status 0 if all went well, else 1."""
    try:
        failures = decode(archive, folder, source)
    except SubmissionError as error:
        failures = [str(error)]
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def main() -> int:
    """The command."""
    if len(sys.argv) != 3:
        print("usage: python -m submissions.decode ARCHIVE FOLDER", file=sys.stderr)
        return 2
    return run(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    sys.exit(main())
