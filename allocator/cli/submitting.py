"""Commands that make entries of the challenge, and prove them."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli import completion
from allocator.cli.app import (
    Json,
    Trust,
    Weights,
    app,
    codec_names,
    echo,
    emit,
    ended_by_signals,
    marked,
    note,
    use_weights,
)
from allocator.cli.solving import Problem, record, summary, takes_problem

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from allocator.allocation import Allocation, Budget
    from submissions.decoder import Decoder
    from submissions.edition import Edition
    from submissions.fill import Refilled
    from submissions.verify import Verdict

PAGE = "README.md"


class CountName(StrEnum):
    """What counts against the budget."""

    streams = "streams"
    archive = "archive"


@app.command()
@takes_problem
def submit(
    problem: Problem,
    out: Annotated[Path, typer.Option("--out", "-o", help="The submission's folder.")],
    edition: Annotated[
        str | None,
        typer.Option(
            metavar="YEAR|FILE",
            autocompletion=completion.edition_names,
            help="The rules: 2020 to 2025, 2021-validation, 2021-test, or a TOML file. Without a target, there is an "
            "entry for each of its rates.",
        ),
    ] = None,
    count: Annotated[
        CountName | None, typer.Option(help="What counts: the bitstreams, or the whole data archive.")
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Spend what is left of the budget on finer steps between levels.")
    ] = False,
    decoder: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pack data for this decoder, which stays as it is.")
    ] = None,
    no_decoder: Annotated[bool, typer.Option("--no-decoder", help="Pack the data only.")] = False,
    python: Annotated[
        list[str] | None,
        typer.Option(metavar="VERSION", help="That the decoder is to run under; by default 3.10 to 3.13."),
    ] = None,
    wheelhouse: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Wheels for it, in place of the package registry.")
    ] = None,
    machine: Annotated[str, typer.Option(help="The server's processor.")] = "x86_64",
    metric_weights: Weights = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Solve, and write the chosen bitstreams and a decoder as a submission; of several rates, a folder each."""
    import dataclasses
    import functools

    from allocator.errors import AllocatorError
    from allocator.tables import Table
    from codec.files import write_file
    from codec.registry import stored_codec
    from submissions.decoder import DECODER, check_size, read_decoder
    from submissions.decoder import summary as of_decoder
    from submissions.edition import CUSTOM, Edition, find_edition
    from submissions.manifest import ARCHIVE
    from submissions.submit import submit

    use_weights(metric_weights)
    say = functools.partial(echo, err=as_json)
    rules = find_edition(edition) if edition else Edition(CUSTOM)
    if count:
        rules = dataclasses.replace(rules, count=count.value)
    if edition and problem.rule.value != "pooled":
        raise AllocatorError("The challenge's rate is pooled over the set; leave out --rule, or --edition.")
    if fill and (problem.most_bpp or problem.force or problem.forbid or problem.decode_seconds):
        raise AllocatorError("--fill can't keep to limits on single images or on time; leave it out, or those.")
    caps: dict[int, int] = {}
    allocations = problem.allocations(lambda points: _budgets(problem, points, rules, bool(edition), caps))
    packed = (
        None
        if no_decoder
        else read_decoder(decoder)
        if decoder
        else _pack(allocations[0], python, wheelhouse, machine, rules)
    )
    if packed:
        check_size(packed, rules.decoder_bytes)
        say(of_decoder(packed, rules.decoder_bytes))
    rows, entries = [], []
    folders = [out / f"{one.budget.bpp:g}" for one in allocations] if len(allocations) > 1 else [out]
    _refuse_others(out, folders)
    chosen = {name: stored_codec(name) for one in allocations for name in sorted(one.chosen["codec"].unique())}
    if packed:
        packed.refuse_unknown(chosen.values())
    for name, one in chosen.items():
        if not one.portable:
            note(
                f"{name} isn't exact across machines: another one may read other symbols and decode noise. "
                "`allocator verify --perturb` shows how near that is, and the docs how a model becomes exact."
            )
    for i, (allocation, folder) in enumerate(zip(allocations, folders, strict=True)):
        cap = caps.get(i)
        if fill:
            say(_heading(folder, allocation, cap, rules))
        with Table(problem.table) as opened:
            refilled = _fill(problem, allocation, say) if fill else None
            manifest = submit(opened, allocation, folder, edition=rules, cap=cap, decoder=packed, refilled=refilled)
        say(summary(allocation))
        counted = (folder / ARCHIVE).stat().st_size if rules.count == "archive" else manifest.bytes
        slack = "" if manifest.budget_bytes is None else f", {manifest.budget_bytes - counted:,} under the cap"
        say(f"{folder / ARCHIVE}: {len(manifest.entries)} bitstreams, {manifest.bytes:,} bytes{slack}")
        rows.append((manifest, counted))
        entries.append(
            {
                "folder": folder,
                "bytes": manifest.bytes,
                "counted_bytes": counted,
                "budget_bytes": manifest.budget_bytes,
                "value": manifest.value,
                "allocation": record(allocation),
            }
        )
    if packed:
        write_file(out / DECODER, packed.data)
    if len(rows) > 1:
        from submissions.page import page

        write_file(out / PAGE, page(rows, packed).encode())
        say(f"{out / PAGE}: what was reached, for the write-up")
    archive = packed and {
        "file": out / DECODER,
        "bytes": len(packed.data),
        "sha256": packed.sha256,
        "pythons": packed.pythons,
    }
    emit({"edition": rules.name, "count": rules.count, "decoder": archive, "entries": entries}, as_json=as_json)


