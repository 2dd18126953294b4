"""Every parser of untrusted data, with damaged, altered and invented input: a result, or its own kind of error.

`pytest -m slow tests/fuzz` is the long run; ``ALLOCATOR_FUZZ`` says how many examples each parser gets. What once
fell lies in ``corpus/``, a folder for each parser, and is tried by every run of the tests: a new failure goes there.
"""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from allocator.errors import AllocatorError
from allocator.measure.build import build
from allocator.metrics import get_metric
from allocator.tables import Table
from codec import CodecError, get_codec, read_image
from codec.bank import Bank
from codec.bank_builder import create_bank
from codec.bitstream import pack, unpack
from codec.entries import read_entries
from codec.learned import LearnedCodec
from codec.training.recipe import read_recipe
from codec.weights import parse_tensors
from submissions import archive
from submissions.edition import find_edition
from submissions.errors import SubmissionError
from submissions.manifest import Manifest
from submissions.submit import submit
from tests.allocator.measure.at_once import Inline
from tests.codec.networks import network
from tests.helpers import memory_peak

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = int(os.environ.get("ALLOCATOR_FUZZ", "2000"))
_MOST_GROWTH = 600_000  # kB, of the process in a run
CLASSICAL = ("avif", "hevc", "jpeg", "jpeg2000", "jxl", "webp")
ODD = (b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"-1", b"1e999", b'"', b"[")
ALLOWED = (AllocatorError, CodecError, SubmissionError)


class Parser(NamedTuple):
    seeds: Callable[[], list[bytes]]
    """Sound inputs."""
    parse: Callable[[bytes], object]


