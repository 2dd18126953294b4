"""The decoder's runs: as on the server, under other conditions, and by this project."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from submissions.archive import extract
from submissions.devkit import Watched, watch
from submissions.manifest import ARCHIVE
from submissions.perturbation import Condition, write_script
from submissions.verification.archives import Opened
from submissions.verification.verdict import Verdict

SERVER, HERE = "server", "here"
"""Folders: where the submission's decoder runs, and where this project decodes."""
_DECODED_BYTES, _SPARE_DISK = 8, 4 << 30
"""What a decoder may write: so many bytes a pixel, and some more."""
Environment = Callable[[Path], dict[str, str]]
"""Makes the server's environment in an empty folder; gives its variables."""


def run_decoder(opened: Opened, decoder: Path, environment: Environment, verdict: Verdict) -> None:
    """Run ``./decode`` of a decoder's archive in the folder :data:`SERVER`, as the server would."""
    folder = _unpack(opened, decoder, SERVER)
    run = watch(
        folder,
        environment(opened.scratch / "environment"),
        disk=_DECODED_BYTES * opened.manifest.pixels + _SPARE_DISK,
        **_limits(opened),
    )
    verdict.watched = run
    _note_failures(run, "The decoder", verdict)


def run_perturbed(
    opened: Opened, decoder: Path, environment: Environment, condition: Condition, folder: str
) -> Watched:
    """Run a decoder under another condition, in a folder of its own."""
    place = _unpack(opened, decoder, folder)
    write_script(place)
    variables = environment(opened.scratch / f"{folder}-environment") | condition.variables
    return watch(place, variables, command=condition.command, **_limits(opened))


def decode_here(opened: Opened, archive: Path, folder: str, codecs: Iterable[str], verdict: Verdict) -> None:
    """Decode a data archive by this project into a folder, in a process of its own within the limits."""
    target = str(opened.scratch / folder / "images")
    names = opened.specifications(codecs)
    command = [sys.executable, "-P", "-m", "submissions.decode", str(archive), target, *names]
    run = watch(Path.cwd(), dict(os.environ), command=command, own=True, **_limits(opened))
    _note_failures(run, "Decoding", verdict)


def last_words(run: Watched) -> str:
    """What a run that failed said at its end."""
    return (run.errors or ["it was killed."])[-1]


def _unpack(opened: Opened, decoder: Path, folder: str) -> Path:
    """A decoder beside the data, in a folder of its own."""
    place = opened.scratch / folder
    place.mkdir()
    extract(decoder, place)
    shutil.copyfile(opened.archive, place / ARCHIVE)
    return place


def _limits(opened: Opened) -> dict[str, Any]:
    rules = opened.rules
    return {"cpus": rules.cpus, "memory": int(rules.memory_gib * 2**30), "seconds": 3600 * rules.hours}


def _note_failures(run: Watched, what: str, verdict: Verdict) -> None:
    if run.code == 1 and run.errors:  # a line for each image
        verdict.failures += run.errors
    elif run.code != 0:
        verdict.failures.append(f"{what} failed: {last_words(run)}")
