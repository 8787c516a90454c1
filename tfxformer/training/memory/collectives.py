"""What a compiled program sends between devices, read from its text."""

from __future__ import annotations

import re

_KINDS = "all-reduce|all-gather|reduce-scatter|ragged-all-to-all|all-to-all|collective-permute|collective-broadcast"
_INSTRUCTION = re.compile(rf" = (?P<result>.*?) (?P<kind>{_KINDS})(?P<start>-start)?\(")
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\]")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
_WITH_OPERANDS = ("all-gather", "collective-permute")  # their -start gives (operands, results, contexts)


def collectives(program: str, devices: int) -> dict[str, dict[str, int]]:
    """Counts the collectives of a program for several devices.

    A loop's are counted once, however often it goes round. A collective-permute that only some devices take part in
    counts its share of bytes.

    Args:
        program: optimized HLO as text, of one device, which is that of all.
        devices: int.

    Returns:
        kind -> {"count": instructions, "bytes": of their results on one device}; what is not there is left out.
    """
    found: dict[str, dict[str, int]] = {}
    for line in program.splitlines():
        seen = _INSTRUCTION.search(line)
        if seen is None:
            continue
        arrays = [_bytes(*array) for array in _ARRAY.findall(seen["result"])]
        if seen["start"] and seen["kind"] in _WITH_OPERANDS:
            arrays = [count for count, context in arrays if not context]
            arrays = arrays[len(arrays) // 2 :]
        else:
            arrays = [count for count, _ in arrays]
        pairs = _PAIRS.search(line)
        share = 1.0 if pairs is None else pairs[1].count("{") / devices
        of_kind = found.setdefault(seen["kind"], {"count": 0, "bytes": 0})
        of_kind["count"] += 1
        of_kind["bytes"] += round(share * sum(arrays))
    return dict(sorted(found.items()))


def _bytes(dtype: str, sizes: str) -> tuple[int, bool]:
    """(bytes of an array, whether it is a context: a number that only the chip reads)."""
    items = 1
    for size in filter(None, sizes.split(",")):
        items *= int(size)
    width = re.search(r"\d+", dtype)  # bf16, f8e4m3fn, s32; pred is a byte
    bits = int(width[0]) if width else 8
    return (items * bits + 7) // 8, dtype == "u32" and not sizes
