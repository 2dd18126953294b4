"""The results of an allocation or a curve, as text and JSON: each fact has one definition."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from allocator.allocation import Allocation, Baseline
from allocator.curve import Curve, Near
from allocator.points import RESERVED
from allocator.sizes import format_size
from codec.base import shown

if TYPE_CHECKING:
    import pandas as pd

_LEVEL = ("image", "width", "height", "codec", "level", "setting", "bytes", "bpp")


@dataclass(frozen=True)
class Summary:
    """An allocation's results, and their renderings."""

    allocation: Allocation

    @property
    def budget_bytes(self) -> int | None:
        """None under the rule ``mean``."""
        budget = self.allocation.budget
        return int(budget.limit) if budget.rule == "pooled" else None

    @property
    def bound(self) -> float | None:
        """The best value any allocation within the budget could reach; None if the objective is not a mean."""
        one = self.allocation
        return one.value - one.objective.natural_sign * one.gap if one.objective.aggregate.is_mean else None

    @property
    def gain_per_byte(self) -> float | None:
        """The approximate gain of one more byte; None if the objective is not a mean."""
        return self.allocation.price if self.allocation.objective.aggregate.is_mean else None

    @property
    def codecs(self) -> str:
        """The number of images for each codec: ``po-dkic 6, hevc 1``."""
        return ", ".join(
            f"{codec} {count}" for codec, count in self.allocation.chosen["codec"].value_counts().items()
        )

    @property
    def other_bpp(self) -> tuple[str, float]:
        """The name of the rule that the budget does not use, and the rate under it."""
        one = self.allocation
        return ("mean", one.mean_bpp) if one.budget.rule == "pooled" else ("pooled", one.pooled_bpp)

    @property
    def worst(self) -> dict[str, Any]:
        """The worst image according to the objective."""
        objective, chosen = self.allocation.objective, self.allocation.chosen
        costs = objective.costs(chosen)
        row = chosen.iloc[int(costs.argmax())]
        level = {name: row[name] for name in ("image", "codec", "setting", "bytes")}
        return {**level, "value": objective.natural_sign * float(costs.max())}

    def record(self) -> dict[str, Any]:
        """All results, for JSON."""
        one = self.allocation
        metrics = [name for name in one.chosen.columns if name not in RESERVED]
        return {
            "target_bpp": one.budget.bpp,
            "rule": one.budget.rule,
            "budget_bytes": self.budget_bytes,
            "objective": one.objective.label,
            "aggregate": str(one.objective.aggregate),
            "value": one.value,
            "gap": one.gap,
            "reason": one.reason or None,
            "note": one.note or None,
            "bound": self.bound,
            "bytes": one.bytes,
            "bpp": one.bpp,
            "pooled_bpp": one.pooled_bpp,
            "mean_bpp": one.mean_bpp,
            "slack_bytes": one.slack,
            "gain_per_byte": self.gain_per_byte,
            "single_level": _baseline(one.single),
            "equal_rate": _baseline(one.equal),
            "images": [
                {**{name: row[name] for name in _LEVEL}, "metrics": {name: row[name] for name in metrics}}
                for row in one.chosen.to_dict("records")
            ],
        }

    def text(self) -> str:
        """A few lines for a terminal."""
        one, budget, objective = self.allocation, self.allocation.budget, self.allocation.objective
        proof = "proven optimal, gap 0" if one.gap == 0 else f"gap {one.gap:.2g}"
        if self.bound is not None:
            proof += f", bound {self.bound:.6f}"
        if budget.size is None:
            limit = f" ({self.budget_bytes:,} bytes)" if self.budget_bytes is not None else ""
            head = f"Target {budget.label} {budget.rule}{limit}"
        else:
            head = f"Budget {budget.label} ({self.budget_bytes:,} bytes, {budget.bpp:.4g} bpp)"
        rule, rate = self.other_bpp
        lines = [
            f"{head}: {objective.label}, {objective.aggregate.label}",
            f"  rate        {one.bpp:.6f} bpp {budget.rule}, {rate:.6f} {rule}",
            f"  bytes       {one.bytes:,}, slack {one.slack:,.0f}",
            f"  allocated   {one.value:.6f}, {proof}",
        ]
        if one.reason:
            lines.append(f"  unproven    {one.reason}")
        if one.note:
            lines.append(f"  by PuLP     {one.note}")
        for label, other, missing in (
            ("one level", one.single, "no single level meets the budget"),
            ("equal rate", one.equal, "an image has no level within the rate"),
        ):
            if other is None:
                lines.append(f"  {label:<11} {missing}")
            else:
                detail = f", {other.detail}" if other.detail else ""
                lines.append(f"  {label:<11} {other.value:.6f}, {other.bytes:,} bytes{detail}")
        lines.append(f"  images      {len(one.chosen)}: {self.codecs}")
        if self.gain_per_byte is not None:
            lines.append(f"  price       1,000 more bytes would gain about {1000 * self.gain_per_byte:.2g}")
        return "\n".join(shown(line, line_breaks=False) for line in lines)

    def sentences(self) -> str:
        """A paragraph: the choice, its distance from the optimum, and the gain of one more byte."""
        one, label = self.allocation, self.allocation.objective.label
        rule, rate = self.other_bpp
        budget = "as the mean of the images" if self.budget_bytes is None else f"pooled ({self.budget_bytes:,} bytes)"
        other_rate = f"{rate:.4f} {'as the mean of the images' if rule == 'mean' else rule}"
        counts = one.chosen["codec"].value_counts()
        mix = ", ".join(f"{codec} for {count}" for codec, count in counts.items())
        sentences = [
            f"At {one.budget.bpp:g} bits per pixel {budget} the {len(one.chosen)} images take {one.bytes:,} bytes, "
            f"{one.bpp:.4f} bits per pixel ({other_rate}), and reach {label} {one.value:.4f}: {mix}."
        ]
        proof = "It is proven that no other choice of levels within this budget is better."
        if one.gap:
            proof = f"No choice of levels is better by more than {one.gap:.2g}. {one.reason}".strip()
        better = [
            f"{what} would give {other.value:.4f}"
            for what, other in (
                (f"the best single level ({one.single.detail})" if one.single else "", one.single),
                ("equal rates", one.equal),
            )
            if other
        ]
        sentences.append(proof)
        if better:
            words = ", ".join(better)
            sentences.append(f"{words[0].upper()}{words[1:]}.")
        if self.gain_per_byte is not None:
            sentences.append(f"A thousand more bytes would gain about {1000 * self.gain_per_byte:.2g}.")
        return " ".join(sentences)

    def compared(self, originals: int) -> list[str]:
        """Lines that compare the files with the originals.

        Args:
            originals: bytes of the original files.
        """
        one, worst = self.allocation, self.worst
        unit = one.budget.size.unit if one.budget.size else ""
        proof = "" if one.gap == 0 else f", at most {one.gap:.2g} from the best"
        return [
            f"before      {len(one.chosen)} images, {format_size(originals, unit)}",
            f"after       {format_size(one.bytes, unit)} of {format_size(int(one.budget.limit), unit)}, "
            f"{100 * one.bytes / originals:.3g} % of the originals: {self.codecs}",
            f"quality     {one.objective.label} {one.value:.4g} on average{proof}",
            f"worst       {worst['value']:.4g}, {worst['image']} ({worst['codec']} {worst['setting']}, "
            f"{format_size(worst['bytes'])})",
        ]


