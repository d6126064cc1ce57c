"""Codes of 1 to 8 bits as dense bytes, and back.

Eight codes of b bits are one number of b bytes: the first code is its lowest b bits, and its lowest
byte comes first. The last number is cut after the last byte that has a bit of a code.
"""

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1 << 20  # codes; a multiple of 8
WORD = np.dtype("<u8")


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that codes take: ⌈n · b / 8⌉."""
    return -(-count * bits // 8)


def pack(codes: NDArray[np.uint8], bits: int) -> bytes:
    """Codes 0…2^bits − 1, [n], as `packed_bytes(n, bits)` bytes."""
    lots = (codes[i : i + AT_ONCE] for i in range(0, len(codes), AT_ONCE))
    return b"".join(_pack(lot, bits).tobytes() for lot in lots)


def unpack(packed: bytes, bits: int, count: int) -> NDArray[np.uint8]:
    """The codes, [count], that `pack` made the bytes of."""
    stream = np.frombuffer(packed, np.uint8)
    codes = np.empty(count, np.uint8)
    for i in range(0, count, AT_ONCE):
        lot = codes[i : i + AT_ONCE]
        lot[:] = _unpack(stream[i * bits // 8 :], bits, len(lot))
    return codes


def _pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    eights = np.zeros((-(-len(codes) // 8), 8), WORD)
    eights.reshape(-1)[: len(codes)] = codes
    words = np.bitwise_or.reduce(eights << _shifts(bits), axis=1)
    whole = words.view(np.uint8).reshape(-1, 8)[:, :bits].reshape(-1)
    return whole[: packed_bytes(len(codes), bits)]


def _unpack(stream: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    stream = stream[: packed_bytes(count, bits)]
    whole = np.zeros((-(-count // 8), bits), np.uint8)
    whole.reshape(-1)[: len(stream)] = stream
    words = np.zeros((len(whole), 8), np.uint8)
    words[:, :bits] = whole
    eights = words.view(WORD) >> _shifts(bits)
    return (eights.astype(np.uint8) & np.uint8(2**bits - 1)).reshape(-1)[:count]


def _shifts(bits: int) -> NDArray[np.uint64]:
    return np.arange(0, 8 * bits, bits).astype(WORD)
