"""Random builds and drops of one table at the same time, some of them killed, against every serial order.

A command is a process, forked from this one, of real tables and builds; only codec and metric are made up. ::

    python -m tests.allocator.measure.at_once FOLDER ROUNDS SEED
"""

import itertools
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from allocator.errors import AllocatorError
from allocator.images import ImageFile
from allocator.measure import worker
from allocator.measure.build import build
from allocator.measure.engines.base import Engine
from allocator.metrics import Metric
from allocator.tables import Table
from codec import Codec, CodecError, RGBImage

NAMES = ("a", "b", "c")
BAD = 3
"""The variant of an image's pixels that the codec `two` can't hold."""


class Inline(Engine):
    """Works in this very process."""

    @contextmanager
    def start(self, codecs: Sequence[Codec], metrics: Sequence[Metric]) -> Iterator["Inline"]:
        worker.prepare(codecs, metrics)
        yield self

    def completed(self, function: Any, items: Any) -> Iterator[Any]:
        for item in items:
            future: Future[Any] = Future()
            try:
                future.set_result(function(item))
            except CodecError as error:
                future.set_exception(error)
            yield [(item, future)]


@dataclass
class Made(Codec):
    """Takes its time, and can't hold some pixels."""

    name: str
    version: str
    suffix = ".made"
    levels = ("low", "high")

    def encode(self, image: RGBImage, level: int) -> bytes:
        time.sleep(random.random() * 0.004)
        if self.name == "two" and image[0, 0, 0] == BAD:
            raise CodecError("two can't hold it.")
        return bytes([level]) + self.version.encode() + image.tobytes()

    def decode(self, data: bytes) -> RGBImage:
        return np.frombuffer(data[2:], np.uint8).reshape(2, 2, 3)


class Zero(Metric):
    name, version = "zero", "1"

    def compare(self, reference: Any, decoded: RGBImage) -> float:
        return 0.0


@dataclass(frozen=True)
class Command:
    """A build of images, name to variant, by codecs, name to version; or a drop."""

    images: tuple[tuple[str, int], ...] = ()
    codecs: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    wait: float = 0.0
    kill: float | None = None

    def tasks(self) -> list[tuple[int, str, str]]:
        return [
            (variant, name, version)
            for _, variant in self.images
            for name, version in self.codecs
            if (name, variant) != ("two", BAD)
        ]

    def run(self, table: Path, folder: Path) -> None:
        if self.drop:
            with Table(table, wait=60) as opened:
                opened.drop(self.drop)
            return
        files = [folder / str(variant) / f"{name}.png" for name, variant in self.images]
        codecs = [Made(name, version) for name, version in self.codecs]
        build(table, files, codecs, [Zero()], engine=Inline(), keep_going=True)


State = tuple[dict[str, int], set[tuple[int, str, str]]]
"""Variant of each image of the set, and the codec's version by which each variant is measured."""


def visible(state: State) -> tuple[Any, ...]:
    names, points = state
    return tuple(sorted(names.items())), tuple(sorted(p for p in points if p[0] in names.values()))


def effects(command: Command, ended: bool) -> Iterator[Any]:
    """What a command may do: one thing if it ended; else nothing, or any part of it."""
    yield dict.fromkeys(command.tasks(), "measured"), True, command.images
    if not ended:
        yield None, False, ()
        if not command.drop:
            for some in itertools.product(("", "pruned", "measured"), repeat=len(command.tasks())):
                for count in range(
                    len(command.images) + 1
                ):  # a build puts some in as it begins, the others as it ends
                    for images in itertools.combinations(command.images, count):
                        yield dict(zip(command.tasks(), some, strict=True)), False, images


def after(state: State, command: Command, effect: tuple[dict[Any, str] | None, bool, Any]) -> State:
    names, points = dict(state[0]), set(state[1])
    done, ended, images = effect
    if done is None:
        return names, points
    if command.drop:
        gone = {names.pop(name) for name in command.drop if name in names} - {*names.values()}
        return names, {point for point in points if point[0] not in gone}
    names |= dict(images)
    for (variant, codec, version), what in done.items():
        if what:
            points = {p for p in points if p[:2] != (variant, codec) or p[2] == version}
        if what == "measured":
            points.add((variant, codec, version))
    if ended:
        for name, variant in command.images:
            if not any(point[0] == variant for point in points):
                del names[name]
    return names, points


