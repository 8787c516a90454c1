"""The stream of torch before 1.6: five pickles, then each storage's count and bytes, one behind the other.

Source: torch, `serialization.py`, `_legacy_save`.
"""

from __future__ import annotations

import struct
from typing import Any

from tfxformer.checkpoints.files.pickles.errors import shown
from tfxformer.checkpoints.files.pickles.machine import Machine
from tfxformer.checkpoints.files.pickles.values import Storage, Unknown

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT = struct.Struct("<q")


def read_stream(data) -> tuple[Any, list[str], int]:
    """What a stream's pickles say.

    Returns:
        The state dict, the keys of the storages in their order, and where the first one begins.

    Raises:
        Unknown: for another stream.
    """
    position, said = 0, []
    for due in ("magic", "protocol", "system", "state", "keys"):
        machine = Machine(data, position)
        said.append(machine.run())
        position = machine.position
        if due == "magic" and said[-1] != _MAGIC:
            raise Unknown(f"its pickle holds {shown(said[-1])}, and is not torch.save's")
        if due == "protocol" and said[-1] != _PROTOCOL:
            raise Unknown(f"it has the protocol {shown(said[-1])}, not {_PROTOCOL}")
    *_, system, state, keys = said
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Unknown("its numbers are not in the little-endian byte order")
    if type(keys) is not list or any(type(key) is not str for key in keys) or len(set(keys)) < len(keys):
        raise Unknown("its list of storages is none, or names one twice")
    return state, keys, position


def read_places(data, keys: list[str], position: int, storages: dict[str, Storage]) -> dict[str, tuple[int, int]]:
    """Where each storage lies: key -> (begin, end).

    Args:
        data: of the file.
        keys, position: as `read_stream` gives them.
        storages: those that the state dict's pickle named.

    Raises:
        Unknown: for counts that differ from the pickle's, or that the file does not have.
    """
    places = {}
    for key in keys:
        if key not in storages:
            raise Unknown(f"its storage {shown(key)} is that of no tensor")
        if position + _COUNT.size > len(data):
            raise Unknown(f"it ends before its storage {shown(key)} (truncated?)")
        (count,) = _COUNT.unpack_from(data, position)
        if count != storages[key].numel:
            raise Unknown(f"its storage {shown(key)} has {count} numbers, not {storages[key].numel}")
        begin = position + _COUNT.size
        position = begin + count * storages[key].dtype.itemsize
        if position > len(data):
            raise Unknown(f"its storage {shown(key)} ends at {position} of {len(data)} bytes (truncated?)")
        places[key] = (begin, position)
    return places
