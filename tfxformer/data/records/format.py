"""One row of arrays as the bytes of one record: a `tf.train.Example` of a size that depends on the shapes alone."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfxformer.data.records.checksum import masked_crc32c

HEAD, TAIL = 12, 4  # bytes that TFRecord puts around a record: its length with a checksum, and its own checksum
_DTYPES = ("int32", "float32")


class RecordsError(ValueError):
    """Rows that cannot be written, or files that are not what their index says."""


def rows_of(arrays: Mapping[str, np.ndarray] | tuple) -> Iterator[dict[str, np.ndarray]]:
    """The rows of a batch, from a dict of arrays [R, ...] or a NamedTuple of them (`packing.Blocks`)."""
    arrays = dict(arrays) if isinstance(arrays, Mapping) else arrays._asdict()
    for row in zip(*arrays.values(), strict=True):
        yield dict(zip(arrays, row, strict=True))


class RecordFormat:
    """What every row of a set of records has, and how it is written.

    An array is a bytes feature of its little-endian values in C order, so all records have one size and a reader can
    begin at any of them. Names are written in sorted order: equal rows have equal bytes.

    Args:
        features: name -> (dtype, shape): "int32" or "float32", a tuple of ints.

    Attributes:
        record_bytes: the size of a record in its file, with TFRecord's frame.
    """

    def __init__(self, features: Mapping[str, tuple[str, tuple[int, ...]]]):
        if not features:
            raise RecordsError("A row needs at least one array.")
        self.features = {name: (str(dtype), tuple(shape)) for name, (dtype, shape) in sorted(features.items())}
        for name, (dtype, shape) in self.features.items():
            if dtype not in _DTYPES:
                raise RecordsError(f"{name!r} is {dtype}; records hold {' and '.join(_DTYPES)}: cast it with astype.")
            if not math.prod(shape):
                raise RecordsError(f"{name!r} has the shape {list(shape)}: it holds nothing. Leave it out.")
        self._blank, self._places = _template(self.features)
        self.record_bytes = len(self._blank)

    @classmethod
    def of(cls, row: Mapping[str, np.ndarray]) -> RecordFormat:
        """The format of rows like this one."""
        return cls({name: (np.asarray(value).dtype.name, np.asarray(value).shape) for name, value in row.items()})

    def check(self, row: Mapping[str, np.ndarray], where: str) -> None:
        """Raises RecordsError for a row of other names, dtypes or shapes, named as `where`."""
        if row.keys() != self.features.keys():
            raise RecordsError(f"{where} has {sorted(row)}; wanted {list(self.features)}, as the first row.")
        for name, (dtype, shape) in self.features.items():
            value = np.asarray(row[name])
            if value.dtype != dtype or value.shape != shape:
                raise RecordsError(
                    f"{where}: {name!r} is {value.dtype} {list(value.shape)}; wanted {dtype} {list(shape)}, as in the "
                    "first row. Pad or pack rows to one length first."
                )

    def encode(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows as they stand in a file, frames and all: name -> array [R, *shape] -> uint8 [R, record_bytes]."""
        count = len(next(iter(arrays.values())))
        rows = np.empty((count, self.record_bytes), np.uint8)
        rows[:] = self._blank
        for name, (dtype, shape) in self.features.items():
            value = np.asarray(arrays[name])
            if value.dtype != dtype or value.shape != (count, *shape):
                raise RecordsError(f"{name!r} is {value.dtype} {list(value.shape)}; wanted {dtype} {[count, *shape]}.")
            little = np.ascontiguousarray(value, np.dtype(dtype).newbyteorder("<"))
            rows[:, self._places[name]] = little.reshape(count, math.prod(shape)).view(np.uint8)
        rows[:, -TAIL:] = masked_crc32c(rows[:, HEAD:-TAIL]).astype("<u4")[:, None].view(np.uint8)
        return rows

    def decode(self, rows) -> dict[str, Any]:
        """In a TensorFlow graph: what `encode` wrote, uint8 [B, record_bytes] -> name -> tensor [B, *shape]."""
        import tensorflow as tf

        batch = {}
        for name, (dtype, shape) in self.features.items():
            values = tf.reshape(rows[:, self._places[name]], (-1, *shape, 4))  # little-endian, as TensorFlow's hosts
            batch[name] = tf.ensure_shape(tf.bitcast(values, dtype), (rows.shape[0], *shape))
        return batch

    def decode_arrays(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The same in numpy."""
        return {
            name: np.ascontiguousarray(rows[:, self._places[name]])
            .view(np.dtype(dtype).newbyteorder("<"))
            .astype(dtype)
            .reshape(-1, *shape)
            for name, (dtype, shape) in self.features.items()
        }

    def to_json(self) -> dict:
        """Ready for the index."""
        return {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in self.features.items()}

    @classmethod
    def from_json(cls, features: dict, most_bytes: int) -> RecordFormat:
        """What `to_json` wrote, of records that have `most_bytes` at most.

        Raises:
            RecordsError: for larger ones, before anything of their size is made.
        """
        read = {name: (spec["dtype"], tuple(spec["shape"])) for name, spec in features.items()}
        for name, (_, shape) in read.items():
            if not all(type(size) is int and size > 0 for size in shape) or 4 * math.prod(shape) > most_bytes:
                raise RecordsError(f"The index says {name!r} of shape {list(shape)}; a file has {most_bytes:,} bytes.")
        return cls(read)

    def __eq__(self, other):
        return isinstance(other, RecordFormat) and self.features == other.features

    __hash__ = None


def _template(features) -> tuple[np.ndarray, dict[str, slice]]:
    """A framed record of zeros, uint8 [record_bytes], and where in it each array stands.

    It is written by hand: a `tf.train.Example` as protobuf serializes it with sorted names.
    """
    entries, ends = b"", {}
    for name, (_, shape) in features.items():
        values = _field(1, _field(1, bytes(4 * math.prod(shape))))  # Feature.bytes_list, BytesList.value
        entries += _field(1, _field(1, name.encode()) + _field(2, values))  # an entry of the map Features.feature
        ends[name] = len(entries)
    example = _field(1, entries)  # Example.features
    begin = HEAD + len(example) - len(entries)
    places = {name: slice(begin + end - 4 * math.prod(features[name][1]), begin + end) for name, end in ends.items()}
    length = np.frombuffer(struct.pack("<Q", len(example)), np.uint8)
    checksum = masked_crc32c(length[None]).astype("<u4").view(np.uint8)
    body = np.frombuffer(example, np.uint8)
    return np.concatenate([length, checksum, body, np.zeros(TAIL, np.uint8)]), places


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf's wire format."""
    length, written = len(content), bytearray([number << 3 | 2])
    while length > 127:
        written.append(length & 127 | 128)
        length >>= 7
    return bytes(written) + bytes([length]) + content
