"""Reads safetensors files by memory map and writes them; sharded folders too. Never unpickles.

Format: u64 little-endian header length, JSON header, then the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from tfxformer import json_files
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.files import replacing, replacing_folder, write_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
WEIGHTS = (SINGLE_FILE, INDEX_FILE, "model-?????-of-?????.safetensors")  # patterns of all files of weights
_PIECE_BYTES = 1 << 20
MAX_HEADER_BYTES = 100_000_000  # the reference implementation's limit

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# Read where config.json says how they are scaled; without scales their numbers mean nothing.
EIGHT_BIT_FLOATS = {"F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2)}
# Dtypes of quantized checkpoints: numbers that mean nothing without scales, some of them several to a byte.
QUANTIZED = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4", "U16", "U32")
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def _fail(path: Path, what: str) -> None:
    raise CheckpointError(f"{path} is not a valid safetensors file: {what}. Download or convert it again.")


class SafetensorsFile(Mapping[str, np.ndarray]):
    """A safetensors file as a mapping from names to read-only arrays over the mapped file.

    The header is checked in full on opening; a tensor's bytes are read when they are used.

    Args:
        path: the file.
        scaled: whether the caller has scales for floats of 8 bits, which are refused otherwise.

    Raises:
        CheckpointError: for a truncated file, or a header whose lengths, dtypes, shapes or offsets do not agree.
    """

    def __init__(self, path, *, scaled: bool = False):
        self.path = Path(path)
        self._dtypes = DTYPES | EIGHT_BIT_FLOATS if scaled else DTYPES
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._header, self._start = self._read_header(file, size)
            self._check(size - self._start)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _read_header(self, file, size: int) -> tuple[dict, int]:
        prefix = file.read(8)
        if len(prefix) < 8:
            _fail(self.path, f"{size} bytes are too few for a header")
        if prefix == b"version ":
            raise CheckpointError(
                f"{self.path} is not the file but a pointer of Git LFS to it: fetch the file (git lfs pull, or "
                "download it from the hub)."
            )
        length = int.from_bytes(prefix, "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            _fail(self.path, f"its header claims {length} bytes, the file has {size} (limit {MAX_HEADER_BYTES})")
        try:
            header = json_files.parse_json(file.read(length).decode("utf-8"), "its header")
        except ValueError as error:
            _fail(self.path, str(error).rstrip("."))
        self.metadata = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict):
            _fail(self.path, "its __metadata__ is not a JSON object")
        return header, 8 + length

    def _check(self, data_bytes: int) -> None:
        spans = []
        for name, entry in self._header.items():
            try:
                dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
                valid = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
                known = dtype in self._dtypes
            except (TypeError, KeyError, ValueError):
                _fail(self.path, f"the entry of tensor {name!r} lacks dtype, shape or data_offsets")
            if not known and dtype in QUANTIZED:
                raise CheckpointError(
                    f"{self.path} is a quantized checkpoint: tensor {name!r} holds {dtype} numbers, which tfxformer "
                    "does not read; the file is not damaged. Give the unquantized checkpoint (the model that this one "
                    'was made from), or write one in torch: model.to(torch.bfloat16).save_pretrained("new_folder").'
                )
            if not known:
                _fail(self.path, f"tensor {name!r} has dtype {dtype!r}; known: {', '.join(DTYPES)}")
            if not valid or end - begin != math.prod(shape) * self._dtypes[dtype].itemsize:
                _fail(self.path, f"tensor {name!r} of shape {shape} and dtype {dtype} does not fit {begin}:{end}")
            spans.append((begin, end, name))
        position = 0
        for begin, end, name in sorted(spans):
            if begin != position:
                _fail(self.path, f"tensor {name!r} begins at {begin} where {position} was due")
            position = end
        if position != data_bytes:
            _fail(self.path, f"its tensors take {position} bytes, the file holds {data_bytes} (truncated?)")

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._header[name]
        begin, end = entry["data_offsets"]
        dtype, shape = self._dtypes[entry["dtype"]], tuple(entry["shape"])
        count = (end - begin) // dtype.itemsize
        return np.frombuffer(self._map, dtype, count, self._start + begin).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without touching its bytes."""
        return tuple(self._header[name]["shape"])

    def dtype(self, name: str) -> np.dtype:
        """A tensor's dtype, without touching its bytes."""
        return self._dtypes[self._header[name]["dtype"]]


