"""What a LoRA adapter is: its rank, its scale, and the layers it goes to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

import keras

from tfxformer.compression.kernels import Kernel, all_kernels
from tfxformer.models.heads import ClassificationHead

# The paper's choice (arXiv:2106.09685, section 4.2), under our names and KerasHub's.
QUERY_AND_VALUE = ("query", "value", "query_dense", "value_dense")
Choice = str | tuple[str, ...] | Callable[[keras.layers.Layer], bool]


@dataclass(frozen=True)
class LoRA:
    """Two factors a [in, r] and b [r, out] beside a kernel: kernel + scale * a @ b (Hu et al., arXiv:2106.09685).

    Attributes:
        rank: int r, 1 or more.
        alpha: float; the scale is alpha / rank. None for the rank, a scale of 1.
        dropout: float in [0, 1), of what the factors read in training. Layers of tfxformer only.
        targets: which Dense and EinsumDense layers: names ("query", "feed_forward/output": a layer's name or the end
            of its path), or `targets(layer) -> bool`.
        rslora: bool, a scale of alpha / sqrt(rank) (Kalajdzievski, 2023, arXiv:2312.03732).
        also_train: layers that are trained whole, and saved with the adapter: names or a function as `targets`; None
            for the classification heads of tfxformer's tasks, () for none.

    Raises:
        TypeError, ValueError: for values outside these.
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    targets: Choice = QUERY_AND_VALUE
    rslora: bool = False
    also_train: Choice | None = None

    def __post_init__(self):
        if not isinstance(self.rank, Integral) or isinstance(self.rank, bool) or self.rank < 1:
            raise ValueError(
                f"LoRA: rank is the width between the two factors, an integer of 1 or more; got {self.rank!r}."
            )
        if not _is_real(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA: dropout must be at least 0 and below 1; got {self.dropout!r}.")
        if self.alpha is not None and (not _is_real(self.alpha) or self.alpha <= 0):
            raise ValueError(f"LoRA: alpha must be a number above 0, or None for the rank; got {self.alpha!r}.")
        object.__setattr__(self, "targets", _checked("targets", self.targets))
        if self.also_train is not None:
            object.__setattr__(self, "also_train", _checked("also_train", self.also_train))

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
        whole = {id(layer) for layer in self.whole_layers(model)}
        known = [one for one in all_kernels(model) if _is_dense(one.layer) and id(one.layer) not in whole]
        chosen = [one for one in known if _matches(self.targets, one.layer)]
        if not chosen:
            names = sorted({one.layer.name for one in known})
            raise ValueError(
                f"LoRA: targets={_shown(self.targets)} match no layer of {model.name!r}. Its Dense and EinsumDense "
                f"layers are named {', '.join(names[:12]) or '(there are none)'}{', ...' if len(names) > 12 else ''}."
            )
        return chosen

    def whole_layers(self, model: keras.Model) -> list[keras.layers.Layer]:
        """The layers of a model that are trained whole, with those inside them.

        Raises:
            ValueError: where `also_train` matches none.
        """
        layers = list({id(layer): layer for layer in model._flatten_layers(include_self=False)}.values())
        if self.also_train is None:
            chosen = [layer for layer in layers if isinstance(layer, ClassificationHead)]
        else:
            chosen = [layer for layer in layers if _matches(self.also_train, layer)]
            if not chosen and self.also_train != ():
                raise ValueError(f"LoRA: also_train={_shown(self.also_train)} matches no layer of {model.name!r}.")
        return list({id(inner): inner for layer in chosen for inner in layer._flatten_layers()}.values())


def _is_dense(layer) -> bool:
    return isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))


def _matches(choice: Choice, layer) -> bool:
    if callable(choice):
        return bool(choice(layer))
    return any(layer.name == name or f"/{layer.path}".endswith(f"/{name}") for name in choice)


def _checked(field: str, choice) -> Choice:
    if callable(choice):
        return choice
    names = (choice,) if isinstance(choice, str) else choice
    if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"LoRA: {field} are names of layers, or a function layer -> bool; got {choice!r}.")
    return tuple(names)


def _shown(choice: Choice) -> str:
    return getattr(choice, "__name__", repr(choice)) if callable(choice) else repr(choice)


def _is_real(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
