"""A pickle machine for state dicts: the operations that torch.save writes, each on plain values; nothing is imported.

It is not Python's: what makes objects (NEWOBJ, INST, OBJ, STACK_GLOBAL, EXT and their kin) is no operation here, REDUCE
reaches the table of `values` only, and BUILD sets nothing. Every operation costs a bounded number of bytes, and nothing
walks through nested values, so time and memory are bounded by the pickle's own length.
Operations: Python's `pickletools`, protocol 2.
"""

from __future__ import annotations

import pickletools
import struct
from typing import Any, NoReturn

from tfxformer.checkpoints.files.pickles.errors import shown
from tfxformer.checkpoints.files.pickles.values import Unknown, called, named, stored

MOST_OPERATIONS = 2_000_000  # a tensor takes about 40
_LONGEST_NAME = 256
_LONGEST_TEXT = 1 << 16  # a tensor's name has some 100
_TITLES = {opcode.code.encode("latin-1")[0]: opcode.name for opcode in pickletools.opcodes}


class Machine:
    """Reads one pickle of a buffer.

    Attributes:
        position: where the next byte is read; after `run`, the first one behind the pickle.
    """

    def __init__(self, data, position: int = 0):
        self.position = position
        self._data, self._end = data, len(data)
        self._stack: list[Any] = []
        self._marks: list[int] = []  # heights of the stack
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value of the pickle.

        Raises:
            Unknown: for whatever is no part of a state dict of tensors, by name.
        """
        for _ in range(MOST_OPERATIONS):
            code = self._take(1)[0]
            if code == _STOP:
                return self._pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                self._unknown_operation(code)
            operation(self)
        raise Unknown(f"its pickle has more than {MOST_OPERATIONS:,} operations")

    # ---- bytes ------------------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > self._end:
            raise Unknown(f"its pickle ends in the middle of an operation at byte {self.position} (truncated?)")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _number(self, form: struct.Struct) -> int | float:
        return form.unpack(self._take(form.size))[0]

    def _line(self) -> str:
        """A name up to its line's end."""
        end = self._data.find(b"\n", self.position, self.position + _LONGEST_NAME)
        if end < 0:
            raise Unknown(f"its pickle has a name without an end within {_LONGEST_NAME} bytes of byte {self.position}")
        line = self._text(end - self.position)
        self.position += 1
        return line

    def _text(self, count: int) -> str:
        if count > _LONGEST_TEXT:
            raise Unknown(f"its pickle has a text of {count} bytes at byte {self.position}")
        try:
            return self._take(count).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unknown(f"its pickle has a text that is not UTF-8 at byte {self.position}") from error

    def _unknown_operation(self, code: int) -> NoReturn:
        title = _TITLES.get(code)
        if title is None:
            raise Unknown(f"it is no pickle (byte {code:#04x} at {self.position - 1})")
        if title in ("INST", "GLOBAL"):
            raise Unknown(f"its pickle makes an object of {shown(f'{self._line()}.{self._line()}')} ({title})")
        raise Unknown(f"its pickle has the operation {title}, which no state dict needs")

    # ---- the stack --------------------------------------------------------------------------------------------

    def _floor(self) -> int:
        return self._marks[-1] if self._marks else 0

    def _pop(self) -> Any:
        if len(self._stack) <= self._floor():
            raise Unknown(f"its pickle takes from an empty stack at byte {self.position}")
        return self._stack.pop()

    def _top(self) -> Any:
        if len(self._stack) <= self._floor():
            raise Unknown(f"its pickle looks at an empty stack at byte {self.position}")
        return self._stack[-1]

    def _items(self) -> list[Any]:
        """What stands above the last mark, which goes with it."""
        if not self._marks:
            raise Unknown(f"its pickle has no mark at byte {self.position}")
        height = self._marks.pop()
        items = self._stack[height:]
        del self._stack[height:]
        return items

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    # ---- operations -------------------------------------------------------------------------------------------

    def _protocol(self) -> None:
        protocol = self._take(1)[0]
        if protocol != 2:
            raise Unknown(f"its pickle has protocol {protocol} instead of 2")

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _tuple(self) -> None:
        items = self._items()
        self._push(tuple(items))

    def _tuple_of(self, count: int) -> None:
        taken = [self._pop() for _ in range(count)]
        self._push(tuple(taken[::-1]))

    def _append(self, items: list) -> None:
        target = self._top()
        if type(target) is not list:
            raise Unknown(f"its pickle appends to {shown(target)}")
        target.extend(items)

    def _set(self, items: list) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise Unknown(f"its pickle sets {len(items)} keys and values of {shown(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # the hash of a nested tuple walks through all of it
                raise Unknown(f"its pickle has {shown(key)} for a key")
            if key in target:
                raise Unknown(f"the key {shown(key)} comes twice")
            target[key] = value

    def _set_one(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def _append_one(self) -> None:
        self._append([self._pop()])

    def _get(self, form: struct.Struct) -> None:
        index = self._number(form)
        if index not in self._memo:
            raise Unknown(f"its pickle asks for the memo {index}, which it did not write")
        self._push(self._memo[index])

    def _put(self, form: struct.Struct) -> None:
        self._memo[self._number(form)] = self._top()

    def _long(self) -> None:
        self._push(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _global(self) -> None:
        self._push(named(f"{self._line()}.{self._line()}"))

    def _reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        self._push(called(name, arguments))

    def _build(self) -> None:
        """A state dict carries its modules' versions as an attribute, which nobody here needs: nothing is set."""
        state = self._pop()
        if type(self._top()) is not dict or type(state) is not dict or set(state) - {"_metadata"}:
            raise Unknown(f"its pickle sets the state of {shown(self._top())} to {shown(state)}")

    def _persistent(self) -> None:
        self._push(stored(self._pop()))


_BYTE, _SHORT, _INT, _UINT, _DOUBLE = (struct.Struct(form) for form in ("<B", "<H", "<i", "<I", ">d"))
_STOP = ord(".")
_BY_TITLE = {
    "PROTO": Machine._protocol,
    "MARK": Machine._mark,
    "NONE": lambda machine: machine._push(None),
    "NEWTRUE": lambda machine: machine._push(True),
    "NEWFALSE": lambda machine: machine._push(False),
    "BININT": lambda machine: machine._push(machine._number(_INT)),
    "BININT1": lambda machine: machine._push(machine._number(_BYTE)),
    "BININT2": lambda machine: machine._push(machine._number(_SHORT)),
    "LONG1": Machine._long,
    "BINFLOAT": lambda machine: machine._push(machine._number(_DOUBLE)),
    "BINUNICODE": lambda machine: machine._push(machine._text(machine._number(_UINT))),
    # Texts of Python 2.
    "SHORT_BINSTRING": lambda machine: machine._push(machine._text(machine._number(_BYTE))),
    "EMPTY_TUPLE": lambda machine: machine._push(()),
    "TUPLE1": lambda machine: machine._tuple_of(1),
    "TUPLE2": lambda machine: machine._tuple_of(2),
    "TUPLE3": lambda machine: machine._tuple_of(3),
    "TUPLE": Machine._tuple,
    "EMPTY_LIST": lambda machine: machine._push([]),
    "APPEND": Machine._append_one,
    "APPENDS": lambda machine: machine._append(machine._items()),
    "EMPTY_DICT": lambda machine: machine._push({}),
    "SETITEM": Machine._set_one,
    "SETITEMS": lambda machine: machine._set(machine._items()),
    "BINGET": lambda machine: machine._get(_BYTE),
    "LONG_BINGET": lambda machine: machine._get(_UINT),
    "BINPUT": lambda machine: machine._put(_BYTE),
    "LONG_BINPUT": lambda machine: machine._put(_UINT),
    "GLOBAL": Machine._global,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}
_OPERATIONS = {code: _BY_TITLE[title] for code, title in _TITLES.items() if title in _BY_TITLE}
