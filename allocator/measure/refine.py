"""Refining a table: the points that allocations choose, and their neighbours, with better latents for their bytes.

Only decoding is limited in the challenge; an encoder may search for hours (:mod:`codec.refinement`). A search needs
to know what a byte is worth. In a set that is the price of the allocation's dual: what bytes gain elsewhere. So each
image is refined along the trade-off of the whole set, by the table's own objective. What is found is one more
operating point, measured on its bytes as any other, and kept only if no mixture of the image's other points is as
good. All that reads tables uses it; decoders see an ordinary bitstream.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from allocator.allocation import Allocation, Budget, read_points
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
"""Of each search, unless somebody says otherwise."""


@dataclass(frozen=True)
class RefineProgress:
    """How far a refinement has come."""

    done: int
    points: int
    """To be searched for."""
    current: str = ""
    """What was finished last, and what became of it."""


class Gain(NamedTuple):
    """What refined points bring at a budget."""

    target_bpp: float
    before: float
    """The objective's value, before there was any refined point."""
    after: float


@dataclass
class RefineReport:
    """What a refinement did."""

    refined: int = 0
    """Points that were added to the table."""
    no_better: int = 0
    """Searches that found nothing better than the points before."""
    known: int = 0
    """Searches that were done before."""
    left: int = 0
    """Searches that time didn't suffice for."""
    failures: list[str] = field(default_factory=list)
    """One sentence for each point that could not be refined."""
    gains: list[Gain] = field(default_factory=list)
    """At each budget."""


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
    """Add refined points to a table: of the levels that allocations choose, and of their neighbours.

    Only the points of banks are refined. What was found is written as it is found, so the same call continues a
    refinement that was interrupted. The levels and the price of a byte follow from the points that aren't refined, so
    they stay the same from call to call.

    Args:
        table: that the problem was read from.
        problem: whose objective's metrics have gradients.
        budgets: at which images are to gain.
        steps: of each search.
        hours: begin no further search after so long; those of chosen levels come first.
        neighbours: so many levels below and above each chosen one are refined, too.
        engine: that does the work; by default processes of this machine, one for each core, or one on a GPU.
        report: called as the work goes on.

    Raises:
        AllocatorError: the objective has no gradients or gives no price, no chosen level is a bank's, a budget can't
            be met, or the table can't be written.
        CodecError: an image has changed, or a codec or metric isn't known here.
    """
    if steps < 1 or neighbours < 0 or (hours is not None and not hours > 0):
        raise AllocatorError("A refinement takes at least one step, no fewer than 0 neighbours, and hours above 0.")
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
    after = replace(problem, points=read_points(table, [codec.name for codec in codecs]))
    for budget, before in zip(budgets, allocations, strict=True):
        run.result.gains.append(Gain(budget.bpp, before.value, after.allocate(budget).value))
    return run.result


def _metrics(table: Table) -> dict[str, Metric]:
    """A table's metrics by name, as they were measured.

    Raises:
        AllocatorError: one was measured with other weights or by another version than there is now.
        CodecError: one isn't known here.
    """
    metrics = {name: stored_metric(name) for name in table.metrics()}
    for name, fingerprint in table.metric_fingerprints().items():
        if metrics[name].fingerprint != fingerprint:
            raise AllocatorError(
                f"{table.path}: its {name} was measured by another version or with other weights than there are now; "
                "build the table again."
            )
    return metrics


def _on_gpu(codecs: Sequence[Codec]) -> bool:
    from codec.learned import LearnedCodec

    return any(isinstance(codec, LearnedCodec) and codec.device.type != "cpu" for codec in codecs)


class _Planned(NamedTuple):
    """A search that is to be in the table."""

    member: Member
    codec: int
    level: int
    aim: Aim
    steps: int
    worth: tuple[bool, float]
    """Whether the level is a chosen one, and what its bytes are worth: the greater come first."""


