"""One range coder for a whole image: code integers with frequency tables to bytes, and decode them."""

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
"""Bytes by which a coder may be ahead of its input, in whole words."""
_model = constriction.stream.model
_EXPONENT = _model.Uniform(MAX_SYMBOL.bit_length() + 1)


class Tables:
    """Frequency tables, each with its model in the coder."""

    def __init__(self, tables: Sequence[FrequencyTable]) -> None:
        self.tables = list(tables)
        self.models = [
            _model.Categorical(np.array(table.frequencies, np.float64), perfect=False) for table in self.tables
        ]


class SymbolEncoder:
    """Codes symbols in the order in which :class:`SymbolDecoder` reads them."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Symbols, choice: NDArray[np.int64], tables: Tables) -> None:
        """Code integers (N,) of magnitude up to :data:`MAX_SYMBOL`, each with its table in ``choice`` (N,)."""
        for index, places in _group(choice):
            table = tables.tables[index]
            escape = len(table.frequencies) - 1
            values = symbols[places].astype(np.int64) - table.first
            escaped = (values < 0) | (values >= escape)
            self._coder.encode(np.where(escaped, escape, values).astype(np.int32), tables.models[index])
            for value in values[escaped]:
                self._escape(int(value) - escape if value >= escape else int(value))

    def _escape(self, beyond: int) -> None:
        """Exp-Golomb: the distance beyond the table's upper (0, 1, ...) or lower (-1, -2, ...) end."""
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
        """All bytes; zeros at the end of the last word are omitted, because the decoder adds them again."""
        return _finish(self._coder)


def _finish(coder: Any) -> bytes:
    words: NDArray[np.uint32] = coder.get_compressed()
    data = words.astype(">u4").tobytes()
    return data[:-3] + data[-3:].rstrip(b"\0")


class SymbolDecoder:
    """Reads only what :class:`SymbolEncoder` wrote.

    Decoded symbols are coded again at once. If that needs more bytes than there are, the data ends before the image
    is complete, and decoding stops. If it gives other bytes, no encoder wrote the data.

    All methods raise :class:`BitstreamError` for bytes that no encoder writes.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.bits = data, 8 * len(data)
        self._again = constriction.stream.queue.RangeEncoder()
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, choice: NDArray[np.int64], tables: Tables) -> Symbols:
        """Decode integers (N,), each with its table in ``choice`` (N,)."""
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
        """Check that the bytes match the decoded symbols, and that nothing remains."""
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
    """The positions of each chosen table, with tables and positions in increasing order."""
    order = np.argsort(choice, kind="stable")
    used, starts = np.unique(choice[order], return_index=True)
    return list(zip(used.tolist(), np.split(order, starts[1:]), strict=True)) if len(used) else []
