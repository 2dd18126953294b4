"""Refined tables: better points by real bitstreams, of which all that reads tables makes use."""

import dataclasses
import shutil
import signal
import sqlite3
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import allocator as al
from allocator.allocation import allocate, make_budget, read_points
from allocator.errors import AllocatorError
from allocator.measure.build import build
from allocator.measure.estimate import estimate
from allocator.measure.refine import RefineProgress, RefineReport, prices, refine
from allocator.metrics import get_metric
from allocator.objective import find_objective
from allocator.points import is_refined
from allocator.problem import Problem
from allocator.provenance import FOOTNOTE, REFINED_FOOTNOTE
from allocator.solver.hull import sweep
from allocator.tables import Table
from codec import get_codec, pixels_sha256, read_image
from codec.bank import Bank
from codec.learned import LearnedCodec
from tests.allocator.measure.at_once import Inline
from tests.allocator.measure.builds import frame, rows, wait_for_rows
from tests.helpers import run, started

RATE, STEPS = "0.4", 4
TIMES = ["encode_seconds", "decode_seconds"]


def refined_by(path: Path, rate: str = RATE, steps: int = STEPS, **options: Any) -> RefineReport:
    with Table(path) as table:
        problem = Problem.read(table, **options.pop("problem", {}))
        return refine(table, problem, [problem.budget(rate)], steps=steps, engine=Inline(), **options)


def refined(path: Path) -> pd.DataFrame:
    points = frame(path)
    return points[is_refined(points)]


