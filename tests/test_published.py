"""The whole chain, checked against figures that were measured elsewhere with the same tools."""

from pathlib import Path

import pytest

from allocator.metrics.backbones import WEIGHTS_VARIABLE
from tests.helpers import data, run


@pytest.mark.slow
def test_hevc_on_kodak_at_the_challenges_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(data("lpips", "squeezenet1_1_features.pth")))
    table = tmp_path / "run.db"
    assert run("tables", "build", data("kodak"), "-c", "hevc", "-m", "lpips-squeeze", "-o", table).code == 0
    ran = run("solve", table, "-t", "0.075", "-t", "0.15", "-t", "0.3")
    means = [float(line.split()[1].rstrip(",")) for line in ran.out.splitlines() if line.startswith("  allocated")]
    for mean, published in zip(means, (0.356, 0.244, 0.160), strict=True):
        assert mean <= published
        assert mean > 0.95 * published  # much better would be a fault of the chain
