"""How long each layer takes at each pair of bit widths: times measured elsewhere, from a CSV."""

import csv
import math
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Self

from engine.results import BIT_WIDTHS, FormatError

FLOAT_BITS = 32  # of what is not quantized
COLUMNS = ("layer", "w_bits", "a_bits", "ms")


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of layers at pairs of bit widths; 32 bits stand for float."""

    times: dict[tuple[str, int, int], float]  # layer, bits of its weight, of its input → ms
    source: str = "a table"  # the file, for messages and plans

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a CSV with the columns layer, w_bits, a_bits, ms; others are passed over.

        Raises:
            FormatError: If it cannot be read, lacks a column, or a row is wrong or given twice.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            reader = csv.reader(text.splitlines(), skipinitialspace=True)
            lines = [(reader.line_num, line) for line in reader if line]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise FormatError(
                f"{path} must be a latency table in CSV, but cannot be read: {error}."
            ) from error
        names = [name.strip() for name in lines[0][1]] if lines else []
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise FormatError(
                f"{path} must have the columns {', '.join(COLUMNS)}, but lacks "
                f"{', '.join(missing)}: name them in its first line."
            )
        times: dict[tuple[str, int, int], float] = {}
        for number, line in lines[1:]:
            where = f"{path}, line {number},"
            row = dict(zip_longest(names, map(str.strip, line), fillvalue=""))
            layer = row["layer"]
            if not layer:
                raise FormatError(f"{where} must name a layer, got none.")
            w_bits = _bits(row["w_bits"], f"{where} w_bits")
            a_bits = _bits(row["a_bits"], f"{where} a_bits")
            key = (layer, w_bits, a_bits)
            if key in times:
                raise FormatError(
                    f"{where} must not repeat layer {layer!r} at {w_bits} and {a_bits} bits: "
                    "keep one of the rows."
                )
            times[key] = _milliseconds(row["ms"], f"{where} ms")
        return cls(times, str(path))

    def ms(self, layer: str, w_bits: int, a_bits: int) -> float:
        """Time of a layer whose weight has w_bits and whose input has a_bits.

        Raises:
            ValueError: If the table lacks it.
        """
        found = self.times.get((layer, w_bits, a_bits))
        if found is not None:
            return found
        pairs = sorted((w, a) for name, w, a in self.times if name == layer)
        if not pairs:
            raise ValueError(
                f"latency must have every layer, but {self.source} lacks {layer!r}: add its rows."
            )
        known = ", ".join(f"{w} and {a}" for w, a in pairs)
        raise ValueError(
            f"latency must have every pair of bit widths, but {self.source} lacks w_bits {w_bits} "
            f"and a_bits {a_bits} of layer {layer!r} (it has {known}): add a row, or allow "
            "fewer bit widths; 32 stands for float."
        )


def _bits(text: str, where: str) -> int:
    bits = int(text) if text.isdecimal() and len(text) < 9 else 0
    if bits not in (*BIT_WIDTHS, FLOAT_BITS):
        raise FormatError(
            f"{where} must be a bit width in 1…8, or 32 for float, got {text[:99]!r}."
        )
    return bits


def _milliseconds(text: str, where: str) -> float:
    try:
        ms = float(text)
    except ValueError:
        ms = math.nan
    if not (math.isfinite(ms) and ms >= 0):
        raise FormatError(f"{where} must be a time of at least 0, got {text!r}.")
    return ms
