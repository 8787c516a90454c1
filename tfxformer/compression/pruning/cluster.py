"""Weight clustering as a Keras callback: a kernel of few distinct values, which zip and int4 files keep small."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import keras

from tfxformer.backend import needs_tensorflow, strategy_of
from tfxformer.compression.pruning.held_kernels import HoldingCallback


class Cluster(HoldingCallback):
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

    Raises TypeError, ValueError for fewer than two values, and for what is no function of layers.
    """

    def __init__(
        self,
        number_of_clusters: int = 16,
        keep_zeros: bool = True,
        layers: Callable[[keras.layers.Layer], bool] | None = None,
    ):
        if isinstance(number_of_clusters, bool) or not isinstance(number_of_clusters, Integral):
            raise TypeError(f"Cluster: number_of_clusters is an int; got {number_of_clusters!r}.")
        if number_of_clusters < 2:
            raise ValueError(
                f"Cluster: number_of_clusters={number_of_clusters} would leave each kernel less than two values; "
                "give 2 or more, such as 16 (4 bits a weight) or 256 (8 bits)."
            )
        super().__init__(layers)
        self.number_of_clusters, self.keep_zeros = int(number_of_clusters), keep_zeros

    def engine_of(self, kernel):
        needs_tensorflow("Cluster, whose centroids are tfmot's,")
        from tfxformer.compression.pruning.tfmot_engine import KernelClustering  # loads tf_keras: seconds

        return KernelClustering(kernel, self.number_of_clusters)

    def begin(self):
        with strategy_of(self.model).scope():
            for engine in self.engines:
                engine.choose(self.keep_zeros)
        self.bring_into_form()
