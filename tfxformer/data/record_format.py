"""One row of arrays as the bytes of one record: a `tf.train.Example` of a size that depends on the shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

FRAME = 16  # bytes that TFRecord puts around a record: its length, and two checksums
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
        self.record_bytes = len(self._blank) + FRAME

    @classmethod
    def of(cls, row: Mapping[str, np.ndarray]) -> RecordFormat:
        """The format of rows like this one."""
        return cls({name: (np.asarray(value).dtype.name, np.asarray(value).shape) for name, value in row.items()})

    def encode(self, row: Mapping[str, np.ndarray], where: str = "The row") -> bytes:
        """The bytes of a row, without TFRecord's frame.

        Raises:
            RecordsError: for a row of other names, dtypes or shapes, named as `where`.
        """
        if row.keys() != self.features.keys():
            raise RecordsError(f"{where} has {sorted(row)}; wanted {list(self.features)}, as the first row.")
        record = bytearray(self._blank)
        for name, (dtype, shape) in self.features.items():
            value = np.asarray(row[name])
            if value.dtype != dtype or value.shape != shape:
                raise RecordsError(
                    f"{where}: {name!r} is {value.dtype} {list(value.shape)}; wanted {dtype} {list(shape)}, as in the "
                    "first row. Pad or pack rows to one length first."
                )
            record[self._places[name]] = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        return bytes(record)

    def decode(self, records) -> dict[str, Any]:
        """In a TensorFlow graph: serialized rows, string [B] -> name -> tensor [B, *shape]."""
        import tensorflow as tf

        raw = tf.io.parse_example(records, {name: tf.io.FixedLenFeature([], tf.string) for name in self.features})
        batch = {}
        for name, (dtype, shape) in self.features.items():
            values = tf.io.decode_raw(raw[name], dtype, fixed_length=4 * math.prod(shape))
            batch[name] = tf.ensure_shape(tf.reshape(values, (-1, *shape)), (records.shape[0], *shape))
        return batch

    def to_json(self) -> dict:
        """Ready for the index."""
        return {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in self.features.items()}

    @classmethod
    def from_json(cls, features: dict) -> RecordFormat:
        return cls({name: (spec["dtype"], tuple(spec["shape"])) for name, spec in features.items()})

    def __eq__(self, other):
        return isinstance(other, RecordFormat) and self.features == other.features

    __hash__ = None


def _template(features) -> tuple[bytes, dict[str, slice]]:
    """A record of zeros, and where in it each array stands."""
    import tensorflow as tf

    sizes = {name: 4 * math.prod(shape) for name, (_, shape) in features.items()}

    def example(filled=None):
        values = {name: bytes([255 * (name == filled)]) * size for name, size in sizes.items()}
        feature = {
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()
        }
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)

    blank, places = example(), {}
    for name, size in sizes.items():
        differing = np.flatnonzero(np.frombuffer(blank, np.uint8) != np.frombuffer(example(name), np.uint8))
        places[name] = slice(int(differing[0]), int(differing[0]) + size)
    return blank, places
