"""Explanations compare a level's gain with the gain of the same bytes elsewhere."""

import re
from pathlib import Path

import pytest

import allocator as al


def test_bytes_gain_less_elsewhere_for_an_image_of_a_higher_weight(table: Path) -> None:
    with al.open(table) as opened:
        found = opened.allocate(bpp=1.2, objective="psnr", weights={"coffee": 4, "rocket": 1})
    lines = found.explain()
    for image, weight in (("coffee", 4), ("rocket", 1)):
        [at] = [number for number, line in enumerate(lines) if line.startswith(f"{image}: ")]
        verdict = re.search(r"([\d,]+) fewer bytes lose .* about ([\d.]+)", lines[at + 2])
        assert verdict, lines[at : at + 3]
        gain = found.price * (4 + 4 * 1) / weight * int(verdict[1].replace(",", ""))
        assert float(verdict[2]) == pytest.approx(gain, abs=1e-4)


def test_an_image_of_weight_0_gets_the_fewest_bytes(table: Path) -> None:
    with al.open(table) as opened:
        found = opened.allocate(bpp=1.2, objective="psnr", weights={"coffee": 0, "rocket": 1, "chelsea": 1})
    lines = found.explain()
    [at] = [number for number, line in enumerate(lines) if line.startswith("coffee: ")]
    assert lines[at + 1] == "  its weight is 0, so it gets the fewest bytes"