def _budgets(
    problem: Problem, points: "pd.DataFrame", rules: "Edition", named: bool, caps: dict[int, int]
) -> "list[Budget]":
    """The budgets of what is allocated; what they are under the rules, archive included, goes into ``caps``."""
    from allocator.allocation import make_budget, parse_target
    from allocator.errors import AllocatorError
    from submissions.submit import data_overhead

    if named and problem.budget is None:
        sizes = points.drop_duplicates("image")
        pixels = int((sizes["width"].astype(int) * sizes["height"].astype(int)).sum())
        targets = problem.target or list(rules.targets)
        if not targets:
            raise AllocatorError(f"The edition {rules.name} names no rates; name at least one --target.")
        limits = [(rules.cap(rate, pixels), float(rate)) for rate in map(parse_target, targets)]
        budgets = [make_budget(points, "pooled", total_bytes=limit)._replace(bpp=bpp) for limit, bpp in limits]
    else:
        budgets = problem.budgets(points)
    if rules.count == "streams":
        caps |= {i: int(budget.limit) for i, budget in enumerate(budgets) if budget.rule == "pooled"}
        return budgets
    if problem.rule.value != "pooled":
        raise AllocatorError("An archive's bytes count only under the rule `pooled`.")
    beside = data_overhead(points, rules)
    reduced = []
    for i, budget in enumerate(budgets):
        caps[i] = int(budget.limit)
        if caps[i] <= beside:
            raise AllocatorError(f"The archive alone takes {beside:,} bytes of the budget of {caps[i]:,}.")
        reduced.append(budget._replace(limit=budget.limit - beside))
    return reduced


def _pack(
    allocation: "Allocation", pythons: list[str] | None, wheelhouse: Path | None, machine: str, rules: "Edition"
) -> "Decoder":
    """For all codecs of the table, so that another allocation gets the same decoder."""
    from codec.registry import stored_codec
    from submissions.decoder import make_decoder

    codecs = [stored_codec(name) for name in sorted(allocation.points["codec"].unique())]
    return make_decoder(codecs, pythons, wheelhouse, machine, programs=rules.programs, report=note)


def _refuse_others(out: Path, folders: list[Path]) -> None:
    """Old entries beside new ones would be taken for part of them."""
    from allocator.errors import AllocatorError
    from submissions.manifest import MANIFEST

    for manifest in [out / MANIFEST, *out.glob(f"*/{MANIFEST}")]:
        if manifest.is_file() and manifest.parent not in folders:
            raise AllocatorError(f"{manifest.parent}: holds another submission; delete it, or choose another --out.")


def _heading(folder: Path, allocation: "Allocation", cap: int | None, rules: "Edition") -> str:
    """What is filled, and why that isn't all of what is allowed."""
    limit = int(allocation.budget.limit)
    words = f"{folder}: {allocation.budget.bpp:g} bpp, {int(allocation.slack):,} of {limit:,} bytes to be filled"
    if cap is not None and cap != limit and rules.count == "archive":
        words += f" (the cap is {cap:,}, of which the archive's own bytes take up to {cap - limit:,})"
    return words + ":"


