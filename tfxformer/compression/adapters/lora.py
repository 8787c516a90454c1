"""What a LoRA adapter is: its rank, its scale, and the layers it goes to; with AdaLoRA, whose ranks are allotted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

import keras

from tfxformer.arguments.plain_values import is_finite_number
from tfxformer.compression.adapters.layer_choice import AdapterKind, Choice
from tfxformer.compression.weights.matrices import Kernel, output_layers


@dataclass(frozen=True)
class LoRA(AdapterKind):
    """Two factors a [in, r] and b [r, out] beside a kernel: kernel + scale * a @ b (Hu et al., arXiv:2106.09685).

    Attributes:
        rank: int r, 1 or more.
        alpha: float; the scale is alpha / rank. None for the rank, a scale of 1.
        dropout: float in [0, 1), of what the factors read in training. Layers of tfxformer only.
        targets: which Dense and EinsumDense layers: names ("query", "feed_forward/output": a layer's name or the end
            of its path), or `targets(layer) -> bool`; None for all but the output layers (Dettmers et al.,
            arXiv:2305.14314, section 4: queries and values alone do not reach full fine-tuning).
        rslora: bool, a scale of alpha / sqrt(rank) (Kalajdzievski, 2023, arXiv:2312.03732).
        also_train: layers that are trained whole, and saved with the adapter: names or a function as `targets`; None
            for the classification heads of tfxformer's tasks, () for none.

    Raises:
        TypeError, ValueError: for values outside these.
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    targets: Choice | None = None
    rslora: bool = False
    also_train: Choice | None = None

    def __post_init__(self):
        name = type(self).__name__
        if not isinstance(self.rank, Integral) or isinstance(self.rank, bool) or self.rank < 1:
            raise ValueError(
                f"{name}: rank is the width between the two factors, an integer of 1 or more; got {self.rank!r}."
            )
        if not is_finite_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"{name}: dropout must be at least 0 and below 1; got {self.dropout!r}.")
        if self.alpha is not None and (not is_finite_number(self.alpha) or self.alpha <= 0):
            raise ValueError(f"{name}: alpha must be a number above 0, or None for the rank; got {self.alpha!r}.")
        self._check_choices("targets", "also_train")

    @property
    def scale(self) -> float:
        """The factor of a @ b."""
        alpha = self.rank if self.alpha is None else self.alpha
        return float(alpha / (math.sqrt(self.rank) if self.rslora else self.rank))

    def kernels(self, model: keras.Model) -> list[Kernel]:
        """The kernels of a model that get factors.

        Raises:
            ValueError: where there are none.
        """
        if self.targets is not None:
            return self._matching(model, "targets")
        outputs = {id(layer) for layer in output_layers(model)}
        chosen = [one for one in self._known(model) if id(one.layer) not in outputs]
        if not chosen:
            raise ValueError(
                f"{type(self).__name__}: {model.name!r} has no Dense or EinsumDense layer but its outputs."
            )
        return chosen

    def arguments(self, kernel: Kernel) -> dict:
        return {"kind": "low_rank", "rank": self.rank, "scale": self.scale, "dropout": self.dropout}


@dataclass(frozen=True)
class AdaLoRA(LoRA):
    """LoRA as a singular value decomposition, kernel + scale * a @ diag(e) @ b, from which the least important ranks
    of all layers together are taken while it is trained (Zhang et al., 2023, arXiv:2303.10512).

    `fit(..., callbacks=[compression.AllocateRanks(adapters, schedule)])` takes them; without that callback all stay.

    Attributes:
        rank: int, of each layer at first.
        orthogonality: float, what the distance of the factors' vectors from orthonormal ones counts in the loss, the
            mean of all factors.
        others: as `LoRA` has them; the scale is alpha / rank, rank that at first.

    Raises ValueError for a negative orthogonality.
    """

    rank: int = 12
    orthogonality: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not is_finite_number(self.orthogonality) or self.orthogonality < 0:
            raise ValueError(f"AdaLoRA: orthogonality must be a number of 0 or more; got {self.orthogonality!r}.")

    def arguments(self, kernel: Kernel) -> dict:
        return {**super().arguments(kernel), "kind": "singular_values", "orthogonality": self.orthogonality}
