"""How the reference names the layers that have adapters, and those that are trained whole beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from tfxformer.checkpoints.families import family_of
from tfxformer.checkpoints.family import stack_of
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module, Place, place, tensors_of
from tfxformer.checkpoints.loading import weights
from tfxformer.models.backbone import Backbone

TABLE = "token_embedding"


class ModuleNames:
    """Our paths and the reference's modules for one model; of a model without family the paths themselves.

    Args:
        model: a task, a backbone, or any Keras model.
    """

    def __init__(self, model: keras.Model):
        backbone = getattr(model, "backbone", model)
        self.model = model
        self.task = getattr(model, "head_name", "") or getattr(model, "task_name", None)
        if not isinstance(backbone, Backbone):
            self._config = self._family = self._modules = None
            return
        self._config = backbone.config
        self._family = family_of(self._config.family)
        self._modules = self._family.module_names(self._config, self.task)

    def __getitem__(self, path: str) -> Module:
        """The module of a layer, without the family's prefix."""
        if self._family is None:
            return Module(self._own_name(path))
        if path not in self._modules:
            raise CheckpointError(f"The {self._family.name!r} page names no module for the layer {path!r}.")
        return self._modules[path]

    def full(self, module: str) -> str:
        """The module's name in the reference's class of the task: with the family's prefix, where that has one."""
        family = self._family
        if family is None:
            return module
        is_backbone = module == family.pooler or not family.is_head(f"{module}.")
        return family.prefix_of(self.task) + module if is_backbone else module

    def by_module(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """Module -> its layers among `paths`; several where it is fused."""
        found: dict[str, list[str]] = {}
        for path in paths:
            found.setdefault(self[path].name, []).append(path)
        return found

    def modules_by_full_name(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """The same by full names, older files' too."""
        found: dict[str, list[str]] = {}
        for path in paths:
            if self._family is None or path in self._modules:
                for name in self[path].names:
                    found.setdefault(self.full(name), []).append(path)
        return found

    def shortest(self, targets: Iterable[str]) -> list[str]:
        """The shortest ends of names that, as peft reads `target_modules`, choose these modules and no others."""
        targets = set(targets)
        known = targets | {self.full(module.name) for module in (self._modules or {}).values()}
        found: dict[str, None] = {}
        for target in sorted(targets):
            parts = target.split(".")
            ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
            found[next(end for end in ends if _chosen(known, end) <= targets)] = None
        return sorted(found)

    @property
    def config(self):
        """The `TransformerConfig` of a model with a family."""
        return self._config

    @property
    def has_both_stacks(self) -> bool:
        """Whether the model is an encoder with a decoder."""
        return self._config is not None and len(self._config.stacks) > 1

    @property
    def stack(self):
        """The `StackConfig` of a model with a family; the decoder's where there are two."""
        *_, stack = self._config.stacks.values()
        return stack

    def stack_of(self, path: str):
        """The `StackConfig` that a variable is part of; None of a model without a family."""
        return None if self._config is None else stack_of(path, self._config)

    # ---- layers that are trained whole ------------------------------------------------------------------------

    def tensors(self, whole: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Variables by our paths as the reference's tensors, by full names."""
        try:
            tensors = tensors_of(whole, self._places(whole))
        except KeyError as error:
            raise CheckpointError(
                f"Query, key and value are one tensor of {self._family.name!r}: train all three whole, or none."
            ) from error
        return {self._full_tensor(name): array for name, array in tensors.items()}

    def whole_modules(self, whole: Mapping[str, np.ndarray]) -> list[str]:
        """What peft calls `modules_to_save`: a head by its first name, as peft has it; others by their full one."""
        modules = {where.names[0].rpartition(".")[0] for where in self._places(whole).values()}
        is_head = (lambda name: False) if self._family is None else self._family.is_head
        return sorted({name.split(".")[0] if is_head(f"{name}.") else self.full(name) for name in modules})

    def read_whole(self, folder, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Path of a variable -> its value, for tensors by full names.

        Raises:
            CheckpointError: for a tensor that is no variable of this model, or has another shape.
        """
        variables = weights(self.model)
        known = {path: variable for path, variable in variables.items() if self._has(path.rpartition("/")[0])}
        places = self._places(known)
        found, used = {}, set()
        for path, where in places.items():
            name = next((full for full in map(self._full_tensor, where.names) if full in tensors), None)
            if name is None:
                continue
            wanted = where.tensor_shape(variables[path].shape)
            if tensors[name].shape != wanted:
                raise CheckpointError(
                    f"Tensor {name!r} of {folder} has shape {list(tensors[name].shape)}, the model wants "
                    f"{list(wanted)} for {path!r}. Do its labels match the adapter's?"
                )
            array = where.read(tensors[name])
            found[path] = array.T if where.transposed else array
            used.add(name)
        if unused := sorted(set(tensors) - used):
            raise CheckpointError(
                f"{folder} has tensors that this model has no place for: {', '.join(unused[:3])}"
                f"{', ...' if len(unused) > 3 else ''}. They belong to another base model, task or kind of adapter."
            )
        return found

    def _own_name(self, path: str) -> str:
        """A path of a model without family; its own name, often one with a number, is no part of it."""
        return path.removeprefix(f"{self.model.name}/").replace("/", ".")

    def _has(self, layer: str) -> bool:
        return self._family is None or layer in self._modules

    def _places(self, paths: Iterable[str]) -> dict[str, Place]:
        if self._family is None:
            return {path: Place((self._own_name(path),)) for path in paths}
        return self._family.places(paths, self._config, self.task)

    def _full_tensor(self, name: str) -> str:
        module, _, leaf = name.rpartition(".")
        return f"{self.full(module)}.{leaf}"


def _chosen(names: Iterable[str], end: str) -> set[str]:
    """What peft chooses by one of its `target_modules`."""
    return {name for name in names if name == end or name.endswith(f".{end}")}


# ---- query, key and value as one module -----------------------------------------------------------------------


def _place(names: ModuleNames, path: str) -> Place:
    """Where a layer's columns of b [r, out] lie in its module's; transposed, they are the first axis."""
    return place(dataclasses.replace(names[path], transposed=True), "kernel", names.stack_of(path), {})


def join_outputs(names: ModuleNames, parts: Mapping[str, np.ndarray], missing: float) -> np.ndarray:
    """Arrays whose first axis are the outputs of one module's layers, as one: [out, ...].

    Args:
        names: the model's.
        parts: path -> array of the module's layers, one or up to three.
        missing: what a part that is not there is filled with.
    """
    paths = list(parts)
    parts = {path: _place(names, path).reordered(part, back=True) for path, part in parts.items()}
    if names[paths[0]].part is None:
        return parts[paths[0]]
    where, first = _place(names, paths[0]), parts[paths[0]]
    unit = len(first) // where.sizes[where.part]
    found: list = [np.full((unit * size, *first.shape[1:]), missing, first.dtype) for size in where.sizes]
    for path, part in parts.items():
        found[names[path].part] = part
    return where.join(found)


def join_factors(names: ModuleNames, adapters: Mapping) -> tuple[dict[str, np.ndarray], float]:
    """The factors of one module: ({"a": [in, r], "b": [r, out], and "e": [r] where they have one}, scale).

    Args:
        names: the model's.
        adapters: path -> `LowRank` or `SingularValues` of the module's layers, one or up to three.
    """
    letters = [letter for letter in "abe" if hasattr(next(iter(adapters.values())), letter)]
    factors = {path: {x: np.asarray(getattr(one, x)) for x in letters} for path, one in adapters.items()}
    first = next(iter(factors.values()))
    scale = next(iter(adapters.values())).scale
    if names[(only := next(iter(adapters)))].part is None:
        return {**first, "b": join_outputs(names, {only: first["b"].T}, 0.0).T}, scale
    share = len(adapters) == len(names[next(iter(adapters))].sizes) and all(
        np.array_equal(one[x], first[x]) for one in factors.values() for x in letters if x != "b"
    )
    rank = first["a"].shape[1] if share else sum(one["a"].shape[1] for one in factors.values())
    parts, row = {}, 0
    for path, one in factors.items():
        own = one["b"] * (adapters[path].scale / scale)
        rows = slice(0, rank) if share else slice(row, row + len(own))
        row += len(own)
        part = np.zeros((rank, own.shape[1]), own.dtype)
        part[rows] = own
        parts[path] = part.T
    b = join_outputs(names, parts, 0.0).T
    if share:
        return {**first, "b": b}, scale
    others = {x: np.concatenate([one[x] for one in factors.values()], axis=-1) for x in letters if x != "b"}
    return {**others, "b": b}, scale


def split_outputs(names: ModuleNames, paths: Iterable[str], columns: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of [r, out] of a module that belong to each of its layers."""
    return {path: _place(names, path).read(columns.T).T for path in paths}


def prefix_keys(names: ModuleNames, path: str, keys: np.ndarray, back: bool = False) -> np.ndarray:
    """Keys [G, P, H] that stand in front of an attention layer's, their channels in our order; `back` in the file's."""
    where, rows = _place(names, f"{path}/key"), keys.transpose(0, 2, 1)
    return where.reordered(rows.reshape(-1, keys.shape[1]), back).reshape(rows.shape).transpose(0, 2, 1)
