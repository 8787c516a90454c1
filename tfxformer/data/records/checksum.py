"""The checksum of TFRecord files, of many equally long rows at once."""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, its bits reversed
_TOGETHER = 4096  # rows; a step of numpy costs as much as some hundred of them
_TURNED = 512  # rows that are turned into columns at once: so many stay in the processor's cache


def masked_crc32c(rows: np.ndarray) -> np.ndarray:
    """The masked CRC-32C of each row: uint8 [R, bytes] -> uint32 [R].

    Many rows go on together, four bytes a step. Source: RFC 3720, appendix B.4, for the checksum; TFRecord's format for
    the mask.
    """
    parts = [_crc32c(rows[begin : begin + _TOGETHER]) for begin in range(0, len(rows), _TOGETHER)]
    crc = np.concatenate([np.zeros(0, np.uint32), *parts])
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


def _crc32c(rows: np.ndarray) -> np.ndarray:
    count, length = rows.shape
    low, high = _tables()
    words = np.empty((length // 4, count), np.uint32)
    for begin in range(0, count, _TURNED):
        some = np.ascontiguousarray(rows[begin : begin + _TURNED, : 4 * len(words)])
        words[:, begin : begin + _TURNED] = some.view("<u4").T
    crc = np.full(count, 0xFFFFFFFF, np.uint32)
    halves = crc.view(np.uint16).reshape(-1, 2)  # of a little-endian number: the lower one first
    lower, upper = np.empty_like(crc), np.empty_like(crc)
    for word in words:
        np.bitwise_xor(crc, word, out=crc)
        low.take(halves[:, 0], out=lower, mode="clip")  # no mode would copy first; every index is there
        high.take(halves[:, 1], out=upper, mode="clip")
        np.bitwise_xor(lower, upper, out=crc)
    for column in rows[:, 4 * len(words) :].T:
        crc = high[((crc ^ column) & 0xFF) << 8] ^ (crc >> 8)
    return ~crc


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """What two bytes do to the checksum, uint32 [65536]: the lower two of four, and the upper two."""
    byte = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        byte = np.where(byte & 1, (byte >> 1) ^ np.uint32(_POLYNOMIAL), byte >> 1)
    later = [byte]  # the effect of a byte with 0, 1, 2, 3 more bytes behind it
    for _ in range(3):
        later.append(byte[later[-1] & 0xFF] ^ (later[-1] >> 8))
    pair = np.arange(1 << 16)
    return later[3][pair & 0xFF] ^ later[2][pair >> 8], later[1][pair & 0xFF] ^ later[0][pair >> 8]
