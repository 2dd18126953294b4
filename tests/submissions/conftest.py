"""The small learned codec of the codecs' tests is here, too."""

from tests.codec.conftest import bank, codec, photo

__all__ = ["bank", "codec", "photo"]
