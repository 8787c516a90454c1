"""Reads the state dicts that torch.save writes (pytorch_model.bin) without torch, and without running anything in them.

The tensors are views of the mapped file: their bytes are read when they are used.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.files.pickles.archive import MAGIC, read_archive
from tfxformer.checkpoints.files.pickles.errors import refuse, shown
from tfxformer.checkpoints.files.pickles.legacy import read_places, read_stream
from tfxformer.checkpoints.files.pickles.machine import Machine
from tfxformer.checkpoints.files.pickles.values import Storage, Tensor, Unknown

SINGLE_FILE = "pytorch_model.bin"
INDEX_FILE = "pytorch_model.bin.index.json"
_MOST_SHARING = (
    64  # times that a file's numbers may be named: tied tables are 2 to 4, layers that share weights some 30
)
_TAR_MAGIC = slice(257, 262)


class PickleFile(Mapping[str, np.ndarray]):
    """A state dict of torch.save as a mapping from names to read-only arrays over the mapped file.

    Everything is checked on opening: what the pickle names and does, and that every tensor's numbers lie in its
    storage, and every storage in the file. Tensors that are tied are views of the same bytes.

    Raises:
        CheckpointError: for a pickle that holds or does anything else, naming it, and for files that are damaged.
    """

    def __init__(self, path):
        self.path = Path(path)
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < len(MAGIC):
                refuse(self.path, "it is empty or too short")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            try:
                state = self._read_zip(file) if self._map[: len(MAGIC)] == MAGIC else self._read_stream()
                self._tensors = self._checked(state)
                self._check_places()
            except Unknown as error:
                refuse(self.path, str(error))

    def _read_zip(self, file):
        archive = read_archive(file, self._map)
        self._places = archive.storages
        begin, end = archive.pickle
        return Machine(self._map[begin:end]).run()

    def _read_stream(self):
        if self._map[:8] == b"version ":
            raise CheckpointError(
                f"{self.path} is not the file but a pointer of Git LFS to it: fetch the file (git lfs pull, or "
                "download it from the hub)."
            )
        if self._map[_TAR_MAGIC] == b"ustar":
            raise Unknown("it is a tar archive, as torch before 0.1.10 wrote them")
        state, keys, position = read_stream(self._map)
        self._places = read_places(self._map, keys, position, self._storages(self._checked(state)))
        return state

    def _checked(self, state) -> dict[str, Tensor]:
        """A state dict's tensors by name."""
        if type(state) is not dict:
            raise Unknown(f"it holds {shown(state)}")
        for name, value in state.items():
            if type(name) is not str or type(value) is not Tensor:
                raise Unknown(f"its entry {shown(name)} is {shown(value)}")
        return state

    @staticmethod
    def _storages(tensors: Mapping[str, Tensor]) -> dict[str, Storage]:
        storages: dict[str, Storage] = {}
        for name, tensor in tensors.items():
            if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
                raise Unknown(f"the storage of tensor {shown(name)} has two types or lengths")
        return storages

    def _check_places(self) -> None:
        storages = self._storages(self._tensors)
        for key, storage in storages.items():
            if key not in self._places:
                raise Unknown(f"it lacks the storage {shown(key)} that its pickle names")
            begin, end = self._places[key]
            wanted = storage.numel * storage.dtype.itemsize
            if end - begin != wanted:
                raise Unknown(f"its storage {shown(key)} has {end - begin} bytes, where {wanted} were due (truncated?)")
        claimed = sum(math.prod(tensor.shape) for tensor in self._tensors.values())
        held = sum(storage.numel for storage in storages.values())
        if claimed > _MOST_SHARING * held:
            raise Unknown(f"its tensors share their numbers so often that {held:,} of them stand for {claimed:,}")

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        dtype, numel = tensor.storage.dtype, math.prod(tensor.shape)
        if not numel:
            return np.zeros(tensor.shape, dtype)
        begin, _ = self._places[tensor.storage.key]
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
        flat = np.frombuffer(self._map, dtype, last + 1, begin + tensor.offset * dtype.itemsize)
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without touching its bytes."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        """A tensor's dtype, without touching its bytes."""
        return self._tensors[name].storage.dtype
