"""Named adapters on one model: added, switched, merged, saved."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import keras
import numpy as np

from tfxformer.arguments import notices
from tfxformer.backend import strategy_of
from tfxformer.compression.adapters import keras_layers, peft
from tfxformer.compression.adapters.kinds import attention_kernels, table_of
from tfxformer.compression.adapters.layer_choice import AdapterKind
from tfxformer.compression.adapters.lora import LoRA
from tfxformer.compression.weights.matrices import CONVOLUTIONS, Kernel, all_kernels
from tfxformer.layers import Dense
from tfxformer.layers.adapters.base import LayerAdapter, adapted_layers
from tfxformer.models.adapted import (
    adapter_name,
    make_adapter,
    name_adapter,
    shift_positions,
    train_all,
    train_only,
)
from tfxformer.models.backbone import Backbone

PRUNED = 0.1  # of a kernel's weights; with more zeros than that it is one that was pruned


@dataclasses.dataclass
class Adapter:
    """One adapter, whether it is in the model or not.

    Attributes:
        layers: path of a layer -> what stands beside it.
        whole: path -> variable, those that are trained whole.
        values: path -> array, what those hold while another adapter is active.
    """

    layers: dict[str, LayerAdapter]
    whole: dict[str, keras.Variable]
    values: dict[str, np.ndarray]


class Adapters:
    """The adapters of a model: any number, at most one of them in it.

    An adapter is a `LoRA`, `AdaLoRA`, `IA3`, `Bottleneck`, `BitFit`, `PromptTuning` or `PrefixTuning`. The active one
    is a part of the model: `fit` trains it (with the layers that it trains whole) and nothing else, `.keras` files of
    tfxformer's models keep it, generation and export see it, the trainable table counts it. The others wait here.
    Adding, switching and merging change what is trainable: an optimizer that has trained before is of no use then,
    compile again (a task's default optimizer is new in every `fit` anyway).

    ```python
    adapters = compression.Adapters(classifier)
    adapters.add("films", compression.LoRA(rank=8))
    classifier.fit(texts, labels)
    adapters.save("films")                      # opens in peft
    adapters.merge()                            # a plain model again: save_pretrained, export
    ```

    Args:
        model: a task, an encoder or decoder, or any built Keras 3 model with Dense or EinsumDense layers, such as
            KerasHub's. An adapter that it has already (from a `.keras` file) is taken over.

    Raises ValueError for a model that is not built, and for two layers of one path.
    """

    def __init__(self, model: keras.Model):
        if not model.built:
            raise ValueError(f"{model.name} has no weights yet: build it, or call it on a batch, first.")
        self.model = model
        self._adapters: dict[str, Adapter] = {}
        self._active: str | None = None
        self._base: dict[str, np.ndarray] = {}  # path -> the base's value of what the active adapter trains whole
        # path -> variable, its value before the merge, and after it
        self._merged: dict[str, tuple[keras.Variable, np.ndarray, np.ndarray]] | None = None
        self._take_over()
        self._kernels: dict[str, Kernel] = {}
        for kernel in self._base_kernels():
            if kernel.layer.path in self._kernels:
                raise ValueError(
                    f"Two layers of {model.name!r} have the path {kernel.layer.path!r}: an adapter could not tell them "
                    "apart. Name them apart; of several tasks on one encoder, adapt one task: the encoder is shared."
                )
            self._kernels[kernel.layer.path] = kernel

    # ---- what there is ----------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """All adapters, in the order they were added."""
        return list(self._adapters)

    @property
    def active(self) -> str | None:
        """The adapter that is in the model, merged or not."""
        return self._active

    @property
    def merged(self) -> bool:
        """Whether the active adapter is merged into the kernels."""
        return self._merged is not None

    @property
    def layers(self) -> dict[str, LayerAdapter]:
        """What the active adapter has beside each layer, by the layer's path; {} without one."""
        return {} if self._active is None else dict(self._adapters[self._active].layers)

    # ---- adding and switching ---------------------------------------------------------------------------------

    def add(self, name: str, kind: AdapterKind | None = None) -> None:
        """Adds a new adapter, which changes nothing yet (but a prompt or prefix), and makes it the active one.

        Args:
            name: str, of letters, digits, "_" and "-".
            kind: what it is, `LoRA(...)`, `AdaLoRA(...)`, `IA3(...)`, `Bottleneck(...)`, `BitFit(...)`,
                `PromptTuning(...)` or `PrefixTuning(...)`; None for `LoRA()`.

        Raises:
            ValueError: for a name that is taken, targets that match no layer, and a merged model.
        """
        kind = LoRA() if kind is None else kind
        if not isinstance(kind, AdapterKind):
            raise TypeError(
                "Adapters.add wants a compression.LoRA, AdaLoRA, IA3, Bottleneck, BitFit, PromptTuning or "
                f"PrefixTuning; got {type(kind).__name__}."
            )
        self._check_new(name)
        before = self._active
        self.activate(None)
        try:
            layers = {kernel.layer.path: kind.arguments(kernel) for kernel in kind.kernels(self.model)}
            self._put(name, layers, {variable.path: variable for variable in kind.whole_variables(self.model)})
        except Exception:
            self.activate(before)
            raise
        self.activate(name)

    def activate(self, name: str | None) -> None:
        """Brings an adapter into the model in place of the one that is; None leaves the base alone.

        Raises:
            ValueError: for an unknown name, and while an adapter is merged.
        """
        self._check_not_merged(f"activate({name!r})")
        if name is not None:
            self._known(name)
        if name == self._active:
            return
        with strategy_of(self.model).scope():
            self._leave()
            self._enter(name)
        self._trace_anew()

    def remove(self, name: str) -> None:
        """Forgets an adapter; the base alone is left where it was the active one."""
        self._known(name)
        if name == self._active:
            self.activate(None)
        del self._adapters[name]

    # ---- merging ----------------------------------------------------------------------------------------------

    def merge(self) -> None:
        """Puts the active adapter into the kernels: a plain model, as fast as its base, that computes the same.

        The kernels before are kept in memory for `unmerge`. A pruned kernel gets weights where it had zeros; a warning
        says so.

        Raises:
            ValueError: where none is active, it is merged already, or no kernel can hold it (`Bottleneck`,
                `PromptTuning`, `PrefixTuning`).
        """
        if self._merged is not None:
            raise ValueError(f"The adapter {self._active!r} is merged already: it would count twice. unmerge() first.")
        if self._active is None:
            raise ValueError(
                f"No adapter is active, so there is none to merge; known: {', '.join(self.names) or 'none'}."
            )
        layers = self._adapters[self._active].layers
        if bound := [path for path, adapter in layers.items() if not adapter.merges]:
            raise ValueError(
                f"The adapter {self._active!r} is computed beside its layers ({bound[0]}, ...): no kernel can hold it. "
                "It stays a part of the model, which a .keras file and generation keep; or save() it alone."
            )
        with strategy_of(self.model).scope():
            self._merged = {}
            for path, adapter in layers.items():
                keras_layers.detach(self._kernels[path])
                for variable, value in keras_layers.merged(self._kernels[path], adapter):
                    before = np.asarray(variable)
                    variable.assign(value)
                    self._merged[variable.path] = variable, before, np.asarray(variable)
            train_all(self.model)
        self._warn_of_filled_zeros()
        self._trace_anew()

    def unmerge(self) -> None:
        """Takes a merge back, bit for bit: the kernels are those before, the adapter is beside them.

        Raises:
            ValueError: where nothing is merged, or the kernels have been trained since.
        """
        if self._merged is None:
            raise ValueError("No adapter is merged, so there is nothing to take back.")
        changed = [path for path, (one, _, after) in self._merged.items() if not np.array_equal(one, after)]
        if changed:
            raise ValueError(
                f"{len(changed)} kernels or biases have changed since the merge ({changed[0]}, ...): unmerge() would "
                "lose what they have learned. Keep the merged model, or train before merging."
            )
        with strategy_of(self.model).scope():
            for variable, before, _ in self._merged.values():
                variable.assign(before)
            self._merged = None
            self._beside(self._adapters[self._active])
        self._trace_anew()

    # ---- files ------------------------------------------------------------------------------------------------

    def save(self, folder, name: str | None = None, *, base: str | None = None) -> Path:
        """Writes one adapter in peft's format: adapter_config.json and adapter_model.safetensors.

        peft opens it on the same checkpoint in torch, but for `Bottleneck` and `BitFit`, which it does not have. Of
        models without a page in `checkpoints.families` (KerasHub's) the tensors have the layers' own paths.

        Args:
            folder: created where it does not exist.
            name: which adapter; None for the active one.
            base: the checkpoint it belongs to, for `base_model_name_or_path`; peft reads it where it has to find it.
        """
        name = self._active if name is None else name
        if name is None:
            raise ValueError(f"No adapter is active: say which to save; known: {', '.join(self.names) or 'none'}.")
        adapter = self._known(name)
        whole = {path: np.asarray(variable) for path, variable in adapter.whole.items()}
        whole = whole if name == self._active else adapter.values
        return peft.write_adapter(folder, self.model, adapter.layers, whole, base)

    def load(self, folder, name: str = "default") -> None:
        """Reads an adapter in peft's format, ours or peft's own, and makes it the active one.

        Raises:
            CheckpointError: for files that are missing, of another base model, or with options that we do not have.
            ValueError: for a name that is taken, and a merged model.
        """
        self._check_new(name)
        read = peft.read_adapter(folder, self.model, self._kernels)
        variables = {variable.path: variable for variable in self.model.variables}
        adapter = self._put(name, read.layers, {path: variables[path] for path in read.whole})
        for path, arrays in read.arrays.items():
            for variable, array in arrays.items():
                getattr(adapter.layers[path], variable).assign(array)
        adapter.values = read.whole
        self.activate(name)

    # ---- the parts --------------------------------------------------------------------------------------------

    def _put(self, name: str, layers: dict[str, dict], whole: dict[str, keras.Variable]) -> Adapter:
        """A new adapter of these arguments by path, not yet in the model."""
        made = {}
        with strategy_of(self.model).scope():
            for index, (path, arguments) in enumerate(layers.items()):
                kernel = self._kernels[path]
                own = _of_all(arguments, index, len(layers))
                made[path] = make_adapter(own, name=name, dtype=kernel.layer.dtype_policy)
                keras_layers.check(kernel, made[path])
                with kernel.layer._open_name_scope():  # so that the paths of its variables tell the layer
                    made[path].build(keras_layers.matrix_shape(kernel))
                made[path].begin(kernel.layer)
        active = self._adapters[self._active].whole if self._active is not None else {}
        values = {path: self._base[path] if path in active else np.asarray(v) for path, v in whole.items()}
        self._adapters[name] = Adapter(made, whole, values)
        return self._adapters[name]

    def _leave(self) -> None:
        """Takes the active adapter out: the model is its base."""
        if self._active is None:
            return
        adapter = self._adapters[self._active]
        for path in adapter.layers:
            keras_layers.detach(self._kernels[path])
        for path, variable in adapter.whole.items():
            adapter.values[path] = np.asarray(variable)
            variable.assign(self._base[path])
        train_all(self.model)
        shift_positions(self.model)
        name_adapter(self.model, None)
        self._active = None

    def _enter(self, name: str | None) -> None:
        if name is None:
            return
        adapter = self._adapters[name]
        self._base = {path: np.asarray(variable) for path, variable in adapter.whole.items()}
        for path, variable in adapter.whole.items():
            variable.assign(adapter.values[path])
        self._beside(adapter)
        self._active = name
        name_adapter(self.model, None if adapter.layers else name)

    def _beside(self, adapter: Adapter) -> None:
        for path, one in adapter.layers.items():
            keras_layers.attach(self._kernels[path], one)
        shift_positions(self.model)
        train_only(self.model, adapter.whole.values())

    def _take_over(self) -> None:
        """The adapter that the model brings along."""
        layers, alone = adapted_layers(self.model), adapter_name(self.model)
        if not layers and alone is None:
            return
        foreign = [layer.path for layer in layers if not isinstance(layer, keras_layers.OURS)]
        if foreign:
            raise ValueError(f"{foreign[0]} has an adapter already: go on with the Adapters that added it.")
        names = {layer.adapter.name for layer in layers} or {alone}
        if len(names) > 1:
            raise ValueError(f"{self.model.name!r} has the adapters {', '.join(sorted(names))} at once; one at a time.")
        factors = {layer.path: layer.adapter for layer in layers}
        own = {id(variable) for adapter in factors.values() for variable in adapter.variables}
        whole = {v.path: v for v in self.model.trainable_variables if id(v) not in own}
        self._active = names.pop()
        self._adapters[self._active] = Adapter(factors, whole, {})
        self._base = {path: np.asarray(variable) for path, variable in whole.items()}

    def _base_kernels(self) -> list[Kernel]:
        """The kernels of all Dense and EinsumDense layers without their adapters, the token table, and attention's."""
        kernels = [one for one in all_kernels(self.model) if not isinstance(one.layer, CONVOLUTIONS)]
        adapted = [layer for layer in adapted_layers(self.model) if isinstance(layer, Dense)]
        kernels += [Kernel(layer, layer.base_kernel, (0,)) for layer in adapted]
        backbone = getattr(self.model, "backbone", self.model)
        if isinstance(backbone, Backbone):  # what prompts and prefixes stand beside
            kernels += [table_of(backbone.token_embedding), *attention_kernels(backbone)]
        return kernels

    def _warn_of_filled_zeros(self) -> None:
        filled = [
            (before == 0).mean()
            for variable, before, after in self._merged.values()
            if len(variable.shape) > 1 and (before == 0).mean() >= PRUNED and (after == 0).mean() < PRUNED
        ]
        if filled:
            share = round(float(np.mean(filled)), 2)
            notices.warn(
                f"Merging {self._active!r} filled the zeros of {len(filled)} pruned kernels ({share:.0%} of them). To "
                f"prune them again, fit with compression.Prune(compression.ConstantSparsity({share}, begin_step=0)), "
                "or unmerge() and keep the adapter beside them."
            )

    def _trace_anew(self) -> None:
        """Drops what Keras has compiled, also of models on the same layers that this one keeps: it knows them as they
        were."""
        for model in (self.model, *(one for one in vars(self.model).values() if isinstance(one, keras.Model))):
            model.train_function = model.test_function = model.predict_function = None

    def _known(self, name: str) -> Adapter:
        if name not in self._adapters:
            raise ValueError(f"There is no adapter {name!r}; known: {', '.join(self.names) or 'none'}.")
        return self._adapters[name]

    def _check_new(self, name: str) -> None:
        self._check_not_merged("a new adapter")
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
            raise ValueError(f'An adapter\'s name is of letters, digits, "_" and "-"; got {name!r}.')
        if name in self._adapters:
            raise ValueError(f"There is an adapter {name!r} already; remove({name!r}) it, or take another name.")

    def _check_not_merged(self, what: str) -> None:
        if self._merged is not None:
            raise ValueError(f"The adapter {self._active!r} is merged into the kernels: unmerge() it before {what}.")


def _of_all(arguments: dict, index: int, count: int) -> dict:
    """The arguments of one of `count` layers' parts of an adapter: what counts for all together is divided."""
    if arguments["kind"] == "singular_values":
        arguments = {**arguments, "orthogonality": arguments["orthogonality"] / (2 * count)}
    return {**arguments, "index": index} if "rank" in arguments else arguments
