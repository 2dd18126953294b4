"""Refine a table: search for better bitstreams of the levels that allocations choose, and of their neighbours.

Only decoding time is limited in the challenge; an encoder may search for hours (:mod:`codec.refinement`). A search
needs the price of a byte. In a set this is the price of the allocation's dual: the gain that bytes bring elsewhere.
So each image is refined along the trade-off of the whole set, for the table's own objective. A result is one more
operating point, measured on its bytes like any other, and kept only if no mixture of the image's other points is as
good. Decoders read an ordinary bitstream.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from allocator.allocation import Allocation, Budget
from allocator.errors import AllocatorError
from allocator.measure import worker
from allocator.measure.engines import Engine, Local, WorkerLost
from allocator.measure.worker import RefineTask
from allocator.metrics import Metric, stored_metric
from allocator.objective import MEAN
from allocator.points import LevelKey, Point, is_refined
from allocator.problem import Problem
from allocator.refined import Aim, refined_key
from allocator.solver.hull import sweep
from allocator.solver.knapsack import Floats
from allocator.tables import Measured, Member, Table
from codec import Codec, CodecError
from codec.registry import stored_codec

STEPS = 60
"""The default number of steps of each search."""


@dataclass(frozen=True)
class RefineProgress:
    """The progress of a refinement."""

    done: int
    """Finished searches."""
    points: int
    """All searches."""
    current: str = ""
    """The search that was finished last, and its result."""


class Gain(NamedTuple):
    """The gain of refined points at a budget."""

    target_bpp: float
    before: float
    """The objective's value without refined points."""
    after: float
    """The objective's value with them."""


@dataclass
class RefineReport:
    """The results of a refinement."""

    refined: int = 0
    """The number of points added to the table."""
    no_better: int = 0
    """The number of searches that found nothing better than the earlier points."""
    known: int = 0
    """The number of searches of earlier calls."""
    left: int = 0
    """The number of searches that were not started in time."""
    failures: list[str] = field(default_factory=list)
    """One sentence for each search that failed."""
    gains: list[Gain] = field(default_factory=list)
    """The gain at each budget."""


def refine(
    table: Table,
    problem: Problem,
    budgets: Sequence[Budget],
    *,
    steps: int = STEPS,
    hours: float | None = None,
    neighbours: int = 1,
    engine: Engine | None = None,
    report: Callable[[RefineProgress], None] = lambda progress: None,
) -> RefineReport:
    """Add refined points to a table, for the levels that allocations choose and for their neighbours.

    Only levels of banks are refined. Each result is written at once, so the same call resumes an interrupted
    refinement. The levels and the price of a byte are derived from the plain points, so each call has the same ones.

    Args:
        table: the table that the problem was read from.
        problem: a problem with an objective of metrics that have gradients.
        budgets: the budgets whose allocations are refined.
        steps: the number of steps of each search.
        hours: start no search after this time. Searches from chosen levels come first.
        neighbours: the number of levels to refine on either side of each chosen level.
        engine: where the work runs; by default in processes of this machine, one per core, or one on a GPU.
        report: called with the progress.

    Raises:
        AllocatorError: the objective has no gradients or gives no price, no chosen level belongs to a bank, a budget
            can't be met, or the table can't be written.
        CodecError: a codec or metric is unavailable.
    """
    if steps < 1 or neighbours < 0 or (hours is not None and not hours > 0):
        raise AllocatorError("Refining needs at least one step, 0 or more neighbours, and more than 0 hours.")
    from allocator.refinement import check_gradients

    deadline = math.inf if hours is None else time.monotonic() + 3600 * hours
    plain = replace(problem, points=problem.points[~is_refined(problem.points)].reset_index(drop=True))
    metrics = _metrics(table)
    check_gradients([metrics[term.metric] for term in problem.objective.terms])
    allocations = [plain.allocate(budget) for budget in budgets]
    codecs = [stored_codec(name) for name in sorted(plain.points["codec"].unique())]
    run = _Refinement(table, problem, codecs, list(metrics.values()), report)
    tasks = run.missing(_planned(table, allocations, codecs, metrics, steps, neighbours))
    if tasks:
        with (engine or Local(1 if _on_gpu(codecs) else None)).start(codecs, run.metrics) as workers:
            in_time = itertools.takewhile(lambda task: time.monotonic() < deadline, tasks)
            for batch in workers.completed(worker.refine, in_time):
                run.keep(batch)
    run.result.left = len(tasks) - run.done
    after = problem.reread(table)
    for budget, before in zip(budgets, allocations, strict=True):
        run.result.gains.append(Gain(budget.bpp, before.value, after.allocate(budget).value))
    return run.result


def _metrics(table: Table) -> dict[str, Metric]:
    """A table's metrics by name.

    Raises:
        AllocatorError: a metric was measured with other weights, or by another version.
        CodecError: a metric is unavailable.
    """
    metrics = {name: stored_metric(name) for name in table.metrics()}
    for name, fingerprint in table.metric_fingerprints().items():
        if metrics[name].fingerprint != fingerprint:
            raise AllocatorError(
                f"{table.path}: its {name} was measured by another version, or with other weights; build the table "
                "again."
            )
    return metrics


def _on_gpu(codecs: Sequence[Codec]) -> bool:
    from codec.learned import LearnedCodec

    return any(isinstance(codec, LearnedCodec) and codec.device.type != "cpu" for codec in codecs)


class _Planned(NamedTuple):
    """A search."""

    member: Member
    codec: int
    level: int
    aim: Aim
    worth: tuple[bool, float]
    """Whether the level is a chosen one, and the price of its bytes. The greatest come first."""


