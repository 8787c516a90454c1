"""Checks that the offsets of a flatbuffer stay inside it, before our code or LiteRT's follows them.

A flatbuffer is tables that point at each other by offsets (https://flatbuffers.dev/internals/); the runtimes follow
them unchecked. Fields have the numbers of the schema, which `flatbuffer` names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_BYTE, _SHORT, _INT, _COUNT, _LONG = (struct.Struct(kind) for kind in ("<b", "<H", "<i", "<I", "<Q"))


class Table:
    """A table of a flatbuffer; what cannot be inside the file raises ValueError.

    Args:
        content: the bytes of the flatbuffer.
        position: where the table begins.
        budget: list of one int, how many more tables may be read. A well-formed file has fewer tables than bytes; one
            whose vectors all name the same tables would take forever.
    """

    __slots__ = ("_budget", "_content", "_fields", "_position")

    def __init__(self, content, position: int, budget: list[int]):
        self._content, self._position, self._budget = content, position, budget
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError("it has more tables than bytes")
        described = position - self._number(_INT, position)
        size, length = self._number(_SHORT, described), self._number(_SHORT, described + 2)
        if size < 4 or size % 2 or position + length > len(content) or described + size > len(content):
            raise ValueError("a table ends behind its end")
        self._fields = struct.unpack_from(f"<{size // 2 - 2}H", content, described + 4)
        if self._fields and max(self._fields) >= length:
            raise ValueError("a field lies outside of its table")

    @classmethod
    def root(cls, content, start: int = 0) -> Table:
        """The first table of a flatbuffer that begins at `start`."""
        if not 0 <= start <= len(content) - 4:
            raise ValueError("it ends before its first table")
        return cls(content, start + _COUNT.unpack_from(content, start)[0], [len(content)])

    def _number(self, kind: struct.Struct, position: int) -> int:
        if position < 0:
            raise ValueError("an offset leads out of it")
        try:
            return kind.unpack_from(self._content, position)[0]
        except struct.error as error:
            raise ValueError("an offset leads out of it") from error

    def _place(self, slot: int) -> int | None:
        offset = self._fields[slot] if slot < len(self._fields) else 0
        return self._position + offset if offset else None

    def _target(self, slot: int) -> int | None:
        place = self._place(slot)
        return None if place is None else place + self._number(_COUNT, place)

    def _scalar(self, slot: int, kind: struct.Struct) -> int:
        place = self._place(slot)
        return 0 if place is None else self._number(kind, place)

    def byte(self, slot: int) -> int:
        """An int8, 0 where it is absent."""
        return self._scalar(slot, _BYTE)

    def int(self, slot: int) -> int:
        """An int32, 0 where it is absent."""
        return self._scalar(slot, _INT)

    def count(self, slot: int) -> int:
        """A uint32, 0 where it is absent."""
        return self._scalar(slot, _COUNT)

    def long(self, slot: int) -> int:
        """A uint64, 0 where it is absent."""
        return self._scalar(slot, _LONG)

    def vector(self, slot: int, item_size: int = 1) -> tuple[int, int]:
        """(where the items of a vector begin, how many there are)."""
        place = self._target(slot)
        if place is None:
            return 0, 0
        count = self._number(_COUNT, place)
        if place + 4 + count * item_size > len(self._content):
            raise ValueError("a vector ends behind its end")
        return place + 4, count

    def ints(self, slot: int) -> tuple[int, ...]:
        """A vector of int32, empty where it is absent."""
        start, count = self.vector(slot, 4)
        return struct.unpack_from(f"<{count}i", self._content, start)

    def text(self, slot: int) -> None:
        """Checks a string: UTF-8, a zero behind it."""
        start, count = self.vector(slot)
        if count:
            bytes(self._content[start : start + count]).decode("utf-8")
        if start and self._number(_BYTE, start + count):
            raise ValueError("a string does not end")

    def table(self, slot: int) -> Table | None:
        """The table of a field, or None."""
        place = self._target(slot)
        return None if place is None else Table(self._content, place, self._budget)

    def tables(self, slot: int) -> Iterator[Table]:
        """The tables of a vector."""
        start, count = self.vector(slot, 4)
        for place in range(start, start + 4 * count, 4):
            yield Table(self._content, place + self._number(_COUNT, place), self._budget)


def check_model(content) -> None:
    """Checks the tables of a .tflite file, and that tensors, buffers and operators that are named exist.

    Raises:
        ValueError: saying what is wrong, to follow "the file is damaged: ".
    """
    model = Table.root(content)
    model.text(3)
    buffers = list(model.tables(4))
    for buffer in buffers:
        buffer.vector(0)
        if buffer.long(1) > 1 and buffer.long(1) + buffer.long(2) > len(content):  # 0 and 1: the data are inside
            raise ValueError("a buffer ends behind its end")
    codes = list(model.tables(1))
    for code in codes:
        code.text(1)
    tensors = [_check_graph(graph, len(buffers), len(codes)) for graph in model.tables(2)]
    if not buffers or not tensors:
        raise ValueError("it holds no model")
    model.vector(5, 4)
    for entry in model.tables(6):
        entry.text(0)
        _check_below(entry.count(1), len(buffers), "buffer")
    for signature in model.tables(7):
        signature.text(2)
        _check_below(signature.count(4), len(tensors), "subgraph")
        for slot in (0, 1):
            for entry in signature.tables(slot):
                entry.text(0)
                _check_below(entry.count(1), tensors[signature.count(4)], "tensor")


def _check_graph(graph: Table, buffers: int, codes: int) -> int:
    """Checks a subgraph; returns its number of tensors."""
    graph.text(4)
    count = 0
    for tensor in graph.tables(0):
        _check_tensor(tensor, buffers)
        count += 1
    for slot in (1, 2):
        _check_indices(graph.ints(slot), count)
    for operator in graph.tables(3):
        _check_below(operator.count(0), codes, "kind of operator")
        for slot in (1, 2, 8):
            _check_indices(operator.ints(slot), count)
        operator.vector(5)
        operator.vector(7)
        for slot in (4, 12):
            operator.table(slot)
    return count


def _check_tensor(tensor: Table, buffers: int) -> None:
    tensor.text(3)
    _check_below(tensor.count(2), buffers, "buffer")
    if min(tensor.ints(0), default=0) < -1:
        raise ValueError("a tensor has a negative size")
    tensor.ints(7)
    tensor.table(6)
    quantization = tensor.table(4)
    if quantization is not None:
        for slot, size in ((0, 4), (1, 4), (2, 4), (3, 8)):
            quantization.vector(slot, size)
        quantization.table(5)


def _check_indices(indices: tuple[int, ...], count: int) -> None:
    if indices and not (min(indices) >= -1 and max(indices) < count):  # -1 is an absent optional input
        raise ValueError("an operator names a tensor that is not there")


def _check_below(index: int, count: int, what: str) -> None:
    if index >= count:
        raise ValueError(f"it names a {what} that is not there")
