"""`--json`: one document with the same results as in Python."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from allocator.allocation import allocate, make_budget, read_points
from allocator.cli.app import emit
from allocator.compare import against, at_targets
from allocator.curve import Curve
from allocator.objective import find_objective
from allocator.tables import Table
from codec import get_codec, read_image
from tests.helpers import run


class Place:
    """The photos, their table, and a folder to write in."""

    def __init__(self, photos: Path, table: Path, out: Path) -> None:
        self.photos, self.table, self.out = photos, table, out
        self.image = photos / "rocket.png"
        with Table(table) as opened:
            self.points = read_points(opened)
            self.goal = find_objective(opened)
        self.budget = make_budget(self.points, "pooled", target=Fraction("1.2"))
        self.allocation = allocate(self.points, self.budget, self.goal)

    def is_allocation(self, found: dict[str, Any]) -> None:
        own = self.allocation
        assert (found["value"], found["bytes"], found["bpp"]) == (own.value, own.bytes, own.bpp)
        assert (found["target_bpp"], found["budget_bytes"]) == (1.2, int(own.budget.limit))
        assert (found["gap"], found["slack_bytes"], found["gain_per_byte"]) == (own.gap, own.slack, own.price)
        assert own.single is not None
        assert found["single_level"] == {
            "value": own.single.value,
            "bytes": own.single.bytes,
            "bpp": own.single.bpp,
            "level": own.single.detail,
        }
        for image, row in zip(found["images"], own.chosen.to_dict("records"), strict=True):
            assert {key: image[key] for key in ("image", "codec", "level", "setting", "bytes", "bpp")} == {
                key: row[key] for key in ("image", "codec", "level", "setting", "bytes", "bpp")
            }
            assert image["metrics"] == {"psnr": row["psnr"], "ms-ssim": row["ms-ssim"]}


@pytest.fixture
def place(photos: Path, table: Path, tmp_path: Path) -> Place:
    return Place(photos, table, tmp_path)


def same(frame: pd.DataFrame, rows: list[dict[str, Any]]) -> None:
    """Rows of numbers and texts, null for NaN."""
    assert rows == [
        {key: None if value != value else value for key, value in row.items()} for row in frame.to_dict("records")
    ]


def codecs(found: Any, place: Place) -> None:
    jpeg = next(one for one in found["codecs"] if one["codec"] == "jpeg")
    own = get_codec("jpeg")
    assert jpeg == {
        "codec": "jpeg", "levels": list(own.levels), "suffix": ".jpg", "version": own.version, "error": None
    }  # fmt: skip


def shown(found: Any, place: Place) -> None:
    assert (found["images"], found["points"]) == (5, 155)
    assert found["higher_is_better"] == {"psnr": True, "ms-ssim": True}
    levels = place.points.groupby(["codec", "level"], observed=True)
    means = levels[["bpp", "encode_seconds", "psnr", "ms-ssim"]].mean()
    assert len(found["levels"]) == len(means)
    for one in found["levels"]:
        row = means.loc[(one["codec"], one["level"])]
        assert (one["bpp"], one["encode_seconds"]) == pytest.approx((row["bpp"], row["encode_seconds"]), rel=1e-14)
        assert one["metrics"] == pytest.approx({"psnr": row["psnr"], "ms-ssim": row["ms-ssim"]}, rel=1e-14)


def built(found: Any, place: Place) -> None:
    assert (found["images"], found["points_measured"], found["points_known"]) == (1, 16, 0)
    assert found["failures"] == found["others"] == []


def exported(found: Any, place: Place) -> None:
    assert found == {"out": str(place.out / "all.csv"), "points": len(pd.read_csv(place.out / "all.csv"))}


def merged(found: Any, place: Place) -> None:
    with Table(Path(found["table"])) as opened:
        assert {key: found[key] for key in opened.counts()} == opened.counts()


def solved(found: Any, place: Place) -> None:
    place.is_allocation(found["allocations"][0])
    assert len(found["allocations"][0]["explanation"]) == 15
    assert pd.read_csv(found["out"])["bytes"].sum() == place.allocation.bytes


def frontier(found: Any, place: Place) -> None:
    curve = Curve(place.points, place.goal)
    same(curve.frame(50), found["curve"])
    reached, unreached = found["targets"]
    near = curve.near(Fraction("1.2"))
    assert near is not None
    assert reached == {**near._asdict(), "changes": [change._asdict() for change in near.changes]}
    assert (unreached["target_bpp"], unreached["value"], unreached["changes"]) == (0.001, None, [])


def compared(found: Any, place: Place) -> None:
    metrics = {"psnr": True, "ms-ssim": True}
    frame = at_targets(place.points, [Fraction("1.2"), Fraction("0.001")], place.goal, list(metrics))
    same(
        frame.rename(columns={"target": "target_bpp"}),
        [{**{k: v for k, v in row.items() if k != "metrics"}, **row["metrics"]} for row in found["targets"]],
    )
    averages = against(place.points, "jpeg", metrics)
    assert [row["bd_rate_percent"]["pchip"] for row in found["averages"]] == averages["BD-rate pchip"].tolist()


def encoded(found: Any, place: Place) -> None:
    size = (place.out / "ü.jpg").stat().st_size
    assert (found["out"], found["setting"], found["bytes"]) == (str(place.out / "ü.jpg"), "q10", size)
    ran = run("decode", place.out / "ü.jpg", "-o", place.out / "x.png", "--json")
    decoded = read_image(place.out / "x.png")
    assert json.loads(ran.out) == {
        "out": str(place.out / "x.png"), "codec": "jpeg", "width": decoded.shape[1], "height": decoded.shape[0]
    }  # fmt: skip


def drawn(found: Any, place: Place) -> None:
    assert (found["kind"], found["width_inches"], found["curves"]) == ("curves", 3.5, ["jpeg", "webp"])


def reported(found: Any, place: Place) -> None:
    assert found["bytes"] == Path(found["out"]).stat().st_size
    place.is_allocation(found["allocations"][0])


def submitted(found: Any, place: Place) -> None:
    [entry] = found["entries"]
    place.is_allocation(entry["allocation"])
    assert (entry["bytes"], entry["budget_bytes"], found["decoder"]) == (
        place.allocation.bytes,
        int(place.budget.limit),
        None,
    )
    ran = run("verify", place.out / "entry", "--json")
    assert ran.code == 0, ran.err
    [verdict] = json.loads(ran.out)["submissions"]
    assert verdict["passed"] is True
    assert (verdict["images"], verdict["bytes"]) == (5, place.allocation.bytes)


def bank(found: Any, place: Place) -> None:
    assert found["bank"] == "po-dkic"
    assert [one["label"] for one in found["levels"]] == list(get_codec("po-dkic").levels)
    assert found["bytes"] == sum(path.stat().st_size for path in Path(found["folder"]).iterdir())


def profiled(found: Any, place: Place) -> None:
    *parts, whole = found["parts"]
    assert whole["macs"] == sum(part["macs"] for part in parts)
    assert (found["width"], found["height"]) == (64, 64)


def created(found: Any, place: Place) -> None:
    assert (found["bank"], len(found["levels"]), found["folder"]) == ("mine", 2, str(place.out / "mine"))
    ran = run("bank", "check", place.out / "mine", "--json")
    assert json.loads(ran.out) == {"bank": "mine", "levels": 2, "faults": [], "passed": True}


@pytest.mark.parametrize(
    ("command", "check"),
    [
        ("codecs", codecs),
        ("tables show TABLE", shown),
        ("tables build IMAGE -c jpeg -m psnr -o OUT/x.db -j 1", built),
        ("tables export TABLE -o OUT/all.csv", exported),
        ("tables merge TABLE -o OUT/merged.db", merged),
        ("solve TABLE -t 1.2 --explain -o OUT/a.csv", solved),
        ("frontier TABLE -t 1.2 -t 0.001 --budgets 50", frontier),
        ("compare TABLE --anchor jpeg -t 1.2 -t 0.001", compared),
        ("encode IMAGE -c jpeg -l 5 -o OUT/ü.jpg", encoded),
        ("plot curves TABLE -o OUT/c.svg -m psnr", drawn),
        ("report TABLE -t 1.2 -o OUT/r.html --pictures 0", reported),
        ("submit TABLE -t 1.2 --no-decoder -o OUT/entry", submitted),
        ("bank show po-dkic", bank),
        ("bank create -o OUT/mine --name mine --untrained compact --levels 2", created),
        ("bank profile compact --width 64 --height 64", profiled),
    ],
    ids=lambda value: value.partition(" -")[0] if isinstance(value, str) else "",
)
def test_the_json_equals_the_results_in_python(
    command: str, check: Callable[[Any, Place], None], place: Place
) -> None:
    known = {"TABLE": str(place.table), "IMAGE": str(place.image)}
    arguments = [known.get(word, word.replace("OUT", str(place.out))) for word in command.split()]
    ran = run(*arguments, "--json")
    assert ran.code == 0, ran.err
    assert ran.out.count("\n") == 1
    assert "NaN" not in ran.out
    check(json.loads(ran.out), place)


def test_dropping_an_image(table: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(table.read_bytes())
    ran = run("tables", "drop", copy, "rocket", "--json")
    assert json.loads(ran.out) == {"table": str(copy), "dropped": 1, "images": 4}


def test_failures_are_in_the_json_and_the_exit_status(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    build = ["tables", "build", photos / "rocket.png", tmp_path, "-c", "jpeg", "-m", "psnr", "--keep-going", "--json"]
    ran = run(*build, "-o", tmp_path / "x.db")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["images"] == 1
    assert "broken.png" in found["failures"][0]
    assert "broken.png" in ran.err


def test_a_mistake_prints_no_document(table: Path) -> None:
    ran = run("solve", table, "-t", "0.001", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "can't be reached" in ran.err


def test_values_without_json_equivalent(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": float("nan"), "b": [np.float32("inf"), np.int64(3)], "c": Path("é"), "d": "\udcff"}, as_json=True)
    out = capsys.readouterr().out
    assert "é" in out
    assert json.loads(out) == {"a": None, "b": [None, 3], "c": "é", "d": "\udcff"}