class ShardedFiles(Mapping[str, np.ndarray]):
    """Several files of weights under one index, as one mapping.

    Args:
        index_path: JSON, whose "weight_map" says the file of each tensor.
        open_file: path -> mapping with `shape` and `dtype`, which a file is read by.

    Raises:
        CheckpointError: for shards that are missing, that lie outside the folder, or lack what the index promises.
    """

    def __init__(self, index_path, open_file: Callable = SafetensorsFile):
        self.path = Path(index_path)
        try:
            self._shards = json_files.read_json(self.path)["weight_map"]
            files = sorted(set(self._shards.values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path} is not an index of shards (no 'weight_map'): {error}.") from error
        for name in files:
            # A name with a path in it could open any file of the machine.
            if not isinstance(name, str) or name != Path(name).name or name in ("", ".", "..") or "\\" in name:
                raise CheckpointError(f"{self.path} names the shard {name!r}: a shard must lie beside its index.")
            if not (self.path.parent / name).is_file():
                raise CheckpointError(f"{self.path} names the shard {name!r}, which is not there. Download it too.")
        self._files = {name: open_file(self.path.parent / name) for name in files}
        for tensor, name in self._shards.items():
            if tensor not in self._files[name]:
                raise CheckpointError(f"{self.path} promises tensor {tensor!r} in {name!r}, which has no such tensor.")
        for name, file in self._files.items():
            for tensor in file:
                if self._shards.get(tensor) != name:
                    raise CheckpointError(
                        f"{self.path.parent / name} holds the tensor {tensor!r}, which {self.path.name} does not place "
                        "there: it would be silently dropped. Is the index that of another download?"
                    )

    def __getitem__(self, name: str) -> np.ndarray:
        return self._files[self._shards[name]][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without touching its bytes."""
        return self._files[self._shards[name]].shape(name)

    def dtype(self, name: str) -> np.dtype:
        """A tensor's dtype, without touching its bytes."""
        return self._files[self._shards[name]].dtype(name)


def open_folder(folder) -> SafetensorsFile | ShardedFiles:
    """The tensors of a folder with safetensors; `folders.open_folder` opens other formats too.

    Raises:
        CheckpointError: where the folder has no safetensors file, with what it has instead and the way out.
    """
    folder = Path(folder)
    if (folder / INDEX_FILE).is_file():
        return ShardedFiles(folder / INDEX_FILE)
    if not (folder / SINGLE_FILE).is_file():
        from tfxformer.checkpoints.files.refusals import refuse_without_weights

        refuse_without_weights(folder)
    return SafetensorsFile(folder / SINGLE_FILE)


@dataclass(frozen=True)
class Unread:
    """A tensor that is made when it is written, and is in memory no longer than that.

    Attributes:
        shape, dtype: what `make` will return.
        make: makes the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.make(), self.dtype if dtype is None else dtype)


def write(path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes one safetensors file, whole or not at all.

    Args:
        path: the file.
        tensors: name -> array, or `Unread`, which are made one at a time; a dtype outside `DTYPES` is an error.
        metadata: strings for the header; "format": "pt" is what transformers expects.
    """
    with replacing(path) as part:
        _write_in_place(part, tensors, metadata)


def _write_in_place(path: Path, tensors: Mapping, metadata: Mapping[str, str] | None = None) -> None:
    header: dict = {"__metadata__": {"format": "pt", **(metadata or {})}}
    position = 0
    for name, array in tensors.items():
        if np.dtype(array.dtype) not in _NAMES:
            raise CheckpointError(f"Tensor {name!r} has dtype {array.dtype}, which safetensors cannot hold here.")
        header[name] = {
            "dtype": _NAMES[np.dtype(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # aligned data can be mapped in place
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for array in tensors.values():
            _write_rows(file, np.atleast_1d(np.asarray(array)))


def _write_rows(file, array: np.ndarray) -> None:
    """Some rows at a time: a view that must be copied is never there twice, nor are two tensors."""
    rows = max(len(array) * _PIECE_BYTES // max(array.nbytes, 1), 1)
    for first in range(0, len(array), rows):
        # A transposed view written as it lies in memory would be silently wrong.
        file.write(np.ascontiguousarray(array[first : first + rows]).reshape(-1).view(np.uint8).data)


def _shards(tensors: Mapping[str, np.ndarray], max_shard_bytes: int) -> dict[str, dict]:
    """File name -> its tensors."""
    shards: list[dict] = [{}]
    filled = 0
    for name, array in tensors.items():
        if shards[-1] and filled + array.nbytes > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = array
        filled += array.nbytes
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards)}


def write_folder(folder, tensors: Mapping[str, np.ndarray], max_shard_bytes: int = 5_000_000_000) -> list[Path]:
    """Writes `model.safetensors`, or shards and their index where it would exceed `max_shard_bytes`.

    All or nothing: they replace the weights of an older checkpoint in one step. Other files of the folder stay.
    """
    shards = _shards(tensors, max_shard_bytes)
    index = {
        "metadata": {"total_size": sum(array.nbytes for array in tensors.values())},
        "weight_map": {tensor: name for name, shard in shards.items() for tensor in shard},
    }
    written = list(shards)
    with replacing_folder(folder, WEIGHTS) as new:
        for name, shard in shards.items():
            write(new / name, shard)
        if len(shards) > 1:
            write_json(new / INDEX_FILE, index, indent=2)
            written.append(INDEX_FILE)
    return [Path(folder).expanduser() / name for name in written]
