"""One range coder for a whole image: integers by frequency tables in, bytes out, and back."""

from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from codec.base import BitstreamError
from codec.entropy.tables import FrequencyTable

Symbols = NDArray[np.int32]
MAX_SYMBOL = (1 << 20) - 1
"""The largest magnitude that can be coded."""

_SLACK = 12
"""Bytes that a coder may be ahead of what it has been given, in whole words."""
_model = constriction.stream.model
_EXPONENT = _model.Uniform(MAX_SYMBOL.bit_length() + 1)


class Tables:
    """Frequency tables, each with the coder's model of it."""

    def __init__(self, tables: Sequence[FrequencyTable]) -> None:
        self.tables = list(tables)
        self.models = [
            _model.Categorical(np.array(table.frequencies, np.float64), perfect=False) for table in self.tables
        ]


class SymbolEncoder:
    """Codes symbols in the order in which :class:`SymbolDecoder` asks for them."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Symbols, choice: NDArray[np.int64], tables: Tables) -> None:
        """Code integers (N,) of magnitude up to :data:`MAX_SYMBOL`, each by the table that ``choice`` (N,) gives."""
        for index, places in _group(choice):
            table = tables.tables[index]
            escape = len(table.frequencies) - 1
            values = symbols[places].astype(np.int64) - table.first
            escaped = (values < 0) | (values >= escape)
            self._coder.encode(np.where(escaped, escape, values).astype(np.int32), tables.models[index])
            for value in values[escaped]:
                self._escape(int(value) - escape if value >= escape else int(value))

    def _escape(self, beyond: int) -> None:
        """Exp-Golomb: how far beyond the table's upper (0, 1, ...) or lower (-1, -2, ...) end."""
        magnitude = beyond + 1 if beyond >= 0 else -beyond
        exponent = magnitude.bit_length() - 1
        self._coder.encode(exponent, _EXPONENT)
        self.encode_uniform(int(beyond < 0), 2)
        self.encode_uniform(magnitude - (1 << exponent), 1 << exponent)

    def encode_uniform(self, value: int, count: int) -> None:
        """Code one of ``count`` equally probable values, 0 to ``count`` - 1, ``count`` at most 2^24."""
        if count > 1:
            self._coder.encode(value, _model.Uniform(count))

    def finish(self) -> bytes:
        """All bytes; zeros that end the last word are left out, for the decoder puts them there again."""
        return _finish(self._coder)


def _finish(coder: Any) -> bytes:
    words: NDArray[np.uint32] = coder.get_compressed()
    data = words.astype(">u4").tobytes()
    return data[:-3] + data[-3:].rstrip(b"\0")


class SymbolDecoder:
    """Reads what :class:`SymbolEncoder` wrote, and nothing else.

    What is read is coded again as it comes. Where that takes more bytes than there are, these end before their image
    does, and no more work is done; where it ends in other bytes, no encoder wrote them.

    All methods raise :class:`BitstreamError` where bytes can't have been written so.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.bits = data, 8 * len(data)
        self._again = constriction.stream.queue.RangeEncoder()
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, choice: NDArray[np.int64], tables: Tables) -> Symbols:
        """The integers (N,) of the tables that ``choice`` (N,) gives."""
        symbols = np.empty(len(choice), np.int32)
        for index, places in _group(choice):
            table = tables.tables[index]
            escape = len(table.frequencies) - 1
            values = np.asarray(self._read(tables.models[index], len(places)), np.int64)
            for place in np.flatnonzero(values == escape):
                beyond = self._decode_escape()
                values[place] = escape + beyond if beyond >= 0 else beyond
            values += table.first
            if len(values) and max(int(values.max()), -int(values.min())) > MAX_SYMBOL:
                raise BitstreamError("is damaged (a value is out of range).")
            symbols[places] = values
        return symbols

    def _decode_escape(self) -> int:
        exponent = int(self._read(_EXPONENT))
        negative = self.decode_uniform(2)
        magnitude = (1 << exponent) + self.decode_uniform(1 << exponent)
        return -magnitude if negative else magnitude - 1

    def decode_uniform(self, count: int) -> int:
        """One of ``count`` equally probable values."""
        return int(self._read(_model.Uniform(count))) if count > 1 else 0

    def finish(self) -> None:
        """Make sure that these are the bytes of what was read, and that nothing is left."""
        if _finish(self._again) != self._data:
            raise BitstreamError("is damaged (its end does not match its content).")

    def _read(self, model: Any, *count: int) -> NDArray[np.int32]:
        try:
            read: NDArray[np.int32] = self._coder.decode(model, *count)
        except AssertionError:
            raise BitstreamError("is damaged (its bits are invalid).") from None
        self._again.encode(read, model)
        if 4 * self._again.num_words() > len(self._data) + _SLACK:
            raise BitstreamError("is damaged (it ends before the image is complete).")
        return read


def _group(choice: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """The places of each chosen table, tables in rising order, places in rising order."""
    order = np.argsort(choice, kind="stable")
    used, starts = np.unique(choice[order], return_index=True)
    return list(zip(used.tolist(), np.split(order, starts[1:]), strict=True)) if len(used) else []