@pytest.fixture(scope="module")
def small(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    for name, box in {"coffee": (0, 0, 64, 64), "chelsea": (20, 20, 84, 68)}.items():
        Image.open(photos / f"{name}.png").crop(box).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def plain(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of dkic by PSNR; not to be changed."""
    path = tmp_path_factory.mktemp("plain") / "run.db"
    build(path, [small], [get_codec("dkic")], [get_metric("psnr")], engine=Inline())
    return path


@pytest.fixture(scope="module")
def done(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, refined; not to be changed."""
    path = Path(shutil.copy(plain, tmp_path_factory.mktemp("done")))
    assert refined_by(path).refined >= 2
    return path


@pytest.fixture
def mine(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(done, tmp_path))


def test_refined_points_are_what_their_bitstreams_are(done: Path, small: Path) -> None:
    bank = get_codec("dkic")
    assert isinstance(bank, LearnedCodec)
    fresh = LearnedCodec(Bank.load(bank.bank.folder))
    with Table(done) as table:
        for point in refined(done).itertuples():
            assert str(point.setting).partition("~refined-")[0] in bank.levels
            assert f"~refined-{STEPS}-" in str(point.setting)
            data = table.bitstream(point.sha256, point.fingerprint)
            assert data is not None
            assert len(data) == point.bytes
            decoded, original = fresh.decode(data), read_image(small / f"{point.image}.png")
            assert pixels_sha256(decoded) == point.decoded_sha256
            assert get_metric("psnr").compare(original, decoded) == pytest.approx(point.psnr)


def test_each_is_better_than_any_mixture_of_the_points_before(done: Path) -> None:
    points = frame(done)
    for _, of_image in points.groupby("image"):
        before = of_image[~is_refined(of_image)]
        hull = sweep([-before["psnr"].to_numpy()], [before["bytes"].to_numpy()])
        for point in of_image[is_refined(of_image)].itertuples():
            assert -point.psnr < hull.bound(point.bytes)


def test_allocations_gain_by_them(plain: Path, done: Path) -> None:
    before, after = ({**vars(al.open(path).allocate(RATE))} for path in (plain, done))
    assert after["value"] > before["value"]
    assert is_refined(after["chosen"]).any()
    assert after["bytes"] <= before["budget"].limit
    with Table(plain) as one, Table(done) as other:  # what levels are doesn't change by what single images have
        assert al.Table(one.path).level_means("dkic", "psnr") == al.Table(other.path).level_means("dkic", "psnr")


def test_the_same_call_again_finds_nothing_to_do(mine: Path) -> None:
    before = frame(mine)
    again = refined_by(mine)
    assert (again.refined, again.no_better, again.left) == (0, 0, 0)
    assert again.known > 0
    pd.testing.assert_frame_equal(frame(mine), before)
    assert again.gains[0].after > again.gains[0].before


def test_more_steps_leave_the_earlier_points(mine: Path) -> None:
    before = refined(mine)
    assert refined_by(mine, steps=STEPS + 2, neighbours=0).known == 0
    after = refined(mine)
    assert set(before["fingerprint"]) <= set(after["fingerprint"])


def test_no_search_begins_after_the_time(plain: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(plain, tmp_path))
    found = refined_by(path, hours=1e-9)
    assert (found.refined, found.no_better) == (0, 0)
    assert found.left > 2
    assert refined(path).empty


def test_neighbours_are_as_many_as_is_said(plain: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(plain, tmp_path))
    chosen = al.open(path).allocate(RATE).chosen.set_index("image")["setting"]
    assert refined_by(path, steps=2, neighbours=0).left == 0
    for point in refined(path).itertuples():
        assert str(point.setting).startswith(f"{chosen[point.image]}~")


def test_building_again_keeps_them_and_measures_new_metrics(mine: Path, small: Path) -> None:
    before = refined(mine)
    build(mine, [small], [get_codec("dkic")], [get_metric("psnr"), get_metric("ms-ssim")], engine=Inline())
    after = refined(mine)
    pd.testing.assert_frame_equal(after[before.columns], before)
    assert after["ms-ssim"].between(0, 1).all()
    assert not frame(mine)["ms-ssim"].isna().any()


def test_another_version_of_the_bank_takes_their_place(mine: Path, small: Path) -> None:
    bank = get_codec("dkic")
    assert isinstance(bank, LearnedCodec)
    newer = LearnedCodec(bank.bank)
    newer.version = "2"
    build(mine, [small], [newer], [get_metric("psnr")], engine=Inline())
    assert refined(mine).empty


def test_tables_that_were_refined_apart_are_merged(plain: Path, done: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(plain, tmp_path / "other.db"))
    assert refined_by(other, rate="0.9", neighbours=0).refined > 0
    assert run("tables", "merge", done, other, "-o", tmp_path / "both.db").code == 0
    assert len(refined(tmp_path / "both.db")) == len(refined(done)) + len(refined(other))
    assert al.open(tmp_path / "both.db").refined_by() == {"dkic": {"psnr"}}


def test_figures_by_what_it_was_refined_for_are_marked(done: Path, plain: Path, tmp_path: Path) -> None:
    assert al.flatters("lpips-alex", "dkic", {"dkic": {"lpips-alex"}})
    assert not al.flatters("lpips-alex", "dkic", al.open(done).refined_by())
    for path, footnote in ((done, REFINED_FOOTNOTE), (plain, FOOTNOTE)):
        ran = run("compare", path, "--anchor", "dkic", "-t", RATE)
        assert ran.code == 0, ran.err
        said = " ".join(ran.out.split())
        assert footnote in said
        assert (REFINED_FOOTNOTE in said) == (path == done)
    assert run("report", done, "-t", RATE, "--pictures", 0, "-o", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert REFINED_FOOTNOTE in page
    assert '"refined": {"dkic": {"bpp": [' in page


def test_submissions_hold_them_and_verify(plain: Path, tmp_path: Path) -> None:
    path, entry = Path(shutil.copy(plain, tmp_path)), tmp_path / "entry"
    command = ("submit", path, "-t", RATE, "-o", entry, "--no-decoder", "--fill", "--refine", STEPS)
    ran = run(*command)
    assert ran.code == 0, ran.err
    assert "~refined-" in (entry / "manifest.json").read_text()
    verdict = run("verify", entry)
    assert "PASS: 2 images" in verdict.out
    assert "as measured" in verdict.out
    assert run("export", path, "-t", RATE, "-o", tmp_path / "files").code == 0
    assert "~refined-" in (tmp_path / "files" / "manifest.csv").read_text()
    assert f"~refined-{STEPS}" in run("tables", "show", path).out
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM bitstream")
    ran = run("submit", path, "-t", RATE, "-o", tmp_path / "again", "--no-decoder")
    assert ran.code == 2
    assert "the table keeps no bitstreams" in ran.err


def test_an_interrupted_and_a_killed_refinement_resume(plain: Path, done: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(plain, tmp_path))
    command = ("refine", path, "-t", RATE, "--steps", STEPS, "-j", 1)
    with started(*command) as process:
        wait_for_rows(path, rows(plain) + 1, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "the same command resumes" in said
    with started(*command) as process:
        wait_for_rows(path, rows(plain) + 2, process)
        process.send_signal(signal.SIGKILL)
    ran = run(*command)
    assert ran.code == 0, ran.err
    assert " done before" in ran.out
    pd.testing.assert_frame_equal(frame(path).drop(columns=TIMES), frame(done).drop(columns=TIMES))


def test_mixtures_are_refined_by_all_their_metrics(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    metrics = [get_metric(name) for name in ("lpips", "ms-ssim", "psnr", "ssimulacra2")]
    build(path, [small / "chelsea.png"], [get_codec("po-dkic")], metrics, engine=Inline())
    mixture = ["lpips-alex", "ms-ssim:0.5", "psnr:0.01"]
    found = refined_by(path, "0.5", problem={"objective": mixture}, neighbours=0)
    assert found.refined == 1
    assert found.gains[0].after < found.gains[0].before
    with pytest.raises(AllocatorError, match="ssimulacra2 has no gradients"):
        refined_by(path, "0.5", problem={"objective": "ssimulacra2"})


@pytest.mark.parametrize("rule", ["pooled", "mean"])
@pytest.mark.parametrize("aggregate", ["mean", "pixels", "4"])
def test_prices_are_those_at_which_each_image_alone_chooses_the_same(table: Path, rule: Any, aggregate: str) -> None:
    with Table(table) as opened:
        points = read_points(opened)
        weights = {name: 1 + i for i, name in enumerate(sorted(points["image"].unique()))}
        objective = find_objective(opened, ["psnr"], aggregate, weights)
    found = allocate(points, make_budget(points, rule, target=Fraction("1.2")), objective)
    found = dataclasses.replace(found, points=points)
    costs = pd.Series(objective.costs(points), points.index)
    regrets = []
    for (_, row), price in zip(found.chosen.iterrows(), prices(found), strict=True):
        here = points[points["image"] == row["image"]]
        bend = objective.aggregate.power or 1
        same = (here["codec"] == row["codec"]) & (here["level"] == row["level"])
        own = costs[here.index]
        slope = bend * float(own[same].iloc[0]) ** (bend - 1)  # of the power that is summed, at the chosen cost
        paid = own**bend / slope + price * here["bytes"]
        regrets.append(float(paid[same].iloc[0] - paid.min()))
    # all but what fills the last bytes of the budget
    assert sum(regret > 1e-9 for regret in regrets) <= 2
    assert np.median(regrets) < 1e-9


def test_mistakes_are_one_sentence(table: Path, plain: Path) -> None:
    for path, options, sentence in (
        (table, ("-t", "1.2"), "refining needs the codec of a bank, such as dkic or po-dkic"),
        (plain, ("-t", "0.4", "--aggregate", "worst"), "The aggregate worst gives a byte no price"),
        (plain, ("-t", "100"), "At 100 bpp more bytes gain nothing"),
        (plain, ("-t", "0.0001"), "can't be reached"),
    ):
        ran = run("refine", path, *options)
        assert ran.code == 2
        assert sentence in ran.err
    assert rows(plain) == 2 * len(get_codec("dkic").levels)


def test_metrics_of_other_weights_are_refused(mine: Path) -> None:
    with sqlite3.connect(mine) as connection:
        connection.execute("UPDATE metric SET fingerprint = 'other'")
    with pytest.raises(AllocatorError, match="its psnr was measured by another version"):
        refined_by(mine)


def test_an_image_that_has_changed_is_named(plain: Path, small: Path, tmp_path: Path) -> None:
    path, folder = Path(shutil.copy(plain, tmp_path)), Path(shutil.copytree(small, tmp_path / "images"))
    build(path, [folder], [get_codec("dkic")], [get_metric("psnr")], engine=Inline())
    Image.new("RGB", (64, 64)).save(folder / "coffee.png")
    found = refined_by(path, neighbours=0, steps=2)
    assert len(found.failures) == 1
    assert "coffee.png: has changed" in found.failures[0]
    assert set(refined(path)["image"]) <= {"chelsea"}
    Image.new("RGB", (64, 48)).save(folder / "chelsea.png")
    ran = run("refine", path, "--target", RATE, "--steps", 1, "--neighbours", 0, "-j", 1)
    assert ran.code == 1
    said = " ".join(ran.err.split())
    assert "Not refined:" in said
    assert all(f"{name}.png: has changed" in said for name in ("coffee", "chelsea"))


def test_the_estimate_of_a_build_counts_refined_points(mine: Path, small: Path) -> None:
    codecs, metrics = [get_codec("dkic")], [get_metric("psnr"), get_metric("ms-ssim")]
    found = estimate(mine, [small], codecs, metrics, jobs=1)
    assert found.missing == found.points == len(frame(mine)) > 2 * len(codecs[0].levels)
    assert build(mine, [small], codecs, metrics, engine=Inline()).points_measured == 0


def test_the_api_refines_in_processes(plain: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(plain, tmp_path))
    told: list[RefineProgress] = []
    with al.open(path) as table:
        before = table.allocate(RATE).value
        found = table.refine(RATE, steps=3, neighbours=0, jobs=1, progress=told.append)
        assert (told[-1].done, told[-1].points) == (2, 2)
        assert found.refined + found.no_better == 2
        assert table.allocate(RATE).value == found.gains[0].after >= before
