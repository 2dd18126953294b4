"""The public API: what ``import allocator as al`` gives. It knows all three packages, as the command line does."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Unpack

import numpy as np

from allocator import allocation, tables
from allocator.allocation import Rate, make_budget, parse_target, read_points
from allocator.constraints import Constraints
from allocator.curve import Curve
from allocator.grid import Rule
from allocator.measure.adaptive import Assumption, Needed
from allocator.measure.build import BuildReport, Progress
from allocator.measure.build import build as build_table
from allocator.measure.engines import Engine, Local
from allocator.metrics import Metric, get_metric
from allocator.objective import find_objective
from allocator.problem import Problem, ProblemOptions
from allocator.sizes import Size
from allocator.summary import Summary
from codec import Codec, ImageError, get_codec
from codec.files import is_safe_name
from codec.picture import Colour, ImageLike, save_image

if TYPE_CHECKING:
    import pandas as pd

    from allocator.export import Exported
    from submissions.decoder import Decoder
    from submissions.edition import Edition
    from submissions.entries import DecoderOptions, Entry

Images: TypeAlias = "str | os.PathLike[str] | Iterable[ImageLike] | Mapping[str, ImageLike]"
"""Files, folders, addresses, Pillow images and arrays; or a mapping of names to images."""

CODECS = ("avif", "hevc")
METRICS = ("lpips",)
"""What is measured unless somebody says otherwise."""


@dataclass(frozen=True)
class Allocation(allocation.Allocation):
    """One level for each image, best under a budget; ``chosen`` is a data frame of them."""

    table: "Table" = field(kw_only=True, repr=False)
    """That it was made from."""
    constraints: Constraints = field(kw_only=True, repr=False)

    def __repr__(self) -> str:
        return f"<{Summary(self).text()}>"

    def summary(self) -> str:
        """A few lines on what was reached, and beside it what simpler ways make of the same budget."""
        return Summary(self).text()

    def explain(self) -> list[str]:
        """Why each image got its level, in words; see :func:`allocator.explain.explain`."""
        from allocator.explain import explain

        return explain(self)

    def submit(
        self,
        folder: str | os.PathLike[str],
        *,
        edition: "Edition | str | None" = None,
        fill: bool = False,
        decoder: "Decoder | DecoderOptions | str | os.PathLike[str] | None" = None,
        data_only: bool = False,
    ) -> "Entry":
        """Write it as a submission: the bitstreams in an archive, and a decoder that brings all it needs.

        To enter several rates, or to spend exactly what an edition allows, see :meth:`Table.submit`.

        Args:
            folder: made if missing.
            edition: a year's rules, by name or from a file; whose limits hold.
            fill: spend what is left of the budget on finer steps between levels.
            decoder: one that was packed before (or its file), or how to pack one; by default for the challenge's
                machine and several Pythons, whose wheels come from the package registry.
            data_only: write no decoder.

        Raises:
            SubmissionError: a bitstream can't be made again, the decoder can't be packed, or limits are exceeded.
        """
        from submissions.entries import write_entries

        [entry], _ = write_entries(
            self.table,
            [self],
            [None],
            Path(folder),
            self.constraints,
            edition=_edition(edition),
            fill=fill,
            decoder=_decoder(decoder, data_only),
        )
        return entry

    def export(
        self, folder: str | os.PathLike[str], *, report: Callable[[int, int], None] = lambda done, total: None
    ) -> "Exported":
        """Write each image's bitstream as an ordinary file to deploy, and a list of them.

        Raises:
            AllocatorError: see :func:`allocator.export.export`.
        """
        from allocator.export import export

        return export(self.table, self, Path(folder), report=report)

    def report(self, page: str | os.PathLike[str], *, title: str = "", pictures: int = 40, side: int = 1024) -> Path:
        """Write a page that opens from disk: curves, and each image beside what became of it.

        Args:
            page: the HTML file.
            title: by default the table's name.
            pictures: show this many images; all are in the curves.
            side: pixels of a picture's longer side, at most.

        Raises:
            AllocatorError: the table keeps no bitstreams, or Plotly (the extra ``report``) is missing.
        """
        return self.table.report(page, [self], title=title, pictures=pictures, side=side)


class Table(tables.Table):
    """All operating points of a set of images, in one SQLite file. Close it, or use it as a context manager.

    Args:
        path: the file.

    Raises:
        TableError: it is missing, damaged, or not a table.
    """

    built: BuildReport | None = None
    """What the build did that made or continued it, where :func:`build` returned it."""

    def allocate(
        self, bpp: Rate | None = None, budget: int | str | Size | None = None, **options: Unpack[ProblemOptions]
    ) -> Allocation:
        """The best level for each image within a budget, proven.

        Args:
            bpp: the budget as a rate, bits per pixel: a float or text means what it reads, 0.15 is 15/100.
            budget: the budget in bytes: a number, ``2MB``, ``1.5MiB``, ``30%`` of the original files.
            **options: see :class:`allocator.problem.ProblemOptions`.

        Raises:
            AllocatorError: the budget can't be met, or an option makes no sense for this table.
        """
        problem = self.problem(**options)
        return self._bound(problem.allocate(problem.budget(bpp, budget)), problem)

    def problem(self, **options: Unpack[ProblemOptions]) -> Problem:
        """What :meth:`allocate` solves, for many budgets: the points are read once.

        Args:
            **options: see :class:`allocator.problem.ProblemOptions`.
        """
        return Problem.read(self, **options)

    def _bound(self, found: allocation.Allocation, problem: Problem) -> Allocation:
        values = {one.name: getattr(found, one.name) for one in fields(found)}
        return Allocation(**values, table=self, constraints=problem.constraints)

    def curve(
        self, *, objective: str | Sequence[str] = (), rule: Rule = "pooled", codecs: Sequence[str] = ()
    ) -> Curve:
        """The set's whole curve of rate and quality in one sweep.

        Args:
            objective: see :class:`allocator.problem.ProblemOptions`.
            rule: how the rate of the set is counted.
            codecs: only these.
        """
        return Curve(read_points(self, codecs), find_objective(self, objective), rule)

    def at_targets(
        self, bpp: Sequence[Rate], *, objective: str | Sequence[str] = (), rule: Rule = "pooled"
    ) -> "pd.DataFrame":
        """Each codec allocated on its own at each rate; columns as :func:`allocator.compare.at_targets` gives them.

        Args:
            bpp: rates in bits per pixel.
            objective: see :class:`allocator.problem.ProblemOptions`.
            rule: how the rate of the set is counted.
        """
        from allocator.compare import at_targets

        rates = [parse_target(rate) for rate in bpp]
        return at_targets(read_points(self), rates, find_objective(self, objective), [*self.metrics()], rule)

    def against(self, anchor: str, *, rule: Rule = "pooled") -> "pd.DataFrame":
        """BD-rates of every codec against an anchor; columns as :func:`allocator.compare.against` gives them.

        Args:
            anchor: a codec of the table.
            rule: how the rate of the set is counted.

        Raises:
            CompareError: the anchor isn't measured, or isn't at every image.
        """
        from allocator.compare import against

        return against(read_points(self), anchor, self.metrics(), rule=rule)

    def level_means(self, codec: str, metric: str, rule: Rule = "pooled") -> tuple[list[float], list[float]]:
        """At each of a codec's levels the set's rate in bits per pixel, and the images' mean of a metric.

        Args:
            codec: of the table.
            metric: of the table.
            rule: how the rate of the set is counted.

        Raises:
            CompareError: a level isn't measured on all images.
        """
        from allocator.compare import level_means

        return level_means(read_points(self), codec, metric, rule)

    def submit(
        self,
        folder: str | os.PathLike[str],
        bpp: Rate | Sequence[Rate] = (),
        budget: int | str | None = None,
        *,
        edition: "Edition | str | None" = None,
        fill: bool = False,
        decoder: "Decoder | DecoderOptions | str | os.PathLike[str] | None" = None,
        data_only: bool = False,
        **options: Unpack[ProblemOptions],
    ) -> "list[Entry]":
        """Allocate, and write a submission for each rate; of several, a folder each, with one decoder.

        Args:
            folder: made if missing.
            bpp: rates in bits per pixel; by default all of the edition's.
            budget: in bytes, in place of rates.
            edition: a year's rules, by name or from a file: they say what counts and how many bytes a rate gives.
            fill: see :meth:`Allocation.submit`.
            decoder: see :meth:`Allocation.submit`.
            data_only: see :meth:`Allocation.submit`.
            **options: see :class:`allocator.problem.ProblemOptions`.

        Raises:
            SubmissionError: see :func:`submissions.entries.make_entries`.
            AllocatorError: see :meth:`allocate`.
        """
        from submissions.entries import make_entries

        entries, _ = make_entries(
            self,
            self.problem(**options),
            Path(folder),
            edition=_edition(edition),
            targets=bpp if isinstance(bpp, Sequence) and not isinstance(bpp, str) else [bpp],
            size=budget,
            fill=fill,
            decoder=_decoder(decoder, data_only),
        )
        return entries

    def report(
        self,
        page: str | os.PathLike[str],
        allocations: Sequence[allocation.Allocation],
        *,
        title: str = "",
        pictures: int = 40,
        side: int = 1024,
    ) -> Path:
        """Write a page that opens from disk, of several allocations of the same images.

        Args:
            page: see :meth:`Allocation.report`.
            allocations: by the same objective, one for each target.
            title: see :meth:`Allocation.report`.
            pictures: see :meth:`Allocation.report`.
            side: see :meth:`Allocation.report`.
        """
        from allocator.report import make_report
        from codec.files import write_file

        text = make_report(
            self, allocations, title=title or f"Allocation of {self.path.stem}", pictures=pictures, side=side
        )
        write_file(page, text.encode())
        return Path(page)


def open(path: str | os.PathLike[str]) -> Table:
    """A table that was built before.

    Raises:
        TableError: it is missing, damaged, or not a table.
    """
    return Table(path)


def build(
    table: str | os.PathLike[str],
    images: Images,
    codecs: Sequence[str | Codec] = CODECS,
    metrics: Sequence[str | Metric] = METRICS,
    *,
    jobs: int | None = None,
    engine: Engine | None = None,
    keep_going: bool = False,
    bitstreams: bool = True,
    colour: Colour = "raw",
    only_bpp: Sequence[Rate] = (),
    only_budgets: Sequence[int | str] = (),
    assume: Assumption = "monotone",
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Table:
    """Measure images at every level of codecs into a table; the same call continues one that was interrupted.

    Args:
        table: the SQLite file; made if missing.
        images: files, folders, addresses, Pillow images and arrays, or a mapping of names to images. Of what isn't a
            file, a PNG is written to ``TABLE-images/``.
        codecs: by name, or objects.
        metrics: by name, or objects; the first is optimised unless an allocation says otherwise.
        jobs: processes of this machine; by default one for each core.
        engine: in place of them, such as :class:`allocator.measure.engines.Ray`.
        keep_going: leave out what fails, see ``built.failures`` of what is returned, in place of stopping.
        bitstreams: keep them in the table.
        colour: what becomes of colour profiles: ``raw`` ignores them, as the challenge does; ``srgb`` and
            ``profile`` are for files to deploy.
        only_bpp: measure only what allocations at these rates need.
        only_budgets: measure only what allocations within these budgets need.
        assume: about each image's curve of cost over bytes, for these.
        progress: called as the build goes on.

    Raises:
        AllocatorError: an image or codec failed and ``keep_going`` is off (what was measured is kept), or the table
            can't be written.
        CodecError: there is no such codec or metric, or pixels can't be saved.
    """
    coders = [get_codec(one) if isinstance(one, str) else one for one in codecs]
    judges = [get_metric(one) if isinstance(one, str) else one for one in metrics]
    needed = None
    if only_bpp or only_budgets:
        needed = needed_for(coders, judges, only_bpp, only_budgets, assume)
    built = build_table(
        table,
        _as_files(images, Path(f"{os.fspath(table)}-images")),
        coders,
        judges,
        engine=engine or Local(jobs),
        keep_going=keep_going,
        keep_bitstreams=bitstreams,
        colour=colour,
        needed=needed,
        report=progress,
    )
    opened = Table(table)
    opened.built = built
    return opened


def _as_files(images: Images, folder: Path) -> list[str | os.PathLike[str]]:
    """Images as files; what isn't one yet is written to a folder, under its name or one that its pixels give it."""
    if isinstance(images, str | os.PathLike):
        return [images]
    named = images.items() if isinstance(images, Mapping) else ((None, image) for image in images)
    files: list[str | os.PathLike[str]] = []
    for name, image in named:
        if isinstance(image, str | os.PathLike):
            if name is not None:
                raise ImageError(f"{name}: files have names already; give {image} in a list.")
            files.append(image)
            continue
        name = name or f"image-{hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:12]}"
        if "/" in name or not is_safe_name(name):
            raise ImageError(f"{name!r} can't be the name of an image's file.")
        save_image(folder / f"{name}.png", image)
        files.append(folder / f"{name}.png")
    return files


