"""Text models inside of larger ones, whose other parts are left where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfxformer.checkpoints.files.errors import CheckpointError

# Keys of the whole model that are the text model's too.
_OUTER = ("tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id", "dtype", "torch_dtype", "tfxformer")


@dataclass(frozen=True)
class Nested:
    """Where a text model stands in a larger one.

    Attributes:
        name: `model_type` in config.json of the whole.
        family: the name of the text model's page.
        key: the key of config.json that holds the text model's.
        architectures: the whole's classes -> those of the text model.
        renamed: what text tensors' names begin with in the whole -> with what in the text model alone.
        left_out: what the names of the other parts' tensors begin with.
    """

    name: str
    family: str
    key: str
    architectures: Mapping[str, str]
    renamed: Mapping[str, str]
    left_out: tuple[str, ...]

    def config(self, reference: Mapping) -> dict:
        """The text model's config.json.

        Raises:
            CheckpointError: where the whole one says none.
        """
        inner = reference.get(self.key)
        if not isinstance(inner, Mapping):
            raise CheckpointError(f"config.json of a {self.name!r} has no {self.key}, where its text model stands.")
        outer = {key: reference[key] for key in _OUTER if reference.get(key) is not None}
        classes = [self.architectures.get(name, name) for name in reference.get("architectures") or ()]
        return {**inner, **outer, "model_type": self.family, **({"architectures": classes} if classes else {})}

    def tensors(self, tensors: Mapping) -> RenamedTensors:
        """The text model's tensors, by the names that they have in a checkpoint of it alone."""
        names = {}
        for name in tensors:
            begins = next((begin for begin in self.renamed if name.startswith(begin)), "")
            if not name.startswith(self.left_out):
                names[self.renamed.get(begins, "") + name.removeprefix(begins)] = name
        return RenamedTensors(tensors, names)


class RenamedTensors(Mapping):
    """Some tensors of a checkpoint by other names; `shape` and `dtype` as the checkpoint's own have them."""

    def __init__(self, tensors: Mapping, names: Mapping[str, str]):
        self._tensors, self._names = tensors, names

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without touching its bytes."""
        return self._tensors.shape(self._names[name])

    def dtype(self, name: str) -> np.dtype:
        """A tensor's dtype, without touching its bytes."""
        return self._tensors.dtype(self._names[name])
