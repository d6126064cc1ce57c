"""Codes as bytes: against a string of bits, and as many bytes as promised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import packing
from engine.packing import pack, packed_bytes, unpack


def slowly(codes: list[int], bits: int) -> bytes:
    """The same by the book: all bits in a row, the least of each code first."""
    row = "".join(f"{code:0{bits}b}"[::-1] for code in codes)
    row += "0" * (-len(row) % 8)
    return bytes(int(row[i : i + 8][::-1], 2) for i in range(0, len(row), 8))


@st.composite
def coded(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(1, 8))
    return draw(st.lists(st.integers(0, 2**bits - 1), max_size=70)), bits


@given(coded())
def test_codes_take_the_bytes_they_should_and_come_back(given: tuple[list[int], int]) -> None:
    codes, bits = given
    packed = pack(np.array(codes, np.uint8), bits)
    assert packed == slowly(codes, bits)
    assert len(packed) == packed_bytes(len(codes), bits) == -(-len(codes) * bits // 8)
    assert unpack(packed, bits, len(codes)).tolist() == codes


def test_three_codes_of_three_bits() -> None:
    assert pack(np.array([1, 2, 3], np.uint8), 3) == bytes([0xD1, 0x00])


@pytest.mark.parametrize("bits", range(1, 9))
def test_large_weights_are_packed_lot_by_lot(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, 1003).astype(np.uint8)
    at_once = pack(codes, bits)
    monkeypatch.setattr(packing, "AT_ONCE", 64)
    assert pack(codes, bits) == at_once
    assert unpack(at_once, bits, len(codes)).tolist() == codes.tolist()
