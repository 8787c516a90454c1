"""Reads GGUF files, llama.cpp's format, by memory map: metadata, and tensors dequantized one at a time to float32.

The header is read here and not by `gguf.GGUFReader`: that takes seconds for a vocabulary, and believes every length
it finds. Block formats and their arithmetic are the `gguf` package's.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.extras import needs

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {
    code: np.dtype(name)
    for code, name in {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?"}.items()
} | {10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8")}
_STRING, _ARRAY = 8, 9
_FLOAT32 = 6
_LENGTH, _COUNTS = struct.Struct("<Q"), struct.Struct("<QQ")
_MIN_FIELD, _MIN_TENSOR = 13, 24  # bytes that the shortest metadata field and tensor entry take
_MAX_DIMENSIONS = 4
# Of a file in parts, what llama.cpp's gguf-split says in each.
_PART_NUMBER, _PARTS, _ALL_TENSORS = "split.no", "split.count", "split.tensors.count"
_CHUNK = 1 << 18  # values dequantized at once: temporary arrays of a few megabytes, and full speed


def is_gguf(path) -> bool:
    """Whether a path names a GGUF file."""
    return Path(path).suffix.lower() == SUFFIX


def _gguf():
    needs("A GGUF file", "gguf")
    import gguf

    return gguf


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies: its shape (rows first), block format, and bytes `begin` to `end` of the file."""

    shape: tuple[int, ...]
    kind: Any
    begin: int
    end: int


class _Header:
    """A cursor over the mapped file; no length is believed that the file could not hold."""

    def __init__(self, path: Path, data):
        self.path, self.data, self.position = path, data, 0

    def fail(self, what: str) -> None:
        raise CheckpointError(f"{self.path} is not a valid GGUF file: {what}. Download it again.")

    def take(self, count: int, what: str) -> bytes:
        end = self.position + count
        if end > len(self.data):
            self.fail(f"{what} needs {count} bytes at {self.position}, the file has {len(self.data)} (truncated?)")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, what: str, code: int = 10):
        dtype = _SCALARS[code]
        value = np.frombuffer(self.take(dtype.itemsize, what), dtype)[0]
        # A float32 of metadata was written as a decimal: 1e-5, not 9.999999747378752e-06.
        return float(str(value)) if code == _FLOAT32 else value.item()

    def text(self, what: str) -> str:
        (length,) = _LENGTH.unpack(self.take(8, what))
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{what} is not UTF-8 ({error})")

    def count(self, smallest: int, what: str) -> int:
        """A count of items of at least `smallest` bytes each."""
        count = self.number(what)
        if count * smallest > len(self.data) - self.position:
            self.fail(f"{what} is {count}, more than its {len(self.data)} bytes can hold (truncated?)")
        return count

    def value(self, name: str) -> Any:
        """One metadata value: a number, a string, or a list of either."""
        code = self.number(f"the type of {name!r}", 4)
        if code == _STRING:
            return self.text(f"the value of {name!r}")
        if code in _SCALARS:
            return self.number(f"the value of {name!r}", code)
        if code != _ARRAY:
            self.fail(f"{name!r} has the unknown type {code}")
        inner = self.number(f"the type of {name!r}", 4)
        length = f"the length of {name!r}"
        if inner == _STRING:
            return [self.text(f"an item of {name!r}") for _ in range(self.count(8, length))]
        if inner not in _SCALARS:
            self.fail(f"{name!r} is a list of the unknown type {inner}")
        dtype = _SCALARS[inner]
        count = self.count(dtype.itemsize, length)
        return np.frombuffer(self.take(count * dtype.itemsize, name), dtype).tolist()


