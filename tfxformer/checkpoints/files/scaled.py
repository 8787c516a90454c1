"""Weights stored in 8 bits with their scales beside them, read as the float32 numbers that they stand for.

Only formats whose numbers are one product each: number times scale. What quantizes activations (`input_scale` and its
kin) is left out: it rounds what a server computes, and is no part of the model.
Source: transformers, `integrations/finegrained_fp8.py`; compressed-tensors, `quantization/lifecycle/forward.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.files.safetensors import EIGHT_BIT_FLOATS

_KEYS = ("quantization_config", "compression_config")
_SCALES = ("_scale_inv", "_scale")  # the first is not an inverse, whatever its name says
_OF_ACTIVATIONS = (".input_scale", ".activation_scale", ".input_scale_ub", ".k_scale", ".v_scale")
_FLOATS = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class Scaling:
    """How a checkpoint's weights are stored.

    Attributes:
        key: of config.json, under which that stood.
        method: its name there.
        dtypes: numpy names of those that stand for weights.
        block: rows and columns that share a scale, where neither all of a tensor nor all of a row do.
    """

    key: str
    method: str
    dtypes: tuple[str, ...]
    block: tuple[int, int] | None = None


def scaling_of(reference: Mapping) -> Scaling | None:
    """What config.json says of weights in 8 bits; None where it says nothing, or of a format that is not read."""
    key = next((key for key in _KEYS if isinstance(reference.get(key), Mapping)), None)
    if key is None:
        return None
    said = reference[key]
    method = said.get("quant_method")
    floats = tuple(dtype.name for dtype in EIGHT_BIT_FLOATS.values())
    if method in ("fp8", "fbgemm_fp8"):
        if said.get("modules_to_convert"):  # embeddings, whose scales are others
            return None
        block = said.get("weight_block_size")
        return Scaling(key, method, floats, _block(block)) if block is None or _block(block) else None
    if method == "compressed-tensors":
        return _compressed(key, said, floats)
    return None


def _compressed(key: str, said: Mapping, floats: tuple[str, ...]) -> Scaling | None:
    """Of compressed-tensors, those formats whose weights are whole bytes, all stored in one way."""
    dtypes = {"float-quantized": floats, "int-quantized": ("int8",)}.get(said.get("format"))
    groups = said.get("config_groups")
    sparse = (said.get("sparsity_config") or {}).get("format") not in (None, "dense")
    if dtypes is None or not isinstance(groups, Mapping) or sparse or said.get("transform_config"):
        return None
    weights = [group.get("weights") if isinstance(group, Mapping) else None for group in groups.values()]
    if not all(isinstance(one, Mapping) and one.get("num_bits") == 8 and one.get("symmetric", True) for one in weights):
        return None
    blocks = {_block(one.get("block_structure")) for one in weights}
    return Scaling(key, "compressed-tensors", dtypes, blocks.pop()) if len(blocks) == 1 else None


def _block(said) -> tuple[int, int] | None:
    """A block's rows and columns."""
    if isinstance(said, (list, tuple)) and len(said) == 2 and all(type(size) is int and size > 0 for size in said):
        return tuple(said)
    return None


class ScaledTensors(Mapping[str, np.ndarray]):
    """A checkpoint's tensors, those in 8 bits times their scales, float32; each is made when it is asked for.

    Args:
        tensors: as the files hold them.
        scaling: of their config.json.
        path: for errors.

    Raises:
        CheckpointError: for weights without scales, scales without weights, and those that do not fit each other.
    """

    def __init__(self, tensors: Mapping, scaling: Scaling, path):
        self.path = path
        self._tensors, self._scaling = tensors, scaling
        self._scales: dict[str, str] = {}
        for name in tensors:
            if tensors.dtype(name).name in scaling.dtypes:
                self._scales[name] = self._scale_of(name)
        hidden = set(self._scales.values())
        self._names = [name for name in tensors if name not in hidden and not name.endswith(_OF_ACTIVATIONS)]
        if lone := [name for name in self._names if name.endswith((*_SCALES, "_zero_point"))]:
            self._fail(f"has {lone[0]!r}, which belongs to no weight in 8 bits")
        for name in self._scales:
            self._check_fit(name)

    @property
    def scaled(self) -> tuple[str, ...]:
        """The names of those that are stored in 8 bits."""
        return tuple(self._scales)

    def _fail(self, what: str) -> None:
        raise CheckpointError(
            f"{self.path} {what}: config.json says that its weights are stored by the method "
            f"{self._scaling.method!r}. Give the unquantized checkpoint (the model that this one was made from)."
        )

    def _scale_of(self, name: str) -> str:
        found = next((name + end for end in _SCALES if name + end in self._tensors), None)
        if found is None:
            self._fail(f"has the tensor {name!r} in 8 bits without a scale ({name}{_SCALES[0]} or {name}{_SCALES[1]})")
        if self._tensors.dtype(found).name not in _FLOATS:
            self._fail(f"has the scale {found!r} in {self._tensors.dtype(found).name}, not in floats")
        return found

    def _check_fit(self, name: str) -> None:
        """A scale is one number, one a row, or one a block."""
        shape, scale = self._tensors.shape(name), self._tensors.shape(self._scales[name])
        if scale in ((), (1,), (1, 1)) or (shape and scale in (shape[:1], (shape[0], 1))):
            return
        block = self._scaling.block
        if block is None or len(shape) != 2 or scale != tuple(-(-n // b) for n, b in zip(shape, block, strict=True)):
            self._fail(
                f"has the scale {self._scales[name]!r} of shape {list(scale)}, which does not fit the weight's "
                f"{list(shape)} in blocks of {block}"
            )

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._tensors[name]
        if name not in self._scales:
            return array
        scale = np.asarray(self._tensors[self._scales[name]], np.float32)
        array = array.astype(np.float32)
        if scale.size == 1 or scale.shape[1:] in ((), (1,)):
            array *= scale.reshape(-1, *[1] * (array.ndim - 1)) if array.ndim else scale.reshape(())
            return array
        rows, columns = self._scaling.block
        for index, of_row in enumerate(scale):  # by bands: a whole matrix of scales would be as large as the weight
            array[index * rows : (index + 1) * rows] *= np.repeat(of_row, columns)[: array.shape[1]]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without touching its bytes."""
        return self._tensors.shape(name)

    def dtype(self, name: str) -> np.dtype:
        """The dtype that a tensor is read as: float32 where it is scaled."""
        return np.dtype(np.float32) if name in self._scales else self._tensors.dtype(name)