@dataclass(frozen=True)
class CurveSummary:
    """A curve's facts, those at some rates among them, and their renderings."""

    curve: Curve
    targets: Sequence[Fraction] = ()
    """Bits per pixel."""

    @functools.cached_property
    def near(self) -> list[Near | None]:
        """The curve at the targets; None for unreachable ones."""
        return [self.curve.near(target) for target in self.targets]

    def record(self) -> dict[str, Any]:
        """The JSON fields in addition to the curve's frame."""
        unreached = dict.fromkeys(Near._fields)
        return {
            "objective": self.curve.objective.label,
            "rule": self.curve.rule,
            "optimal_allocations": self.curve.steps,
            "targets": [
                unreached | {"target_bpp": target, "changes": []} if near is None else near._asdict()
                for target, near in zip(self.targets, self.near, strict=True)
            ],
        }

    def text(self) -> str:
        """A few lines for a terminal."""
        curve, last = self.curve, self.curve.steps
        lines = [
            f"{last:,} optimal allocations from {curve.bpp(0):.4f} to {curve.bpp(last):.4f} bpp {curve.rule}, "
            f"{curve.objective.label} from {curve.value(0):.4f} to {curve.value(last):.4f}"
        ]
        for target, near in zip(self.targets, self.near, strict=True):
            if near is None:
                lines.append(
                    f"{float(target):g} bpp {curve.rule}: can't be reached, the least is {curve.bpp(0):.4f} bpp."
                )
                continue
            budget = "" if near.budget_bytes is None else f" of {near.budget_bytes:,}"
            other = f"{near.mean_bpp:.6f} mean" if near.rule == "pooled" else f"{near.pooled_bpp:.6f} pooled"
            lines += [
                f"{near.target_bpp:g} bpp {near.rule}: {curve.objective.label} {near.value:.6f}, "
                f"at best {near.bound:.6f}",
                f"  {near.bpp:.6f} bpp {near.rule}, {other}; {near.bytes:,}{budget} bytes",
            ]
            if near.changes:
                gain = f"{1000 * near.price:.2g}"
                lines.append(
                    f"  1,000 more bytes would gain about {gain}; with a larger budget, these images change first:"
                )
            lines += [f"    {one.image}: {one.before} -> {one.after}, {one.bytes:+,} bytes" for one in near.changes]
        return "\n".join(shown(line, line_breaks=False) for line in lines)


def _baseline(baseline: Baseline | None) -> dict[str, Any] | None:
    if baseline is None:
        return None
    numbers = {"value": baseline.value, "bytes": baseline.bytes, "bpp": baseline.bpp}
    return {**numbers, "level": baseline.detail or None}


def chosen_frame(allocations: Sequence[Allocation]) -> "pd.DataFrame":
    """The chosen operating points of allocations, with their targets, as ``solve --out`` writes them."""
    import pandas as pd

    chosen = [one.chosen.assign(target=one.budget.bpp).set_index("target").reset_index() for one in allocations]
    return pd.concat(chosen)
