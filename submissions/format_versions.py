"""Every versioned format in one place: the written version, the versions that are read, and the defining module.

A version increases if an older reader would misread the new data, or refuse them without an explanation. All older
versions remain readable: ``tests/golden/`` contains samples of each release. ``docs/reference/formats.md`` documents
the formats.
"""

from typing import NamedTuple

from allocator.schema import SCHEMA_VERSION
from codec import bank, bitstream
from codec.training import recipe
from submissions import decoder, manifest


class Format(NamedTuple):
    """A versioned format."""

    written: int
    """The version that is written."""
    oldest: int
    """The oldest version that is read; all versions in between are read, too."""
    module: str
    """The module that defines it."""


FORMATS = {
    "table": Format(SCHEMA_VERSION, 1, "allocator.schema"),
    "bank": Format(bank.FORMAT, 1, "codec.bank"),
    "stream": Format(bitstream.VERSION, bitstream.VERSION, "codec.bitstream"),
    "submission": Format(manifest.MANIFEST_VERSION, manifest.OLDEST_VERSION, "submissions.manifest"),
    "decoder": Format(decoder.FORMAT, decoder.OLDEST_FORMAT, "submissions.decoder"),
    "recipe": Format(recipe.FORMAT, 1, "codec.training.recipe"),
}