class _Part:
    """One file: its metadata, and where its tensors lie in it. The header is checked in full."""

    def __init__(self, path: Path):
        self.path = path
        self._gguf = _gguf()
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < 24:
                    raise CheckpointError(f"{self.path} is not a GGUF file: too short for a header.")
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise CheckpointError(f"There is no GGUF file {str(path)!r}.") from error
        header = _Header(self.path, self.data)
        tensors, fields = self._read_start(header)
        self.metadata = self._read_metadata(header, fields)
        self.tensors = self._read_tensors(header, tensors)

    def _read_start(self, header: _Header) -> tuple[int, int]:
        magic = header.take(4, "the magic")
        if magic != _MAGIC:
            raise CheckpointError(f"{self.path} is not a GGUF file: it begins with {magic!r} instead of {_MAGIC!r}.")
        version = header.number("the version", 4)
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            told = "is big-endian" if swapped else f"has GGUF version {version}"
            raise CheckpointError(f"{self.path} {told}; little-endian versions {_VERSIONS} are read. Convert it again.")
        return _COUNTS.unpack(header.take(16, "the counts"))

    def _read_metadata(self, header: _Header, count: int) -> dict[str, Any]:
        if count * _MIN_FIELD > len(header.data):
            header.fail(f"it claims {count} metadata fields, more than its {len(header.data)} bytes can hold")
        metadata: dict[str, Any] = {}
        for _ in range(count):
            name = header.text("a metadata key")
            if name in metadata:
                header.fail(f"the metadata key {name!r} comes twice")
            metadata[name] = header.value(name)
        return metadata

    def _read_tensors(self, header: _Header, count: int) -> dict[str, _Tensor]:
        if count * _MIN_TENSOR > len(header.data):
            header.fail(f"it claims {count} tensors, more than its {len(header.data)} bytes can hold")
        alignment = self.metadata.get("general.alignment", self._gguf.GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            header.fail(f"general.alignment is {alignment!r}, not a power of two")
        entries = [self._read_entry(header) for _ in range(count)]
        start = -(-header.position // alignment) * alignment
        tensors: dict[str, _Tensor] = {}
        due = 0
        for name, shape, kind, size, offset in entries:
            if name in tensors:
                header.fail(f"the tensor {name!r} comes twice")
            if offset != due:
                header.fail(f"the tensor {name!r} begins at {offset} of the data, where {due} was due")
            begin, end = start + offset, start + offset + size
            if end > len(header.data):
                header.fail(f"the tensor {name!r} ends at {end}, the file at {len(header.data)} (truncated?)")
            tensors[name] = _Tensor(shape, kind, begin, end)
            due = -(-(offset + size) // alignment) * alignment
        self._check_readable(tensors)
        return tensors

    def _read_entry(self, header: _Header) -> tuple[str, tuple[int, ...], Any, int, int]:
        """Name, shape, block format, bytes and offset of one tensor."""
        name = header.text("a tensor's name")
        dimensions = header.number(f"the rank of {name!r}", 4)
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            header.fail(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(header.number(f"the shape of {name!r}") for _ in range(dimensions))[::-1]  # rows first
        code, offset = header.number(f"the type of {name!r}", 4), header.number(f"the offset of {name!r}")
        try:
            kind = self._gguf.GGMLQuantizationType(code)
        except ValueError:
            header.fail(f"the tensor {name!r} has the unknown type {code}")
        values, size = self._gguf.GGML_QUANT_SIZES[kind]
        if 0 in shape or shape[-1] % values:
            header.fail(f"the tensor {name!r} of shape {list(shape)} is not made of {kind.name} blocks of {values}")
        return name, shape, kind, math.prod(shape) // values * size, offset

    def _check_readable(self, tensors: Mapping[str, _Tensor]) -> None:
        for kind in {tensor.kind for tensor in tensors.values()}:
            block = np.zeros((1, self._gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
            try:
                self._gguf.quants.dequantize(block, kind)
            except NotImplementedError as error:
                name = next(name for name, tensor in tensors.items() if tensor.kind == kind)
                raise CheckpointError(
                    f"{self.path}: the tensor {name!r} is stored as {kind.name}, which the gguf package cannot "
                    "dequantize. Take another quantization of the model."
                ) from error


def _parts(first: _Part) -> list[_Part]:
    """All files of a model, the given one first.

    Raises:
        CheckpointError: for a part that is not the first, one that is missing, or one that says it is another.
    """
    count, number = first.metadata.get(_PARTS, 1), first.metadata.get(_PART_NUMBER, 0)
    if type(count) is not int or type(number) is not int:
        raise CheckpointError(f"{first.path} says {_PARTS}={count!r} and {_PART_NUMBER}={number!r}, not numbers.")
    if count in (0, 1):
        return [first]
    end = f"-00001-of-{count:05}{SUFFIX}"
    if number != 0 or not first.path.name.endswith(end):
        raise CheckpointError(
            f"{first.path} is part {number} (counted from 0) of the {count} of a split GGUF: give the first one, whose "
            f"name ends in {end}, with the others beside it."
        )
    parts = [first]
    for number in range(1, count):
        name = f"{first.path.name.removesuffix(end)}-{number + 1:05}-of-{count:05}{SUFFIX}"
        part = _Part(first.path.with_name(name))
        says = (part.metadata.get(_PART_NUMBER), part.metadata.get(_PARTS))
        if says != (number, count):
            raise CheckpointError(
                f"{part.path} says that it is part {says[0]!r} (counted from 0) of {says[1]!r}, where {number} of "
                f"{count} was due. Download it again."
            )
        differ = [key for key, value in part.metadata.items() if first.metadata.get(key) != value]
        if differ != [_PART_NUMBER]:
            raise CheckpointError(f"{part.path} and {first.path.name} differ in {', '.join(differ)}: of two models?")
        parts.append(part)
    return parts


class GGUFFile(Mapping[str, np.ndarray]):
    """A GGUF file as a mapping from its own tensor names to float32 arrays, dequantized when they are asked for.

    Of a split file the first part is given, and the others lie beside it. Every header is checked in full on opening.
    Nothing is kept of what was dequantized: each access reads again.

    Attributes:
        metadata: the header's fields, as Python numbers, strings and lists.

    Raises:
        CheckpointError: for another magic or version, a truncated file, lengths or offsets that do not agree, a block
            format that the gguf package cannot read, parts that are missing or those of another file.
        ImportError: without the gguf package.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._gguf = _gguf()
        parts = _parts(_Part(self.path))
        self.metadata = parts[0].metadata
        self._places: dict[str, _Part] = {}
        for part in parts:
            for name in part.tensors:
                if name in self._places:
                    raise CheckpointError(f"{part.path} holds the tensor {name!r}, which another part has too.")
                self._places[name] = part
        promised = self.metadata.get(_ALL_TENSORS, len(self._places)) if len(parts) > 1 else len(self._places)
        if promised != len(self._places):
            raise CheckpointError(
                f"{self.path} says {_ALL_TENSORS}={promised}, but its parts hold {len(self._places)} tensors. Are "
                "all of one download?"
            )

    def __getitem__(self, name: str) -> np.ndarray:
        """A tensor's values, float32; chunk by chunk, so that little more is allocated than the array itself."""
        part = self._places[name]
        tensor = part.tensors[name]
        values, size = self._gguf.GGML_QUANT_SIZES[tensor.kind]
        stored = np.frombuffer(part.data, np.uint8, tensor.end - tensor.begin, tensor.begin)
        if tensor.kind == self._gguf.GGMLQuantizationType.F32:
            return stored.view("<f4").reshape(tensor.shape)
        array = np.empty(math.prod(tensor.shape), np.float32)
        step = _CHUNK // values
        for block in range(0, len(array) // values, step):
            # As one row: the package walks through many rows in small groups, which takes thrice the time.
            row = stored[None, block * size : (block + step) * size]
            array[block * values : (block + step) * values] = self._gguf.quants.dequantize(row, tensor.kind)[0]
        return array.reshape(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without touching its bytes."""
        return self._places[name].tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        """The dtype that a tensor is read as: float32, whatever its blocks are."""
        self._places[name]  # a name that is not there is a KeyError, as for the other readers
        return np.dtype(np.float32)
