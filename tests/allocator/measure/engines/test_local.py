"""Builds in local processes."""

import multiprocessing
import time
from pathlib import Path

import allocator as al


def test_a_build_spares_processes_that_others_start(photos: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    others: list[multiprocessing.context.SpawnProcess] = []

    def start_another(progress: object) -> None:
        if not others:
            others.append(context.Process(target=time.sleep, args=(600,)))
            others[0].start()

    with al.build(tmp_path / "run.db", photos, ["jpeg"], ["psnr"], jobs=1, progress=start_another) as table:
        assert table.counts()["images"] == 5
    [other] = others
    try:
        other.join(1)
        assert other.exitcode is None
    finally:
        other.kill()
        other.join()