def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A parser of files."""

    def parse(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(data)
            return read(path)

    return parse


@cache
def photo() -> np.ndarray[Any, Any]:
    ramp = np.add.outer(np.arange(40) * 3, np.arange(56) * 2).astype(np.uint8)
    return np.stack([ramp, ramp[::-1], 255 - ramp], 2)


def saved(*formats: str) -> list[bytes]:
    images = []
    for name in formats:
        buffer = io.BytesIO()
        Image.fromarray(photo()).save(buffer, name)
        images.append(buffer.getvalue())
    return images


@cache
def learned() -> LearnedCodec:
    return LearnedCodec(create_bank(tempfile.mkdtemp(), "tiny", [network()]))


@cache
def table() -> Path:
    folder = Path(tempfile.mkdtemp())
    for name in "ab":
        Image.fromarray(photo()[: 24 if name == "a" else 32]).save(folder / f"{name}.png")
    codecs = [get_codec("jpeg")]
    build(folder / "run.db", [folder], codecs, [get_metric("psnr")], engine=Inline(), keep_bitstreams=False)
    return folder / "run.db"


@cache
def submission() -> Path:
    from fractions import Fraction

    from allocator.allocation import allocate, make_budget, read_points
    from allocator.objective import find_objective

    folder = Path(tempfile.mkdtemp())
    with Table(table()) as opened:
        points = read_points(opened)
        found = allocate(points, make_budget(points, "pooled", target=Fraction(4)), find_objective(opened))
        submit(opened, found, folder)
    return folder


def read_table(path: Path) -> object:
    with Table(path) as opened:
        opened.counts(), opened.metrics(), opened.members()
        return opened.frame()


def decode_altered(data: bytes) -> object:
    """A learned stream whose checksum is made to fit, so that what lies behind it is met."""
    try:
        head = unpack(learned().encode(photo(), 1))
        return learned().decode(pack(head._replace(payload=data)))
    except CodecError:
        learned().decode(data)
        raise


def encoded(name: str) -> list[bytes]:
    return [get_codec(name).encode(photo(), 5)]


def decode(name: str, data: bytes) -> object:
    return get_codec(name).decode(data)


def learned_seeds() -> list[bytes]:
    stream = learned().encode(photo(), 1)
    return [stream, unpack(stream).payload]


PARSERS = {
    **{name: Parser(partial(encoded, name), partial(decode, name)) for name in CLASSICAL},
    "learned": Parser(learned_seeds, decode_altered),
    "image": Parser(lambda: saved("PNG", "TIFF", "PPM", "BMP", "JPEG"), in_file("image.png", read_image)),
    "bank": Parser(
        lambda: [(learned().bank.folder / "manifest.json").read_bytes()],
        in_file("manifest.json", lambda path: Bank.load(path.parent)),
    ),
    "weights": Parser(
        lambda: [(learned().bank.folder / "tables.safetensors").read_bytes()[:4096]],
        lambda data: parse_tensors(data, "weights"),
    ),
    "table": Parser(lambda: [table().read_bytes()], in_file("run.db", read_table)),
    "archive": Parser(
        lambda: [
            archive.pack_streams({"a": (".jpg", b"12"), "b/c": (".jpg", b"345")}, layout, [".jpg"])
            for layout in ("files", "joined")
        ],
        in_file("bs.zip", archive.unpack),
    ),
    "manifest": Parser(
        lambda: [(submission() / "manifest.json").read_bytes()], in_file("manifest.json", Manifest.read)
    ),
    "edition": Parser(
        lambda: [b'name = "x"\ntargets = ["0.1"]\ncount = "archive"\ncaps = {"0.1" = 5}\nmemory_gib = 1.5\n'],
        in_file("edition.toml", lambda path: find_edition(str(path))),
    ),
    "recipe": Parser(
        lambda: [(Path(__file__).parents[2] / "codec/training/recipes/smoke.toml").read_bytes()],
        in_file("recipe.toml", read_recipe),
    ),
    "commands": Parser(
        lambda: [(Path(__file__).parents[2] / "codec/commands.toml").read_bytes()],
        in_file("commands.toml", read_entries),
    ),
}


def survives(parser: str, data: bytes) -> None:
    before = memory_peak(reset=True)
    with contextlib.suppress(*ALLOWED):
        PARSERS[parser].parse(data)
    assert memory_peak() - before < _MOST_GROWTH


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def inputs(draw: st.DrawFn, parser: str) -> bytes:
    """A sound input with bytes changed, put in, taken out, repeated or cut off; of JSON also with other values."""
    data = draw(st.sampled_from(PARSERS[parser].seeds()))
    if parser in ("bank", "manifest") and draw(st.booleans()):
        return altered_json(draw, json.loads(data))
    for _ in range(draw(st.integers(1, 4))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        what = draw(st.sampled_from(("change", "change", "put in", "take out", "repeat", "cut")))
        if what == "change":
            new = draw(st.binary(min_size=1, max_size=8) | st.sampled_from(ODD))
            data = data[:at] + new + data[at + len(new) :]
        elif what == "put in":
            data = data[:at] + draw(st.binary(min_size=1, max_size=32)) + data[at:]
        elif what == "take out":
            data = data[:at] + data[end:]
        elif what == "repeat":
            data = data[:end] + data[at:]
        else:
            data = data[:end]
    return data


def altered_json(draw: st.DrawFn, content: Any) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        place = content
        while isinstance(place, dict | list) and len(place):
            key: Any = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if draw(st.booleans()) or not isinstance(place[key], dict | list):
                if isinstance(place, dict) and draw(st.integers(0, 4)) == 0:
                    del place[key]
                else:
                    place[key] = draw(JSON)
                break
            place = place[key]
    return json.dumps(content).encode()


def fuzz(parser: str, examples: int, *, derandomize: bool) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(parser))
    def check(data: bytes) -> None:
        survives(parser, data)

    check()


@pytest.mark.parametrize("parser", PARSERS)
def test_sound_input_is_read(parser: str) -> None:
    for seed in PARSERS[parser].seeds():
        if parser not in ("learned", "weights"):
            PARSERS[parser].parse(seed)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_earlier_failures_are_fixed(path: Path) -> None:
    survives(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("parser", PARSERS)
def test_some_damaged_input(parser: str) -> None:
    fuzz(parser, 20, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS)
def test_much_damaged_input(parser: str) -> None:
    fuzz(parser, EXAMPLES, derandomize=False)
