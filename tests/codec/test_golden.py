"""Bitstreams of released banks remain decodable: identical latents, and pixels within one step."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codec import get_codec
from codec.learned import LearnedCodec

GOLDEN = Path(__file__).parents[1] / "golden" / "po-dkic-1"
LATENTS: dict[str, str] = json.loads((GOLDEN / "latents.json").read_text())


@pytest.fixture(scope="module")
def released() -> LearnedCodec:
    """The bank that version 0.1.0 shipped."""
    codec = get_codec(str(GOLDEN / "bank"))
    assert isinstance(codec, LearnedCodec)
    return codec


@pytest.mark.parametrize("name", LATENTS)
def test_streams_of_the_first_bank_decode_as_when_it_was_released(name: str, released: LearnedCodec) -> None:
    data = (GOLDEN / name).read_bytes()
    latents = released.decode_latents(data).numpy().astype("<i8").tobytes()
    assert hashlib.sha256(latents).hexdigest() == LATENTS[name]
    expected = np.asarray(Image.open((GOLDEN / name).with_suffix(".png")), int)
    assert np.abs(released.decode(data) - expected).max() <= 1
