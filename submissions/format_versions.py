"""Every versioned format in one place: what is written now, what is read, and where it is defined.

A version goes up when a reader of before would misread what is written now, or refuse it without saying why. What was
ever written goes on being read: ``tests/golden/`` holds samples of each release. ``docs/reference/formats.md`` is the
page of this.
"""

from typing import NamedTuple

from allocator.tables import SCHEMA_VERSION
from codec import bank, bitstream
from codec.training import recipe
from submissions import decoder, manifest


class Format(NamedTuple):
    """A versioned format."""

    written: int
    """The version that is written."""
    oldest: int
    """The oldest version that is read; all between are, too."""
    module: str
    """Where it is defined."""


FORMATS = {
    "table": Format(SCHEMA_VERSION, 1, "allocator.tables"),
    "bank": Format(bank.FORMAT, 1, "codec.bank"),
    "stream": Format(bitstream.VERSION, bitstream.VERSION, "codec.bitstream"),
    "submission": Format(manifest.MANIFEST_VERSION, manifest.OLDEST_VERSION, "submissions.manifest"),
    "decoder": Format(decoder.FORMAT, decoder.OLDEST_FORMAT, "submissions.decoder"),
    "recipe": Format(recipe.FORMAT, 1, "codec.training.recipe"),
}