def needed_for(
    codecs: Sequence[Codec],
    metrics: Sequence[Metric],
    targets: Sequence[Rate] = (),
    budgets: Sequence[int | str] = (),
    assume: Assumption = "monotone",
) -> Needed:
    """What a build is to measure for allocations by the first metric at some rates and within some budgets.

    Args:
        codecs: that are measured.
        metrics: that are measured.
        targets: bits per pixel.
        budgets: in bytes, see :class:`allocator.sizes.Size`.
        assume: about each image's curve of cost over bytes.
    """
    rates = [parse_target(target) for target in targets]
    sizes = [Size.parse(str(budget)) for budget in budgets]
    return Needed(
        codecs,
        lambda table, points: [
            *(make_budget(points, "pooled", target=rate) for rate in rates),
            *(make_budget(points, "pooled", size=size, originals=table.original_bytes()) for size in sizes),
        ],
        lambda table: find_objective(table, [metrics[0].name]),
        assume,
    )


def _edition(edition: "Edition | str | None") -> "Edition | None":
    from submissions.edition import find_edition

    return find_edition(edition) if isinstance(edition, str) else edition


def _decoder(
    decoder: "Decoder | DecoderOptions | str | os.PathLike[str] | None", data_only: bool
) -> "Decoder | DecoderOptions | None":
    from submissions.decoder import read_decoder
    from submissions.entries import DecoderOptions

    if data_only:
        return None
    return read_decoder(Path(decoder)) if isinstance(decoder, str | os.PathLike) else decoder or DecoderOptions()