def _planned(
    table: Table,
    allocations: Sequence[Allocation],
    codecs: Sequence[Codec],
    metrics: Mapping[str, Metric],
    steps: int,
    neighbours: int,
) -> list[_Planned]:
    """All searches, the most valuable first.

    Raises:
        AllocatorError: the objective or a budget gives bytes no price, or no chosen level belongs to a bank.
    """
    from codec.learned import LearnedCodec

    index = {codec.name: i for i, codec in enumerate(codecs) if isinstance(codec, LearnedCodec)}
    members = {member.name: member for member in table.members()}
    found: dict[tuple[str, int, int, Aim], _Planned] = {}
    for allocation in allocations:
        for (_, row), price in zip(allocation.chosen.iterrows(), prices(allocation), strict=True):
            if row["codec"] not in index or not math.isfinite(price):
                continue
            member, number, chosen = members[row["image"]], index[row["codec"]], int(row["level"])
            aim = Aim.of(allocation.objective.terms, metrics, price, steps)
            reached = range(max(0, chosen - neighbours), min(len(codecs[number].levels), chosen + neighbours + 1))
            for level in reached:
                one = _Planned(member, number, level, aim, (level == chosen, price * int(row["bytes"])))
                key = member.sha256, number, level, aim
                found[key] = max(one, found.get(key, one), key=lambda planned: planned.worth)
    if not found:
        chosen_codecs = sorted({codec for one in allocations for codec in one.chosen["codec"]})
        raise AllocatorError(
            f"Nothing can be refined: the allocations choose only {', '.join(chosen_codecs)}, and refining needs the "
            "codec of a bank, such as dkic or po-dkic."
        )
    return sorted(found.values(), key=lambda planned: planned.worth, reverse=True)


def prices(allocation: Allocation) -> Floats:
    """The price of a byte in each chosen image, see :meth:`allocator.allocation.Allocation.image_prices`.

    Raises:
        AllocatorError: the objective is not a mean or a p-norm, or more bytes gain nothing.
    """
    if allocation.objective.aggregate.is_worst:
        raise AllocatorError("The aggregate worst gives a byte no price; use a large p instead.")
    if not allocation.price > 0:
        raise AllocatorError(
            f"At {allocation.budget.label} more bytes gain nothing, so a byte has no price; use a lower rate."
        )
    return allocation.image_prices()


@dataclass
class _Refinement:
    table: Table
    problem: Problem
    codecs: Sequence[Codec]
    metrics: Sequence[Metric]
    report: Callable[[RefineProgress], None]
    result: RefineReport = field(default_factory=RefineReport)
    done: int = 0
    total: int = 0
    _curves: dict[str, "_Curve"] = field(default_factory=dict)

    def missing(self, planned: Sequence[_Planned]) -> list[RefineTask]:
        """The searches that are neither in the table nor known to fail."""
        index = {metric.fingerprint: i for i, metric in enumerate(self.metrics)}
        tried = self.table.properties(_TRIED).keys()
        colour = self.table.colour
        tasks = []
        for one in planned:
            codec = self.codecs[one.codec]
            key = refined_key(codec, one.level, one.aim)
            if _tried(one.member, key) in tried or key.fingerprint in self.table.measured(
                one.member.sha256, codec.name
            ):
                self.result.known += 1
                continue
            terms = tuple((index[metric], weight) for metric, weight in one.aim.terms)
            tasks.append(
                RefineTask(one.member, one.codec, one.level, key, terms, one.aim.price, one.aim.steps, colour)
            )
        self.total = len(tasks)
        return tasks

    def keep(self, batch: Iterable[tuple[RefineTask, "Future[Point | None]"]]) -> None:
        """Store the results that are better than the earlier points, and remember the other searches."""
        for task, future in batch:
            self.done += 1
            try:
                point = future.result()
            except (CodecError, WorkerLost) as error:
                self.result.failures.append(f"{task.member.path}: {error}")
                became = "failed"
            else:
                better = point is not None and self._store(task, point)
                if not better:
                    self.table.set_properties({_tried(task.member, task.key): ""})
                self.result.refined += better
                self.result.no_better += not better
                became = "better" if better else "no better"
            current = f"{task.member.name} {self.codecs[task.codec].name} {task.key.setting}: {became}"
            self.report(RefineProgress(self.done, self.total, current))

    def _store(self, task: RefineTask, point: Point) -> bool:
        """Store a point if it beats the image's points and their mixtures; return whether it does."""
        codec = self.codecs[task.codec].name
        named = {metric.name: point.values[metric.fingerprint] for metric in self.metrics}
        curve = self._curve(task.member.sha256)
        cost = float(self._costs(pd.DataFrame([named]))[0])
        if not cost < sweep([curve.costs], [curve.bytes]).bound(point.bytes):
            return False
        with self.table.transaction():
            self.table.store([Measured(task.member, codec, [point])])
            self.table.note_refined(codec, [term.metric for term in self.problem.objective.terms])
        curve.bytes.append(point.bytes)
        curve.costs.append(cost)
        return True

    def _curve(self, sha256: str) -> "_Curve":
        """The points of an image."""
        if sha256 not in self._curves:
            points = self.problem.points
            points = points[points["sha256"] == sha256].drop_duplicates("fingerprint")
            self._curves[sha256] = _Curve(points["bytes"].tolist(), self._costs(points).tolist())
        return self._curves[sha256]

    def _costs(self, points: pd.DataFrame) -> Floats:
        """The costs of single points, independent of other images."""
        return replace(self.problem.objective, aggregate=MEAN).costs(points)


class _Curve(NamedTuple):
    """An image's operating points."""

    bytes: list[int]
    costs: list[float]


_TRIED = "refined without gain: "
"""The beginning of the names of table properties that record searches without success."""


def _tried(member: Member, key: LevelKey) -> str:
    return f"{_TRIED}{member.sha256[:16]} {key.fingerprint}"