def _planned(
    table: Table,
    allocations: Sequence[Allocation],
    codecs: Sequence[Codec],
    metrics: Mapping[str, Metric],
    steps: int,
    neighbours: int,
) -> list[_Planned]:
    """What there is to be refined, the most valuable first.

    Raises:
        AllocatorError: the objective or a budget gives bytes no price, or no chosen level is a bank's.
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
            aim = Aim.of(allocation.objective.terms, metrics, price)
            reached = range(max(0, chosen - neighbours), min(len(codecs[number].levels), chosen + neighbours + 1))
            for level in reached:
                one = _Planned(member, number, level, aim, steps, (level == chosen, price * int(row["bytes"])))
                key = member.sha256, number, level, aim
                found[key] = max(one, found.get(key, one), key=lambda planned: planned.worth)
    if not found:
        chosen_codecs = sorted({codec for one in allocations for codec in one.chosen["codec"]})
        raise AllocatorError(
            "Nothing can be refined: only the codecs of banks can, such as dkic and po-dkic, and chosen are "
            f"{', '.join(chosen_codecs)}."
        )
    return sorted(found.values(), key=lambda planned: planned.worth, reverse=True)


def prices(allocation: Allocation) -> Floats:
    """What a byte more in each chosen image is worth, in units of that image's own cost; infinite where nothing is.

    Raises:
        AllocatorError: the objective isn't a mean or a p-norm, or more bytes gain nothing.
    """
    objective, chosen = allocation.objective, allocation.chosen
    if objective.aggregate.is_worst:
        raise AllocatorError("The worst image's objective gives a byte no price to refine at; use a large p instead.")
    if not allocation.price > 0:
        raise AllocatorError(
            f"At {allocation.budget.label} more bytes gain nothing, so they have no price to refine at; name a lower "
            "rate."
        )
    pixels = (chosen["width"] * chosen["height"]).to_numpy(np.float64)
    shares = objective.shares(chosen["image"].tolist(), pixels)
    of_byte = np.full(len(chosen), allocation.price * shares.sum())
    if allocation.budget.rule == "mean":  # a byte weighs more in a small image
        of_byte *= pixels.mean() / pixels
    slope = shares
    if objective.aggregate.power is not None:  # of the sum that is made least, over the image's cost
        costs = objective.costs(pd.concat([chosen, allocation.points]))[: len(chosen)]
        slope = shares * objective.aggregate.power * costs ** (objective.aggregate.power - 1)
    return np.divide(of_byte, slope, out=np.full(len(chosen), np.inf), where=slope > 0)


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
        """Those that the table doesn't know yet."""
        index = {metric.fingerprint: i for i, metric in enumerate(self.metrics)}
        tried = self.table.properties(_TRIED).keys()
        colour = self.table.colour
        tasks = []
        for one in planned:
            codec = self.codecs[one.codec]
            key = refined_key(codec, one.level, one.steps, one.aim)
            if _tried(one.member, key) in tried or key.fingerprint in self.table.measured(
                one.member.sha256, codec.name
            ):
                self.result.known += 1
                continue
            terms = tuple((index[metric], weight) for metric, weight in one.aim.terms)
            tasks.append(RefineTask(one.member, one.codec, one.level, key, terms, one.aim.price, one.steps, colour))
        self.total = len(tasks)
        return tasks

    def keep(self, batch: Iterable[tuple[RefineTask, "Future[Point | None]"]]) -> None:
        """Store what is better than the points before; of the rest, that it was tried."""
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
        """Whether a point beats what the image has, mixtures included; then it is kept."""
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
        """What an image has, as far as the problem allows it."""
        if sha256 not in self._curves:
            points = self.problem.points
            points = points[points["sha256"] == sha256].drop_duplicates("fingerprint")
            self._curves[sha256] = _Curve(points["bytes"].tolist(), self._costs(points).tolist())
        return self._curves[sha256]

    def _costs(self, points: pd.DataFrame) -> Floats:
        """Of single points, whatever the other images' are."""
        return replace(self.problem.objective, aggregate=MEAN).costs(points)


class _Curve(NamedTuple):
    """An image's operating points."""

    bytes: list[int]
    costs: list[float]


_TRIED = "refined in vain: "
"""Begins the names of a table's properties that tell what needn't be searched for again."""


def _tried(member: Member, key: LevelKey) -> str:
    return f"{_TRIED}{member.sha256[:16]} {key.fingerprint}"