def _fill(problem: Problem, allocation: "Allocation", say: Callable[[str], None]) -> "dict[str, Refilled]":
    from allocator.errors import AllocatorError
    from allocator.metrics import get_metric
    from allocator.metrics.base import METRICS
    from codec import names
    from submissions.fill import fill

    if allocation.budget.rule != "pooled":
        raise AllocatorError("--fill works under the rule `pooled`.")
    chosen = allocation.chosen
    measured = [name for name in names(METRICS) if name in chosen and chosen[name].notna().all()]
    floors = [
        name for name in measured if any(name.startswith(text.partition("=")[0]) for text in problem.floor or ())
    ]
    metrics = [get_metric(name) for name in measured]
    return fill(allocation, int(allocation.slack), metrics, keep=floors, report=lambda line: say(f"  {line}"))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A submission's folder, or one of several.", show_default=False)],
    as_devkit: Annotated[
        bool,
        typer.Option("--as-devkit", help="Run in an environment made of the devkit's packages: gigabytes, once."),
    ] = False,
    python: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="That environment's Python; by default python3.12, if any.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="That it was made from; by default the one that the manifest names.", metavar="TABLE"),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH", help="The target list: originals, folders or addresses of them, or names in a .txt."
        ),
    ] = None,
    edition: Annotated[
        str | None,
        typer.Option(help="Whose rules are to be kept; by default those of the year that the manifest names."),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option("--codec", "-c", metavar="NAME=MODEL", help="A model that the manifest names."),
    ] = None,
    perturb: Annotated[
        bool, typer.Option("--perturb", help="Decode again as other machines might, and say which images differ.")
    ] = False,
    metric_weights: Weights = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Decode a submission as the challenge's server does, and compare it with what was measured."""
    import functools

    from submissions.devkit import built, cache, filtered, server_python
    from submissions.edition import find_edition
    from submissions.verify import find_submissions, verify

    use_weights(metric_weights)
    codec_names(codec)

    def environment(empty: Path) -> dict[str, str]:
        if not (as_devkit or python):
            return filtered(empty)
        command = server_python(python)
        return built(cache(command), command, functools.partial(echo, err=True))

    found = find_submissions(folder)
    rules = find_edition(edition) if edition else None
    verdicts = []
    for one in found:
        with ended_by_signals():
            verdict = verify(one, environment, table=table, images=images or (), edition=rules, perturb=perturb)
        more = {"passed": verdict.passed, "counted_bytes": verdict.counted, "unenforced": verdict.unenforced}
        verdicts.append({"folder": one, **more, **vars(verdict)})
        if not as_json:
            emit({}, *([f"{one}:"] if len(found) > 1 else []), *_told(verdict), as_json=False)
    passed = all(one["passed"] for one in verdicts)
    emit({"passed": passed, "submissions": verdicts}, as_json=as_json)
    if not passed:
        raise typer.Exit(1)


def _told(verdict: "Verdict") -> "list[RenderableType]":
    lines: list[RenderableType] = []
    if run := verdict.watched:
        lines.append(
            f"decode: {run.seconds:.1f} s ({run.seconds / max(verdict.megapixels, 1e-6):.2f} s a megapixel), "
            f"{run.peak_bytes / 2**30:.2f} GiB at most"
        )
    lines += [f"decoded {line}" for line in verdict.perturbed]
    lines += [marked("not checked", f": {what}", "yellow") for what in verdict.unchecked]
    lines += [marked("not enforced", f": {what}", "yellow") for what in verdict.unenforced]
    lines += [marked("FAIL", f": {failure}", "bold red") for failure in verdict.failures]
    if verdict.passed:
        budget = f" of {verdict.budget_bytes:,}" if verdict.budget_bytes is not None else ""
        said = "as measured" if verdict.from_table else "as the manifest says"
        words = f": {verdict.images} images decode, {verdict.counted:,} bytes{budget}; {said}: "
        words += f"{', '.join(verdict.confirmed)}."
        for title, left in (("Not checked", verdict.unchecked), ("Not enforced", verdict.unenforced)):
            if left:
                words += f" {title}: {', '.join(line.partition(':')[0] for line in left)}."
        lines.append(marked("PASS", words, "bold green"))
    return lines
