"""A GGUF file's tensors under the reference's names and in its layout.

llama.cpp's converter permutes the rows of a llama's query and key projections, so that the two numbers it rotates
together stand side by side; here they are put back to the reference's halves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.files.gguf import GGUFFile
from tfxformer.checkpoints.gguf_models.architectures import Architecture
from tfxformer.checkpoints.gguf_models.settings import heads_of


class GGUFTensors(Mapping[str, np.ndarray]):
    """A GGUF file's tensors under the reference's names and in its layout, float32, dequantized on access.

    Raises:
        CheckpointError: for a tensor that the architecture has no name for.
    """

    def __init__(self, file: GGUFFile, architecture: Architecture):
        self.path = file.path
        self._file, self._architecture = file, architecture
        self._names: dict[str, str] = {}
        unknown = []
        for name in file:
            module, _, leaf = name.rpartition(".")
            index = re.match(r"blk\.(\d+)\.", module)
            generic = f"blk.{{i}}.{module[index.end() :]}" if index else module
            if name in architecture.factors:
                continue  # read into the config
            if leaf not in ("weight", "bias") or generic not in architecture.modules:
                unknown.append(name)
                continue
            theirs = architecture.modules[generic].replace("{i}", index[1] if index else "")
            self._names[f"{theirs}.{leaf}"] = name
        if unknown:
            raise CheckpointError(
                f"{file.path} has {len(unknown)} tensors that tfxformer knows no place for in a GGUF "
                f"{architecture.name!r} model: {', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}."
            )

    def __getitem__(self, name: str) -> np.ndarray:
        ours = self._names[name]
        array = self._file[ours]
        part = ours.split(".")[-2]
        if part in (self._architecture.permuted or {}):
            return self._unpermuted(ours, array, self._architecture.permuted[part])
        if self._architecture.offset and ours.endswith("norm.weight"):
            return array - np.float32(self._architecture.offset)
        if part in self._architecture.transposed and array.ndim == 2:
            return array.T
        return array

    def _unpermuted(self, name: str, array: np.ndarray, heads_key: str) -> np.ndarray:
        """Rows [head, pair, 2] put back to [head, 2, pair]."""
        heads = heads_of(self._file, self._architecture, heads_key)
        if array.shape[0] % (2 * heads):
            raise CheckpointError(
                f"{self.path}: the tensor {name!r} of shape {list(array.shape)} cannot be that of {heads} heads."
            )
        paired = array.reshape(heads, array.shape[0] // heads // 2, 2, -1)
        return paired.swapaxes(1, 2).reshape(array.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape in the reference's layout, without touching its bytes."""
        ours = self._names[name]
        shape = self._file.shape(ours)
        turned = ours.split(".")[-2] in self._architecture.transposed and len(shape) == 2
        return shape[::-1] if turned else shape

    def dtype(self, name: str) -> np.dtype:
        """float32."""
        return self._file.dtype(self._names[name])
