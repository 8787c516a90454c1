"""Weight clustering as a Keras callback: a kernel of few distinct values, which zip and int4 files keep small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import keras
import numpy as np

from tfxformer.compression.pruning.held_kernels import (
    constrain,
    release_before_next_fit,
    trainable_kernels,
    unconstrain,
)
from tfxformer.compression.weights.matrices import Kernel
from tfxformer.training.resume.state import value_of

if TYPE_CHECKING:
    from tfxformer.compression.pruning.tfmot_engine import KernelClustering


class Cluster(keras.callbacks.Callback):
    """Gives each kernel of a Keras 3 model at most k distinct values while `fit` trains it, by tfmot's clustering.

    The values are chosen when the fit begins, by k-means on the weights that are there. From then on each update goes
    to the weights behind the clustered ones, and its mean over a cluster to the cluster's value (Han et al., 2015,
    arXiv:1510.00149). A constraint on each kernel, applied by the optimizer inside the compiled step, does it: under
    jit_compile, steps_per_execution, mixed precision, distribution strategies and gradient accumulation, as in `Prune`.

    The model keeps nothing of it: a saved file has kernels of few values, which its zip keeps small (the .tflite file
    itself is as large as before), and the kernels' own constraints come back. To prune and cluster, fit with `Prune`
    first, then with this: zeros stay. `training.Resume` keeps the weights behind; from a `.keras` file a fit goes on
    with the clustered ones.

    Args:
        number_of_clusters: int k, at least 2; with 16 a weight says 4 bits.
        keep_zeros: whether weights that are zero when the fit begins stay so; zero is then one of the k values.
        layers: `layers(layer) -> bool` says which Dense, EinsumDense and convolution layers to cluster; None is all but
            the output layer. Frozen kernels, LoRA's factors and embeddings never are.
    """

    def __init__(
        self,
        number_of_clusters: int = 16,
        keep_zeros: bool = True,
        layers: Callable[[keras.layers.Layer], bool] | None = None,
    ):
        super().__init__()
        if isinstance(number_of_clusters, bool) or not isinstance(number_of_clusters, Integral):
            raise TypeError(f"Cluster: number_of_clusters is an int; got {number_of_clusters!r}.")
        if number_of_clusters < 2:
            raise ValueError(
                f"Cluster: number_of_clusters={number_of_clusters} would leave each kernel less than two values; "
                "give 2 or more, such as 16 (4 bits a weight) or 256 (8 bits)."
            )
        if layers is not None and not callable(layers):
            raise TypeError(f"Cluster: layers is a function layer -> bool, or None; got {layers!r}.")
        self.number_of_clusters, self.keep_zeros, self.layers = int(number_of_clusters), keep_zeros, layers
        self._clustered: list[_Clustered] = []
        self._chosen = False

    def on_train_begin(self, logs=None):
        self._clustered = []
        kernels = trainable_kernels(self.model, self.layers, "Cluster")
        release_before_next_fit(self.model)  # before the first constraint: what follows may raise
        from tfxformer.compression.pruning.tfmot_engine import KernelClustering  # loads tf_keras: seconds

        with self.model.distribute_strategy.scope():
            for kernel in kernels:
                engine = KernelClustering(kernel, self.number_of_clusters)
                constrain(kernel.variable, engine)
                self._clustered.append(_Clustered(kernel, engine))
        self._chosen = False
        self.model.make_train_function(force=True)  # a step traced earlier knows no constraint

    def on_epoch_begin(self, epoch, logs=None):
        # Not in on_train_begin: there a callback after this one (BackupAndRestore) may still load weights.
        if self._chosen:
            return
        with self.model.distribute_strategy.scope():
            for clustered in self._clustered:
                clustered.engine.choose(self.keep_zeros)
        self._snap()
        self._chosen = True

    def on_train_end(self, logs=None):
        self._snap()  # the optimizer's EMA, written into the weights before this call, has many values
        unconstrain(self.model, [clustered.kernel.variable for clustered in self._clustered])
        self._clustered = []

    def resume_state(self) -> dict:
        """What `training.Resume` keeps of it, arrays by name."""
        if not self._chosen:
            return {}
        states = [clustered.engine.state() for clustered in self._clustered]
        return {name: [value_of(state[name]) for state in states] for name in states[0]}

    def resume_from(self, state: dict) -> None:
        """Goes on where `resume_state` was taken."""
        names = list(state)
        with self.model.distribute_strategy.scope():
            for clustered, *arrays in zip(self._clustered, *state.values(), strict=True):
                clustered.engine.set_state(dict(zip(names, map(np.asarray, arrays), strict=True)))
        self._chosen = True

    def _snap(self) -> None:
        with self.model.distribute_strategy.scope():
            for clustered in self._clustered:
                variable = clustered.kernel.variable
                variable.assign(clustered.engine.snapped(variable.value))


@dataclass(frozen=True)
class _Clustered:
    kernel: Kernel
    engine: KernelClustering