def serial(before: State, commands: Sequence[Command], ended: Sequence[bool]) -> set[tuple[Any, ...]]:
    """What the table may be after the commands, whatever their order."""
    found = set()
    for order in itertools.permutations(range(len(commands))):
        states = [before]
        for i in order:
            states = [
                after(state, commands[i], effect) for state in states for effect in effects(commands[i], ended[i])
            ]
        found |= {visible(state) for state in states}
    return found


def read(table: Path, variants: dict[str, int]) -> State:
    """The state of a table, with points that are kept of images outside of the set."""
    codecs = [Made("one", "1"), Made("one", "2"), Made("two", "1")]
    known = {codec.fingerprint(level): (codec.name, codec.version) for codec in codecs for level in (0, 1)}
    with Table(table) as opened:
        names = {member.name: variants[member.sha256] for member in opened.members()}
        frame = opened.frame()
    assert not len(frame) or not frame["zero"].isna().any()
    with closing(sqlite3.connect(table)) as connection:
        rows = connection.execute("SELECT sha256, fingerprint FROM point JOIN image ON image.id = image").fetchall()
    points = Counter((variants[sha256], *known[fingerprint]) for sha256, fingerprint in rows)
    assert set(points.values()) <= {2}, f"an image is measured at one of two levels: {points}"
    return names, set(points)


def random_command(chance: random.Random) -> Command:
    wait, kill = chance.random() * 0.03, chance.random() * 0.12 if chance.random() < 0.25 else None
    if chance.random() < 0.3:
        return Command(drop=tuple(chance.sample(NAMES, chance.randint(1, 2))), wait=wait, kill=kill)
    names = chance.sample(NAMES, chance.randint(1, 2))
    codecs = chance.choice([(("one", "1"),), (("one", "1"), ("two", "1")), (("two", "1"),), (("one", "2"),)])
    return Command(tuple((name, chance.choice((1, 2, BAD))) for name in names), codecs, (), wait, kill)


def at_once(commands: Sequence[Command], table: Path, folder: Path) -> list[bool]:
    """Run commands side by side; whether each ended by itself, and well."""
    children = []
    for command in commands:
        if not (child := os.fork()):
            code = 1
            try:
                random.seed()
                time.sleep(command.wait)
                command.run(table, folder)
                code = 0
            except AllocatorError as error:
                code = 3 if "again and again" in str(error) else 1
                print(error, file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    deadlines = {time.monotonic() + (c.kill + c.wait): p for c, p in zip(commands, children, strict=True) if c.kill}
    for deadline in sorted(deadlines):
        time.sleep(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.kill(deadlines[deadline], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) <= {0, 3, -signal.SIGKILL}, f"{commands} ended with {codes}"
    return [code == 0 for code in codes]


def main(folder: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    variants: dict[str, int] = {}
    for variant in (1, 2, BAD):
        (folder / str(variant)).mkdir(parents=True)
        for name in NAMES:
            path = folder / str(variant) / f"{name}.png"
            Image.fromarray(np.full((2, 2, 3), variant, np.uint8)).save(path)
            variants[worker.identify("raw", ImageFile(name, str(path))).sha256] = variant
    table, killed = folder / "run.db", 0
    for number in range(rounds):
        if number % 5 == 0:
            table.unlink(missing_ok=True)
            Table(table, create=True).__exit__(None, None, None)
        before = read(table, variants)
        commands = [random_command(chance) for _ in range(chance.randint(2, 3))]
        ended = at_once(commands, table, folder)
        killed += len(ended) - sum(ended)
        found = visible(read(table, variants))
        if found not in serial(before, commands, ended):
            print(f"round {number}: from {before}\n{commands}\nended {ended}\ngave {found}")
            sys.exit(1)
    print(f"{rounds} rounds, {killed} commands killed: always one of the serial orders")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
